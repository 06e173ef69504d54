//! The DNS server of the moment: what outbounds, the tunnel and inbounds hold while reloads replace
//! the server behind it.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use super::server::Server;
use crate::outbound::{BoxFuture, IpVersion, Purpose, Resolve};

/// Snapshot: swapped whole by a reload.
pub struct Current(RwLock<Arc<Server>>);

impl Current {
    /// Begins with `server`.
    #[must_use]
    pub fn new(server: Arc<Server>) -> Self {
        Self(RwLock::new(server))
    }

    /// The server of the moment.
    #[must_use]
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `server` in place of the present one.
    pub fn replace(&self, server: Arc<Server>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = server;
    }
}

impl Resolve for Current {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        version: IpVersion,
        purpose: Purpose,
    ) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        let server = self.server();
        Box::pin(async move { server.resolver().resolve(name, version, purpose).await })
    }
}
