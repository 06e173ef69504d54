//! The live flows and what they have moved: a table that the tunnel fills and controllers read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::metadata::Metadata;
use crate::platform::clock;
use crate::platform::counter::Counter;

use super::history::{History, Moment};
use super::ledger::{Counted, Direction, Ledger, Name};
use super::policy::Policy;

/// One live flow.
pub struct Connection {
    /// Unique while the process lives; shown as a UUID.
    pub id: u64,
    /// What is known of it.
    pub metadata: Metadata,
    /// Outbounds from the node that carries it to the one that the rule named.
    pub chain: Vec<Arc<str>>,
    /// Type and payload of the deciding rule; `None` in global and direct mode, or when none matched.
    pub rule: Option<(&'static str, Box<str>)>,
    /// When it began, since 1970.
    pub start: Duration,
    /// The other end of our own socket: the destination's address, or the proxy's where it is a plain
    /// socket; set for streams alone.
    pub remote: OnceLock<IpAddr>,
    /// Bytes from the client.
    pub upload: Counter,
    /// Bytes to the client.
    pub download: Counter,
    /// What of both is in the history.
    entered: [Counter; 2],
    /// When it last moved something, by the coarse clock.
    active: AtomicU32,
    /// Who has said all: the client 1, the server 2.
    said_all: AtomicU8,
    /// `bufferSize` of its level, kilobytes; 0: there is none.
    pub(super) buffer: u8,
    closed: AtomicBool,
    waker: AtomicWaker,
}

impl Connection {
    /// What has moved since this was last asked. One at a time: under the lock of the table.
    fn gained(&self) -> [u64; 2] {
        let [up, down] = &self.entered;
        let gained = |sum: &Counter, entered: &Counter| {
            let sum = sum.get();
            sum.saturating_sub(entered.replace(sum))
        };
        [gained(&self.upload, up), gained(&self.download, down)]
    }

    /// Notes that the client, or the server, has said all. What is left may take its time from now on.
    pub fn note_said_all(&self, client: bool, server: bool) {
        let said_all = u8::from(client) | u8::from(server) << 1;
        if said_all != 0 && self.said_all.swap(said_all, Ordering::Relaxed) != said_all {
            self.active.store(clock::coarse(), Ordering::Relaxed);
        }
    }

    /// When it last moved something, or began: seconds of the coarse clock.
    pub(super) fn last_active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Has it look active at another time.
    #[cfg(test)]
    pub(super) fn set_last_active(&self, seconds: u32) {
        self.active.store(seconds, Ordering::Relaxed);
    }

    /// Asks the flow to end; its task closes both ends.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether somebody asked for its end; registers the flow's task to be woken when somebody does.
    pub fn poll_closed(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        self.closed.load(Ordering::Acquire)
    }
}

/// Who looks on while flows come and go. Called from the flows' own tasks: it must not wait.
pub trait Observer: Send + Sync {
    /// Whether it wants to know of flows at all just now.
    fn watches(&self) -> bool;

    /// A flow was entered.
    fn opened(&self, connection: &Connection);

    /// A flow ended.
    fn closed(&self, connection: &Connection);
}

/// Table: the flows by id, and totals since start.
#[derive(Default)]
pub struct Connections {
    observer: OnceLock<Box<dyn Observer>>,
    history: RwLock<Option<Arc<History>>>,
    policy: RwLock<Option<Arc<Policy>>>,
    live: Mutex<Table>,
    upload_total: Counter,
    download_total: Counter,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    /// Kept while somebody reads counters by name.
    ledger: Option<Ledger>,
}

impl Connections {
    /// Enters a flow that begins now (`start` since 1970).
    pub fn open(
        &self,
        metadata: Metadata,
        chain: Vec<Arc<str>>,
        rule: Option<(&'static str, Box<str>)>,
        start: Duration,
    ) -> Arc<Connection> {
        let policy = self.policy();
        let level = policy.map(|policy| policy.level(metadata.user_level));
        let mut table = self.table();
        table.next_id += 1;
        let connection = Arc::new(Connection {
            id: table.next_id,
            metadata,
            chain,
            rule,
            start,
            remote: OnceLock::new(),
            upload: Counter::default(),
            download: Counter::default(),
            entered: Default::default(),
            active: AtomicU32::new(clock::coarse()),
            said_all: AtomicU8::new(0),
            buffer: level.map_or(0, |level| level.buffer),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        table.by_id.insert(connection.id, Arc::clone(&connection));
        if let Some(ledger) = &mut table.ledger {
            ledger.begin(&connection);
        }
        drop(table);
        if let Some(observer) = self.observer() {
            observer.opened(&connection);
        }
        connection
    }

    /// Lets somebody look on from now on; the first one stays.
    pub fn observe(&self, observer: Box<dyn Observer>) {
        let _first = self.observer.set(observer);
    }

    /// Whether somebody wants to know of flows just now.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.observer().is_some()
    }

    fn observer(&self) -> Option<&dyn Observer> {
        let observer = self.observer.get()?;
        observer.watches().then_some(&**observer)
    }

    /// Takes a flow that ended out of the table.
    pub fn remove(&self, id: u64) {
        let history = self.history();
        let mut table = self.table();
        let ended = table.by_id.remove(&id);
        if let (Some(connection), Some(history)) = (&ended, history) {
            history.add(connection, connection.gained(), &Moment::now());
        }
        if let (Some(connection), Some(ledger)) = (&ended, &mut table.ledger) {
            ledger.end(connection);
        }
        // A burst of flows must not pin its table for ever.
        if table.by_id.capacity() > 1024 && table.by_id.len() * 8 < table.by_id.capacity() {
            table.by_id.shrink_to_fit();
        }
        drop(table);
        if let (Some(connection), Some(observer)) = (ended, self.observer()) {
            observer.closed(&connection);
        }
    }

    /// Has what flows move from now on entered into `history`, or into none.
    pub fn keep_history(&self, history: Option<Arc<History>>) {
        *self.history.write().unwrap_or_else(PoisonError::into_inner) = history;
    }

    /// The history, where one is kept.
    #[must_use]
    pub fn history(&self) -> Option<Arc<History>> {
        let history = self.history.read();
        history.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has a policy hold from now on, or none; what may be read at a time is a flow's from its beginning.
    pub fn follow_policy(&self, policy: Option<Policy>) {
        let policy = policy.map(Arc::new);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// The policy, where there is one.
    #[must_use]
    pub fn policy(&self) -> Option<Arc<Policy>> {
        let policy = self.policy.read();
        policy.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the flows to end that are silent for longer than their level may be, at `now` of the coarse clock.
    pub fn cut_silent(&self, now: u32) {
        let Some(policy) = self.policy() else {
            return;
        };
        self.close_first(usize::MAX, &|flow| {
            let said_all = flow.said_all.load(Ordering::Relaxed);
            let patience = policy
                .level(flow.metadata.user_level)
                .patience([said_all & 1 != 0, said_all & 2 != 0]);
            let silent = now.saturating_sub(flow.last_active());
            // The second that was begun is no whole one.
            (silent > patience).then_some((false, 0))
        });
    }

    /// Enters what the live flows have moved so far, and answers with the history, where one is kept.
    pub fn settle(&self) -> Option<Arc<History>> {
        let history = self.history()?;
        let at = Moment::now();
        for connection in self.table().by_id.values() {
            history.add(connection, connection.gained(), &at);
        }
        history.measure(at.now);
        Some(history)
    }

    /// The flows of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Connection>> {
        self.table().by_id.values().cloned().collect()
    }

    /// How many flows live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table().by_id.len()
    }

    /// Whether no flow lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks one flow to end; unknown ids are no error.
    pub fn close(&self, id: u64) {
        let found = self.table().by_id.get(&id).cloned();
        if let Some(connection) = found {
            connection.close();
        }
    }

    /// Asks the `count` flows of the lowest rank to end, the older of two alike; those without one stay.
    /// How many there were.
    pub(super) fn close_first(
        &self,
        count: usize,
        rank: &dyn Fn(&Connection) -> Option<(bool, u32)>,
    ) -> usize {
        let mut ranked: Vec<_> = {
            let table = self.table();
            let live = table.by_id.values();
            live.filter(|connection| !connection.closed.load(Ordering::Relaxed))
                .filter_map(|connection| Some((rank(connection)?, Arc::clone(connection))))
                .collect()
        };
        if count < ranked.len() {
            ranked.select_nth_unstable_by_key(count, |(rank, flow)| (*rank, flow.id));
            ranked.truncate(count);
        }
        for (_, connection) in &ranked {
            connection.close();
        }
        ranked.len()
    }

    /// Shows `look` every live flow; under the lock of the table, so it must be quick.
    pub(super) fn for_each(&self, look: &mut dyn FnMut(&Connection)) {
        for connection in self.table().by_id.values() {
            look(connection);
        }
    }

    /// Asks every flow to end.
    pub fn close_all(&self) {
        for connection in self.snapshot() {
            connection.close();
        }
    }

    /// Counts bytes from the client of `connection`.
    pub fn count_upload(&self, connection: &Connection, bytes: u64) {
        connection.active.store(clock::coarse(), Ordering::Relaxed);
        connection.upload.add(bytes);
        self.upload_total.add(bytes);
    }

    /// Counts bytes to the client of `connection`.
    pub fn count_download(&self, connection: &Connection, bytes: u64) {
        connection.active.store(clock::coarse(), Ordering::Relaxed);
        connection.download.add(bytes);
        self.download_total.add(bytes);
    }

    /// Bytes since start: from clients, to clients.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.upload_total.get(), self.download_total.get())
    }

    /// Has sums by listener, outbound and user kept from now on, or forgets them.
    pub fn keep_ledger(&self, keep: bool) {
        let mut table = self.table();
        if keep {
            table.ledger.get_or_insert_default();
        } else {
            table.ledger = None;
        }
    }

    /// The sums that `wanted` says by name, direction and level, each since its last reset; with `reset` they count anew from
    /// here. Those `known` exist though nothing went through them yet. None when no ledger is kept.
    pub fn counted(
        &self,
        known: impl IntoIterator<Item = Name>,
        reset: bool,
        wanted: &dyn Fn(&Name, Direction, u32) -> bool,
    ) -> Vec<Counted> {
        let mut table = self.table();
        let Table { by_id, ledger, .. } = &mut *table;
        ledger.as_mut().map_or_else(Vec::new, |ledger| {
            ledger.read(known, by_id.values(), reset, wanted)
        })
    }

    /// What each user has moved in all since the ledger began, both ways, resets or not.
    #[must_use]
    pub fn user_totals(&self) -> Vec<(Arc<str>, u64)> {
        let table = self.table();
        let ledger = table.ledger.as_ref();
        ledger.map_or_else(Vec::new, |ledger| ledger.user_totals(table.by_id.values()))
    }

    /// Adds to the sums what an earlier run had counted, up and down.
    pub fn credit(&self, counters: &[(Name, [u64; 2])]) {
        if let Some(ledger) = &mut self.table().ledger {
            ledger.credit(counters);
        }
    }

    /// The level of the latest flow of that name; `None` where none was ever seen since the ledger is kept.
    #[must_use]
    pub fn level_of(&self, name: &Name) -> Option<u32> {
        let table = self.table();
        table.ledger.as_ref().and_then(|ledger| ledger.level(name))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::tunnel::ledger::Party;

    fn open(connections: &Connections, user: Option<&str>) -> Arc<Connection> {
        let mut metadata = Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &"in".into(),
            "192.168.1.5:40000".parse().unwrap(),
            Endpoint::parse("example.org:443").unwrap(),
        );
        metadata.inbound_user = user.map(Arc::from);
        connections.open(
            metadata,
            vec!["node".into(), "group".into()],
            None,
            Duration::ZERO,
        )
    }

    #[track_caller]
    fn check(connections: &Connections, party: Party, name: &str, reset: bool, want: [u64; 2]) {
        let wanted = (party, Arc::from(name));
        let counted = connections.counted(None, reset, &|name, _, _| *name == wanted);
        let bytes: Vec<u64> = counted.iter().map(|counted| counted.bytes).collect();
        assert_eq!(bytes, want);
    }

    #[test]
    fn sums_hold_live_and_ended_flows_once() {
        let connections = Connections::default();
        connections.keep_ledger(true);
        let (first, second) = (open(&connections, Some("ann")), open(&connections, None));
        connections.count_upload(&first, 5);
        connections.count_download(&second, 7);
        check(&connections, Party::Inbound, "in", false, [5, 7]);
        connections.remove(first.id);
        check(&connections, Party::Inbound, "in", false, [5, 7]);
        check(&connections, Party::Outbound, "node", false, [5, 7]);
        check(&connections, Party::User, "ann", false, [5, 0]);
        assert_eq!(connections.level_of(&(Party::User, "ann".into())), Some(0));
        assert_eq!(
            connections.level_of(&(Party::Outbound, "group".into())),
            None
        );
    }

    #[test]
    fn a_reset_counts_anew_also_within_a_live_flow() {
        let connections = Connections::default();
        connections.keep_ledger(true);
        let flow = open(&connections, Some("ann"));
        connections.count_upload(&flow, 5);
        check(&connections, Party::User, "ann", true, [5, 0]);
        connections.count_upload(&flow, 2);
        check(&connections, Party::User, "ann", false, [2, 0]);
        connections.remove(flow.id);
        check(&connections, Party::User, "ann", true, [2, 0]);
        check(&connections, Party::User, "ann", false, [0, 0]);
        check(&connections, Party::Inbound, "in", false, [7, 0]);
    }

    #[test]
    fn totals_of_users_know_no_reset() {
        let connections = Connections::default();
        connections.keep_ledger(true);
        connections.credit(&[((Party::User, "ann".into()), [1, 2])]);
        let flow = open(&connections, Some("ann"));
        connections.count_upload(&flow, 5);
        check(&connections, Party::User, "ann", true, [6, 2]);
        connections.count_download(&flow, 4);
        assert_eq!(connections.user_totals(), [("ann".into(), 12)]);
        connections.remove(flow.id);
        assert_eq!(connections.user_totals(), [("ann".into(), 12)]);
    }

    #[test]
    fn who_is_silent_for_longer_than_his_level_may_is_cut() {
        let connections = Connections::default();
        let flow = open(&connections, Some("ann"));
        let waker = Waker::noop();
        let cut = |after: u32| {
            connections.cut_silent(flow.last_active() + after);
            flow.poll_closed(waker)
        };
        assert!(!cut(u32::MAX / 2));
        connections.follow_policy(Some(Policy::default()));
        assert!(!cut(300));
        // What both ends have said counts from when they said it.
        let long_ago = u32::MAX - 1000;
        flow.set_last_active(long_ago);
        flow.note_said_all(false, false);
        assert_eq!(flow.last_active(), long_ago);
        flow.note_said_all(false, true);
        assert!(flow.last_active() < long_ago);
        assert!(!cut(2));
        flow.note_said_all(true, false);
        assert!(!cut(5));
        assert!(cut(6));
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        let connections = Connections::default();
        let flow = open(&connections, Some("ann"));
        connections.count_upload(&flow, 5);
        connections.remove(flow.id);
        assert!(connections.counted(None, false, &|_, _, _| true).is_empty());
        connections.keep_ledger(true);
        let known = [(Party::Inbound, Arc::from("in"))];
        let zero = connections.counted(known, false, &|_, _, _| true);
        assert_eq!(zero.iter().map(|counted| counted.bytes).sum::<u64>(), 0);
        assert_eq!(zero.len(), 2);
    }
}
