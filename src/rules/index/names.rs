//! DOMAIN and DOMAIN-SUFFIX lines, found by hashing the name and each of its parents.
//!
//! Four bytes a line: its number and, in the bits that the number leaves free, a piece of the
//! hash; sorted by bucket and, inside one, by line. The names themselves stand in
//! [`super::lines`], where a candidate is compared in full, so that a hash never decides.
//!
//! Hashes are not keyed: names of flows are only looked up, and who writes the list is trusted
//! not to slow down his own router.

/// Lines per bucket on the average; half a cache line.
const BUCKET: usize = 8;

/// Whether a line is for the whole name or for all below it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Exact,
    Suffix,
}

/// The table.
pub(super) struct Names {
    /// Where each bucket starts, and the end of the last.
    starts: Box<[u32]>,
    entries: Box<[u32]>,
    /// How many low bits of an entry are the line.
    line_bits: u32,
}

impl Names {
    /// Builds from hashes and line numbers; `lines` is how many lines the whole list has.
    pub fn build(mut hashes: Vec<(u32, u32)>, lines: usize) -> Self {
        let buckets = hashes.len() / BUCKET + 1;
        let line_bits = usize::BITS - lines.leading_zeros();
        hashes.sort_unstable_by_key(|(hash, line)| (bucket(*hash, buckets), *line));
        let mut starts = Vec::with_capacity(buckets + 1);
        let mut entries = Vec::with_capacity(hashes.len());
        for ((hash, line), count) in hashes.into_iter().zip(0..) {
            let bucket = bucket(hash, buckets);
            starts.resize(starts.len().max(bucket + 1), count);
            entries.push(line | tag(hash, line_bits));
        }
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        starts.resize(buckets + 1, count);
        Self {
            starts: starts.into(),
            entries: entries.into(),
            line_bits,
        }
    }

    /// The first line in `from..before` that has `hash` and that `is_same` accepts.
    fn first(
        &self,
        hash: u32,
        from: u32,
        before: u32,
        is_same: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let bucket = bucket(hash, self.starts.len() - 1);
        let start = *self.starts.get(bucket)? as usize;
        let end = *self.starts.get(bucket + 1)? as usize;
        let tag = tag(hash, self.line_bits);
        let mask = line_mask(self.line_bits);
        let entries = self.entries.get(start..end)?.iter();
        entries
            .filter(|entry| **entry & !mask == tag)
            .map(|entry| entry & mask)
            .skip_while(|line| *line < from)
            .take_while(|line| *line < before)
            .find(|line| is_same(*line))
    }

    /// The first line in `from..before` whose name is `host` (exact) or `host` or above it
    /// (suffix). `is_same` compares a line with its reach and the name that it must have.
    pub fn find(
        &self,
        host: &str,
        from: u32,
        before: u32,
        is_same: impl Fn(u32, Reach, &[u8]) -> bool,
    ) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let bytes = host.as_bytes();
        let mut best = None;
        let mut state = START;
        let mut look = |hash: u32, reach: Reach, name: &[u8]| {
            let before = best.unwrap_or(before);
            let line = self.first(hash, from, before, |line| is_same(line, reach, name));
            best = line.or(best);
        };
        for (i, byte) in bytes.iter().enumerate().rev() {
            if *byte == b'.' {
                look(
                    finished(state),
                    Reach::Suffix,
                    bytes.get(i + 1..).unwrap_or_default(),
                );
            }
            state = stepped(state, *byte);
        }
        look(finished(state), Reach::Suffix, bytes);
        look(finished(stepped(state, EXACT)), Reach::Exact, bytes);
        best
    }
}

/// FNV-1a's, by which a name is hashed from its end: a parent's hash is a step on the way.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Ends the hash of an exact line; no name has this byte.
const EXACT: u8 = 0xff;

/// The hash of a line's name.
pub(super) fn hash(name: &str, reach: Reach) -> u32 {
    let state = name.bytes().rev().fold(START, stepped);
    finished(match reach {
        Reach::Exact => stepped(state, EXACT),
        Reach::Suffix => state,
    })
}

fn stepped(state: u64, byte: u8) -> u64 {
    (state ^ u64::from(byte)).wrapping_mul(PRIME)
}

/// FNV mixes its high bits badly for short names; the product's are good. Bucket and tag together
/// take 29 bits of these 32, however long the list is.
fn finished(state: u64) -> u32 {
    let mixed = (state ^ (state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// The hash scaled to the number of buckets, which is no power of two.
fn bucket(hash: u32, buckets: usize) -> usize {
    ((u64::from(hash) * buckets as u64) >> 32) as usize
}

fn line_mask(line_bits: u32) -> u32 {
    1u32.checked_shl(line_bits).map_or(u32::MAX, |bit| bit - 1)
}

/// The low bits of the hash, since its high ones chose the bucket, where an entry has no line.
fn tag(hash: u32, line_bits: u32) -> u32 {
    hash.checked_shl(line_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[(&'static str, Reach)]) -> impl Fn(&str, u32) -> Option<u32> {
        let names = names.to_vec();
        let hashes = names.iter().zip(0..).map(|((n, r), i)| (hash(n, *r), i));
        let built = Names::build(hashes.collect(), names.len());
        move |host, from| {
            built.find(host, from, u32::MAX, |line, reach, name| {
                let (n, r) = names[line as usize];
                (n.as_bytes(), r) == (name, reach)
            })
        }
    }

    #[test]
    fn the_first_line_wins_whatever_its_reach() {
        use Reach::{Exact, Suffix};
        let find = table(&[
            ("a.org", Exact),
            ("b.a.org", Suffix),
            ("org", Suffix),
            ("c.b.a.org", Exact),
            ("b.a.org", Suffix),
        ]);
        assert_eq!(find("a.org", 0), Some(0));
        assert_eq!(find("x.a.org", 0), Some(2));
        assert_eq!(find("c.b.a.org", 0), Some(1));
        assert_eq!(find("c.b.a.org", 3), Some(3));
        assert_eq!(find("c.b.a.org", 4), Some(4));
        assert_eq!(find("c.b.a.org", 5), None);
        assert_eq!(find("forg", 0), None);
        assert_eq!(find("", 0), None);
    }

    #[test]
    fn an_equal_hash_is_not_an_equal_name() {
        let built = Names::build(vec![(hash("a", Reach::Suffix), 7)], 8);
        assert_eq!(built.find("a", 0, 8, |_, _, _| true), Some(7));
        assert_eq!(built.find("a", 0, 8, |_, _, _| false), None);
        assert_eq!(built.find("a", 0, 7, |_, _, _| true), None);
    }
}
