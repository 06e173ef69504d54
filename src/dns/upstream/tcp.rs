//! Plain DNS over TCP (RFC 1035 section 4.2.2, RFC 7766): one connection a question.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::metadata::{Endpoint, Network};
use crate::outbound::{ByteStream, Stream};

use super::egress::{Via, metadata};
use super::{Asked, Failure, Host, Reply, Server};

/// One exchange with a configured server.
pub(super) async fn exchange(asked: &Asked<'_>, server: &Server) -> Result<Vec<u8>, Failure> {
    let (endpoint, via) = asked.locate(server).await?;
    exchange_with(asked, endpoint, &via).await
}

/// One exchange with a server whose place is known.
pub(super) async fn exchange_with(
    asked: &Asked<'_>,
    server: Endpoint,
    via: &Via,
) -> Result<Vec<u8>, Failure> {
    let mut stream = connect(asked, server, via).await?;
    let (id, query) = asked.query()?;
    let mut framed = u16::try_from(query.len())
        .unwrap_or_default()
        .to_be_bytes()
        .to_vec();
    framed.extend_from_slice(&query);
    // One segment: some servers read only the first.
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut answer = Vec::new();
    let mut body = (&mut stream).take(length.into());
    body.read_to_end(&mut answer).await?;
    match asked.read(id, &answer) {
        Some(Reply::Whole(answer)) => Ok(answer),
        Some(Reply::Failed(failure)) => Err(failure),
        // Nothing else may come on this connection: this is not to be waited over.
        Some(Reply::Truncated) | None => Err(Failure::Malformed),
    }
}

async fn connect(
    asked: &Asked<'_>,
    server: Endpoint,
    via: &Via,
) -> Result<Box<dyn ByteStream>, Failure> {
    match (via, &server.host) {
        (Via::Outbound(outbound), _) => {
            let metadata = metadata(Network::Tcp, server);
            match outbound.connect(&metadata).await? {
                Stream::Tcp(stream) => Ok(Box::new(stream)),
                Stream::Boxed(stream) => Ok(stream),
                Stream::Closed | Stream::Silent => {
                    Err(Failure::Io(io::ErrorKind::ConnectionRefused))
                }
            }
        }
        (Via::Interface(interface), Host::Ip(ip)) => {
            let address = SocketAddr::new(*ip, server.port);
            Ok(Box::new(
                asked.egress.tcp(address, interface.as_deref()).await?,
            ))
        }
        (Via::Interface(_), Host::Name(_)) => Err(Failure::NoServers),
    }
}
