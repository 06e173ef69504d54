//! Rules and their actions as the API shows them.

use super::action::Action;
use super::counters::Speeds;
use super::definition::Definition;
use super::rule::Rule;
use crate::mqtt::Time;

/// A rule as the API shows it.
#[derive(Clone, Debug)]
pub struct RuleReport {
    /// As it was asked for.
    pub definition: Definition,
    /// The names behind FROM.
    pub from: Vec<Box<str>>,
    /// Events that FROM matched.
    pub matched: u64,
    /// Those that gave rows.
    pub passed: u64,
    /// Those that gave none.
    pub no_result: u64,
    /// Those that did not fit.
    pub exception: u64,
    /// Events a second.
    pub speeds: Speeds,
    /// Its actions' counters, in the order of the definition.
    pub actions: Vec<ActionReport>,
}

/// An action's counters.
#[derive(Clone, Debug)]
pub struct ActionReport {
    /// Tried.
    pub taken: u64,
    /// Done.
    pub success: u64,
    /// Not done.
    pub failed: u64,
    /// Of its fallbacks.
    pub fallbacks: Vec<Self>,
}

pub(super) fn report(rule: &mut Rule, now: Time) -> RuleReport {
    fn of(actions: &[Action]) -> Vec<ActionReport> {
        let report = |action: &Action| {
            let (success, failed) = action.ended();
            ActionReport {
                taken: action.taken,
                success,
                failed,
                fallbacks: of(&action.fallbacks),
            }
        };
        actions.iter().map(report).collect()
    }
    RuleReport {
        definition: rule.definition.clone(),
        from: rule.program.from().to_vec(),
        matched: rule.counters.matched,
        passed: rule.counters.passed,
        no_result: rule.counters.no_result,
        exception: rule.counters.exception,
        speeds: rule.counters.speeds(now),
        actions: of(&rule.actions),
    }
}
