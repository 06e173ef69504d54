//! Our rules and routes as rtnetlink messages, and what its answers say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;

use super::connection::Subject;
use super::{MarkRule, OwnKind, OwnRoute, RouteError};
use crate::prefix::Prefix;

/// Routing protocol number of what we add; free in the kernel's and in iproute2's lists.
pub(super) const PROTOCOL: u8 = 104;
/// The loopback device has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// The kernel's own table.
const TABLE_LOCAL: u32 = 255;

pub(super) fn family(v4: bool) -> AddressFamily {
    if v4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

pub(super) fn rule_message(rule: MarkRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.v4);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

pub(super) fn same_rule(message: &RuleMessage, rule: MarkRule) -> bool {
    let wanted = rule_message(rule);
    let protocol = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    message.header.family == wanted.header.family
        && wanted
            .attributes
            .iter()
            .all(|attribute| *attribute == protocol || message.attributes.contains(attribute))
}

pub(super) fn route_message(route: OwnRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.attributes.push(RouteAttribute::Table(route.table));
    match route.kind {
        OwnKind::LocalDefault { v4 } => {
            message.header.address_family = family(v4);
            message.header.kind = RouteType::Local;
            message.header.scope = if v4 {
                RouteScope::Host
            } else {
                RouteScope::Universe
            };
            message.attributes.push(RouteAttribute::Oif(LOOPBACK));
        }
        OwnKind::Note { address, metric } => {
            message.header.address_family = AddressFamily::Inet;
            message.header.kind = RouteType::Throw;
            message.header.destination_prefix_length = 32;
            let address = RouteAddress::Inet(address);
            message
                .attributes
                .push(RouteAttribute::Destination(address));
            message.attributes.push(RouteAttribute::Priority(metric));
        }
    }
    message
}

pub(super) fn own_route(message: &RouteMessage) -> Option<OwnRoute> {
    if message.header.protocol != RouteProtocol::Other(PROTOCOL) {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let mut note = None;
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(wide) => table = *wide,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => note = Some(*address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let kind = match (message.header.kind, note) {
        (RouteType::Throw, Some(address)) => OwnKind::Note { address, metric },
        (RouteType::Local, None) => OwnKind::LocalDefault {
            v4: message.header.address_family == AddressFamily::Inet,
        },
        _ => return None,
    };
    (table != TABLE_LOCAL).then_some(OwnRoute { table, kind })
}

/// What a route leads to; `None` for families other than IP.
pub(super) fn destination(route: &RouteMessage) -> Option<Prefix> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
    let address = address.or(match route.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    });
    Some(Prefix::new(
        address?,
        route.header.destination_prefix_length,
    ))
}

/// The interfaces that a route leaves by.
pub(super) fn interfaces(route: &RouteMessage) -> Vec<u32> {
    let mut interfaces = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => {
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    interfaces
}

/// A kernel without IPv6 has neither rules nor routes of it.
pub(super) fn no_family(error: &RouteError) -> bool {
    matches!(
        error,
        RouteError::Refused(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::ENOENT)
    )
}

/// Whether it was added: false where it was there.
pub(super) fn added(answer: Result<Vec<Subject>, RouteError>) -> Result<bool, RouteError> {
    match answer {
        Ok(_) => Ok(true),
        Err(RouteError::Refused(Errno::EEXIST)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// That it is gone, by us or before us.
pub(super) fn removed(answer: Result<Vec<Subject>, RouteError>) -> Result<(), RouteError> {
    match answer {
        Ok(_) | Err(RouteError::Refused(Errno::ENOENT | Errno::ESRCH)) => Ok(()),
        Err(error) => Err(error),
    }
}
