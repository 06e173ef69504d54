//! The devices that have moved something since the start: their addresses, and how fast they are now.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::day::{Moved, plus};
use crate::metadata::{Mac, Metadata};

/// Devices at a time; the one that moved something longest ago makes room.
const DEVICES_MAX: usize = 256;

/// Addresses of a device (privacy addresses change daily); the oldest makes room.
const ADDRESSES_MAX: usize = 8;

/// How long a rate is measured at least.
const MEASURED_MIN: Duration = Duration::from_secs(1);

/// One device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name in the history: the Ethernet address, else the address.
    pub key: Box<str>,
    /// Its Ethernet address, where it is known.
    pub mac: Option<Mac>,
    /// The addresses that it has used, the latest last.
    pub addresses: Vec<IpAddr>,
    /// What it has moved since the start of the daemon.
    pub moved: Moved,
    /// Bytes a second when it was last measured.
    pub rate: Moved,
    /// When it last moved something, since 1970.
    pub seen: Duration,
    measured: (Instant, Moved),
}

/// Private to the history's table.
#[derive(Default)]
pub(super) struct Devices(Vec<Device>);

impl Devices {
    /// Enters what a flow of a device has moved.
    pub(super) fn add(
        &mut self,
        key: &str,
        metadata: &Metadata,
        moved: Moved,
        now: Instant,
        unix: Duration,
    ) {
        let position = match self.0.iter().position(|device| *device.key == *key) {
            Some(position) => position,
            None => self.insert(key, metadata.source_mac, now),
        };
        let Some(device) = self.0.get_mut(position) else {
            return;
        };
        device.moved = plus(device.moved, moved);
        device.seen = unix;
        let address = metadata.source.ip().to_canonical();
        if device.addresses.last() != Some(&address) {
            device.addresses.retain(|known| *known != address);
            if device.addresses.len() >= ADDRESSES_MAX {
                device.addresses.remove(0);
            }
            device.addresses.push(address);
        }
    }

    fn insert(&mut self, key: &str, mac: Option<Mac>, now: Instant) -> usize {
        if self.0.len() >= DEVICES_MAX {
            let oldest = self
                .0
                .iter()
                .enumerate()
                .min_by_key(|(_, known)| known.seen);
            if let Some(oldest) = oldest.map(|(position, _)| position) {
                self.0.swap_remove(oldest);
            }
        }
        self.0.push(Device {
            key: key.into(),
            mac,
            addresses: Vec::new(),
            moved: [0; 2],
            rate: [0; 2],
            seen: Duration::ZERO,
            measured: (now, [0; 2]),
        });
        self.0.len() - 1
    }

    /// Measures how fast everybody was since this was last done.
    pub(super) fn measure(&mut self, now: Instant) {
        for device in &mut self.0 {
            let (since, before) = device.measured;
            let elapsed = now.saturating_duration_since(since);
            if elapsed < MEASURED_MIN {
                continue;
            }
            let ([up, down], [up_before, down_before]) = (device.moved, before);
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            let rate = |bytes: u64| bytes.saturating_mul(1000) / millis;
            device.rate = [
                rate(up.saturating_sub(up_before)),
                rate(down.saturating_sub(down_before)),
            ];
            device.measured = (now, device.moved);
        }
    }

    pub(super) fn list(&self) -> &[Device] {
        &self.0
    }
}
