//! mux.cool as a server speaks it: streams and datagrams of one client in the frames of one stream
//! (proxy-protocols.md 10.1, 10.2).
//!
//! A session's bytes wait in a pipe of its own; a full one holds the carrier up, which is all the flow
//! control that the protocol has. Frames to the client go through one bounded queue.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Origin;
use crate::metadata::{Endpoint, Network};
use crate::outbound::mux::frames::{self, Frame, Status};
use crate::outbound::scratch::Scratch;
use crate::outbound::{ByteStream, Stream};
use crate::tunnel::flow::ReplySink;

/// Sessions of one carrier; beyond it new ones are ended at once.
const SESSIONS_MAX: usize = 256;

/// Bytes that wait within one session, each way.
const PIPE_BYTES: usize = 16 * 1024;

/// Bytes of a stream that go in one frame.
const FRAME_BYTES: usize = 8 * 1024;

/// Frames that wait for the carrier.
const FRAMES_MAX: usize = 64;

/// Frames on their way to the client.
type Outgoing = mpsc::Sender<Box<[u8]>>;

enum Session {
    Stream(WriteHalf<DuplexStream>),
    Packets(Packets),
}

struct Packets {
    key: SocketAddr,
    target: Endpoint,
    replies: Arc<dyn ReplySink>,
}

/// Replies of one session of datagrams.
struct Replies {
    id: u16,
    outgoing: Outgoing,
}

impl ReplySink for Replies {
    fn reply(&self, _client: SocketAddr, from: &Endpoint, payload: &[u8]) {
        let mut out = Scratch::take(frames::room(payload.len()));
        // XUDP names the sender; other sessions know one alone.
        let from = (self.id == 0).then_some((Network::Udp, from));
        if frames::encode(self.id, Status::Keep, from, &[], Some(payload), &mut out).is_ok() {
            let _dropped_when_full = self.outgoing.try_send(out.data().into());
        }
    }
}

/// Serves until the client ends the carrier.
pub(super) async fn run(origin: Arc<Origin>, stream: Box<dyn ByteStream>) {
    let (reader, writer) = split(stream);
    let (outgoing, queue) = mpsc::channel(FRAMES_MAX);
    let mut carrier = Sessions {
        origin: Arc::clone(&origin),
        outgoing,
        sessions: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let ended = tokio::select! {
        ended = carrier.read(reader) => ended,
        ended = write(writer, queue) => ended,
    };
    if let Err(error) = ended {
        log::debug!("{}: {}: {error}", origin.server.name, origin.source);
    }
}

async fn write(
    mut writer: WriteHalf<Box<dyn ByteStream>>,
    mut queue: mpsc::Receiver<Box<[u8]>>,
) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        writer.write_all(&frame).await?;
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}

struct Sessions {
    origin: Arc<Origin>,
    outgoing: Outgoing,
    sessions: HashMap<u16, Session>,
    tasks: JoinSet<()>,
}

impl Sessions {
    async fn read(&mut self, mut reader: ReadHalf<Box<dyn ByteStream>>) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            while let Some(frame) = frames::decode(&bytes)? {
                let data = frame.data.clone().and_then(|range| bytes.get(range));
                self.take(&frame, data).await?;
                bytes.drain(..frame.length);
            }
            // Takes ended flows out of the set.
            while self.tasks.try_join_next().is_some() {}
            if bytes.is_empty() {
                bytes = Vec::new();
            }
            bytes.reserve(FRAME_BYTES);
            if reader.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: &Frame, data: Option<&[u8]>) -> io::Result<()> {
        match frame.status {
            Status::KeepAlive => return Ok(()),
            Status::End => {
                self.sessions.remove(&frame.id);
                return Ok(());
            }
            Status::New => self.begin(frame).await?,
            Status::Keep => {}
        }
        let data = data.unwrap_or_default();
        let alive = match self.sessions.get_mut(&frame.id) {
            Some(Session::Stream(pipe)) => data.is_empty() || pipe.write_all(data).await.is_ok(),
            Some(Session::Packets(packets)) => {
                packets.send(&self.origin, frame, data);
                true
            }
            None => false,
        };
        if !alive {
            self.sessions.remove(&frame.id);
            end(&self.outgoing, frame.id).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, frame: &Frame) -> io::Result<()> {
        let Some((network, target)) = frame.address.clone() else {
            return Ok(());
        };
        let id = frame.id;
        if self.sessions.len() >= SESSIONS_MAX {
            return Ok(());
        }
        let session = match network {
            Network::Tcp => {
                let (near, far) = duplex(PIPE_BYTES);
                let (down, up) = split(far);
                let (origin, outgoing) = (Arc::clone(&self.origin), self.outgoing.clone());
                self.tasks.spawn(async move {
                    let metadata = origin.metadata(Network::Tcp, target);
                    let dispatch = &origin.server.dispatch;
                    let flow = dispatch.stream(metadata, Stream::Boxed(Box::new(near)));
                    tokio::join!(flow, pump(down, &outgoing, id));
                });
                Session::Stream(up)
            }
            Network::Udp => Session::Packets(Packets {
                key: self.origin.session_key(),
                target,
                replies: Arc::new(Replies {
                    id,
                    outgoing: self.outgoing.clone(),
                }),
            }),
        };
        self.sessions.insert(id, session);
        Ok(())
    }
}

impl Packets {
    fn send(&self, origin: &Origin, frame: &Frame, payload: &[u8]) {
        let named = frame.address.as_ref().map(|(_, target)| target);
        let to = named.unwrap_or(&self.target);
        let describe = || origin.metadata(Network::Udp, to.clone());
        let dispatch = &origin.server.dispatch;
        dispatch.datagram(self.key, to.clone(), payload, &self.replies, &describe);
    }
}

/// Carries a flow's bytes to the client, and their end.
async fn pump(mut pipe: ReadHalf<DuplexStream>, outgoing: &Outgoing, id: u16) {
    let mut buffer = vec![0; FRAME_BYTES];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let data = buffer.get(..n);
        let mut out = Scratch::take(frames::room(n));
        if frames::encode(id, Status::Keep, None, &[], data, &mut out).is_err() {
            break;
        }
        let frame: Box<[u8]> = out.data().into();
        drop(out);
        if outgoing.send(frame).await.is_err() {
            return;
        }
    }
    let _carrier_gone = end(outgoing, id).await;
}

async fn end(outgoing: &Outgoing, id: u16) -> io::Result<()> {
    let frame: Box<[u8]> = {
        let mut out = Scratch::take(frames::room(0));
        let encoded = frames::encode(id, Status::End, None, &[], None, &mut out);
        encoded.map_err(|_| io::ErrorKind::InvalidData)?;
        out.data().into()
    };
    let sent = outgoing.send(frame).await;
    sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
}
