//! Where a device may be taken directly: what the router's own firewall would keep from it, we keep too.
//!
//! Our sockets leave from the router, so a direct connection asks no forwarding rule and meets no input
//! rule: without a check, any device that reaches a proxy port, or makes a name resolve to such an
//! address, reaches the router's loopback, its administration, and other networks behind it. So a device
//! is taken to its own network and to what lies beyond the router, not to the router itself by an
//! address outside that network, nor to other networks that the router stands in (`lan-reachable-ips`
//! excepted). The router's own traffic is not judged.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::platform::clock;
use crate::platform::interfaces::{self, InterfaceAddress};
use crate::prefix::Prefix;

/// How old the list of the router's addresses may be.
const FRESH: Duration = Duration::from_secs(10);

/// Judges destinations by the addresses that the router has at the moment.
#[derive(Default)]
pub struct Reach {
    /// `lan-reachable-ips`.
    reachable: Box<[Prefix]>,
    seen: RwLock<Option<(Instant, Arc<[InterfaceAddress]>)>>,
}

impl Reach {
    /// Devices may go to `reachable` too.
    #[must_use]
    pub fn new(reachable: &[Prefix]) -> Self {
        Self {
            reachable: reachable.into(),
            seen: RwLock::default(),
        }
    }

    /// Whether the device at `source` may be taken to `destination`.
    #[must_use]
    pub fn allows(&self, source: IpAddr, destination: IpAddr) -> bool {
        let (source, destination) = (source.to_canonical(), destination.to_canonical());
        if source.is_loopback() || source.is_unspecified() {
            return true;
        }
        if self.reachable.iter().any(|net| net.contains(destination)) {
            return true;
        }
        allowed(source, destination, &self.addresses())
    }

    fn addresses(&self) -> Arc<[InterfaceAddress]> {
        let now = clock::now();
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, list)) = &*seen
            && now.saturating_duration_since(*then) < FRESH
        {
            return Arc::clone(list);
        }
        drop(seen);
        // Without a list nothing is known to be forbidden but what is always so.
        let list: Arc<[InterfaceAddress]> = interfaces::addresses()
            .unwrap_or_else(|error| {
                log::warn!("addresses of this machine: {error}");
                Vec::new()
            })
            .into();
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        *seen = Some((now, Arc::clone(&list)));
        list
    }
}

fn allowed(source: IpAddr, destination: IpAddr, ours: &[InterfaceAddress]) -> bool {
    let is_own = |ip: IpAddr| ours.iter().any(|ours| ours.address == ip);
    if is_own(source) {
        return true;
    }
    if destination.is_loopback() || destination.is_unspecified() {
        return false;
    }
    let mut together = false;
    let mut apart = is_own(destination);
    for ours in ours {
        if ours.network.contains(destination) {
            together |= ours.network.contains(source);
            apart |= !ours.uplink;
        }
    }
    together || !apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Vec<InterfaceAddress> {
        let one = |address: &str, length, uplink| {
            let address: IpAddr = address.parse().unwrap();
            InterfaceAddress {
                address,
                network: Prefix::new(address, length),
                uplink,
            }
        };
        vec![
            one("127.0.0.1", 8, false),
            one("192.168.1.1", 24, false),
            one("192.168.2.1", 24, false),
            one("10.0.0.7", 24, true),
            one("fd00::1", 64, false),
            one("2001:db8:2::1", 64, false),
            one("fe80::1", 64, false),
        ]
    }

    #[track_caller]
    fn check(source: &str, destination: &str, want: bool) {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let ours = router();
        assert_eq!(allowed(source, destination, &ours), want);
    }

    #[test]
    fn a_device_reaches_its_own_network_and_the_internet() {
        check("192.168.1.5", "192.168.1.9", true);
        check("192.168.1.5", "192.168.1.1", true);
        check("192.168.1.5", "198.51.100.1", true);
        check("192.168.1.5", "172.20.0.1", true);
        check("fd00::5", "2001:db8::1", true);
    }

    #[test]
    fn a_device_reaches_no_other_network_of_the_router() {
        check("192.168.2.5", "192.168.1.9", false);
        check("192.168.2.5", "192.168.1.1", false);
        check("192.168.1.5", "2001:db8:2::9", false);
        check("fd00::5", "fe80::1", false);
    }

    #[test]
    fn the_network_of_an_uplink_is_reached_our_address_in_it_is_not() {
        check("192.168.1.5", "10.0.0.9", true);
        check("192.168.1.5", "10.0.0.7", false);
    }

    #[test]
    fn the_router_itself_goes_anywhere() {
        check("192.168.1.1", "192.168.2.9", true);
        check("127.0.0.1", "192.168.2.9", true);
        let reach = Reach::default();
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(reach.allows(loopback, loopback));
    }

    #[test]
    fn loopback_is_for_nobody_else_unless_listed() {
        let device = "192.0.2.5".parse().unwrap();
        for own in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
        ] {
            assert!(
                !Reach::default().allows(device, own.parse().unwrap()),
                "{own}"
            );
        }
        let listed = Reach::new(&[Prefix::host("127.0.0.1".parse().unwrap())]);
        assert!(listed.allows(device, "127.0.0.1".parse().unwrap()));
    }
}
