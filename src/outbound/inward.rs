//! The way out that leads into the program itself: what is dialled by it reaches the Xray API in memory, under
//! the name that `xray-api.tag` gives it.
//!
//! It knows nothing of what is spoken there, and lets nobody in when nobody serves. Whoever serves decides
//! by a visitor's address whom to answer. Streams alone; datagrams have nowhere to go.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::duplex;
use tokio::sync::mpsc;

use super::{BoxFuture, ByteStream, Datagrams, Kind, Outbound, Stream};
use crate::metadata::Metadata;

/// Visitors that wait to be served, as in Xray; further ones are refused.
const WAITING_MAX: usize = 4;

/// What may stand between a visitor and who serves him, bytes each way; taken as far as it is needed.
const PIPE_BYTES: usize = 16 * 1024;

/// Where a flow comes from, and its stream.
pub type Visitor = (IpAddr, Box<dyn ByteStream>);

/// The queue before who serves; outlives configurations.
#[derive(Default)]
pub struct Entrance(Mutex<Option<mpsc::Sender<Visitor>>>);

impl Entrance {
    /// Has visitors come to the caller from now on, until he drops what he gets.
    pub fn open(&self) -> mpsc::Receiver<Visitor> {
        let (sender, visitors) = mpsc::channel(WAITING_MAX);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        visitors
    }

    fn enter(&self, from: IpAddr) -> io::Result<Stream> {
        let (near, far) = duplex(PIPE_BYTES);
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
        let sent = sender.try_send((from.to_canonical(), Box::new(far)));
        sent.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Stream::Boxed(Box::new(near)))
    }
}

/// The outbound.
pub struct Inward {
    name: Arc<str>,
    entrance: Arc<Entrance>,
}

impl Inward {
    /// One that leads to `entrance`.
    #[must_use]
    pub fn new(name: &str, entrance: &Arc<Entrance>) -> Self {
        Self {
            name: name.into(),
            entrance: Arc::clone(entrance),
        }
    }
}

impl Outbound for Inward {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Inward
    }

    fn udp(&self) -> bool {
        false
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        let entered = self.entrance.enter(metadata.source.ip());
        Box::pin(std::future::ready(entered))
    }

    fn associate<'a>(
        &'a self,
        _metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        let refused = Err(io::ErrorKind::Unsupported.into());
        Box::pin(std::future::ready(refused))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};

    fn flow() -> Metadata {
        let to = Endpoint::parse("192.0.2.1:1").unwrap();
        let from = "[::ffff:192.168.1.5]:4000".parse().unwrap();
        Metadata::new(Network::Tcp, InboundType::Tunnel, &"door".into(), from, to)
    }

    #[tokio::test]
    async fn visitors_reach_who_serves_and_nobody_else() {
        let entrance = Arc::default();
        let inward = Inward::new("api", &entrance);
        assert!(inward.connect(&flow()).await.is_err());
        let mut visitors = entrance.open();
        let Ok(Stream::Boxed(mut near)) = inward.connect(&flow()).await else {
            panic!("not let in");
        };
        let (from, mut far) = visitors.recv().await.unwrap();
        assert_eq!(from.to_string(), "192.168.1.5");
        near.write_all(b"hi").await.unwrap();
        let mut read = [0; 2];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hi");
        for _ in 0..WAITING_MAX {
            assert!(inward.connect(&flow()).await.is_ok());
        }
        assert!(inward.connect(&flow()).await.is_err());
        drop(visitors);
        assert!(inward.connect(&flow()).await.is_err());
        assert!(inward.associate(&flow()).await.is_err());
    }
}
