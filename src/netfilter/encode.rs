//! Tables as nftables netlink messages (linux/netfilter/nf_tables.h).
//!
//! The other rendering of [`super::table`]; `netns` tests hold the two together. The crate
//! netlink-packet-netfilter is not used: it has neither `ct`, `fib`, `tproxy`, `nat`,
//! `redir` nor `reject`, so that three of four expressions here would be raw bytes inside
//! its lists of lists, and its derive macros cost more than these hundred lines.
//!
//! Byte orders: attributes and network fields are big-endian, registers that the kernel
//! itself fills with a number (marks, states, interface types) are the machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::options::Mark;
use super::table::{
    Chain, Elements, Expression, Family, Field, Rule, Set, SetKind, Table, Transport,
};
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

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;
const META_MARK: u32 = 3;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_INPUT_TYPE: u32 = 8;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_MARK: u32 = 3;
/// IPS_CONFIRMED, IPS_SRC_NAT and IPS_DST_NAT of nf_conntrack_common.h.
const STATUS_CONFIRMED: u32 = 1 << 3;
const STATUS_SOURCE_NAT: u32 = 1 << 4;
const STATUS_DESTINATION_NAT: u32 = 1 << 5;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// ARPHRD_ETHER.
const ETHERNET: u16 = 1;

fn encode(batch: &mut Batch, expression: Expression) {
    match expression {
        Expression::In(field, set) => {
            load_field(batch, field);
            part(batch, "lookup", |batch| {
                batch.text(1, set);
                batch.be32(2, 1);
            });
        }
        Expression::FromLoopback => interface(batch, META_INPUT_NAME, EQUAL),
        Expression::NotFromLoopback => interface(batch, META_INPUT_NAME, NOT_EQUAL),
        Expression::ToLoopback => interface(batch, META_OUTPUT_NAME, EQUAL),
        Expression::Is(family) => is_family(batch, family),
        Expression::Over(protocol) => {
            load(batch, "meta", META_PROTOCOL);
            compare(batch, EQUAL, &[protocol as u8]);
        }
        Expression::Port(port) => {
            load_field(batch, Field::DestinationPort);
            compare(batch, EQUAL, &port.to_be_bytes());
        }
        Expression::Marked(mark) => marked(batch, "meta", META_MARK, mark, EQUAL),
        Expression::NotMarked(mark) => marked(batch, "meta", META_MARK, mark, NOT_EQUAL),
        Expression::ConnectionMarked(mark) => marked(batch, "ct", CT_MARK, mark, EQUAL),
        Expression::Reply => {
            load(batch, "ct", CT_DIRECTION);
            compare(batch, EQUAL, &[1]);
        }
        Expression::Confirmed => status(batch, STATUS_CONFIRMED, NOT_EQUAL),
        Expression::Translated => {
            status(batch, STATUS_SOURCE_NAT | STATUS_DESTINATION_NAT, NOT_EQUAL);
        }
        Expression::DestinationUntranslated => status(batch, STATUS_DESTINATION_NAT, EQUAL),
        Expression::SetMark(mark) => set_mark(batch, "meta", META_MARK, mark),
        Expression::SetConnectionMark(mark) => set_mark(batch, "ct", CT_MARK, mark),
        Expression::TProxy(family, port) => tproxy(batch, family, port),
        Expression::KeepDestination(family) => keep_destination(batch, family),
        Expression::Redirect(port) => {
            immediate(batch, 1, &port.to_be_bytes());
            part(batch, "redir", |batch| {
                batch.be32(1, 1);
                batch.be32(3, 2);
            });
        }
        Expression::Reset => part(batch, "reject", |batch| {
            batch.be32(1, 1);
            batch.attribute(2, &[0]);
        }),
        Expression::Accept => verdict(batch, NF_ACCEPT, None),
        Expression::Drop => verdict(batch, NF_DROP, None),
        Expression::Return => verdict(batch, NFT_RETURN, None),
        Expression::Goto(chain) => verdict(batch, NFT_GOTO, Some(chain)),
    }
}

/// One kernel expression: its name and its attributes.
fn part(batch: &mut Batch, name: &str, attributes: impl FnOnce(&mut Batch)) {
    batch.nested(1, |batch| {
        batch.text(1, name);
        batch.nested(2, attributes);
    });
}

/// Loads a `meta` or `ct` key into register 1; both number their attributes alike.
fn load(batch: &mut Batch, expression: &str, key: u32) {
    part(batch, expression, |batch| {
        batch.be32(1, 1);
        batch.be32(2, key);
    });
}

fn load_field(batch: &mut Batch, field: Field) {
    let (base, offset, length) = match field {
        Field::InputInterface => return load(batch, "meta", META_INPUT_NAME),
        Field::Protocol => return load(batch, "meta", META_PROTOCOL),
        Field::DestinationType => {
            return part(batch, "fib", |batch| {
                batch.be32(1, 1);
                batch.be32(2, 3);
                batch.be32(3, 2);
            });
        }
        Field::DestinationPort => (TRANSPORT_HEADER, 2, 2),
        Field::Destination(family) => {
            is_family(batch, family);
            address_place(family, true)
        }
        Field::Source(family) => {
            is_family(batch, family);
            address_place(family, false)
        }
        Field::EtherSource => {
            load(batch, "meta", META_INPUT_TYPE);
            compare(batch, EQUAL, &ETHERNET.to_ne_bytes());
            (LINK_HEADER, 6, 6)
        }
    };
    payload(batch, (base, offset, length));
}

/// Base, offset and length of an address in the network header.
fn address_place(family: Family, destination: bool) -> (u32, u32, u32) {
    let (offset, length) = match family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    let offset = if destination { offset + length } else { offset };
    (NETWORK_HEADER, offset, length)
}

fn payload(batch: &mut Batch, (base, offset, length): (u32, u32, u32)) {
    part(batch, "payload", |batch| {
        batch.be32(1, 1);
        batch.be32(2, base);
        batch.be32(3, offset);
        batch.be32(4, length);
    });
}

fn is_family(batch: &mut Batch, family: Family) {
    load(batch, "meta", META_FAMILY);
    compare(batch, EQUAL, &[number(family)]);
}

/// NFPROTO_IPV4 or NFPROTO_IPV6.
fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn compare(batch: &mut Batch, operator: u32, value: &[u8]) {
    part(batch, "cmp", |batch| {
        batch.be32(1, 1);
        batch.be32(2, operator);
        batch.nested(3, |batch| batch.attribute(1, value));
    });
}

/// Register 1 becomes `(register 1 & mask) ^ bits`.
fn bitwise(batch: &mut Batch, mask: u32, bits: u32) {
    part(batch, "bitwise", |batch| {
        batch.be32(1, 1);
        batch.be32(2, 1);
        batch.be32(3, 4);
        batch.nested(4, |batch| batch.attribute(1, &mask.to_ne_bytes()));
        batch.nested(5, |batch| batch.attribute(1, &bits.to_ne_bytes()));
    });
}

fn marked(batch: &mut Batch, expression: &str, key: u32, mark: Mark, operator: u32) {
    load(batch, expression, key);
    bitwise(batch, mark.mask, 0);
    compare(batch, operator, &mark.value.to_ne_bytes());
}

fn set_mark(batch: &mut Batch, expression: &str, key: u32, mark: Mark) {
    load(batch, expression, key);
    bitwise(batch, !mark.mask, mark.value);
    // The source register is attribute 3 of `meta` and 4 of `ct`.
    let source = if expression == "meta" { 3 } else { 4 };
    part(batch, expression, |batch| {
        batch.be32(2, key);
        batch.be32(source, 1);
    });
}

fn status(batch: &mut Batch, bits: u32, operator: u32) {
    load(batch, "ct", CT_STATUS);
    bitwise(batch, bits, 0);
    compare(batch, operator, &0_u32.to_ne_bytes());
}

fn interface(batch: &mut Batch, key: u32, operator: u32) {
    load(batch, "meta", key);
    compare(batch, operator, &name("lo"));
}

/// An interface name as the kernel holds it: 16 bytes, zeros behind.
fn name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *place = byte;
    }
    bytes
}

fn immediate(batch: &mut Batch, register: u32, value: &[u8]) {
    part(batch, "immediate", |batch| {
        batch.be32(1, register);
        batch.nested(2, |batch| batch.attribute(1, value));
    });
}

fn tproxy(batch: &mut Batch, family: Family, port: u16) {
    match family {
        Family::V4 => immediate(batch, 1, &Ipv4Addr::LOCALHOST.octets()),
        Family::V6 => immediate(batch, 1, &Ipv6Addr::LOCALHOST.octets()),
    }
    immediate(batch, 2, &port.to_be_bytes());
    part(batch, "tproxy", |batch| {
        batch.be32(1, u32::from(number(family)));
        batch.be32(2, 1);
        batch.be32(3, 2);
    });
}

fn keep_destination(batch: &mut Batch, family: Family) {
    is_family(batch, family);
    payload(batch, address_place(family, true));
    part(batch, "nat", |batch| {
        batch.be32(1, 1);
        batch.be32(2, u32::from(number(family)));
        batch.be32(3, 1);
    });
}

fn verdict(batch: &mut Batch, code: i32, chain: Option<&str>) {
    part(batch, "immediate", |batch| {
        batch.be32(1, 0);
        batch.nested(2, |batch| {
            batch.nested(2, |batch| {
                batch.be32(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    batch.text(2, chain);
                }
            });
        });
    });
}
