//! WebSocket (RFC 6455) and HTTPUpgrade as carriers, and the frames of both ends.
//!
//! Messages mean nothing here: binary frames are a byte stream. tungstenite's codec reads and
//! writes the frames' headers; the bytes stay in the buffers of `framed`, so an idle stream holds
//! none. Pings are answered; a Close ends the stream.
//!
//! With early data the request itself waits for the client's first bytes and takes them along.

use std::io::{self, Cursor};

use crate::encoding::BASE64URL_NOPAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::upgrade::{self, HEAD_BYTES_MAX, HeadError, Request};
use crate::outbound::carrier::Carrier;
use crate::outbound::framed::{Codec, Framed, Step, too_long};
use crate::outbound::options::WebSocketOptions;
use crate::outbound::random;
use crate::outbound::scratch::Scratch;

/// The longest frame header: two bytes, a length of eight, a mask of four.
const HEADER_MAX: usize = 14;

/// Payload of a frame that we send at most.
const FRAME_MAX: usize = 32 * 1024;

/// Payload of a control frame (RFC 6455 section 5.5).
const CONTROL_MAX: u64 = 125;

/// How one server is asked.
pub struct WebSocket {
    request: Request,
    early_max: usize,
    early_header: Box<str>,
    upgrade_only: bool,
}

impl WebSocket {
    /// Asks as `options` say, at `host` unless they name another.
    ///
    /// # Errors
    /// [`HeadError::Path`], [`HeadError::Field`].
    pub fn new(
        options: &WebSocketOptions,
        host: &str,
        port: u16,
        tls: bool,
    ) -> Result<Self, HeadError> {
        let bracketed = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let host = match (tls, port) {
            (true, 443) | (false, 80) => bracketed,
            _ => format!("{bracketed}:{port}"),
        };
        Ok(Self {
            request: Request::new(&options.path, &host, &options.headers)?,
            early_max: usize::try_from(options.early_data_max).unwrap_or(0),
            early_header: options.early_data_header.clone(),
            upgrade_only: options.upgrade_only,
        })
    }

    /// Upgrades `carrier`; with early data, when the first bytes are there.
    ///
    /// # Errors
    /// [`HeadError`] or what the carrier says.
    pub async fn connect(&self, mut carrier: Carrier) -> io::Result<Carrier> {
        if self.upgrade_only {
            let early = upgrade_now(&mut carrier, &self.request, None).await?;
            return Ok(carrier.preceded(early));
        }
        let mut key = [0; 16];
        random::fill(&mut key)?;
        let mut frames = Frames::new(Role::Client);
        let mut early = Vec::new();
        if self.early_max == 0 {
            early = upgrade_now(&mut carrier, &self.request, Some(&key)).await?;
        } else {
            frames.opening = Opening::Owed(Box::new(Early {
                // Written now but for the data, so that the stream need not outlive `self`.
                request: self
                    .request
                    .encode(Some(&key), Some((&self.early_header, MARK))),
                key,
                bytes_max: self.early_max,
            }));
        }
        let stream = Framed::new(carrier, Box::new(frames), &early)?;
        Ok(Carrier::Boxed(Box::new(stream)))
    }
}

/// Where early data goes in a request that was written before it: bytes that no head has.
const MARK: &str = "\u{1}";

/// Asks and reads the answer; what came behind it.
async fn upgrade_now(
    carrier: &mut Carrier,
    request: &Request,
    key: Option<&[u8; 16]>,
) -> io::Result<Vec<u8>> {
    carrier.write_all(&request.encode(key, None)).await?;
    carrier.flush().await?;
    let mut head = Vec::with_capacity(512);
    loop {
        if carrier.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = upgrade::answer(&head, key)? {
            return Ok(head.split_off(length));
        }
    }
}

/// Which end we are: clients mask what they send (RFC 6455 section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that asked.
    Client,
    /// The end that was asked.
    Server,
}

/// The frames of one connection.
pub struct Frames {
    role: Role,
    opening: Opening,
    /// What is left of the frame that is being read.
    left: u64,
    mask: Option<[u8; 4]>,
    /// Bytes of that frame that were unmasked.
    unmasked: usize,
    reply: Option<Box<[u8]>>,
}

enum Opening {
    /// The upgrade is done.
    Done,
    /// The request waits for early data.
    Owed(Box<Early>),
    /// The answer is awaited.
    Asked([u8; 16]),
}

struct Early {
    request: Vec<u8>,
    key: [u8; 16],
    bytes_max: usize,
}

impl Frames {
    /// Frames after an upgrade.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            opening: Opening::Done,
            left: 0,
            mask: None,
            unmasked: 0,
            reply: None,
        }
    }

    /// Appends one frame.
    fn frame(&self, opcode: OpCode, payload: &[u8], out: &mut Scratch) -> io::Result<()> {
        let mut mask = None;
        if self.role == Role::Client {
            let mut bytes = [0; 4];
            random::fill(&mut bytes)?;
            mask = Some(bytes);
        }
        let header = FrameHeader {
            opcode,
            mask,
            ..FrameHeader::default()
        };
        let mut bytes = Cursor::new([0; HEADER_MAX]);
        let length = payload.len() as u64;
        let written = header.format(length, &mut bytes);
        written.map_err(|_| io::ErrorKind::InvalidData)?;
        let used = usize::try_from(bytes.position()).unwrap_or(HEADER_MAX);
        let header = bytes.get_ref().get(..used).unwrap_or_default();
        out.push(header).map_err(too_long)?;
        let start = out.len();
        out.push(payload).map_err(too_long)?;
        if let Some(mask) = mask {
            apply(mask, 0, out.data_mut().get_mut(start..).unwrap_or_default());
        }
        Ok(())
    }

    /// Answers a control frame; whether it closes.
    fn control(&mut self, control: Control, payload: &[u8]) -> io::Result<bool> {
        match control {
            Control::Close => return Ok(true),
            Control::Ping => {
                let mut out = Scratch::take(payload.len() + HEADER_MAX);
                self.frame(OpCode::Control(Control::Pong), payload, &mut out)?;
                self.reply = Some(out.data().into());
            }
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(false)
    }

    /// Takes the next frame's header; `Some` tells what that came to.
    fn header(&mut self, incoming: &mut Scratch) -> io::Result<Option<Step>> {
        let mut cursor = Cursor::new(incoming.data());
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| bad_frame())?;
        let Some((header, length)) = parsed else {
            return Ok(Some(Step::NeedMore(HEADER_MAX)));
        };
        let used = usize::try_from(cursor.position()).unwrap_or(HEADER_MAX);
        // Without extensions the reserved bits are zero; a client masks and a server does not.
        let masked = header.mask.is_some() == (self.role == Role::Server);
        if header.rsv1 || header.rsv2 || header.rsv3 || !masked {
            return Err(bad_frame());
        }
        match header.opcode {
            OpCode::Data(Data::Reserved(_)) => return Err(bad_frame()),
            OpCode::Data(_) => {
                (self.left, self.mask, self.unmasked) = (length, header.mask, 0);
                incoming.consume(used);
            }
            OpCode::Control(control) => {
                if length > CONTROL_MAX || !header.is_final {
                    return Err(bad_frame());
                }
                let length = usize::try_from(length).unwrap_or(0);
                let Some(payload) = incoming.data_mut().get_mut(used..used + length) else {
                    return Ok(Some(Step::NeedMore(used + length)));
                };
                if let Some(mask) = header.mask {
                    apply(mask, 0, payload);
                }
                let payload = payload.to_vec();
                incoming.consume(used + length);
                if self.control(control, &payload)? {
                    return Ok(Some(Step::End));
                }
            }
        }
        Ok(None)
    }
}

fn bad_frame() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, BadFrame)
}

/// The peer's frame breaks RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame;

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a websocket frame")
    }
}

impl std::error::Error for BadFrame {}

/// Masks or unmasks `bytes`, the first of which is the frame's `at`th.
fn apply(mask: [u8; 4], at: usize, bytes: &mut [u8]) {
    let mut turned = mask;
    turned.rotate_left(at % 4);
    let word = u32::from_ne_bytes(turned);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for four in words {
        *four = (u32::from_ne_bytes(*four) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned) {
        *byte ^= mask;
    }
}

impl Codec for Frames {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        if let Opening::Owed(early) = &self.opening {
            let first = payload.get(..early.bytes_max).unwrap_or(payload);
            let data = BASE64URL_NOPAD.encode(first);
            for part in early.request.split_inclusive(|&b| b == 1) {
                match part.strip_suffix(MARK.as_bytes()) {
                    Some(part) => {
                        out.push(part).map_err(too_long)?;
                        out.push(data.as_bytes()).map_err(too_long)?;
                    }
                    None => out.push(part).map_err(too_long)?,
                }
            }
            let taken = first.len();
            self.opening = Opening::Asked(early.key);
            return Ok(taken);
        }
        let mut sent = 0;
        for part in payload.chunks(FRAME_MAX) {
            let room = out.spare().len().saturating_sub(HEADER_MAX);
            let part = part.get(..room).unwrap_or(part);
            if part.is_empty() {
                break;
            }
            self.frame(OpCode::Data(Data::Binary), part, out)?;
            sent += part.len();
        }
        Ok(sent)
    }

    fn room(&self, payload: usize) -> usize {
        let request = match &self.opening {
            Opening::Owed(early) => early.request.len() + early.bytes_max * 4 / 3 + 4,
            _ => 0,
        };
        payload + (payload / FRAME_MAX + 1) * HEADER_MAX + request
    }

    fn owes_request(&self) -> bool {
        matches!(self.opening, Opening::Owed(_))
    }

    fn must_listen(&self) -> bool {
        matches!(self.opening, Opening::Asked(_))
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        if let Opening::Asked(key) = &self.opening {
            let Some(length) = upgrade::answer(incoming.data(), Some(key))? else {
                return Ok(Step::NeedMore(HEAD_BYTES_MAX));
            };
            incoming.consume(length);
            self.opening = Opening::Done;
        }
        while self.left == 0 {
            if let Some(step) = self.header(incoming)? {
                return Ok(step);
            }
        }
        let here = usize::try_from(self.left).unwrap_or(usize::MAX);
        let here = here.min(incoming.len());
        if here == 0 {
            return Ok(Step::NeedMore(1));
        }
        if let Some(mask) = self.mask {
            let bytes = incoming.data_mut().get_mut(..here).unwrap_or_default();
            apply(mask, self.unmasked, bytes);
            self.unmasked = self.unmasked.wrapping_add(here) % 4;
        }
        self.left -= here as u64;
        Ok(Step::Opened(here, 0))
    }

    fn reply(&mut self) -> Option<Box<[u8]>> {
        self.reply.take()
    }

    /// A Close would end both directions (RFC 6455 section 5.5.1), and so would the socket's.
    fn half_closes(&self) -> bool {
        false
    }

    fn may_end(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    /// Frames from one end to the other in pieces of `step` bytes.
    fn carry(from: Role, to: Role, text: &[u8], step: usize) -> Vec<u8> {
        let mut sender = Frames::new(from);
        let mut receiver = Frames::new(to);
        let (mut out, mut incoming) = (Scratch::large(), Scratch::large());
        let sent = sender.encode(text, &mut out).unwrap();
        let mut read = Vec::new();
        for piece in out.data().chunks(step) {
            incoming.push(piece).unwrap();
            while let Step::Opened(n, 0) = receiver.decode(&mut incoming).unwrap() {
                read.extend_from_slice(&incoming.data()[..n]);
                incoming.consume(n);
            }
        }
        assert!(receiver.may_end() && incoming.is_empty());
        assert_eq!(sent, text.len());
        read
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_pass_in_both_directions(length in 0usize..60_000, step in 1usize..70_000) {
            let text: Vec<u8> = (0..251).cycle().take(length).collect();
            prop_assert!(carry(Role::Client, Role::Server, &text, step.max(length / 100)) == text);
            prop_assert!(carry(Role::Server, Role::Client, &text, step.max(length / 100)) == text);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for role in [Role::Client, Role::Server] {
                let mut incoming = Scratch::take(0);
                incoming.push(&bytes).unwrap();
                let mut frames = Frames::new(role);
                while let Ok(Step::Opened(n, _)) = frames.decode(&mut incoming) {
                    incoming.consume(n);
                }
            }
        }
    }

    #[test]
    fn pings_are_answered_and_a_close_ends() {
        let mut server = Frames::new(Role::Server);
        let mut incoming = Scratch::take(0);
        // Masked with zeros: a ping with "hi", then a close.
        let frames = b"\x89\x82\0\0\0\0hi\x88\x80\0\0\0\0";
        incoming.push(frames).unwrap();
        assert_eq!(server.decode(&mut incoming).unwrap(), Step::End);
        assert_eq!(server.reply().as_deref(), Some(&b"\x8a\x02hi"[..]));
    }

    #[test]
    fn frames_that_break_the_rules_end_the_stream() {
        for bytes in [
            &b"\x82\x01x"[..],          // not masked
            b"\xc2\x81\0\0\0\0x",       // a reserved bit
            b"\x83\x81\0\0\0\0x",       // a reserved opcode
            b"\x09\x80\0\0\0\0",        // a ping in parts
            b"\x89\xfe\0\x7e\0\0\0\0x", // a ping too long
        ] {
            let mut incoming = Scratch::take(0);
            incoming.push(bytes).unwrap();
            let decoded = Frames::new(Role::Server).decode(&mut incoming);
            assert!(decoded.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn early_data_goes_with_the_request_and_the_rest_after_the_answer() {
        let (near, mut far) = duplex(64 * 1024);
        let options = WebSocketOptions {
            path: "/p".into(),
            early_data_max: 4,
            early_data_header: "Sec-WebSocket-Protocol".into(),
            ..WebSocketOptions::default()
        };
        let websocket = WebSocket::new(&options, "h", 80, false).unwrap();
        let carrier = Carrier::Boxed(Box::new(near));
        let stream = websocket.connect(carrier).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let client = async {
            writer.write_all(b"firstrest").await.unwrap();
            writer.flush().await.unwrap();
        };
        let server = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            let text = String::from_utf8(head).unwrap();
            assert!(text.contains("Sec-WebSocket-Protocol: Zmlycw"), "{text}");
            let key = text
                .split("Key: ")
                .nth(1)
                .unwrap()
                .split("\r\n")
                .next()
                .unwrap();
            let accept = crate::websocket::accept(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            far.write_all(answer.as_bytes()).await.unwrap();
            far.write_all(b"\x82\x02ok").await.unwrap();
            far.read_u16().await.unwrap()
        };
        let mut answer = [0; 2];
        // A relay polls both directions in one task.
        let ((), read, frame) = tokio::join!(client, reader.read_exact(&mut answer), server);
        read.unwrap();
        assert_eq!((&answer, frame), (b"ok", 0x8285));
    }
}
