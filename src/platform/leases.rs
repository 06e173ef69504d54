//! What LAN devices call themselves: the lease file of dnsmasq and the hosts file of odhcpd, read
//! again when they have changed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::metadata::Mac;

/// How often it is looked whether a file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Bytes of a file that are read, and devices that are kept.
const FILE_MAX: u64 = 1024 * 1024;
const DEVICES_MAX: usize = 4096;

/// The names. Table: read again as a whole.
pub struct Leases {
    files: Vec<PathBuf>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    looked: Option<Instant>,
    written: Vec<Option<SystemTime>>,
    by_address: HashMap<IpAddr, Box<str>>,
    by_mac: HashMap<Mac, Box<str>>,
}

impl Leases {
    /// Those in `files`, which need not be there.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            table: Mutex::default(),
        }
    }

    /// What the device with this address calls itself.
    #[must_use]
    pub fn name_of(&self, address: IpAddr, mac: Option<Mac>, now: Instant) -> Option<Box<str>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |looked: Instant| now.saturating_duration_since(looked) < LOOK_EVERY;
        if !table.looked.is_some_and(fresh) {
            table.looked = Some(now);
            let written = |file: &PathBuf| fs::metadata(file).ok()?.modified().ok();
            let written: Vec<_> = self.files.iter().map(written).collect();
            if written != table.written {
                *table = self.read();
                (table.looked, table.written) = (Some(now), written);
            }
        }
        let by_mac = || table.by_mac.get(&mac?);
        let name = table
            .by_address
            .get(&address.to_canonical())
            .or_else(by_mac);
        name.cloned()
    }

    fn read(&self) -> Table {
        let mut table = Table::default();
        for file in self.files.iter().filter_map(|file| File::open(file).ok()) {
            let lines = BufReader::new(file.take(FILE_MAX)).lines();
            for line in lines.map_while(Result::ok) {
                if table.by_address.len() < DEVICES_MAX {
                    table.enter(&line);
                }
            }
        }
        table
    }
}

impl Table {
    /// `expiry mac address name client-id` (dnsmasq) or `address name…` (a hosts file).
    fn enter(&mut self, line: &str) {
        let mut fields = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (fields.next(), fields.next()) else {
            return;
        };
        if let Ok(address) = first.parse::<IpAddr>() {
            self.by_address
                .insert(address.to_canonical(), second.into());
            return;
        }
        let (address, name) = (
            fields.next().and_then(|text| text.parse::<IpAddr>().ok()),
            fields.next(),
        );
        // dnsmasq writes a star for a device that has not told.
        if let (Some(address), Some(name)) = (address, name.filter(|name| *name != "*")) {
            self.by_address.insert(address.to_canonical(), name.into());
            if let Ok(mac) = second.parse::<Mac>() {
                self.by_mac.insert(mac, name.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_lines_name_a_device() {
        let mut table = Table::default();
        for line in [
            "1700000000 02:77:00:00:00:11 192.168.77.11 cam 01:02:77:00:00:00:11",
            "1700000000 02:77:00:00:00:12 192.168.77.12 * *",
            "duid 00:01:00:01",
            "1700000000 11 fd77::11 cam6 00:01",
            "# odhcpd",
            "fd77::12 tv.lan tv",
        ] {
            table.enter(line);
        }
        let name = |text: &str| {
            table
                .by_address
                .get(&text.parse().unwrap())
                .map(|name| &**name)
        };
        assert_eq!(name("192.168.77.11"), Some("cam"));
        assert_eq!(name("192.168.77.12"), None);
        assert_eq!(name("fd77::11"), Some("cam6"));
        assert_eq!(name("fd77::12"), Some("tv.lan"));
        let mac = "02:77:00:00:00:11".parse().unwrap();
        assert_eq!(table.by_mac.get(&mac).map(|name| &**name), Some("cam"));
    }
}
