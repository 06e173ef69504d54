//! What the broker is after a restart: the records of a log, applied one after the other.
//!
//! Pure. A log may end anywhere and hold what a later version wrote: whole frames count, and records that
//! are not known are left out.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::mqtt::broker::{Broker, time_of};
use crate::mqtt::codec::Properties;
use crate::mqtt::hook::Publisher;
use crate::mqtt::message::Message;
use crate::mqtt::session::ledger::Ledger;
use crate::mqtt::session::{Delivery, Session};
use crate::mqtt::store::frame::Frames;
use crate::mqtt::store::record::{Record, Stored};
use crate::mqtt::topic::tree::SessionId;
use crate::mqtt::topic::{self, Wanted};
use crate::mqtt::{NEVER, Time};
use crate::wire::Reader;

/// No log names sessions by greater numbers.
const NUMBERS_MAX: u32 = 1 << 20;

/// A delivery of a session's queue, with the packet identifier and state of one that was sent.
type Queued = (Delivery, Option<(u16, bool)>);

/// What a log tells of queues, until it was read to its end.
#[derive(Default)]
struct Reading {
    messages: HashMap<u32, Rc<Message>>,
    queues: BTreeMap<(u32, u32), Queued>,
    awaiting: HashMap<u32, Vec<u16>>,
}

impl Broker {
    /// Restores from the frames of a log; after [`Broker::keep_journal`], before anybody connects.
    /// Returns how many bytes of it were whole.
    pub fn restore(&mut self, now: Time, log: &[u8]) -> usize {
        let mut frames = Frames::new(log);
        let mut reading = Reading::default();
        for contents in frames.by_ref() {
            let mut records = Reader::new(contents);
            while let Ok(length) = records.u32() {
                let Ok(contents) = records.take(length as usize) else {
                    break;
                };
                // One of a later version, perhaps: it is left out.
                if let Ok(record) = Record::read(contents) {
                    self.apply(now, record, &mut reading);
                }
            }
        }
        let valid = frames.valid;
        let Reading {
            queues, awaiting, ..
        } = reading;
        let mut by_session: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for ((number, _), one) in queues {
            by_session.entry(number).or_default().push(one);
        }
        let mut awaiting = awaiting;
        for id in self.ids(|_| true) {
            let deliveries = by_session.remove(&id).unwrap_or_default();
            let released = awaiting.remove(&id).unwrap_or_default();
            if let Some(session) = self.session(id) {
                session.restore(deliveries, released);
            }
            self.schedule(id);
        }
        self.free = (0..SessionId::try_from(self.sessions.len()).unwrap_or(0))
            .filter(|&id| self.peek(id).is_none())
            .collect();
        self.restore_management();
        // All of it came from the log, which lacks nothing.
        for session in self.sessions.iter_mut().flatten() {
            session.ledger = Some(Box::new(Ledger::of_log()));
        }
        if let Some(journal) = &mut self.journal {
            journal.gone.clear();
            journal.sessions.clear();
            journal.durable = false;
        }
        self.retained.sweep(now);
        self.stats.retained.set(self.retained.len());
        self.stats.delayed.set(self.delayed.len());
        valid
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of record")]
    fn apply(&mut self, now: Time, record: Record<'_>, reading: &mut Reading) {
        match record {
            Record::Retained(message) => {
                if let Some(message) = self.message(now, &message) {
                    self.retained
                        .keep(&Rc::new(message), usize::MAX, usize::MAX);
                }
            }
            Record::RetainedGone(topic) => _ = self.retained.remove(topic),
            Record::Session { .. } => self.apply_session(now, &record),
            Record::SessionGone(number) => {
                if let Some(session) = self.session(number) {
                    session.expiry = 0;
                    session.will = None;
                }
                reading.awaiting.remove(&number);
                reading.queues.retain(|(whose, _), _| *whose != number);
                self.end(now, number);
            }
            Record::Subscribed {
                number,
                filter,
                options,
                identifier,
            } => {
                if let Some(wanted) = Wanted::parse(filter) {
                    self.add_subscription(now, number, wanted, options | 2 << 4, identifier);
                }
            }
            Record::Unsubscribed { number, filter } => {
                if let Some(wanted) = Wanted::parse(filter) {
                    self.remove_subscription(now, number, wanted);
                }
            }
            Record::Message { id, message } => {
                if let Some(message) = self.message(now, &message) {
                    message.log_id.set(id);
                    reading.messages.insert(id, Rc::new(message));
                }
                if let Some(journal) = &mut self.journal {
                    journal.next = journal.next.max(id);
                }
            }
            Record::Queued {
                number,
                place,
                message,
                qos,
                retain,
                ids,
            } => {
                if let Some(message) = reading.messages.get(&message) {
                    let ids = (!ids.is_empty()).then(|| Box::new(ids));
                    let delivery = Delivery::new(Rc::clone(message), ids, qos, retain);
                    let delivery = delivery.restored(place);
                    reading.queues.insert((number, place), (delivery, None));
                }
            }
            Record::Sent {
                number,
                place,
                packet_id,
                released,
            } => {
                if let Some((_, sent)) = reading.queues.get_mut(&(number, place)) {
                    *sent = Some((packet_id, released));
                }
            }
            Record::Gone { number, place } => {
                reading.queues.remove(&(number, place));
            }
            Record::Awaiting { number, ids } => {
                reading.awaiting.insert(number, ids);
            }
            Record::Document { key, value } => self.apply_document(key, Some(value)),
            Record::DocumentGone(key) => self.apply_document(key, None),
            Record::Delayed {
                number,
                due,
                client_id,
                username,
                message,
            } => {
                if let Some(message) = self.message(now, &message) {
                    let due = time_of(self.epoch, due);
                    let publisher = Publisher {
                        client_id: client_id.into(),
                        username: username.map(Rc::from),
                        address: None,
                    };
                    self.delayed.restore(due, number, message, publisher);
                }
            }
            Record::DelayedGone(number) => self.delayed.restore_gone(number),
        }
    }

    fn message(&self, now: Time, stored: &Stored<'_>) -> Option<Message> {
        if !topic::is_name(stored.topic) {
            return None;
        }
        let properties = Properties::stored(stored.properties)?;
        let flags = (stored.qos, stored.retain);
        let from = SessionId::MAX;
        let mut message = Message::new(now, stored.topic, properties, stored.payload, flags, from)?;
        message.expires = match stored.expires {
            u64::MAX => NEVER,
            unix => time_of(self.epoch, unix),
        };
        Some(message)
    }

    fn apply_session(&mut self, now: Time, record: &Record<'_>) {
        let &Record::Session {
            number,
            client_id,
            username,
            version,
            expiry,
            created,
            lost,
        } = record
        else {
            return;
        };
        if number >= NUMBERS_MAX {
            return;
        }
        let known = self.by_client.get(client_id).copied();
        if known.is_some_and(|known| known != number) {
            return;
        }
        if self.sessions.len() <= number as usize {
            self.sessions.resize_with(number as usize + 1, || None);
        }
        let fresh = self.peek(number).is_none();
        if fresh {
            let client_id: Rc<str> = client_id.into();
            let nowhere = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
            let session = Session::new(Rc::clone(&client_id), nowhere, now);
            if let Some(place) = self.sessions.get_mut(number as usize) {
                *place = Some(Box::new(session));
            }
            self.by_client.insert(client_id, number);
            self.stats.sessions.rise();
        }
        let epoch = self.epoch;
        if let Some(session) = self.session(number) {
            session.username = username.map(Box::from);
            session.version = version;
            session.clean = false;
            session.expiry = expiry;
            session.created = time_of(epoch, created).min(now);
            // Whoever was there lost its connection now.
            session.lost = match lost {
                0 => now,
                lost => time_of(epoch, lost).min(now),
            };
            session.connected = session.lost;
            session.ledger = Some(Box::new(Ledger::of_log()));
        }
    }
}
