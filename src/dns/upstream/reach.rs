//! The way to a server: by the rules, a proxy or an interface; its addresses; a stream to it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::egress::{Egress, metadata};
use super::{Bootstrap, Failure, Server};
use crate::dns::options::Via;
use crate::metadata::{Endpoint, Host, Network};
use crate::outbound::Outbound;
use crate::outbound::carrier::Carrier;

/// Addresses of one server that are tried, one after the other.
const ADDRESSES_MAX: usize = 4;
/// Groups within groups; the configuration refuses loops, so this only bounds the walk.
const DEPTH_MAX: usize = 32;
/// Servers that are remembered for spelling names their own way; the one noted first is forgotten.
const RESPELLING_MAX: usize = 32;

/// What every server is reached by.
#[derive(Clone)]
pub(in crate::dns) struct Reach {
    pub(in crate::dns) egress: Arc<dyn Egress>,
    /// Finds servers that are given by name; `None` for the set that does so, which takes literals
    /// only.
    pub(in crate::dns) bootstrap: Option<Arc<OnceLock<Weak<dyn Bootstrap>>>>,
    /// Our own listeners: never asked by way of `system`.
    pub(in crate::dns) own: Box<[SocketAddr]>,
    /// Servers that do not give back a name as it was spelled.
    pub(in crate::dns) respelling: Arc<Respelling>,
}

/// Table: servers whose answers spell the question in their own way, by where they are asked.
#[derive(Default)]
pub(in crate::dns) struct Respelling(Mutex<VecDeque<Endpoint>>);

impl Respelling {
    pub(super) fn has(&self, server: &Endpoint) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(server)
    }

    pub(super) fn note(&self, server: &Endpoint) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(server) {
            if known.len() == RESPELLING_MAX {
                known.pop_front();
            }
            known.push_back(server.clone());
        }
    }
}

/// The way to one server.
pub(super) enum Way {
    /// By an outbound, which is told the name unless it is DIRECT.
    Outbound(Arc<dyn Outbound>, Vec<Endpoint>),
    /// By a socket of our own.
    Socket(Option<Box<str>>, Vec<SocketAddr>),
}

impl Way {
    /// Where datagrams go.
    pub(super) fn first(&self) -> Option<Endpoint> {
        match self {
            Self::Outbound(_, endpoints) => endpoints.first().cloned(),
            Self::Socket(_, places) => places.first().map(|place| (*place).into()),
        }
    }
}

impl Reach {
    /// Where `server` is to be reached, and by which way, for a flow of this network.
    pub(super) async fn locate(&self, server: &Server, network: Network) -> Result<Way, Failure> {
        let host = Host::parse(&server.host).ok_or(Failure::NoServers)?;
        let port = server.port;
        let given = Endpoint { host, port };
        let (outbound, interface) = match &server.via {
            Via::Direct => (None, None),
            Via::Named(name) => match self.egress.outbound(name) {
                Some(outbound) => (Some(outbound), None),
                None => (None, Some(name.clone())),
            },
            Via::Rules => {
                let mut flow = metadata(network, given.clone());
                if flow.destination_ip.is_none() {
                    flow.destination_ip = self.addresses(&given.host).await?.first().copied();
                }
                let outbound = self.egress.by_rules(&flow).ok_or(Failure::NoServers)?;
                (Some(outbound), None)
            }
        };
        if let Some(outbound) = outbound {
            // DIRECT would have the name resolved by those who want to be reached here.
            let direct = leaf(&outbound).kind().is_direct();
            let endpoints = if direct {
                let addresses = self.addresses(&given.host).await?.into_iter();
                let endpoint = |ip| Endpoint {
                    host: Host::Ip(ip),
                    port,
                };
                addresses.map(endpoint).collect()
            } else {
                vec![given]
            };
            return Ok(Way::Outbound(outbound, endpoints));
        }
        let addresses = self.addresses(&given.host).await?.into_iter();
        let places = addresses.map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Way::Socket(interface, places))
    }

    /// The first few addresses of a server.
    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Failure> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![*ip]),
            Host::Name(name) => name,
        };
        let bootstrap = self
            .bootstrap
            .as_ref()
            .and_then(|place| place.get()?.upgrade());
        let mut found = bootstrap.ok_or(Failure::NoServers)?.addresses(name).await?;
        found.truncate(ADDRESSES_MAX);
        Ok(found)
    }

    /// Opens a stream to `server`.
    pub(super) async fn connect(&self, server: &Server) -> Result<Carrier, Failure> {
        self.connect_by(&self.locate(server, Network::Tcp).await?)
            .await
    }

    /// Opens a stream by a way that is known.
    pub(super) async fn connect_by(&self, way: &Way) -> Result<Carrier, Failure> {
        let mut failure = Failure::NoServers;
        match way {
            Way::Outbound(outbound, endpoints) => {
                for endpoint in endpoints {
                    let flow = metadata(Network::Tcp, endpoint.clone());
                    match outbound.connect(&flow).await {
                        Ok(stream) => match Carrier::of(stream) {
                            Some(carrier) => return Ok(carrier),
                            None => failure = Failure::Io(io::ErrorKind::ConnectionRefused),
                        },
                        Err(error) => failure = error.into(),
                    }
                }
            }
            Way::Socket(interface, places) => {
                for place in places {
                    match self.egress.tcp(*place, interface.as_deref()).await {
                        Ok(stream) => return Ok(Carrier::Tcp(stream)),
                        Err(error) => failure = error.into(),
                    }
                }
            }
        }
        Err(failure)
    }
}

/// The node that `outbound` leads to now.
fn leaf(outbound: &Arc<dyn Outbound>) -> Arc<dyn Outbound> {
    let mut node = Arc::clone(outbound);
    for _ in 0..DEPTH_MAX {
        match node.selected(None) {
            Some(member) => node = member,
            None => break,
        }
    }
    node
}
