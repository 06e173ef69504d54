//! Tables as nftables netlink messages (linux/netfilter/nf_tables.h).
//!
//! The other rendering of [`super::table`]; `kernel_tests` hold the two together. The crate
//! netlink-packet-netfilter is not used: it has neither `ct`, `fib`, `tproxy`, `nat`,
//! `redir` nor `reject`, so that most expressions here would be raw bytes inside its lists
//! of lists, and tables, chains and sets alone are not worth a second way of writing.
//!
//! Byte orders: attributes and network fields are big-endian, registers that the kernel
//! itself fills with a number (marks, states, interface types) are the machine's.

mod expression;

use std::net::IpAddr;

use self::expression::{NF_ACCEPT, encode, name};
use super::table::{Chain, Elements, Family, Rule, Set, SetKind, Table, Transport};
use crate::platform::netlink::{Batch, LIST_BYTES_MAX, NFTABLES, NLM_F_APPEND, NLM_F_CREATE};
use crate::prefix::from_bits;

const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const NEW_SET: u8 = 9;
const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;
/// Family `inet`.
const INET: u8 = 1;
const OWNER: u32 = 2;
const SET_INTERVAL: u32 = 4;
const SET_TIMEOUT: u32 = 0x10;
const INTERVAL_END: u32 = 1;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`: nft's note to itself how to read keys when it lists a set.
const KEY_IS_HOST_ORDER: [u8; 6] = key_order(1);
const KEY_IS_NETWORK_ORDER: [u8; 6] = key_order(2);

const fn key_order(order: u32) -> [u8; 6] {
    let [a, b, c, d] = order.to_ne_bytes();
    [0, 4, a, b, c, d]
}

/// Adds to `batch` what makes the table anew: an older one of that name goes, in the same
/// transaction.
pub fn replace(batch: &mut Batch, table: &Table) {
    remove(batch, table.name);
    message(batch, NEW_TABLE, NLM_F_CREATE, table.name);
    if table.owned {
        batch.be32(2, OWNER);
    }
    for (id, set) in (1..).zip(&table.sets) {
        new_set(batch, table.name, id, set);
        elements(batch, Change::Add, table.name, set.name, &set.elements);
    }
    // All chains before all rules, so that rules may name any of them.
    for chain in &table.chains {
        new_chain(batch, table.name, chain);
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            new_rule(batch, table.name, chain.name, rule);
        }
    }
}

/// Adds to `batch` what removes a table, also when there is none.
pub fn remove(batch: &mut Batch, table: &str) {
    // Deleting what is not there fails, and DESTROYTABLE is younger than OpenWrt's kernels.
    message(batch, NEW_TABLE, NLM_F_CREATE, table);
    message(batch, DELETE_TABLE, 0, table);
}

fn message(batch: &mut Batch, kind: u8, flags: u16, table: &str) {
    batch.message(NFTABLES, kind, flags, INET);
    batch.text(1, table);
}

fn new_set(batch: &mut Batch, table: &str, id: u32, set: &Set) {
    // Type numbers are nft's own (its `datatype.h`); the kernel only keeps them.
    let (type_number, length, flags) = match set.kind {
        SetKind::Protocols => (12, 1, SET_TIMEOUT),
        SetKind::Interfaces => (41, 16, 0),
        SetKind::AddressTypes => (38, 4, 0),
        SetKind::Ports => (13, 2, 0),
        SetKind::Ethers => (9, 6, 0),
        SetKind::Ranges(Family::V4) => (7, 4, SET_INTERVAL),
        SetKind::Ranges(Family::V6) => (8, 16, SET_INTERVAL),
        SetKind::Hosts(Family::V4) => (7, 4, 0),
        SetKind::Hosts(Family::V6) => (8, 16, 0),
        SetKind::TimedHosts(Family::V4, _) => (7, 4, SET_TIMEOUT),
        SetKind::TimedHosts(Family::V6, _) => (8, 16, SET_TIMEOUT),
    };
    message(batch, NEW_SET, NLM_F_CREATE, table);
    batch.text(2, set.name);
    batch.be32(3, flags);
    batch.be32(4, type_number);
    batch.be32(5, length);
    if let SetKind::TimedHosts(_, size) = set.kind {
        batch.nested(9, |batch| batch.be32(1, size));
    }
    batch.be32(10, id);
    let host_order = matches!(set.kind, SetKind::Interfaces | SetKind::AddressTypes);
    batch.attribute(
        13,
        if host_order {
            &KEY_IS_HOST_ORDER
        } else {
            &KEY_IS_NETWORK_ORDER
        },
    );
}

/// What to do with elements of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add; what is there already stays as it is.
    Add,
    /// Delete; each must be there.
    Delete,
}

/// Adds to `batch` a change of a set's elements.
pub fn elements(batch: &mut Batch, change: Change, table: &str, set: &str, elements: &Elements) {
    let mut list = List {
        batch,
        change,
        table,
        set,
        open: None,
    };
    match elements {
        Elements::None => {}
        Elements::Alive(milliseconds) => {
            list.element(&[Transport::Tcp as u8], 0, Some(*milliseconds));
            list.element(&[Transport::Udp as u8], 0, Some(*milliseconds));
        }
        Elements::Names(names) => names.iter().for_each(|n| list.element(&name(n), 0, None)),
        // RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST.
        Elements::NearTypes => {
            (2_u32..=5).for_each(|t| list.element(&t.to_ne_bytes(), 0, None));
        }
        Elements::Ports(ports) => {
            ports
                .iter()
                .for_each(|p| list.element(&p.to_be_bytes(), 0, None));
        }
        Elements::Ethers(addresses) => addresses.iter().for_each(|a| list.element(&a.0, 0, None)),
        Elements::Hosts(addresses) => addresses.iter().for_each(|a| list.address(*a, 0, None)),
        Elements::Ranges { family, ranges } => {
            let v4 = *family == Family::V4;
            for &(first, last) in ranges {
                list.address(from_bits(first, v4), 0, None);
                // The end is the first address outside; the last range of all has none.
                let highest = if v4 { u128::from(u32::MAX) } else { u128::MAX };
                if last < highest {
                    list.address(from_bits(last + 1, v4), INTERVAL_END, None);
                }
            }
        }
    }
    list.close();
}

/// Adds to `batch` a change of single addresses, each with the milliseconds that it lives.
/// Only those of `family` are taken.
pub fn timed_hosts(
    batch: &mut Batch,
    change: Change,
    table: &str,
    (set, family): (&str, Family),
    hosts: &[(IpAddr, u64)],
) {
    let mut list = List {
        batch,
        change,
        table,
        set,
        open: None,
    };
    for &(address, milliseconds) in hosts.iter().filter(|(a, _)| family.holds(*a)) {
        list.address(address, 0, (change == Change::Add).then_some(milliseconds));
    }
    list.close();
}

/// Adds to `batch` what empties a set.
pub fn flush(batch: &mut Batch, table: &str, set: &str) {
    message(batch, DELETE_ELEMENTS, 0, table);
    batch.text(2, set);
}

/// Elements on their way into messages of bounded size.
struct List<'a> {
    batch: &'a mut Batch,
    change: Change,
    table: &'a str,
    set: &'a str,
    open: Option<usize>,
}

impl List<'_> {
    fn address(&mut self, address: IpAddr, flags: u32, timeout: Option<u64>) {
        match address {
            IpAddr::V4(v4) => self.element(&v4.octets(), flags, timeout),
            IpAddr::V6(v6) => self.element(&v6.octets(), flags, timeout),
        }
    }

    fn element(&mut self, key: &[u8], flags: u32, timeout: Option<u64>) {
        let start = match self.open {
            Some(start) if self.batch.len() - start < LIST_BYTES_MAX => start,
            _ => self.start(),
        };
        self.open = Some(start);
        self.batch.nested(1, |batch| {
            if flags != 0 {
                batch.be32(3, flags);
            }
            if let Some(milliseconds) = timeout {
                batch.be64(4, milliseconds);
            }
            batch.nested(1, |batch| batch.attribute(1, key));
        });
    }

    fn start(&mut self) -> usize {
        self.close();
        let (kind, flags) = match self.change {
            Change::Add => (NEW_ELEMENTS, NLM_F_CREATE),
            Change::Delete => (DELETE_ELEMENTS, 0),
        };
        message(self.batch, kind, flags, self.table);
        self.batch.text(2, self.set);
        self.batch.open_list(3)
    }

    fn close(&mut self) {
        if let Some(start) = self.open.take() {
            self.batch.close_list(start);
        }
    }
}

fn new_chain(batch: &mut Batch, table: &str, chain: &Chain) {
    message(batch, NEW_CHAIN, NLM_F_CREATE, table);
    batch.text(3, chain.name);
    if let Some(hook) = chain.hook {
        batch.text(7, hook.kind);
        batch.be32(5, NF_ACCEPT.cast_unsigned());
        batch.nested(4, |batch| {
            batch.be32(1, hook.place as u32);
            batch.be32(2, hook.priority.cast_unsigned());
        });
    }
}

fn new_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    message(batch, NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, table);
    batch.text(2, chain);
    batch.nested(4, |batch| {
        for &expression in rule {
            encode(batch, expression);
        }
    });
}
