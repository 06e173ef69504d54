//! A rule that runs.

use super::action::{self, Action, Doing};
use super::counters::{Bucket, Counters};
use super::definition::{BadRule, Definition, OnFailure, check_sql};
use super::resource::Resources;
use super::world::World;
use super::{ACT_RATE, PUBLISH_RATE, Router};
use crate::mqtt::Time;
use crate::mqtt::codec::Qos;
use crate::mqtt::hook::Publication;
use crate::sql::{Columns, Input, Map, Program};

/// A rule and what became of it so far.
pub(super) struct Rule {
    pub definition: Definition,
    pub program: Program,
    pub actions: Vec<Action>,
    pub counters: Counters,
    publishing: Bucket,
    acting: Bucket,
    /// When an alarm was last raised; none for a minute after that.
    alarmed: Option<Time>,
}

/// What there is around the event.
pub(super) struct Around<'a> {
    pub now: Time,
    pub world: &'a World,
    pub router: &'a dyn Router,
    /// Of the event's message: who published it, and how.
    pub publisher: &'a str,
    pub qos: Qos,
    pub topic: &'a str,
    pub retain: bool,
    pub resources: &'a Resources,
}

/// Between two alarms of a rule.
const ALARM_EVERY: Time = 60_000;

impl Rule {
    pub(super) fn new(definition: Definition) -> Result<Self, BadRule> {
        let program = check_sql(&definition.sql)?;
        let actions = definition.actions.iter().map(action::build);
        Ok(Self {
            actions: actions.collect::<Result<_, _>>()?,
            program,
            definition,
            counters: Counters::default(),
            publishing: Bucket::new(PUBLISH_RATE, PUBLISH_RATE),
            acting: Bucket::new(ACT_RATE, 5 * ACT_RATE),
            alarmed: None,
        })
    }

    /// Takes counters over from the rule that this one follows, action by action.
    pub(super) fn inherit(&mut self, before: &Self) {
        self.counters = before.counters.clone();
        for (action, before) in self.actions.iter_mut().zip(&before.actions) {
            action.inherit(before);
        }
    }

    pub(super) fn reset(&mut self) {
        self.counters = Counters::default();
        self.actions.iter_mut().for_each(Action::reset);
    }

    /// Runs over an event; `true`: an alarm is to be raised.
    pub(super) fn run(
        &mut self,
        event: &dyn Columns,
        around: &Around<'_>,
        out: &mut Vec<Publication>,
    ) -> bool {
        self.counters.count(around.now);
        let input = Input {
            event,
            surroundings: around.world,
            rule: &self.definition.id,
        };
        let rows = match self.program.run(input) {
            Ok(rows) => rows,
            Err(fault) => {
                log::debug!("{}: {fault}", self.definition.id);
                self.counters.exception += 1;
                return false;
            }
        };
        if rows.is_empty() {
            self.counters.no_result += 1;
            return false;
        }
        self.counters.passed += 1;
        let mut cut = false;
        let mut doing = Doing {
            around,
            publishing: &mut self.publishing,
            acting: &mut self.acting,
            out,
            cut: &mut cut,
        };
        'rows: for row in &rows {
            for action in &mut self.actions {
                let done = action.perform(row, &mut doing);
                if !done && self.definition.on_failure == OnFailure::Stop {
                    self.counters.exception += 1;
                    break 'rows;
                }
            }
        }
        cut && self.alarm(around.now)
    }

    /// Does what follows the failure of an action that was found out later; whether it is of this rule.
    pub(super) fn fall_back(
        &mut self,
        action: &str,
        row: &Map<'_>,
        around: &Around<'_>,
        out: &mut Vec<Publication>,
    ) -> bool {
        let found = self.actions.iter_mut().find_map(|one| one.find(action));
        let Some(found) = found else {
            return false;
        };
        let mut cut = false;
        let mut doing = Doing {
            around,
            publishing: &mut self.publishing,
            acting: &mut self.acting,
            out,
            cut: &mut cut,
        };
        for fallback in &mut found.fallbacks {
            fallback.perform(row, &mut doing);
        }
        true
    }

    fn alarm(&mut self, now: Time) -> bool {
        let quiet = self
            .alarmed
            .is_none_or(|last| now.saturating_sub(last) >= ALARM_EVERY);
        if quiet {
            self.alarmed = Some(now);
            log::warn!("{}: it acts too often and is cut", self.definition.id);
        }
        quiet
    }
}
