//! The streams that are in and not yet entered into the table of connections: those that are sniffed, decided
//! and dialled, and those that never will be entered (DNS that was captured, silent refusals). They hold
//! seats as the entered ones do. So each device is reckoned with what it has under way here, and when
//! seats lack it can be cut.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Slots that are kept when nobody needs them.
const KEPT: usize = 256;

/// Who prepares: slots, of which free ones are used again.
#[derive(Default)]
pub(super) struct Preparing(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    all: Vec<Option<Slot>>,
    free: Vec<usize>,
}

struct Slot {
    source: IpAddr,
    /// When it began: seconds of the coarse clock.
    since: u32,
    cut: bool,
    waker: Option<Waker>,
}

/// One stream's slot, given up when it is dropped.
pub struct Turn<'a> {
    preparing: &'a Preparing,
    slot: usize,
}

impl Preparing {
    /// A stream from `source` begins at `now` (seconds of the coarse clock).
    pub(super) fn begin(&self, source: IpAddr, now: u32) -> Turn<'_> {
        let mut slots = self.slots();
        let taken = Some(Slot {
            source,
            since: now,
            cut: false,
            waker: None,
        });
        let free = slots.free.pop();
        let slot = free.unwrap_or(slots.all.len());
        match slots.all.get_mut(slot) {
            Some(place) => *place = taken,
            None => slots.all.push(taken),
        }
        Turn {
            preparing: self,
            slot,
        }
    }

    /// Shows `look` whence each comes.
    pub(super) fn for_each(&self, look: &mut dyn FnMut(IpAddr)) {
        for slot in self.slots().all.iter().flatten() {
            look(slot.source);
        }
    }

    /// Cuts up to `count` of those that are `meant`, by whence they come and when they began. How many there were.
    pub(super) fn cut(&self, count: usize, meant: &dyn Fn(IpAddr, u32) -> bool) -> usize {
        let mut wakers = Vec::new();
        let mut done = 0;
        for slot in self.slots().all.iter_mut().flatten() {
            if done >= count {
                break;
            }
            if !slot.cut && meant(slot.source, slot.since) {
                slot.cut = true;
                done += 1;
                wakers.extend(slot.waker.take());
            }
        }
        // Not under the lock: waking may drop the stream's task, and with it its turn.
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// What `work` comes to; none when it was cut before.
    pub async fn limit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.is_cut(cx.waker()) {
            true => Poll::Ready(None),
            false => work.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Whether it was cut; `waker` is woken when it is.
    fn is_cut(&self, waker: &Waker) -> bool {
        let mut slots = self.preparing.slots();
        let Some(Some(slot)) = slots.all.get_mut(self.slot) else {
            return true;
        };
        let known = slot.waker.as_ref();
        if !slot.cut && !known.is_some_and(|known| known.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
        slot.cut
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut slots = self.preparing.slots();
        let gone = slots.all.get_mut(self.slot).and_then(Option::take);
        slots.free.push(self.slot);
        if slots.free.len() == slots.all.len() {
            slots.free.clear();
            slots.all.clear();
            slots.free.shrink_to(KEPT);
            slots.all.shrink_to(KEPT);
        }
        drop(slots);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2));

    fn of_one(source: IpAddr, _: u32) -> bool {
        source == ONE
    }

    fn is_cut(turn: &Turn<'_>) -> bool {
        turn.is_cut(Waker::noop())
    }

    #[test]
    fn a_device_is_cut_and_no_other() {
        let preparing = Preparing::default();
        let turns = [ONE, OTHER, ONE, ONE].map(|source| preparing.begin(source, 5));
        assert_eq!(preparing.cut(2, &of_one), 2);
        assert_eq!(turns.each_ref().map(is_cut), [true, false, true, false]);
        assert_eq!(preparing.cut(9, &of_one), 1);
        assert_eq!(preparing.cut(9, &of_one), 0);
        assert!(!is_cut(&turns[1]));
    }

    #[test]
    fn who_prepares_for_long_is_cut() {
        let preparing = Preparing::default();
        let (old, new) = (preparing.begin(ONE, 5), preparing.begin(ONE, 6));
        assert_eq!(preparing.cut(9, &|_, since| since <= 5), 1);
        assert!(is_cut(&old) && !is_cut(&new));
    }

    #[test]
    fn slots_are_used_again_and_given_back() {
        let preparing = Preparing::default();
        let turns: Vec<_> = (0..1000).map(|_| preparing.begin(ONE, 0)).collect();
        drop(turns);
        assert!(preparing.slots().all.capacity() <= KEPT);
        let first = preparing.begin(ONE, 0);
        let slot = first.slot;
        let _second = preparing.begin(OTHER, 0);
        drop(first);
        assert_eq!(preparing.begin(OTHER, 0).slot, slot);
        let mut seen = Vec::new();
        preparing.for_each(&mut |source| seen.push(source));
        assert_eq!(seen, [OTHER]);
    }

    #[test]
    fn a_cut_ends_the_work_and_wakes_its_task() {
        let preparing = Preparing::default();
        let turn = preparing.begin(ONE, 0);
        let mut waiting = Box::pin(turn.limit(std::future::pending::<()>()));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(cx).is_pending());
        assert_eq!(preparing.cut(1, &of_one), 1);
        assert!(matches!(waiting.as_mut().poll(cx), Poll::Ready(None)));
        drop(waiting);
        let done = preparing.begin(OTHER, 0);
        let mut done = Box::pin(done.limit(std::future::ready(7)));
        assert!(matches!(done.as_mut().poll(cx), Poll::Ready(Some(7))));
    }
}
