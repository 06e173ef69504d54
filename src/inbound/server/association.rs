//! Datagrams of one client within a stream: each goes to the tunnel, replies come back in turn.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::mpsc;

use super::Origin;
use crate::metadata::{Endpoint, Network};
use crate::outbound::packets::PacketStream;
use crate::tunnel::flow::ReplySink;

/// Replies that wait for the stream; beyond it the newest are dropped.
const REPLIES_MAX: usize = 128;

/// Datagrams that are taken before others get their turn.
const BURST: usize = 64;

/// Replies on their way to the association's task.
struct Replies(mpsc::Sender<(Endpoint, Box<[u8]>)>);

impl ReplySink for Replies {
    fn reply(&self, _client: SocketAddr, from: &Endpoint, payload: &[u8]) {
        let _dropped_when_full = self.0.try_send((from.clone(), payload.into()));
    }
}

/// Serves until the client ends its stream. Datagrams that name no target go to `target`.
pub(super) async fn run(origin: Arc<Origin>, target: Endpoint, mut stream: PacketStream) {
    let (sender, mut queue) = mpsc::channel(REPLIES_MAX);
    let replies: Arc<dyn ReplySink> = Arc::new(Replies(sender));
    let key = origin.session_key();
    let ended: io::Result<()> = poll_fn(|cx| {
        for _ in 0..BURST {
            while let Poll::Ready(Some((from, payload))) = queue.poll_recv(cx) {
                // What finds no room is lost, as on any way.
                let _lost = stream.send(&payload, &from);
            }
            let (to, payload) = match stream.poll_receive(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some((to, payload)))) => (to, payload),
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            };
            let to = to.unwrap_or_else(|| target.clone());
            let describe = || origin.metadata(Network::Udp, to.clone());
            let dispatch = &origin.server.dispatch;
            dispatch.datagram(key, to.clone(), payload, &replies, &describe);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if let Err(error) = ended {
        log::debug!("{}: {}: {error}", origin.server.name, origin.source);
    }
}
