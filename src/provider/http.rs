//! Downloads: one GET over HTTP/1.1 (RFC 9112) through whatever way out the caller has.
//!
//! Small on purpose: no keep-alive, no compression, redirects followed a few times. What the server
//! sends goes to the caller piece by piece; a body that is cut short is an error, never a whole.

use std::fmt;
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::url::Url;
use crate::metadata::{Endpoint, Host};
use crate::outbound::carrier::Carrier;
use crate::outbound::options::TlsOptions;
use crate::outbound::tls::TlsClient;
use crate::outbound::{BoxFuture, Stream};
use crate::prefix;

/// Bytes of a response head, and of a chunk's line.
const HEAD_MAX: usize = 16 * 1024;
const CHUNK_LINE_MAX: u64 = 256;

/// Fields of a response head.
const FIELDS_MAX: usize = 64;

/// Redirects that are followed; release files of code hosts take two.
const REDIRECTS_MAX: usize = 5;

/// A way to a server: the daemon ties it to the tunnel.
pub trait Connect: Send + Sync {
    /// Opens a stream through the outbound `proxy`, or by the rules.
    fn connect<'a>(
        &'a self,
        to: &'a Endpoint,
        proxy: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<Stream>>;
}

/// What to ask for.
pub struct Request<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// The outbound to go through; none: by the rules.
    pub proxy: Option<&'a str>,
    /// `User-Agent`.
    pub agent: &'a str,
    /// Further fields, as the configuration has them.
    pub fields: &'a [(Box<str>, Box<str>)],
    /// What the server called the copy that we have.
    pub etag: Option<&'a str>,
    /// Bytes that the body may have.
    pub size_max: u64,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A body, given to the sink.
    Body {
        /// What the server calls it.
        etag: Option<Box<str>>,
        /// `subscription-userinfo`: what is left of a subscription.
        quota: Option<Box<str>>,
    },
    /// The copy that we have is the newest.
    Unchanged,
}

/// Why nothing came.
#[derive(Debug)]
pub enum FetchError {
    /// The way there, or the connection.
    Io(io::Error),
    /// The server said this status.
    Status(u16),
    /// Not HTTP.
    Malformed,
    /// A redirect that leads nowhere, or too many of them.
    Redirect,
    /// A redirect from elsewhere into a network of one's own (users.md S15).
    Inward,
    /// The body is larger than allowed.
    TooLarge(u64),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Status(status) => write!(f, "the server answers {status}"),
            Self::Malformed => f.write_str("the server does not speak HTTP"),
            Self::Redirect => f.write_str("the server redirects in vain"),
            Self::Inward => f.write_str("the server redirects to a private address"),
            Self::TooLarge(most) => write!(f, "larger than {most} bytes"),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    Close,
}

/// A response head.
struct Head {
    status: u16,
    framing: Framing,
    etag: Option<Box<str>>,
    quota: Option<Box<str>>,
    location: Option<Box<str>>,
    /// Whether the connection may serve another request.
    stays: bool,
}

type Reader = BufReader<Carrier>;
type Sink<'a> = &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send);

/// Asks, follows redirects, and hands the body to `sink`. Without a time-out of its own.
///
/// # Errors
/// [`FetchError`]; `sink` may have got a part of the body then.
pub async fn get(
    request: &Request<'_>,
    way: &dyn Connect,
    sink: Sink<'_>,
) -> Result<Answer, FetchError> {
    let mut moved: Option<Url> = None;
    let mut inside = false;
    for _ in 0..=REDIRECTS_MAX {
        let url = moved.as_ref().unwrap_or(request.url);
        let (mut reader, local) = open(url, request, way).await?;
        // Only who is in a private network himself may name a server there.
        if moved.is_none() {
            inside = local;
        } else if local && !inside {
            return Err(FetchError::Inward);
        }
        // Fields that the user wrote may hold secrets: another host does not get them.
        let trusted = url.same_origin(request.url);
        let text = url.request(
            request.agent,
            if trusted { request.fields } else { &[] },
            request.etag,
        );
        reader.get_mut().write_all(text.as_bytes()).await?;
        reader.get_mut().flush().await?;
        let head = read_head(&mut reader).await?;
        match head.status {
            200 => {
                read_body(&mut reader, head.framing, request.size_max, sink).await?;
                return Ok(Answer::Body {
                    etag: head.etag,
                    quota: head.quota,
                });
            }
            304 if request.etag.is_some() => return Ok(Answer::Unchanged),
            301 | 302 | 303 | 307 | 308 => {
                let location = head.location.ok_or(FetchError::Redirect)?;
                let next = url.join(&location).ok_or(FetchError::Redirect)?;
                moved = Some(next);
            }
            status => return Err(FetchError::Status(status)),
        }
    }
    Err(FetchError::Redirect)
}

/// Opens what a URL names, and tells whether it is in a network of one's own, as far as we see: what a name
/// means to a proxy is the proxy's affair.
async fn open(
    url: &Url,
    request: &Request<'_>,
    way: &dyn Connect,
) -> Result<(Reader, bool), FetchError> {
    let carrier = carrier(way.connect(&url.endpoint, request.proxy).await?)?;
    let named = match &url.endpoint.host {
        Host::Ip(address) => Some(*address),
        Host::Name(_) => None,
    };
    let local = named.or(carrier.peer().map(|peer| peer.ip()));
    let local = local.is_some_and(prefix::is_local);
    let carrier = match url.tls {
        true => {
            let client = TlsClient::new(&TlsOptions::default(), &url.endpoint.host.to_string());
            let client = client.map_err(io::Error::other)?;
            client.handshake(carrier).await?
        }
        false => carrier,
    };
    Ok((BufReader::new(carrier), local))
}

fn carrier(stream: Stream) -> io::Result<Carrier> {
    Carrier::of(stream).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

/// A stream to a server, under TLS where that is asked for. Without a time-out of its own.
///
/// # Errors
/// What the way or the handshake says; a REJECT is a refused connection.
pub async fn open_carrier(
    way: &dyn Connect,
    to: &Endpoint,
    proxy: Option<&str>,
    tls: Option<&TlsClient>,
) -> io::Result<Carrier> {
    let carrier = carrier(way.connect(to, proxy).await?)?;
    match tls {
        Some(client) => client.handshake(carrier).await,
        None => Ok(carrier),
    }
}

/// One connection for requests one after the other.
pub struct Exchange(Reader);

/// Bytes of an answer that nobody reads.
const IGNORED_MAX: u64 = 256 * 1024;

impl Exchange {
    /// Over a stream that is open.
    #[must_use]
    pub fn new(carrier: Carrier) -> Self {
        Self(BufReader::with_capacity(1024, carrier))
    }

    /// Sends a request and passes over the answer's body: the status, and whether the connection may
    /// serve another request. Without a time-out of its own.
    ///
    /// # Errors
    /// [`FetchError`]; the connection is of no use then.
    pub async fn send(&mut self, head: &str, body: &[u8]) -> Result<(u16, bool), FetchError> {
        let carrier = self.0.get_mut();
        carrier.write_all(head.as_bytes()).await?;
        carrier.write_all(body).await?;
        carrier.flush().await?;
        let head = read_head(&mut self.0).await?;
        let bodiless = matches!(head.status, 204 | 304);
        if head.stays && !bodiless {
            read_body(&mut self.0, head.framing, IGNORED_MAX, &mut |_| Ok(())).await?;
        }
        Ok((head.status, head.stays))
    }
}

async fn read_head(reader: &mut Reader) -> Result<Head, FetchError> {
    let mut bytes = Vec::new();
    loop {
        let left = HEAD_MAX.saturating_sub(bytes.len()) as u64;
        if reader.take(left).read_until(b'\n', &mut bytes).await? == 0 {
            return Err(FetchError::Malformed);
        }
        if bytes.ends_with(b"\r\n\r\n") || bytes.ends_with(b"\n\n") {
            match parse_head(&bytes)? {
                // An interim answer (RFC 9110 section 15.2): the real one follows.
                Head {
                    status: 100..=199, ..
                } => bytes.clear(),
                head => return Ok(head),
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, FetchError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(FetchError::Malformed),
    }
    let value = |name: &str| {
        let mut fields = response.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(field.value).ok().map(str::trim)
    };
    let framing = match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        (Some(_), _) => return Err(FetchError::Malformed),
        (None, Some(length)) => Framing::Length(length.parse().map_err(|_| FetchError::Malformed)?),
        (None, None) => Framing::Close,
    };
    Ok(Head {
        status: response.code.ok_or(FetchError::Malformed)?,
        framing,
        etag: value("etag").map(Into::into),
        quota: value("subscription-userinfo").map(Into::into),
        location: value("location").map(Into::into),
        stays: response.version == Some(1)
            && framing != Framing::Close
            && !value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close")),
    })
}

async fn read_body(
    reader: &mut (dyn AsyncBufRead + Send + Unpin),
    framing: Framing,
    size_max: u64,
    sink: Sink<'_>,
) -> Result<(), FetchError> {
    let mut taken = 0;
    let mut room = |length: u64| {
        taken = length.saturating_add(taken);
        if taken > size_max {
            return Err(FetchError::TooLarge(size_max));
        }
        Ok(())
    };
    match framing {
        Framing::Length(length) => {
            room(length)?;
            pass(reader, length, sink).await
        }
        Framing::Chunked => loop {
            let length = chunk_length(reader).await?;
            if length == 0 {
                return Ok(());
            }
            room(length)?;
            pass(reader, length, sink).await?;
            let mut end = [0; 2];
            reader.read_exact(&mut end).await?;
            if end != *b"\r\n" {
                return Err(FetchError::Malformed);
            }
        },
        Framing::Close => loop {
            let piece = reader.fill_buf().await?;
            if piece.is_empty() {
                return Ok(());
            }
            let length = piece.len();
            room(length as u64)?;
            sink(piece)?;
            reader.consume(length);
        },
    }
}

/// Hands on exactly `length` bytes.
async fn pass(
    reader: &mut (dyn AsyncBufRead + Send + Unpin),
    length: u64,
    sink: Sink<'_>,
) -> Result<(), FetchError> {
    let mut left = length;
    while left > 0 {
        let piece = reader.fill_buf().await?;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let piece = piece.get(..most).unwrap_or_default();
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        sink(piece)?;
        reader.consume(most);
        left -= most as u64;
    }
    Ok(())
}

/// The size line of a chunk (RFC 9112 section 7.1); extensions are passed over.
async fn chunk_length(reader: &mut (dyn AsyncBufRead + Send + Unpin)) -> Result<u64, FetchError> {
    let mut line = Vec::new();
    let mut limited = reader.take(CHUNK_LINE_MAX);
    limited.read_until(b'\n', &mut line).await?;
    let line = line.strip_suffix(b"\n").ok_or(FetchError::Malformed)?;
    let digits = line
        .split(|byte| matches!(byte, b';' | b'\r' | b' '))
        .next();
    let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    u64::from_str_radix(digits.unwrap_or_default(), 16).map_err(|_| FetchError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::io::duplex;

    /// Answers each connection with the next of the given texts.
    struct Server(Mutex<Vec<&'static str>>);

    impl Connect for Server {
        fn connect<'a>(
            &'a self,
            _: &'a Endpoint,
            _: Option<&'a str>,
        ) -> BoxFuture<'a, io::Result<Stream>> {
            let answer = self.0.lock().unwrap().remove(0);
            Box::pin(async move {
                let (near, mut far) = duplex(64 * 1024);
                far.write_all(answer.as_bytes()).await?;
                // Its other half stays open for what the client says.
                tokio::spawn(async move {
                    let mut said = [0; 4096];
                    let _ = far.read(&mut said).await;
                });
                Ok(Stream::Boxed(Box::new(near)))
            })
        }
    }

    async fn fetch(
        answers: &[&'static str],
        etag: Option<&str>,
    ) -> Result<(Answer, String), String> {
        let url = Url::parse("http://a.org/list").unwrap();
        let request = Request {
            url: &url,
            proxy: None,
            agent: "test",
            fields: &[],
            etag,
            size_max: 20,
        };
        let server = Server(Mutex::new(answers.to_vec()));
        let mut body = Vec::new();
        let mut sink = |piece: &[u8]| {
            body.extend_from_slice(piece);
            Ok(())
        };
        let answer = get(&request, &server, &mut sink)
            .await
            .map_err(|e| e.to_string())?;
        Ok((answer, String::from_utf8(body).unwrap()))
    }

    #[tokio::test]
    async fn bodies_of_all_framings_come_whole() {
        for (answer, etag) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\nhello",
                Some("\"x\""),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
                None,
            ),
            ("HTTP/1.0 200 OK\r\n\r\nhello", None),
            (
                "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello",
                None,
            ),
        ] {
            let (got, body) = fetch(&[answer], None).await.unwrap();
            assert_eq!(
                (got, &*body),
                (
                    Answer::Body {
                        etag: etag.map(Into::into),
                        quota: None
                    },
                    "hello"
                )
            );
        }
    }

    #[tokio::test]
    async fn redirects_and_unchanged_copies() {
        let moved = "HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n";
        let here = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(fetch(&[moved, moved, here], None).await.unwrap().1, "ok");
        assert!(
            fetch(&[moved; 6], None)
                .await
                .unwrap_err()
                .contains("in vain")
        );
        let inward = "HTTP/1.1 302 Found\r\nLocation: http://192.168.1.1/cgi\r\n\r\n";
        assert!(
            fetch(&[inward, here], None)
                .await
                .unwrap_err()
                .contains("private")
        );
        let same = "HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(
            fetch(&[same], Some("\"x\"")).await.unwrap().0,
            Answer::Unchanged
        );
    }

    #[tokio::test]
    async fn what_is_cut_too_large_or_not_http_is_an_error() {
        for (answer, why) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
                "unexpected end of file",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "the server does not speak HTTP",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n",
                "larger than 20 bytes",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nmore than twenty bytes",
                "larger than 20 bytes",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "the server answers 404"),
            ("SSH-2.0-x\r\n\r\n", "the server does not speak HTTP"),
            ("", "the server does not speak HTTP"),
        ] {
            assert_eq!(fetch(&[answer], None).await.unwrap_err(), why, "{answer}");
        }
    }
}
