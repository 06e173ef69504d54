//! REJECT, REJECT-DROP and PASS: ways that lead nowhere.
//!
//! PASS as a rule's target means "go on with the next rule" and never gets here; dialled all the
//! same (global mode, a listener's `proxy`) it rejects.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::{BoxFuture, Datagrams, Kind, Outbound, Stream};
use crate::metadata::{Endpoint, Metadata};

/// Ends streams, or keeps them silent; swallows datagrams.
pub struct Reject {
    name: Arc<str>,
    kind: Kind,
}

impl Reject {
    /// An outbound that shows itself as `kind` and is silent when that is [`Kind::RejectDrop`].
    #[must_use]
    pub fn new(name: Arc<str>, kind: Kind) -> Self {
        Self { name, kind }
    }
}

impl Outbound for Reject {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn udp(&self) -> bool {
        true
    }

    fn connect<'a>(&'a self, _metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        let stream = if self.kind == Kind::RejectDrop {
            Stream::Silent
        } else {
            Stream::Closed
        };
        Box::pin(std::future::ready(Ok(stream)))
    }

    fn associate<'a>(
        &'a self,
        _metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        let swallow: Box<dyn Datagrams> = Box::new(Swallow);
        Box::pin(std::future::ready(Ok(swallow)))
    }
}

/// Takes every datagram and never answers.
struct Swallow;

impl Datagrams for Swallow {
    fn send_to<'a>(
        &'a self,
        _payload: &'a [u8],
        _to: &'a Endpoint,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn try_send_to(&self, _payload: &[u8], _to: &Endpoint) -> io::Result<()> {
        Ok(())
    }

    fn poll_recv_from(
        &self,
        _cx: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        Poll::Pending
    }
}
