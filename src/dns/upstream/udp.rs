//! Plain DNS over UDP (RFC 1035 section 4.2.1).
//!
//! Each exchange has a socket of its own: a random port besides the random id, and the kernel passes
//! on nothing but what the asked server sent (RFC 5452). A lost datagram is sent again within the
//! exchange; a truncated answer is asked for again over TCP.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::metadata::{Endpoint, Network};
use crate::outbound::{Datagrams, Outbound};

use super::egress::{Via, metadata};
use super::{Asked, Failure, Host, Reply, Server, tcp};

/// How long to wait before the query is sent again. Three times fit into an exchange.
const RETRANSMIT_TIME: Duration = Duration::from_millis(1500);
/// Longest datagram read. We announce 1232 bytes; some servers do not care.
const DATAGRAM_BYTES: usize = 4096;

/// One exchange with a configured server.
pub(super) async fn exchange(asked: &Asked<'_>, server: &Server) -> Result<Vec<u8>, Failure> {
    let (endpoint, via) = asked.locate(server).await?;
    match (&endpoint.host, &via) {
        (_, Via::Outbound(outbound)) => {
            // A boxed answer keeps the common case's future small.
            let reply = Box::pin(by_outbound(asked, &**outbound, &endpoint)).await?;
            finish(asked, reply, endpoint, &via).await
        }
        (Host::Ip(ip), Via::Interface(interface)) => {
            let server = SocketAddr::new(*ip, endpoint.port);
            let reply = by_socket(asked, server, interface.as_deref()).await?;
            finish(asked, reply, endpoint, &via).await
        }
        (Host::Name(_), Via::Interface(_)) => Err(Failure::NoServers),
    }
}

/// One exchange with a server of the system's.
pub(super) async fn exchange_with(
    asked: &Asked<'_>,
    server: SocketAddr,
) -> Result<Vec<u8>, Failure> {
    let reply = by_socket(asked, server, None).await?;
    finish(asked, reply, server.into(), &Via::Interface(None)).await
}

async fn finish(
    asked: &Asked<'_>,
    reply: Reply,
    server: Endpoint,
    via: &Via,
) -> Result<Vec<u8>, Failure> {
    match reply {
        Reply::Whole(answer) => Ok(answer),
        Reply::Failed(failure) => Err(failure),
        Reply::Truncated => Box::pin(tcp::exchange_with(asked, server, via)).await,
    }
}

async fn by_socket(
    asked: &Asked<'_>,
    server: SocketAddr,
    interface: Option<&str>,
) -> Result<Reply, Failure> {
    let (id, query) = asked.query()?;
    let socket = asked.egress.udp(server, interface)?;
    socket.connect(server).await?;
    loop {
        socket.send(&query).await?;
        if let Ok(reply) = timeout(RETRANSMIT_TIME, receive(asked, id, &socket)).await {
            return reply;
        }
    }
}

async fn receive(asked: &Asked<'_>, id: u16, socket: &UdpSocket) -> Result<Reply, Failure> {
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
fn receive_now(asked: &Asked<'_>, id: u16, socket: &UdpSocket) -> io::Result<Option<Reply>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    let length = socket.try_recv(&mut buffer)?;
    Ok(asked.read(id, buffer.get(..length).unwrap_or_default()))
}

async fn by_outbound(
    asked: &Asked<'_>,
    outbound: &dyn Outbound,
    server: &Endpoint,
) -> Result<Reply, Failure> {
    let (id, query) = asked.query()?;
    let metadata = metadata(Network::Udp, server.clone());
    let datagrams = outbound.associate(&metadata).await?;
    loop {
        datagrams.send_to(&query, server).await?;
        if let Ok(reply) = timeout(RETRANSMIT_TIME, receive_from(asked, id, &*datagrams)).await {
            return reply;
        }
    }
}

async fn receive_from(
    asked: &Asked<'_>,
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
