//! Fake addresses: each name asked for gets an address of a range that is ours, and keeps it.
//!
//! A name owns a slot, and a slot is an address: network + 4 + slot, in the IPv4 and in the IPv6
//! range alike. So both directions are one table and cannot disagree: an address leads to the
//! name that owns its slot now, or to none. Slots are given out in order; when all
//! are, the name that was not used for the longest time loses its own to the next.
//!
//! Names are lower case. Families never mix: a flow to either address finds the name.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::prefix::{Prefix, bits, from_bits};

use super::fake_ip_log::{self as log_file, Log};
use super::lru::{Keyed, Lru};

/// Names that own an address at once. A household asks for some thousands in a month; at this
/// number the table takes some 4 MB.
pub const ENTRIES_MAX: u32 = 65_536;
/// Addresses at the beginning of a range that are not given out (network, gateway, two spare), as
/// mihomo.
const FIRST: u128 = 4;

/// Why a range cannot hold fake addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// It has no address to give.
    TooSmall,
    /// It is of the wrong family.
    Family,
}

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSmall => "fake-ip range is too small",
            Self::Family => "fake-ip range is of the wrong family",
        })
    }
}

impl std::error::Error for BadRange {}

impl Keyed for Box<str> {
    fn key(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Which of a name's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Table: names and their slots.
pub struct FakeIp {
    v4: Prefix,
    v6: Option<Prefix>,
    capacity: u32,
    state: Mutex<State>,
}

struct State {
    names: Lru<Box<str>>,
    log: Option<Log>,
    /// What the records of all names take in the file.
    live_bytes: u64,
}

impl FakeIp {
    /// An empty pool that no file remembers.
    ///
    /// # Errors
    /// [`BadRange`].
    pub fn new(v4: Prefix, v6: Option<Prefix>) -> Result<Self, BadRange> {
        if !v4.address().is_ipv4() || v6.is_some_and(|v6| v6.address().is_ipv4()) {
            return Err(BadRange::Family);
        }
        let usable = |prefix: Prefix| {
            let (first, last) = prefix.range();
            (last - first).saturating_sub(FIRST)
        };
        let least = v6.map_or(u128::MAX, usable).min(usable(v4));
        let capacity = u32::try_from(least).unwrap_or(u32::MAX).min(ENTRIES_MAX);
        if capacity == 0 {
            return Err(BadRange::TooSmall);
        }
        Ok(Self {
            v4,
            v6,
            capacity,
            state: Mutex::new(State {
                names: Lru::new(),
                log: None,
                live_bytes: 0,
            }),
        })
    }

    /// Takes up what the file at `path` remembers of these ranges, and keeps it up to date from now
    /// on. To be called before the first look-up.
    ///
    /// # Errors
    /// What the file system says; the pool then works without a file.
    pub fn remember_in(&self, path: &Path) -> io::Result<()> {
        let mut slots: Vec<Option<Box<str>>> = Vec::new();
        // When each slot got its present owner: the number of that record.
        let mut since: Vec<u32> = Vec::new();
        let mut record = 0u32;
        let log = Log::open(path, log_file::header(self.v4, self.v6), |slot, name| {
            if slot >= self.capacity {
                return;
            }
            let place = slot as usize;
            if slots.len() <= place {
                slots.resize(place + 1, None);
                since.resize(place + 1, 0);
            }
            if let (Some(owner), Some(since)) = (slots.get_mut(place), since.get_mut(place)) {
                *owner = Some(name.into());
                *since = record;
            }
            record = record.saturating_add(1);
        })?;
        let mut order: Vec<u32> = (0..self.capacity).take(slots.len()).collect();
        order.sort_by_key(|slot| since.get(*slot as usize));
        let names = Lru::restore(slots, &order);
        let live_bytes = names
            .iter()
            .map(|(_, name)| log_file::record_bytes(name))
            .sum();
        *self.state() = State {
            names,
            log: Some(log),
            live_bytes,
        };
        Ok(())
    }

    /// Whether the pool is of these ranges, and so may outlive a reload.
    #[must_use]
    pub fn has_ranges(&self, v4: Prefix, v6: Option<Prefix>) -> bool {
        let of = |prefix: Prefix| (prefix.network(), prefix.length());
        of(self.v4) == of(v4) && self.v6.map(of) == v6.map(of)
    }

    /// The address of `name`, which is its own from now on. `None`: no range of that family.
    pub fn address(&self, name: &str, family: Family) -> Option<IpAddr> {
        let range = match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6?,
        };
        let slot = self.state().slot(name, self.capacity);
        let address = range.range().0 + FIRST + u128::from(slot);
        Some(from_bits(address, family == Family::V4))
    }

    /// The name that owns `address`.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<Box<str>> {
        let slot = self.slot_of(address)?;
        let mut state = self.state();
        let name = state.names.get(slot)?.clone();
        state.names.touch(slot);
        Some(name)
    }

    /// Whether `address` lies in one of the ranges, whoever owns it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.v4.contains(address) || self.v6.is_some_and(|v6| v6.contains(address))
    }

    /// Takes every name's address away.
    ///
    /// # Errors
    /// What the file system says of the file; the names are forgotten all the same.
    pub fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.names.clear();
        state.live_bytes = 0;
        state.log.as_mut().map_or(Ok(()), Log::clear)
    }

    /// Writes the file anew when that is worth it. To be called now and then from a thread that may
    /// wait for the disk; look-ups go on meanwhile.
    ///
    /// # Errors
    /// What the file system says; tried again at the next call.
    pub fn persist(&self) -> io::Result<()> {
        let begun = {
            let mut state = self.state();
            let live = state.live_bytes;
            state
                .log
                .as_mut()
                .and_then(|log| log.begin_rewrite(live))
                .map(|(mut bytes, place)| {
                    for (slot, name) in state.names.iter() {
                        log_file::push_record(&mut bytes, slot, name);
                    }
                    (bytes, place)
                })
        };
        let Some((bytes, place)) = begun else {
            return Ok(());
        };
        let written = log_file::write_aside(&place, &bytes);
        drop(bytes);
        let mut state = self.state();
        state
            .log
            .as_mut()
            .map_or(Ok(()), |log| log.end_rewrite(written, &place))
    }

    /// How many names own an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().names.len()
    }

    /// Whether no name does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot_of(&self, address: IpAddr) -> Option<u32> {
        let range = [Some(self.v4), self.v6]
            .into_iter()
            .flatten()
            .find(|r| r.contains(address))?;
        let offset = bits(address).0 - range.range().0;
        let slot = u32::try_from(offset.checked_sub(FIRST)?).ok()?;
        (slot < self.capacity).then_some(slot)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot(&mut self, name: &str, capacity: u32) -> u32 {
        if let Some(slot) = self.names.find(name.as_bytes()) {
            self.names.touch(slot);
            return slot;
        }
        if self.names.len() >= capacity as usize
            && let Some(oldest) = self.names.remove_oldest()
        {
            self.live_bytes -= log_file::record_bytes(&oldest);
        }
        let slot = self.names.insert(name.into());
        self.live_bytes += log_file::record_bytes(name);
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.append(slot, name)) {
            // Once: the log then waits for its rewrite.
            log::warn!("fake-ip file cannot be written, addresses are kept in memory: {error}");
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn pool(range: &str) -> FakeIp {
        FakeIp::new(
            range.parse().unwrap(),
            Some("fd00:1::/112".parse().unwrap()),
        )
        .unwrap()
    }

    fn v4(pool: &FakeIp, name: &str) -> String {
        pool.address(name, Family::V4).unwrap().to_string()
    }

    fn file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("headgate-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn addresses_begin_at_network_plus_four_and_stay() {
        let pool = pool("198.18.0.1/16");
        assert_eq!(v4(&pool, "a"), "198.18.0.4");
        assert_eq!(v4(&pool, "b"), "198.18.0.5");
        assert_eq!(v4(&pool, "a"), "198.18.0.4");
        assert_eq!(
            pool.address("b", Family::V6).unwrap().to_string(),
            "fd00:1::5"
        );
        for address in ["198.18.0.5", "fd00:1::5"] {
            assert_eq!(pool.name(address.parse().unwrap()).as_deref(), Some("b"));
        }
        for unknown in ["198.18.0.0", "198.18.0.3", "198.18.0.6", "198.18.255.255"] {
            assert_eq!(pool.name(unknown.parse().unwrap()), None);
            assert!(pool.contains(unknown.parse().unwrap()));
        }
        assert!(!pool.contains("198.19.0.0".parse().unwrap()));
    }

    #[test]
    fn the_last_address_is_the_one_before_the_broadcast() {
        let pool = pool("198.18.0.0/29");
        let given: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| v4(&pool, name))
            .collect();
        assert_eq!(
            given,
            ["198.18.0.4", "198.18.0.5", "198.18.0.6", "198.18.0.4"]
        );
        assert_eq!(
            pool.name("198.18.0.4".parse().unwrap()).as_deref(),
            Some("d")
        );
        assert_eq!(v4(&pool, "a"), "198.18.0.5");
        let small = FakeIp::new("198.18.0.0/30".parse().unwrap(), None);
        assert_eq!(small.err(), Some(BadRange::TooSmall));
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let path = file("restart");
        let before = pool("198.18.0.0/29");
        before.remember_in(&path).unwrap();
        for name in ["a", "b", "c", "d"] {
            v4(&before, name);
        }
        let after = pool("198.18.0.0/29");
        after.remember_in(&path).unwrap();
        for (address, name) in [
            ("198.18.0.4", "d"),
            ("198.18.0.5", "b"),
            ("198.18.0.6", "c"),
        ] {
            assert_eq!(after.name(address.parse().unwrap()).as_deref(), Some(name));
        }
        let other = pool("198.18.8.0/24");
        other.remember_in(&path).unwrap();
        assert!(other.is_empty());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_torn_tail_costs_only_itself() {
        let path = file("torn");
        let before = pool("198.18.0.0/16");
        before.remember_in(&path).unwrap();
        v4(&before, "a.example");
        let whole = std::fs::read(&path).unwrap().len();
        v4(&before, "b.example");
        let bytes = std::fs::read(&path).unwrap();
        for cut in whole..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let after = pool("198.18.0.0/16");
            after.remember_in(&path).unwrap();
            assert_eq!(after.len(), 1);
            assert_eq!(v4(&after, "c.example"), "198.18.0.5");
            let again = pool("198.18.0.0/16");
            again.remember_in(&path).unwrap();
            assert_eq!(again.len(), 2);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_file_is_written_anew_when_mostly_dead_and_says_the_same() {
        let path = file("rewrite");
        let churned = pool("198.18.0.0/28");
        churned.remember_in(&path).unwrap();
        for i in 0..6000 {
            v4(&churned, &format!("name-{i}.example"));
        }
        let long = std::fs::metadata(&path).unwrap().len();
        churned.persist().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < long / 100);
        let last = v4(&churned, "last.example");
        let after = pool("198.18.0.0/28");
        after.remember_in(&path).unwrap();
        assert_eq!(after.len(), 11);
        assert_eq!(v4(&after, "last.example"), last);
        let next = v4(&churned, "next.example");
        assert_eq!(v4(&after, "next.example"), next);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_flush_is_remembered_too() {
        let path = file("flush");
        let before = pool("198.18.0.0/16");
        before.remember_in(&path).unwrap();
        v4(&before, "a");
        before.flush().unwrap();
        assert_eq!(before.name("198.18.0.4".parse().unwrap()), None);
        v4(&before, "b");
        let after = pool("198.18.0.0/16");
        after.remember_in(&path).unwrap();
        assert_eq!(
            after.name("198.18.0.4".parse().unwrap()).as_deref(),
            Some("b")
        );
        std::fs::remove_file(&path).unwrap();
    }

    proptest! {
        #[test]
        fn both_directions_always_agree(names in proptest::collection::vec(0u8..40, 0..200)) {
            let pool = pool("198.18.0.0/28");
            for name in names {
                let name = name.to_string();
                let address = pool.address(&name, Family::V4).unwrap();
                prop_assert_eq!(pool.address(&name, Family::V4), Some(address));
                let owner = pool.name(address);
                prop_assert_eq!(owner.as_deref(), Some(name.as_str()));
            }
        }
    }

    #[test]
    fn no_file_breaks_it() {
        let path = file("hostile");
        let mut header = log_file::header("198.18.0.0/16".parse().unwrap(), None).to_vec();
        header[0] ^= 1;
        for bytes in [&b""[..], b"x", &[0xff; 4096], &header] {
            std::fs::write(&path, bytes).unwrap();
            let pool = FakeIp::new("198.18.0.0/16".parse().unwrap(), None).unwrap();
            pool.remember_in(&path).unwrap();
            assert!(pool.is_empty());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
