//! Devices that may open nothing for a while: their flows are refused before any rule is asked.
//!
//! Table: filled by what acts on the router, read for each new flow; while nobody is blocked that costs
//! one load of an atomic. Nothing of it survives a restart.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metadata::Mac;

/// Devices blocked at a time; the one that is free soonest makes room.
const BLOCKED_MAX: usize = 256;

/// A device, as it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// By its Ethernet address, whatever its addresses are.
    Mac(Mac),
    /// By its address.
    Address(IpAddr),
}

impl FromStr for Device {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let address = text
            .parse::<IpAddr>()
            .map(|ip| Self::Address(ip.to_canonical()));
        address.or_else(|_| text.parse().map(Self::Mac).map_err(|_| ()))
    }
}

/// Who is blocked, and until when.
#[derive(Debug, Default)]
pub struct Blocked {
    any: AtomicBool,
    list: Mutex<Vec<(Device, Instant)>>,
}

impl Blocked {
    fn list(&self) -> MutexGuard<'_, Vec<(Device, Instant)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks a device until then, or otherwise long than before; a time that is past frees it.
    pub fn block(&self, device: Device, until: Instant, now: Instant) {
        let mut list = self.list();
        list.retain(|(known, end)| *known != device && *end > now);
        if until > now {
            if list.len() >= BLOCKED_MAX
                && let Some(soonest) =
                    (0..list.len()).min_by_key(|at| list.get(*at).map(|one| one.1))
            {
                list.swap_remove(soonest);
            }
            list.push((device, until));
        }
        self.any.store(!list.is_empty(), Ordering::Relaxed);
    }

    /// Whether anybody is.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether a flow of this device is to be refused.
    pub fn covers(&self, source: IpAddr, mac: Option<Mac>, now: impl FnOnce() -> Instant) -> bool {
        if !self.any() {
            return false;
        }
        let (source, now) = (source.to_canonical(), now());
        self.list().iter().any(|(device, until)| {
            *until > now
                && match device {
                    Device::Mac(blocked) => mac == Some(*blocked),
                    Device::Address(blocked) => *blocked == source,
                }
        })
    }

    /// The Ethernet addresses that are blocked, for the kernel.
    #[must_use]
    pub fn macs(&self, now: Instant) -> Vec<Mac> {
        let mut macs: Vec<Mac> = self
            .list()
            .iter()
            .filter_map(|(device, until)| match device {
                Device::Mac(mac) if *until > now => Some(*mac),
                _ => None,
            })
            .collect();
        macs.sort_unstable();
        macs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;
    use std::time::Duration;

    #[test]
    fn a_device_is_refused_until_its_time_is_over() {
        let (blocked, now) = (Blocked::default(), clock::now());
        let (mac, address) = (Mac([2; 6]), "192.0.2.1".parse().unwrap());
        let covers =
            |seconds| blocked.covers(address, Some(mac), || now + Duration::from_secs(seconds));
        assert!(!covers(0));
        blocked.block(Device::Mac(mac), now + Duration::from_secs(10), now);
        assert!(covers(0) && covers(9) && !covers(10));
        assert_eq!(blocked.macs(now), [mac]);
        blocked.block(Device::Mac(mac), now, now);
        assert!(!covers(0));
        blocked.block(
            "192.0.2.1".parse().unwrap(),
            now + Duration::from_secs(10),
            now,
        );
        assert!(covers(0));
        assert!(!blocked.covers("192.0.2.2".parse().unwrap(), Some(mac), || now));
    }

    #[test]
    fn the_table_is_bounded() {
        let (blocked, now) = (Blocked::default(), clock::now());
        for n in 0..300_u32 {
            let until = now + Duration::from_secs(u64::from(n) + 1);
            blocked.block(Device::Address(IpAddr::V4(n.into())), until, now);
        }
        let covered =
            (0..300_u32).filter(|n| blocked.covers(IpAddr::V4((*n).into()), None, || now));
        assert_eq!(covered.collect::<Vec<_>>(), (44..300).collect::<Vec<_>>());
    }
}
