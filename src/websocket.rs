//! The opening handshake of WebSocket (RFC 6455 section 4), as the servers here need it. Frames are
//! tungstenite's.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::encoding::BASE64;

/// What a server appends to the key before it hashes it (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's request may not be longer, bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Fields of a request that are looked at.
const FIELDS_MAX: usize = 64;

/// The value of `Sec-WebSocket-Accept` that answers `key`.
#[must_use]
pub fn accept(key: &[u8]) -> String {
    let bytes = [key, GUID].concat();
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes).as_ref())
}

/// The answer that turns a connection into a WebSocket (section 4.2.2).
#[must_use]
pub fn switch(key: &[u8], protocol: Option<&str>) -> String {
    let protocol = protocol.map_or(String::new(), |name| {
        format!("Sec-WebSocket-Protocol: {name}\r\n")
    });
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
        accept(key)
    )
}

/// The request is not one that opens a WebSocket of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// A request to open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Bytes of it; what follows are frames.
    pub length: usize,
    /// What to send.
    pub answer: String,
}

/// Reads a request for one of `protocols`, of which the first that the client names is chosen;
/// `None`: read more.
///
/// # Errors
/// [`Refused`].
pub fn read(bytes: &[u8], protocols: &[&'static str]) -> Result<Option<Opening>, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= REQUEST_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Ok(None),
        Ok(_) | Err(_) => return Err(Refused),
    };
    // Every value of the fields of this name, each a list.
    let listed = |name: &'static str| {
        let fields = request.headers.iter();
        let fields = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        let values = fields.filter_map(|field| str::from_utf8(field.value).ok());
        values.flat_map(|value| value.split(',').map(str::trim))
    };
    let opens = request.method == Some("GET")
        && request.version == Some(1)
        && listed("upgrade").any(|value| value.eq_ignore_ascii_case("websocket"))
        && listed("connection").any(|value| value.eq_ignore_ascii_case("upgrade"))
        && listed("sec-websocket-version").any(|value| value == "13");
    let key = listed("sec-websocket-key").next().filter(|_| opens);
    let chosen = listed("sec-websocket-protocol")
        .find_map(|name| protocols.iter().copied().find(|known| *known == name));
    match (key, chosen) {
        (Some(key), Some(protocol)) => Ok(Some(Opening {
            length,
            answer: switch(key.as_bytes(), Some(protocol)),
        })),
        _ => Err(Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

    fn asked(request: impl AsRef<[u8]>) -> Result<Option<Opening>, Refused> {
        read(request.as_ref(), &["mqtt", "mqttv3.1"])
    }

    /// The key and its answer are those of RFC 6455 section 1.3.
    #[test]
    fn a_good_request_is_answered_with_its_protocol() {
        let opening = asked(format!("{GOOD}frames")).unwrap().unwrap();
        assert_eq!(opening.length, GOOD.len());
        assert_eq!(
            opening.answer,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
    }

    #[test]
    fn part_of_a_request_waits_and_an_endless_one_is_refused() {
        for length in 0..GOOD.len() {
            assert_eq!(asked(&GOOD.as_bytes()[..length]), Ok(None));
        }
        let endless = format!("GET /{} HTTP/1.1\r\n", "a".repeat(REQUEST_BYTES_MAX));
        assert_eq!(asked(endless), Err(Refused));
    }

    #[test]
    fn anything_else_is_refused() {
        for (from, to) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("WebSocket", "h2c"),
            ("keep-alive, Upgrade", "keep-alive"),
            ("Version: 13", "Version: 8"),
            ("Sec-WebSocket-Key", "X-Key"),
            ("chat, mqtt", "chat"),
            ("Host: h", "Host h"),
        ] {
            assert!(GOOD.contains(from));
            assert_eq!(asked(GOOD.replacen(from, to, 1)), Err(Refused), "{to}");
        }
    }
}
