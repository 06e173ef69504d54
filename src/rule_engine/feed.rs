//! The way of the router's events to the broker's thread.
//!
//! Called from the loops that do the work, so it never waits: a load of an atomic tells whether any rule
//! wants the event; if so it is put into a bounded queue ([`QUEUE_MAX`]; when full, the new event is
//! dropped and counted) which the broker's thread empties.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::Engine;
use super::event::{Datum, EventKind, Occurrence};
use crate::metadata::{Mac, Network};
use crate::mqtt::Time;
use crate::mqtt::broker::Broker;
use crate::mqtt::hook::Publication;
use crate::mqtt::remote::Remote;
use crate::platform::clock;
use crate::tunnel::connections::{Connection, Observer};

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
}

impl Feed {
    /// A feed that leads to the broker behind `remote`.
    #[must_use]
    pub fn new(remote: Remote) -> Arc<Self> {
        Arc::new(Self {
            wanted: AtomicU32::new(0),
            queue: Mutex::default(),
            remote,
        })
    }

    pub(super) fn want(&self, kinds: u32) {
        self.wanted.store(kinds, Ordering::Relaxed);
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

    /// Publishes apart from what is going on: at the end of a long chain it would be cut as well.
    pub(super) fn publish(&self, publication: Publication) {
        let told = self.remote.tell(move |broker, now| {
            broker.publish_for(now, &publication);
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

    fn push(self: &Arc<Self>, kind: EventKind, data: Vec<(&'static str, Datum)>) {
        let time_ms = i64::try_from(clock::unix_time().as_millis()).unwrap_or(i64::MAX);
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

/// The observer of the tunnel's connections.
pub struct Watch(pub Arc<Feed>);

impl Observer for Watch {
    fn watches(&self) -> bool {
        self.0.wants(EventKind::ConnectionOpened) || self.0.wants(EventKind::ConnectionClosed)
    }

    fn opened(&self, connection: &Connection) {
        if self.0.wants(EventKind::ConnectionOpened) {
            self.0
                .push(EventKind::ConnectionOpened, data_of(connection));
        }
    }

    fn closed(&self, connection: &Connection) {
        if self.0.wants(EventKind::ConnectionClosed) {
            let mut data = data_of(connection);
            let count = |bytes: u64| Datum::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
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

fn data_of(connection: &Connection) -> Vec<(&'static str, Datum)> {
    let metadata = &connection.metadata;
    let names = connection.chain.iter().rev();
    let names: Vec<Box<str>> = names.map(|name| (&**name).into()).collect();
    let network = match metadata.network {
        Network::Tcp => "tcp",
        Network::Udp => "udp",
    };
    let mut data = vec![
        (
            "id",
            Datum::Int(i64::try_from(connection.id).unwrap_or(i64::MAX)),
        ),
        ("network", Datum::Text(network.into())),
        (
            "device",
            Datum::Address(metadata.source.ip().to_canonical()),
        ),
        ("device_port", Datum::Int(metadata.source.port().into())),
        ("port", Datum::Int(metadata.destination_port.into())),
        ("inbound", Datum::Text((&*metadata.inbound).into())),
    ];
    let mut add = |name, datum: Option<Datum>| data.extend(datum.map(|datum| (name, datum)));
    let mac = metadata.source_mac.as_ref().map(Mac::to_string);
    add("device_mac", mac.map(|mac| Datum::Text(mac.into())));
    let host = metadata.sniffed_host.as_ref().or(metadata.host.as_ref());
    add("host", host.map(|host| Datum::Text(host.clone())));
    let destination = connection.remote.get().copied().or(metadata.destination_ip);
    add(
        "destination",
        destination.map(|ip| Datum::Address(ip.to_canonical())),
    );
    if let Some((kind, payload)) = &connection.rule {
        add("rule", Some(Datum::Text((*kind).into())));
        add("rule_payload", Some(Datum::Text(payload.clone())));
    }
    add(
        "outbound",
        connection
            .chain
            .first()
            .map(|name| Datum::Text((&**name).into())),
    );
    add("chain", Some(Datum::Names(names)));
    data
}
