//! What the rules have done: hits of each, when the last one was, and which are switched off. Beside
//! the compiled list, by line; ends with it.
//!
//! Only rules that were hit take memory. Misses are not counted: a flow that one rule decides has
//! missed those before it, so they are the sum of what came later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The counts. Table: one row for each rule that was hit.
#[derive(Default)]
pub struct Tally {
    table: Mutex<Table>,
    /// Whether any rule is off, so that flows need not ask the table.
    any_off: AtomicBool,
}

#[derive(Default)]
struct Table {
    hits: BTreeMap<usize, Count>,
    nothing: Count,
    off: BTreeSet<usize>,
    /// What a rule would have missed while it was off.
    unmissed: BTreeMap<usize, u64>,
    /// What a rule had missed when it was switched off.
    missed_before: BTreeMap<usize, u64>,
}

/// How often, and when last, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How often.
    pub times: u64,
    /// When last; zero: never.
    pub last: Duration,
}

/// What one rule has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Flows that it decided.
    pub hits: Count,
    /// Flows that it let pass.
    pub misses: Count,
    /// Whether it is switched off.
    pub off: bool,
}

impl Tally {
    /// Counts a flow that `rule` decided, or none did.
    pub fn count(&self, rule: Option<usize>, now: Duration) {
        let mut table = self.table();
        let count = match rule {
            Some(rule) => table.hits.entry(rule).or_default(),
            None => &mut table.nothing,
        };
        count.times += 1;
        count.last = now;
    }

    /// Switches a rule off or on.
    pub fn switch(&self, rule: usize, off: bool) {
        let mut table = self.table();
        let missed = table.missed_after(rule).times;
        if off && table.off.insert(rule) {
            table.missed_before.insert(rule, missed);
        } else if !off && table.off.remove(&rule) {
            let before = table.missed_before.remove(&rule).unwrap_or(missed);
            *table.unmissed.entry(rule).or_default() += missed - before;
        }
        self.any_off.store(!table.off.is_empty(), Ordering::Release);
    }

    /// Whether some rule is off.
    #[must_use]
    pub fn any_off(&self) -> bool {
        self.any_off.load(Ordering::Acquire)
    }

    /// Whether a rule is off.
    #[must_use]
    pub fn is_off(&self, rule: usize) -> bool {
        self.any_off() && self.table().off.contains(&rule)
    }

    /// What each of the first `count` rules has done.
    #[must_use]
    pub fn records(&self, count: usize) -> Vec<Record> {
        let table = self.table();
        let mut records = vec![Record::default(); count];
        let mut behind = table.nothing;
        for (rule, record) in records.iter_mut().enumerate().rev() {
            record.misses = behind;
            record.off = table.off.contains(&rule);
            let unmissed = table.unmissed.get(&rule).copied().unwrap_or_default();
            let missed = match table.missed_before.get(&rule) {
                Some(before) => *before,
                None => behind.times,
            };
            record.misses.times = missed.saturating_sub(unmissed);
            if let Some(hits) = table.hits.get(&rule) {
                record.hits = *hits;
                behind.times += hits.times;
                behind.last = behind.last.max(hits.last);
            }
        }
        records
    }

    /// The same of rules that moved to other places. What those did that have none any more is counted
    /// as decided by no rule, so that no count of another goes down.
    #[must_use]
    pub fn moved(&self, place: &dyn Fn(usize) -> Option<usize>) -> Self {
        let table = self.table();
        let mut moved = Table {
            nothing: table.nothing,
            ..Table::default()
        };
        for (rule, count) in &table.hits {
            let to = match place(*rule) {
                Some(rule) => moved.hits.entry(rule).or_default(),
                None => &mut moved.nothing,
            };
            to.times += count.times;
            to.last = to.last.max(count.last);
        }
        let placed = |(rule, times): (&usize, &u64)| Some((place(*rule)?, *times));
        moved.off = table.off.iter().copied().filter_map(place).collect();
        moved.unmissed = table.unmissed.iter().filter_map(placed).collect();
        moved.missed_before = table.missed_before.iter().filter_map(placed).collect();
        Self {
            any_off: AtomicBool::new(!moved.off.is_empty()),
            table: Mutex::new(moved),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn missed_after(&self, rule: usize) -> Count {
        let later = self.hits.range(rule + 1..).map(|(_, count)| count);
        later.fold(self.nothing, |sum, count| Count {
            times: sum.times + count.times,
            last: sum.last.max(count.last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_a_hit_of_one_rule_and_a_miss_of_those_before_it() {
        let tally = Tally::default();
        let at = Duration::from_secs;
        tally.count(Some(2), at(10));
        tally.count(Some(0), at(11));
        tally.count(None, at(12));
        let shown = tally.records(3);
        let hits: Vec<_> = shown.iter().map(|record| record.hits.times).collect();
        let misses: Vec<_> = shown.iter().map(|record| record.misses.times).collect();
        assert_eq!((hits, misses), (vec![1, 0, 1], vec![2, 2, 1]));
        assert_eq!(shown[0].hits.last, at(11));
        assert_eq!(shown[0].misses.last, at(12));
        assert_eq!(shown[2].hits.last, at(10));
    }

    #[test]
    fn a_rule_that_is_off_misses_nothing() {
        let tally = Tally::default();
        tally.count(Some(1), Duration::ZERO);
        tally.switch(0, true);
        assert!(tally.is_off(0) && !tally.is_off(1));
        tally.count(Some(1), Duration::ZERO);
        assert_eq!(tally.records(2)[0].misses.times, 1);
        tally.switch(0, false);
        assert!(!tally.any_off());
        assert_eq!(tally.records(2)[0].misses.times, 1);
        tally.count(None, Duration::ZERO);
        assert_eq!(tally.records(2)[0].misses.times, 2);
        assert_eq!(tally.records(2)[1].misses.times, 1);
    }
}
