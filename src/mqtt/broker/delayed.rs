//! Messages to `$delayed/SECONDS/TOPIC`: they wait, then they are published to the topic (as in EMQX 4).
//!
//! Bounded in number and bytes: further ones are refused, since who is told so can say it again. They
//! are in the log like retained messages, and survive a restart with the time that they have left.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Broker;
use crate::mqtt::codec::Reason;
use crate::mqtt::hook::Publisher;
use crate::mqtt::message::Message;
use crate::mqtt::metrics::Metric;
use crate::mqtt::session::ledger::{put, stored};
use crate::mqtt::store::record::Record;
use crate::mqtt::topic;
use crate::mqtt::topic::tree::SessionId;
use crate::mqtt::{NEVER, Time};

/// What such a topic begins with.
const PREFIX: &str = "$delayed/";

/// Numbers below this are seconds to wait, greater ones a time since 1970; a message waits at most
/// so many seconds.
const SECONDS_MAX: u64 = 4_294_967;

/// Bytes of all that wait; further ones are refused.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The topic that is meant: of `$delayed/5/a` it is `a`, of any other it is itself. It is what the
/// rules are asked about.
pub(super) fn meant(topic: &str) -> &str {
    let rest = topic.strip_prefix(PREFIX);
    rest.and_then(|rest| rest.split_once('/'))
        .map_or(topic, |(_, meant)| meant)
}

/// What a topic says of waiting.
#[derive(Debug, PartialEq, Eq)]
enum Wait<'a> {
    /// Nothing.
    Not,
    /// So many milliseconds, then this topic.
    For(Time, &'a str),
    /// It begins so, and goes on wrongly.
    Wrong,
}

fn wait(topic: &str, unix_seconds: u64) -> Wait<'_> {
    let Some(rest) = topic.strip_prefix(PREFIX) else {
        return Wait::Not;
    };
    let parts = rest.split_once('/');
    let Some((Ok(number), meant)) = parts.map(|(number, meant)| (number.parse::<u64>(), meant))
    else {
        return Wait::Wrong;
    };
    let seconds = match number {
        0..SECONDS_MAX => number,
        until => until.saturating_sub(unix_seconds),
    };
    if seconds > SECONDS_MAX || !topic::is_name(meant) || meant.starts_with('$') {
        return Wait::Wrong;
    }
    Wait::For(seconds * 1000, meant)
}

/// A message that waits.
struct Waiting {
    message: Message,
    publisher: Rc<Publisher>,
}

/// The messages that wait, by their time and in the order in which they came.
#[derive(Default)]
pub(super) struct Delayed {
    waiting: BTreeMap<(Time, u32), Waiting>,
    bytes: usize,
    next: u32,
    /// Numbers and times of those that the log lacks.
    fresh: Vec<(Time, u32)>,
    /// Numbers of those that the log has and that are gone.
    gone: Vec<u32>,
}

impl Delayed {
    /// When the first is due.
    pub fn due(&self) -> Time {
        self.waiting
            .first_key_value()
            .map_or(NEVER, |((due, _), _)| *due)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the log lacks something.
    pub fn has_journal(&self) -> bool {
        !self.fresh.is_empty() || !self.gone.is_empty()
    }

    /// Appends what the log lacks; `epoch` turns times into milliseconds since 1970.
    pub fn write(&mut self, unix: &dyn Fn(Time) -> u64, out: &mut Vec<u8>) {
        for key in std::mem::take(&mut self.fresh) {
            // One that was published meanwhile was never written.
            if let Some(one) = self.waiting.get(&key) {
                let record = Record::Delayed {
                    number: key.1,
                    due: unix(key.0),
                    client_id: &one.publisher.client_id,
                    username: one.publisher.username.as_deref(),
                    message: stored(&one.message, unix),
                };
                put(out, &record);
            }
        }
        for number in std::mem::take(&mut self.gone) {
            put(out, &Record::DelayedGone(number));
        }
    }

    /// The log is begun anew: it lacks everything.
    pub fn forget_log(&mut self) {
        self.gone.clear();
        self.fresh = self.waiting.keys().copied().collect();
    }

    /// Puts in one of the log.
    pub fn restore(&mut self, due: Time, number: u32, message: Message, publisher: Publisher) {
        self.next = self.next.max(number.wrapping_add(1));
        self.bytes += message.size();
        let publisher = Rc::new(publisher);
        let one = Waiting { message, publisher };
        self.waiting.insert((due, number), one);
    }

    /// The log says that one is gone.
    pub fn restore_gone(&mut self, number: u32) {
        let bytes = &mut self.bytes;
        self.waiting.retain(|(_, other), one| {
            let stays = *other != number;
            *bytes -= if stays { 0 } else { one.message.size() };
            stays
        });
    }

    fn take_due(&mut self, now: Time) -> Option<Waiting> {
        let entry = self.waiting.first_entry()?;
        let &key = entry.key();
        if key.0 > now {
            return None;
        }
        let one = entry.remove();
        self.bytes -= one.message.size();
        match self.fresh.iter().position(|&other| other == key) {
            Some(index) => _ = self.fresh.swap_remove(index),
            None => self.gone.push(key.1),
        }
        Some(one)
    }
}

impl Broker {
    /// Takes a message that is to wait. `Err`: it is not. Otherwise what its publisher is told.
    pub(super) fn delay(
        &mut self,
        now: Time,
        message: Message,
        publisher: &dyn Fn(&mut Self) -> Option<Rc<Publisher>>,
    ) -> Result<Reason, Message> {
        let unix_seconds = self.unix_ms(now) / 1000;
        let (wait, meant) = match wait(message.topic(), unix_seconds) {
            Wait::Not => return Err(message),
            Wait::Wrong => {
                self.metrics.add(Metric::DelayedRefused, 1);
                return Ok(Reason::TOPIC_INVALID);
            }
            Wait::For(wait, meant) => (wait, meant),
        };
        let flags = (message.qos, message.retain);
        let (properties, payload) = (message.property_list(), message.payload());
        let later = Message::new(now, meant, properties, payload, flags, SessionId::MAX);
        let (Some(mut later), Some(publisher)) = (later, publisher(self)) else {
            return Ok(Reason::PACKET_TOO_LARGE);
        };
        later.expires = message.expires;
        let size = later.size();
        let full = self.delayed.len() >= self.limits.delayed_max;
        if full || self.delayed.bytes + size > BYTES_MAX {
            self.metrics.add(Metric::DelayedRefused, 1);
            return Ok(Reason::QUOTA_EXCEEDED);
        }
        let number = self.delayed.next;
        self.delayed.next = number.wrapping_add(1);
        let key = (now.saturating_add(wait), number);
        self.sooner |= key.0 < self.delayed.due();
        self.delayed.bytes += size;
        let message = later;
        let one = Waiting { message, publisher };
        self.delayed.waiting.insert(key, one);
        self.stats.delayed.set(self.delayed.len());
        if self.note_delayed() {
            self.delayed.fresh.push(key);
        }
        Ok(Reason::NO_MATCHING_SUBSCRIBERS)
    }

    /// Publishes what is due.
    pub(super) fn publish_delayed(&mut self, now: Time) {
        while let Some(Waiting {
            mut message,
            publisher,
        }) = self.delayed.take_due(now)
        {
            // Its publisher may have gone, or have come again.
            let from = self.by_client.get(&publisher.client_id);
            message.from = from.copied().unwrap_or(SessionId::MAX);
            self.stats.delayed.set(self.delayed.len());
            if !self.note_delayed() {
                self.delayed.gone.clear();
            }
            self.take_in(now, message, &publisher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_of_seconds_or_a_time_and_then_a_topic() {
        for (topic, want) in [
            ("a", Wait::Not),
            ("$delayed", Wait::Not),
            ("$delayed/5/a/b", Wait::For(5000, "a/b")),
            ("$delayed/0//a", Wait::For(0, "/a")),
            ("$delayed/4294966/a", Wait::For(4_294_966_000, "a")),
            ("$delayed/1700000010/a", Wait::For(10_000, "a")),
            ("$delayed/1600000000/a", Wait::For(0, "a")),
            ("$delayed/1800000000/a", Wait::Wrong),
            ("$delayed/", Wait::Wrong),
            ("$delayed/5", Wait::Wrong),
            ("$delayed/5/", Wait::Wrong),
            ("$delayed/x/a", Wait::Wrong),
            ("$delayed/-1/a", Wait::Wrong),
            ("$delayed/99999999999999999999/a", Wait::Wrong),
            ("$delayed/5/$SYS/a", Wait::Wrong),
            ("$delayed/5/$delayed/5/a", Wait::Wrong),
        ] {
            assert_eq!(wait(topic, 1_700_000_000), want, "{topic}");
        }
        assert_eq!(meant("$delayed/5/a/b"), "a/b");
        assert_eq!(meant("a/b"), "a/b");
    }
}
