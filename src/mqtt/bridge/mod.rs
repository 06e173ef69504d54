//! Bridges: topics that go to another broker, and come from it.
//!
//! A bridge has a session here like any client, named [`PREFIX`] and its name, and one at the other
//! broker. `relay` passes packets from one to the other and holds nothing: a message is acknowledged
//! here when it is acknowledged there, under the same packet identifier. So what waits for a broker
//! that is away waits in the session's queue, with its bounds and in the log like any other, a broker
//! that is slow fills no memory but that queue, and QoS 2 stays exactly once over cuts and restarts.
//!
//! `driver` is the task: on the daemon's runtime, since TLS takes time that local clients must not wait
//! for. It speaks to the broker's thread by a stream of bytes, as if it were connected over a socket.
//!
//! Against loops: neither broker sends a bridge what the bridge said itself (no-local; before 5.0 by
//! the bit that mosquitto knows), and between brokers of 5.0 a user property names the brokers that a
//! message went through.

mod driver;
mod relay;
mod side;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

use super::codec::{PropertyWriter, Qos, Version};
use super::hook::Publication;
use super::options::Options;
use super::remote::Remote;
use crate::metadata::Endpoint;
use crate::outbound::certificate::read_file;
use crate::outbound::options::TlsOptions;
use crate::outbound::tls::{Pem, Trust};
use crate::provider::http::Connect;

/// What the client identifiers of bridges' sessions begin with; nobody else's may.
pub const PREFIX: &str = "$bridge/";

/// One entry of `mqtt.bridges`.
#[derive(Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// `name`.
    pub name: Box<str>,
    /// `server`: host and port.
    pub server: Endpoint,
    /// `tls` and its keys.
    pub tls: Option<TlsOptions>,
    /// `ca`, `certificate` and `private-key`.
    pub trust: TrustFiles,
    /// `proxy`: the outbound to go through; none: by the rules.
    pub proxy: Option<Box<str>>,
    /// `version`: what is spoken there.
    pub version: Version,
    /// `client-id` there; absent: one of its own for this broker and bridge.
    pub client_id: Option<Box<str>>,
    /// `username` there.
    pub username: Option<Box<str>>,
    /// `password` there.
    pub password: Option<Box<str>>,
    /// `clean`: the other broker keeps no session.
    pub clean: bool,
    /// `keep-alive`, seconds; 0: none.
    pub keep_alive: u16,
    /// `topics`, in order: the first that fits a message says where it goes.
    pub topics: Vec<BridgeTopic>,
}

impl fmt::Debug for BridgeOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeOptions")
            .field("name", &self.name)
            .field("server", &self.server)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// Where in PEM stands whom a bridge believes, and who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustFiles {
    /// Roots in place of the system's.
    pub ca: Option<Box<Path>>,
    /// Its certificates and its key.
    pub identity: Option<(Box<Path>, Box<Path>)>,
}

impl TrustFiles {
    /// Reads them.
    ///
    /// # Errors
    /// The file and why it cannot be read.
    fn read(&self) -> io::Result<Trust> {
        let read = |path: &Path| read_file(path).map(Pem::from).map_err(io::Error::other);
        let identity = match &self.identity {
            Some((chain, key)) => Some((read(chain)?, read(key)?)),
            None => None,
        };
        let roots = self.ca.as_deref().map(read).transpose()?;
        Ok(Trust { roots, identity })
    }
}

/// One entry of a bridge's `topics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeTopic {
    /// `filter`, without the prefixes.
    pub filter: Box<str>,
    /// `direction: out` or `both`.
    pub out: bool,
    /// `direction: in` or `both`.
    pub inward: bool,
    /// `qos` at most.
    pub qos: Qos,
    /// `local-prefix`: before the topic here.
    pub local_prefix: Box<str>,
    /// `remote-prefix`: before the topic there.
    pub remote_prefix: Box<str>,
}

/// The broker's end of a bridge, which is to be let in as it is.
pub(super) struct Leg {
    pub io: DuplexStream,
    pub client_id: Box<str>,
    /// Messages that the other broker takes at a time.
    pub inflight_max: u16,
    /// Bytes of a packet that the other broker takes.
    pub packet_max: u32,
    /// What is subscribed here, as SUBSCRIBE will say it; anything else is not any more.
    pub filters: Vec<Box<str>>,
    /// The other broker knows nothing of messages that it began to send.
    pub forgotten: bool,
}

/// The running bridges. Dropping it ends them; their sessions stay.
pub struct Bridges {
    broker: Remote,
    way: Arc<dyn Connect>,
    running: Vec<(BridgeOptions, JoinSet<()>)>,
}

impl Bridges {
    /// None yet; they reach other brokers by `way`.
    #[must_use]
    pub fn new(broker: &Remote, way: Arc<dyn Connect>) -> Self {
        Self {
            broker: broker.clone(),
            way,
            running: Vec::new(),
        }
    }

    /// Ends all of them.
    pub fn stop(&mut self) {
        self.running.clear();
    }

    /// Follows a configuration: bridges that stay as they are notice nothing. Must be called on the
    /// runtime that they are to run on.
    pub fn follow(&mut self, options: &Options) {
        self.running
            .retain(|(bridge, _)| options.bridges.contains(bridge));
        for bridge in &options.bridges {
            if self.running.iter().any(|(known, _)| known == bridge) {
                continue;
            }
            let mut task = JoinSet::new();
            let (broker, way) = (self.broker.clone(), Arc::clone(&self.way));
            task.spawn(driver::run(bridge.clone(), options.limits, broker, way).boxed());
            self.running.push((bridge.clone(), task));
        }
        let names = options.bridges.iter().map(|bridge| client_id(&bridge.name));
        let client_ids: Vec<Box<str>> = names.collect();
        if !self
            .broker
            .tell(move |broker, now| broker.keep_bridges(now, &client_ids))
        {
            log::warn!("mqtt: sessions of former bridges stay until the next reload");
        }
    }
}

/// Says by a retained message whether a bridge is up, "1" or "0", where mosquitto's users look for it.
pub(super) fn state(name: &str, state: &str) -> Publication {
    Publication {
        topic: format!("$SYS/broker/connection/{name}/state").into(),
        payload: state.as_bytes().into(),
        properties: PropertyWriter::default(),
        qos: Qos::AtLeastOnce,
        retain: true,
        client_id: client_id(name),
    }
}

/// The name of a bridge's session here.
fn client_id(name: &str) -> Box<str> {
    format!("{PREFIX}{name}").into()
}
