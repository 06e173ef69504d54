//! What inbounds hand flows to, and where datagrams go back: the two interfaces between the
//! edge and the tunnel, so that an inbound can be tried without a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metadata::{Endpoint, Metadata};
use crate::outbound::{BoxFuture, Stream};

/// What inbounds hand flows to; the tunnel implements it.
pub trait Dispatch: Send + Sync + 'static {
    /// Relays a stream until both ends are done. Dropping the future ends the flow.
    fn stream(&self, metadata: Metadata, client: Stream) -> BoxFuture<'_, ()>;

    /// Hands over one datagram of the client socket `source`; never waits; drops it when queues
    /// are full. `describe` is asked once, when the datagram begins a session; later replies
    /// of that session go to the `reply` that came last.
    fn datagram(
        &self,
        source: SocketAddr,
        to: Endpoint,
        payload: &[u8],
        reply: &Arc<dyn ReplySink>,
        describe: &dyn Fn() -> Metadata,
    );
}

/// Where replies to a client's datagrams go back.
pub trait ReplySink: Send + Sync {
    /// Sends `payload`, which came from `from`, to the client socket `client`; never waits;
    /// what cannot be sent at once is lost.
    fn reply(&self, client: SocketAddr, from: &Endpoint, payload: &[u8]);
}
