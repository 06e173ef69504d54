//! Service bindings without addresses (RFC 9460): the hints would lead past fake addresses and past
//! what is remembered of answers.
//!
//! Pure. The message is written anew: its question, then the aliases and bindings of its answer section,
//! names without compression. The other parameters (protocols, port, ECH keys) stay as they are.

use super::record::{Answer, Section};
use super::{CLASS_IN, HEADER_BYTES, Malformed, Name, flags, types};
use crate::wire::Reader;

/// Records handed on: names written out may take much more room than they did.
const BINDINGS_MAX: u16 = 32;
/// SvcParamKeys (RFC 9460 section 14.3.2).
const MANDATORY: u16 = 0;
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// The answer without address hints, in normal form as `answer` is.
///
/// # Errors
/// [`Malformed`]: a binding or an alias that cannot be read; such an answer is not handed on.
pub fn without_hints(answer: &Answer<'_>) -> Result<Vec<u8>, Malformed> {
    let message = answer.bytes();
    let mut out = message
        .get(..answer.question_end())
        .unwrap_or_default()
        .to_vec();
    let mut count: u16 = 0;
    for record in answer.records() {
        let record = record?;
        let kept = record.section == Section::Answer && record.class == CLASS_IN;
        let data = match record.rtype {
            _ if !kept => continue,
            types::CNAME => Name::read(message, record.data_at)?.0.wire().to_vec(),
            types::SVCB | types::HTTPS => stripped(record.data)?,
            _ => continue,
        };
        let (owner, _) = Name::read(message, record.at)?;
        out.extend_from_slice(owner.wire());
        out.extend_from_slice(&record.rtype.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&record.ttl.to_be_bytes());
        let length = u16::try_from(data.len()).map_err(|_| Malformed::Truncated)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&data);
        count += 1;
        if count > BINDINGS_MAX {
            return Err(Malformed::TooManyRecords);
        }
    }
    if count == 0 {
        // A negative answer holds no addresses; its SOA says how long it lives.
        return Ok(message.to_vec());
    }
    if let Some(counts) = out.get_mut(6..HEADER_BYTES) {
        counts.fill(0);
    }
    if let Some(low) = out.get_mut(3) {
        // What was signed is not what is said any more.
        *low &= !flags::AUTHENTIC_DATA.to_be_bytes()[1];
    }
    if let Some(answers) = out.get_mut(6..8) {
        answers.copy_from_slice(&count.to_be_bytes());
    }
    Ok(out)
}

/// Priority, target and parameters without the hints (section 2.2).
fn stripped(data: &[u8]) -> Result<Vec<u8>, Malformed> {
    // The target is never compressed.
    let (target, parameters_at) = Name::read(data, 2)?;
    let mut out = data.get(..2).ok_or(Malformed::Truncated)?.to_vec();
    out.extend_from_slice(target.wire());
    let mut reader = Reader::new(data.get(parameters_at..).unwrap_or_default());
    while !reader.is_empty() {
        let (key, length) = (reader.u16()?, reader.u16()?);
        let value = reader.take(length.into())?;
        // A list of keys that must be understood may name the hints; without it fewer must.
        if matches!(key, MANDATORY | IPV4_HINT | IPV6_HINT) {
            continue;
        }
        out.extend_from_slice(&key.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a.x HTTPS`: alias to `b.x`, whose binding has alpn h2 and an IPv4 hint; an A of `b.x` beside it.
    fn answer() -> Vec<u8> {
        let mut m = b"\x00\x00\x81\x80\x00\x01\x00\x02\x00\x00\x00\x01".to_vec();
        m.extend(b"\x01a\x01x\x00\x00\x41\x00\x01");
        m.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01b\xc0\x0e");
        m.extend(b"\xc0\x21\x00\x41\x00\x01\x00\x00\x00\x3c\x00\x12\x00\x01\x00");
        m.extend(b"\x00\x01\x00\x03\x02h2\x00\x04\x00\x04\xc0\x00\x02\x01");
        m.extend(b"\xc0\x21\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        m
    }

    #[test]
    fn hints_and_glue_are_gone_and_the_rest_stays() {
        let bytes = answer();
        let out = without_hints(&Answer::parse(&bytes).unwrap()).unwrap();
        let parsed = Answer::parse(&out).unwrap();
        let records: Vec<_> = parsed.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1].data, b"\x00\x01\x00\x00\x01\x00\x03\x02h2");
        assert_eq!(
            Name::read(&out, records[0].data_at).unwrap().0.to_string(),
            "b.x."
        );
        assert_eq!(parsed.lifetime(), Some(60));
        assert!(!out.windows(4).any(|four| four == [192, 0, 2, 1]));
    }

    proptest! {
        #[test]
        fn broken_bindings_never_panic_nor_grow(at in 12usize..90, byte: u8) {
            let mut bytes = answer();
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
            if let Ok(parsed) = Answer::parse(&bytes)
                && let Ok(out) = without_hints(&parsed)
            {
                prop_assert!(Answer::parse(&out).is_ok());
                // At most two names of 255 bytes for each record.
                prop_assert!(out.len() <= bytes.len() + 3 * 512);
            }
        }
    }
}
