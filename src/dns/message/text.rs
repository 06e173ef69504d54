//! Records as people read them: type mnemonics and presentation text (RFC 1035 section 5.1, RFC
//! 9460 section 2.1 for service bindings); what has no form of its own as RFC 3597 writes it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::{Reader, Truncated};

use super::record::{Answer, Record, Section};
use super::{Malformed, Name, types};

/// Record types by mnemonic, sorted by number.
pub const TYPES: &[(&str, u16)] = &[
    ("A", types::A),
    ("NS", 2),
    ("CNAME", types::CNAME),
    ("SOA", types::SOA),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", types::TXT),
    ("AAAA", types::AAAA),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DNAME", 39),
    ("DS", 43),
    ("SSHFP", 44),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("TLSA", 52),
    ("SVCB", types::SVCB),
    ("HTTPS", types::HTTPS),
    ("ANY", types::ANY),
    ("CAA", 257),
];

/// Service parameters by key (RFC 9460 section 14.3.2).
const SERVICE_KEYS: &[&str] = &[
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
];

/// The number of a type: its mnemonic in upper case, or `TYPEn` (RFC 3597 section 5).
#[must_use]
pub fn type_number(mnemonic: &str) -> Option<u16> {
    let known = TYPES.iter().find(|(name, _)| *name == mnemonic);
    known.map(|(_, number)| *number).or_else(|| {
        let digits = mnemonic.strip_prefix("TYPE")?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then_some(digits)?
            .parse()
            .ok()
    })
}

/// One record for an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    /// Section.
    pub section: Section,
    /// Owner with the final dot.
    pub name: String,
    /// Type number.
    pub rtype: u16,
    /// Time to live, seconds.
    pub ttl: u32,
    /// Data in presentation form.
    pub data: String,
}

/// All records of an answer in presentation form, OPT left out.
///
/// # Errors
/// [`Malformed`] when an owner name is; odd data is shown as RFC 3597 does.
pub fn records(answer: &Answer<'_>) -> Result<Vec<RecordText>, Malformed> {
    let mut all = Vec::new();
    for record in answer.records() {
        let record = record?;
        if record.rtype == types::OPT {
            continue;
        }
        all.push(RecordText {
            section: record.section,
            name: Name::read(answer.bytes(), record.at)?.0.to_string(),
            rtype: record.rtype,
            ttl: record.ttl,
            data: data_text(answer.bytes(), &record),
        });
    }
    Ok(all)
}

/// The presentation form of one record's data.
#[must_use]
pub fn data_text(message: &[u8], record: &Record<'_>) -> String {
    known(message, record).unwrap_or_else(|| {
        let mut out = format!("\\# {}", record.data.len());
        for (i, byte) in record.data.iter().enumerate() {
            let gap = if i == 0 { " " } else { "" };
            let _ = write!(out, "{gap}{byte:02x}");
        }
        out
    })
}

fn known(message: &[u8], record: &Record<'_>) -> Option<String> {
    let mut fields = Fields {
        message,
        at: record.data_at,
        end: record.data_at + record.data.len(),
    };
    let text = match record.rtype {
        types::A | types::AAAA => return record.address().map(|address| address.to_string()),
        // NS, CNAME, PTR and DNAME are a name each.
        2 | types::CNAME | 12 | 39 => fields.name()?,
        15 => format!("{} {}", fields.u16()?, fields.name()?),
        33 => {
            let (priority, weight, port) = (fields.u16()?, fields.u16()?, fields.u16()?);
            format!("{priority} {weight} {port} {}", fields.name()?)
        }
        types::SOA => {
            let mut text = format!("{} {}", fields.name()?, fields.name()?);
            for _ in 0..5 {
                let _ = write!(text, " {}", fields.u32()?);
            }
            text
        }
        types::TXT => return strings(record.data).ok(),
        types::SVCB | types::HTTPS => {
            let head = format!("{} {}", fields.u16()?, fields.name()?);
            let rest = message.get(fields.at..fields.end)?;
            return service_parameters(head, rest).ok();
        }
        _ => return None,
    };
    (fields.at == fields.end).then_some(text)
}

/// Data with names in it: they may be compressed, so the whole message is at hand.
struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    end: usize,
}

impl Fields<'_> {
    fn name(&mut self) -> Option<String> {
        let (name, next) = Name::read(self.message, self.at).ok()?;
        self.at = next;
        (next <= self.end).then(|| name.to_string())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.message.get(self.at..self.end)?.first_chunk()?;
        self.at += N;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
}

/// Character strings, each in quotes.
fn strings(data: &[u8]) -> Result<String, Truncated> {
    let mut reader = Reader::new(data);
    let mut out = String::new();
    while !reader.is_empty() {
        let length = reader.u8()?;
        if !out.is_empty() {
            out.push(' ');
        }
        out.push('"');
        push_escaped(&mut out, reader.take(usize::from(length))?);
        out.push('"');
    }
    Ok(out)
}

fn push_escaped(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        let _ = match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(byte)),
            b' '..=b'~' => write!(out, "{}", char::from(byte)),
            _ => write!(out, "\\{byte:03}"),
        };
    }
}

fn service_parameters(mut out: String, data: &[u8]) -> Result<String, Truncated> {
    let mut reader = Reader::new(data);
    while !reader.is_empty() {
        let key = reader.u16()?;
        let length = reader.u16()?;
        let value = reader.take(usize::from(length))?;
        let _ = match SERVICE_KEYS.get(usize::from(key)) {
            Some(name) => write!(out, " {name}"),
            None => write!(out, " key{key}"),
        };
        if !value.is_empty() {
            out.push_str("=\"");
            push_service_value(&mut out, key, value)?;
            out.push('"');
        }
    }
    Ok(out)
}

fn push_service_value(out: &mut String, key: u16, value: &[u8]) -> Result<(), Truncated> {
    let mut reader = Reader::new(value);
    let mut comma = "";
    // An unknown key's value is one string, whole.
    if !matches!(key, 1 | 3 | 4 | 6) {
        push_escaped(out, value);
        return Ok(());
    }
    while !reader.is_empty() {
        out.push_str(comma);
        comma = ",";
        let _ = match key {
            1 => {
                let length = reader.u8()?;
                push_escaped(out, reader.take(usize::from(length))?);
                Ok(())
            }
            3 => write!(out, "{}", reader.u16()?),
            4 => write!(out, "{}", Ipv4Addr::from(reader.array::<4>()?)),
            _ => write!(out, "{}", Ipv6Addr::from(reader.array::<16>()?)),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(rtype: u16, data: &[u8]) -> Vec<u8> {
        let mut m = b"\x00\x00\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00".to_vec();
        m.extend(rtype.to_be_bytes());
        m.extend(b"\x00\x01\xc0\x0c");
        m.extend(rtype.to_be_bytes());
        m.extend(b"\x00\x01\x00\x00\x00\x3c");
        m.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        m.extend(data);
        m
    }

    #[track_caller]
    fn check(mnemonic: &str, data: &[u8], want: &str) {
        let bytes = message(type_number(mnemonic).unwrap(), data);
        let shown = records(&Answer::parse(&bytes).unwrap()).unwrap();
        assert_eq!(shown[0].data, want);
        assert_eq!((shown[0].name.as_str(), shown[0].ttl), ("a.", 60));
    }

    #[test]
    fn data_is_shown_as_dig_shows_it() {
        check("A", &[192, 0, 2, 1], "192.0.2.1");
        check("CNAME", b"\x01b\xc0\x0c", "b.a.");
        check("MX", b"\x00\x0a\xc0\x0c", "10 a.");
        check("SRV", b"\x00\x01\x00\x02\x00\x50\x00", "1 2 80 .");
        check("TXT", b"\x02hi\x03a\"\x01", "\"hi\" \"a\\\"\\001\"");
        check(
            "SOA",
            b"\xc0\x0c\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05",
            "a. . 1 2 3 4 5",
        );
        check(
            "HTTPS",
            b"\x00\x01\x00\x00\x01\x00\x06\x02h3\x02h2\x00\x04\x00\x04\x01\x02\x03\x04",
            "1 . alpn=\"h3,h2\" ipv4hint=\"1.2.3.4\"",
        );
    }

    #[test]
    fn unknown_or_broken_data_is_shown_as_rfc_3597_does() {
        check("TYPE65280", &[0xab, 0xcd], "\\# 2 abcd");
        check("TYPE65280", &[], "\\# 0");
        check("A", &[1, 2, 3], "\\# 3 010203");
        check("MX", b"\x00\x0a\xc0\x0c\x00", "\\# 5 000ac00c00");
    }

    #[test]
    fn types_are_sorted_and_odd_mnemonics_refused() {
        assert!(TYPES.is_sorted_by_key(|(_, number)| number));
        for bad in ["", "a", "TYPE", "TYPE+1", "TYPE65536"] {
            assert_eq!(type_number(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_data_panics(rtype in 0u16..70, data in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = message(rtype, &data);
            if let Ok(answer) = Answer::parse(&bytes) {
                let _ = records(&answer);
            }
        }
    }
}
