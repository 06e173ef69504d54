//! What the broker writes down, so that a restart or a power cut loses nothing that it promised.
//!
//! Pure: it gathers what changed, says it as records when it is asked, and restores from them. New retained
//! topics and sessions are due at once; further values of a retained topic wait, since they come without
//! end and only the last counts (flash wears out). Documents are what other parts keep here by a key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::rc::Rc;

use super::Broker;
use crate::mqtt::codec::Properties;
use crate::mqtt::hook::Publisher;
use crate::mqtt::message::Message;
use crate::mqtt::session::ledger::{Ledger, NextMessage, put, stored};
use crate::mqtt::session::{Delivery, Session};
use crate::mqtt::store::frame::{self, Frames};
use crate::mqtt::store::record::{Record, Stored};
use crate::mqtt::topic::tree::{SessionId, Subscriber};
use crate::mqtt::topic::{self, Wanted};
use crate::mqtt::{NEVER, Time};
use crate::wire::Reader;

/// Retained messages written at a time, about; the rest waits for the next time.
const RETAINED_BYTES: usize = 64 * 1024;

/// No log names sessions by greater numbers.
const NUMBERS_MAX: u32 = 1 << 20;

/// Bytes of all documents; more are refused.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How much is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What is due.
    Due,
    /// All that the log lacks.
    All,
}

/// What the log lacks.
#[derive(Default)]
pub(super) struct Journal {
    /// Numbers of sessions that ended.
    gone: Vec<SessionId>,
    /// Sessions with something in their ledgers.
    sessions: Vec<SessionId>,
    /// Topics that the log does not know, or that lost their message.
    urgent: BTreeSet<Box<str>>,
    /// Topics with a newer message.
    later: BTreeSet<Box<str>>,
    later_due: Time,
    later_after: Time,
    documents: BTreeMap<Box<str>, Box<[u8]>>,
    document_bytes: usize,
    changed: BTreeSet<Box<str>>,
    next: NextMessage,
    durable: bool,
}

impl Journal {
    fn retained(&mut self, now: Time, topic: &str, known: bool) {
        if !known || self.urgent.contains(topic) {
            self.later.remove(topic);
            self.urgent.insert(topic.into());
        } else {
            if self.later.is_empty() {
                self.later_due = now + self.later_after;
            }
            if !self.later.contains(topic) {
                self.later.insert(topic.into());
            }
        }
    }

    fn is_due(&self, now: Time) -> bool {
        !self.gone.is_empty()
            || !self.sessions.is_empty()
            || !self.urgent.is_empty()
            || !self.changed.is_empty()
            || (!self.later.is_empty() && now >= self.later_due)
    }
}

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
    /// From here on changes are gathered. Values of known retained topics are due after `later`.
    pub fn keep_journal(&mut self, later: Time) {
        self.journal = Some(Box::new(Journal {
            later_after: later,
            ..Journal::default()
        }));
    }

    /// Whether something is due.
    #[must_use]
    pub fn has_journal(&self, now: Time) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|one| one.is_due(now) || self.delayed.has_journal())
    }

    /// When values that can wait are due.
    #[must_use]
    pub fn journal_due(&self) -> Time {
        let journal = self.journal.as_ref();
        let waiting = journal.filter(|one| !one.later.is_empty());
        waiting.map_or(NEVER, |one| one.later_due)
    }

    /// Whether what is due since the last time was promised to somebody.
    pub fn take_durable(&mut self) -> bool {
        let journal = self.journal.as_mut();
        journal.is_some_and(|one| std::mem::take(&mut one.durable))
    }

    /// What waits for its time has changed, and its publisher was promised. `false`: there is no log.
    pub(super) fn note_delayed(&mut self) -> bool {
        if let Some(journal) = &mut self.journal {
            journal.durable = true;
        }
        self.journal.is_some()
    }

    /// A session has something to be written; `promised`: somebody is told that it is kept.
    pub(super) fn note(&mut self, id: SessionId, promised: bool, fill: impl FnOnce(&mut Ledger)) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let session = self.sessions.get_mut(id as usize);
        let Some(ledger) = session
            .and_then(Option::as_deref_mut)
            .and_then(|session| session.ledger.as_deref_mut())
        else {
            return;
        };
        fill(ledger);
        journal.durable |= promised;
        if !ledger.listed {
            ledger.listed = true;
            journal.sessions.push(id);
        }
    }

    /// A connection began: from here on the session is to be kept, or not.
    pub(super) fn note_connected(&mut self, id: SessionId) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let session = self.sessions.get_mut(id as usize);
        let Some(session) = session.and_then(Option::as_deref_mut) else {
            return;
        };
        if session.expiry == 0 {
            if session.ledger.take().is_some_and(|ledger| ledger.known) {
                journal.gone.push(id);
            }
            return;
        }
        let fresh = session.ledger.is_none();
        session.ledger.get_or_insert_default();
        let filters = if fresh { self.filters(id) } else { Vec::new() };
        self.note(id, false, |ledger| {
            ledger.changed = true;
            ledger.filters.extend(filters);
        });
    }

    fn filters(&self, id: SessionId) -> Vec<Box<str>> {
        let Some(session) = self.peek(id) else {
            return Vec::new();
        };
        let all = self.subscriptions(session).map(|one| {
            let (group, filter) = (one.group, &*one.filter);
            Wanted { group, filter }.to_text().into()
        });
        all.collect()
    }

    pub(super) fn note_ended(&mut self, id: SessionId, session: &Session) {
        let known = session.ledger.as_ref().is_some_and(|ledger| ledger.known);
        if let Some(journal) = &mut self.journal
            && known
        {
            journal.gone.push(id);
        }
    }

    pub(super) fn note_retained(&mut self, now: Time, topic: &str, known: bool) {
        if let Some(journal) = &mut self.journal {
            journal.retained(now, topic, known);
        }
    }

    /// Appends what the log lacks, in one frame: that a message is queued and that its publisher need
    /// not say it again are true together or not at all.
    pub fn write_journal(&mut self, now: Time, extent: Extent, out: &mut Vec<u8>) {
        let mut records = Vec::new();
        self.write_records(now, extent, &mut records);
        if !records.is_empty() {
            frame::append(out, &records);
        }
    }

    fn write_records(&mut self, now: Time, extent: Extent, out: &mut Vec<u8>) {
        let Some(mut journal) = self.journal.take() else {
            return;
        };
        let epoch = self.epoch;
        let unix = move |time| super::unix_ms(epoch, time);
        for number in std::mem::take(&mut journal.gone) {
            put(out, &Record::SessionGone(number));
        }
        for key in std::mem::take(&mut journal.changed) {
            match journal.documents.get(&key) {
                Some(value) => put(out, &Record::Document { key: &key, value }),
                None => put(out, &Record::DocumentGone(&key)),
            }
        }
        let end = match extent {
            Extent::Due => out.len() + RETAINED_BYTES,
            Extent::All => usize::MAX,
        };
        self.delayed.write(&unix, out);
        self.write_topics(&mut journal.urgent, &unix, end, out);
        if extent == Extent::All || now >= journal.later_due {
            self.write_topics(&mut journal.later, &unix, end, out);
        }
        for id in std::mem::take(&mut journal.sessions) {
            self.write_session(id, &unix, &mut journal.next, out);
        }
        self.journal = Some(journal);
    }

    fn write_topics(
        &self,
        topics: &mut BTreeSet<Box<str>>,
        unix: &dyn Fn(Time) -> u64,
        end: usize,
        out: &mut Vec<u8>,
    ) {
        while out.len() < end
            && let Some(topic) = topics.pop_first()
        {
            match self.retained.get(&topic) {
                Some(message) => put(out, &Record::Retained(stored(message, unix))),
                None => put(out, &Record::RetainedGone(&topic)),
            }
        }
    }

    fn write_session(
        &mut self,
        id: SessionId,
        unix: &dyn Fn(Time) -> u64,
        next: &mut NextMessage,
        out: &mut Vec<u8>,
    ) {
        let Some(session) = self.session(id) else {
            return;
        };
        let ledger = session.ledger.as_mut();
        let filters = ledger.map(|ledger| std::mem::take(&mut ledger.filters));
        session.write_ledger(id, unix, next, out);
        for filter in filters.unwrap_or_default() {
            let found = Wanted::parse(&filter).and_then(|wanted| {
                let node = self.tree.find(wanted.filter)?;
                self.tree.subscriber(node, wanted.group, id)
            });
            let (number, filter) = (id, &*filter);
            match found {
                Some(subscriber) => put(
                    out,
                    &Record::Subscribed {
                        number,
                        filter,
                        options: options_of(subscriber),
                        identifier: subscriber.id,
                    },
                ),
                None => put(out, &Record::Unsubscribed { number, filter }),
            }
        }
    }

    /// Appends all that is, for a log that begins anew.
    pub fn rewrite_journal(&mut self, now: Time, out: &mut Vec<u8>) {
        let ids = self.ids(|session| session.ledger.is_some());
        for id in &ids {
            let filters = self.filters(*id);
            if let Some(session) = self.session(*id) {
                session.forget_log();
                if let Some(ledger) = &mut session.ledger {
                    ledger.filters.extend(filters);
                }
            }
        }
        let topics = self.retained.topics().map(Box::from).collect();
        self.delayed.forget_log();
        if let Some(journal) = &mut self.journal {
            journal.gone.clear();
            journal.later.clear();
            journal.urgent = topics;
            journal.changed = journal.documents.keys().cloned().collect();
            journal.sessions = ids;
        }
        self.write_journal(now, Extent::All, out);
    }

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
                    let due = super::time_of(self.epoch, due);
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
            unix => super::time_of(self.epoch, unix),
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
            session.created = super::time_of(epoch, created).min(now);
            // Whoever was there lost its connection now.
            session.lost = match lost {
                0 => now,
                lost => super::time_of(epoch, lost).min(now),
            };
            session.connected = session.lost;
            session.ledger = Some(Box::new(Ledger::of_log()));
        }
    }

    fn apply_document(&mut self, key: &str, value: Option<&[u8]>) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let old = match value {
            Some(value) => {
                journal.document_bytes += value.len();
                journal.documents.insert(key.into(), value.into())
            }
            None => journal.documents.remove(key),
        };
        journal.document_bytes -= old.map_or(0, |old| old.len());
    }

    /// Keeps something by a key, or with `None` forgets it. `false`: nothing is kept, or too much.
    pub fn set_document(&mut self, key: &str, value: Option<&[u8]>) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        let more = value.map_or(0, <[u8]>::len);
        if journal.document_bytes + more > DOCUMENT_BYTES_MAX {
            return false;
        }
        journal.changed.insert(key.into());
        journal.durable = true;
        self.apply_document(key, value);
        true
    }

    /// What is kept by keys that begin with `prefix`, in the order of the keys.
    pub fn documents<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let journal = self.journal.iter();
        let all = journal.flat_map(move |one| {
            let from = (Bound::Included(prefix), Bound::Unbounded);
            one.documents.range::<str, _>(from)
        });
        all.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (&**key, &**value))
    }
}

fn options_of(subscriber: &Subscriber) -> u8 {
    subscriber.qos.bits()
        | u8::from(subscriber.no_local) << 2
        | u8::from(subscriber.retain_as_published) << 3
}
