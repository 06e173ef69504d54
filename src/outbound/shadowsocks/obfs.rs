//! simple-obfs as a client: a stream that begins as HTTP or looks like TLS.
//!
//! It hides nothing from anybody who looks twice; servers ask for it all the same. The layouts are those
//! of simple-obfs 0.0.5.

use std::io;

use crate::encoding::BASE64;

use crate::outbound::framed::{Codec, Step, too_long};
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::platform::clock;
use crate::wire::Reader;

/// The longest head of an HTTP answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Data of one record that we send at most (RFC 8446 section 5.1).
const RECORD_MAX: usize = 16 * 1024;

/// Data that goes with the hello or the request at most. obfs-server reads those whole into 16 KB, and
/// takes it for the client's end when they fill that.
const FIRST_MAX: usize = 4 * 1024;

/// What a hello adds to its data, its server name excluded.
const HELLO_BYTES: usize = 5 + 212;

/// A record that ends the server's part of the handshake, before it data are none.
const CHANGE_CIPHER_SPEC: u8 = 0x14;

/// Which disguise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disguise {
    /// `http`.
    Http,
    /// `tls`.
    Tls,
}

/// One stream in disguise.
pub struct Obfs {
    disguise: Disguise,
    host: Box<str>,
    begun: bool,
    answered: bool,
    /// Data left of the record that is read.
    left: usize,
}

impl Obfs {
    /// A stream that seems to go to `host`.
    #[must_use]
    pub fn new(disguise: Disguise, host: &str) -> Self {
        Self {
            disguise,
            host: host.into(),
            begun: false,
            answered: false,
            left: 0,
        }
    }

    /// A request whose body is the first data.
    fn request(&self, payload: &[u8], out: &mut Scratch) -> io::Result<()> {
        let mut key = [0; 16];
        random::fill(&mut key)?;
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/7.88.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            BASE64.encode(&key),
            payload.len()
        );
        out.push(head.as_bytes()).map_err(too_long)?;
        out.push(payload).map_err(too_long)
    }

    /// A hello whose session ticket is the first data.
    fn hello(&self, payload: &[u8], out: &mut Scratch) -> io::Result<()> {
        let mut noise = [0; 60];
        random::fill(&mut noise)?;
        let (random, session) = noise.split_at(28);
        let host = self.host.as_bytes();
        let length = |extra: usize| {
            let whole = extra + payload.len() + host.len();
            u16::try_from(whole).map_err(|_| io::ErrorKind::InvalidInput)
        };
        let name = |extra: usize| u16::try_from(host.len() + extra).unwrap_or(0).to_be_bytes();
        let time = u32::try_from(clock::unix_time().as_secs()).unwrap_or(0);
        let ticket = u16::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        for part in [
            &[0x16, 3, 1][..],
            &length(212)?.to_be_bytes(),
            &[1, 0],
            &length(208)?.to_be_bytes(),
            &[3, 3],
            &time.to_be_bytes(),
            random,
            &[32],
            session,
            &[0, 56],
            &SUITES,
            &[1, 0],
            &length(79)?.to_be_bytes(),
            &[0, 0x23],
            &ticket.to_be_bytes(),
            payload,
            &[0, 0],
            &name(5),
            &name(3),
            &[0],
            &name(0),
            host,
            &EXTENSIONS,
        ] {
            out.push(part).map_err(too_long)?;
        }
        Ok(())
    }

    fn records(payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        let mut sent = 0;
        for part in payload.chunks(RECORD_MAX) {
            let room = out.spare().len().saturating_sub(5);
            let part = part.get(..room).unwrap_or(part);
            let length = u16::try_from(part.len()).unwrap_or(0);
            if length == 0 {
                break;
            }
            out.push(&[0x17, 3, 3]).map_err(too_long)?;
            out.push(&length.to_be_bytes()).map_err(too_long)?;
            out.push(part).map_err(too_long)?;
            sent += part.len();
        }
        Ok(sent)
    }

    fn decode_http(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        if !self.answered {
            let head = incoming.data();
            let end = head.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => incoming.consume(end + 4),
                None if head.len() < HEAD_BYTES_MAX => return Ok(Step::NeedMore(HEAD_BYTES_MAX)),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
            self.answered = true;
        }
        Ok(match incoming.len() {
            0 => Step::NeedMore(1),
            n => Step::Opened(n, 0),
        })
    }

    fn decode_tls(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        while self.left == 0 {
            let mut reader = Reader::new(incoming.data());
            let (Ok(kind), Ok(_version), Ok(length)) = (reader.u8(), reader.u16(), reader.u16())
            else {
                return Ok(Step::NeedMore(5));
            };
            let length = usize::from(length);
            if !self.answered {
                if incoming.len() < 5 + length {
                    return Ok(Step::NeedMore(5 + length));
                }
                incoming.consume(5 + length);
                self.answered = kind == CHANGE_CIPHER_SPEC;
                continue;
            }
            incoming.consume(5);
            self.left = length;
        }
        let here = self.left.min(incoming.len());
        if here == 0 {
            return Ok(Step::NeedMore(1));
        }
        self.left -= here;
        Ok(Step::Opened(here, 0))
    }
}

impl Codec for Obfs {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        if !self.begun {
            self.begun = true;
            let room = out.spare().len().saturating_sub(HELLO_BYTES + 512);
            let first = payload.get(..room.min(FIRST_MAX)).unwrap_or(payload);
            match self.disguise {
                Disguise::Http => self.request(first, out)?,
                Disguise::Tls => self.hello(first, out)?,
            }
            return Ok(first.len());
        }
        if self.disguise == Disguise::Tls {
            return Self::records(payload, out);
        }
        let room = out.spare().len();
        let part = payload.get(..room).unwrap_or(payload);
        out.push(part).map_err(too_long)?;
        Ok(part.len())
    }

    fn room(&self, payload: usize) -> usize {
        let first = if self.begun { 0 } else { HELLO_BYTES + 512 };
        payload + first + (payload / RECORD_MAX + 1) * 5
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        match self.disguise {
            Disguise::Http => self.decode_http(incoming),
            Disguise::Tls => self.decode_tls(incoming),
        }
    }

    fn may_end(&self) -> bool {
        self.left == 0
    }
}

/// What browsers of its time offered; servers count its bytes alone.
const SUITES: [u8; 56] = [
    0xc0, 0x2c, 0xc0, 0x30, 0x00, 0x9f, 0xcc, 0xa9, 0xcc, 0xa8, 0xcc, 0xaa, 0xc0, 0x2b, 0xc0, 0x2f,
    0x00, 0x9e, 0xc0, 0x24, 0xc0, 0x28, 0x00, 0x6b, 0xc0, 0x23, 0xc0, 0x27, 0x00, 0x67, 0xc0, 0x0a,
    0xc0, 0x14, 0x00, 0x39, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x33, 0x00, 0x9d, 0x00, 0x9c, 0x00, 0x3d,
    0x00, 0x3c, 0x00, 0x35, 0x00, 0x2f, 0x00, 0xff,
];

/// Point formats, curves, signature algorithms, encrypt-then-MAC, extended master secret.
const EXTENSIONS: [u8; 66] = [
    0x00, 0x0b, 0x00, 0x04, 0x03, 0x01, 0x00, 0x02, 0x00, 0x0a, 0x00, 0x0a, 0x00, 0x08, 0x00, 0x1d,
    0x00, 0x17, 0x00, 0x19, 0x00, 0x18, 0x00, 0x0d, 0x00, 0x20, 0x00, 0x1e, 0x06, 0x01, 0x06, 0x02,
    0x06, 0x03, 0x05, 0x01, 0x05, 0x02, 0x05, 0x03, 0x04, 0x01, 0x04, 0x02, 0x04, 0x03, 0x03, 0x01,
    0x03, 0x02, 0x03, 0x03, 0x02, 0x01, 0x02, 0x02, 0x02, 0x03, 0x00, 0x16, 0x00, 0x00, 0x00, 0x17,
    0x00, 0x00,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sniff::{Sniffed, tls};

    fn encoded(obfs: &mut Obfs, payload: &[u8]) -> Vec<u8> {
        let mut out = Scratch::take(obfs.room(payload.len()));
        assert_eq!(obfs.encode(payload, &mut out).unwrap(), payload.len());
        out.data().to_vec()
    }

    #[test]
    fn a_hello_is_one_and_names_the_host() {
        let mut obfs = Obfs::new(Disguise::Tls, "front.test");
        let hello = encoded(&mut obfs, b"first");
        assert_eq!(hello.len(), HELLO_BYTES + 5 + "front.test".len());
        let name = tls::server_name(&hello);
        assert_eq!(name, Sniffed::Host("front.test".into()));
        assert_eq!(encoded(&mut obfs, b"more"), b"\x17\x03\x03\0\x04more");
    }

    #[test]
    fn the_hello_leaves_room_in_the_servers_buffer_and_records_are_long() {
        for disguise in [Disguise::Http, Disguise::Tls] {
            let mut obfs = Obfs::new(disguise, "front.test");
            let payload = [1; 20_000];
            let mut out = Scratch::take(obfs.room(payload.len()));
            let first = obfs.encode(&payload, &mut out).unwrap();
            assert_eq!(first, FIRST_MAX);
            assert!(out.len() < 8 * 1024);
            let rest = encoded(&mut obfs, &payload[first..]);
            let records = if disguise == Disguise::Tls { 5 } else { 0 };
            assert_eq!(rest.len(), payload.len() - first + records);
        }
    }

    fn read(obfs: &mut Obfs, bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut data, mut incoming) = (Vec::new(), Scratch::take(0));
        for piece in bytes.chunks(step) {
            incoming.push(piece).unwrap();
            while let Step::Opened(n, 0) = obfs.decode(&mut incoming).unwrap() {
                data.extend_from_slice(&incoming.data()[..n]);
                incoming.consume(n);
            }
        }
        data
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let http = b"HTTP/1.1 101 Switching Protocols\r\nServer: nginx\r\n\r\ndata";
        let tls =
            b"\x16\x03\x03\0\x02xx\x14\x03\x03\0\x01\x01\x16\x03\x03\0\x02da\x17\x03\x03\0\x02ta";
        for step in [1, 3, 100] {
            assert_eq!(
                read(&mut Obfs::new(Disguise::Http, "h"), http, step),
                b"data"
            );
            assert_eq!(read(&mut Obfs::new(Disguise::Tls, "h"), tls, step), b"data");
        }
    }

    proptest! {
        #[test]
        fn random_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for disguise in [Disguise::Http, Disguise::Tls] {
                let mut incoming = Scratch::take(0);
                incoming.push(&bytes).unwrap();
                let mut obfs = Obfs::new(disguise, "h");
                while let Ok(Step::Opened(n, _)) = obfs.decode(&mut incoming) {
                    incoming.consume(n);
                }
            }
        }
    }
}
