//! A rule that runs.

use std::time::Duration;

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
    /// When it was last cut; its alarm stands until [`CALM`] after that.
    cut: Option<Time>,
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
    /// Bytes that a message may have.
    pub packet_max: usize,
    pub resources: &'a Resources,
}

/// How long a rule must not have been cut for its alarm to end.
pub(super) const CALM: Duration = Duration::from_secs(60);

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
            cut: None,
        })
    }

    /// Takes counters over from the rule that this one follows, action by action.
    pub(super) fn inherit(&mut self, before: &Self) {
        self.counters = before.counters.clone();
        self.cut = before.cut;
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
        cut && self.note_cut(around.now)
    }

    /// Does what follows the failure of an action that was found out later; `true`: an alarm is to be
    /// raised. `None`: the action is none of this rule.
    pub(super) fn fall_back(
        &mut self,
        action: &str,
        row: &Map<'_>,
        around: &Around<'_>,
        out: &mut Vec<Publication>,
    ) -> Option<bool> {
        let found = self.actions.iter_mut().find_map(|one| one.find(action))?;
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
        Some(cut && self.note_cut(around.now))
    }

    /// Whether one of its actions, or of their fallbacks, has this id.
    pub(super) fn has_action(&mut self, id: &str) -> bool {
        self.actions.iter_mut().any(|one| one.find(id).is_some())
    }

    /// It acted too often, or for too long in a chain. `true`: an alarm is to be raised.
    pub(super) fn note_cut(&mut self, now: Time) -> bool {
        let first = self.cut.replace(now).is_none();
        if first {
            log::warn!("{}: it acts too often and is cut", self.definition.id);
        }
        first
    }

    /// Whether its alarm stands.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Whether its alarm ended, since it was not cut for a while.
    pub(super) fn calms(&mut self, now: Time) -> bool {
        let quiet = |last: Time| u128::from(now.saturating_sub(last)) >= CALM.as_millis();
        self.cut.take_if(|last| quiet(*last)).is_some()
    }
}
