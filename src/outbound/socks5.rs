//! `type: socks5`: CONNECT and UDP ASSOCIATE (RFC 1928) with user name and password (RFC 1929),
//! over TLS if asked (TCP only; datagrams go in clear, as everywhere).
//!
//! One message, one answer: nothing is sent ahead, since servers that parse what one `recv` gave
//! them drop whatever follows.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::carrier::{Carrier, PacketCarrier};
use super::dial::{DIAL_TIMEOUT, DialError, Node};
use super::options::{Credentials, ServerAddress, Socks5Options};
use super::scratch::{Full, Scratch};
use super::socks_address::{self, AddressError};
use super::tls::{TlsClient, TlsError};
use super::{BoxFuture, Datagrams, Kind, Outbound, Stream, Traits};
use crate::metadata::{Endpoint, Host, Metadata};
use crate::wire::Reader;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;

/// Why a SOCKS5 proxy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socks5Error {
    /// User name or password is empty or longer than 255 bytes.
    Credentials,
    /// The TLS options do not make sense.
    Tls(TlsError),
    /// The answer is no SOCKS5.
    BadAnswer,
    /// The proxy takes none of our ways to log in.
    NoMethod,
    /// User name or password is wrong.
    Unauthorized,
    /// The proxy refuses with this reply (RFC 1928 section 6).
    Refused(u8),
    /// An address has no SOCKS5 form.
    Address(AddressError),
}

impl fmt::Display for Socks5Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials => f.write_str("username and password must have 1 to 255 bytes"),
            Self::Tls(error) => error.fmt(f),
            Self::BadAnswer => f.write_str("proxy does not answer in SOCKS5"),
            Self::NoMethod => f.write_str("proxy takes none of our ways to log in"),
            Self::Unauthorized => f.write_str("proxy refuses the credentials"),
            Self::Refused(1) => f.write_str("proxy has a general failure"),
            Self::Refused(2) => f.write_str("proxy does not allow it"),
            Self::Refused(3) => f.write_str("proxy finds the network unreachable"),
            Self::Refused(4) => f.write_str("proxy finds the host unreachable"),
            Self::Refused(5) => f.write_str("proxy finds the connection refused"),
            Self::Refused(6) => f.write_str("proxy finds the TTL expired"),
            Self::Refused(7) => f.write_str("proxy does not know the command"),
            Self::Refused(reply) => write!(f, "proxy answers {reply}"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Socks5Error {}

impl From<Socks5Error> for io::Error {
    fn from(error: Socks5Error) -> Self {
        let kind = match error {
            Socks5Error::NoMethod | Socks5Error::Unauthorized => io::ErrorKind::PermissionDenied,
            Socks5Error::Refused(3) => io::ErrorKind::NetworkUnreachable,
            Socks5Error::Refused(4) => io::ErrorKind::HostUnreachable,
            Socks5Error::Refused(7) => io::ErrorKind::Unsupported,
            Socks5Error::Refused(_) => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl From<AddressError> for Socks5Error {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

/// A SOCKS5 proxy.
pub struct Socks5 {
    node: Node,
    server: ServerAddress,
    /// The RFC 1929 request, ready to be sent.
    login: Option<Box<[u8]>>,
    tls: Option<TlsClient>,
}

impl Socks5 {
    /// A proxy with checked options.
    ///
    /// # Errors
    /// [`Socks5Error::Credentials`] or [`Socks5Error::Tls`].
    pub fn new(node: Node, options: &Socks5Options) -> Result<Self, Socks5Error> {
        let tls = options.tls.as_ref();
        let tls = tls
            .map(|tls| TlsClient::new(tls, &options.server.host))
            .transpose();
        Ok(Self {
            node,
            server: options.server.clone(),
            login: options.credentials.as_ref().map(login).transpose()?,
            tls: tls.map_err(Socks5Error::Tls)?,
        })
    }

    /// Connects, logs in and has `command` done; the bound address of the answer.
    async fn command(&self, command: u8, to: &Endpoint) -> io::Result<Session> {
        let mut carrier = self.node.dialer.connect(&self.server).await?;
        let peer = carrier.peer();
        if let Some(tls) = &self.tls {
            carrier = tls.handshake(carrier).await?;
        }
        self.log_in(&mut carrier).await?;
        let mut request = vec![VERSION, command, 0];
        socks_address::encode(to, &mut request).map_err(Socks5Error::Address)?;
        exchange(&mut carrier, &request, &mut []).await?;
        // Exactly the reply and no byte more: what follows is the destination's.
        let mut reply = vec![0; 5];
        carrier.read_exact(&mut reply).await?;
        reply.resize(reply_length(&reply)?, 0);
        if let Some(rest) = reply.get_mut(5..) {
            carrier.read_exact(rest).await?;
        }
        let bound = bound_address(&reply)?;
        Ok(Session {
            carrier,
            peer,
            bound,
        })
    }

    async fn log_in(&self, carrier: &mut Carrier) -> io::Result<()> {
        let greeting: &[u8] = match self.login {
            None => &[VERSION, 1, NO_AUTHENTICATION],
            Some(_) => &[VERSION, 2, NO_AUTHENTICATION, PASSWORD],
        };
        let mut choice = [0; 2];
        exchange(carrier, greeting, &mut choice).await?;
        match (choice, &self.login) {
            ([VERSION, NO_AUTHENTICATION], _) => Ok(()),
            ([VERSION, PASSWORD], Some(login)) => {
                let mut status = [0; 2];
                exchange(carrier, login, &mut status).await?;
                match status {
                    [_, 0] => Ok(()),
                    _ => Err(Socks5Error::Unauthorized.into()),
                }
            }
            ([VERSION, _], _) => Err(Socks5Error::NoMethod.into()),
            _ => Err(Socks5Error::BadAnswer.into()),
        }
    }

    async fn open_association(&self) -> io::Result<Box<dyn Datagrams>> {
        let unspecified = Endpoint::from(SocketAddr::from(([0, 0, 0, 0], 0)));
        let session = self.command(UDP_ASSOCIATE, &unspecified).await?;
        let relay = ServerAddress {
            host: relay_host(&session.bound.host, session.peer, &self.server),
            port: session.bound.port,
        };
        Ok(Box::new(Socks5Datagrams {
            packets: self.node.dialer.open_datagrams(&relay).await?,
            control: Mutex::new(session.carrier),
        }))
    }
}

/// A command that was granted.
struct Session {
    carrier: Carrier,
    peer: Option<SocketAddr>,
    bound: Endpoint,
}

impl Outbound for Socks5 {
    fn name(&self) -> &Arc<str> {
        &self.node.name
    }

    fn kind(&self) -> Kind {
        Kind::Socks5
    }

    fn udp(&self) -> bool {
        self.node.udp
    }

    fn traits(&self) -> Traits {
        self.node.traits.clone()
    }

    fn dialer(&self) -> Option<Arc<dyn Outbound>> {
        self.node.dialer.carrier()
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async {
            let to = metadata.destination();
            match timeout(DIAL_TIMEOUT, self.command(CONNECT, &to)).await {
                Ok(session) => Ok(session?.carrier.into_stream(Vec::new())),
                Err(_elapsed) => Err(DialError::TimedOut.into()),
            }
        })
    }

    fn associate<'a>(
        &'a self,
        _metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async {
            if !self.node.udp {
                return Err(io::ErrorKind::Unsupported.into());
            }
            match timeout(DIAL_TIMEOUT, self.open_association()).await {
                Ok(result) => result,
                Err(_elapsed) => Err(DialError::TimedOut.into()),
            }
        })
    }
}

/// Sends `message` and reads an answer of `answer.len()` bytes.
async fn exchange(carrier: &mut Carrier, message: &[u8], answer: &mut [u8]) -> io::Result<()> {
    carrier.write_all(message).await?;
    carrier.flush().await?;
    carrier.read_exact(answer).await.map(drop)
}

/// The request of RFC 1929 section 2.
fn login(credentials: &Credentials) -> Result<Box<[u8]>, Socks5Error> {
    let mut request = vec![1];
    for field in [&credentials.username, &credentials.password] {
        let length = u8::try_from(field.len()).map_err(|_| Socks5Error::Credentials)?;
        if length == 0 {
            return Err(Socks5Error::Credentials);
        }
        request.push(length);
        request.extend_from_slice(field.as_bytes());
    }
    Ok(request.into())
}

/// How long a reply is, by its first five bytes.
fn reply_length(start: &[u8]) -> Result<usize, Socks5Error> {
    match *start {
        [VERSION, 0, _, 1, _] => Ok(4 + 4 + 2),
        [VERSION, 0, _, 3, length] => Ok(4 + 1 + usize::from(length) + 2),
        [VERSION, 0, _, 4, _] => Ok(4 + 16 + 2),
        [VERSION, reply, ..] if reply != 0 => Err(Socks5Error::Refused(reply)),
        _ => Err(Socks5Error::BadAnswer),
    }
}

/// The bound address of a reply; servers that leave it out send an empty name.
fn bound_address(reply: &[u8]) -> Result<Endpoint, Socks5Error> {
    if let [_, _, _, 3, 0, high, low] = *reply {
        return Ok(Endpoint {
            host: Host::Ip(IpAddr::from([0, 0, 0, 0])),
            port: u16::from_be_bytes([high, low]),
        });
    }
    let mut reader = Reader::new(reply.get(3..).unwrap_or_default());
    Ok(socks_address::decode(&mut reader)?)
}

/// Where datagrams go: the bound address, or the server itself when that is unspecified.
fn relay_host(bound: &Host, peer: Option<SocketAddr>, server: &ServerAddress) -> Box<str> {
    match (bound, peer) {
        (Host::Ip(ip), Some(peer)) if ip.is_unspecified() => peer.ip().to_string().into(),
        (Host::Ip(ip), None) if ip.is_unspecified() => server.host.clone(),
        (host, _) => host.to_string().into(),
    }
}

/// The header of a datagram (RFC 1928 section 7) before its payload.
fn encode_header(to: &Endpoint) -> Result<Vec<u8>, Socks5Error> {
    let mut header = vec![0, 0, 0];
    socks_address::encode(to, &mut header)?;
    Ok(header)
}

/// Sender and payload of a datagram; fragments are refused (section 7 allows it).
fn decode_datagram(bytes: &[u8]) -> Result<(Endpoint, &[u8]), AddressError> {
    let mut reader = Reader::new(bytes);
    let [_, _, fragment] = reader.array()?;
    if fragment != 0 {
        return Err(AddressError::Type(fragment));
    }
    let sender = socks_address::decode(&mut reader)?;
    Ok((sender, reader.rest()))
}

/// An association: it lives while the control connection does.
struct Socks5Datagrams {
    packets: PacketCarrier,
    control: Mutex<Carrier>,
}

impl Socks5Datagrams {
    fn wrap(payload: &[u8], to: &Endpoint) -> io::Result<Scratch> {
        let too_long = |_: Full| io::ErrorKind::InvalidInput;
        let mut packet = Scratch::large();
        packet.push(&encode_header(to)?).map_err(too_long)?;
        packet.push(payload).map_err(too_long)?;
        Ok(packet)
    }

    /// `Ready` when the server ended the association.
    fn poll_control(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 64];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *control).poll_read(cx, &mut buffer) {
                // Nothing is said here; a server that does talk is not listened to.
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(Ok(())) => return Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Datagrams for Socks5Datagrams {
    fn send_to<'a>(&'a self, payload: &'a [u8], to: &'a Endpoint) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let packet = Self::wrap(payload, to)?;
            self.packets.send(packet.data()).await
        })
    }

    fn try_send_to(&self, payload: &[u8], to: &Endpoint) -> io::Result<()> {
        self.packets.try_send(Self::wrap(payload, to)?.data())
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let mut packet = Scratch::large();
        loop {
            let mut received = ReadBuf::new(packet.spare());
            match self.packets.poll_recv(cx, &mut received) {
                Poll::Pending => return self.poll_control(cx).map(Err),
                Poll::Ready(result) => result?,
            }
            let Ok((sender, payload)) = decode_datagram(received.filled()) else {
                continue;
            };
            if let Host::Ip(ip) = sender.host
                && payload.len() <= buffer.remaining()
            {
                buffer.put_slice(payload);
                return Poll::Ready(Ok(SocketAddr::new(ip, sender.port)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_are_read_to_their_last_byte_and_no_further() {
        assert_eq!(reply_length(&[5, 0, 0, 1, 9]), Ok(10));
        assert_eq!(reply_length(&[5, 0, 0, 3, 9]), Ok(16));
        assert_eq!(reply_length(&[5, 0, 0, 4, 9]), Ok(22));
        assert_eq!(reply_length(&[5, 5, 0, 1, 0]), Err(Socks5Error::Refused(5)));
        assert_eq!(reply_length(&[5, 0, 0, 9, 0]), Err(Socks5Error::BadAnswer));
        assert_eq!(reply_length(b"HTTP/"), Err(Socks5Error::BadAnswer));
    }

    #[test]
    fn an_unspecified_relay_is_the_server_itself() {
        let server = ServerAddress {
            host: "proxy.example".into(),
            port: 1080,
        };
        let peer = Some("192.0.2.1:1080".parse().unwrap());
        let unspecified = Host::parse("0.0.0.0").unwrap();
        assert_eq!(&*relay_host(&unspecified, peer, &server), "192.0.2.1");
        assert_eq!(&*relay_host(&unspecified, None, &server), "proxy.example");
        let bound = Host::parse("192.0.2.9").unwrap();
        assert_eq!(&*relay_host(&bound, peer, &server), "192.0.2.9");
    }

    #[test]
    fn an_empty_bound_name_is_unspecified() {
        let bound = bound_address(&[5, 0, 0, 3, 0, 1, 2]).unwrap();
        assert_eq!(bound.to_string(), "0.0.0.0:258");
    }

    #[test]
    fn the_login_holds_both_fields() {
        let credentials = |username: &str, password: &str| Credentials {
            username: username.into(),
            password: password.into(),
            ..Credentials::default()
        };
        let request = login(&credentials("u", "pw")).unwrap();
        assert_eq!(&*request, b"\x01\x01u\x02pw");
        let long = "x".repeat(256);
        assert_eq!(
            login(&credentials("u", &long)),
            Err(Socks5Error::Credentials)
        );
        assert_eq!(login(&credentials("", "p")), Err(Socks5Error::Credentials));
    }

    #[test]
    fn fragments_are_dropped() {
        let whole = [0, 0, 0, 1, 1, 2, 3, 4, 0, 53, 7];
        let (sender, payload) = decode_datagram(&whole).unwrap();
        assert_eq!(
            (sender.to_string().as_str(), payload),
            ("1.2.3.4:53", &[7u8][..])
        );
        assert!(decode_datagram(&[0, 0, 1, 1, 1, 2, 3, 4, 0, 53, 7]).is_err());
    }

    proptest! {
        #[test]
        fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _length = reply_length(&bytes);
            let _bound = bound_address(&bytes);
            let _datagram = decode_datagram(&bytes);
        }
    }
}
