//! Joins the two ends of a flow: decides, dials, relays and counts.
//!
//! The road of a stream is `dispatch` (name → sniff → decide → dial) and then `relay`; the road of
//! datagrams is `udp`. Both read `routing`, a snapshot, and enter what lives into `connections`.

pub mod added;
pub mod admission;
pub mod blocked;
pub mod connections;
pub mod dispatch;
pub mod explain;
pub mod flow;
pub mod history;
pub mod ledger;
pub mod names;
pub mod pacing;
pub mod policy;
pub mod prefixed;
pub mod preparing;
pub mod quota;
pub mod relay;
pub mod routing;
pub mod sniffer;
pub mod tally;
pub mod udp;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use admission::Admission;
use blocked::Blocked;
use connections::Connections;
use names::{Devices, Names};
use pacing::Pacing;
use quota::Quotas;
use routing::Routing;
use udp::Sessions;

use crate::metadata::Mac;

/// What every flow needs, whichever inbound it came by. Holds no sockets.
pub struct Tunnel {
    /// Itself, for the tasks that it begins.
    me: Weak<Self>,
    /// Snapshot: swapped whole by a reload.
    routing: RwLock<Arc<Routing>>,
    names: Arc<dyn Names>,
    devices: Arc<dyn Devices>,
    connections: Arc<Connections>,
    admission: Arc<Admission>,
    quotas: Quotas,
    pacing: Pacing,
    blocked: Blocked,
    sessions: Sessions,
}

impl Tunnel {
    /// A tunnel that decides by `routing`.
    #[must_use]
    pub fn new(routing: Routing, names: Arc<dyn Names>, devices: Arc<dyn Devices>) -> Arc<Self> {
        let connections: Arc<Connections> = Arc::default();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            routing: RwLock::new(Arc::new(routing)),
            names,
            devices,
            admission: Admission::new(Arc::clone(&connections)),
            connections,
            quotas: Quotas::default(),
            pacing: Pacing::default(),
            blocked: Blocked::default(),
            sessions: Sessions::default(),
        })
    }

    /// The present rules and outbounds.
    #[must_use]
    pub fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `routing` in force for new flows.
    pub fn replace_routing(&self, routing: Routing) {
        *self.routing.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routing);
    }

    /// Whether our DNS answers with fake addresses.
    #[must_use]
    pub fn gives_fakes(&self) -> bool {
        self.names.fake_mode()
    }

    /// The live flows.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// How many streams may come in.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// What users may move in a month.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// What users may move in a second.
    #[must_use]
    pub fn pacing(&self) -> &Pacing {
        &self.pacing
    }

    /// What a device calls itself.
    #[must_use]
    pub fn device_name(&self, address: IpAddr, mac: Option<Mac>) -> Option<Box<str>> {
        self.devices.name_of(address, mac)
    }

    /// The devices that may open nothing.
    #[must_use]
    pub fn blocked(&self) -> &Blocked {
        &self.blocked
    }

    /// Who knows the devices.
    #[must_use]
    pub fn devices(&self) -> &dyn Devices {
        &*self.devices
    }

    /// A handle for a task; `None` while the tunnel is being dropped.
    fn handle(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }
}
