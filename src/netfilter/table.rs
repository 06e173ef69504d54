//! nftables tables as values: the one description from which the text for people
//! ([`super::text`]) and the messages for the kernel ([`super::encode`]) are both made.
//!
//! Not a model of all of nftables: exactly the sets, chains and expressions that headgate
//! uses, so that nothing can be said here which one of the two renderings cannot express.

use std::net::IpAddr;

use super::options::Mark;
use crate::metadata::Mac;
use crate::prefix::{Prefix, bits};

/// One table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Whether it dies with the socket that made it.
    pub owned: bool,
    /// Its sets.
    pub sets: Vec<Set>,
    /// Its chains; a chain is only named by those before it or by base chains.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// What its elements are.
    pub kind: SetKind,
    /// The elements that it starts with.
    pub elements: Elements,
}

/// Type and flags of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// `inet_proto` with timeouts: the dead man's switch.
    Protocols,
    /// `ifname`.
    Interfaces,
    /// `fib_addrtype`.
    AddressTypes,
    /// `inet_service`.
    Ports,
    /// `ether_addr`.
    Ethers,
    /// Address ranges.
    Ranges(Family),
    /// Single addresses.
    Hosts(Family),
    /// Single addresses with timeouts, at most so many.
    TimedHosts(Family, u32),
}

/// What a set starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Nothing.
    None,
    /// TCP and UDP, each for so many milliseconds.
    Alive(u64),
    /// Interface names, each at most 15 bytes.
    Names(Vec<Box<str>>),
    /// `local`, `broadcast`, `anycast`, `multicast`.
    NearTypes,
    /// Ports.
    Ports(&'static [u16]),
    /// Ethernet addresses.
    Ethers(Vec<Mac>),
    /// Sorted ranges that neither overlap nor touch, both ends inside ([`ranges`]).
    Ranges {
        /// Of which family.
        family: Family,
        /// First and last address of each, as integers ([`bits`]).
        ranges: Vec<(u128, u128)>,
    },
    /// Sorted addresses.
    Hosts(Vec<IpAddr>),
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Whether `address` is of this family.
    #[must_use]
    pub fn holds(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// Bytes of an address.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where the kernel enters it; `None`: only other chains do.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a base chain sits. The policy is always accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter`, `nat` or `route`.
    pub kind: &'static str,
    /// `prerouting`, `input`, `forward` or `output`.
    pub place: Place,
    /// Smaller is earlier.
    pub priority: i32,
}

/// The hooks of the network stack, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All that arrives, before routing.
    Prerouting = 0,
    /// What is for the router itself.
    Input = 1,
    /// What passes through.
    Forward = 2,
    /// What the router sends.
    Output = 3,
}

/// Expressions from left to right; the first that does not match ends the rule.
pub type Rule = Vec<Expression>;

/// What a lookup takes from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Name of the interface it came in by.
    InputInterface,
    /// Transport protocol.
    Protocol,
    /// What the routing tables say of the destination address.
    DestinationType,
    /// TCP or UDP destination port.
    DestinationPort,
    /// Destination address.
    Destination(Family),
    /// Source address.
    Source(Family),
    /// Ethernet source address.
    EtherSource,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// One expression of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expression {
    /// The field is in the set.
    In(Field, &'static str),
    /// It came in by the loopback device.
    FromLoopback,
    /// It came in by another device than loopback.
    NotFromLoopback,
    /// It leaves by the loopback device.
    ToLoopback,
    /// The packet's family.
    Is(Family),
    /// The packet's transport protocol.
    Over(Transport),
    /// The destination port.
    Port(u16),
    /// The packet's mark.
    Marked(Mark),
    /// The packet has another mark.
    NotMarked(Mark),
    /// The tracked connection's mark.
    ConnectionMarked(Mark),
    /// The packet answers the one that opened the connection.
    Reply,
    /// An earlier packet of this connection went all the way through.
    Confirmed,
    /// The connection's source or destination is translated (NAT).
    Translated,
    /// The connection's destination is not translated.
    DestinationUntranslated,
    /// Sets the packet's mark.
    SetMark(Mark),
    /// Sets the tracked connection's mark.
    SetConnectionMark(Mark),
    /// Hands it to the transparent socket on this port of the loopback address; no match
    /// when there is none.
    TProxy(Family, u16),
    /// Settles destination translation for this connection on "none".
    KeepDestination(Family),
    /// Translates the destination to this port of the router itself.
    Redirect(u16),
    /// Answers with a TCP reset.
    Reset,
    /// Ends the hook.
    Accept,
    /// Ends the packet.
    Drop,
    /// Ends the chain.
    Return,
    /// Goes to a chain for good.
    Goto(&'static str),
}

/// The ranges of one family that `prefixes` cover, sorted and joined where they touch.
#[must_use]
pub fn ranges(prefixes: &[Prefix], family: Family) -> Vec<(u128, u128)> {
    let mut all: Vec<_> = prefixes
        .iter()
        .filter(|prefix| family.holds(prefix.address()))
        .map(Prefix::range)
        .collect();
    all.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// The addresses of one family, sorted, each once.
#[must_use]
pub fn hosts(addresses: &[IpAddr], family: Family) -> Vec<IpAddr> {
    let mut hosts: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|a| family.holds(*a))
        .collect();
    hosts.sort_unstable_by_key(|address| bits(*address).0);
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let prefixes: Vec<Prefix> = ["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7", "::/0"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(ranges(&prefixes, Family::V4), [(0x0a00_0000, 0x0a00_01ff)]);
        assert_eq!(ranges(&prefixes, Family::V6), [(0, u128::MAX)]);
    }

    proptest! {
        #[test]
        fn ranges_cover_what_the_prefixes_cover_and_nothing_else(
            parts in proptest::collection::vec((any::<u8>(), 24_u8..=32), 0..8),
            probe in any::<u8>(),
        ) {
            let prefixes: Vec<Prefix> = parts
                .iter()
                .map(|&(last, length)| Prefix::new(IpAddr::from([9, 9, 9, last]), length))
                .collect();
            let address = IpAddr::from([9, 9, 9, probe]);
            let joined = ranges(&prefixes, Family::V4);
            let inside = joined.iter().any(|&(a, b)| (a..=b).contains(&bits(address).0));
            prop_assert_eq!(inside, prefixes.iter().any(|p| p.contains(address)));
            prop_assert!(joined.windows(2).all(|w| w[0].1 + 1 < w[1].0));
        }
    }
}
