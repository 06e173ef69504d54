//! DNS messages (RFC 1035 section 4, EDNS0 of RFC 6891): names, questions and queries.
//!
//! [`record`] walks what servers answer, [`build`] writes our own answers and queries, [`svcb`]
//! takes addresses out of service bindings, [`text`]
//! gives records their presentation form for the APIs. Pure functions over bytes: no sockets, no
//! clock, no log.
//!
//! Callers rely on two promises, both fuzzed: no input makes anything here panic, and nothing
//! allocates more than a small multiple of the input's length. Compression pointers may only go
//! backwards and only [`HOPS_MAX`] times.

pub mod build;
pub mod record;
pub mod svcb;
pub mod text;

use std::fmt;

use crate::wire::{Reader, Truncated};

/// Length of the header (§4.1.1).
pub const HEADER_BYTES: usize = 12;
/// Longest name on the wire, length bytes and final zero included (§2.3.4).
pub const NAME_BYTES_MAX: usize = 255;
/// Compression pointers followed in one name. Real names need two or three.
pub const HOPS_MAX: usize = 32;
/// Longest UDP payload that we announce and send: fits every path unfragmented (DNS flag day 2020).
pub const PAYLOAD_BYTES: u16 = 1232;
/// Shortest payload that every client takes (§4.2.1).
pub const PAYLOAD_BYTES_MIN: u16 = 512;

/// Record types that headgate itself treats apart; [`text::TYPES`] knows more names.
pub mod types {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Canonical name.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address (RFC 3596).
    pub const AAAA: u16 = 28;
    /// EDNS0's pseudo record.
    pub const OPT: u16 = 41;
    /// Service binding (RFC 9460).
    pub const SVCB: u16 = 64;
    /// Service binding for HTTPS.
    pub const HTTPS: u16 = 65;
    /// Incremental zone transfer: this and all above up to [`ANY`] are no types of data.
    pub const IXFR: u16 = 251;
    /// Every type.
    pub const ANY: u16 = 255;
}

/// The Internet class.
pub const CLASS_IN: u16 = 1;

/// Response codes.
pub mod rcode {
    /// No error.
    pub const NOERROR: u8 = 0;
    /// The query is malformed.
    pub const FORMERR: u8 = 1;
    /// The server cannot answer now.
    pub const SERVFAIL: u8 = 2;
    /// The name does not exist.
    pub const NXDOMAIN: u8 = 3;
    /// The kind of query is not supported.
    pub const NOTIMP: u8 = 4;
    /// The server will not answer this.
    pub const REFUSED: u8 = 5;
}

/// Bits of the header's second 16 bits.
pub(crate) mod flags {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC_DATA: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Why bytes are no DNS message. The sender is at fault; the message is dropped or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends inside a field.
    Truncated,
    /// A label of a reserved type.
    Label,
    /// A compression pointer that goes forward, into the header, or once too often.
    Pointer,
    /// A name above 255 bytes.
    NameTooLong,
    /// Not exactly one question.
    Question,
    /// More records than [`record::RECORDS_MAX`].
    TooManyRecords,
    /// A second OPT record, or one outside the additional section.
    Opt,
}

impl From<Truncated> for Malformed {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message ends inside a field",
            Self::Label => "reserved label type",
            Self::Pointer => "bad compression pointer",
            Self::NameTooLong => "name above 255 bytes",
            Self::Question => "not exactly one question",
            Self::TooManyRecords => "too many records",
            Self::Opt => "misplaced OPT record",
        })
    }
}

impl std::error::Error for Malformed {}

/// A name in wire form without compression, lower case. On the stack: a query allocates nothing.
#[derive(Clone)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: u8,
}

/// Room for the text of a name.
pub type TextBuffer = [u8; NAME_BYTES_MAX];

impl Name {
    const EMPTY: Self = Self {
        bytes: [0; NAME_BYTES_MAX],
        length: 0,
    };

    /// Reads the name at `at`: the name and where the next field begins.
    ///
    /// # Errors
    /// [`Malformed`] with the reason.
    pub fn read(message: &[u8], at: usize) -> Result<(Self, usize), Malformed> {
        let mut name = Self::EMPTY;
        let mut at = at;
        let mut run_start = at;
        let mut next = None;
        let mut hops = 0;
        loop {
            let length = *message.get(at).ok_or(Malformed::Truncated)?;
            match length >> 6 {
                0 => {
                    let end = at + 1 + usize::from(length);
                    name.push(message.get(at..end).ok_or(Malformed::Truncated)?)?;
                    at = end;
                    if length == 0 {
                        return Ok((name, next.unwrap_or(at)));
                    }
                }
                3 => {
                    let low = *message.get(at + 1).ok_or(Malformed::Truncated)?;
                    let target = (usize::from(length & 0x3f) << 8) | usize::from(low);
                    if target < HEADER_BYTES || target >= run_start || hops == HOPS_MAX {
                        return Err(Malformed::Pointer);
                    }
                    next.get_or_insert(at + 2);
                    hops += 1;
                    run_start = target;
                    at = target;
                }
                _ => return Err(Malformed::Label),
            }
        }
    }

    /// Takes a name as people write it, with or without the final dot. `None`: empty or overlong
    /// labels, or more than 255 bytes. `.` alone is the root.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut name = Self::EMPTY;
        let text = text.strip_suffix('.').unwrap_or(text);
        if !text.is_empty() {
            for label in text.split('.') {
                let length = u8::try_from(label.len())
                    .ok()
                    .filter(|l| (1..64).contains(l))?;
                name.push(&[length]).ok()?;
                name.push(label.as_bytes()).ok()?;
            }
        }
        name.push(&[0]).ok()?;
        Some(name)
    }

    /// The wire form, final zero included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// The name as tables know it: lower case, without the final dot. `None` for the root and for
    /// names with bytes that no host name has; those can only be asked upstream.
    pub fn text<'b>(&self, buffer: &'b mut TextBuffer) -> Option<&'b str> {
        let wire = self.wire();
        let mut used = 0;
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            if length == 0 {
                break;
            }
            if used > 0 {
                *buffer.get_mut(used)? = b'.';
                used += 1;
            }
            let label = wire.get(at + 1..at + 1 + length)?;
            if !label
                .iter()
                .all(|&b| b.is_ascii_graphic() && b != b'.' && b != b'\\')
            {
                return None;
            }
            buffer.get_mut(used..used + length)?.copy_from_slice(label);
            used += length;
            at += 1 + length;
        }
        let text = std::str::from_utf8(buffer.get(..used)?).ok()?;
        (!text.is_empty()).then_some(text)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let start = usize::from(self.length);
        let end = start + bytes.len();
        let room = self
            .bytes
            .get_mut(start..end)
            .ok_or(Malformed::NameTooLong)?;
        room.copy_from_slice(bytes);
        // A length byte is at most 63 and so never an upper-case letter.
        room.make_ascii_lowercase();
        self.length = u8::try_from(end).map_err(|_| Malformed::NameTooLong)?;
        Ok(())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Presentation form with the final dot, odd bytes escaped (§5.1).
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.wire();
        if rest.len() <= 1 {
            return f.write_str(".");
        }
        while let Some((&length, tail)) = rest.split_first() {
            let Some((label, after)) = tail.split_at_checked(usize::from(length)) else {
                break;
            };
            if length == 0 {
                break;
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(byte))?;
                    }
                    b if b.is_ascii_graphic() => write!(f, "{}", char::from(b))?,
                    b => write!(f, "\\{b:03}")?,
                }
            }
            f.write_str(".")?;
            rest = after;
        }
        Ok(())
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of which name.
    pub name: Name,
    /// Which record type.
    pub qtype: u16,
    /// Which class, nearly always [`CLASS_IN`].
    pub qclass: u16,
}

impl Question {
    /// Asks for records of `qtype` of a name written as text. `None` as [`Name::from_text`].
    #[must_use]
    pub fn new(name: &str, qtype: u16) -> Option<Self> {
        Some(Self {
            name: Name::from_text(name)?,
            qtype,
            qclass: CLASS_IN,
        })
    }

    /// Whether it asks for addresses.
    #[must_use]
    pub fn is_address(&self) -> bool {
        matches!(self.qtype, types::A | types::AAAA) && self.qclass == CLASS_IN
    }

    fn read(message: &[u8], at: usize) -> Result<(Self, usize), Malformed> {
        let (name, next) = Name::read(message, at)?;
        let mut reader = Reader::new(message.get(next..).unwrap_or_default());
        let (qtype, qclass) = (reader.u16()?, reader.u16()?);
        Ok((
            Self {
                name,
                qtype,
                qclass,
            },
            next + 4,
        ))
    }
}

/// The header's six fields (§4.1.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) questions: u16,
    pub(crate) records: [u16; 3],
}

impl Header {
    pub(crate) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        Ok(Self {
            id: reader.u16()?,
            flags: reader.u16()?,
            questions: reader.u16()?,
            records: [reader.u16()?, reader.u16()?, reader.u16()?],
        })
    }
}

/// What a client's OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Longest UDP payload that it takes.
    pub payload: u16,
    /// It wants DNSSEC records (DO).
    pub dnssec_ok: bool,
}

/// A query as a client sent it, checked.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    bytes: &'a [u8],
    flags: u16,
    question_end: usize,
    /// The one question.
    pub question: Question,
    /// Its OPT record.
    pub edns: Option<Edns>,
}

/// What to do with bytes that are no query that we answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Say nothing: no header, or itself an answer (which must never be answered).
    Silently,
    /// Answer with this code and no question.
    With(u8),
    /// Answer BADVERS: the client speaks an EDNS version other than 0 (RFC 6891 section 6.1.3).
    BadVersion,
}

impl<'a> Query<'a> {
    /// Reads a query; records other than OPT in it are checked for their form and ignored.
    ///
    /// # Errors
    /// [`Rejected`]: what to answer instead.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejected> {
        let header = Header::read(bytes).map_err(|_| Rejected::Silently)?;
        if header.flags & flags::RESPONSE != 0 {
            return Err(Rejected::Silently);
        }
        if header.flags & flags::OPCODE != 0 {
            return Err(Rejected::With(rcode::NOTIMP));
        }
        let malformed = |_: Malformed| Rejected::With(rcode::FORMERR);
        if header.questions != 1 {
            return Err(Rejected::With(rcode::FORMERR));
        }
        let (question, question_end) = Question::read(bytes, HEADER_BYTES).map_err(malformed)?;
        let mut edns = None;
        for record in record::Records::new(bytes, question_end, header.records) {
            let record = record.map_err(malformed)?;
            if record.rtype != types::OPT {
                continue;
            }
            // The TTL of an OPT is extended code, version, DO and reserved bits (§6.1.3).
            let [_, version, high, _] = record.ttl.to_be_bytes();
            if version != 0 {
                return Err(Rejected::BadVersion);
            }
            if edns.is_some() || record.section != record::Section::Additional {
                return Err(Rejected::With(rcode::FORMERR));
            }
            edns = Some(Edns {
                payload: record.class,
                dnssec_ok: high & 0x80 != 0,
            });
        }
        Ok(Self {
            bytes,
            flags: header.flags,
            question_end,
            question,
            edns,
        })
    }

    /// Whether the client wants DNSSEC records.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the client checks signatures itself (CD).
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.flags & flags::CHECKING_DISABLED != 0
    }

    /// The longest answer that it takes over UDP.
    #[must_use]
    pub fn udp_limit(&self) -> usize {
        let payload = self.edns.map_or(PAYLOAD_BYTES_MIN, |edns| edns.payload);
        usize::from(payload.clamp(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `www.Example.ORG A IN` with EDNS0 of 4096 and DO, as dig sends it.
    const QUERY: &[u8] = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\
        \x03www\x07Example\x03ORG\x00\x00\x01\x00\x01\
        \x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";

    #[test]
    fn a_query_of_dig_is_read() {
        let query = Query::parse(QUERY).unwrap();
        let mut buffer = [0; NAME_BYTES_MAX];
        assert_eq!(
            query.question.name.text(&mut buffer),
            Some("www.example.org")
        );
        assert_eq!(query.question.qtype, types::A);
        assert!(query.dnssec_ok() && !query.checking_disabled());
        assert_eq!(query.udp_limit(), 1232);
    }

    #[test]
    fn answers_and_scraps_are_met_with_silence() {
        let mut answer = QUERY.to_vec();
        answer[2] |= 0x80;
        assert_eq!(Query::parse(&answer).unwrap_err(), Rejected::Silently);
        assert_eq!(Query::parse(&QUERY[..11]).unwrap_err(), Rejected::Silently);
    }

    #[test]
    fn malformed_queries_get_their_code() {
        for (at, byte, want) in [
            (2, 0x11, Rejected::With(rcode::NOTIMP)),
            (5, 0, Rejected::With(rcode::FORMERR)),
            (5, 2, Rejected::With(rcode::FORMERR)),
            (12, 0xc0, Rejected::With(rcode::FORMERR)),
            (12, 0x40, Rejected::With(rcode::FORMERR)),
            (11, 2, Rejected::With(rcode::FORMERR)),
            (39, 1, Rejected::BadVersion),
        ] {
            let mut query = QUERY.to_vec();
            query[at] = byte;
            assert_eq!(Query::parse(&query).unwrap_err(), want, "byte {at}");
        }
    }

    #[test]
    fn pointers_only_go_backwards() {
        let mut message = [0; 12].to_vec();
        message.extend(b"\x01a\x00\x01b\xc0\x0c\xc0\x13");
        let (name, next) = Name::read(&message, 15).unwrap();
        assert_eq!((name.to_string().as_str(), next), ("b.a.", 19));
        assert_eq!(Name::read(&message, 19).unwrap_err(), Malformed::Pointer);
        assert_eq!(Name::read(b"\xc0\x00", 0).unwrap_err(), Malformed::Pointer);
    }

    #[test]
    fn names_above_255_bytes_are_refused() {
        let long = vec!["a".repeat(63); 4].join(".");
        assert_eq!(Name::from_text(&long), None);
        assert!(Name::from_text(long.get(2..).unwrap()).is_some());
        assert_eq!(Name::from_text("a..b"), None);
        assert_eq!(Name::from_text(".").unwrap().wire(), [0]);
    }

    #[test]
    fn odd_bytes_have_no_table_text_but_a_presentation() {
        let name = Name::read(b"\x03a.b\x02\x00\"\x00", 0).unwrap().0;
        assert_eq!(name.text(&mut [0; NAME_BYTES_MAX]), None);
        assert_eq!(name.to_string(), "a\\.b.\\000\\\".");
    }

    proptest! {
        #[test]
        fn text_round_trips(text in "[a-z0-9_-]{1,20}(\\.[a-z0-9-]{1,20}){0,6}") {
            let name = Name::from_text(&text).unwrap();
            let mut buffer = [0; NAME_BYTES_MAX];
            prop_assert_eq!(name.text(&mut buffer), Some(text.as_str()));
            let again = Name::read(name.wire(), 0).unwrap();
            prop_assert_eq!(again.1, name.wire().len());
            prop_assert_eq!(again.0, name);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..310) {
            let _ = Query::parse(&bytes);
            let _ = Name::read(&bytes, at).map(|(name, _)| name.to_string());
        }
    }
}
