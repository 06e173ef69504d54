//! What resources and queries need of the daemon: a runtime for their tasks, a way to servers and where
//! they may go, and the tables.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use tokio::runtime::Handle;

use super::options::{Allowed, Options};
use super::tables::Tables;
use crate::metadata::Endpoint;
use crate::outbound::Stream;
use crate::outbound::carrier::Carrier;
use crate::platform::beneath::{self, Refused};
use crate::provider::http::Connect;

/// Bytes of a certificate's or key's file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The world beyond the broker's thread.
pub struct Outside {
    /// Where tasks run.
    pub runtime: Handle,
    /// How servers are reached.
    pub way: Arc<dyn Connect>,
    /// What queries read; it may hold this.
    pub tables: Weak<dyn Tables>,
    /// The working directory, and the others in which the API may name a file.
    places: Vec<PathBuf>,
    /// Snapshot: replaced by a reload.
    allowed: RwLock<Arc<[Allowed]>>,
}

impl Outside {
    /// A world in which web hooks go where `options` say.
    #[must_use]
    pub fn new(
        runtime: Handle,
        way: Arc<dyn Connect>,
        tables: Weak<dyn Tables>,
        places: Vec<PathBuf>,
        options: &Options,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            way,
            tables,
            places,
            allowed: RwLock::new(options.webhook_allow.as_slice().into()),
        })
    }

    /// A file of a resource, by its path or by its name in the working directory.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn file(&self, name: &str) -> Result<Vec<u8>, Refused> {
        let places: Vec<&Path> = self.places.iter().map(PathBuf::as_path).collect();
        let own = places.first().ok_or(Refused::Outside)?;
        let (_, content) = beneath::read(&places, &own.join(name), FILE_BYTES_MAX)?;
        Ok(content)
    }

    /// Follows a new configuration.
    pub fn follow(&self, options: &Options) {
        let mut allowed = self.allowed.write().unwrap_or_else(PoisonError::into_inner);
        *allowed = options.webhook_allow.as_slice().into();
    }

    fn allowed(&self) -> Arc<[Allowed]> {
        Arc::clone(&self.allowed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether web hooks may go there (users.md S27).
    #[must_use]
    pub fn admits(&self, to: &Endpoint) -> bool {
        self.allowed().iter().any(|one| one.names(to))
    }

    /// Opens a stream for a web hook. A name may lead anywhere by then: a connection to this machine or
    /// its link is given up before a byte is said, unless the list has that very address.
    ///
    /// # Errors
    /// `PermissionDenied` where the list does not lead; else what the way says.
    pub async fn open_hook(&self, to: &Endpoint) -> io::Result<Carrier> {
        let denied = || {
            let why = format!("{to} is not in rule-engine.webhook-allow");
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        };
        if !self.admits(to) {
            return Err(denied());
        }
        match self.way.connect(to, None).await? {
            Stream::Tcp(stream) => {
                let (peer, own) = (stream.peer_addr()?, stream.local_addr()?);
                let ip = peer.ip().to_canonical();
                let inside = ip == own.ip().to_canonical()
                    || ip.is_loopback()
                    || ip.is_unspecified()
                    || matches!(ip, std::net::IpAddr::V4(ip) if ip.is_link_local());
                let covered = || self.allowed().iter().any(|one| one.covers(ip, peer.port()));
                match inside && !covered() {
                    true => Err(denied()),
                    false => Ok(Carrier::Tcp(stream)),
                }
            }
            other => Carrier::of(other).ok_or_else(|| io::ErrorKind::ConnectionRefused.into()),
        }
    }
}
