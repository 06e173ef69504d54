//! The log's framing: a header, then frames of length, CRC-32 and contents, all numbers big-endian.
//!
//! Reading stops at the first frame that is not whole or whose checksum is wrong: what follows a torn
//! write was never promised. Nothing is allocated for a length.

/// What a log begins with: its format and version.
pub const HEADER: &[u8; 8] = b"HGMQTT1\n";

/// Bytes before a frame's contents.
const OVERHEAD: usize = 8;

/// CRC-32 (IEEE 802.3), one byte at a time.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 255")]
        let mut value = n as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                0xedb8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "n is below 256")]
        {
            table[n] = value;
        }
        n += 1;
    }
    table
};

/// CRC-32 of the parts one after the other.
fn checksum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(u32::MAX, |sum, &byte| {
        let [.., low] = sum.to_be_bytes();
        let entry = TABLE.get(usize::from(low ^ byte)).copied();
        entry.unwrap_or_default() ^ (sum >> 8)
    })
}

/// Appends a frame.
pub fn append(out: &mut Vec<u8>, contents: &[u8]) {
    // All that the broker holds is less.
    let length = u32::try_from(contents.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    out.extend(length);
    out.extend(checksum(&[&length, contents]).to_be_bytes());
    out.extend_from_slice(contents);
}

/// The frames of a log behind its header.
pub struct Frames<'a> {
    rest: &'a [u8],
    /// Bytes of the frames that were whole.
    pub valid: usize,
}

impl<'a> Frames<'a> {
    /// Begins at the first frame.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            valid: 0,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let contents = rest.get(..size)?;
        if u32::from_be_bytes(*sum) != checksum(&[length, contents]) {
            self.rest = &[];
            return None;
        }
        self.rest = rest.get(size..).unwrap_or_default();
        self.valid += OVERHEAD + size;
        Some(contents)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_ieee() {
        assert_eq!(checksum(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn frames_return_up_to_where_the_log_is_torn(
            contents in proptest::collection::vec(any::<Vec<u8>>(), 0..8), cut: usize, flip: u8
        ) {
            let mut log = Vec::new();
            let mut ends = vec![0];
            for one in &contents {
                append(&mut log, one);
                ends.push(log.len());
            }
            let mut frames = Frames::new(&log);
            let read: Vec<_> = frames.by_ref().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(&read, &contents);
            prop_assert_eq!(frames.valid, log.len());
            let cut = if log.is_empty() { 0 } else { cut % log.len() };
            let whole = ends.iter().filter(|&&end| end > 0 && end <= cut).count();
            prop_assert_eq!(Frames::new(&log[..cut]).count(), whole);
            if flip != 0 && !log.is_empty() {
                log[cut] ^= flip;
                prop_assert_eq!(Frames::new(&log).count(), whole);
            }
        }
    }
}
