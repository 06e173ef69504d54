//! How questions leave the router: the interface that this module asks its sockets of.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, UdpSocket};

use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::{BoxFuture, Outbound};
use crate::platform::socket::{self, bind_dhcp_client, bind_udp, connect_tcp};

/// Gives sockets that our own kernel rules leave alone, and ways through proxies.
pub trait Egress: Send + Sync {
    /// An unconnected UDP socket on a random port, of `server`'s family.
    ///
    /// # Errors
    /// What the kernel says.
    fn udp(&self, server: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket>;

    /// A socket of the DHCP client's port that may broadcast on `interface`.
    ///
    /// # Errors
    /// What the kernel says.
    fn dhcp(&self, interface: &str) -> io::Result<UdpSocket>;

    /// A TCP connection to `server`.
    fn tcp<'a>(
        &'a self,
        server: SocketAddr,
        interface: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<TcpStream>>;

    /// The proxy or group of that name.
    fn outbound(&self, name: &str) -> Option<Arc<dyn Outbound>>;

    /// The way that the rules send this flow, whose address is known.
    fn by_rules(&self, flow: &Metadata) -> Option<Arc<dyn Outbound>>;
}

/// The routing of the moment, which knows proxies and groups.
pub trait Outbounds: Send + Sync {
    /// The proxy or group of that name.
    fn named(&self, name: &str) -> Option<Arc<dyn Outbound>>;

    /// The node that the rules send this flow to; no rule may have anything resolved.
    fn by_rules(&self, flow: &Metadata) -> Option<Arc<dyn Outbound>>;
}

/// The daemon's way: plain sockets with its mark.
pub struct Sockets {
    /// Mark, and the interface when a server names none.
    pub egress: socket::Egress,
    /// For `#name` and `#RULES`.
    pub outbounds: Arc<dyn Outbounds>,
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

    fn dhcp(&self, interface: &str) -> io::Result<UdpSocket> {
        bind_dhcp_client(&self.through(Some(interface)))
    }

    fn tcp<'a>(
        &'a self,
        server: SocketAddr,
        interface: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<TcpStream>> {
        Box::pin(async move { connect_tcp(server, &self.through(interface)).await })
    }

    fn outbound(&self, name: &str) -> Option<Arc<dyn Outbound>> {
        self.outbounds.named(name)
    }

    fn by_rules(&self, flow: &Metadata) -> Option<Arc<dyn Outbound>> {
        self.outbounds.by_rules(flow)
    }
}

/// The facts of a flow of our own to a server.
pub(super) fn metadata(network: Network, server: Endpoint) -> Metadata {
    let nobody = (Ipv4Addr::UNSPECIFIED, 0).into();
    Metadata::new(network, InboundType::Inner, &"DNS".into(), nobody, server)
}
