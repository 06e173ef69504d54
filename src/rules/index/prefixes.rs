//! IP-CIDR and SRC-IP-CIDR lines of one family: a forest of prefixes in sorted arrays.
//!
//! Of two prefixes one holds the other or they share nothing, so each has one parent: the
//! smallest that holds it. The last prefix that starts at or before an address, or one of its
//! ancestors, is the smallest around that address, and the ancestors of that one are all the
//! others. Equal prefixes are each other's ancestors in the order of their lines.

use crate::prefix::Prefix;

/// No parent.
const ROOT: u32 = u32::MAX;

/// The table; `A` is the family's integer. Thirteen bytes a line for IPv4.
pub(super) struct Prefixes<A> {
    starts: Box<[A]>,
    lengths: Box<[u8]>,
    parents: Box<[u32]>,
    lines: Box<[u32]>,
}

impl<A: Copy + Ord + Into<u128> + TryFrom<u128>> Prefixes<A> {
    /// Builds from prefixes of this family only and their lines.
    pub fn build(prefixes: &[(Prefix, u32)]) -> Self {
        let mut sorted: Vec<(A, u8, u32, u128)> = prefixes
            .iter()
            .filter_map(|(prefix, line)| {
                let (first, last) = prefix.range();
                Some((A::try_from(first).ok()?, prefix.length(), *line, last))
            })
            .collect();
        sorted.sort_unstable_by_key(|(start, length, line, _)| (*start, *length, *line));
        let mut parents = Vec::with_capacity(sorted.len());
        // The prefixes that are still open where the sweep stands: number and last address.
        let mut open: Vec<(u32, u128)> = Vec::new();
        for (number, (start, _, _, last)) in (0..).zip(&sorted) {
            while open.pop_if(|(_, end)| *end < (*start).into()).is_some() {}
            parents.push(open.last().map_or(ROOT, |(number, _)| *number));
            open.push((number, *last));
        }
        Self {
            starts: sorted.iter().map(|entry| entry.0).collect(),
            lengths: sorted.iter().map(|entry| entry.1).collect(),
            parents: parents.into(),
            lines: sorted.iter().map(|entry| entry.2).collect(),
        }
    }

    /// The first line at or after `from` whose prefix holds `address`. Costs a binary search and
    /// the climb, at most one step per bit besides repeated lines.
    pub fn find(&self, address: A, from: u32) -> Option<u32> {
        let width = 8 * u32::try_from(size_of::<A>()).unwrap_or_default();
        let mut next = self.starts.partition_point(|start| *start <= address);
        next = next.checked_sub(1)?;
        let mut best = None;
        let mut inside = false;
        while let (Some(start), Some(length)) = (self.starts.get(next), self.lengths.get(next)) {
            let differing: u128 = (*start).into() ^ address.into();
            let free = width.saturating_sub(u32::from(*length));
            inside = inside || differing.checked_shr(free).unwrap_or(0) == 0;
            if inside {
                let line = self.lines.get(next).copied().filter(|line| *line >= from);
                best = best.into_iter().chain(line).min();
            }
            let Some(parent) = self.parents.get(next).filter(|parent| **parent != ROOT) else {
                break;
            };
            next = *parent as usize;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::from_bits;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn value(text: &str) -> u32 {
        match text.parse() {
            Ok(IpAddr::V4(v4)) => v4.to_bits(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nested_and_repeated_prefixes_give_the_first_line() {
        let texts = [
            "10.1.0.0/16",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "0.0.0.0/0",
            "10.1.2.3/32",
        ];
        let list: Vec<_> = texts
            .iter()
            .zip(0..)
            .map(|(t, i)| (t.parse().unwrap(), i))
            .collect();
        let table = Prefixes::<u32>::build(&list);
        assert_eq!(table.find(value("10.1.2.3"), 0), Some(0));
        assert_eq!(table.find(value("10.1.2.3"), 1), Some(1));
        assert_eq!(table.find(value("10.1.2.3"), 2), Some(2));
        assert_eq!(table.find(value("10.1.2.4"), 3), Some(3));
        assert_eq!(table.find(value("10.1.2.3"), 4), Some(4));
        assert_eq!(table.find(value("10.1.2.4"), 4), None);
        assert_eq!(table.find(value("9.0.0.0"), 0), Some(3));
        assert_eq!(Prefixes::<u32>::build(&[]).find(0, 0), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_walk(
            list in prop::collection::vec((any::<u128>(), 0u8..=128), 0..30),
            wide in any::<bool>(),
            picks in prop::collection::vec((0usize..30, any::<u128>(), 0u32..140), 20),
            from in 0u32..30,
        ) {
            let list: Vec<_> = list
                .iter()
                .zip(0..)
                // Few distinct leading bits, so that prefixes nest.
                .map(|((bits, length), i)| {
                    let bits = bits & (0x0107u128 << 112 | 0xff);
                    (if wide {
                        Prefix::new(from_bits(bits, false), *length)
                    } else {
                        Prefix::new(from_bits(bits >> 96, true), *length / 4)
                    }, i)
                })
                .collect();
            let narrow_table = Prefixes::<u32>::build(if wide { &[] } else { &list });
            let wide_table = Prefixes::<u128>::build(if wide { &list } else { &[] });
            for (pick, noise, keep) in picks {
                let base = list.get(pick).map_or(0, |(prefix, _)| prefix.range().0);
                let value = base ^ noise.checked_shr(keep).unwrap_or(0);
                let value = if wide { value } else { value & 0xffff_ffff };
                let ip = from_bits(value, !wide);
                let want = list.iter().find(|(p, i)| *i >= from && p.contains(ip)).map(|(_, i)| *i);
                let got = if wide {
                    wide_table.find(value, from)
                } else {
                    narrow_table.find(u32::try_from(value).unwrap(), from)
                };
                prop_assert_eq!(got, want);
            }
        }
    }
}
