//! Which device has an address: the kernel's neighbour table (ARP, NDP), followed live.
//!
//! An entry stays known here after the kernel has forgotten it, until the address shows up
//! with another device: the first packet of a UDP exchange arrives before the kernel has
//! asked again who sent it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use super::clock;
use super::route::RouteError;
use super::route::connection::{self, Requests, Subject, Verb};
use crate::metadata::Mac;

/// Addresses kept; the one that was neither seen nor asked for longest makes room.
const NEIGHBOURS_MAX: usize = 4096;

/// For how long an address that the kernel does not know is not asked for again: one behind another
/// router, which is nobody's neighbour.
const STRANGER: Duration = Duration::from_secs(1);

/// Such addresses remembered; with more of them the kernel is asked more often.
const STRANGERS_MAX: usize = 64;

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
    requests: Requests,
    /// Addresses that were asked for in vain, the latest first. Held while asking: those who wait for
    /// the same device are answered at once.
    strangers: tokio::sync::Mutex<VecDeque<(IpAddr, Instant)>>,
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
        let driver = tokio::spawn(driver.boxed());
        let table = Arc::new(Mutex::new(Table::default()));
        learn_all(&table, &requests).await?;
        let following = Arc::clone(&table);
        let reading = async move {
            let mut told = pin!(told);
            // Messages that get lost in a flood come again with the entry's next change.
            while let Some(entry) = told.next().await {
                if let Some(entry) = entry {
                    learn(&following, &entry);
                }
            }
        };
        Ok(Self {
            table,
            requests,
            strangers: tokio::sync::Mutex::default(),
            tasks: [driver, tokio::spawn(reading.boxed())],
        })
    }

    /// Like [`Self::mac_of`], and asks the kernel where nothing is known: a device's first connection can
    /// be here before the notice that it is a neighbour now has been read.
    pub async fn seek(&self, address: IpAddr) -> Option<Mac> {
        let address = address.to_canonical();
        if let Some(mac) = self.mac_of(address) {
            return Some(mac);
        }
        let mut strangers = self.strangers.lock().await;
        if let Some(mac) = self.mac_of(address) {
            return Some(mac);
        }
        let now = clock::now();
        strangers.retain(|(_, asked)| now.saturating_duration_since(*asked) < STRANGER);
        if strangers.iter().any(|(known, _)| *known == address) {
            return None;
        }
        if let Err(error) = learn_all(&self.table, &self.requests).await {
            log::debug!("neighbours: {error}");
        }
        let found = self.mac_of(address);
        if found.is_none() {
            strangers.truncate(STRANGERS_MAX - 1);
            strangers.push_front((address, now));
        }
        found
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

/// Asks the kernel for its whole table.
async fn learn_all(table: &Mutex<Table>, requests: &Requests) -> Result<(), RouteError> {
    let every = Subject::Neighbour(NeighbourMessage::default());
    for entry in requests.ask(Verb::Dump, every).await? {
        learn(table, &entry);
    }
    Ok(())
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
