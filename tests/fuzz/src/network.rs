//! A network in memory: an outbound whose streams and datagrams say what the fuzzer wants. As the
//! `dialer-proxy` of another outbound it plays that one's server.

use std::collections::VecDeque;
use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use headgate::metadata::{Endpoint, InboundType, Metadata, Network};
use headgate::outbound::dial::{Dialer, Environment, Node};
use headgate::outbound::{
    BoxFuture, Datagrams, IpVersion, Kind, Outbound, Purpose, Resolve, Stream, Traits,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// Makes the server's bytes of what the client wrote until its first read, in the pieces in which
/// they arrive.
pub type Script = Box<dyn FnOnce(&[u8]) -> Vec<Vec<u8>> + Send>;

/// The outbound: one stream and one association, each once.
pub struct Wire {
    name: Arc<str>,
    script: Mutex<Option<Script>>,
    packets: Mutex<VecDeque<Vec<u8>>>,
}

impl Wire {
    /// A server that follows `script`, and sends `packets`.
    pub fn new(script: Script, packets: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            name: "wire".into(),
            script: Mutex::new(Some(script)),
            packets: Mutex::new(packets.into()),
        })
    }

    /// A node whose connections go through the wire.
    pub fn node(self: &Arc<Self>) -> Node {
        let name: Arc<str> = "node".into();
        let environment = Environment {
            resolver: Arc::new(NoNames),
            own_mark: 0,
            routing_mark: 0,
            interface: None,
            ipv6: true,
            reach: Arc::default(),
        };
        let target = OnceLock::new();
        let wire: Arc<dyn Outbound> = Arc::clone(self) as _;
        let _ = target.set(Arc::downgrade(&wire));
        Node {
            dialer: Dialer::new(&Default::default(), &environment).through(&name, target.into()),
            name,
            udp: true,
            traits: Traits::default(),
        }
    }
}

impl Outbound for Wire {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Direct
    }

    fn udp(&self) -> bool {
        true
    }

    fn connect<'a>(&'a self, _: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        let script = self.script.lock().unwrap().take();
        Box::pin(ready(Ok(Stream::Boxed(Box::new(Pipe {
            script,
            written: Vec::new(),
            pieces: VecDeque::new(),
        })))))
    }

    fn associate<'a>(&'a self, _: &'a Metadata) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        let packets = std::mem::take(&mut *self.packets.lock().unwrap());
        let packets: Box<dyn Datagrams> = Box::new(Packets(Mutex::new(packets)));
        Box::pin(ready(Ok(packets)))
    }
}

struct Pipe {
    script: Option<Script>,
    written: Vec<u8>,
    pieces: VecDeque<Vec<u8>>,
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(script) = this.script.take() {
            this.pieces = script(&this.written).into();
            // An empty read would be the end.
            this.pieces.retain(|piece| !piece.is_empty());
        }
        if let Some(mut piece) = this.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                this.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Packets(Mutex<VecDeque<Vec<u8>>>);

impl Datagrams for Packets {
    fn send_to<'a>(&'a self, _: &'a [u8], _: &'a Endpoint) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn try_send_to(&self, _: &[u8], _: &Endpoint) -> io::Result<()> {
        Ok(())
    }

    fn poll_recv_from(
        &self,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let Some(packet) = self.0.lock().unwrap().pop_front() else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        buffer.put_slice(&packet[..packet.len().min(buffer.remaining())]);
        Poll::Ready(Ok(SocketAddr::from(([192, 0, 2, 1], 1))))
    }
}

struct NoNames;

impl Resolve for NoNames {
    fn resolve<'a>(
        &'a self,
        _: &'a str,
        _: IpVersion,
        _: Purpose,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(ready(Err(io::ErrorKind::NotFound.into())))
    }
}

/// A flow to `example.com:443`.
pub fn flow() -> Metadata {
    Metadata::new(
        Network::Tcp,
        InboundType::Inner,
        &Arc::from("fuzz"),
        SocketAddr::from(([192, 0, 2, 2], 2)),
        Endpoint::parse("example.com:443").unwrap(),
    )
}

/// Runs a future to its end; nothing in memory makes it wait.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// `bytes` in pieces whose lengths `sizes` gives in turn; in one piece when it is empty.
pub fn pieces(mut bytes: &[u8], sizes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for size in sizes {
        let (piece, rest) = bytes.split_at((usize::from(*size) + 1).min(bytes.len()));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces.push(bytes.to_vec());
    pieces
}

/// The datagrams of an association until it ends.
pub async fn received(datagrams: &dyn Datagrams) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let mut bytes = vec![0; 1500];
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        match std::future::poll_fn(|cx| datagrams.poll_recv_from(cx, &mut buffer)).await {
            Ok(sender) => all.push((sender, buffer.filled().to_vec())),
            Err(_) => return all,
        }
    }
}
