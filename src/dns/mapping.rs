//! Which name a real answer belonged to: the reverse of what clients were told.
//!
//! Used for flows to a bare address, where names were answered with their real addresses
//! (`redir-host`, and names that the fake-ip filter excludes). Of names that share an address the
//! one answered last counts, as in mihomo.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lru::{Keyed, Lru};

/// Addresses remembered; the least recently used goes first (as mihomo).
pub const ENTRIES_MAX: usize = 4096;
/// Shortest time to remember: a client may connect well after a TTL of one second, which is what
/// the answers of a stale cache entry have.
const LIFETIME_MIN: Duration = Duration::from_secs(60);

/// What the daemon knows of a destination address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// A fake address of this name.
    Fake(Box<str>),
    /// A fake address that belongs to no name (any more): the flow must be refused at once.
    FakeUnknown,
    /// A real address, answered for this name a short while ago.
    Real(Box<str>),
    /// Nothing.
    Nothing,
}

struct Entry {
    address: [u8; 16],
    name: Box<str>,
    expires: Instant,
}

impl Keyed for Entry {
    fn key(&self) -> &[u8] {
        &self.address
    }
}

/// Table: address to name.
pub struct ReverseMapping(Mutex<Lru<Entry>>);

impl Default for ReverseMapping {
    fn default() -> Self {
        Self(Mutex::new(Lru::new()))
    }
}

impl ReverseMapping {
    /// Remembers that `name` was answered with `address` for `ttl` seconds.
    pub fn insert(&self, address: IpAddr, name: &str, ttl: u32, now: Instant) {
        let address = key(address);
        let expires = now + Duration::from_secs(ttl.into()).max(LIFETIME_MIN);
        let mut table = self.table();
        if let Some(slot) = table.find(&address) {
            table.touch(slot);
            if let Some(entry) = table.get_mut(slot) {
                if *entry.name != *name {
                    entry.name = name.into();
                }
                entry.expires = expires;
            }
            return;
        }
        if table.len() >= ENTRIES_MAX {
            table.remove_oldest();
        }
        table.insert(Entry {
            address,
            name: name.into(),
            expires,
        });
    }

    /// The name that `address` was answered for, while that holds.
    #[must_use]
    pub fn name(&self, address: IpAddr, now: Instant) -> Option<Box<str>> {
        let mut table = self.table();
        let slot = table.find(&key(address))?;
        if table.get(slot)?.expires <= now {
            table.remove(slot);
            return None;
        }
        table.touch(slot);
        Some(table.get(slot)?.name.clone())
    }

    /// Forgets everything.
    pub fn flush(&self) {
        self.table().clear();
    }

    fn table(&self) -> MutexGuard<'_, Lru<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;

    #[test]
    fn the_last_name_counts_until_its_time_is_over() {
        let (mapping, now) = (ReverseMapping::default(), clock::now());
        let address = "192.0.2.1".parse().unwrap();
        mapping.insert(address, "a", 1, now);
        mapping.insert(address, "b", 300, now);
        assert_eq!(mapping.name(address, now).as_deref(), Some("b"));
        assert_eq!(
            mapping
                .name("::ffff:192.0.2.1".parse().unwrap(), now)
                .as_deref(),
            Some("b")
        );
        assert_eq!(mapping.name(address, now + Duration::from_secs(300)), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let (mapping, now) = (ReverseMapping::default(), clock::now());
        for i in 0..5000u32 {
            mapping.insert(std::net::Ipv4Addr::from_bits(i).into(), "a", 60, now);
        }
        assert_eq!(mapping.table().len(), ENTRIES_MAX);
        assert_eq!(mapping.name("0.0.0.1".parse().unwrap(), now), None);
    }
}
