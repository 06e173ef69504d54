//! mihomo's compiled rule sets (clash-api.md 3.11): a zstd frame with the arrays of a succinct trie, or
//! with address ranges. Reading one is unpacking; nothing is compiled again.
//!
//! Every length in the file is checked against what the file really has before memory is taken.

use std::io::{self, Read};
use std::net::IpAddr;

use ruzstd::decoding::StreamingDecoder;

use super::entries::ReadError;
use crate::prefix;
use crate::rules::set::{AddressSetBuilder, Behavior, NameSet, RuleSet};

const MAGIC: [u8; 4] = *b"MRS\x01";
/// Of both kinds of body.
const VERSION: u8 = 1;

/// Bytes of a frame's header (RFC 8878 section 3.1.1), and those that it may make us keep: four times
/// what mihomo writes.
const HEAD_MAX: u64 = 18;
const WINDOW_MAX: u64 = 32 * 1024 * 1024;

/// Reads a set of this behavior that unpacks to at most `most` bytes.
///
/// # Errors
/// [`ReadError`].
pub fn read(mut source: impl Read, behavior: Behavior, most: u64) -> Result<RuleSet, ReadError> {
    let mut head = Vec::new();
    source.by_ref().take(HEAD_MAX).read_to_end(&mut head)?;
    if window(&head).ok_or(ReadError::NotMrs)? > WINDOW_MAX {
        return Err(ReadError::Window);
    }
    let source = head.as_slice().chain(source);
    let unpacked = StreamingDecoder::new(source).map_err(|_| ReadError::NotMrs)?;
    let mut body = unpacked.take(most.saturating_add(1));
    let read = read_unpacked(&mut body, behavior);
    match read {
        Err(_) if body.limit() == 0 => Err(ReadError::TooLarge(most)),
        read => read,
    }
}

/// How much of its output a frame wants to look back on, which the decoder takes at once (RFC 8878
/// section 3.1.1.1).
fn window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    let behind = head.get(5..)?;
    if descriptor & 0x20 == 0 {
        let byte = *behind.first()?;
        let base = 1 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // All of it: the size of the content stands behind the dictionary's number.
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let length = [1, 2, 4, 8].get(usize::from(descriptor >> 6))?;
    let size = behind.get(*dictionary..dictionary + length)?;
    let size = size
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some(if *length == 2 { size + 256 } else { size })
}

fn read_unpacked(body: &mut dyn Read, behavior: Behavior) -> Result<RuleSet, ReadError> {
    if bytes(body)? != MAGIC {
        return Err(ReadError::NotMrs);
    }
    let [kind] = bytes(body)?;
    let expected = match behavior {
        Behavior::Domain => 0,
        Behavior::IpCidr => 1,
        Behavior::Classical => return Err(ReadError::NotMrs),
    };
    if kind != expected {
        return Err(ReadError::OtherBehavior);
    }
    let entries = usize::try_from(number(body)?).map_err(|_| ReadError::NotMrs)?;
    let extra = number(body)?;
    io::copy(&mut Read::take(&mut *body, extra), &mut io::sink())?;
    let [version] = bytes(body)?;
    if version != VERSION {
        return Err(ReadError::NotMrs);
    }
    match behavior {
        Behavior::Domain => {
            let (leaves, shape) = (words(body)?, words(body)?);
            let mut labels = Vec::new();
            let length = number(body)?;
            Read::take(&mut *body, length).read_to_end(&mut labels)?;
            if labels.len() as u64 != length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let names = NameSet::from_parts(leaves, shape, labels).ok_or(ReadError::NotMrs)?;
            Ok(RuleSet::of_names(names, entries))
        }
        Behavior::IpCidr | Behavior::Classical => {
            let mut addresses = AddressSetBuilder::default();
            for _ in 0..number(body)? {
                let (first, last) = (address(body)?, address(body)?);
                if first.is_ipv4() == last.is_ipv4() {
                    let (first, width) = prefix::bits(first);
                    addresses.push_range(first, prefix::bits(last).0, width == 32);
                }
            }
            Ok(RuleSet::of_addresses(addresses.finish(), entries))
        }
    }
}

/// The unpacked form of a set; `None`: rules have none.
#[must_use]
pub fn write(set: &RuleSet) -> Option<Vec<u8>> {
    let mut body = MAGIC.to_vec();
    let length = |body: &mut Vec<u8>, length: usize| body.extend((length as u64).to_be_bytes());
    body.push(match set.behavior() {
        Behavior::Domain => 0,
        Behavior::IpCidr => 1,
        Behavior::Classical => return None,
    });
    length(&mut body, set.entries());
    length(&mut body, 0);
    body.push(VERSION);
    if let Some(names) = set.names() {
        let (leaves, shape, labels) = names.parts();
        for words in [leaves, shape] {
            length(&mut body, words.len());
            body.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        }
        length(&mut body, labels.len());
        body.extend(labels);
    } else {
        let ranges = set.addresses()?.ranges();
        length(&mut body, ranges.len());
        for address in ranges.into_iter().flat_map(|(first, last)| [first, last]) {
            let mapped = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            body.extend(mapped.octets());
        }
    }
    Some(body)
}

fn bytes<const N: usize>(body: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    body.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A length: 64 bits, signed and never negative.
fn number(body: &mut dyn Read) -> Result<u64, ReadError> {
    u64::try_from(i64::from_be_bytes(bytes(body)?)).map_err(|_| ReadError::NotMrs)
}

fn words(body: &mut dyn Read) -> Result<Vec<u64>, ReadError> {
    let mut words = Vec::new();
    for _ in 0..number(body)? {
        words.push(u64::from_be_bytes(bytes(body)?));
    }
    words.shrink_to_fit();
    Ok(words)
}

/// Sixteen bytes, IPv4 in its mapped form.
fn address(body: &mut dyn Read) -> io::Result<IpAddr> {
    Ok(IpAddr::from(bytes::<16>(body)?).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geo::Geodata;
    use crate::rules::set::RuleSetBuilder;
    use proptest::prelude::*;

    /// A zstd frame (RFC 8878) of one raw block.
    fn frame(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap();
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
        frame.extend(length.to_le_bytes());
        frame.extend(&((length << 3) | 1).to_le_bytes()[..3]);
        frame.extend(content);
        frame
    }

    fn head(kind: u8, entries: i64) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.push(kind);
        head.extend(entries.to_be_bytes());
        head.extend(2i64.to_be_bytes());
        head.extend(b"xx");
        head.push(VERSION);
        head
    }

    /// `a` and `+.b`: keys `a`, `b`, `b.+`.
    fn names() -> Vec<u8> {
        let mut text = head(0, 2);
        // Nodes: root, a, b, b., b.+ ; leaves are a, b and b.+.
        for word in [1u64, 0b10110, 1, 0b1_1010_1100] {
            text.extend(word.to_be_bytes());
        }
        text.extend(4i64.to_be_bytes());
        text.extend(b"ab.+");
        text
    }

    #[test]
    fn a_set_of_names_is_unpacked() {
        let set = read(frame(&names()).as_slice(), Behavior::Domain, 1000).unwrap();
        assert_eq!((set.entries(), set.behavior()), (2, Behavior::Domain));
    }

    #[test]
    fn a_set_of_addresses_is_unpacked() {
        let mut text = head(1, 2);
        text.extend(2i64.to_be_bytes());
        for address in [
            "::ffff:1.0.0.0",
            "::ffff:1.0.0.255",
            "2001:db8::",
            "2001:db8::ff",
        ] {
            text.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        let set = read(frame(&text).as_slice(), Behavior::IpCidr, 1000).unwrap();
        assert_eq!((set.entries(), set.behavior()), (2, Behavior::IpCidr));
        assert!(matches!(
            read(frame(&text).as_slice(), Behavior::Domain, 1000),
            Err(ReadError::OtherBehavior)
        ));
        assert!(matches!(
            read(frame(&text).as_slice(), Behavior::IpCidr, 40),
            Err(ReadError::TooLarge(40))
        ));
    }

    /// The fixtures were written by `mihomo convert-ruleset` (commit 05e8f13a8d65, 2025-02-28) from the text
    /// files beside them.
    #[test]
    fn what_mihomo_makes_of_a_list_is_made_here_byte_for_byte() {
        for (behavior, text, theirs) in [
            (
                Behavior::Domain,
                include_str!("../../tests/fixtures/rules/names.txt"),
                include_bytes!("../../tests/fixtures/rules/names.mrs").as_slice(),
            ),
            (
                Behavior::IpCidr,
                include_str!("../../tests/fixtures/rules/nets.txt"),
                include_bytes!("../../tests/fixtures/rules/nets.mrs").as_slice(),
            ),
        ] {
            let mut builder = RuleSetBuilder::new(behavior, &Geodata::default());
            text.lines().for_each(|line| builder.push(line).unwrap());
            let mut unpacked = Vec::new();
            let mut decoder = StreamingDecoder::new(theirs).unwrap();
            decoder.read_to_end(&mut unpacked).unwrap();
            assert_eq!(write(&builder.finish()).unwrap(), unpacked);
            let taken = read(theirs, behavior, 1000).unwrap();
            assert_eq!(taken.entries(), text.lines().count());
            assert_eq!(write(&taken).unwrap(), unpacked);
        }
    }

    #[test]
    fn a_frame_that_wants_much_memory_is_refused() {
        assert_eq!(window(&[0, 0, 0, 0, 0x00, 0x6f]), Some(15 << 20));
        assert_eq!(window(&[0, 0, 0, 0, 0x61, 9, 1, 1]), Some(257 + 256));
        assert_eq!(window(&[0, 0, 0, 0, 0x60, 1]), None);
        let hungry = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 1, 0, 0];
        assert!(matches!(
            read(hungry.as_slice(), Behavior::Domain, 1000),
            Err(ReadError::Window)
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(cut in 0usize..90, at in 0usize..90, byte in any::<u8>()) {
            let mut text = names();
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            text.truncate(cut.max(1));
            for behavior in [Behavior::Domain, Behavior::IpCidr] {
                let _ = read(frame(&text).as_slice(), behavior, 1000);
                let _ = read(text.as_slice(), behavior, 1000);
            }
        }
    }
}
