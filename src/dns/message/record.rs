//! Walking and checking what servers answer: records, addresses, lifetimes, TTLs in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Reader;

use super::{CLASS_IN, HEADER_BYTES, Header, Malformed, Name, Question, flags, rcode, types};

/// Records in one message. The largest sensible answers have some dozens.
pub const RECORDS_MAX: usize = 512;
/// Aliases followed from the question to its addresses.
const ALIASES_MAX: usize = 16;
/// Answers are not kept longer than this, whatever they say (RFC 8767 section 4 advises a cap).
const LIFETIME_MAX: u32 = 86_400;
/// Negative answers are not kept longer than this (RFC 2308 section 5 advises one to three hours).
const NEGATIVE_LIFETIME_MAX: u32 = 3_600;

/// The sections that hold records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Answers.
    Answer,
    /// Authority.
    Authority,
    /// Additional.
    Additional,
}

/// One record as it lies in the message.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it stands.
    pub section: Section,
    /// Offset of its owner name.
    pub at: usize,
    /// Type.
    pub rtype: u16,
    /// Class; the payload size in an OPT.
    pub class: u16,
    /// Time to live, seconds; flags in an OPT.
    pub ttl: u32,
    /// Offset of its data; the TTL lies six bytes before.
    pub data_at: usize,
    /// Its data.
    pub data: &'a [u8],
}

impl Record<'_> {
    /// The address of an A or AAAA record.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        if self.class != CLASS_IN {
            return None;
        }
        match self.rtype {
            types::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.data).ok()?).into()),
            types::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.data).ok()?).into()),
            _ => None,
        }
    }
}

/// Iterates the records of a message; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
    budget: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(message: &'a [u8], at: usize, counts: [u16; 3]) -> Self {
        Self {
            message,
            at,
            left: counts,
            budget: RECORDS_MAX,
        }
    }

    fn section(&mut self) -> Option<Section> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        for (left, section) in self.left.iter_mut().zip(sections) {
            if *left > 0 {
                *left -= 1;
                return Some(section);
            }
        }
        None
    }

    fn read(&mut self, section: Section) -> Result<Record<'a>, Malformed> {
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or(Malformed::TooManyRecords)?;
        let at = self.at;
        let fields = skip_name(self.message, at)?;
        let mut reader = Reader::new(self.message.get(fields..).unwrap_or_default());
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        let ttl = reader.u32()?;
        let length = reader.u16()?;
        let data = reader.take(usize::from(length))?;
        self.at = fields + reader.position();
        Ok(Record {
            section,
            at,
            rtype,
            class,
            ttl,
            data_at: self.at - data.len(),
            data,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let section = self.section()?;
        let read = self.read(section);
        if read.is_err() {
            self.left = [0; 3];
        }
        Some(read)
    }
}

/// Where the field after the name at `at` begins; does not look behind a pointer.
fn skip_name(message: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        let length = *message.get(at).ok_or(Malformed::Truncated)?;
        match length >> 6 {
            0 if length == 0 => return Ok(at + 1),
            0 => at += 1 + usize::from(length),
            3 => return Ok(at + 2),
            _ => return Err(Malformed::Label),
        }
    }
}

/// A server's answer, every record of which has been walked once.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    bytes: &'a [u8],
    header: Header,
    question_end: usize,
    /// The question that it repeats.
    pub question: Question,
}

impl<'a> Answer<'a> {
    /// Reads an answer of exactly one question.
    ///
    /// # Errors
    /// [`Malformed`]; a query is no answer and counts as [`Malformed::Question`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = Header::read(bytes)?;
        if header.flags & flags::RESPONSE == 0 || header.questions != 1 {
            return Err(Malformed::Question);
        }
        let (question, question_end) = Question::read(bytes, HEADER_BYTES)?;
        let answer = Self {
            bytes,
            header,
            question_end,
            question,
        };
        let mut options = 0;
        for record in answer.records() {
            let record = record?;
            if record.rtype == types::OPT {
                options += 1;
                if options > 1 || record.section != Section::Additional {
                    return Err(Malformed::Opt);
                }
            }
        }
        Ok(answer)
    }

    /// The id of the query that it answers.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.header.id
    }

    /// The response code.
    #[must_use]
    pub fn rcode(&self) -> u8 {
        (self.header.flags & flags::RCODE).to_be_bytes()[1]
    }

    /// The header's flags, response code included.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.header.flags
    }

    /// Whether records were left out for lack of room.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.header.flags & flags::TRUNCATED != 0
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Offset of the first record.
    #[must_use]
    pub fn question_end(&self) -> usize {
        self.question_end
    }

    /// All records in order.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records::new(self.bytes, self.question_end, self.header.records)
    }

    /// The addresses that belong to the question, by way of aliases: records of other owners are
    /// not the server's to tell (bailiwick), and are passed over. With each its TTL.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IpAddr, u32)> {
        let mut owner = self.question.name.clone();
        let mut owner_at = HEADER_BYTES;
        let mut found = Vec::new();
        for _ in 0..ALIASES_MAX {
            let mut alias = None;
            for record in self.records().flatten() {
                if record.section != Section::Answer {
                    break;
                }
                if !self.is_owned(&record, &owner, owner_at) {
                    continue;
                }
                if record.rtype == types::CNAME {
                    alias = Some(record.data_at);
                } else if record.rtype == self.question.qtype {
                    found.extend(record.address().map(|address| (address, record.ttl)));
                }
            }
            let Some(at) = alias.filter(|_| found.is_empty()) else {
                break;
            };
            let Ok((name, _)) = Name::read(self.bytes, at) else {
                break;
            };
            (owner, owner_at) = (name, at);
        }
        found
    }

    /// Whether the record is of `owner`, which also stands at `owner_at`. Servers nearly always
    /// write a pointer to there, which spares reading the name.
    fn is_owned(&self, record: &Record<'_>, owner: &Name, owner_at: usize) -> bool {
        let written = self.bytes.get(record.at..).and_then(<[u8]>::first_chunk);
        let pointer = written.map(|written| usize::from(u16::from_be_bytes(*written)));
        pointer == Some(0xc000 + owner_at)
            || Name::read(self.bytes, record.at).is_ok_and(|(name, _)| name == *owner)
    }

    /// How long the answer may be kept, seconds: its least TTL; for a negative answer by its SOA
    /// (RFC 2308 section 5). `None`: not at all.
    #[must_use]
    pub fn lifetime(&self) -> Option<u32> {
        if self.is_truncated() || !matches!(self.rcode(), rcode::NOERROR | rcode::NXDOMAIN) {
            return None;
        }
        let mut least = LIFETIME_MAX;
        let mut positive = false;
        let mut negative = None;
        for record in self.records().flatten() {
            match record.section {
                Section::Answer => {
                    least = least.min(record.ttl);
                    positive |= record.rtype == self.question.qtype;
                }
                Section::Authority if record.rtype == types::SOA => {
                    let minimum = record
                        .data
                        .last_chunk()
                        .map(|last| u32::from_be_bytes(*last));
                    negative = minimum.map(|minimum| minimum.min(record.ttl));
                }
                _ => {}
            }
        }
        let lifetime = if positive && self.rcode() == rcode::NOERROR {
            least
        } else {
            least.min(negative?).min(NEGATIVE_LIFETIME_MAX)
        };
        (lifetime > 0).then_some(lifetime)
    }

    /// Where the OPT record begins, if any: what stands before it is the message without EDNS.
    #[must_use]
    pub fn opt_at(&self) -> Option<(usize, u16)> {
        let mut additional = 0;
        for record in self.records().flatten() {
            if record.rtype == types::OPT {
                return Some((record.at, additional));
            }
            if record.section == Section::Additional {
                additional += 1;
            }
        }
        None
    }
}

/// Changes every TTL in place; OPT records have none.
pub fn patch_ttls(message: &mut [u8], question_end: usize, change: impl Fn(u32) -> u32) {
    let Ok(header) = Header::read(message) else {
        return;
    };
    let mut left: usize = header.records.into_iter().map(usize::from).sum();
    let mut at = question_end;
    while left > 0 {
        left -= 1;
        let counts = [1, 0, 0];
        let Some(Ok(record)) = Records::new(message, at, counts).next() else {
            return;
        };
        at = record.data_at + record.data.len();
        if record.rtype == types::OPT {
            continue;
        }
        let (ttl, ttl_at) = (change(record.ttl), record.data_at - 6);
        if let Some(field) = message.get_mut(ttl_at..ttl_at + 4) {
            field.copy_from_slice(&ttl.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a.x A`: CNAME to `b.x` (300 s), `b.x` A 192.0.2.1 (60 s), a stray `c.x` A, and an OPT.
    fn answer() -> Vec<u8> {
        let mut m = b"\x00\x07\x81\x80\x00\x01\x00\x03\x00\x00\x00\x01".to_vec();
        m.extend(b"\x01a\x01x\x00\x00\x01\x00\x01");
        m.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00\x04\x01b\xc0\x0e");
        m.extend(b"\xc0\x21\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        m.extend(b"\x01c\xc0\x0e\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x63");
        m.extend(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
        m
    }

    /// `x A` does not exist; SOA with TTL `ttl` and minimum `minimum`.
    fn nxdomain(ttl: u8, minimum: u8) -> Vec<u8> {
        let mut m = b"\x00\x07\x81\x83\x00\x01\x00\x00\x00\x01\x00\x00".to_vec();
        m.extend(b"\x01x\x00\x00\x01\x00\x01\x00\x00\x06\x00\x01\x00\x00\x00");
        m.push(ttl);
        m.extend(b"\x00\x16\x00\x00");
        m.extend([0; 19]);
        m.push(minimum);
        m
    }

    #[test]
    fn addresses_follow_aliases_and_ignore_strangers() {
        let bytes = answer();
        let parsed = Answer::parse(&bytes).unwrap();
        assert_eq!(parsed.addresses(), [("192.0.2.1".parse().unwrap(), 60)]);
        assert_eq!(parsed.lifetime(), Some(60));
        assert_eq!(parsed.opt_at(), Some((bytes.len() - 11, 0)));
    }

    #[test]
    fn a_loop_of_aliases_ends() {
        let mut m = b"\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00".to_vec();
        m.extend(
            b"\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x02\xc0\x0c",
        );
        let parsed = Answer::parse(&m).unwrap();
        assert!(parsed.addresses().is_empty());
        assert_eq!(parsed.lifetime(), None);
    }

    #[test]
    fn negative_answers_live_as_their_soa_says() {
        for (ttl, minimum, want) in [(60, 30, Some(30)), (20, 30, Some(20)), (0, 30, None)] {
            let bytes = nxdomain(ttl, minimum);
            assert_eq!(Answer::parse(&bytes).unwrap().lifetime(), want);
        }
        let mut without = nxdomain(60, 30);
        without[9] = 0;
        assert_eq!(Answer::parse(&without).unwrap().lifetime(), None);
    }

    #[test]
    fn ttls_are_patched_and_options_left_alone() {
        let mut bytes = answer();
        let end = Answer::parse(&bytes).unwrap().question_end();
        let opt = bytes[bytes.len() - 11..].to_vec();
        patch_ttls(&mut bytes, end, |ttl| ttl - 50);
        let parsed = Answer::parse(&bytes).unwrap();
        let ttls: Vec<u32> = parsed.records().flatten().take(3).map(|r| r.ttl).collect();
        assert_eq!(ttls, [250, 10, 10]);
        assert!(bytes.ends_with(&opt));
    }

    #[test]
    fn more_records_than_counted_bytes_are_refused() {
        let mut bytes = answer();
        bytes[11] = 2;
        assert_eq!(Answer::parse(&bytes).unwrap_err(), Malformed::Truncated);
    }

    proptest! {
        #[test]
        fn broken_answers_never_panic(at in 0usize..90, byte: u8, cut in 0usize..90) {
            let mut bytes = answer();
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Ok(parsed) = Answer::parse(&bytes) {
                let _ = (parsed.addresses(), parsed.lifetime(), parsed.opt_at());
            }
            patch_ttls(&mut bytes, 21, |_| 1);
        }
    }
}
