//! A request head, from bytes to the few fields that the gate acts on (RFC 9112).
//!
//! Pure. Strict where laxness lets two readers disagree: no bare line feeds, no folded fields,
//! no space before a colon, one `Host`, and a body framed in exactly one way. What is refused
//! says with which status; the connection ends after it.

use super::Method;

/// Bytes of a request head.
pub const HEAD_BYTES_MAX: usize = 8192;

/// Fields of a request head.
const FIELDS_MAX: usize = 64;

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`, or none at all: 0.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a head is refused. The connection cannot go on: where the next request would begin is
/// unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not what the grammar allows.
    Malformed,
    /// More than 64 fields, or a head longer than [`HEAD_BYTES_MAX`].
    TooLarge,
    /// A transfer coding other than `chunked`.
    Coding,
    /// An `Expect` other than `100-continue`.
    Expectation,
}

impl BadHead {
    /// The status that tells the client.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 431,
            Self::Coding => 501,
            Self::Expectation => 417,
        }
    }
}

/// What the gate acts on.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// Path and query, undecoded, beginning with a slash.
    pub target: &'a str,
    /// The path alone.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: &'a str,
    /// HTTP/1.1 rather than 1.0.
    pub http11: bool,
    /// `Host`, or the authority of an absolute target.
    pub host: Option<&'a str>,
    /// `X-Forwarded-Host`: what a reverse proxy was asked for.
    pub forwarded_host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `If-None-Match`: what the client has already.
    pub if_none_match: Option<&'a str>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// Whether `Upgrade` names WebSocket.
    pub websocket: bool,
    /// `Sec-WebSocket-Key`, when `Sec-WebSocket-Version` is 13 and `Connection` says upgrade.
    pub websocket_key: Option<&'a str>,
    /// Whether this is a CORS pre-flight (`OPTIONS` with `Access-Control-Request-Method`).
    pub preflight: bool,
    /// Whether the pre-flight asks for access from a public to a private network.
    pub private_network: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether the connection may carry another request.
    pub keep_alive: bool,
    /// How the body ends.
    pub framing: Framing,
}

/// Where the head at the front of `bytes` ends, `None` when it has not ended yet. Bytes before
/// `from` were searched before. Ends at bare line feeds too, for [`Head::parse`] to refuse.
#[must_use]
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    let fresh = bytes.get(start..)?;
    let at = |i: usize| fresh.get(i).copied();
    (0..fresh.len()).find_map(|i| match (at(i), at(i + 1), at(i + 2)) {
        (Some(b'\n'), Some(b'\n'), _) => Some(start + i + 2),
        (Some(b'\n'), Some(b'\r'), Some(b'\n')) => Some(start + i + 3),
        _ => None,
    })
}

impl<'a> Head<'a> {
    /// Reads a whole head.
    ///
    /// # Errors
    /// [`BadHead`] with the status to answer.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadHead> {
        let mut pairs = bytes.windows(2);
        if bytes.first() == Some(&b'\n') || pairs.any(|p| matches!(p, [a, b'\n'] if *a != b'\r')) {
            return Err(BadHead::Malformed);
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
            Ok(httparse::Status::Partial) | Err(_) => return Err(BadHead::Malformed),
        }
        let target = request.path.ok_or(BadHead::Malformed)?;
        let (authority, target) = split_target(target)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let http11 = request.version == Some(1);
        let mut head = Self {
            method: Method::parse(request.method.unwrap_or_default()),
            target,
            path,
            query,
            http11,
            host: None,
            forwarded_host: None,
            origin: None,
            if_none_match: None,
            authorization: None,
            websocket: false,
            websocket_key: None,
            preflight: false,
            private_network: false,
            expects_continue: false,
            keep_alive: http11,
            framing: Framing::Length(0),
        };
        head.read_fields(request.headers)?;
        // RFC 9112 section 3.2: every 1.1 request names its host, even with an absolute target.
        if http11 && head.host.is_none() {
            return Err(BadHead::Malformed);
        }
        head.host = authority.or(head.host);
        Ok(head)
    }

    /// Whether a body follows.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.framing != Framing::Length(0)
    }

    fn read_fields(&mut self, fields: &[httparse::Header<'a>]) -> Result<(), BadHead> {
        let (mut length, mut chunked) = (None, false);
        let (mut key, mut version13, mut upgrade) = (None, false, false);
        for field in fields {
            // Fields that are not text are of no use to anybody here; those that matter are ASCII.
            let value = std::str::from_utf8(field.value);
            let value = value.map_err(|_| BadHead::Malformed)?;
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("Host") {
                once(&mut self.host, value)?;
            } else if is("Content-Length") {
                once(&mut length, value)?;
            } else if is("Transfer-Encoding") {
                if chunked || !self.http11 {
                    return Err(BadHead::Malformed);
                }
                if !value.eq_ignore_ascii_case("chunked") {
                    return Err(BadHead::Coding);
                }
                chunked = true;
            } else if is("Connection") {
                upgrade |= self.read_connection(value);
            } else if is("Authorization") {
                once(&mut self.authorization, value)?;
            } else if is("Origin") {
                once(&mut self.origin, value)?;
            } else if is("If-None-Match") {
                self.if_none_match = Some(value);
            } else if is("X-Forwarded-Host") {
                self.forwarded_host = Some(value);
            } else if is("Upgrade") {
                self.websocket |= value.eq_ignore_ascii_case("websocket");
            } else if is("Sec-WebSocket-Key") {
                once(&mut key, value)?;
            } else if is("Sec-WebSocket-Version") {
                version13 = value == "13";
            } else if is("Expect") {
                if !value.eq_ignore_ascii_case("100-continue") {
                    return Err(BadHead::Expectation);
                }
                self.expects_continue = self.http11;
            } else if is("Access-Control-Request-Method") {
                self.preflight = self.method == Method::Options;
            } else if is("Access-Control-Request-Private-Network") {
                self.private_network = value == "true";
            }
        }
        self.websocket_key = key.filter(|_| version13 && upgrade);
        self.framing = match (length, chunked) {
            (None, false) => Framing::Length(0),
            (None, true) => Framing::Chunked,
            (Some(digits), false) => Framing::Length(content_length(digits)?),
            (Some(_), true) => return Err(BadHead::Malformed),
        };
        Ok(())
    }

    /// Reads the options of a `Connection` field; whether `upgrade` is among them.
    fn read_connection(&mut self, value: &str) -> bool {
        let mut upgrade = false;
        for option in value.split(',').map(str::trim) {
            if option.eq_ignore_ascii_case("close") {
                self.keep_alive = false;
            } else if option.eq_ignore_ascii_case("upgrade") {
                upgrade = true;
            }
        }
        upgrade
    }
}

/// Sets a field that may occur once.
fn once<'a>(slot: &mut Option<&'a str>, value: &'a str) -> Result<(), BadHead> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadHead::Malformed),
    }
}

/// Digits only, so that no sign, space or list slips through (RFC 9110 section 8.6). A length that
/// does not fit is larger than any limit.
fn content_length(digits: &str) -> Result<usize, BadHead> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadHead::Malformed);
    }
    Ok(digits.parse().unwrap_or(usize::MAX))
}

/// Takes origin form or absolute form apart (RFC 9112 section 3.2): authority, path with query.
fn split_target(target: &str) -> Result<(Option<&str>, &str), BadHead> {
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(BadHead::Malformed);
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    // `OPTIONS *` asks about the server as a whole; no route is that.
    if target == "*" {
        return Ok((None, target));
    }
    let rest = target.strip_prefix("http://").ok_or(BadHead::Malformed)?;
    let slash = rest.find('/').ok_or(BadHead::Malformed)?;
    let (authority, path) = rest.split_at(slash);
    Ok((Some(authority), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(head: &str, why: BadHead) {
        assert_eq!(Head::parse(head.as_bytes()).err(), Some(why), "{head:?}");
    }

    #[test]
    fn a_plain_request_reads() {
        let bytes = b"PUT /proxies/a%2Fb?x=1?2 HTTP/1.1\r\nhost: router.lan:9090\r\n\
            Content-Length: 12\r\nAuthorization: Bearer s\r\nConnection: foo, Close\r\n\r\n";
        let head = Head::parse(bytes).unwrap();
        assert_eq!(head.method, Method::Put);
        assert_eq!((head.path, head.query), ("/proxies/a%2Fb", "x=1?2"));
        assert_eq!(head.host, Some("router.lan:9090"));
        assert_eq!(head.framing, Framing::Length(12));
        assert!(!head.keep_alive);
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let bytes = b"GET http://10.0.0.1:9090/version HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        let head = Head::parse(bytes).unwrap();
        assert_eq!((head.host, head.path), (Some("10.0.0.1:9090"), "/version"));
    }

    #[test]
    fn an_upgrade_needs_all_its_fields() {
        let with = |fields: &str| {
            let text = format!("GET /traffic HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let head = Head::parse(text.as_bytes()).unwrap();
            (head.websocket, head.websocket_key.is_some())
        };
        let all = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        assert_eq!(with(all), (true, true));
        assert_eq!(with(&all.replace("13", "8")), (true, false));
        assert_eq!(with(&all.replace("Upgrade\r", "foo\r")), (true, false));
        assert_eq!(with(&all.replace("websocket\r", "h2c\r")), (false, true));
    }

    #[test]
    fn what_could_smuggle_a_request_is_refused() {
        let request = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length : 5\r\n",
            "Content-Length: 5\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\u{b}chunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\rb\r\n",
            "X: a\0b\r\n",
            "Host: y\r\n",
            ": x\r\n",
            "X\r\n",
        ] {
            refused(&request(fields), BadHead::Malformed);
        }
        for coding in [
            "gzip",
            "chunked, identity",
            "identity",
            "xchunked",
            "gzip, chunked",
        ] {
            refused(
                &request(&format!("Transfer-Encoding: {coding}\r\n")),
                BadHead::Coding,
            );
        }
        refused(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadHead::Malformed,
        );
    }

    #[test]
    fn broken_request_lines_are_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/2.0\r\nHost: x\r\n",
            "GET /\r\nHost: x\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n",
            "GET / HTTP/1.1 \r\nHost: x\r\n",
            "GET x HTTP/1.1\r\nHost: x\r\n",
            "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n",
            "G(T / HTTP/1.1\r\nHost: x\r\n",
            "\nGET / HTTP/1.1\r\nHost: x\r\n",
            "GET / HTTP/1.1\nHost: x\r\n",
        ] {
            refused(&format!("{line}\r\n"), BadHead::Malformed);
        }
        let many = "A: b\r\n".repeat(FIELDS_MAX + 1);
        refused(&format!("GET / HTTP/1.1\r\n{many}\r\n"), BadHead::TooLarge);
        refused(
            "GET / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n",
            BadHead::Expectation,
        );
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for searched in 0..bytes.len() - 5 {
            assert_eq!(end(bytes, searched), Some(bytes.len() - 4), "{searched}");
        }
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: x\r\n\r", 0), None);
        assert_eq!(end(b"a\n\nb", 0), Some(3));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Head::parse(&bytes);
            let _ = end(&bytes, bytes.len() / 2);
        }

        #[test]
        fn nearly_good_heads_never_panic(line in "[A-Z]{3} [/a-z%?:*]{1,9} HTTP/1\\.[019]",
            fields in "((Host|Content-Length|Connection|Expect|Origin): ?[ -~]{0,9}\r\n){0,5}") {
            let _ = Head::parse(format!("{line}\r\n{fields}\r\n").as_bytes());
        }
    }
}
