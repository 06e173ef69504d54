//! What each device has moved: sums over its connections, those that ended in between among them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::flow::{device_of, moved};
use crate::metadata::Mac;
use crate::tunnel::connections::{Connection, Connections};

/// Devices whose traffic is summed; that of further ones is not.
const DEVICES_MAX: usize = 1024;

/// Seconds between two sums of traffic.
pub(super) const TRAFFIC_SECONDS: i64 = 10;

/// Table: what devices have moved, while a rule wants to know.
#[derive(Default)]
pub(super) struct Traffic(Mutex<Option<HashMap<IpAddr, Moved>>>);

/// Bytes up and down.
#[derive(Default)]
struct Moved {
    mac: Option<Mac>,
    /// By connections that have ended since a rule wants to know.
    ended: [u64; 2],
    /// Told so far.
    told: [u64; 2],
}

/// A device with its Ethernet address, and what it has moved up and down since the last sum.
pub(super) type Fresh = (IpAddr, Option<Mac>, [u64; 2]);

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<IpAddr, Moved>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all: nobody wants to know.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    /// Whether there is something that the next sum is compared with.
    pub(super) fn is_summed(&self) -> bool {
        self.lock().is_some()
    }

    /// Who has moved something since the last call, and how much. The first one only looks.
    pub(super) fn sum(&self, connections: &Connections) -> Vec<Fresh> {
        let mut traffic = self.lock();
        let first = traffic.is_none();
        let table = traffic.get_or_insert_default();
        let mut live: HashMap<IpAddr, [u64; 2]> = HashMap::new();
        for connection in connections.snapshot() {
            let device = device_of(&connection);
            let sums = live.entry(device).or_default();
            *sums = added(*sums, moved(&connection));
            if table.len() < DEVICES_MAX || table.contains_key(&device) {
                let entry = table.entry(device).or_default();
                entry.mac = connection.metadata.source_mac.or(entry.mac);
            }
        }
        let mut told = Vec::new();
        for (device, entry) in table.iter_mut() {
            let now = added(live.get(device).copied().unwrap_or_default(), entry.ended);
            let ([up, down], [told_up, told_down]) = (now, entry.told);
            let fresh = [up.saturating_sub(told_up), down.saturating_sub(told_down)];
            entry.told = now;
            if !first && fresh != [0, 0] {
                told.push((*device, entry.mac, fresh));
            }
        }
        // Who has no connections any more begins anew.
        table.retain(|device, _| live.contains_key(device));
        told
    }

    /// Keeps what a connection has moved that ends between two sums.
    pub(super) fn note_end(&self, connection: &Connection) {
        let mut traffic = self.lock();
        let device = device_of(connection);
        if let Some(table) = &mut *traffic
            && (table.len() < DEVICES_MAX || table.contains_key(&device))
        {
            let entry = table.entry(device).or_default();
            entry.ended = added(entry.ended, moved(connection));
            entry.mac = connection.metadata.source_mac.or(entry.mac);
        }
    }
}

fn added([up, down]: [u64; 2], [more_up, more_down]: [u64; 2]) -> [u64; 2] {
    [up.saturating_add(more_up), down.saturating_add(more_down)]
}
