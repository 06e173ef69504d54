//! One answer that a thread waits for, for a time.
//!
//! A channel of the standard library does the same with a queue; with the kinds of answers that there
//! are here that was 60 KB of code on mips.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The end that answers. Dropped without an answer, it ends the waiting.
#[derive(Debug)]
pub struct Reply<T>(Arc<Place<T>>);

/// The end that waits.
#[derive(Debug)]
pub struct Awaited<T>(Arc<Place<T>>);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Not yet.
    Late,
    /// Nobody is left who could give it.
    Gone,
}

#[derive(Debug)]
struct Place<T> {
    state: State,
    answer: Mutex<Option<T>>,
}

#[derive(Debug)]
struct State {
    phase: Mutex<Phase>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Answered,
    /// One end is gone.
    Left,
}

impl State {
    /// Whether it was open until now.
    fn end(&self, how: Phase) -> bool {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = *phase == Phase::Open;
        if was_open {
            *phase = how;
            self.changed.notify_one();
        }
        was_open
    }

    fn wait(&self, patience: Duration) -> Phase {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(phase, patience, |phase| *phase == Phase::Open);
        let (phase, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *phase
    }
}

impl<T> Place<T> {
    fn take(&self) -> Option<T> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.take()
    }
}

/// The two ends.
#[must_use]
pub fn reply<T>() -> (Reply<T>, Awaited<T>) {
    let place = Arc::new(Place {
        state: State {
            phase: Mutex::new(Phase::Open),
            changed: Condvar::new(),
        },
        answer: Mutex::new(None),
    });
    (Reply(Arc::clone(&place)), Awaited(place))
}

impl<T> Reply<T> {
    /// Gives the answer.
    ///
    /// # Errors
    /// The answer, where nobody waits for it any more.
    pub fn send(self, answer: T) -> Result<(), T> {
        *self.0.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        if self.0.state.end(Phase::Answered) {
            return Ok(());
        }
        self.0.take().map_or(Ok(()), Err)
    }
}

impl<T> Awaited<T> {
    /// Waits at most so long. Blocks.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn wait(self, patience: Duration) -> Result<T, Missing> {
        match self.0.state.wait(patience) {
            Phase::Open => Err(Missing::Late),
            Phase::Answered | Phase::Left => self.0.take().ok_or(Missing::Gone),
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.state.end(Phase::Left);
    }
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        self.0.state.end(Phase::Left);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_comes_before_or_after_one_waits() {
        let (sender, awaited) = reply();
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(awaited.wait(Duration::ZERO), Ok(1));
        let (sender, awaited) = reply();
        let other = thread::spawn(move || sender.send(2));
        assert_eq!(awaited.wait(LONG), Ok(2));
        assert_eq!(other.join().unwrap(), Ok(()));
    }

    #[test]
    fn none_comes_when_the_other_end_is_gone_or_late() {
        let (sender, awaited) = reply::<u8>();
        let other = thread::spawn(move || drop(sender));
        assert_eq!(awaited.wait(LONG), Err(Missing::Gone));
        other.join().unwrap();
        let (sender, awaited) = reply();
        assert_eq!(awaited.wait(Duration::ZERO), Err(Missing::Late));
        assert_eq!(sender.send("late"), Err("late"));
    }
}
