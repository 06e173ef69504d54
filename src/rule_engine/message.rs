//! The columns of the broker's events.

use std::net::IpAddr;

use super::event::EventKind;
use crate::mqtt::Time;
use crate::mqtt::codec::property::{Value as Property, id};
use crate::mqtt::codec::{Qos, Version};
use crate::mqtt::hook::{Event, Publisher};
use crate::mqtt::message::Message;
use crate::mqtt::session::Session;
use crate::platform::clock;
use crate::sql::{Columns, Map, Text, Value};

/// An event of the broker.
pub(super) struct BrokerEvent<'a> {
    pub event: &'a Event<'a>,
    pub kind: EventKind,
    /// The broker's time of the event.
    pub now: Time,
    pub node: &'a str,
}

/// The message of an event, and what is known of its publication.
struct Carried<'a> {
    message: &'a Message,
    id: Option<u64>,
    publisher: Option<&'a Publisher>,
    received: Time,
}

impl<'a> BrokerEvent<'a> {
    pub(super) fn new(event: &'a Event<'a>, now: Time, node: &'a str) -> Self {
        let kind = match event {
            Event::Published { .. } => EventKind::Published,
            Event::Delivered { .. } => EventKind::MessageDelivered,
            Event::Acked { .. } => EventKind::MessageAcked,
            Event::Dropped { .. } => EventKind::MessageDropped,
            Event::DeliveryDropped { .. } => EventKind::DeliveryDropped,
            Event::Connected { .. } => EventKind::ClientConnected,
            Event::Disconnected { .. } => EventKind::ClientDisconnected,
            Event::Subscribed { .. } => EventKind::SessionSubscribed,
            Event::Unsubscribed { .. } => EventKind::SessionUnsubscribed,
        };
        Self {
            event,
            kind,
            now,
            node,
        }
    }

    /// The message that it carries, with the QoS that it is delivered with.
    pub(super) fn message(&self) -> Option<(&'a Message, Qos)> {
        match *self.event {
            Event::Published { message, .. } | Event::Dropped { message, .. } => {
                Some((message, message.qos))
            }
            Event::Delivered { message, qos, .. }
            | Event::Acked { message, qos, .. }
            | Event::DeliveryDropped { message, qos, .. } => Some((message, qos)),
            _ => None,
        }
    }

    fn carried(&self) -> Option<Carried<'a>> {
        let (message, _) = self.message()?;
        Some(match *self.event {
            Event::Published { id, publisher, .. } | Event::Dropped { id, publisher, .. } => {
                Carried {
                    message,
                    id: Some(id),
                    publisher: Some(publisher),
                    received: self.now,
                }
            }
            _ => {
                let origin = message.origin.as_deref();
                Carried {
                    message,
                    id: origin.map(|origin| origin.id),
                    publisher: origin.map(|origin| &*origin.publisher),
                    received: origin.map_or(self.now, |origin| origin.received),
                }
            }
        })
    }

    fn session(&self) -> Option<&'a Session> {
        match *self.event {
            Event::Delivered { receiver, .. }
            | Event::Acked { receiver, .. }
            | Event::DeliveryDropped { receiver, .. } => Some(receiver),
            Event::Connected { session }
            | Event::Disconnected { session, .. }
            | Event::Subscribed { session, .. }
            | Event::Unsubscribed { session, .. } => Some(session),
            Event::Published { .. } | Event::Dropped { .. } => None,
        }
    }

    /// A time of the broker in milliseconds since 1970.
    fn unix_ms(&self, time: Time) -> i64 {
        let wall = clock::unix_time().as_millis();
        let wall = i64::try_from(wall).unwrap_or(i64::MAX);
        let ago = i64::try_from(self.now.saturating_sub(time)).unwrap_or(0);
        wall.saturating_sub(ago)
    }

    fn of_message(&self, name: &str) -> Option<Value<'a>> {
        let carried = self.carried()?;
        let message = carried.message;
        let publisher = |value: fn(&'a Publisher) -> Option<Value<'a>>| {
            carried.publisher.and_then(value).unwrap_or_default()
        };
        Some(match name {
            "payload" => Value::Text(Text::Borrowed(message.payload())),
            "topic" => Value::text(message.topic()),
            "id" => carried
                .id
                .map_or(Value::Undefined, |id| owned(format!("{id:032X}"))),
            "flags" => map([
                ("dup", Value::Bool(false)),
                ("retain", Value::Bool(message.retain)),
            ]),
            "headers" => Value::map(Map::new()),
            "pub_props" => properties(message),
            "publish_received_at" => Value::Int(self.unix_ms(carried.received)),
            "from_clientid" => publisher(|one| Some(Value::text(&one.client_id))),
            "from_username" => publisher(|one| one.username.as_deref().map(Value::text)),
            "clientid" => match self.session() {
                Some(session) => Value::text(&session.client_id),
                None => publisher(|one| Some(Value::text(&one.client_id))),
            },
            "username" => match self.session() {
                Some(session) => optional(session.username.as_deref()),
                None => publisher(|one| one.username.as_deref().map(Value::text)),
            },
            "peerhost" => match self.session() {
                Some(session) => address(session.address.ip()),
                None => publisher(|one| one.address.map(address)),
            },
            _ => return None,
        })
    }

    fn of_session(&self, name: &str) -> Option<Value<'a>> {
        let session = self.session()?;
        Some(match name {
            "clientid" => Value::text(&session.client_id),
            "username" => optional(session.username.as_deref()),
            "peerhost" => address(session.address.ip()),
            "peername" => owned(session.address.to_string()),
            "proto_name" => Value::text(match session.version {
                Version::V3 => "MQIsdp",
                Version::V4 | Version::V5 => "MQTT",
            }),
            "proto_ver" => Value::Int(session.version.level().into()),
            "keepalive" => Value::Int(session.keep_alive.into()),
            "clean_start" => Value::Bool(session.clean),
            "expiry_interval" => Value::Int(session.expiry.into()),
            "is_bridge" => Value::Bool(session.bridge),
            "connected_at" => Value::Int(self.unix_ms(session.connected)),
            "disconnected_at" => Value::Int(self.unix_ms(self.now)),
            _ => return None,
        })
    }
}

impl Columns for BrokerEvent<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        if !self.kind.about().columns.contains(&name) {
            return None;
        }
        Some(match (name, self.event) {
            ("event", _) => Value::text(self.kind.about().name),
            ("timestamp", _) => Value::Int(self.unix_ms(self.now)),
            ("node", _) => Value::text(self.node),
            (
                "reason",
                Event::Dropped { reason, .. }
                | Event::DeliveryDropped { reason, .. }
                | Event::Disconnected { reason, .. },
            ) => Value::text(reason),
            ("topic", Event::Subscribed { filter, .. } | Event::Unsubscribed { filter, .. }) => {
                Value::text(filter)
            }
            ("qos", Event::Subscribed { qos, .. }) => Value::Int(qos.bits().into()),
            ("qos", _) => {
                let qos = self.message().map(|(_, qos)| qos.bits().into());
                qos.map_or(Value::Undefined, Value::Int)
            }
            _ => {
                let found = self.of_message(name).or_else(|| self.of_session(name));
                found.unwrap_or_default()
            }
        })
    }

    fn names(&self) -> &[&'static str] {
        self.kind.about().columns
    }
}

fn owned<'e>(text: String) -> Value<'e> {
    Value::Text(text.into_bytes().into())
}

fn optional(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Undefined, Value::text)
}

fn address<'e>(address: IpAddr) -> Value<'e> {
    owned(address.to_canonical().to_string())
}

fn map<'e, const N: usize>(entries: [(&'e str, Value<'e>); N]) -> Value<'e> {
    let entries = entries.map(|(key, value)| (key.into(), value));
    Map::collect(entries.into()).map_or(Value::Undefined, Value::map)
}

/// The properties of MQTT 5.0 by the standard's names; of user properties with one name the last.
fn properties(message: &Message) -> Value<'_> {
    let mut entries: Vec<(Text<'_>, Value<'_>)> = Vec::new();
    let (mut user, mut pairs) = (Vec::new(), Vec::new());
    for (identifier, value, _) in message.property_list().iter() {
        let name = match identifier {
            id::PAYLOAD_FORMAT => "Payload-Format-Indicator",
            id::CONTENT_TYPE => "Content-Type",
            id::RESPONSE_TOPIC => "Response-Topic",
            id::CORRELATION_DATA => "Correlation-Data",
            _ => "User-Property",
        };
        match value {
            Property::Number(number) => entries.push((name.into(), Value::Int(number.into()))),
            Property::Text(text) => entries.push((name.into(), Value::text(text))),
            Property::Binary(bytes) => {
                entries.push((name.into(), Value::Text(Text::Borrowed(bytes))));
            }
            Property::Pair(key, value) => {
                user.push((key.into(), Value::text(value)));
                pairs.push(map([
                    ("key", Value::text(key)),
                    ("value", Value::text(value)),
                ]));
            }
        }
    }
    if !user.is_empty() {
        let user = Map::collect(user).map_or(Value::Undefined, Value::map);
        entries.push(("User-Property".into(), user));
        let pairs = Value::list(pairs).unwrap_or_default();
        entries.push(("User-Property-Pairs".into(), pairs));
    }
    Map::collect(entries).map_or(Value::Undefined, Value::map)
}
