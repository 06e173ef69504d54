//! `hosts:` of the configuration, the system's hosts file (hosts(5)), and DHCP leases.
//!
//! The configuration's table comes first: domain wildcards to addresses or to another name. Aliases
//! are followed through the table; one that leaves it is handed back to be resolved. Then the system's
//! file, then the names that devices gave themselves when they asked for a lease: those are hostile, so
//! only plain labels count, alone and with the local domain behind them. A file is read again when it
//! has changed, and looked at once in five seconds at most.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::domain_set::{BadPattern, DomainSet};
use super::options::HostsValue;

/// Time to live of answers from here, seconds (as mihomo).
pub const TTL: u32 = 10;
/// Aliases followed inside the table.
const ALIASES_MAX: usize = 16;
/// How often the system's file is looked at.
const RECHECK_TIME: Duration = Duration::from_secs(5);
/// How much of the system's file is read; block lists of that kind belong into rules.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the tables say of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name at the end of the aliases, when there were any.
    pub alias: Option<Box<str>>,
    /// Its addresses of both families; `None`: not in the table, to be resolved.
    pub addresses: Option<Vec<IpAddr>>,
}

/// Table: the configuration's part is a snapshot, the system's part follows its file.
pub struct Hosts {
    patterns: DomainSet,
    values: Box<[HostsValue]>,
    files: Box<[Mutex<Followed>]>,
}

/// A file that is followed.
#[derive(Default)]
struct Followed {
    path: PathBuf,
    /// It holds leases; the domain of their names.
    leases_of: Option<Box<str>>,
    looked_at: Option<Instant>,
    changed: Option<SystemTime>,
    names: HashMap<Box<str>, Vec<IpAddr>>,
}

impl Hosts {
    /// `table`: patterns and values of `hosts:`; `system`: the system's hosts file, if it counts.
    ///
    /// # Errors
    /// [`BadPattern`] by its index in `table`.
    pub fn new(
        table: &[(Box<str>, HostsValue)],
        system: Option<PathBuf>,
    ) -> Result<Self, BadPattern> {
        let followed = system.map(|path| Followed {
            path,
            ..Followed::default()
        });
        Ok(Self {
            patterns: DomainSet::new(table.iter().map(|(pattern, _)| &**pattern))?,
            values: table.iter().map(|(_, value)| value.clone()).collect(),
            files: followed.into_iter().map(Mutex::new).collect(),
        })
    }

    /// Adds lease files, whose names are below `domain`.
    #[must_use]
    pub fn with_leases(mut self, files: &[PathBuf], domain: &str) -> Self {
        let followed = files.iter().map(|path| Followed {
            path: path.clone(),
            leases_of: Some(domain.into()),
            ..Followed::default()
        });
        self.files = self
            .files
            .into_iter()
            .chain(followed.map(Mutex::new))
            .collect();
        self
    }

    /// What the tables say of `name` (lower case); `None`: nothing.
    #[must_use]
    pub fn find(&self, name: &str, now: Instant) -> Option<Found> {
        let mut name = Cow::Borrowed(name);
        let mut alias = None;
        for _ in 0..ALIASES_MAX {
            match self.find_one(&name, now) {
                Some(HostsValue::Addresses(addresses)) => {
                    return Some(Found {
                        alias,
                        addresses: Some(addresses),
                    });
                }
                Some(HostsValue::Alias(target)) if *target != *name => {
                    alias = Some(target.clone());
                    name = Cow::Owned(target.into());
                }
                _ => break,
            }
        }
        alias.map(|alias| Found {
            alias: Some(alias),
            addresses: None,
        })
    }

    fn find_one(&self, name: &str, now: Instant) -> Option<HostsValue> {
        if let Some(found) = self.patterns.find(name) {
            return match self.values.get(found)? {
                HostsValue::Lan => Some(HostsValue::Addresses(own_addresses())),
                value => Some(value.clone()),
            };
        }
        for file in &self.files {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.follow(now);
            if let Some(addresses) = file.names.get(name) {
                return Some(HostsValue::Addresses(addresses.clone()));
            }
        }
        // Always present, whatever the tables hold.
        (name == "localhost").then(|| {
            HostsValue::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
        })
    }
}

/// The addresses of this machine that others can reach it by.
fn own_addresses() -> Vec<IpAddr> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(address).filter(reachable).collect()
}

impl Followed {
    /// Reads the file again if it is time to look and it has changed. A file that cannot be read
    /// counts as empty.
    fn follow(&mut self, now: Instant) {
        let due = |at: Instant| now.saturating_duration_since(at) >= RECHECK_TIME;
        if !self.looked_at.is_none_or(due) {
            return;
        }
        self.looked_at = Some(now);
        let changed = std::fs::metadata(&self.path)
            .and_then(|m| m.modified())
            .ok();
        if changed == self.changed {
            return;
        }
        self.changed = changed;
        let mut text = Vec::new();
        if let Ok(file) = File::open(&self.path) {
            // What was read before an error still counts.
            let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut text);
        }
        self.names = match &self.leases_of {
            Some(domain) => parse_leases(&text, domain),
            None => parse(&text),
        };
    }
}

type Table = HashMap<Box<str>, Vec<IpAddr>>;

/// Reads a hosts file; lines that do not begin with an address are passed over.
fn parse(text: &[u8]) -> Table {
    let mut names = Table::new();
    for words in lines(text) {
        if let Some((address, rest)) = words.split_first()
            && let Ok(address) = address.parse()
        {
            for name in rest {
                enter(
                    &mut names,
                    &name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
                    address,
                );
            }
        }
    }
    names
}

/// Reads leases: dnsmasq's lines (expiry, hardware address or IAID, address, name, client id) and, as
/// odhcpd writes them, those of a hosts file.
fn parse_leases(text: &[u8], domain: &str) -> Table {
    let mut names = Table::new();
    for words in lines(text) {
        let (address, given) = match words.as_slice() {
            [expiry, _, address, name, ..] if expiry.bytes().all(|b| b.is_ascii_digit()) => {
                (address.parse(), *name)
            }
            [address, .., name] => (address.parse(), *name),
            _ => continue,
        };
        let given = given.to_ascii_lowercase();
        let name = given
            .strip_suffix(domain)
            .and_then(|name| name.strip_suffix('.'));
        let name = name.unwrap_or(&given);
        if let Ok(address) = address
            && is_device_name(name)
        {
            enter(&mut names, name, address);
            enter(&mut names, &format!("{name}.{domain}"), address);
        }
    }
    names
}

/// The words of each line, without comments.
fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    let lines = text
        .split(|&b| b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace().collect()
    })
}

fn enter(names: &mut Table, name: &str, address: IpAddr) {
    let addresses = names.entry(name.into()).or_default();
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

/// Whether a device may have this name. Not those that make browsers and hosts trust whoever has them.
fn is_device_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..64).contains(&name.len())
        && name.bytes().all(plain)
        && !matches!(name, "localhost" | "wpad" | "isatap")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;

    fn addresses(list: &[&str]) -> HostsValue {
        HostsValue::Addresses(list.iter().map(|a| a.parse().unwrap()).collect())
    }

    fn hosts(system: Option<PathBuf>) -> Hosts {
        let table = [
            ("router.lan".into(), addresses(&["192.168.1.1", "fd00::1"])),
            ("www.lan".into(), HostsValue::Alias("router.lan".into())),
            ("out.lan".into(), HostsValue::Alias("a.example".into())),
            ("x.loop".into(), HostsValue::Alias("y.loop".into())),
            ("y.loop".into(), HostsValue::Alias("x.loop".into())),
            ("*.wild".into(), addresses(&["192.0.2.9"])),
        ];
        Hosts::new(&table, system).unwrap()
    }

    #[test]
    fn aliases_are_followed_and_those_that_leave_are_handed_back() {
        let (hosts, now) = (hosts(None), clock::now());
        let found = hosts.find("www.lan", now).unwrap();
        assert_eq!(found.alias.as_deref(), Some("router.lan"));
        assert_eq!(found.addresses.unwrap().len(), 2);
        let found = hosts.find("out.lan", now).unwrap();
        assert_eq!(
            (found.alias.as_deref(), found.addresses),
            (Some("a.example"), None)
        );
        assert!(hosts.find("x.loop", now).unwrap().addresses.is_none());
        assert!(hosts.find("a.wild", now).unwrap().addresses.is_some());
        assert_eq!(hosts.find("wild", now), None);
    }

    #[test]
    fn localhost_is_always_there() {
        let found = hosts(None).find("localhost", clock::now()).unwrap();
        assert!(found.addresses.unwrap().iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn leases_give_names_to_devices_but_not_any_name() {
        let text = b"1790000000 02:00:00:00:00:01 192.168.1.10 Printer 01:02\n\
            1790000000 02:00:00:00:00:02 192.168.1.11 * *\n\
            1790000000 02:00:00:00:00:03 192.168.1.12 wpad *\n\
            1790000000 02:00:00:00:00:04 192.168.1.13 www.example.org *\n\
            duid 00:01\n1790000000 7 fd00::10 printer 00:01:02\n\
            # br-lan 00 7 laptop 1790000000 10 128 fd00::11/128\nfd00::11\tlaptop.lan\tlaptop\n";
        let names = parse_leases(text, "lan");
        let mut known: Vec<&str> = names.keys().map(|name| &**name).collect();
        known.sort_unstable();
        assert_eq!(known, ["laptop", "laptop.lan", "printer", "printer.lan"]);
        assert_eq!(names["printer.lan"].len(), 2);
    }

    #[test]
    fn the_system_file_is_followed() {
        let path = std::env::temp_dir().join(format!("headgate-hosts-{}", std::process::id()));
        std::fs::write(
            &path,
            "192.0.2.1 a.b A.c. # x\nnonsense y\n\n192.0.2.2 a.b\n",
        )
        .unwrap();
        let hosts = hosts(Some(path.clone()));
        let now = clock::now();
        let of = |name, now| hosts.find(name, now).and_then(|found| found.addresses);
        assert_eq!(of("a.b", now).unwrap().len(), 2);
        assert!(of("a.c", now).is_some() && of("y", now).is_none() && of("x", now).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(of("a.b", now + RECHECK_TIME / 2).is_some());
        assert!(of("a.b", now + RECHECK_TIME).is_none());
    }
}
