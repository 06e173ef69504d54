//! How questions leave the router: the interface that this module asks its sockets of.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, UdpSocket};

use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::{BoxFuture, Outbound};
use crate::platform::socket::{self, bind_udp, connect_tcp};

/// Gives sockets that our own kernel rules leave alone, and ways through proxies.
pub trait Egress: Send + Sync {
    /// An unconnected UDP socket on a random port, of `server`'s family.
    ///
    /// # Errors
    /// What the kernel says.
    fn udp(&self, server: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket>;

    /// A TCP connection to `server`.
    fn tcp<'a>(
        &'a self,
        server: SocketAddr,
        interface: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<TcpStream>>;

    /// The proxy or group of that name.
    fn outbound(&self, name: &str) -> Option<Arc<dyn Outbound>>;
}

/// Finds a proxy or group by name in the routing of the moment.
pub type FindOutbound = Box<dyn Fn(&str) -> Option<Arc<dyn Outbound>> + Send + Sync>;

/// The daemon's way: plain sockets with its mark.
pub struct Sockets {
    /// Mark, and the interface when a server names none.
    pub egress: socket::Egress,
    /// Looks proxies up for `#name`.
    pub find: FindOutbound,
}

impl Sockets {
    fn through(&self, interface: Option<&str>) -> socket::Egress {
        let mut egress = self.egress.clone();
        if let Some(interface) = interface {
            egress.interface = Some(interface.into());
        }
        egress
    }
}

impl Egress for Sockets {
    fn udp(&self, server: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        bind_udp(any, &self.through(interface))
    }

    fn tcp<'a>(
        &'a self,
        server: SocketAddr,
        interface: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<TcpStream>> {
        Box::pin(async move { connect_tcp(server, &self.through(interface)).await })
    }

    fn outbound(&self, name: &str) -> Option<Arc<dyn Outbound>> {
        (self.find)(name)
    }
}

/// What `#name` of a server means.
pub(super) enum Via {
    Outbound(Arc<dyn Outbound>),
    Interface(Option<Box<str>>),
}

impl Via {
    /// A proxy or group of that name, else the interface of that name.
    pub(super) fn find(egress: &dyn Egress, name: Option<&str>) -> Self {
        match name.and_then(|name| egress.outbound(name)) {
            Some(outbound) => Self::Outbound(outbound),
            None => Self::Interface(name.map(Into::into)),
        }
    }
}

/// The facts of a flow of our own to a server.
pub(super) fn metadata(network: Network, server: Endpoint) -> Metadata {
    let nobody = (Ipv4Addr::UNSPECIFIED, 0).into();
    Metadata::new(network, InboundType::Inner, &"DNS".into(), nobody, server)
}
