//! Joins the two ends: decides, dials, relays and counts.

pub mod connections;
pub mod flow;
pub mod routing;

use std::sync::{Arc, PoisonError, RwLock};

use connections::Connections;
use routing::Routing;

/// What every flow needs, whichever inbound it came by. Holds no sockets.
pub struct Tunnel {
    /// Snapshot: swapped whole by a reload.
    routing: RwLock<Arc<Routing>>,
    connections: Connections,
}

impl Tunnel {
    /// A tunnel that decides by `routing`.
    #[must_use]
    pub fn new(routing: Routing) -> Self {
        Self {
            routing: RwLock::new(Arc::new(routing)),
            connections: Connections::default(),
        }
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

    /// The live flows.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }
}
