//! Requests at a forward proxy: read from the client, rewritten for the server (RFC 9112
//! section 3, RFC 9110 section 7.6).
//!
//! Pure. A request comes in absolute form or as CONNECT and leaves in origin form, with the Host
//! of its target and without what belongs to the client's connection: Connection and the fields
//! it names, Keep-Alive, TE, every Proxy-* field, and Upgrade unless the client asks for it.

use crate::encoding::BASE64;

use super::body::Framing;
use super::fields::{Decoded, FIELDS_MAX, Fields, Malformed, field};
use crate::metadata::{Endpoint, Host};

/// The longest request head.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

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

/// Reads a client's request.
///
/// # Errors
/// [`Malformed`].
pub fn decode(bytes: &[u8]) -> Decoded<Request> {
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
        match fields.values("host").count() {
            1 => {}
            0 if version == 0 => {}
            _ => return Err(Malformed::Host),
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
            head: rewrite(method, &target, version, &fields, expectation),
            server: target.server,
            framing: framing.unwrap_or(Framing::Length(0)),
            expectation,
        })
    };
    let login = fields.values("proxy-authorization").next().and_then(basic);
    Ok(Some((Request { login, action }, length)))
}

fn rewrite(
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
