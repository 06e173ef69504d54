//! A set of addresses as sorted ranges that do not touch: eight bytes a prefix for IPv4, fewer
//! where prefixes lie beside or in each other. The answer is a binary search.

use std::net::IpAddr;

use crate::prefix::{Prefix, bits, from_bits};
use crate::rules::intervals::Intervals;

/// The set.
pub struct AddressSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl AddressSet {
    /// Whether `address` is inside; IPv4-mapped addresses are IPv4 to the caller.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }

    /// First and last of each range, IPv4 before IPv6, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<(IpAddr, IpAddr)> {
        let v4 = self
            .v4
            .iter()
            .map(|(first, last)| (u128::from(*first), u128::from(*last), true));
        let v6 = self.v6.iter().map(|(first, last)| (*first, *last, false));
        let all = v4.chain(v6);
        all.map(|(first, last, v4)| (from_bits(first, v4), from_bits(last, v4)))
            .collect()
    }

    /// The fewest prefixes that are the same addresses.
    #[must_use]
    pub fn prefixes(&self) -> Vec<Prefix> {
        let mut all = Vec::new();
        for (first, last) in self.ranges() {
            let (last, _) = bits(last);
            let (mut next, width) = bits(first);
            loop {
                // As many addresses as stand at such a place and are left.
                let left = (last - next)
                    .checked_add(1)
                    .map_or(128, |count| count.ilog2());
                let free = next.trailing_zeros().min(left).min(width);
                let length = u8::try_from(width - free).unwrap_or(0);
                all.push(Prefix::new(from_bits(next, first.is_ipv4()), length));
                let size = 1u128.checked_shl(free);
                match size.and_then(|size| next.checked_add(size)) {
                    Some(behind) if behind <= last => next = behind,
                    _ => break,
                }
            }
        }
        all
    }

    /// The addresses of one family.
    pub(in crate::rules) fn intervals(&self, v4: bool) -> Intervals {
        let mut all = Intervals::none();
        if v4 {
            for (first, last) in &self.v4 {
                all.push((*first).into(), (*last).into());
            }
        } else {
            for (first, last) in &self.v6 {
                all.push(*first, *last);
            }
        }
        all
    }
}

fn holds<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    let before = behind.checked_sub(1).and_then(|at| ranges.get(at));
    before.is_some_and(|(_, last)| address <= *last)
}

/// Collects ranges.
#[derive(Default)]
pub struct AddressSetBuilder {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AddressSetBuilder {
    /// Adds a prefix.
    pub fn push(&mut self, prefix: Prefix) {
        let (first, last) = prefix.range();
        self.push_range(first, last, prefix.address().is_ipv4());
    }

    /// Adds the addresses from `first` to `last` of one family; those the wrong way round are none.
    pub fn push_range(&mut self, first: u128, last: u128, v4: bool) {
        if first > last {
            return;
        }
        match (v4, u32::try_from(first), u32::try_from(last)) {
            (true, Ok(first), Ok(last)) => self.v4.push((first, last)),
            (true, _, _) => {}
            (false, _, _) => self.v6.push((first, last)),
        }
    }

    /// The set.
    #[must_use]
    pub fn finish(self) -> AddressSet {
        AddressSet {
            v4: merged(self.v4, |last| last.checked_add(1)),
            v6: merged(self.v6, |last| last.checked_add(1)),
        }
    }
}

fn merged<A: Copy + Ord>(mut ranges: Vec<(A, A)>, next: impl Fn(A) -> Option<A>) -> Box<[(A, A)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let touches = next(earlier.1).is_none_or(|next| later.0 <= next);
        if touches {
            earlier.1 = earlier.1.max(later.1);
        }
        touches
    });
    ranges.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_prefixes(
            prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            picks in proptest::collection::vec((0usize..20, any::<u32>(), 0u32..33), 20),
        ) {
            // Few leading bits, so that prefixes touch and nest.
            let prefixes: Vec<Prefix> = prefixes
                .iter()
                .map(|(bits, length)| Prefix::new(IpAddr::V4((bits & 0x0300_00ff).into()), *length))
                .collect();
            let mut builder = AddressSetBuilder::default();
            prefixes.iter().for_each(|prefix| builder.push(*prefix));
            let set = builder.finish();
            for (pick, noise, keep) in picks {
                let base = prefixes.get(pick).map_or(0, |prefix| u32::try_from(prefix.range().0).unwrap());
                let ip = IpAddr::V4((base ^ noise.checked_shr(keep).unwrap_or(0)).into());
                prop_assert_eq!(set.contains(ip), prefixes.iter().any(|prefix| prefix.contains(ip)));
            }
        }
    }

    #[test]
    fn the_ends_of_both_families_are_exact() {
        let mut builder = AddressSetBuilder::default();
        for prefix in ["255.255.255.255/32", "0.0.0.0/32", "ffff::/16", "::/128"] {
            builder.push(prefix.parse().unwrap());
        }
        let set = builder.finish();
        for (address, want) in [
            ("255.255.255.255", true),
            ("255.255.255.254", false),
            ("0.0.0.0", true),
            ("ffff:ffff::1", true),
            ("::", true),
            ("::1", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), want, "{address}");
        }
    }
}
