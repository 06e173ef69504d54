//! What lies between a server's socket and its flows: TLS, WebSocket, HTTPUpgrade or gRPC, and the reading
//! of who asks for what.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use rustls::ServerConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::http2::{self, PREFACE};
use super::options::{Fallback, ServerOptions, ServerTls};
use super::{Opened, Refused, ServerProtocol};
use crate::outbound::carrier::Carrier;
use crate::outbound::certificate::{self, CertificateError};
use crate::outbound::framed::Framed;
use crate::outbound::layer::TlsLayer;
use crate::outbound::transport::http2::gun_path;
use crate::outbound::transport::upgrade::HEAD_BYTES_MAX;
use crate::outbound::transport::websocket::{Frames, Role};
use crate::platform::clock;
use crate::websocket;

/// Bytes asked for at a time while a client authenticates.
const READ_BYTES: usize = 1024;

/// Fields of a request that are looked at.
const FIELDS_MAX: usize = 64;

/// A server's layers.
pub(super) struct Accept {
    tls: Option<TlsAcceptor>,
    ws_path: Option<Box<str>>,
    gun_path: Option<Box<str>>,
}

/// What a client's layers come to.
pub(super) enum Accepted {
    /// One client.
    Carrier(Carrier),
    /// A client in each call.
    Calls(Box<http2::Calls>),
}

impl Accept {
    /// The layers of `options`; files lie relative to `directory`.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub(super) fn new(options: &ServerOptions, directory: &Path) -> Result<Self, CertificateError> {
        let protocols: &[&str] = match (&options.grpc_service, &options.ws_path) {
            (Some(_), Some(_)) => &["h2", "http/1.1"],
            (Some(_), None) => &["h2"],
            (None, Some(_)) => &["http/1.1"],
            // A fallback is taken to speak HTTP/1.1.
            (None, None) if options.fallbacks.iter().any(for_http2) => &["h2", "http/1.1"],
            (None, None) if !options.fallbacks.is_empty() => &["http/1.1"],
            // What clients of these protocols offer; neither is spoken.
            (None, None) => &["h2", "http/1.1"],
        };
        let tls = options.tls.as_ref();
        Ok(Self {
            tls: tls
                .map(|tls| acceptor(tls, directory, protocols))
                .transpose()?,
            ws_path: options.ws_path.clone(),
            gun_path: options
                .grpc_service
                .as_ref()
                .map(|name| gun_path(name).into()),
        })
    }

    /// The carrier that the protocol sees; with `leaves`, TLS that it may leave.
    ///
    /// # Errors
    /// What a layer says of the client; it is answered where that layer has an answer.
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
        leaves: bool,
        told: &mut Told,
    ) -> io::Result<Accepted> {
        let carrier = Carrier::Tcp(socket);
        let carrier = match &self.tls {
            Some(tls) if leaves => {
                let stream = tls.accept(carrier.gated()).await?;
                *told = Told::by(stream.get_ref().1);
                Carrier::Layer(Box::new(TlsLayer::new(stream.into())))
            }
            Some(tls) => {
                let stream = tls.accept(carrier).await?;
                *told = Told::by(stream.get_ref().1);
                Carrier::Boxed(Box::new(stream))
            }
            None => carrier,
        };
        self.above(carrier).await
    }

    /// What stands on TLS, or on REALITY in its place.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub(super) async fn above(&self, carrier: Carrier) -> io::Result<Accepted> {
        let carrier = match (&self.gun_path, &self.ws_path) {
            (None, None) => carrier,
            (None, Some(path)) => upgrade(carrier, path).await?,
            (Some(_), ws_path) => {
                let (carrier, calls) = begins_with_preface(carrier).await?;
                match ws_path {
                    _ if calls => {
                        let calls = http2::handshake(carrier).await;
                        let calls = calls.map_err(|_| io::ErrorKind::InvalidData)?;
                        return Ok(Accepted::Calls(Box::new(calls)));
                    }
                    Some(path) => upgrade(carrier, path).await?,
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        };
        Ok(Accepted::Carrier(carrier))
    }

    /// Whether something stands between TLS and the protocol.
    pub(super) fn has_transport(&self) -> bool {
        self.ws_path.is_some() || self.gun_path.is_some()
    }

    /// Where calls of gRPC are served; empty without.
    pub(super) fn gun_path(&self) -> &str {
        self.gun_path.as_deref().unwrap_or_default()
    }
}

fn for_http2(fallback: &Fallback) -> bool {
    fallback.alpn.as_deref() == Some("h2")
}

/// What TLS has come to with a client.
#[derive(Default)]
pub(super) struct Told {
    /// The name that he asked for.
    pub(super) name: Box<str>,
    /// The protocol that was chosen.
    pub(super) alpn: Box<str>,
}

impl Told {
    /// What our end of TLS knows.
    fn by(tls: &ServerConnection) -> Self {
        let alpn = tls.alpn_protocol().map(String::from_utf8_lossy);
        Self {
            name: tls.server_name().unwrap_or_default().into(),
            alpn: alpn.unwrap_or_default().into(),
        }
    }
}

/// Whether the client speaks HTTP/2, by its first bytes.
async fn begins_with_preface(mut carrier: Carrier) -> io::Result<(Carrier, bool)> {
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        let left = PREFACE.len() - read.len();
        if (&mut carrier).take(left as u64).read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let calls = read == PREFACE;
    Ok((carrier.preceded(read), calls))
}

/// Reads who asks for what over `carrier`. Dropped when it takes too long.
///
/// # Errors
/// Whoever does not authenticate, with what he sent.
pub(super) async fn open(
    protocol: &dyn ServerProtocol,
    mut carrier: Carrier,
) -> Result<Opened, Box<Refused>> {
    let mut read = Vec::new();
    let why = loop {
        match protocol.read(&read, clock::unix_time().as_secs()) {
            Ok(None) => {}
            Err(why) => break why,
            Ok(Some(reading)) => {
                let rest = read.split_off(reading.length);
                return Ok(Opened {
                    member: reading.member,
                    asked: (reading.start)(carrier.preceded(rest)),
                });
            }
        }
        read.reserve(READ_BYTES);
        match carrier.read_buf(&mut read).await {
            Ok(0) => break io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(why) => break why,
        }
    };
    Err(Box::new(Refused { carrier, read, why }))
}

fn acceptor(
    tls: &ServerTls,
    directory: &Path,
    protocols: &[&str],
) -> Result<TlsAcceptor, CertificateError> {
    let (chain, key) = certificate::identity(&tls.certificate, &tls.private_key, directory)?;
    let config = certificate::server()?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What a request for an upgrade comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// The answer.
    answer: String,
    /// Whether frames follow, or bytes.
    frames: bool,
    /// The first bytes, which came in the request.
    early: Vec<u8>,
    /// The request's own.
    length: usize,
}

/// Reads a request for an upgrade at `path`; `None`: read more.
///
/// # Errors
/// It is none; what to answer.
pub(super) fn read_upgrade(bytes: &[u8], path: &str) -> Result<Option<Upgrade>, &'static str> {
    const BAD: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    const NONE: &str = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(BAD),
    };
    let asked = request.path.unwrap_or("");
    if request.method != Some("GET") || asked.split('?').next() != Some(path) {
        return Err(NONE);
    }
    let field = |name: &str| {
        let mut found = request.headers.iter();
        let found = found.find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| str::from_utf8(field.value).ok())
    };
    if !field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(NONE);
    }
    let mut answer =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            .to_owned();
    let key = field("sec-websocket-key");
    if let Some(key) = key {
        let accept = websocket::accept(key.as_bytes());
        answer.push_str(&format!("Sec-WebSocket-Accept: {accept}\r\n"));
    }
    let mut early = Vec::new();
    if let Some(protocol) = field("sec-websocket-protocol")
        && let Some(data) = early_data(protocol)
    {
        early = data;
        // Clients that are strict about it want their choice back.
        answer.push_str(&format!("Sec-WebSocket-Protocol: {protocol}\r\n"));
    }
    answer.push_str("\r\n");
    Ok(Some(Upgrade {
        answer,
        frames: key.is_some(),
        early,
        length,
    }))
}

/// Early data in either alphabet, with or without padding.
fn early_data(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let url = BASE64URL_NOPAD.decode(digits);
    url.or_else(|_| BASE64_NOPAD.decode(digits)).ok()
}

async fn upgrade(mut carrier: Carrier, path: &str) -> io::Result<Carrier> {
    let mut head = Vec::with_capacity(512);
    let upgrade = loop {
        if carrier.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match read_upgrade(&head, path) {
            Ok(Some(upgrade)) => break upgrade,
            Ok(None) => {}
            Err(answer) => {
                carrier.write_all(answer.as_bytes()).await?;
                carrier.shutdown().await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    };
    carrier.write_all(upgrade.answer.as_bytes()).await?;
    carrier.flush().await?;
    let rest = head.split_off(upgrade.length);
    let carrier = match upgrade.frames {
        true => {
            let framed = Framed::new(carrier, Box::new(Frames::new(Role::Server)), &rest)?;
            Carrier::Boxed(Box::new(framed))
        }
        false => carrier.preceded(rest),
    };
    Ok(carrier.preceded(upgrade.early))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_answered_at_its_path_alone() {
        let ask = |path: &str, more: &str| {
            let text =
                format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{more}\r\nrest");
            read_upgrade(text.as_bytes(), "/way")
        };
        let plain = ask("/way?x", "Upgrade: websocket\r\n").unwrap().unwrap();
        assert!(!plain.frames && plain.early.is_empty());
        // RFC 6455 section 1.3.
        let key = "Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: aGk\r\n";
        let framed = ask("/way", key).unwrap().unwrap();
        assert!(
            framed.frames
                && framed
                    .answer
                    .contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(framed.early, b"hi");
        assert!(ask("/other", key).unwrap_err().contains("404"));
        assert!(ask("/way", "").unwrap_err().contains("404"));
        assert!(
            read_upgrade(b"\x16\x03\x01\0", "/way")
                .unwrap_err()
                .contains("400")
        );
        assert_eq!(read_upgrade(b"GET /way HT", "/way"), Ok(None));
    }
}
