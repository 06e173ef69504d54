//! What Trojan, VMess and VLESS have in common as outbounds: a transport that carries them, and
//! a connection of it for each stream and each association.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::carrier::Carrier;
use super::dial::Node;
use super::transport::Transport;
use super::{BoxFuture, Datagrams, Kind, Outbound, Stream, Traits};
use crate::metadata::{Endpoint, Metadata};

/// A protocol spoken over a carrier. Opens nothing and waits for nothing.
pub trait StreamProtocol: Send + Sync {
    /// What an outbound of it is.
    fn kind(&self) -> Kind;

    /// A stream to `to` by the server behind `carrier`.
    ///
    /// # Errors
    /// `to` has no encoding, or the system has no randomness.
    fn stream(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Stream>;

    /// An association by the server behind `carrier`, whose first datagram goes to `to`.
    ///
    /// # Errors
    /// As [`StreamProtocol::stream`].
    fn datagrams(&self, carrier: Carrier, to: &Endpoint) -> io::Result<Box<dyn Datagrams>>;
}

/// A server of such a protocol.
pub struct StreamProxy {
    node: Node,
    transport: Transport,
    protocol: Box<dyn StreamProtocol>,
}

impl StreamProxy {
    /// A server that is reached by `transport`.
    #[must_use]
    pub fn new(node: Node, transport: Transport, protocol: Box<dyn StreamProtocol>) -> Self {
        Self {
            node,
            transport,
            protocol,
        }
    }
}

impl Outbound for StreamProxy {
    fn name(&self) -> &Arc<str> {
        &self.node.name
    }

    fn kind(&self) -> Kind {
        self.protocol.kind()
    }

    fn udp(&self) -> bool {
        self.node.udp
    }

    fn traits(&self) -> Traits {
        self.node.traits.clone()
    }

    fn dialer(&self) -> Option<Arc<dyn Outbound>> {
        self.node.dialer.carrier()
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async {
            let carrier = self.transport.connect(&self.node.dialer).await?;
            self.protocol.stream(carrier, &metadata.destination())
        })
    }

    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async {
            if !self.node.udp {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let carrier = self.transport.connect(&self.node.dialer).await?;
            // By address when it is known: replies name their sender so.
            let to = match metadata.destination_ip {
                Some(ip) => SocketAddr::new(ip, metadata.destination_port).into(),
                None => metadata.destination(),
            };
            self.protocol.datagrams(carrier, &to)
        })
    }
}
