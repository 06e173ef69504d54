//! A rule's counters and speeds (emqx-api.md 4.11).
//!
//! Speeds are of ten-second slots. No timer fills them: whoever counts or asks first closes the slots
//! that are past.

use crate::mqtt::Time;

/// Length of a slot.
const SLOT_MS: Time = 10_000;

/// Slots of five minutes.
const SLOTS: usize = 30;

/// Counters of one rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub matched: u64,
    pub passed: u64,
    pub no_result: u64,
    pub exception: u64,
    /// Matched in the slot that is open.
    open: u32,
    slot: Time,
    /// The closed slots; the last one closed stands at `closed - 1` modulo [`SLOTS`].
    past: Vec<u32>,
    closed: usize,
    fastest: u32,
}

/// Events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speeds {
    /// Of the last ten seconds.
    pub now: f64,
    /// The greatest of ten seconds so far.
    pub max: f64,
    /// Of the last five minutes.
    pub last5m: f64,
}

impl Counters {
    /// Counts an event.
    pub(super) fn count(&mut self, now: Time) {
        self.close_slots(now);
        self.matched += 1;
        self.open = self.open.saturating_add(1);
    }

    pub(super) fn speeds(&mut self, now: Time) -> Speeds {
        self.close_slots(now);
        let last = self
            .closed
            .checked_sub(1)
            .and_then(|at| self.past.get(at % SLOTS));
        let sum: u64 = self.past.iter().map(|count| u64::from(*count)).sum();
        let filled = u32::try_from(self.past.len().max(1)).unwrap_or(1);
        #[expect(clippy::cast_precision_loss, reason = "a speed with two decimals")]
        let sum = sum as f64;
        Speeds {
            now: rounded(f64::from(last.copied().unwrap_or(0)) / 10.0),
            max: rounded(f64::from(self.fastest) / 10.0),
            last5m: rounded(sum / 10.0 / f64::from(filled)),
        }
    }

    fn close_slots(&mut self, now: Time) {
        let slot = now / SLOT_MS;
        if slot == self.slot {
            return;
        }
        if self.slot > 0 {
            let past = usize::try_from(slot - self.slot)
                .unwrap_or(SLOTS)
                .min(SLOTS + 1);
            for _ in 0..past {
                let count = std::mem::take(&mut self.open);
                self.fastest = self.fastest.max(count);
                match self.past.get_mut(self.closed % SLOTS) {
                    Some(place) => *place = count,
                    None => self.past.push(count),
                }
                self.closed += 1;
            }
        }
        self.slot = slot;
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// What all rules together have done, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Events that FROM matched, those that gave rows, those that did not.
    pub rules: [u64; 3],
    /// Actions tried, done, and not done.
    pub actions: [u64; 3],
    /// Rules, actions and resources: how many there are, and the most since the start.
    pub held: [[usize; 2]; 3],
}

impl Totals {
    /// The counters by EMQX's names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        let [matched, passed, failed] = self.rules;
        let [taken, success, not_done] = self.actions;
        [
            ("rules.matched", matched),
            ("rules.passed", passed),
            ("rules.failed", failed),
            ("actions.taken", taken),
            ("actions.success", success),
            // Of 4.1 and of 4.3.
            ("actions.failure", not_done),
            ("actions.failed", not_done),
        ]
    }

    /// What is held, by EMQX's names.
    #[must_use]
    pub fn gauges(&self) -> [(&'static str, [usize; 2]); 3] {
        let [rules, actions, resources] = self.held;
        [
            ("rules", rules),
            ("actions", actions),
            ("resources", resources),
        ]
    }
}

/// So many at once, and so many a second.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Thousandths.
    left: u64,
    filled: Time,
    rate: u32,
    depth: u64,
}

impl Bucket {
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let depth = u64::from(burst) * 1000;
        Self {
            left: depth,
            filled: 0,
            rate,
            depth,
        }
    }

    /// Takes one; `false`: there is none.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let passed = now.saturating_sub(self.filled);
        self.filled = now;
        let fresh = passed.saturating_mul(self.rate.into());
        self.left = self.left.saturating_add(fresh).min(self.depth);
        let taken = self.left.checked_sub(1000);
        self.left = taken.unwrap_or(self.left);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_of_closed_slots() {
        let mut counters = Counters::default();
        for i in 0..50 {
            counters.count(100_000 + i);
        }
        assert_eq!(counters.speeds(105_000), Speeds::default());
        let speeds = counters.speeds(110_000);
        assert_eq!((speeds.now, speeds.max, speeds.last5m), (5.0, 5.0, 5.0));
        let speeds = counters.speeds(130_000);
        assert_eq!((speeds.now, speeds.max, speeds.last5m), (0.0, 5.0, 1.67));
        let speeds = counters.speeds(10_000_000);
        assert_eq!((speeds.now, speeds.max, speeds.last5m), (0.0, 5.0, 0.0));
        assert_eq!(counters.matched, 50);
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(10, 5);
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, 1_000_000), 5);
        assert_eq!(taken(&mut bucket, 1_000_200), 2);
        assert_eq!(taken(&mut bucket, 2_000_000), 5);
    }
}
