//! HTTP/1.1 upgrades (RFC 9110 section 7.8): requests and answers, to and from bytes.
//!
//! Pure. WebSocket (RFC 6455 section 4) and HTTPUpgrade (proxy-protocols.md 8.2) begin alike; they
//! differ in the key fields and in what follows the answer.

use std::fmt;

use crate::encoding::BASE64;
use crate::websocket;

use crate::wire::Truncated;

/// The longest head that is read.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Fields of a head that are looked at.
const FIELDS_MAX: usize = 32;

/// Why options make no request, or bytes are no answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The path is no path.
    Path,
    /// A header field could end its line.
    Field,
    /// The answer is not HTTP, or too long.
    NotHttp,
    /// The server answered with this status.
    Status(u16),
    /// The server upgraded to something else.
    OtherProtocol,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("path has bytes that no path has"),
            Self::Field => f.write_str("header field cannot be sent"),
            Self::NotHttp => f.write_str("answer is not HTTP"),
            Self::Status(status) => write!(f, "server answered {status} to the upgrade"),
            Self::OtherProtocol => f.write_str("server upgraded to another protocol"),
        }
    }
}

impl std::error::Error for HeadError {}

impl From<HeadError> for std::io::Error {
    fn from(error: HeadError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl From<Truncated> for HeadError {
    fn from(_: Truncated) -> Self {
        Self::NotHttp
    }
}

/// A request without its key and its early data, checked once.
#[derive(Debug)]
pub struct Request {
    path: Box<str>,
    /// `Host` and the user's fields, each with its line's end.
    fields: Box<str>,
}

impl Request {
    /// A GET of `path` at `host`, which a `Host` among `headers` replaces.
    ///
    /// # Errors
    /// [`HeadError::Path`], [`HeadError::Field`].
    pub fn new(
        path: &str,
        host: &str,
        headers: &[(Box<str>, Box<str>)],
    ) -> Result<Self, HeadError> {
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(HeadError::Path);
        }
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let plain = |value: &str| !value.chars().any(char::is_control);
        let own = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = own.map_or(host, |(_, value)| value);
        let mut fields = format!("Host: {host}\r\n");
        for (name, value) in headers {
            if name.is_empty() || !name.bytes().all(token) || !plain(value) {
                return Err(HeadError::Field);
            }
            if !name.eq_ignore_ascii_case("host") {
                fields.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if !plain(host) {
            return Err(HeadError::Field);
        }
        Ok(Self {
            path: path.into(),
            fields: fields.into(),
        })
    }

    /// The bytes, with `key` for WebSocket, and `early` in the field of that name or, without a
    /// name, at the end of the path.
    #[must_use]
    pub fn encode(&self, key: Option<&[u8; 16]>, early: Option<(&str, &str)>) -> Vec<u8> {
        let (suffix, field) = match early {
            Some(("", data)) => (data, String::new()),
            Some((name, data)) => ("", format!("{name}: {data}\r\n")),
            None => ("", String::new()),
        };
        let key = key.map_or(String::new(), |key| {
            format!(
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
                BASE64.encode(key)
            )
        });
        let Self { path, fields } = self;
        format!(
            "GET {path}{suffix} HTTP/1.1\r\n{fields}Connection: Upgrade\r\nUpgrade: websocket\r\n{key}{field}\r\n"
        )
        .into_bytes()
    }
}

/// Reads the answer to a request with `key`: how long its head is; `None`: read more.
///
/// # Errors
/// [`HeadError`].
pub fn answer(bytes: &[u8], key: Option<&[u8; 16]>) -> Result<Option<usize>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes).map_err(|_| HeadError::NotHttp)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        httparse::Status::Partial => return Err(HeadError::NotHttp),
    };
    match response.code {
        Some(101) => {}
        Some(code) => return Err(HeadError::Status(code)),
        None => return Err(HeadError::NotHttp),
    }
    let field = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value)
    };
    let upgraded = field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    let accepted = key.is_none_or(|key| {
        let want = websocket::accept(BASE64.encode(key).as_bytes());
        field("sec-websocket-accept").is_some_and(|value| value == want.as_bytes())
    });
    if upgraded && accepted {
        Ok(Some(length))
    } else {
        Err(HeadError::OtherProtocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8; 16] = b"the sample nonce";

    fn text(request: &Request, early: Option<(&str, &str)>) -> String {
        String::from_utf8(request.encode(Some(KEY), early)).unwrap()
    }

    #[test]
    fn requests_carry_host_key_and_early_data() {
        let headers = [("X-A".into(), "b".into()), ("HOST".into(), "h.test".into())];
        let request = Request::new("/p?q", "server.test", &headers).unwrap();
        assert_eq!(
            text(&request, Some(("Sec-WebSocket-Protocol", "YQ"))),
            "GET /p?q HTTP/1.1\r\nHost: h.test\r\nX-A: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: YQ\r\n\r\n"
        );
        assert!(text(&request, Some(("", "YQ"))).starts_with("GET /p?qYQ HTTP"));
    }

    #[test]
    fn nothing_can_end_its_line() {
        let refused = |path: &str, host: &str, name: &str, value: &str| {
            Request::new(path, host, &[(name.into(), value.into())]).unwrap_err()
        };
        assert_eq!(refused("p", "h", "a", "b"), HeadError::Path);
        assert_eq!(refused("/a b", "h", "a", "b"), HeadError::Path);
        assert_eq!(refused("/", "h\r\nX: y", "a", "b"), HeadError::Field);
        assert_eq!(refused("/", "h", "a:", "b"), HeadError::Field);
        assert_eq!(refused("/", "h", "a", "b\n"), HeadError::Field);
    }

    /// The key and its answer are those of RFC 6455 section 1.3.
    #[test]
    fn answers_must_accept_the_key() {
        let good =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nrest";
        assert_eq!(answer(good, Some(KEY)), Ok(Some(good.len() - 4)));
        assert_eq!(answer(&good[..50], Some(KEY)), Ok(None));
        assert_eq!(
            answer(good, Some(b"another nonce...")),
            Err(HeadError::OtherProtocol)
        );
        let bare = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(answer(bare, None), Ok(Some(bare.len())));
        assert_eq!(answer(bare, Some(KEY)), Err(HeadError::OtherProtocol));
        let missing = b"HTTP/1.1 404 Not Found\r\n\r\n";
        assert_eq!(answer(missing, None), Err(HeadError::Status(404)));
        assert_eq!(answer(b"SSH-2.0-x\r\n", None), Err(HeadError::NotHttp));
        let endless = [b"HTTP/1.1 101 OK\r\nA: ", &[b'a'; HEAD_BYTES_MAX][..]].concat();
        assert_eq!(answer(&endless, None), Err(HeadError::NotHttp));
    }
}
