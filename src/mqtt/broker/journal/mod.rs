//! What the broker writes down, so that a restart or a power cut loses nothing that it promised.
//!
//! Pure: it gathers what changed, and says it as records when it is asked; `restore` reads them. New retained
//! topics and sessions are due at once; further values of a retained topic wait, since they come without
//! end and only the last counts (flash wears out). Documents are what other parts keep here by a key.

mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::Broker;
use crate::mqtt::session::Session;
use crate::mqtt::session::ledger::{Ledger, NextMessage, put, stored};
use crate::mqtt::store::frame;
use crate::mqtt::store::record::Record;
use crate::mqtt::topic::Wanted;
use crate::mqtt::topic::tree::{SessionId, Subscriber};
use crate::mqtt::{NEVER, Time};

/// Retained messages written at a time, about; the rest waits for the next time.
const RETAINED_BYTES: usize = 64 * 1024;

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
