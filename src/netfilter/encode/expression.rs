//! Expressions of rules: what the kernel's small machine does to a packet, register by register.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::netfilter::options::Mark;
use crate::netfilter::table::{Expression, Family, Field};
use crate::platform::netlink::Batch;

const NF_DROP: i32 = 0;
pub(super) const NF_ACCEPT: i32 = 1;
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

pub(super) fn encode(batch: &mut Batch, expression: Expression) {
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
pub(super) fn name(name: &str) -> [u8; 16] {
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
