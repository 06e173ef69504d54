//! Tables as nft text, the way `headgate ruleset` prints them and `nft -f` reads them.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::options::Mark;
use super::table::{Chain, Elements, Expression, Family, Field, Hook, Place, Set, SetKind, Table};
use crate::prefix::{Prefix, from_bits};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        if self.owned {
            // `nft -f` could not keep such a table: it would die with nft itself.
            writeln!(
                f,
                "\t# flags owner: lives as long as the daemon's netlink socket"
            )?;
        }
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (kind, flags) = match self.kind {
            SetKind::Protocols => ("inet_proto", "timeout"),
            SetKind::Interfaces => ("ifname", ""),
            SetKind::AddressTypes => ("fib_addrtype", ""),
            SetKind::Ports => ("inet_service", ""),
            SetKind::Ethers => ("ether_addr", ""),
            SetKind::Ranges(family) => (family.address(), "interval"),
            SetKind::Hosts(family) => (family.address(), ""),
            SetKind::TimedHosts(family, _) => (family.address(), "timeout"),
        };
        writeln!(f, "\tset {} {{\n\t\ttype {kind}", self.name)?;
        if let SetKind::TimedHosts(_, size) = self.kind {
            writeln!(f, "\t\tsize {size}")?;
        }
        if !flags.is_empty() {
            writeln!(f, "\t\tflags {flags}")?;
        }
        let elements = self.elements.texts();
        if !elements.is_empty() {
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl Elements {
    fn texts(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Alive(milliseconds) => ["tcp", "udp"]
                .map(|name| format!("{name} timeout {milliseconds}ms"))
                .into(),
            Self::Names(names) => names.iter().map(|name| format!("\"{name}\"")).collect(),
            Self::NearTypes => ["local", "broadcast", "anycast", "multicast"]
                .map(String::from)
                .into(),
            Self::Ports(ports) => ports.iter().map(u16::to_string).collect(),
            Self::Ethers(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Self::Hosts(addresses) => addresses.iter().map(IpAddr::to_string).collect(),
            Self::Ranges { family, ranges } => {
                let v4 = *family == Family::V4;
                ranges.iter().map(|&range| range_text(range, v4)).collect()
            }
        }
    }
}

/// A range as `first/length` where one prefix says it, else as `first-last`.
fn range_text((first, last): (u128, u128), v4: bool) -> String {
    let width = if v4 { 32 } else { 128 };
    let address = from_bits(first, v4);
    (0..=width)
        .map(|length| Prefix::new(address, length))
        .find(|prefix| prefix.range() == (first, last))
        .map_or_else(
            || format!("{address}-{}", from_bits(last, v4)),
            |prefix| prefix.to_string(),
        )
}

impl Family {
    fn address(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(Hook {
            kind,
            place,
            priority,
        }) = self.hook
        {
            let place = match place {
                Place::Prerouting => "prerouting",
                Place::Input => "input",
                Place::Forward => "forward",
                Place::Output => "output",
            };
            writeln!(
                f,
                "\t\ttype {kind} hook {place} priority {priority}; policy accept;"
            )?;
        }
        for rule in &self.rules {
            f.write_str("\t\t")?;
            for (at, expression) in rule.iter().enumerate() {
                write!(f, "{}{expression}", if at == 0 { "" } else { " " })?;
            }
            f.write_str("\n")?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputInterface => f.write_str("iifname"),
            Self::Protocol => f.write_str("meta l4proto"),
            Self::DestinationType => f.write_str("fib daddr type"),
            Self::DestinationPort => f.write_str("th dport"),
            Self::Destination(family) => write!(f, "{} daddr", family.header()),
            Self::Source(family) => write!(f, "{} saddr", family.header()),
            Self::EtherSource => f.write_str("ether saddr"),
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let set = |f: &mut Formatter<'_>, key: &str, mark: &Mark| {
            write!(
                f,
                "{key} set {key} & {:#010x} | {:#010x}",
                !mark.mask, mark.value
            )
        };
        match self {
            Self::In(field, set) => write!(f, "{field} @{set}"),
            Self::FromLoopback => f.write_str("iifname \"lo\""),
            Self::NotFromLoopback => f.write_str("iifname != \"lo\""),
            Self::ToLoopback => f.write_str("oifname \"lo\""),
            Self::Is(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Is(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Over(protocol) => write!(f, "meta l4proto {}", *protocol as u8),
            Self::Port(port) => write!(f, "th dport {port}"),
            Self::Marked(m) => write!(f, "meta mark & {:#010x} == {:#010x}", m.mask, m.value),
            Self::NotMarked(m) => write!(f, "meta mark & {:#010x} != {:#010x}", m.mask, m.value),
            Self::ConnectionMarked(m) => {
                write!(f, "ct mark & {:#010x} == {:#010x}", m.mask, m.value)
            }
            Self::Reply => f.write_str("ct direction reply"),
            Self::Confirmed => f.write_str("ct status confirmed"),
            Self::Translated => f.write_str("ct status snat,dnat"),
            Self::DestinationUntranslated => f.write_str("ct status & dnat == 0"),
            Self::SetMark(mark) => set(f, "meta mark", mark),
            Self::SetConnectionMark(mark) => set(f, "ct mark", mark),
            Self::TProxy(Family::V4, port) => write!(f, "tproxy ip to 127.0.0.1:{port}"),
            Self::TProxy(Family::V6, port) => write!(f, "tproxy ip6 to [::1]:{port}"),
            Self::KeepDestination(family) => {
                write!(f, "dnat {0} to {0} daddr", family.header())
            }
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
