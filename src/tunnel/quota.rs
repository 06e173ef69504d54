//! Monthly quotas: how much each user has moved this month, and who may open no more flows.
//!
//! The clock and the sums are arguments. Who looks after it ([`Quotas::settle`]) does so every few seconds, so
//! a user may move for that long beyond his quota; then his flows are cut and new ones refused until the month
//! ends or the quota grows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes by user name: of a month, or of a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of those named.
    pub named: BTreeMap<Box<str>, u64>,
    /// Of everybody else who logs in; `None`: no limit.
    pub others: Option<u64>,
}

impl Limits {
    /// Whether there is no limit at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.others.is_none()
    }

    /// That user's, if there is one.
    #[must_use]
    pub fn of(&self, user: &str) -> Option<u64> {
        self.named.get(user).copied().or(self.others)
    }
}

/// The usage of each user who has a limit. Table: one row a user who moved something.
#[derive(Default)]
pub struct Quotas {
    state: Mutex<State>,
    /// Whether anybody is barred, so that flows need not ask the table.
    any: AtomicBool,
}

#[derive(Default)]
struct State {
    limits: Limits,
    month: u32,
    users: BTreeMap<Arc<str>, Usage>,
}

#[derive(Default)]
struct Usage {
    /// This month's bytes.
    used: u64,
    /// The user's sum when it was last looked at.
    seen: u64,
    barred: bool,
}

impl Quotas {
    /// Has these limits hold from the next settling on.
    pub fn limit(&self, limits: Limits) {
        self.state().limits = limits;
    }

    /// Whether there is anything to settle.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        let state = self.state();
        !(state.limits.is_empty() && state.users.is_empty())
    }

    /// Takes up what users had moved in `month` (a number that changes with it) before a restart, at
    /// sums of `totals`.
    pub fn restore(&self, month: u32, used: &[(Arc<str>, u64)], totals: &[(Arc<str>, u64)]) {
        let mut state = self.state();
        state.month = month;
        for (user, seen) in totals {
            state.users.entry(Arc::clone(user)).or_default().seen = *seen;
        }
        for (user, used) in used {
            state.users.entry(Arc::clone(user)).or_default().used = *used;
        }
    }

    /// Looks at the users' sums in `month`. Says whether somebody is barred who was not.
    pub fn settle(&self, month: u32, totals: &[(Arc<str>, u64)]) -> bool {
        let mut state = self.state();
        let State {
            limits,
            month: known,
            users,
        } = &mut *state;
        let before = std::mem::replace(known, month);
        // What moved before the first look is this month's.
        let new_month = before != 0 && before != month;
        if new_month {
            users.values_mut().for_each(|usage| usage.used = 0);
        }
        for (user, total) in totals {
            let usage = users.entry(Arc::clone(user)).or_default();
            // A sum that shrank began anew.
            let moved = total.checked_sub(usage.seen).unwrap_or(*total);
            usage.seen = *total;
            if !new_month {
                usage.used = usage.used.saturating_add(moved);
            }
        }
        let mut news = false;
        for (user, usage) in users.iter_mut() {
            let over = limits.of(user).is_some_and(|limit| usage.used >= limit);
            news |= over && !usage.barred;
            usage.barred = over;
        }
        if limits.is_empty() {
            users.clear();
        }
        let any = users.values().any(|usage| usage.barred);
        self.any.store(any, Ordering::Release);
        news
    }

    /// Whether that user may open no flow.
    #[must_use]
    pub fn bars(&self, user: Option<&str>) -> bool {
        let barred = |user: &str| {
            self.state()
                .users
                .get(user)
                .is_some_and(|usage| usage.barred)
        };
        self.any.load(Ordering::Acquire) && user.is_some_and(barred)
    }

    /// The month that was settled last, and what each user moved in it.
    #[must_use]
    pub fn usage(&self) -> (u32, Vec<(Arc<str>, u64)>) {
        let state = self.state();
        let users = state.users.iter();
        let users = users.map(|(user, usage)| (Arc::clone(user), usage.used));
        (state.month, users.collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(named: &[(&str, u64)], others: Option<u64>) -> Quotas {
        let quotas = Quotas::default();
        let named = named.iter().map(|(user, limit)| ((*user).into(), *limit));
        quotas.limit(Limits {
            named: named.collect(),
            others,
        });
        quotas
    }

    fn totals(list: &[(&str, u64)]) -> Vec<(Arc<str>, u64)> {
        list.iter()
            .map(|(user, bytes)| ((*user).into(), *bytes))
            .collect()
    }

    #[test]
    fn who_reaches_his_quota_is_barred_until_the_month_ends() {
        let quotas = quotas(&[("ann", 100)], None);
        assert!(!quotas.settle(1, &totals(&[("ann", 90), ("bob", 900)])));
        assert!(!quotas.settle(1, &totals(&[("ann", 99), ("bob", 900)])));
        assert!(quotas.settle(1, &totals(&[("ann", 100)])));
        assert!(quotas.bars(Some("ann")) && !quotas.bars(Some("bob")) && !quotas.bars(None));
        // No news the second time.
        assert!(!quotas.settle(1, &totals(&[("ann", 100)])));
        assert!(!quotas.settle(2, &totals(&[("ann", 105)])));
        assert!(!quotas.bars(Some("ann")));
        assert_eq!(quotas.usage().0, 2);
    }

    #[test]
    fn a_quota_that_grows_lets_in_again_and_none_forgets() {
        let quotas = quotas(&[], Some(10));
        quotas.settle(1, &[]);
        assert!(quotas.settle(1, &totals(&[("eve", 10)])));
        quotas.limit(Limits {
            named: [("eve".into(), 20)].into(),
            others: Some(10),
        });
        quotas.settle(1, &totals(&[("eve", 10)]));
        assert!(!quotas.bars(Some("eve")));
        quotas.limit(Limits::default());
        quotas.settle(1, &totals(&[("eve", 90)]));
        assert!(!quotas.is_needed());
    }

    #[test]
    fn usage_goes_on_after_a_restart() {
        let quotas = quotas(&[("ann", 100)], None);
        quotas.restore(7, &totals(&[("ann", 60)]), &totals(&[("ann", 1000)]));
        assert!(!quotas.settle(7, &totals(&[("ann", 1030)])));
        // The sums began anew.
        assert!(quotas.settle(7, &totals(&[("ann", 15)])));
        assert_eq!(quotas.usage(), (7, totals(&[("ann", 105)])));
    }
}
