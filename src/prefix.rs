//! Address prefixes (CIDR, RFC 4632 and RFC 4291 section 2.3), the one parser of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and how many of its leading bits count. Host bits are kept as written, since
/// APIs show a prefix as the user wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// The part before the slash is not an address.
    Address,
    /// The part after the slash is not a length of that family.
    Length,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "not an IP address",
            Self::Length => "not a prefix length",
        })
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// `length` leading bits of `address`; lengths beyond the family's width mean the whole.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let width = if address.is_ipv4() { 32 } else { 128 };
        Self {
            address,
            length: length.min(width),
        }
    }

    /// The prefix that holds this address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, 128)
    }

    /// The address as written, host bits included.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// First and last address, as integers of the family's width (IPv4 in the low 32 bits).
    #[must_use]
    pub fn range(&self) -> (u128, u128) {
        let (value, width) = bits(self.address);
        let free = width - u32::from(self.length);
        let mask = if free >= 128 {
            u128::MAX
        } else {
            (1u128 << free) - 1
        };
        (value & !mask, value | mask)
    }

    /// The first address of the prefix.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        from_bits(self.range().0, self.address.is_ipv4())
    }

    /// The last address of the prefix.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        from_bits(self.range().1, self.address.is_ipv4())
    }

    /// Whether `address` lies inside. Families never match each other; IPv4-mapped IPv6
    /// addresses must be made IPv4 before ([`IpAddr::to_canonical`]).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        if address.is_ipv4() != self.address.is_ipv4() {
            return false;
        }
        let (first, last) = self.range();
        (first..=last).contains(&bits(address).0)
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }
}

/// An address as an integer, and its width in bits.
#[must_use]
pub fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// The address of an integer made by [`bits`].
#[must_use]
pub fn from_bits(value: u128, v4: bool) -> IpAddr {
    if v4 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an IPv4 address is the low 32 bits"
        )]
        IpAddr::V4(Ipv4Addr::from_bits(value as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(value))
    }
}

/// The fewest prefixes that hold exactly the addresses from `first` to `last`, which are of one
/// family and in order; none otherwise.
#[must_use]
pub fn cover(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
    let ((mut at, width), (end, other)) = (bits(first), bits(last));
    let mut prefixes = Vec::new();
    while width == other && at <= end {
        // The largest block that begins here and does not pass the end.
        let mut free = at.trailing_zeros().min(width);
        while free > 0 && (free >= 128 || at + ((1u128 << free) - 1) > end) {
            if free >= 128 && end == u128::MAX && at == 0 {
                break;
            }
            free -= 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a width is at most 128")]
        let length = (width - free) as u8;
        let prefix = Prefix::new(from_bits(at, width == 32), length);
        prefixes.push(prefix);
        match prefix.range().1.checked_add(1) {
            Some(next) => at = next,
            None => break,
        }
    }
    prefixes
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `address/length`, or an address alone for the host prefix.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => width,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| PrefixError::Length)?
            }
            Some(_) => return Err(PrefixError::Length),
        };
        if length > width {
            return Err(PrefixError::Length);
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Whether an address is of a network of one's own, and so of no country: private, loopback, link-local, a
/// carrier's (RFC 1918, 6598, 3927, 4193).
#[must_use]
pub fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let carrier = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || carrier
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_kept_but_do_not_count() {
        let p = prefix("10.1.2.3/8");
        assert_eq!(p.to_string(), "10.1.2.3/8");
        assert_eq!(p.network().to_string(), "10.0.0.0");
        assert_eq!(p.last().to_string(), "10.255.255.255");
        assert!(p.contains("10.200.0.1".parse().unwrap()));
        assert!(!p.contains("11.0.0.0".parse().unwrap()));
        assert!(!p.contains("::".parse().unwrap()));
    }

    #[test]
    fn lengths_at_both_ends() {
        assert!(prefix("::/0").contains("ffff::1".parse().unwrap()));
        assert!(prefix("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
        assert_eq!(prefix("fe80::1"), Prefix::host("fe80::1".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "1.2.3",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "::/129",
            "1.2.3.4/8/8",
            "a/8",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_covered_exactly() {
        let check = |first: &str, last: &str, want: &[&str]| {
            let covered = cover(first.parse().unwrap(), last.parse().unwrap());
            let covered: Vec<String> = covered.iter().map(Prefix::to_string).collect();
            assert_eq!(covered, want);
        };
        check("0.0.0.0", "255.255.255.255", &["0.0.0.0/0"]);
        check("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]);
        check(
            "10.0.0.1",
            "10.0.0.6",
            &["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"],
        );
        check(
            "255.255.255.254",
            "255.255.255.255",
            &["255.255.255.254/31"],
        );
        check("::1", "::1", &["::1/128"]);
        check("10.0.0.2", "10.0.0.1", &[]);
        check("10.0.0.2", "::1", &[]);
    }

    #[test]
    fn overlap_is_symmetric() {
        let (wide, narrow, other) = (
            prefix("10.0.0.0/8"),
            prefix("10.1.0.0/16"),
            prefix("11.0.0.0/8"),
        );
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!wide.overlaps(&other) && !other.overlaps(&wide));
    }
}
