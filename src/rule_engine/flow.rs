//! A connection as rules and queries see it: the data of its events, and its row in the table `flows`.

use std::net::IpAddr;

use super::event::Datum;
use crate::metadata::{Mac, Network};
use crate::platform::clock;
use crate::tunnel::connections::Connection;

/// A flow as the table `flows` has it.
#[must_use]
pub fn flow_row(connection: &Connection, live: bool) -> Vec<(&'static str, Datum)> {
    let mut row = data_of(connection);
    for (name, _) in &mut row {
        if *name == "rule" {
            *name = "rule_type";
        }
    }
    // What people call a rule by: where it sends its flows.
    if let (Some(_), Some(target)) = (&connection.rule, connection.chain.last()) {
        row.push(("rule", Datum::Text((&**target).into())));
    }
    let [up, down] = moved(connection);
    let start = i64::try_from(connection.start.as_millis()).unwrap_or(i64::MAX);
    row.extend([
        ("live", Datum::Bool(live)),
        ("up", count(up)),
        ("down", count(down)),
        ("start", Datum::Int(start)),
        ("duration", Datum::Int(unix_ms().saturating_sub(start))),
    ]);
    row
}

/// The data that a connection's events have in common.
pub(super) fn data_of(connection: &Connection) -> Vec<(&'static str, Datum)> {
    let metadata = &connection.metadata;
    let names = connection.chain.iter().rev();
    let names: Vec<Box<str>> = names.map(|name| (&**name).into()).collect();
    let network = match metadata.network {
        Network::Tcp => "tcp",
        Network::Udp => "udp",
    };
    let mut data = vec![
        (
            "id",
            Datum::Int(i64::try_from(connection.id).unwrap_or(i64::MAX)),
        ),
        ("network", Datum::Text(network.into())),
        (
            "device",
            Datum::Address(metadata.source.ip().to_canonical()),
        ),
        ("device_port", Datum::Int(metadata.source.port().into())),
        ("port", Datum::Int(metadata.destination_port.into())),
        ("inbound", Datum::Text((&*metadata.inbound).into())),
    ];
    let mut add = |name, datum: Option<Datum>| data.extend(datum.map(|datum| (name, datum)));
    let mac = metadata.source_mac.as_ref().map(Mac::to_string);
    add("device_mac", mac.map(|mac| Datum::Text(mac.into())));
    let host = metadata.sniffed_host.as_ref().or(metadata.host.as_ref());
    add("host", host.map(|host| Datum::Text(host.clone())));
    let destination = connection.remote.get().copied().or(metadata.destination_ip);
    add(
        "destination",
        destination.map(|ip| Datum::Address(ip.to_canonical())),
    );
    if let Some((kind, payload)) = &connection.rule {
        add("rule", Some(Datum::Text((*kind).into())));
        add("rule_payload", Some(Datum::Text(payload.clone())));
    }
    add(
        "outbound",
        connection
            .chain
            .first()
            .map(|name| Datum::Text((&**name).into())),
    );
    add("chain", Some(Datum::Names(names)));
    data
}

/// The device that a connection comes from.
pub(super) fn device_of(connection: &Connection) -> IpAddr {
    connection.metadata.source.ip().to_canonical()
}

/// Bytes up and down so far.
pub(super) fn moved(connection: &Connection) -> [u64; 2] {
    [connection.upload.get(), connection.download.get()]
}

/// Bytes as data.
pub(super) fn count(bytes: u64) -> Datum {
    Datum::Int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> i64 {
    i64::try_from(clock::unix_time().as_millis()).unwrap_or(i64::MAX)
}
