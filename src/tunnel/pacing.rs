//! Rates: how many bytes a second each user may move, in each direction, over all his flows together.
//!
//! [`Pace`] is pure: time is an argument. Streams wait ([`Paced`]), datagrams beyond the rate are dropped. A
//! stream with a rate is copied, never spliced; those of everybody else do not know that there are rates.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::quota::Limits;
use crate::outbound::carrier::Carrier;
use crate::outbound::{ByteStream, Stream};
use crate::platform::clock;

/// For so long a user may be ahead of his rate.
const AHEAD_MAX: Duration = Duration::from_millis(100);

/// Bytes that are moved at a time: less than a second's at any rate worth the name.
const PIECE_MAX: usize = 16 * 1024;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// One user's rate, and how far ahead of it he is. Shared by his flows.
pub struct Pace(Mutex<Ahead>);

struct Ahead {
    bytes_a_second: u64,
    /// When what he moved is paid for, up and down.
    paid: [Option<Instant>; 2],
}

impl Pace {
    fn new(bytes_a_second: u64) -> Self {
        Self(Mutex::new(Ahead {
            bytes_a_second,
            paid: [None; 2],
        }))
    }

    fn set(&self, bytes_a_second: u64) {
        locked(&self.0).bytes_a_second = bytes_a_second;
    }

    /// Notes that `bytes` move at `now`; how long nothing more shall.
    pub fn charge(&self, way: Way, now: Instant, bytes: usize) -> Duration {
        let mut ahead = locked(&self.0);
        let rate = ahead.bytes_a_second.max(1);
        let [up, down] = &mut ahead.paid;
        let paid = if way == Way::Up { up } else { down };
        let nanoseconds =
            u128::try_from(bytes).unwrap_or(u128::MAX) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        (until - now).saturating_sub(AHEAD_MAX)
    }

    /// Whether a datagram may pass at `now`; it is charged then.
    pub fn passes(&self, way: Way, now: Instant, bytes: usize) -> bool {
        let due = self.charge(way, now, 0).is_zero();
        if due {
            self.charge(way, now, bytes);
        }
        due
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rates of all users. Table: one row a user with a rate and a flow.
#[derive(Default)]
pub struct Pacing {
    state: Mutex<State>,
    /// Whether anybody has one, so that flows need not ask the table.
    any: AtomicBool,
}

#[derive(Default)]
struct State {
    limits: Limits,
    users: BTreeMap<Arc<str>, Weak<Pace>>,
}

impl Pacing {
    /// Has these rates hold; also for flows that have one already.
    pub fn limit(&self, limits: Limits) {
        let mut state = locked(&self.state);
        state.users.retain(|_, pace| pace.strong_count() > 0);
        for (user, pace) in &state.users {
            if let Some(pace) = pace.upgrade() {
                pace.set(limits.of(user).unwrap_or(u64::MAX));
            }
        }
        self.any.store(!limits.is_empty(), Ordering::Release);
        state.limits = limits;
    }

    /// The user's, if he has one.
    #[must_use]
    pub fn of(&self, user: Option<&Arc<str>>) -> Option<Arc<Pace>> {
        let user = user.filter(|_| self.any.load(Ordering::Acquire))?;
        let mut state = locked(&self.state);
        let rate = state.limits.of(user)?;
        if let Some(pace) = state.users.get(user).and_then(Weak::upgrade) {
            return Some(pace);
        }
        state.users.retain(|_, pace| pace.strong_count() > 0);
        let pace = Arc::new(Pace::new(rate));
        state.users.insert(Arc::clone(user), Arc::downgrade(&pace));
        Some(pace)
    }
}

/// A client's stream that keeps to its user's pace.
pub struct Paced {
    stream: Box<dyn ByteStream>,
    pace: Arc<Pace>,
    /// Until these are over nothing moves.
    pauses: [Option<Pin<Box<Sleep>>>; 2],
}

impl Paced {
    /// `client` at that pace.
    #[must_use]
    pub fn stream(client: Stream, pace: Option<Arc<Pace>>) -> Stream {
        let Some(pace) = pace else {
            return client;
        };
        match Carrier::of(client) {
            Some(carrier) => Stream::Boxed(Box::new(Self {
                stream: carrier.boxed(),
                pace,
                pauses: [None, None],
            })),
            None => Stream::Closed,
        }
    }

    fn pause(&mut self, way: Way) -> &mut Option<Pin<Box<Sleep>>> {
        let [up, down] = &mut self.pauses;
        if way == Way::Up { up } else { down }
    }

    fn poll_pause(&mut self, way: Way, cx: &mut Context<'_>) -> Poll<()> {
        let pause = self.pause(way);
        if let Some(sleeping) = pause {
            ready!(sleeping.as_mut().poll(cx));
            *pause = None;
        }
        Poll::Ready(())
    }

    fn moved(&mut self, way: Way, bytes: usize) {
        let pause = self.pace.charge(way, clock::now(), bytes);
        if !pause.is_zero() {
            *self.pause(way) = Some(Box::pin(sleep(pause)));
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_pause(Way::Up, cx));
        let most = buffer.remaining().min(PIECE_MAX);
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        let n = piece.filled().len();
        buffer.advance(n);
        self.moved(Way::Up, n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pause(Way::Down, cx));
        let piece = bytes.get(..PIECE_MAX).unwrap_or(bytes);
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, piece))?;
        self.moved(Way::Down, n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates(list: &[(&str, u64)], others: Option<u64>) -> Limits {
        let named = list.iter().map(|(user, rate)| ((*user).into(), *rate));
        Limits {
            named: named.collect(),
            others,
        }
    }

    #[test]
    fn what_was_moved_is_paid_for_in_time_each_way_by_itself() {
        let (pace, now) = (Pace::new(1000), clock::now());
        assert_eq!(pace.charge(Way::Up, now, 100), Duration::ZERO);
        assert_eq!(pace.charge(Way::Up, now, 1000), SECOND);
        assert_eq!(pace.charge(Way::Up, now + SECOND, 0), Duration::ZERO);
        assert!(pace.passes(Way::Down, now, 1100));
        assert!(!pace.passes(Way::Down, now, 1));
        // A pause earns nothing.
        let later = now + 60 * SECOND;
        assert_eq!(pace.charge(Way::Up, later, 1100), SECOND);
    }

    #[test]
    fn flows_of_a_user_share_his_pace_and_follow_what_is_configured() {
        let (pacing, ann, bob) = (Pacing::default(), "ann".into(), "bob".into());
        assert!(pacing.of(Some(&ann)).is_none());
        pacing.limit(rates(&[("ann", 10)], None));
        let first = pacing.of(Some(&ann)).unwrap();
        assert!(Arc::ptr_eq(&first, &pacing.of(Some(&ann)).unwrap()));
        assert!(pacing.of(Some(&bob)).is_none() && pacing.of(None).is_none());
        pacing.limit(rates(&[], Some(1_000_000)));
        assert_eq!(first.charge(Way::Up, clock::now(), 1000), Duration::ZERO);
        assert!(pacing.of(Some(&bob)).is_some());
        pacing.limit(Limits::default());
        assert!(pacing.of(Some(&ann)).is_none());
        let now = clock::now();
        assert_eq!(first.charge(Way::Up, now, 1 << 30), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_stream_takes_its_time_and_loses_nothing() {
        let (near, mut far) = duplex(1 << 20);
        let pace = Arc::new(Pace::new(400_000));
        let Stream::Boxed(mut paced) = Paced::stream(Stream::Boxed(Box::new(near)), Some(pace))
        else {
            panic!("not paced");
        };
        let text = vec![7; 120_000];
        far.write_all(&text).await.unwrap();
        let begun = clock::now();
        let mut got = vec![0; text.len()];
        paced.read_exact(&mut got).await.unwrap();
        paced.write_all(&got).await.unwrap();
        far.read_exact(&mut got).await.unwrap();
        assert!(got == text);
        // Each way 0.3 s, of which it may be ahead by a tenth of a second and by one piece.
        let least = 2 * (Duration::from_millis(300) - AHEAD_MAX - SECOND * 16 / 400);
        assert!(clock::now() - begun >= least);
    }
}
