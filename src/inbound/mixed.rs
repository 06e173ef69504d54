//! The explicit proxies: SOCKS, HTTP, or both on one port, told apart by the first byte; and tunnels, which ask nothing.
//!
//! [`Proxy`] is the service behind all these kinds of port; `inbound::socks` and
//! `inbound::http` speak the protocols. Once a client has its stream nothing of the handshake
//! stays in memory: the relay owns the plain socket.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::access::Access;
use super::client::Client;
use super::http::request::Request;
use super::listen::{Handshake, Service};
use super::options::ListenerKind;
use super::socks::associate::Association;
use super::socks::codec::{VERSION_4, VERSION_5};
use super::{Port, http, socks};
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::{BoxFuture, Stream};
use crate::tunnel::flow::Dispatch;

/// One explicit proxy port.
pub struct Proxy {
    name: Arc<str>,
    kind: ListenerKind,
    address: SocketAddr,
    pub(super) udp: bool,
    pub(super) access: Arc<Access>,
    pub(super) dispatch: Arc<dyn Dispatch>,
    proxy: Option<Arc<str>>,
    /// Of a tunnel.
    pub(super) target: Option<Endpoint>,
}

/// What a client asked for in its handshake.
pub(super) enum Opened {
    /// One stream.
    Stream(Metadata),
    /// Datagrams, for as long as the connection stands.
    Associate(Association),
    /// HTTP requests, of which this is the first.
    Http(Request),
}

impl Proxy {
    /// The proxy of `port`, which listens at `address`.
    #[must_use]
    pub fn new(port: &Port, address: SocketAddr, dispatch: Arc<dyn Dispatch>) -> Self {
        Self {
            name: Arc::clone(&port.name),
            kind: port.kind,
            address,
            udp: port.udp,
            access: Arc::clone(&port.access),
            dispatch,
            proxy: port.proxy.clone(),
            target: port.target.clone(),
        }
    }

    /// A flow from `source` through this port.
    pub(super) fn metadata(
        &self,
        kind: InboundType,
        network: Network,
        source: SocketAddr,
        destination: Endpoint,
        user: Option<&Arc<str>>,
    ) -> Metadata {
        let mut metadata = Metadata::new(network, kind, &self.name, source, destination);
        metadata.inbound_address = self.address;
        metadata.inbound_user = user.map(Arc::clone);
        metadata.user_level = user.map_or(0, |user| self.access.level(user));
        metadata.special_proxy.clone_from(&self.proxy);
        metadata
    }

    /// Notes why a client got no flow. Anybody can cause this, so it is no more than debugging.
    pub(super) fn refused(&self, source: SocketAddr, why: &dyn std::fmt::Display) {
        log::debug!("{}: {source} refused: {why}", self.name);
    }

    /// Reads what the client wants. `None`: it got its answer, or none.
    async fn open(&self, mut client: Client) -> Option<(Client, Opened)> {
        if let Some(target) = self.target.clone() {
            let (kind, network) = (InboundType::Tunnel, Network::Tcp);
            let metadata = self.metadata(kind, network, client.source, target, None);
            return Some((client, Opened::Stream(metadata)));
        }
        client.read_more().await.ok()?;
        let socks = matches!(client.unread.first(), Some(&(VERSION_4 | VERSION_5)));
        match self.kind {
            ListenerKind::Socks | ListenerKind::Mixed if socks => socks::open(self, client).await,
            ListenerKind::Http | ListenerKind::Mixed => http::open(self, client).await,
            _ => None,
        }
    }

    async fn run(self: Arc<Self>, socket: TcpStream, source: SocketAddr, handshake: Handshake) {
        if !self.access.admits(source.ip()) {
            self.refused(source, &"address not allowed");
            return;
        }
        // Each stage is a box of its own that is gone when the next begins, so that a task
        // which only relays holds the relay alone.
        let opening = Box::pin(self.open(Client::new(socket, source)));
        let Some(Some((client, opened))) = handshake.limit(opening).await else {
            return;
        };
        if let Some((metadata, stream)) = Box::pin(self.proceed(client, opened)).await {
            self.dispatch.stream(metadata, stream).await;
        }
    }

    /// Serves a client up to where all that is left is to relay one stream.
    async fn proceed(&self, client: Client, opened: Opened) -> Option<(Metadata, Stream)> {
        match opened {
            Opened::Stream(metadata) => Some((metadata, client.into_stream())),
            Opened::Associate(association) => {
                association.run(self, client).await;
                None
            }
            Opened::Http(request) => http::run(self, client, request).await,
        }
    }
}

impl Service for Proxy {
    fn serve(
        self: Arc<Self>,
        client: TcpStream,
        source: SocketAddr,
        handshake: Handshake,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.run(client, source, handshake))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::testing::{Direct, port};

    #[tokio::test]
    async fn a_task_that_relays_is_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let port = port(ListenerKind::Mixed);
        let proxy = Arc::new(Proxy::new(&port, address, Arc::new(Direct::default())));
        let (handshake, _keep) = Handshake::alone();
        let task = proxy.run(socket, address, handshake);
        assert!(size_of_val(&task) <= 1024, "{}", size_of_val(&task));
    }
}
