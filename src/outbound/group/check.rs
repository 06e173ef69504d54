//! When a group's members must be tested again (clash-api.md 4.5, "Periodic test", "Failure triggers").
//!
//! A machine: time is an argument, and whoever drives it sleeps until [`Check::due`]. One round at
//! the start, then one every interval; a lazy group only when it was used since the last round
//! began, so that a group that nobody uses costs nothing, not even a timer. A round that nothing
//! answered is repeated soon: at boot the WAN may come up last.
//!
//! Dials that fail bring the next round forward: a refusal at once, other failures when there were
//! several in a short time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::outbound::options::TestOptions;

/// The next round after one that nothing answered.
const AGAIN: Duration = Duration::from_secs(15);

/// Failures bring a round forward at most so often: dead nodes must not be tested all the time.
const FORCED_EVERY: Duration = Duration::from_secs(5);

/// How a dial failed, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused the connection.
    Refused,
    /// Anything else.
    Other,
}

impl Failure {
    /// What `error` means.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused
        } else {
            Self::Other
        }
    }
}

/// When the next round is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now,
    /// Then, or now if that is past.
    At(Instant),
    /// When the group is used; its driver is woken then.
    Used,
    /// Never.
    Never,
}

/// The state of one group's tests.
pub struct Check {
    /// Zero: no periodic tests.
    interval: Duration,
    lazy: bool,
    failures_max: u32,
    failure_window: Duration,
    /// Whether the group was used since the last round began. Beside the lock: every flow sets it.
    used: AtomicBool,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// When the last round began.
    last: Option<Instant>,
    /// When the last one began that was asked for.
    last_forced: Option<Instant>,
    /// Whether the last round found anybody alive.
    fruitful: bool,
    /// A round was asked for, then.
    forced: Option<Instant>,
    /// Failures since `first_failure`.
    failures: u32,
    first_failure: Option<Instant>,
}

impl Check {
    /// Tests as `options` say; `wake` is notified when [`Check::due`] comes nearer.
    #[must_use]
    pub fn new(options: &TestOptions, wake: Arc<Notify>) -> Self {
        Self {
            interval: options.interval,
            lazy: options.lazy,
            failures_max: options.failures_max,
            failure_window: options.timeout,
            used: AtomicBool::new(false),
            state: Mutex::default(),
            wake,
        }
    }

    /// When the next round is due.
    #[must_use]
    pub fn due(&self) -> Due {
        let state = self.lock();
        if let Some(forced) = state.forced {
            return Due::At(forced);
        }
        if self.interval.is_zero() {
            return Due::Never;
        }
        match state.last {
            None => Due::Now,
            Some(_) if self.lazy && !self.used.load(Ordering::Relaxed) => Due::Used,
            Some(last) if state.fruitful => Due::At(last + self.interval),
            Some(last) => Due::At(last + self.interval.min(AGAIN)),
        }
    }

    /// A round begins `now`; results since the time that this answers are new enough for it.
    pub fn begin(&self, now: Instant) -> Instant {
        self.used.store(false, Ordering::Relaxed);
        let mut state = self.lock();
        let forced = state.forced.take();
        if forced.is_some() {
            state.last_forced = Some(now);
        }
        let since = forced.map_or(now, |forced| forced.min(now));
        state.last = Some(now);
        (state.failures, state.first_failure) = (0, None);
        since
    }

    /// The round is over; `fruitful`: somebody is alive.
    pub fn end(&self, fruitful: bool) {
        self.lock().fruitful = fruitful;
    }

    /// A flow uses the group.
    pub fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) && !self.used.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Asks for a round `now`, or as soon as the last forced one allows.
    pub fn force(&self, now: Instant) {
        let mut state = self.lock();
        if state.forced.is_none() {
            let earliest = state.last_forced.map_or(now, |last| last + FORCED_EVERY);
            state.forced = Some(earliest.max(now));
            drop(state);
            self.wake.notify_one();
        }
    }

    /// A dial through the group succeeded.
    pub fn succeeded(&self) {
        let mut state = self.lock();
        (state.failures, state.first_failure) = (0, None);
    }

    /// A dial through the group failed.
    pub fn failed(&self, failure: Failure, now: Instant) {
        let mut state = self.lock();
        if failure == Failure::Other {
            let first = *state.first_failure.get_or_insert(now);
            if now.duration_since(first) > self.failure_window {
                (state.failures, state.first_failure) = (1, Some(now));
            } else {
                state.failures += 1;
            }
            if state.failures < self.failures_max {
                return;
            }
        }
        drop(state);
        self.force(now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;

    fn check(seconds: u64, lazy: bool) -> Check {
        let options = TestOptions {
            interval: Duration::from_secs(seconds),
            lazy,
            failures_max: 3,
            timeout: Duration::from_secs(5),
            ..TestOptions::default()
        };
        Check::new(&options, Arc::default())
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A whole round at `now`.
    fn round(check: &Check, now: Instant, fruitful: bool) {
        check.begin(now);
        check.end(fruitful);
    }

    #[test]
    fn the_first_round_is_at_once_and_the_next_after_the_interval() {
        let (check, now) = (check(300, false), clock::now());
        assert_eq!(check.due(), Due::Now);
        round(&check, now, true);
        assert_eq!(check.due(), Due::At(now + seconds(300)));
    }

    #[test]
    fn a_lazy_group_waits_until_it_is_used() {
        let (check, now) = (check(300, true), clock::now());
        assert_eq!(check.due(), Due::Now, "one round regardless");
        round(&check, now, true);
        assert_eq!(check.due(), Due::Used);
        check.touch();
        assert_eq!(check.due(), Due::At(now + seconds(300)));
        round(&check, now + seconds(300), true);
        assert_eq!(check.due(), Due::Used, "used before that round only");
    }

    #[test]
    fn a_round_that_nothing_answered_is_repeated_soon() {
        let (check, now) = (check(300, false), clock::now());
        round(&check, now, false);
        assert_eq!(check.due(), Due::At(now + AGAIN));
    }

    #[test]
    fn without_an_interval_only_failures_bring_a_round() {
        let (check, now) = (check(0, false), clock::now());
        assert_eq!(check.due(), Due::Never);
        check.failed(Failure::Refused, now);
        assert_eq!(check.due(), Due::At(now));
    }

    #[test]
    fn a_refusal_brings_a_round_at_once_but_not_all_the_time() {
        let (check, now) = (check(300, true), clock::now());
        round(&check, now, true);
        check.failed(Failure::Refused, now + seconds(60));
        assert_eq!(check.due(), Due::At(now + seconds(60)));
        round(&check, now + seconds(60), false);
        check.failed(Failure::Refused, now + seconds(61));
        assert_eq!(check.due(), Due::At(now + seconds(60) + FORCED_EVERY));
    }

    #[test]
    fn several_failures_in_a_short_time_bring_a_round() {
        let (check, now) = (check(300, true), clock::now());
        round(&check, now, true);
        let fail = |at| check.failed(Failure::Other, now + seconds(at));
        [10, 11, 16].into_iter().for_each(fail);
        assert_eq!(check.due(), Due::Used, "the first is too long ago");
        fail(17);
        check.succeeded();
        [18, 19].into_iter().for_each(fail);
        assert_eq!(check.due(), Due::Used, "a success begins the count anew");
        fail(20);
        assert_eq!(check.due(), Due::At(now + seconds(20)));
    }
}
