//! SOCKS 4, 4a and 5 servers: the conversation up to the stream or the association.
//!
//! CONNECT and UDP ASSOCIATE; BIND is refused. Success is answered before anything is dialled:
//! the client's first bytes, which sniffing needs, come only after it, and what the outbound
//! meets is told by how the stream ends. `codec` knows the bytes, `associate` the datagrams.

pub mod associate;
pub mod codec;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use codec::{Command, MESSAGE_BYTES_MAX, Malformed, Method, Reply, VERSION_4, VERSION_5};

use super::client::{Client, Ended};
use super::mixed::{Opened, Proxy};
use crate::metadata::{InboundType, Network};
use associate::Association;

/// Why a client gets no flow.
enum Failed {
    /// The conversation broke off.
    Ended(Ended<Malformed>),
    /// This is the last answer, for this reason.
    Refused(Vec<u8>, &'static str),
}

impl From<Ended<Malformed>> for Failed {
    fn from(ended: Ended<Malformed>) -> Self {
        Self::Ended(ended)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Ended(Ended::Io(error))
    }
}

/// Speaks SOCKS with a client whose first byte is there.
pub(super) async fn open(proxy: &Proxy, mut client: Client) -> Option<(Client, Opened)> {
    let opened = match client.unread.first() {
        Some(&VERSION_4) => open_4(proxy, &mut client).await,
        _ => open_5(proxy, &mut client).await,
    };
    match opened {
        Ok(opened) => Some((client, opened)),
        Err(Failed::Refused(answer, why)) => {
            proxy.refused(client.source, &why);
            client.refuse(&answer).await;
            None
        }
        Err(Failed::Ended(ended)) => {
            proxy.refused(client.source, &ended);
            None
        }
    }
}

async fn open_4(proxy: &Proxy, client: &mut Client) -> Result<Opened, Failed> {
    let needs_login = proxy.access.needs_login(client.source.ip());
    let decode = |bytes: &[u8]| {
        // SOCKS 4 has no password: a user with an empty one may come this way.
        let user = |name: &[u8]| needs_login.then(|| proxy.access.login(name, b"")).flatten();
        codec::request_4(bytes)
            .map(|decoded| decoded.map(|((request, name), length)| ((request, user(name)), length)))
    };
    let refused = |why| Failed::Refused(codec::reply_4(false).to_vec(), why);
    let (request, user) = match client.message(MESSAGE_BYTES_MAX, decode).await {
        Err(Ended::Malformed(_)) => return Err(refused("malformed request")),
        request => request?,
    };
    if needs_login && user.is_none() {
        return Err(refused("wrong user name"));
    }
    if request.command != Command::Connect {
        return Err(refused("command not supported"));
    }
    client.send(&codec::reply_4(true)).await?;
    Ok(Opened::Stream(proxy.metadata(
        InboundType::Socks4,
        Network::Tcp,
        client.source,
        request.destination,
        user.as_ref(),
    )))
}

async fn open_5(proxy: &Proxy, client: &mut Client) -> Result<Opened, Failed> {
    let user = authenticate(proxy, client).await?;
    // No address is bound: the outbound is dialled later, and not from here.
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let refused = |code, why| Failed::Refused(codec::reply(code, nowhere), why);
    let request = match client.message(MESSAGE_BYTES_MAX, codec::request).await {
        Err(Ended::Malformed(Malformed::AddressType(_))) => {
            return Err(refused(
                Reply::AddressTypeNotSupported,
                "unknown address type",
            ));
        }
        Err(Ended::Malformed(_)) => return Err(refused(Reply::Failure, "malformed request")),
        request => request?,
    };
    match request.command {
        Command::Connect => {
            client
                .send(&codec::reply(Reply::Succeeded, nowhere))
                .await?;
            Ok(Opened::Stream(proxy.metadata(
                InboundType::Socks5,
                Network::Tcp,
                client.source,
                request.destination,
                user.as_ref(),
            )))
        }
        Command::Associate if proxy.udp => {
            let Ok(association) = Association::bind(client, user) else {
                return Err(refused(Reply::Failure, "no UDP socket"));
            };
            client
                .send(&codec::reply(Reply::Succeeded, association.address()))
                .await?;
            Ok(Opened::Associate(association))
        }
        Command::Associate | Command::Other(_) => {
            Err(refused(Reply::CommandNotSupported, "command not supported"))
        }
    }
}

/// Greeting and login (RFC 1928 section 3, RFC 1929). Gives the user, where one had to log in.
async fn authenticate(proxy: &Proxy, client: &mut Client) -> Result<Option<Arc<str>>, Failed> {
    let needs_login = proxy.access.needs_login(client.source.ip());
    let methods = client.message(MESSAGE_BYTES_MAX, codec::greeting).await?;
    let method = match (needs_login, methods.none, methods.password) {
        (false, true, _) => Method::None,
        // Some clients offer nothing but the login; where none is needed any will do.
        (_, _, true) => Method::Password,
        _ => Method::Unacceptable,
    };
    let answer = [VERSION_5, method as u8];
    match method {
        Method::Unacceptable => return Err(Failed::Refused(answer.to_vec(), "no login offered")),
        Method::None => {
            client.send(&answer).await?;
            return Ok(None);
        }
        Method::Password => client.send(&answer).await?,
    }
    let decode = |bytes: &[u8]| {
        let login = |(username, password)| proxy.access.login(username, password);
        codec::login(bytes).map(|decoded| decoded.map(|(given, length)| (login(given), length)))
    };
    let user = client.message(MESSAGE_BYTES_MAX, decode).await?;
    if needs_login && user.is_none() {
        return Err(Failed::Refused(vec![1, 1], "wrong user name or password"));
    }
    client.send(&[1, 0]).await?;
    Ok(user)
}

#[cfg(test)]
mod tests;
