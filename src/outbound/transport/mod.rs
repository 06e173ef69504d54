//! What lies between a proxy protocol and its server's socket: TLS, and `network`.
//!
//! A [`Transport`] knows one server and opens a carrier to it, every layer included, within
//! one time-out. Protocols above do not know which layers there are. Layouts: proxy-protocols.md 8.

pub mod gun;
pub mod http2;
pub mod upgrade;
pub mod websocket;

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::time::timeout;

use self::http2::{Asking, Http2};
use self::upgrade::HeadError;
use self::websocket::WebSocket;
use super::BoxFuture;
use super::carrier::Carrier;
use super::dial::{DIAL_TIMEOUT, DialError, Dialer};
use super::options::{NetworkOptions, ServerAddress, TlsOptions};
use super::sessions::{Limits, Session, Sessions};
use super::tls::{TlsClient, TlsError};

/// What is wrong with the options of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// TLS cannot be spoken so.
    Tls(TlsError),
    /// `path` or `headers` make no request.
    Head(HeadError),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Head(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TransportError {}

impl From<TlsError> for TransportError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<HeadError> for TransportError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

/// The way to one server.
pub struct Transport {
    server: ServerAddress,
    tls: Option<TlsClient>,
    /// TLS is one that the protocol may leave.
    left: bool,
    network: Network,
}

enum Network {
    Tcp,
    WebSocket(WebSocket),
    Http2(Sessions, Arc<Asking>),
}

/// HTTP/2 as ALPN names it.
const H2: &[u8] = b"h2";

/// The server does not choose HTTP/2.
#[derive(Debug)]
struct NoHttp2;

impl fmt::Display for NoHttp2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not agree to HTTP/2 (ALPN h2)")
    }
}

impl std::error::Error for NoHttp2 {}

/// Streams of one connection; beyond, there is a further one.
const STREAMS_MAX: u32 = 100;

impl Transport {
    /// The way to `server` by these layers. Opens nothing.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        server: &ServerAddress,
        tls: Option<&TlsOptions>,
        network: &NetworkOptions,
    ) -> Result<Self, TransportError> {
        let mut tls = tls.cloned();
        // The name that a `Host` field takes when it is not given: the one that TLS shows.
        let named = tls.as_ref().and_then(|tls| tls.server_name.clone());
        let host = named.unwrap_or_else(|| server.host.clone());
        let network = match network {
            NetworkOptions::Tcp => Network::Tcp,
            NetworkOptions::WebSocket(options) => {
                // An upgrade is a matter of HTTP/1.1 (RFC 6455 section 4.1).
                offer(&mut tls, &["http/1.1"]);
                Network::WebSocket(WebSocket::new(options, &host, server.port, tls.is_some())?)
            }
            NetworkOptions::Http2 { host: own, path } => {
                let host = own.as_ref().unwrap_or(&host);
                shared(&mut tls, Asking::body(host, path)?)
            }
            NetworkOptions::Grpc(service) => shared(&mut tls, Asking::gun(&host, service)?),
        };
        let client = |tls: &TlsOptions| TlsClient::new(tls, &server.host);
        Ok(Self {
            server: server.clone(),
            tls: tls.as_ref().map(client).transpose()?,
            left: false,
            network,
        })
    }

    /// Has TLS, on which nothing else may stand then, be a layer that the protocol may leave.
    pub fn may_be_left(&mut self) {
        self.left = true;
    }

    /// A stream to the server. What delays its first bytes is named at the layer that does.
    ///
    /// # Errors
    /// What the dialer, TLS or the network's handshake says, or that it took too long.
    pub async fn connect(&self, dialer: &Dialer) -> io::Result<Carrier> {
        let connecting = async {
            match &self.network {
                Network::Tcp => self.dial(dialer).await,
                Network::WebSocket(websocket) => websocket.connect(self.dial(dialer).await?).await,
                Network::Http2(sessions, asking) => {
                    let begin = || -> BoxFuture<'_, io::Result<Arc<dyn Session>>> {
                        Box::pin(async {
                            let carrier = self.dial_http2(dialer).await?;
                            let session = Http2::begin(carrier, Arc::clone(asking)).await?;
                            Ok(Arc::new(session) as Arc<dyn Session>)
                        })
                    };
                    sessions.stream(&begin).await.map(Carrier::Boxed)
                }
            }
        };
        match timeout(DIAL_TIMEOUT, Box::pin(connecting)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(DialError::TimedOut.into()),
        }
    }

    /// A connection whose server has agreed to HTTP/2 where TLS lets it say so; what it answers within
    /// REALITY is the site's word.
    async fn dial_http2(&self, dialer: &Dialer) -> io::Result<Carrier> {
        match &self.tls {
            Some(tls) if !tls.is_reality() => {
                let carrier = dialer.connect(&self.server).await?;
                let (carrier, chosen) = tls.negotiate(carrier).await?;
                match chosen.as_deref() {
                    Some(H2) => Ok(carrier),
                    _ => Err(io::Error::new(io::ErrorKind::Unsupported, NoHttp2)),
                }
            }
            _ => self.dial(dialer).await,
        }
    }

    /// A connection with TLS, if there is some.
    async fn dial(&self, dialer: &Dialer) -> io::Result<Carrier> {
        let carrier = dialer.connect(&self.server).await?;
        match &self.tls {
            Some(tls) if self.left => tls.handshake_to_leave(carrier).await,
            Some(tls) => tls.handshake(carrier).await,
            None => Ok(carrier),
        }
    }
}

/// HTTP/2 with streams that ask so; the server must agree to it, whatever else is to be offered.
fn shared(tls: &mut Option<TlsOptions>, asking: Asking) -> Network {
    if let Some(tls) = tls {
        tls.alpn = vec!["h2".into()];
    }
    let limits = Limits {
        sessions_max: 0,
        streams_min: 0,
        streams_max: STREAMS_MAX,
    };
    Network::Http2(Sessions::new(limits), Arc::new(asking))
}

/// Has TLS offer `protocols` unless the configuration says what to offer.
fn offer(tls: &mut Option<TlsOptions>, protocols: &[&str]) {
    if let Some(tls) = tls
        && tls.alpn.is_empty()
    {
        tls.alpn = protocols.iter().map(|&protocol| protocol.into()).collect();
    }
}
