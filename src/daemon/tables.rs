//! The rows of the tables that queries read, from what the instance has at the moment and from what the
//! rings remember.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::control::Door;
use crate::metadata::Mac;
use crate::mqtt::session::Session;
use crate::rule_engine::history::Record;
use crate::rule_engine::tables::{Show, Tables};
use crate::rule_engine::{Datum, flow_row};

impl Tables for Door {
    fn visit(&self, table: &'static str, show: &mut Show<'_>) {
        // Whoever asks once is likely to ask again.
        self.rules.feed().remember();
        match table {
            "flows" => self.flows(show),
            "devices" => self.devices(show),
            "dns" => self.rules.feed().names_told(&mut |row| show(row)),
            "rules" => self.rule_rows(show),
            _ => self.mqtt_clients(show),
        }
    }
}

fn int(value: u64) -> Datum {
    Datum::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn ms(time: Duration) -> Datum {
    int(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Door {
    fn flows(&self, show: &mut Show<'_>) {
        self.rules.feed().flows_ended(&mut |row| show(row));
        for connection in self.tunnel.connections().snapshot() {
            show(&flow_row(&connection, true));
        }
    }

    fn devices(&self, show: &mut Show<'_>) {
        #[derive(Default)]
        struct Device {
            mac: Option<Mac>,
            flows: u64,
            bytes: [i64; 2],
        }
        let mut all: BTreeMap<IpAddr, Device> = BTreeMap::new();
        self.flows(&mut |row| {
            let of = |name: &str| {
                row.iter()
                    .find(|(column, _)| *column == name)
                    .map(|(_, datum)| datum)
            };
            let Some(Datum::Address(address)) = of("device") else {
                return;
            };
            let device = all.entry(*address).or_default();
            device.flows += 1;
            for (sum, name) in device.bytes.iter_mut().zip(["up", "down"]) {
                if let Some(Datum::Int(bytes)) = of(name) {
                    *sum = sum.saturating_add(*bytes);
                }
            }
            if let Some(Datum::Text(mac)) = of("device_mac") {
                device.mac = mac.parse().ok().or(device.mac);
            }
        });
        for (address, device) in all {
            let mac = device.mac.or_else(|| self.tunnel.devices().mac_of(address));
            let name = self.tunnel.devices().name_of(address, mac);
            let [up, down] = device.bytes;
            let mut row = vec![
                ("device", Datum::Address(address)),
                ("flows", int(device.flows)),
                ("up", Datum::Int(up)),
                ("down", Datum::Int(down)),
            ];
            row.extend(mac.map(|mac| ("device_mac", Datum::Text(mac.to_string().into()))));
            row.extend(name.map(|name| ("device_name", Datum::Text(name))));
            show(&row);
        }
    }

    fn rule_rows(&self, show: &mut Show<'_>) {
        let routing = self.tunnel.routing();
        let records = routing.tally.records(routing.rules.len());
        for ((index, line), record) in routing.rules.lines().enumerate().zip(records) {
            let mut row = vec![
                ("index", int(index as u64)),
                ("type", Datum::Text(line.kind.into())),
                ("payload", Datum::Text(line.payload.into())),
                ("proxy", Datum::Text((&**line.target).into())),
                ("hits", int(record.hits.times)),
                ("misses", int(record.misses.times)),
                ("disabled", Datum::Bool(record.off)),
            ];
            if record.hits.times > 0 {
                row.push(("last_hit", ms(record.hits.last)));
            }
            show(&row);
        }
    }

    fn mqtt_clients(&self, show: &mut Show<'_>) {
        let rows = self.rules.broker().ask(|broker, _| {
            broker
                .sessions()
                .take(CLIENTS_MAX)
                .map(client_row)
                .collect::<Vec<Record>>()
        });
        // Without a broker there are no clients.
        for row in rows.unwrap_or_default() {
            show(&row);
        }
    }
}

/// Clients that a query sees: the broker waits meanwhile.
const CLIENTS_MAX: usize = 10_000;

fn client_row(session: &Session) -> Record {
    let mut row = vec![
        ("clientid", Datum::Text((&*session.client_id).into())),
        (
            "address",
            Datum::Address(session.address.ip().to_canonical()),
        ),
        ("connected", Datum::Bool(session.link.is_some())),
        ("proto_ver", int(session.version.level().into())),
        ("keepalive", int(session.keep_alive.into())),
        ("received", int(session.received.messages)),
        ("sent", int(session.sent.messages)),
        ("bytes_received", int(session.received.bytes)),
        ("bytes_sent", int(session.sent.bytes)),
        ("dropped", int(session.queue_dropped)),
    ];
    row.extend(
        session
            .username
            .as_ref()
            .map(|name| ("username", Datum::Text(name.clone()))),
    );
    row.into()
}
