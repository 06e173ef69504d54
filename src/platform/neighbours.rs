//! Which device has an address: the kernel's neighbour table (ARP, NDP), followed live.
//!
//! An entry stays known here after the kernel has forgotten it, until the address shows up
//! with another device: the first packet of a UDP exchange arrives before the kernel has
//! asked again who sent it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use super::route::RouteError;
use super::route::connection::{self, Subject, Verb};
use crate::metadata::Mac;

/// Addresses kept; the one that was neither seen nor asked for longest makes room.
const NEIGHBOURS_MAX: usize = 4096;

/// The table. Shared by all who ask; the guard never leaves this file.
#[derive(Debug, Default)]
struct Table {
    devices: HashMap<IpAddr, Seen>,
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    mac: Mac,
    turn: u64,
    /// Whether the kernel has it and does not know better.
    present: bool,
}

impl Table {
    fn learn(&mut self, address: IpAddr, mac: Mac) {
        self.turn += 1;
        if self.devices.len() >= NEIGHBOURS_MAX && !self.devices.contains_key(&address) {
            let oldest = self.devices.iter().min_by_key(|(_, seen)| seen.turn);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.devices.remove(&oldest);
            }
        }
        self.devices.insert(
            address,
            Seen {
                mac,
                turn: self.turn,
                present: true,
            },
        );
    }

    /// The kernel asked in vain, or has forgotten it.
    fn lose(&mut self, address: IpAddr) {
        if let Some(seen) = self.devices.get_mut(&address) {
            seen.present = false;
        }
    }

    fn present(&self) -> HashMap<Mac, Box<[IpAddr]>> {
        let mut by_device: HashMap<Mac, Vec<IpAddr>> = HashMap::new();
        for (address, seen) in self.devices.iter().filter(|(_, seen)| seen.present) {
            by_device.entry(seen.mac).or_default().push(*address);
        }
        let sorted = by_device.into_iter().map(|(mac, mut list)| {
            // IPv4 first: what people know a device by.
            list.sort_unstable();
            (mac, list.into())
        });
        sorted.collect()
    }

    fn ask(&mut self, address: IpAddr) -> Option<Mac> {
        self.turn += 1;
        let turn = self.turn;
        let seen = self.devices.get_mut(&address)?;
        seen.turn = turn;
        Some(seen.mac)
    }
}

/// A view of the neighbour table that follows the kernel's while it lives.
#[derive(Debug)]
pub struct Neighbours {
    table: Arc<Mutex<Table>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Neighbours {
    /// Connects and reads the whole table. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn watch() -> Result<Self, RouteError> {
        let (driver, requests, told) = connection::open(&[MulticastGroup::Neigh])?;
        let driver = tokio::spawn(driver);
        let table = Arc::new(Mutex::new(Table::default()));
        let every = Subject::Neighbour(NeighbourMessage::default());
        for entry in requests.ask(Verb::Dump, every).await? {
            learn(&table, &entry);
        }
        let following = Arc::clone(&table);
        let reader = tokio::spawn(async move {
            let mut told = pin!(told);
            // Messages that get lost in a flood come again with the entry's next change.
            while let Some(entry) = told.next().await {
                if let Some(entry) = entry {
                    learn(&following, &entry);
                }
            }
        });
        Ok(Self {
            table,
            tasks: [driver, reader],
        })
    }

    /// The devices that are there, with their addresses, as far as the kernel knows.
    #[must_use]
    pub fn present(&self) -> HashMap<Mac, Box<[IpAddr]>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.present()
    }

    /// The device that has this address in one of the router's own networks.
    #[must_use]
    pub fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.ask(address.to_canonical())
    }
}

fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })
}

fn lose(table: &Mutex<Table>, message: &NeighbourMessage) {
    if let Some(address) = address_of(message) {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.lose(address);
    }
}

fn learn(table: &Mutex<Table>, entry: &Subject) {
    let Subject::Neighbour(message) = entry else {
        return;
    };
    // One that the kernel has forgotten comes as failed too.
    if message.header.state == NeighbourState::Failed {
        return lose(table, message);
    }
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice())
                .ok()
                .filter(|mac| *mac != [0; 6]),
            _ => None,
        });
    if let (Some(address), Some(mac)) = (address_of(message), mac) {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.learn(address, Mac(mac));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_there_while_one_of_its_addresses_is() {
        let mut table = Table::default();
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let mac = Mac([2; 6]);
        table.learn(v6, mac);
        table.learn(v4, mac);
        assert_eq!(table.present(), HashMap::from([(mac, [v4, v6].into())]));
        table.lose(v4);
        assert_eq!(table.present(), HashMap::from([(mac, [v6].into())]));
        table.lose(v6);
        assert!(table.present().is_empty());
        // Who it was stays known.
        assert_eq!(table.ask(v4), Some(mac));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_nobody_asked_for() {
        let mut table = Table::default();
        let address = |n: u32| IpAddr::V4(n.into());
        for n in 0..4096 {
            table.learn(address(n), Mac([1; 6]));
        }
        assert_eq!(table.ask(address(0)), Some(Mac([1; 6])));
        table.learn(address(9999), Mac([2; 6]));
        assert_eq!(table.devices.len(), NEIGHBOURS_MAX);
        assert!(table.ask(address(0)).is_some());
        assert!(table.ask(address(1)).is_none());
        table.learn(address(0), Mac([3; 6]));
        assert_eq!(table.ask(address(0)), Some(Mac([3; 6])));
    }
}
