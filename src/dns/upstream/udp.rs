//! Plain DNS over UDP (RFC 1035 section 4.2.1).
//!
//! Each exchange has a socket of its own: a random port besides the random id, and the kernel passes
//! on nothing but what the asked server sent (RFC 5452). The name is spelled in a random mix of cases,
//! and the answer's must be the same; a server that does not keep it is asked plainly from then on.
//! A lost datagram is sent again within the exchange; a truncated answer is asked for again over TCP.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::dns::message::build::is_spelled_alike;
use crate::metadata::{Endpoint, Network};
use crate::outbound::{Datagrams, Outbound};

use super::egress::metadata;
use super::reach::Way;
use super::{Asked, Failure, Reach, Reply, Server};

/// How long to wait before the query is sent again. Three times fit into an exchange.
const RETRANSMIT_TIME: Duration = Duration::from_millis(1500);
/// Longest datagram read. We announce 1232 bytes; some servers do not care.
const DATAGRAM_BYTES: usize = 4096;

/// How long a well-spelled answer may take after one that is spelled otherwise. Servers that respell
/// do so always, so it is waited for once.
const SPELLING_TIME: Duration = Duration::from_millis(300);

/// One exchange with a configured server.
pub(super) async fn exchange(
    asked: Asked<'_>,
    reach: &Reach,
    server: &Server,
) -> Result<Vec<u8>, Failure> {
    let way = reach.locate(server, Network::Udp).await?;
    exchange_by(asked, reach, Some(server), &way).await
}

/// One exchange with a server of the system's, or of an interface.
pub(super) async fn exchange_with(
    asked: Asked<'_>,
    reach: &Reach,
    server: SocketAddr,
    interface: Option<&str>,
) -> Result<Vec<u8>, Failure> {
    let way = Way::Socket(interface.map(Box::from), vec![server]);
    exchange_by(asked, reach, None, &way).await
}

async fn exchange_by(
    asked: Asked<'_>,
    reach: &Reach,
    server: Option<&Server>,
    way: &Way,
) -> Result<Vec<u8>, Failure> {
    let place = way.first().ok_or(Failure::NoServers)?;
    loop {
        let varied = !reach.respelling.has(&place);
        let (id, query) = asked.query(server, varied)?;
        let sent = Sent {
            asked,
            id,
            query: &query,
            varied,
        };
        let reply = match way {
            Way::Outbound(outbound, _) => {
                // A boxed answer keeps the common case's future small.
                Box::pin(by_outbound(sent, &**outbound, &place)).await?
            }
            Way::Socket(interface, places) => {
                let place = *places.first().ok_or(Failure::NoServers)?;
                by_socket(sent, reach, place, interface.as_deref()).await?
            }
        };
        match reply {
            Some(reply) => return finish(asked, (id, &query), reply, reach, way).await,
            None => {
                log::debug!("dns: {place} spells names its own way");
                reach.respelling.note(&place);
            }
        }
    }
}

/// A query that is on its way.
#[derive(Clone, Copy)]
struct Sent<'a> {
    asked: Asked<'a>,
    id: u16,
    query: &'a [u8],
    /// Its name is spelled at random, and its answer's must be too.
    varied: bool,
}

/// A datagram that may be the answer.
enum Heard {
    Answer(Reply),
    /// Everything fits but for the spelling: forged, or of a server that spells names its own way.
    Respelled,
}

impl Sent<'_> {
    /// `None`: not the answer.
    fn read(&self, bytes: &[u8]) -> Option<Heard> {
        let reply = self.asked.read(self.id, bytes)?;
        // One that is truncated is asked for again over TCP, and may be cut anywhere.
        let alike = !self.varied
            || matches!(reply, Reply::Truncated)
            || is_spelled_alike(self.query, bytes, self.asked.question);
        Some(if alike {
            Heard::Answer(reply)
        } else {
            Heard::Respelled
        })
    }
}

/// A query with its id.
type Query<'a> = (u16, &'a [u8]);

/// Asks again over TCP (RFC 7766 section 5) if need be.
async fn finish(
    asked: Asked<'_>,
    (id, query): Query<'_>,
    reply: Reply,
    reach: &Reach,
    way: &Way,
) -> Result<Vec<u8>, Failure> {
    match reply {
        Reply::Whole(answer) => return Ok(answer),
        Reply::Failed(failure) => return Err(failure),
        Reply::Truncated => {}
    }
    let asking = Box::pin(async {
        let mut stream = reach.connect_by(way).await?;
        let length = u16::try_from(query.len()).unwrap_or_default();
        // One segment: some servers read only the first.
        stream
            .write_all(&[&length.to_be_bytes(), query].concat())
            .await?;
        stream.flush().await?;
        let length = stream.read_u16().await?;
        let mut answer = Vec::new();
        stream.take(length.into()).read_to_end(&mut answer).await?;
        Ok::<_, Failure>(answer)
    });
    match asked.read(id, &asking.await?) {
        Some(Reply::Whole(answer)) => Ok(answer),
        Some(Reply::Failed(failure)) => Err(failure),
        Some(Reply::Truncated) | None => Err(Failure::Malformed),
    }
}

/// `None`: the server spells names its own way.
async fn by_socket(
    sent: Sent<'_>,
    reach: &Reach,
    server: SocketAddr,
    interface: Option<&str>,
) -> Result<Option<Reply>, Failure> {
    let socket = reach.egress.udp(server, interface)?;
    socket.connect(server).await?;
    let mut patience = RETRANSMIT_TIME;
    loop {
        if patience == RETRANSMIT_TIME {
            socket.send(sent.query).await?;
        }
        match timeout(patience, receive(sent, &socket)).await {
            Ok(heard) => match heard? {
                Heard::Answer(reply) => return Ok(Some(reply)),
                Heard::Respelled => patience = SPELLING_TIME,
            },
            Err(_) if patience == SPELLING_TIME => return Ok(None),
            Err(_) => {}
        }
    }
}

async fn receive(sent: Sent<'_>, socket: &UdpSocket) -> Result<Heard, Failure> {
    loop {
        socket.readable().await?;
        match receive_now(sent, socket) {
            Ok(Some(heard)) => return Ok(heard),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The buffer lives here, on the stack, and not in the waiting future.
fn receive_now(sent: Sent<'_>, socket: &UdpSocket) -> io::Result<Option<Heard>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    let length = socket.try_recv(&mut buffer)?;
    Ok(sent.read(buffer.get(..length).unwrap_or_default()))
}

/// `None`: the server spells names its own way.
async fn by_outbound(
    sent: Sent<'_>,
    outbound: &dyn Outbound,
    server: &Endpoint,
) -> Result<Option<Reply>, Failure> {
    let metadata = metadata(Network::Udp, server.clone());
    let datagrams = outbound.associate(&metadata).await?;
    let mut patience = RETRANSMIT_TIME;
    loop {
        if patience == RETRANSMIT_TIME {
            datagrams.send_to(sent.query, server).await?;
        }
        match timeout(patience, receive_from(sent, &*datagrams)).await {
            Ok(heard) => match heard? {
                Heard::Answer(reply) => return Ok(Some(reply)),
                Heard::Respelled => patience = SPELLING_TIME,
            },
            Err(_) if patience == SPELLING_TIME => return Ok(None),
            Err(_) => {}
        }
    }
}

async fn receive_from(sent: Sent<'_>, datagrams: &dyn Datagrams) -> Result<Heard, Failure> {
    loop {
        let received = poll_fn(|cx| {
            let mut bytes = [0; DATAGRAM_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = datagrams.poll_recv_from(cx, &mut buffer);
            polled.map_ok(|_| sent.read(buffer.filled()))
        });
        if let Some(heard) = received.await? {
            return Ok(heard);
        }
    }
}
