//! `type: tunnel`, Xray's `dokodemo-door` with an address: whoever connects is taken to one target, without a word.
//!
//! Streams are [`Proxy`]'s; here are the datagrams. Replies go back by the port that was asked, whoever sent them.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::UdpSocket;

use super::mixed::Proxy;
use crate::metadata::{Endpoint, InboundType, Network};
use crate::outbound::scratch::Scratch;
use crate::platform::socket;
use crate::tunnel::flow::ReplySink;

/// How many datagrams are taken before another task has its turn.
const BURST: usize = 64;

/// Hands over the datagrams that come to `socket` until it is dropped; at once at an end for other kinds of port.
pub async fn serve_datagrams(proxy: Arc<Proxy>, socket: UdpSocket) {
    let Some(target) = proxy.target.clone() else {
        return;
    };
    let socket = Arc::new(socket);
    let replies: Arc<dyn ReplySink> = Arc::new(Replies(Arc::downgrade(&socket)));
    while socket.readable().await.is_ok() {
        receive(&proxy, &socket, &target, &replies);
        tokio::task::yield_now().await;
    }
}

fn receive(proxy: &Proxy, socket: &UdpSocket, target: &Endpoint, replies: &Arc<dyn ReplySink>) {
    let mut scratch = Scratch::large();
    for _ in 0..BURST {
        let buffer = scratch.spare();
        // Errors tell of earlier replies that did not arrive; the next datagram may.
        let Ok((length, source)) = socket.try_recv_from(buffer) else {
            return;
        };
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let payload = buffer.get(..length).unwrap_or_default();
        let describe = || {
            let (kind, network) = (InboundType::Tunnel, Network::Udp);
            proxy.metadata(kind, network, source, target.clone(), None)
        };
        let to = target.clone();
        proxy
            .dispatch
            .datagram(source, to, payload, replies, &describe);
    }
}

/// The way back, while the port is served.
struct Replies(Weak<UdpSocket>);

impl ReplySink for Replies {
    fn reply(&self, client: SocketAddr, _from: &Endpoint, payload: &[u8]) {
        if let Some(socket) = self.0.upgrade() {
            // A full socket drops, as any router does.
            let _dropped = socket::send_to_client(&socket, payload, client);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::Port;
    use super::super::options::ListenerKind;
    use super::super::testing::{Direct, port, with_proxy};
    use super::*;

    fn to(target: SocketAddr) -> Port {
        Port {
            target: Some(target.into()),
            ..port(ListenerKind::Tunnel)
        }
    }

    #[tokio::test]
    async fn a_stream_goes_to_the_target_though_its_client_says_nothing() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        let flows = with_proxy(to(target), async |proxy| {
            let mut client = TcpStream::connect(proxy).await.unwrap();
            let (mut there, _) = server.accept().await.unwrap();
            there.write_all(b"first").await.unwrap();
            let mut read = [0; 5];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"first");
        })
        .await;
        let (metadata, kind) = &flows[0];
        assert_eq!((metadata.inbound_type, *kind), (InboundType::Tunnel, "tcp"));
        assert_eq!(metadata.destination().to_string(), target.to_string());
    }

    #[tokio::test]
    async fn datagrams_go_to_the_target_and_back() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let direct = Arc::new(Direct::default());
        let dispatch = Arc::clone(&direct) as Arc<dyn crate::tunnel::flow::Dispatch>;
        let proxy = Proxy::new(&to(server.local_addr().unwrap()), address, dispatch);
        let served = tokio::spawn(serve_datagrams(Arc::new(proxy), socket));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"ping", address).await.unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ping");
        server.send_to(b"pong", from).await.unwrap();
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"pong"[..], address));
        let flows = std::mem::take(&mut *direct.flows.lock().unwrap());
        assert_eq!(flows[0].0.source, client.local_addr().unwrap());
        served.abort();
    }
}
