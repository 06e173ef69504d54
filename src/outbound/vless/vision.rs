//! The flow `xtls-rprx-vision`, to and from bytes (proxy-protocols.md 5.2; Xray's `proxy/proxy.go`).
//!
//! Pure. While an inner TLS connection shakes hands its records are sent in blocks with padding, which
//! hides their lengths; once it carries application data the outer layer is of no use any more, and a
//! block says that bytes follow without it. [`Inner`] learns what the inner connection is from both
//! directions, a [`Padder`] sends one of them, an [`Unpadder`] receives the other.

use std::fmt;
use std::io;

use crate::outbound::scratch::{Full, Scratch};

/// The flow's name in a request.
pub const FLOW: &str = "xtls-rprx-vision";

/// Bytes of a block at most, its head and the id before it included: what Xray's buffers hold.
const BLOCK_BYTES_MAX: usize = 8192;

/// The id, a command and two lengths.
const HEAD_BYTES: usize = 16 + 5;

/// Content of a block at most.
pub const CONTENT_BYTES_MAX: usize = BLOCK_BYTES_MAX - HEAD_BYTES;

/// Packets of both directions within which the inner connection must show what it is.
const PACKETS_MAX: u8 = 8;

/// Content shorter than this is made about as long as the largest handshake messages, plus chance.
const LONG: usize = 900;
const LONG_CHANCE: u16 = 500;
const SHORT_CHANCE: u16 = 256;

const CONTINUE: u8 = 0;
const END: u8 = 1;
const DIRECT: u8 = 2;

/// TLS record and handshake types (RFC 8446 sections 5.1 and 4).
const HANDSHAKE: u8 = 0x16;
const APPLICATION_DATA: u8 = 0x17;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// `supported_versions` of a ServerHello that chooses TLS 1.3.
const CHOOSES_TLS13: [u8; 6] = [0x00, 0x2b, 0x00, 0x02, 0x03, 0x04];

/// Suites of TLS 1.3 whose records look alike; AES_128_CCM_8 has shorter tags.
const SUITES: std::ops::RangeInclusive<u16> = 0x1301..=0x1304;

/// Why received bytes are no blocks. Ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first block does not bear the user's id.
    Id,
    /// No such command.
    Command(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("vision: padding without the user's id"),
            Self::Command(command) => write!(f, "vision: unknown command {command}"),
        }
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// How bytes of one direction travel at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In blocks.
    Padded,
    /// As they are, in the outer layer.
    Plain,
    /// As they are, without it.
    Direct,
}

/// What has been seen of the inner connection, in either direction.
#[derive(Debug)]
pub struct Inner {
    /// How many packets may still be looked at.
    packets: u8,
    tls: bool,
    /// A ServerHello was seen, whose remaining bytes are those.
    answered: bool,
    hello_left: usize,
    suite: u16,
    tls13: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            packets: PACKETS_MAX,
            tls: false,
            answered: false,
            hello_left: 0,
            suite: 0,
            tls13: false,
        }
    }
}

impl Inner {
    /// Looks at `bytes` that pass in one of the directions, as they were read.
    pub fn look(&mut self, bytes: &[u8]) {
        if self.packets == 0 {
            return;
        }
        self.packets -= 1;
        match bytes {
            [HANDSHAKE, 3, 3, a, b, SERVER_HELLO, ..] => {
                (self.tls, self.answered) = (true, true);
                self.hello_left = usize::from(u16::from_be_bytes([*a, *b])) + 5;
                // Record head 5, message head 4, version 2, random 32; then the session id.
                let id = bytes.get(43).map_or(0, |&length| usize::from(length));
                if let Some([a, b]) = bytes.get(44 + id..46 + id) {
                    self.suite = u16::from_be_bytes([*a, *b]);
                }
            }
            [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, ..] => self.tls = true,
            _ => {}
        }
        if self.hello_left == 0 {
            return;
        }
        let hello = bytes.get(..self.hello_left).unwrap_or(bytes);
        self.hello_left -= hello.len();
        if hello
            .windows(CHOOSES_TLS13.len())
            .any(|w| w == CHOOSES_TLS13)
        {
            self.tls13 = SUITES.contains(&self.suite);
            self.packets = 0;
        } else if self.hello_left == 0 {
            self.packets = 0;
        }
    }

    /// Whether it is still open whether the outer layer may be left.
    fn is_open(&self) -> bool {
        self.packets > 0
    }
}

/// Where the records of a direction end.
#[derive(Debug, Default)]
struct Records {
    head: [u8; 5],
    have: usize,
    left: usize,
    /// Application data has begun.
    application: bool,
    /// These are no records.
    broken: bool,
}

impl Records {
    /// Passes over `bytes`; where the last record that ends in them does, if application data had begun
    /// with them or before.
    fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        let begins = self.have == 0 && self.left == 0;
        let armed = self.application || begins && bytes.first() == Some(&APPLICATION_DATA);
        let mut end = None;
        let mut position = 0;
        while let (Some(&byte), false) = (bytes.get(position), self.broken) {
            if self.left > 0 {
                let n = self.left.min(bytes.len() - position);
                self.left -= n;
                position += n;
            } else {
                if let Some(place) = self.head.get_mut(self.have) {
                    *place = byte;
                }
                self.have += 1;
                position += 1;
                if self.have == self.head.len() {
                    let [kind, major, _, a, b] = self.head;
                    self.have = 0;
                    self.left = usize::from(u16::from_be_bytes([a, b]));
                    self.application |= kind == APPLICATION_DATA;
                    self.broken = major != 3 || !(0x14..=0x17).contains(&kind) || self.left == 0;
                }
                continue;
            }
            if self.left == 0 && armed {
                end = Some(position);
            }
        }
        end
    }
}

/// Sends one direction.
#[derive(Debug)]
pub struct Padder {
    /// Before the first block.
    id: Option<[u8; 16]>,
    records: Records,
    way: Way,
}

impl Padder {
    /// For a request with this id, as it was sent.
    #[must_use]
    pub fn new(id: [u8; 16]) -> Self {
        Self {
            id: Some(id),
            records: Records::default(),
            way: Way::Padded,
        }
    }

    /// How the next bytes travel.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// Appends a block with the start of `bytes` to `out`; how much of it that is. Without bytes, an
    /// empty block that hides the length of what stands before it. `chance` gives a number below its
    /// argument.
    ///
    /// # Errors
    /// [`Full`], or what `chance` says.
    pub fn pad(
        &mut self,
        inner: &Inner,
        bytes: &[u8],
        chance: &dyn Fn(u16) -> io::Result<u16>,
        out: &mut Scratch,
    ) -> io::Result<usize> {
        let bytes = bytes.get(..CONTENT_BYTES_MAX).unwrap_or(bytes);
        let mut content = bytes;
        let mut command = CONTINUE;
        let mut long = inner.tls || bytes.is_empty();
        if !bytes.is_empty() {
            let end = self.records.pass(bytes);
            let settled = inner.tls && !inner.is_open();
            if let (Some(end), true) = (end, settled) {
                content = bytes.get(..end).unwrap_or(bytes);
                command = if inner.tls13 { DIRECT } else { END };
                long = true;
            } else if !inner.answered && inner.packets <= 1 || settled && self.records.broken {
                command = END;
            }
        }
        let padding = match content.len() {
            short if short < LONG && long => usize::from(chance(LONG_CHANCE)?) + LONG - short,
            _ => usize::from(chance(SHORT_CHANCE)?),
        };
        let padding = padding.min(CONTENT_BYTES_MAX - content.len());
        let full = |full: Full| io::Error::new(io::ErrorKind::InvalidData, full);
        if let Some(id) = self.id.take() {
            out.push(&id).map_err(full)?;
        }
        out.push(&[command]).map_err(full)?;
        for length in [content.len(), padding] {
            // Both fit: a block is no longer than BLOCK_BYTES_MAX.
            let length = u16::try_from(length).unwrap_or_default();
            out.push(&length.to_be_bytes()).map_err(full)?;
        }
        out.push(content).map_err(full)?;
        let zeros = [0; LONG + LONG_CHANCE as usize];
        out.push(zeros.get(..padding).unwrap_or(&zeros))
            .map_err(full)?;
        self.way = match command {
            CONTINUE => Way::Padded,
            END => Way::Plain,
            _ => Way::Direct,
        };
        Ok(content.len())
    }
}

/// Receives one direction.
#[derive(Debug)]
pub struct Unpadder {
    id: [u8; 16],
    /// How much of the id, and then of the head, has come.
    have: usize,
    head: [u8; 5],
    content: u16,
    padding: u16,
    /// How bytes travel behind the present block.
    next: Way,
    way: Way,
}

impl Unpadder {
    /// For a request with this id, as it was sent.
    #[must_use]
    pub fn new(id: [u8; 16]) -> Self {
        Self {
            id,
            have: 0,
            head: [0; 5],
            content: 0,
            padding: 0,
            next: Way::Padded,
            way: Way::Padded,
        }
    }

    /// How the next bytes travel.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// Takes everything but content out of `bytes`, in place; how much remains at their start.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<usize, Malformed> {
        let (mut from, mut kept) = (0, 0);
        while from < bytes.len() {
            let left = bytes.len() - from;
            if self.way != Way::Padded {
                bytes.copy_within(from.., kept);
                return Ok(kept + left);
            }
            if self.content > 0 {
                let n = left.min(usize::from(self.content));
                bytes.copy_within(from..from + n, kept);
                (from, kept) = (from + n, kept + n);
                self.content -= u16::try_from(n).unwrap_or(self.content);
            } else if self.padding > 0 {
                let n = left.min(usize::from(self.padding));
                from += n;
                self.padding -= u16::try_from(n).unwrap_or(self.padding);
            } else {
                let byte = bytes.get(from).copied().unwrap_or_default();
                from += 1;
                self.take(byte)?;
                if self.have < HEAD_BYTES {
                    continue;
                }
                // Only the first block bears the id.
                self.have = self.id.len();
            }
            if self.content == 0 && self.padding == 0 {
                self.way = self.next;
            }
        }
        Ok(kept)
    }

    /// One byte of the id or of a head.
    fn take(&mut self, byte: u8) -> Result<(), Malformed> {
        if let Some(&want) = self.id.get(self.have) {
            if byte != want {
                return Err(Malformed::Id);
            }
        } else if let Some(place) = self.head.get_mut(self.have - self.id.len()) {
            *place = byte;
        }
        self.have += 1;
        if self.have == HEAD_BYTES {
            let [command, a, b, c, d] = self.head;
            self.next = match command {
                CONTINUE => Way::Padded,
                END => Way::Plain,
                DIRECT => Way::Direct,
                other => return Err(Malformed::Command(other)),
            };
            self.content = u16::from_be_bytes([a, b]);
            self.padding = u16::from_be_bytes([c, d]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; 16] = *b"0123456789abcdef";

    fn record(kind: u8, length: usize) -> Vec<u8> {
        let [a, b] = u16::try_from(length).unwrap().to_be_bytes();
        let mut record = vec![kind, 3, 3, a, b];
        record.resize(5 + length, 7);
        record
    }

    fn client_hello() -> Vec<u8> {
        let mut hello = record(HANDSHAKE, 200);
        hello[5] = CLIENT_HELLO;
        hello
    }

    fn server_hello(suite: u16, version: &[u8]) -> Vec<u8> {
        let mut hello = record(HANDSHAKE, 118);
        hello[5] = SERVER_HELLO;
        hello[43] = 32;
        hello[76..78].copy_from_slice(&suite.to_be_bytes());
        hello[90..90 + version.len()].copy_from_slice(version);
        hello
    }

    fn block(padder: &mut Padder, inner: &mut Inner, bytes: &[u8]) -> (usize, Vec<u8>) {
        let mut out = Scratch::take(0);
        inner.look(bytes);
        let taken = padder.pad(inner, bytes, &|_| Ok(3), &mut out).unwrap();
        (taken, out.data().to_vec())
    }

    #[test]
    fn a_block_is_what_xray_makes_of_it() {
        let (mut padder, mut inner) = (Padder::new(ID), Inner::default());
        let (taken, first) = block(&mut padder, &mut inner, b"hi");
        assert_eq!(taken, 2);
        // Continue, two bytes of content, three of padding, all of them zero.
        assert_eq!(first, [&ID[..], b"\0\0\x02\0\x03hi\0\0\0"].concat());
        let (_, empty) = block(&mut padder, &mut inner, b"");
        assert_eq!(empty[..5], [0, 0, 0, 3, 135]);
        assert_eq!(empty.len(), 5 + 903);
    }

    #[test]
    fn an_inner_tls13_goes_direct_at_the_end_of_a_record() {
        let (mut up, mut down) = (Padder::new(ID), Padder::new(ID));
        let mut inner = Inner::default();
        let hello = client_hello();
        let (taken, bytes) = block(&mut up, &mut inner, &hello);
        assert_eq!((taken, bytes[16]), (hello.len(), CONTINUE));
        assert_eq!(bytes.len(), 21 + 903);
        // The server's flight shows the lengths of its certificates: all of it is padded.
        let answer = server_hello(0x1301, &CHOOSES_TLS13);
        let flight = [answer, record(0x14, 1), record(0x17, 900)].concat();
        assert_eq!(block(&mut down, &mut inner, &flight).1[16], CONTINUE);
        // The client finishes, and its first request is cut by the reader.
        let finish = [record(0x14, 1), record(0x17, 53)].concat();
        let (taken, _) = block(&mut up, &mut inner, &finish);
        assert_eq!((taken, up.way()), (finish.len(), Way::Padded));
        let request = [record(0x17, 100), record(0x17, 300)].concat();
        let (taken, bytes) = block(&mut up, &mut inner, &request[..200]);
        assert_eq!((taken, bytes[0], up.way()), (105, DIRECT, Way::Direct));
        // A record that was cut open goes on padded up to its end.
        let body = record(0x17, 16_000);
        let (taken, bytes) = block(&mut down, &mut inner, &body);
        assert_eq!((taken, bytes[0]), (CONTENT_BYTES_MAX, CONTINUE));
        let (taken, bytes) = block(&mut down, &mut inner, &body[taken..]);
        assert_eq!((taken, bytes[0]), (16_005 - CONTENT_BYTES_MAX, DIRECT));
    }

    #[test]
    fn other_inner_connections_stay_in_the_outer_layer() {
        for (suite, version) in [(0xc02f, &[][..]), (0x1305, &CHOOSES_TLS13[..])] {
            let (mut padder, mut inner) = (Padder::new(ID), Inner::default());
            inner.look(&client_hello());
            block(&mut padder, &mut inner, &server_hello(suite, version));
            let (_, bytes) = block(&mut padder, &mut inner, &record(0x17, 9));
            assert_eq!((bytes[0], padder.way()), (END, Way::Plain));
        }
        let (mut padder, mut inner) = (Padder::new(ID), Inner::default());
        for _ in 0..6 {
            assert_eq!(block(&mut padder, &mut inner, b"no tls").0, 6);
            assert_eq!(padder.way(), Way::Padded);
        }
        block(&mut padder, &mut inner, b"no tls");
        assert_eq!(padder.way(), Way::Plain);
    }

    #[test]
    fn blocks_without_id_or_with_another_command_are_refused() {
        let open = |bytes: &[u8]| Unpadder::new(ID).open(&mut bytes.to_vec());
        assert_eq!(open(b"GET / HTTP/1.1\r\n\r\n"), Err(Malformed::Id));
        let odd = [&ID[..], b"\x03\0\0\0\0"].concat();
        assert_eq!(open(&odd), Err(Malformed::Command(3)));
    }

    proptest! {
        #[test]
        fn what_was_padded_is_unpadded_however_it_is_cut(
            pieces in proptest::collection::vec(0..9000_usize, 0..9),
            tls in any::<bool>(),
            cut in 1..3000_usize,
        ) {
            let (mut padder, mut inner) = (Padder::new(ID), Inner::default());
            if tls {
                inner.look(&client_hello());
                inner.look(&server_hello(0x1303, &CHOOSES_TLS13));
            }
            let (mut sent, mut wire) = (Vec::new(), Vec::new());
            for length in pieces {
                let piece = record(0x17, length + 1);
                sent.extend_from_slice(&piece);
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    if padder.way() != Way::Padded {
                        wire.extend_from_slice(rest);
                        break;
                    }
                    let (taken, bytes) = block(&mut padder, &mut inner, rest);
                    assert!(bytes.len() <= BLOCK_BYTES_MAX);
                    wire.extend_from_slice(&bytes);
                    rest = &rest[taken..];
                }
            }
            let (mut unpadder, mut got) = (Unpadder::new(ID), Vec::new());
            for piece in wire.chunks(cut) {
                let mut piece = piece.to_vec();
                let n = unpadder.open(&mut piece).unwrap();
                got.extend_from_slice(&piece[..n]);
            }
            prop_assert_eq!(got, sent);
            prop_assert_eq!(unpadder.way(), padder.way());
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut inner = Inner::default();
            inner.look(&bytes);
            let _refused = Unpadder::new(ID).open(&mut bytes);
            let mut bytes = [&ID[..], &bytes].concat();
            let _refused = Unpadder::new(ID).open(&mut bytes);
            let _end = Records::default().pass(&bytes);
        }
    }
}
