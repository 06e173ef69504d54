//! How inbounds hand over what they accepted. [`Tunnel`](super::Tunnel) is the implementation;
//! inbounds are tested against others.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metadata::{Endpoint, Metadata};
use crate::outbound::{BoxFuture, Stream};

/// What inbounds hand flows to.
pub trait Dispatch: Send + Sync + 'static {
    /// Relays a stream until both ends are done.
    fn stream(&self, metadata: Metadata, client: Stream) -> BoxFuture<'_, ()>;

    /// Hands over one datagram that the client socket `source` sent `to` somewhere. Never waits;
    /// drops when queues are full. `describe` makes the metadata of a new session.
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
    /// Sends `payload` to `client` as from `from`; drops when it cannot go at once.
    fn reply(&self, client: SocketAddr, from: &Endpoint, payload: &[u8]);
}
