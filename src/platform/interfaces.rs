//! The router's own addresses and the networks that they stand in, as the kernel lists them.
//!
//! A network is an uplink's when the default route of its family leaves by that interface; routes of
//! other tables than the main one do not count.

use std::fs;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::prefix::Prefix;

/// One address of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// The network that it stands in.
    pub network: Prefix,
    /// Whether the default route of its family leaves by its interface.
    pub uplink: bool,
}

/// Every address of this machine.
///
/// # Errors
/// What the kernel says.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let v4 = read("/proc/net/route");
    let v6 = read("/proc/net/ipv6_route");
    let (v4, v6) = (uplinks_v4(&v4), uplinks_v6(&v6));
    let mut found = Vec::new();
    for entry in getifaddrs()? {
        let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| {
            let storage = storage?;
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        };
        let Some(address) = ip(entry.address) else {
            continue;
        };
        let length = ip(entry.netmask).map_or(128, |mask| match mask {
            IpAddr::V4(mask) => mask.to_bits().count_ones(),
            IpAddr::V6(mask) => mask.to_bits().count_ones(),
        });
        let uplinks = if address.is_ipv4() { &v4 } else { &v6 };
        found.push(InterfaceAddress {
            address,
            network: Prefix::new(address, u8::try_from(length).unwrap_or(128)),
            uplink: uplinks.contains(&&*entry.interface_name),
        });
    }
    Ok(found)
}

/// A kernel without the family has no such file.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Interface, destination, gateway, flags, reference count, use, metric, mask …
fn uplinks_v4(table: &str) -> Vec<&str> {
    let default = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        fields.nth(1) == Some("00000000") && fields.nth(5) == Some("00000000")
    };
    table
        .lines()
        .filter(default)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .collect()
}

/// Destination, its length, source, its length, gateway, metric, counts, flags, interface. The kernel's
/// own entry that refuses everything stands on `lo`.
fn uplinks_v6(table: &str) -> Vec<&str> {
    let default = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        let zero = fields.next().is_some_and(|d| d.bytes().all(|b| b == b'0'));
        zero && fields.next() == Some("00")
    };
    table
        .lines()
        .filter(default)
        .filter_map(|line| line.split_ascii_whitespace().next_back())
        .filter(|name| *name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_routes_name_the_uplinks() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  wan\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  br-lan\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(uplinks_v4(v4), ["wan"]);
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003      wan\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001   br-lan\n"
        );
        assert_eq!(uplinks_v6(&v6), ["wan"]);
        assert!(uplinks_v4("").is_empty() && uplinks_v6("torn").is_empty());
    }

    #[test]
    fn loopback_is_listed_with_its_network() {
        let found = addresses().unwrap();
        let loopback = found.iter().find(|a| a.address.is_loopback()).unwrap();
        assert!(!loopback.uplink);
    }
}
