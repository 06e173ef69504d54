//! Heads of HTTP/1.1 messages at a forward proxy: parsed, judged, and rewritten for the next
//! hop (RFC 9110, RFC 9112).
//!
//! Pure. Requests come in absolute form or as CONNECT and leave in origin form; both ways lose
//! what belongs to one connection: Connection and the fields it names, Keep-Alive, TE, every
//! Proxy-* field, and Upgrade unless the message asks for it. Whatever makes it doubtful where
//! a message ends (Content-Length with Transfer-Encoding, repeated or listed lengths, other
//! transfer codings, folded lines, a space before a colon) is refused, never repaired.

use std::fmt;

use data_encoding::BASE64;

use super::body::Framing;
use crate::metadata::{Endpoint, Host};

/// The longest request head.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// The longest response head: some sites send policies and cookies of many kilobytes.
pub const RESPONSE_BYTES_MAX: usize = 32 * 1024;
/// How many fields a head may have.
const FIELDS_MAX: usize = 100;

/// Why bytes are no message that can be forwarded. Fatal to the connection they came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not the grammar of RFC 9112, or more than [`FIELDS_MAX`] fields.
    Syntax,
    /// The target is neither `http://…` nor, for CONNECT, `host:port`.
    Target,
    /// No Host field, or several.
    Host,
    /// It is doubtful where the body ends.
    Framing,
    /// A response that does not fit the request.
    Status,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "bad syntax",
            Self::Target => "target is not a proxy's",
            Self::Host => "not exactly one host field",
            Self::Framing => "ambiguous body length",
            Self::Status => "unexpected status",
        })
    }
}

impl From<httparse::Error> for Malformed {
    fn from(_: httparse::Error) -> Self {
        Self::Syntax
    }
}

/// A message and the length of its head, or `None`: read more.
pub type Decoded<T> = Result<Option<(T, usize)>, Malformed>;

/// A request to the proxy.
pub struct Request {
    /// `Proxy-Authorization: Basic`.
    pub login: Option<Login>,
    /// What to do.
    pub action: Action,
}

/// Credentials that a client sent; never shown.
pub struct Login {
    /// User name.
    pub username: Box<[u8]>,
    /// Password.
    pub password: Box<[u8]>,
}

/// What a request asks of the proxy.
pub enum Action {
    /// CONNECT.
    Tunnel(Endpoint),
    /// Any other method.
    Forward(Forward),
}

/// A request for an origin server.
pub struct Forward {
    /// The server.
    pub server: Endpoint,
    /// The head to send it.
    pub head: Vec<u8>,
    /// How the body behind the head ends.
    pub framing: Framing,
    /// What its response must be read with.
    pub expectation: Expectation,
}

/// What of a request matters to its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The method is HEAD: the response has no body.
    pub head_only: bool,
    /// The client asks for another protocol.
    pub upgrade: bool,
    /// The client's connection serves further requests.
    pub keep_alive: bool,
}

/// A response from an origin server.
#[derive(Debug)]
pub struct Response {
    /// The head to send to the client.
    pub head: Vec<u8>,
    /// What follows it.
    pub follows: Follows,
    /// Whether the client's connection serves further requests.
    pub keep_alive: bool,
    /// Whether the server's connection does.
    pub reusable: bool,
}

/// What follows the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The body.
    Body(Framing),
    /// Another response: this one was interim.
    Response,
    /// Another protocol.
    Upgrade,
}

/// Reads a client's request.
///
/// # Errors
/// [`Malformed`].
pub fn request(bytes: &[u8]) -> Decoded<Request> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes)? else {
        return Ok(None);
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Malformed::Syntax);
    };
    let fields = Fields(head.headers);
    let framing = fields.framing()?;
    if version == 0 && framing == Some(Framing::Chunked) {
        return Err(Malformed::Framing);
    }
    let action = if method == "CONNECT" {
        if !matches!(framing, None | Some(Framing::Length(0))) {
            return Err(Malformed::Framing);
        }
        Action::Tunnel(Endpoint::parse(target).ok_or(Malformed::Target)?)
    } else {
        if fields.values("host").count() != 1 {
            return Err(Malformed::Host);
        }
        let closes =
            fields.lists("connection", "close") || fields.lists("proxy-connection", "close");
        let expectation = Expectation {
            head_only: method == "HEAD",
            upgrade: version == 1
                && fields.lists("connection", "upgrade")
                && fields.values("upgrade").next().is_some(),
            keep_alive: version == 1 && !closes,
        };
        let target = Target::parse(method, target).ok_or(Malformed::Target)?;
        Action::Forward(Forward {
            head: request_head(method, &target, version, &fields, expectation),
            server: target.server,
            framing: framing.unwrap_or(Framing::Length(0)),
            expectation,
        })
    };
    let login = fields.values("proxy-authorization").next().and_then(basic);
    Ok(Some((Request { login, action }, length)))
}

fn request_head(
    method: &str,
    target: &Target<'_>,
    version: u8,
    fields: &Fields<'_>,
    expectation: Expectation,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    for part in [method, " ", &target.path] {
        head.extend_from_slice(part.as_bytes());
    }
    head.extend_from_slice(if version == 0 {
        b" HTTP/1.0\r\n"
    } else {
        b" HTTP/1.1\r\n"
    });
    // The target's authority replaces the client's Host (RFC 9112 section 3.2.2).
    field(&mut head, "Host", target.authority.as_bytes());
    for (name, value) in fields.end_to_end() {
        if !name.eq_ignore_ascii_case("host") {
            field(&mut head, name, value);
        }
    }
    if expectation.upgrade {
        fields.append_upgrade(&mut head);
    } else if !expectation.keep_alive {
        field(&mut head, "Connection", b"close");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Reads a server's response to a request of which `expectation` is known.
///
/// # Errors
/// [`Malformed`].
pub fn response(bytes: &[u8], expectation: Expectation) -> Decoded<Response> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes)? else {
        return Ok(None);
    };
    let (Some(status), Some(version)) = (head.code, head.version) else {
        return Err(Malformed::Syntax);
    };
    let fields = Fields(head.headers);
    let follows = match status {
        101 if expectation.upgrade => Follows::Upgrade,
        0..100 | 101 => return Err(Malformed::Status),
        102..200 | 100 => Follows::Response,
        204 | 304 => Follows::Body(Framing::Length(0)),
        _ if expectation.head_only => Follows::Body(Framing::Length(0)),
        _ => Follows::Body(fields.framing()?.unwrap_or(Framing::UntilClose)),
    };
    let delimited = follows != Follows::Body(Framing::UntilClose);
    let keep_alive = expectation.keep_alive && delimited;
    let mut out = Vec::with_capacity(length + 32);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in fields.end_to_end() {
        field(&mut out, name, value);
    }
    match follows {
        Follows::Upgrade => fields.append_upgrade(&mut out),
        Follows::Body(_) if !keep_alive => field(&mut out, "Connection", b"close"),
        Follows::Body(_) | Follows::Response => {}
    }
    out.extend_from_slice(b"\r\n");
    let response = Response {
        head: out,
        follows,
        keep_alive,
        reusable: version == 1 && delimited && !fields.lists("connection", "close"),
    };
    Ok(Some((response, length)))
}

/// A target in absolute form (RFC 9112 section 3.2.2).
struct Target<'a> {
    server: Endpoint,
    authority: &'a str,
    path: Box<str>,
}

impl<'a> Target<'a> {
    fn parse(method: &str, target: &'a str) -> Option<Self> {
        let (scheme, rest) = target.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let path = match path.chars().next() {
            Some('/') => path.into(),
            // RFC 9112 section 3.2.4: OPTIONS without a path is about the server.
            None if method == "OPTIONS" => "*".into(),
            None => "/".into(),
            Some('?') => format!("/{path}").into(),
            Some(_) => return None,
        };
        let authority = authority.strip_suffix(':').unwrap_or(authority);
        // Credentials in the address (RFC 9110 section 4.2.4) fail here: no host has an `@`.
        let server = Endpoint::parse(authority).or_else(|| {
            let bare_v6 = authority.contains(':') && !authority.ends_with(']');
            let host = Host::parse(authority).filter(|_| !bare_v6)?;
            Some(Endpoint { host, port: 80 })
        })?;
        Some(Self {
            server,
            authority,
            path,
        })
    }
}

/// The fields of a head.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn values(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.0.iter();
        fields
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Whether a field that is a list of words has this one.
    fn lists(&self, name: &'static str, word: &str) -> bool {
        let mut words = self
            .values(name)
            .flat_map(|value| value.split(|b| *b == b','));
        words.any(|each| each.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// How the fields say that the body ends, if they do (RFC 9112 section 6.3).
    fn framing(&self) -> Result<Option<Framing>, Malformed> {
        let mut codings = self.values("transfer-encoding");
        let mut lengths = self.values("content-length");
        let framing = match (codings.next(), lengths.next()) {
            (None, None) => return Ok(None),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (None, Some(digits)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let digits = str::from_utf8(digits).map_err(|_| Malformed::Framing)?;
                Framing::Length(digits.parse().map_err(|_| Malformed::Framing)?)
            }
            _ => return Err(Malformed::Framing),
        };
        if codings.next().is_some() || lengths.next().is_some() {
            return Err(Malformed::Framing);
        }
        Ok(Some(framing))
    }

    /// The fields that go on to the next hop (RFC 9110 section 7.6.1). The fields that delimit
    /// the message stay even when Connection names them: taking them off would move its end.
    fn end_to_end(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let fields = self.0.iter().map(|field| (field.name, field.value));
        fields.filter(|(name, _)| {
            let among = |names: &[&str]| names.iter().any(|each| name.eq_ignore_ascii_case(each));
            let prefix = name.get(..6).unwrap_or_default();
            let delimits = among(&["content-length", "transfer-encoding", "host"]);
            !among(&["connection", "keep-alive", "te", "upgrade"])
                && !prefix.eq_ignore_ascii_case("proxy-")
                && (delimits || !self.lists("connection", name))
        })
    }

    fn append_upgrade(&self, head: &mut Vec<u8>) {
        field(head, "Connection", b"Upgrade");
        for protocol in self.values("upgrade") {
            field(head, "Upgrade", protocol);
        }
    }
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// User name and password of Basic credentials (RFC 7617).
fn basic(value: &[u8]) -> Option<Login> {
    let (scheme, token) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let plain = BASE64.decode(token.trim_ascii()).ok()?;
    let colon = plain.iter().position(|b| *b == b':')?;
    let (username, password) = plain.split_at(colon);
    Some(Login {
        username: username.into(),
        password: password.get(1..)?.into(),
    })
}

#[cfg(test)]
mod tests;
