//! Plain DNS over UDP (RFC 1035 section 4.2.1).
//!
//! Each exchange has a socket of its own: a random port besides the random id, and the kernel passes
//! on nothing but what the asked server sent (RFC 5452). A lost datagram is sent again within the
//! exchange; a truncated answer is asked for again over TCP.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::metadata::{Endpoint, Network};
use crate::outbound::{Datagrams, Outbound};

use super::egress::metadata;
use super::reach::Way;
use super::{Asked, Failure, Reach, Reply, Server};

/// How long to wait before the query is sent again. Three times fit into an exchange.
const RETRANSMIT_TIME: Duration = Duration::from_millis(1500);
/// Longest datagram read. We announce 1232 bytes; some servers do not care.
const DATAGRAM_BYTES: usize = 4096;

/// One exchange with a configured server.
pub(super) async fn exchange(
    asked: Asked<'_>,
    reach: &Reach,
    server: &Server,
) -> Result<Vec<u8>, Failure> {
    let way = reach.locate(server, Network::Udp).await?;
    let (id, query) = asked.query(Some(server))?;
    let reply = match &way {
        Way::Outbound(outbound, endpoints) => {
            let endpoint = endpoints.first().ok_or(Failure::NoServers)?;
            // A boxed answer keeps the common case's future small.
            Box::pin(by_outbound(asked, (id, &query), &**outbound, endpoint)).await?
        }
        Way::Socket(interface, places) => {
            let place = *places.first().ok_or(Failure::NoServers)?;
            by_socket(asked, (id, &query), reach, place, interface.as_deref()).await?
        }
    };
    finish(asked, (id, &query), reply, reach, &way).await
}

/// One exchange with a server of the system's, or of an interface.
pub(super) async fn exchange_with(
    asked: Asked<'_>,
    reach: &Reach,
    server: SocketAddr,
    interface: Option<&str>,
) -> Result<Vec<u8>, Failure> {
    let (id, query) = asked.query(None)?;
    let reply = by_socket(asked, (id, &query), reach, server, interface).await?;
    let way = Way::Socket(interface.map(Box::from), vec![server]);
    finish(asked, (id, &query), reply, reach, &way).await
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

async fn by_socket(
    asked: Asked<'_>,
    (id, query): Query<'_>,
    reach: &Reach,
    server: SocketAddr,
    interface: Option<&str>,
) -> Result<Reply, Failure> {
    let socket = reach.egress.udp(server, interface)?;
    socket.connect(server).await?;
    loop {
        socket.send(query).await?;
        if let Ok(reply) = timeout(RETRANSMIT_TIME, receive(asked, id, &socket)).await {
            return reply;
        }
    }
}

async fn receive(asked: Asked<'_>, id: u16, socket: &UdpSocket) -> Result<Reply, Failure> {
    loop {
        socket.readable().await?;
        match receive_now(asked, id, socket) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The buffer lives here, on the stack, and not in the waiting future.
fn receive_now(asked: Asked<'_>, id: u16, socket: &UdpSocket) -> io::Result<Option<Reply>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    let length = socket.try_recv(&mut buffer)?;
    Ok(asked.read(id, buffer.get(..length).unwrap_or_default()))
}

async fn by_outbound(
    asked: Asked<'_>,
    (id, query): Query<'_>,
    outbound: &dyn Outbound,
    server: &Endpoint,
) -> Result<Reply, Failure> {
    let metadata = metadata(Network::Udp, server.clone());
    let datagrams = outbound.associate(&metadata).await?;
    loop {
        datagrams.send_to(query, server).await?;
        if let Ok(reply) = timeout(RETRANSMIT_TIME, receive_from(asked, id, &*datagrams)).await {
            return reply;
        }
    }
}

async fn receive_from(
    asked: Asked<'_>,
    id: u16,
    datagrams: &dyn Datagrams,
) -> Result<Reply, Failure> {
    loop {
        let received = poll_fn(|cx| {
            let mut bytes = [0; DATAGRAM_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = datagrams.poll_recv_from(cx, &mut buffer);
            polled.map_ok(|_| asked.read(id, buffer.filled()))
        });
        if let Some(reply) = received.await? {
            return Ok(reply);
        }
    }
}
