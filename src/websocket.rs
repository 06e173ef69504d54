//! WebSocket as the servers here need it (RFC 6455): the opening handshake, the headers of what a server
//! sends, and what a client says that only listens. Streams of bytes in both directions have
//! `outbound::transport::websocket`, MQTT has tungstenite.

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

/// Bytes of a frame from a client that only listens.
const SAID_BYTES_MAX: u64 = 4096;

/// Payload of a control frame (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Kinds of frames that a server sends (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    /// A whole text message.
    Text = 1,
    /// The farewell.
    Close = 8,
    /// The answer to a ping.
    Pong = 10,
}

/// The header of an unmasked frame that is a message (section 5.2).
#[must_use]
pub fn header(opcode: OpCode, payload: usize) -> Vec<u8> {
    let mut header = vec![0x80 | opcode as u8];
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(length @ ..=125), _) => header.push(length),
        (_, Ok(length)) => {
            header.push(126);
            header.extend(length.to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend((payload as u64).to_be_bytes());
        }
    }
    header
}

/// What a client says that has to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To be answered by a pong with the same payload.
    Ping(Vec<u8>),
    /// To be answered by the same.
    Close(Vec<u8>),
}

/// The frames of a client that only listens: its messages are passed over.
#[derive(Debug, Default)]
pub struct Incoming {
    /// What is left of a message.
    left: usize,
}

impl Incoming {
    /// Takes frames from `bytes`, up to one that wants an answer; what is left of them then is the beginning
    /// of a frame, shorter than 140 bytes. `None`: read more.
    ///
    /// # Errors
    /// [`Refused`]: not the frames of a client, or longer ones than it has to send.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Said>, Refused> {
        loop {
            let passed = self.left.min(bytes.len());
            bytes.drain(..passed);
            self.left -= passed;
            let Some(ClientHeader {
                opcode,
                mask,
                length,
                used,
            }) = client_header(bytes)?
            else {
                return Ok(None);
            };
            if opcode & 8 == 0 {
                bytes.drain(..used);
                self.left = length;
                continue;
            }
            let Some(payload) = bytes.get(used..used + length) else {
                return Ok(None);
            };
            let payload = payload.iter().zip(mask.iter().cycle());
            let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
            bytes.drain(..used + length);
            match opcode {
                8 => return Ok(Some(Said::Close(payload))),
                9 => return Ok(Some(Said::Ping(payload))),
                10 => {}
                _ => return Err(Refused),
            }
        }
    }
}

/// The header of a client's frame.
struct ClientHeader {
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the payload.
    length: usize,
    /// Bytes of the header itself.
    used: usize,
}

/// `None`: read more.
fn client_header(bytes: &[u8]) -> Result<Option<ClientHeader>, Refused> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let opcode = first & 0x0f;
    let whole = first & 0x80 != 0;
    // No extension was agreed on, and clients mask (sections 5.1, 5.2).
    if first & 0x70 != 0 || second & 0x80 == 0 || matches!(opcode, 3..=7) {
        return Err(Refused);
    }
    let (length, wide) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (u16::from_be_bytes(*length).into(), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 8),
            None => return Ok(None),
        },
        length => (length.into(), 0),
    };
    let control = opcode & 8 != 0;
    if length > SAID_BYTES_MAX || control && (length > CONTROL_BYTES_MAX || !whole) {
        return Err(Refused);
    }
    let mask = rest.get(wide..).and_then(|rest| rest.first_chunk::<4>());
    let length = usize::try_from(length).map_err(|_| Refused)?;
    Ok(mask.map(|mask| ClientHeader {
        opcode,
        mask: *mask,
        length,
        used: 2 + wide + 4,
    }))
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

    /// RFC 6455 section 5.7.
    #[test]
    fn headers_are_as_short_as_their_length_allows() {
        assert_eq!(header(OpCode::Text, 5), [0x81, 5]);
        assert_eq!(header(OpCode::Pong, 125), [0x8a, 125]);
        assert_eq!(header(OpCode::Text, 126), [0x81, 126, 0, 126]);
        assert_eq!(header(OpCode::Text, 256), [0x81, 126, 1, 0]);
        let long = [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(header(OpCode::Text, 65_536), long);
    }

    /// A frame with the mask of section 5.7.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = header(OpCode::Text, payload.len());
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }

    #[test]
    fn pings_and_farewells_are_heard_in_pieces_of_any_size() {
        let frames = [
            masked(0x89, b"Hello"),
            masked(0x01, &[7; 300]),
            masked(0x89, b""),
            masked(0x80, b"end"),
            masked(0x8a, b"pong"),
            masked(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        for step in 1..=frames.len() {
            let (mut incoming, mut bytes, mut said) = (Incoming::default(), Vec::new(), Vec::new());
            for piece in frames.chunks(step) {
                bytes.extend_from_slice(piece);
                while let Some(one) = incoming.next(&mut bytes).unwrap() {
                    said.push(one);
                }
                assert!(bytes.len() < 140);
            }
            let want = [
                Said::Ping(b"Hello".to_vec()),
                Said::Ping(Vec::new()),
                Said::Close(b"\x03\xe8bye".to_vec()),
            ];
            assert_eq!(said, want);
        }
    }

    #[test]
    fn frames_that_no_client_sends_are_refused() {
        let mut plain = masked(0x89, b"");
        plain[1] = 0;
        let long = masked(0x82, &[0; 4097]);
        for bad in [
            plain,
            long,
            masked(0x89, &[0; 126]),
            masked(0x09, b""),
            masked(0xc1, b""),
            masked(0x83, b""),
            masked(0x8b, b""),
        ] {
            let refused = Incoming::default().next(&mut bad.clone());
            assert_eq!(refused, Err(Refused), "{bad:?}");
        }
    }
}
