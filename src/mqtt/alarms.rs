//! What is wrong now, and what was: alarms as EMQX keeps them (emqx-api.md 2.10).
//!
//! Pure. An alarm has a name and stands once; times are microseconds since 1970. Nothing of it
//! survives a restart: what is still wrong is raised again.

use std::collections::VecDeque;

/// Alarms that may stand; further ones are not raised.
pub const ACTIVE_MAX: usize = 200;

/// Those that are over and still told of; the oldest is forgotten.
pub const PAST_MAX: usize = 200;

/// An alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Its name, such as `rule/my_rule/cut`.
    pub name: Box<str>,
    /// For people.
    pub message: Box<str>,
    /// JSON.
    pub details: Box<str>,
    /// Since when.
    pub since: u64,
    /// Until when; `None`: it stands.
    pub until: Option<u64>,
}

/// The alarms.
#[derive(Debug, Default)]
pub struct Alarms {
    active: Vec<Alarm>,
    past: VecDeque<Alarm>,
}

impl Alarms {
    /// Raises an alarm. `false`: it stands already, or there are [`ACTIVE_MAX`].
    pub fn raise(&mut self, alarm: Alarm) -> bool {
        let stands = self.active.iter().any(|known| known.name == alarm.name);
        if stands || self.active.len() >= ACTIVE_MAX {
            return false;
        }
        self.active.push(alarm);
        true
    }

    /// Ends an alarm at `time`. `None`: it does not stand.
    pub fn lower(&mut self, name: &str, time: u64) -> Option<&Alarm> {
        let index = self.active.iter().position(|known| *known.name == *name)?;
        let mut alarm = self.active.remove(index);
        alarm.until = Some(time.max(alarm.since));
        if self.past.len() >= PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(alarm);
        self.past.back()
    }

    /// Those that stand, the oldest first.
    pub fn active(&self) -> impl Iterator<Item = &Alarm> {
        self.active.iter()
    }

    /// Those that are over, in the order in which they ended.
    pub fn past(&self) -> impl Iterator<Item = &Alarm> {
        self.past.iter()
    }

    /// Forgets those that are over.
    pub fn forget_past(&mut self) {
        self.past = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(name: &str) -> Alarm {
        Alarm {
            name: name.into(),
            message: "m".into(),
            details: "{}".into(),
            since: 5,
            until: None,
        }
    }

    #[test]
    fn an_alarm_stands_once_and_is_past_when_it_ends() {
        let mut alarms = Alarms::default();
        assert!(alarms.raise(alarm("a")) && !alarms.raise(alarm("a")));
        assert!(alarms.lower("b", 9).is_none());
        assert_eq!(alarms.lower("a", 9).unwrap().until, Some(9));
        assert!(alarms.active().next().is_none() && alarms.raise(alarm("a")));
        // A clock that was set back makes no alarm end before it began.
        assert_eq!(alarms.lower("a", 1).unwrap().until, Some(5));
        assert_eq!(alarms.past().count(), 2);
        alarms.forget_past();
        assert_eq!(alarms.past().count(), 0);
    }

    #[test]
    fn both_lists_have_an_end() {
        let mut alarms = Alarms::default();
        for n in 0..=ACTIVE_MAX {
            assert_eq!(alarms.raise(alarm(&n.to_string())), n < ACTIVE_MAX);
        }
        for n in 0..PAST_MAX + 5 {
            alarms.lower(&n.to_string(), 9);
            alarms.raise(alarm(&(n + 1000).to_string()));
            alarms.lower(&(n + 1000).to_string(), 9);
        }
        assert_eq!(alarms.past().count(), PAST_MAX);
    }
}
