//! UDP ASSOCIATE (RFC 1928 section 7): a UDP socket for one client, as long as its TCP
//! connection stands.
//!
//! The socket is bound on the address by which the client reached us and takes datagrams from
//! the client's address alone, any port. Malformed ones, fragments and strangers' are dropped
//! without a word. Replies that come when the association is over are dropped too: the
//! sessions of the tunnel hold no socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use tokio::net::UdpSocket;

use super::codec;
use crate::inbound::client::Client;
use crate::inbound::mixed::Proxy;
use crate::metadata::{Endpoint, InboundType, Network};
use crate::outbound::scratch::Scratch;
use crate::platform::socket::{Egress, bind_udp};
use crate::tunnel::flow::ReplySink;

/// How many datagrams are taken before the control connection is looked at again.
const BURST: usize = 64;

/// A bound association.
pub(in crate::inbound) struct Association {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    user: Option<Arc<str>>,
}

impl Association {
    /// Binds a socket for `client`, who logged in as `user`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn bind(client: &Client, user: Option<Arc<str>>) -> io::Result<Self> {
        let mut local = client.socket.local_addr()?;
        // Keeps the scope of a link-local address; an IPv4 client reaches an IPv4 socket.
        if let IpAddr::V4(v4) = local.ip().to_canonical() {
            local.set_ip(v4.into());
        }
        local.set_port(0);
        let socket = bind_udp(local, &Egress::default())?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket: Arc::new(socket),
            address,
            user,
        })
    }

    /// Where the client must send its datagrams.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the client closes its connection.
    pub(in crate::inbound) async fn run(self, proxy: &Proxy, mut client: Client) {
        let replies: Arc<dyn ReplySink> = Arc::new(Replies(Arc::downgrade(&self.socket)));
        loop {
            // What the client says on the control connection means nothing.
            client.unread.clear();
            tokio::select! {
                alive = client.read_more() => {
                    if alive.is_err() {
                        return;
                    }
                }
                readable = self.socket.readable() => {
                    if readable.is_err() {
                        return;
                    }
                    self.receive(proxy, client.source.ip(), &replies);
                }
            }
        }
    }

    /// Hands over the datagrams that have come.
    fn receive(&self, proxy: &Proxy, client: IpAddr, replies: &Arc<dyn ReplySink>) {
        let mut scratch = Scratch::large();
        for _ in 0..BURST {
            let buffer = scratch.spare();
            // Errors tell of earlier replies that did not arrive; the next datagram may.
            let Ok((length, source)) = self.socket.try_recv_from(buffer) else {
                return;
            };
            if source.ip() != client {
                continue;
            }
            let datagram = buffer.get(..length).unwrap_or_default();
            let Some((to, payload)) = codec::datagram(datagram) else {
                continue;
            };
            let describe = || {
                let (kind, network) = (InboundType::Socks5, Network::Udp);
                proxy.metadata(kind, network, source, to.clone(), self.user.as_ref())
            };
            let first = to.clone();
            proxy
                .dispatch
                .datagram(source, first, payload, replies, &describe);
        }
    }
}

/// The way back to the client, while its association stands.
struct Replies(Weak<UdpSocket>);

impl ReplySink for Replies {
    fn reply(&self, client: SocketAddr, from: &Endpoint, payload: &[u8]) {
        if let Some(socket) = self.0.upgrade() {
            // A full socket drops, as any router does.
            let _dropped = socket.try_send_to(&codec::reply_datagram(from, payload), client);
        }
    }
}
