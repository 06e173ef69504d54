//! `headgate api METHOD PATH [BODY]`: one request to the running daemon's controller, for scripts on
//! a router that has no other HTTP client that speaks to Unix sockets (the LuCI backend, `doctor`).
//!
//! It asks where the configuration says that the controller is: the Unix socket, which needs no
//! secret, else the TCP listener with the secret. The answer's body goes to standard output as it
//! comes. It is HTTP/1.0 (RFC 1945), so the server ends the body by closing. Not a general client: no
//! TLS, no redirects.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::controllers::options::Options;

/// The longest silence of the daemon when nothing else is said: its slowest answers are delay tests, of
/// at most 5 s by default.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A head of more than this is no answer of ours.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

/// What to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query, percent-encoded.
    pub path: String,
    /// JSON; empty: none.
    pub body: String,
    /// How many seconds the daemon may be silent; 0: the default.
    pub seconds: u8,
}

impl Request {
    /// The longest silence that is waited for.
    fn silence(&self) -> Duration {
        match self.seconds {
            0 => SILENCE_MAX,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// Method, path and, if there is a third word, the body.
    #[must_use]
    pub fn from_words(words: Vec<String>) -> Option<Self> {
        let mut words = words.into_iter();
        let request = Self {
            method: words.next()?,
            path: words.next()?,
            body: words.next().unwrap_or_default(),
            seconds: 0,
        };
        words.next().is_none().then_some(request)
    }
}

/// Why there was no good answer.
#[derive(Debug)]
pub enum ClientError {
    /// The configuration has no controller.
    NoController,
    /// Method or path would not be one word on the request line.
    NotARequest,
    /// The daemon could not be reached or fell silent.
    Io(io::Error),
    /// What came was no HTTP answer.
    NotAnAnswer,
    /// The daemon refused: its status.
    Status(u16),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoController => f.write_str("the configuration has no controller"),
            Self::NotARequest => {
                f.write_str("method and path must be printable and without spaces")
            }
            Self::Io(error) => write!(f, "controller: {error}"),
            Self::NotAnAnswer => f.write_str("controller: that is no HTTP answer"),
            Self::Status(status) => write!(f, "controller: status {status}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks the controller that `options` describe; the body of the answer goes to `to`, also that of a
/// refusal. `directory` is the daemon's working directory.
///
/// # Errors
/// [`ClientError`]; a status other than 2xx is one.
pub fn ask(
    options: &Options,
    directory: &Path,
    request: &Request,
    to: &mut dyn Write,
) -> Result<(), ClientError> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !word(&request.method) || !request.path.starts_with('/') || !word(&request.path) {
        return Err(ClientError::NotARequest);
    }
    if let Some(path) = &options.unix {
        let mut stream = UnixStream::connect(directory.join(path))?;
        stream.set_read_timeout(Some(request.silence()))?;
        stream.write_all(head(request, "").as_bytes())?;
        return answer(&mut BufReader::new(stream), to);
    }
    let listen = options.listen.ok_or(ClientError::NoController)?;
    let mut stream = TcpStream::connect_timeout(&reachable(listen), request.silence())?;
    stream.set_read_timeout(Some(request.silence()))?;
    stream.write_all(head(request, &options.secret).as_bytes())?;
    answer(&mut BufReader::new(stream), to)
}

/// A wildcard is listened on, not connected to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The request with its body.
fn head(request: &Request, secret: &str) -> String {
    let Request {
        method, path, body, ..
    } = request;
    let authorization = match secret {
        "" => String::new(),
        secret => format!("Authorization: Bearer {secret}\r\n"),
    };
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Reads the head of an answer and passes its body on.
fn answer(from: &mut BufReader<impl Read>, to: &mut dyn Write) -> Result<(), ClientError> {
    let mut head = from.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|word| word.trim_end().parse().ok())
        .ok_or(ClientError::NotAnAnswer)?;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(ClientError::NotAnAnswer);
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    io::copy(from, to)?;
    match status {
        200..=299 => Ok(()),
        _ => Err(ClientError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(bytes: &[u8]) -> (Result<(), ClientError>, Vec<u8>) {
        let mut body = Vec::new();
        let done = answer(&mut BufReader::new(bytes), &mut body);
        (done, body)
    }

    #[test]
    fn the_body_is_what_follows_the_head() {
        let (done, body) = answered(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"a\":\r\n\r\n1}");
        assert!(done.is_ok());
        assert_eq!(body, b"{\"a\":\r\n\r\n1}");
    }

    #[test]
    fn a_refusal_is_an_error_and_its_body_is_kept() {
        let (done, body) = answered(b"HTTP/1.1 404 Not Found\r\n\r\n{\"message\":\"x\"}");
        assert!(matches!(done, Err(ClientError::Status(404))));
        assert_eq!(body, b"{\"message\":\"x\"}");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &vec![b'a'; 20_000]].concat();
        for bytes in [
            b"".as_slice(),
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 \r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
            &endless,
        ] {
            assert!(matches!(answered(bytes).0, Err(ClientError::NotAnAnswer)));
        }
    }

    #[test]
    fn a_request_is_one_line_whatever_the_words() {
        let options = Options::default();
        for (method, path) in [
            ("GET", "version"),
            ("GET", "/a b"),
            ("GET", "/a\r\nX: y"),
            ("G T", "/"),
        ] {
            let request = Request {
                method: method.into(),
                path: path.into(),
                body: String::new(),
                seconds: 0,
            };
            let refused = ask(&options, Path::new("/"), &request, &mut io::sink());
            assert!(matches!(refused, Err(ClientError::NotARequest)));
        }
    }

    #[test]
    fn the_secret_goes_with_the_request_over_tcp_only() {
        let request = Request {
            method: "PUT".into(),
            path: "/proxies/a".into(),
            body: "{}".into(),
            seconds: 0,
        };
        assert!(!head(&request, "").contains("Authorization"));
        let text = head(&request, "s3");
        assert!(text.starts_with("PUT /proxies/a HTTP/1.0\r\n"));
        assert!(text.contains("\r\nAuthorization: Bearer s3\r\n"));
        assert!(text.ends_with("\r\nContent-Length: 2\r\n\r\n{}"));
        assert_eq!(
            reachable("0.0.0.0:9".parse().unwrap()),
            "127.0.0.1:9".parse().unwrap()
        );
    }
}
