//! The way of the router's events to the broker's thread.
//!
//! Called from the loops that do the work, so it never waits: a load of an atomic tells whether any rule
//! wants the event; if so it is put into a bounded queue ([`QUEUE_MAX`]; when full, the new event is
//! dropped and counted) which the broker's thread empties.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as JsonValue;
use tokio::sync::Notify;

use super::engine::Engine;
use super::event::{Datum, EventKind, Occurrence};
use super::flow::{count, data_of, flow_row, unix_ms};
use super::history::{FLOWS_MAX_BYTES, NAMES_MAX_BYTES, Record, Ring};
use super::traffic::{TRAFFIC_SECONDS, Traffic};
use crate::dns::message::NAME_BYTES_MAX;
use crate::dns::message::record::{Answer, Section};
use crate::dns::message::text;
use crate::dns::server;
use crate::mqtt::Time;
use crate::mqtt::broker::Broker;
use crate::mqtt::remote::Remote;
use crate::platform::clock;
use crate::tunnel::connections::{Connection, Connections, Observer};

/// Events that may wait for the broker's thread.
const QUEUE_MAX: usize = 512;

/// Table: events that wait.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Occurrence>,
    /// Whether the broker's thread was told.
    told: bool,
    dropped: u64,
}

/// From the router to the rules.
pub struct Feed {
    /// The kinds that some rule wants.
    wanted: AtomicU32,
    queue: Mutex<Queue>,
    remote: Remote,
    /// This node's name, in events.
    node: Box<str>,
    /// Told when other kinds are wanted.
    otherwise: Notify,
    traffic: Traffic,
    /// Whether `history` is there.
    remembers: AtomicBool,
    /// Table: what queries may ask later.
    history: Mutex<Option<Box<History>>>,
}

/// What was there lately.
struct History {
    flows: Ring,
    names: Ring,
}

impl Feed {
    /// A feed that leads to the broker behind `remote`.
    #[must_use]
    pub fn new(remote: Remote, node: &str) -> Arc<Self> {
        Arc::new(Self {
            wanted: AtomicU32::new(0),
            queue: Mutex::default(),
            remote,
            node: node.into(),
            otherwise: Notify::new(),
            traffic: Traffic::default(),
            remembers: AtomicBool::new(false),
            history: Mutex::default(),
        })
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn want(&self, kinds: u32) {
        if self.wanted.swap(kinds, Ordering::Relaxed) != kinds {
            self.otherwise.notify_one();
        }
    }

    /// Waits until other kinds are wanted than before; for one task at a time.
    pub async fn wanted_otherwise(&self) {
        self.otherwise.notified().await;
    }

    /// Keeps what ends from now on, for queries.
    pub fn remember(&self) {
        if !self.remembers.swap(true, Ordering::Relaxed) {
            *self.history() = Some(Box::new(History {
                flows: Ring::new(FLOWS_MAX_BYTES),
                names: Ring::new(NAMES_MAX_BYTES),
            }));
        }
    }

    fn remembers(&self) -> bool {
        self.remembers.load(Ordering::Relaxed)
    }

    fn history(&self) -> MutexGuard<'_, Option<Box<History>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the flows that have ended.
    pub fn flows_ended(&self, show: &mut dyn FnMut(&Record)) {
        if let Some(history) = &*self.history() {
            history.flows.iter().for_each(show);
        }
    }

    /// Shows the names that devices were told.
    pub fn names_told(&self, show: &mut dyn FnMut(&Record)) {
        if let Some(history) = &*self.history() {
            history.names.iter().for_each(show);
        }
    }

    /// Tells what each device has moved since the last call. The first one after a rule began to want
    /// that only looks.
    pub fn sum_traffic(self: &Arc<Self>, connections: &Connections) {
        if !self.wants(EventKind::Traffic) {
            return self.traffic.forget();
        }
        for (device, mac, [up, down]) in self.traffic.sum(connections) {
            let mut data = vec![
                ("device", Datum::Address(device)),
                ("upload", count(up)),
                ("download", count(down)),
                ("interval", Datum::Int(TRAFFIC_SECONDS)),
            ];
            data.extend(mac.map(|mac| ("device_mac", Datum::Text(mac.to_string().into()))));
            self.push(EventKind::Traffic, data);
        }
    }

    /// Whether there is something that the next sum is compared with.
    #[must_use]
    pub fn sums_traffic(&self) -> bool {
        self.traffic.is_summed()
    }

    /// A name that a device asked for, with the answer that it gets.
    fn asked(self: &Arc<Self>, client: IpAddr, answer: &[u8]) -> Option<()> {
        let parsed = Answer::parse(answer).ok()?;
        let mut buffer = [0; NAME_BYTES_MAX];
        let question = &parsed.question;
        let name = question.name.text(&mut buffer)?;
        let records = text::records(&parsed).unwrap_or_default();
        let answers = records
            .into_iter()
            .filter(|record| record.section == Section::Answer);
        let data = vec![
            ("device", Datum::Address(client.to_canonical())),
            ("name", Datum::Text(name.into())),
            ("type", Datum::Int(question.qtype.into())),
            ("rcode", Datum::Int(parsed.rcode().into())),
            (
                "answers",
                Datum::Names(answers.map(|record| record.data.into()).collect()),
            ),
        ];
        if self.remembers()
            && let Some(history) = &mut *self.history()
        {
            let mut row = data.clone();
            row.push(("time", Datum::Int(unix_ms())));
            history.names.push(row.into());
        }
        if self.wants(EventKind::DnsQuery) {
            self.push(EventKind::DnsQuery, data);
        }
        Some(())
    }

    /// Whether some rule wants events of this kind.
    #[must_use]
    pub fn wants(&self, kind: EventKind) -> bool {
        self.wanted.load(Ordering::Relaxed) & kind.bit() != 0
    }

    /// A choice in a group.
    pub fn switched(self: &Arc<Self>, group: &str, proxy: &str) {
        if self.wants(EventKind::ProxySwitched) {
            let data = vec![
                ("group", Datum::Text(group.into())),
                ("proxy", Datum::Text(proxy.into())),
            ];
            self.push(EventKind::ProxySwitched, data);
        }
    }

    /// Has `call` run on the broker's thread, later. `false`: it will not.
    pub(super) fn tell(&self, call: impl FnOnce(&mut Broker, Time) + Send + 'static) -> bool {
        self.remote.tell(call)
    }

    /// Raises an alarm, or with no message ends it.
    pub(super) fn alarm(&self, name: String, message: Option<String>, details: JsonValue) {
        let told = self.remote.tell(move |broker, now| {
            match &message {
                Some(message) => broker.raise_alarm(now, &name, message, &details),
                None => broker.lower_alarm(now, &name),
            };
        });
        if !told {
            log::warn!("the broker is too busy for an alarm");
        }
    }

    /// Has the fallbacks of an action done, for the row (JSON) with which it failed.
    pub(super) fn fall_back(&self, action: Box<str>, row: Box<[u8]>) {
        let told = self.remote.tell(move |broker, now| {
            let publications = broker.with_hook(|engine: &mut Engine| {
                let mut out = Vec::new();
                engine.fall_back(now, &action, &row, &mut out);
                out
            });
            for publication in publications.into_iter().flatten() {
                broker.publish_for(now, &publication);
            }
        });
        if !told {
            log::warn!("the broker is too busy for the fallback of an action");
        }
    }

    /// Something happened that [`Feed::wants`] asked for.
    pub fn push(self: &Arc<Self>, kind: EventKind, data: Vec<(&'static str, Datum)>) {
        let time_ms = unix_ms();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() >= QUEUE_MAX {
            queue.dropped += 1;
            return;
        }
        queue.waiting.push_back(Occurrence {
            kind,
            time_ms,
            data,
        });
        if !queue.told {
            let me = Arc::clone(self);
            queue.told = self.remote.tell(move |broker, now| me.drain(broker, now));
        }
    }

    /// On the broker's thread: shows what waits, and publishes what follows.
    fn drain(&self, broker: &mut Broker, now: Time) {
        let (waiting, dropped) = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.told = false;
            (
                std::mem::take(&mut queue.waiting),
                std::mem::take(&mut queue.dropped),
            )
        };
        if dropped > 0 {
            log::warn!("{dropped} events of the router came too fast for the rules");
        }
        let publications = broker.with_hook(|engine: &mut Engine| {
            let mut out = Vec::new();
            for occurrence in &waiting {
                engine.occurred(now, occurrence, &mut out);
            }
            out
        });
        for publication in publications.into_iter().flatten() {
            broker.publish_for(now, &publication);
        }
    }
}

/// The observer of the DNS server's answers.
pub struct DnsWatch(pub Arc<Feed>);

/// The observer of the tunnel's connections.
pub struct Watch(pub Arc<Feed>);

impl Observer for Watch {
    fn watches(&self) -> bool {
        let kinds = [
            EventKind::ConnectionOpened,
            EventKind::ConnectionClosed,
            EventKind::Traffic,
        ];
        self.0.remembers() || kinds.iter().any(|kind| self.0.wants(*kind))
    }

    fn opened(&self, connection: &Connection) {
        if self.0.wants(EventKind::ConnectionOpened) {
            self.0
                .push(EventKind::ConnectionOpened, data_of(connection));
        }
    }

    fn closed(&self, connection: &Connection) {
        if self.0.remembers()
            && let Some(history) = &mut *self.0.history()
        {
            history.flows.push(flow_row(connection, false).into());
        }
        if self.0.wants(EventKind::Traffic) {
            self.0.traffic.note_end(connection);
        }
        if self.0.wants(EventKind::ConnectionClosed) {
            let mut data = data_of(connection);
            let lasted = clock::unix_time()
                .saturating_sub(connection.start)
                .as_millis();
            data.push(("upload", count(connection.upload.get())));
            data.push(("download", count(connection.download.get())));
            data.push(("duration", count(u64::try_from(lasted).unwrap_or(u64::MAX))));
            self.0.push(EventKind::ConnectionClosed, data);
        }
    }
}

impl server::Watch for DnsWatch {
    fn watches(&self) -> bool {
        self.0.remembers() || self.0.wants(EventKind::DnsQuery)
    }

    fn answered(&self, client: IpAddr, answer: &[u8]) {
        let _malformed = self.0.asked(client, answer);
    }
}
