//! What delay tests have found of one outbound: the newest results, over all URLs and for each
//! (clash-api.md 1.8). Takes no part in testing; `probe` does that and records here.
//!
//! Table: shared by the groups that hold the outbound, the controllers and the tests. An outbound
//! that was never tested counts as alive and costs no allocation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Results kept, over all URLs and for each; the oldest is dropped.
const HISTORY_MAX: usize = 10;

/// URLs told apart for one outbound; the one that was tested longest ago is dropped.
const URLS_MAX: usize = 8;

/// The delay of an outbound that has none: dead, or not tested.
pub const NO_DELAY: u16 = u16::MAX;

/// Counter: how many results were recorded anywhere, so that a group knows that its choice may be
/// out of date. It may wrap.
static RECORDED: AtomicUsize = AtomicUsize::new(0);

/// A number that changes whenever some outbound has a new result.
pub fn generation() -> usize {
    RECORDED.load(Ordering::Acquire)
}

/// One entry of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tested {
    /// Since 1970.
    pub time: Duration,
    /// Milliseconds; 0: no good answer.
    pub delay: u16,
}

/// What a test found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer after so many milliseconds (at least 1), with an expected status or with another.
    Answer {
        /// Milliseconds.
        delay: u16,
        /// Whether its status was one of those expected.
        expected: bool,
    },
    /// No answer.
    Nothing,
}

/// What is known by one URL.
#[derive(Clone, Debug)]
pub struct UrlHealth {
    /// As it was asked for.
    pub url: Box<str>,
    /// Whether the last test got an expected answer.
    pub alive: bool,
    /// Newest last; 0 also for an answer with another status than expected.
    pub history: Vec<Tested>,
    /// When the last test ended.
    last: Instant,
    /// How many tests there were; wraps.
    tests: u32,
}

/// What the APIs show.
#[derive(Clone, Debug)]
pub struct View {
    /// Whether the last test of any URL got an answer.
    pub alive: bool,
    /// Newest last.
    pub history: Vec<Tested>,
    /// By URL.
    pub urls: Vec<UrlHealth>,
}

/// The health of one outbound.
pub struct Health {
    view: Mutex<View>,
    /// Held by a periodic test, so that groups that share the outbound share the result.
    turn: tokio::sync::Mutex<()>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            view: Mutex::new(View {
                alive: true,
                history: Vec::new(),
                urls: Vec::new(),
            }),
            turn: tokio::sync::Mutex::new(()),
        }
    }
}

impl Health {
    /// Enters the result of a test of `url` that ended `now`, at `time` by the wall clock.
    pub fn record(&self, url: &str, outcome: Outcome, time: Duration, now: Instant) {
        let (delay, alive, expected) = match outcome {
            Outcome::Answer { delay, expected } => (delay, true, expected),
            Outcome::Nothing => (0, false, false),
        };
        let mut view = self.lock();
        view.alive = alive;
        push(&mut view.history, Tested { time, delay });
        let known = view.urls.iter().position(|known| *known.url == *url);
        let mut entry = match known {
            Some(index) => view.urls.remove(index),
            None => UrlHealth {
                url: url.into(),
                alive: true,
                history: Vec::new(),
                last: now,
                tests: 0,
            },
        };
        entry.alive = expected;
        entry.last = now;
        entry.tests = entry.tests.wrapping_add(1);
        let delay = if expected { delay } else { 0 };
        push(&mut entry.history, Tested { time, delay });
        if view.urls.len() == URLS_MAX {
            view.urls.remove(0);
        }
        view.urls.push(entry);
        drop(view);
        RECORDED.fetch_add(1, Ordering::Release);
    }

    /// Whether it answers `url`, or any URL as long as that one was never tested.
    #[must_use]
    pub fn is_alive(&self, url: &str) -> bool {
        let view = self.lock();
        view.find(url).map_or(view.alive, |entry| entry.alive)
    }

    /// Its last delay by `url` in milliseconds, or [`NO_DELAY`].
    #[must_use]
    pub fn delay(&self, url: &str) -> u16 {
        let view = self.lock();
        let entry = view.find(url).filter(|entry| entry.alive);
        let last = entry.and_then(|entry| entry.history.last());
        last.map_or(NO_DELAY, |tested| tested.delay)
    }

    /// How often `url` was tested; equal numbers mean that nothing new is known.
    #[must_use]
    pub fn tests(&self, url: &str) -> u32 {
        self.lock().find(url).map_or(0, |entry| entry.tests)
    }

    /// Whether `url` was tested at `since` or later.
    #[must_use]
    pub fn is_tested_since(&self, url: &str, since: Instant) -> bool {
        self.lock()
            .find(url)
            .is_some_and(|entry| entry.last >= since)
    }

    /// A copy of everything.
    #[must_use]
    pub fn view(&self) -> View {
        self.lock().clone()
    }

    /// Waits for whoever is testing the outbound periodically.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn find(&self, url: &str) -> Option<&UrlHealth> {
        self.urls.iter().find(|entry| *entry.url == *url)
    }
}

fn push(history: &mut Vec<Tested>, tested: Tested) {
    if history.len() == HISTORY_MAX {
        history.remove(0);
    }
    history.push(tested);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;

    const GOOD: Outcome = Outcome::Answer {
        delay: 7,
        expected: true,
    };
    const ODD: Outcome = Outcome::Answer {
        delay: 8,
        expected: false,
    };

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_never_tested_is_alive_without_a_delay() {
        let health = Health::default();
        assert!(health.is_alive("u"));
        assert_eq!(health.delay("u"), NO_DELAY);
        assert!(health.view().history.is_empty());
    }

    #[test]
    fn results_are_kept_by_url() {
        let (health, now) = (Health::default(), clock::now());
        let before = generation();
        health.record("u", GOOD, after(1), now);
        health.record("v", Outcome::Nothing, after(2), now + after(1));
        assert_ne!(generation(), before);
        assert!(health.is_alive("u") && !health.is_alive("v"));
        assert!(!health.is_alive("w"), "by the last test of any URL");
        assert_eq!((health.delay("u"), health.delay("v")), (7, NO_DELAY));
        assert_eq!((health.tests("u"), health.tests("w")), (1, 0));
        assert!(health.is_tested_since("u", now));
        assert!(!health.is_tested_since("u", now + after(1)));
        let delays: Vec<_> = health.view().history.iter().map(|t| t.delay).collect();
        assert_eq!(delays, [7, 0]);
    }

    #[test]
    fn an_unexpected_status_is_an_answer_but_not_to_that_url() {
        let (health, now) = (Health::default(), clock::now());
        health.record("u", ODD, after(1), now);
        let view = health.view();
        assert!(view.alive && !view.urls[0].alive);
        assert_eq!(
            (view.history[0].delay, view.urls[0].history[0].delay),
            (8, 0)
        );
        assert_eq!(health.delay("u"), NO_DELAY);
    }

    #[test]
    fn the_newest_ten_results_and_eight_urls_are_kept() {
        let (health, now) = (Health::default(), clock::now());
        for second in 0..30 {
            health.record("u", GOOD, after(second), now);
        }
        let view = health.view();
        assert_eq!((view.history.len(), view.urls[0].history.len()), (10, 10));
        assert_eq!(view.history[9].time, after(29));
        for url in 0..20 {
            health.record(&url.to_string(), GOOD, after(0), now);
        }
        let view = health.view();
        assert_eq!((view.urls.len(), &*view.urls[0].url), (URLS_MAX, "12"));
    }
}
