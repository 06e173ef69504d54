//! What this kernel can do, asked by rehearsing a small rule for each feature.
//!
//! A rehearsal makes the kernel load the module if it has it, and leaves nothing behind.

use std::fmt;

use nix::errno::Errno;

use super::encode;
use super::options::Mark;
use super::table::{Chain, Expression, Family, Field, Hook, Place, Set, SetKind, Table};
use super::table::{Elements, Transport};
use crate::platform::netlink::{Batch, NetlinkError, Socket};

/// Something that the rules need of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// nftables with tables that have an owner.
    OwnedTables,
    /// Connection tracking in rules.
    ConnectionTracking,
    /// Route lookups in rules.
    Fib,
    /// Address translation.
    Nat,
    /// `reject`, which guards the redirect listener.
    Reject,
    /// `tproxy`; redirect takes its place for TCP and DNS.
    TProxy,
}

impl Feature {
    /// Those without which nothing can be captured.
    pub const NEEDED: [Self; 5] = [
        Self::OwnedTables,
        Self::ConnectionTracking,
        Self::Fib,
        Self::Nat,
        Self::Reject,
    ];

    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::OwnedTables,
        Self::ConnectionTracking,
        Self::Fib,
        Self::Nat,
        Self::Reject,
        Self::TProxy,
    ];

    /// The OpenWrt package, or the kernel, that has it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::OwnedTables => "kmod-nft-core on a kernel of 5.12 or later (OpenWrt 23.05)",
            Self::ConnectionTracking => "kmod-nf-conntrack",
            Self::Fib => "kmod-nft-fib",
            Self::Nat => "kmod-nft-nat",
            Self::Reject => "kmod-nft-core",
            Self::TProxy => "kmod-nft-tproxy",
        }
    }

    /// A rule that has need of it, and the kind of chain that it can stand in.
    fn sample(self) -> (&'static str, Place, Vec<Expression>) {
        match self {
            Self::OwnedTables => ("filter", Place::Prerouting, vec![Expression::Accept]),
            Self::ConnectionTracking => {
                let mark = Mark { value: 1, mask: 1 };
                let rule = vec![Expression::Confirmed, Expression::SetConnectionMark(mark)];
                ("filter", Place::Prerouting, rule)
            }
            Self::Fib => {
                let rule = vec![Expression::In(Field::DestinationType, "near")];
                ("filter", Place::Prerouting, rule)
            }
            Self::Nat => {
                let rule = vec![Expression::KeepDestination(Family::V4)];
                ("nat", Place::Prerouting, rule)
            }
            Self::Reject => {
                let rule = vec![Expression::Over(Transport::Tcp), Expression::Reset];
                ("filter", Place::Input, rule)
            }
            Self::TProxy => {
                let rule = vec![
                    Expression::Is(Family::V4),
                    Expression::Over(Transport::Tcp),
                    Expression::TProxy(Family::V4, 1),
                ];
                ("filter", Place::Prerouting, rule)
            }
        }
    }

    /// A chain with that rule.
    fn chain(self) -> Chain {
        let (kind, place, rule) = self.sample();
        let hook = Hook {
            kind,
            place,
            priority: -150,
        };
        let name = match self {
            Self::OwnedTables => "owned",
            Self::ConnectionTracking => "tracking",
            Self::Fib => "fib",
            Self::Nat => "nat",
            Self::Reject => "reject",
            Self::TProxy => "tproxy",
        };
        Chain {
            name,
            hook: Some(hook),
            rules: vec![rule],
        }
    }

    /// Whether the kernel has all of `features`. One rehearsal, since the kernel waits for a grace
    /// period (some 10 to 20 ms) after each.
    ///
    /// # Errors
    /// What stands in the way of asking: no permission, no memory.
    pub fn present(features: &[Self], socket: &mut Socket) -> Result<bool, NetlinkError> {
        let near = Set {
            name: "near",
            kind: SetKind::AddressTypes,
            elements: Elements::NearTypes,
        };
        let table = Table {
            name: "headgate_rehearsal",
            owned: true,
            sets: vec![near],
            chains: features.iter().map(|feature| feature.chain()).collect(),
        };
        let mut batch = Batch::transaction();
        encode::replace(&mut batch, &table);
        match socket.rehearse(batch) {
            Ok(()) => Ok(true),
            // ENOENT: no such expression or chain type; the others: too old for the flag.
            Err(NetlinkError::Refused(
                _,
                Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EAFNOSUPPORT,
            )) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnedTables => "nftables with owned tables",
            Self::ConnectionTracking => "connection tracking in nftables",
            Self::Fib => "route lookups in nftables (fib)",
            Self::Nat => "address translation in nftables",
            Self::Reject => "reject in nftables",
            Self::TProxy => "tproxy in nftables",
        })
    }
}
