//! `type: http`: a tunnel through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6), with Basic
//! credentials (RFC 7617) and TLS. Carries no UDP.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::carrier::Carrier;
use super::dial::{DIAL_TIMEOUT, DialError, Node};
use super::options::{HttpOptions, ServerAddress};
use super::tls::{TlsClient, TlsError};
use super::{BoxFuture, Datagrams, Kind, Outbound, Stream, Traits};
use crate::metadata::{Endpoint, Metadata};

/// The longest answer to CONNECT that is read; beyond it the proxy is given up.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How many header fields an answer may have.
const FIELDS_MAX: usize = 64;

/// Why an HTTP proxy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// `headers` has a name or value that HTTP does not allow.
    BadHeader(Box<str>),
    /// The TLS options do not make sense.
    Tls(TlsError),
    /// The answer is no HTTP, or too long.
    BadAnswer,
    /// The proxy wants other credentials (407).
    Unauthorized,
    /// The proxy refuses with this status.
    Refused(u16),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadHeader(name) => write!(f, "headers: {name} is not allowed in HTTP"),
            Self::Tls(error) => error.fmt(f),
            Self::BadAnswer => f.write_str("proxy does not answer in HTTP"),
            Self::Unauthorized => f.write_str("proxy wants other credentials"),
            Self::Refused(status) => write!(f, "proxy answers {status}"),
        }
    }
}

impl std::error::Error for HttpError {}

impl From<HttpError> for io::Error {
    fn from(error: HttpError) -> Self {
        let kind = match error {
            HttpError::Unauthorized => io::ErrorKind::PermissionDenied,
            HttpError::Refused(_) => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// An HTTP proxy.
pub struct Http {
    node: Node,
    server: ServerAddress,
    tls: Option<TlsClient>,
    /// Header lines that every request carries, credentials among them.
    fields: Box<str>,
}

impl Http {
    /// A proxy with checked options.
    ///
    /// # Errors
    /// [`HttpError::BadHeader`] or [`HttpError::Tls`].
    pub fn new(node: Node, options: &HttpOptions) -> Result<Self, HttpError> {
        let mut fields = String::new();
        if let Some(credentials) = &options.credentials {
            let plain = format!("{}:{}", credentials.username, credentials.password);
            let encoded = BASE64.encode(plain.as_bytes());
            fields.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
        }
        for (name, value) in &options.headers {
            if !is_token(name) || value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
                return Err(HttpError::BadHeader(name.clone()));
            }
            fields.push_str(&format!("{name}: {value}\r\n"));
        }
        let tls = options.tls.as_ref();
        let tls = tls
            .map(|tls| TlsClient::new(tls, &options.server.host))
            .transpose();
        Ok(Self {
            node,
            server: options.server.clone(),
            tls: tls.map_err(HttpError::Tls)?,
            fields: fields.into(),
        })
    }

    async fn tunnel(&self, to: &Endpoint) -> io::Result<Stream> {
        let mut carrier = self.node.dialer.connect(&self.server).await?;
        if let Some(tls) = &self.tls {
            carrier = tls.handshake(carrier).await?;
        }
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", self.fields);
        carrier.write_all(request.as_bytes()).await?;
        carrier.flush().await?;
        let early = read_answer(&mut carrier).await?;
        Ok(carrier.into_stream(early))
    }
}

impl Outbound for Http {
    fn name(&self) -> &Arc<str> {
        &self.node.name
    }

    fn kind(&self) -> Kind {
        Kind::Http
    }

    fn udp(&self) -> bool {
        false
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
            match timeout(DIAL_TIMEOUT, self.tunnel(&to)).await {
                Ok(result) => result,
                Err(_elapsed) => Err(DialError::TimedOut.into()),
            }
        })
    }

    fn associate<'a>(
        &'a self,
        _metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// A header name: a token of RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}

/// Reads until the answer is whole; what came after it belongs to the tunnel.
async fn read_answer(carrier: &mut Carrier) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    loop {
        let n = carrier.read(&mut chunk).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(chunk.get(..n).unwrap_or_default());
        if let Some(length) = parse_answer(&head)? {
            return Ok(head.split_off(length));
        }
    }
}

/// The length of the answer's head when it is whole and says yes. `Ok(None)`: read more.
fn parse_answer(bytes: &[u8]) -> Result<Option<usize>, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    match (answer.parse(bytes), answer.code) {
        (Err(_), _) => Err(HttpError::BadAnswer),
        (Ok(httparse::Status::Partial), _) if bytes.len() < HEAD_BYTES_MAX => Ok(None),
        (Ok(httparse::Status::Complete(length)), Some(200..=299)) => Ok(Some(length)),
        (Ok(httparse::Status::Complete(_)), Some(407)) => Err(HttpError::Unauthorized),
        (Ok(httparse::Status::Complete(_)), Some(status)) => Err(HttpError::Refused(status)),
        (Ok(_), _) => Err(HttpError::BadAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_answer_belong_to_the_tunnel() {
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
        let mut bytes = answer.to_vec();
        bytes.extend_from_slice(b"220 hello");
        assert_eq!(parse_answer(&bytes), Ok(Some(answer.len())));
        for end in 0..answer.len() {
            assert_eq!(parse_answer(&answer[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |text: &str| parse_answer(text.as_bytes()).unwrap_err();
        assert_eq!(refused("HTTP/1.0 407 No\r\n\r\n"), HttpError::Unauthorized);
        assert_eq!(refused("HTTP/1.1 502 Bad\r\n\r\n"), HttpError::Refused(502));
        assert_eq!(refused("SSH-2.0-OpenSSH\r\n"), HttpError::BadAnswer);
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(refused(&endless), HttpError::BadAnswer);
    }

    #[test]
    fn header_names_are_tokens() {
        assert!(is_token("X-Up_1"));
        assert!(!is_token("a b") && !is_token("") && !is_token("a\r\nb"));
    }
}
