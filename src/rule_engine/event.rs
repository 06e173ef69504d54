//! The kinds of events, and what happens to the router as rules see it.

use std::net::IpAddr;

use super::event_types::{EVENTS, EventType, PUBLISHED};
use crate::sql::{Columns, Value};

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A message; FROM has a topic filter.
    Published,
    /// A client was let in.
    ClientConnected,
    /// A connection ended.
    ClientDisconnected,
    /// A subscription was made.
    SessionSubscribed,
    /// A subscription ended.
    SessionUnsubscribed,
    /// A message was written for a client.
    MessageDelivered,
    /// A client confirmed a message.
    MessageAcked,
    /// A message went to nobody.
    MessageDropped,
    /// A message was not sent to one of its receivers.
    DeliveryDropped,
    /// A device opened a connection through the router.
    ConnectionOpened,
    /// Such a connection ended.
    ConnectionClosed,
    /// Somebody, or a rule, chose in a group.
    ProxySwitched,
    /// A device asked for a name and was answered.
    DnsQuery,
    /// A device came into a network of the router's.
    DeviceJoined,
    /// A device is no longer there.
    DeviceLeft,
    /// A proxy was tested.
    ProxyDelay,
    /// A set of rules or proxies was loaded anew.
    ProviderUpdated,
    /// What a device has moved in ten seconds.
    Traffic,
    /// The router's addresses towards the Internet are others.
    WanChanged,
}

impl EventKind {
    /// What there is to know of it.
    #[must_use]
    pub fn about(self) -> &'static EventType {
        let mut all = EVENTS.iter();
        // Every kind has its row.
        all.find(|one| one.kind == self).unwrap_or(PUBLISHED)
    }

    /// The kind that a name behind FROM means; `None`: an event that there is not.
    #[must_use]
    pub fn of(topic: &str) -> Option<Self> {
        if !topic.starts_with("$events/") {
            return Some(Self::Published);
        }
        let mut all = EVENTS.iter();
        all.find(|one| one.topic == topic).map(|one| one.kind)
    }

    /// Its bit in a set of kinds.
    #[must_use]
    pub fn bit(self) -> u32 {
        let place = EVENTS.iter().position(|one| one.kind == self);
        1 << place.unwrap_or(31)
    }
}

/// Part of what happened to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// Text.
    Text(Box<str>),
    /// A number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// An address, printed when asked for.
    Address(IpAddr),
    /// Names.
    Names(Vec<Box<str>>),
}

impl Datum {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::text(text),
            Self::Int(value) => Value::Int(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::Address(address) => Value::Text(address.to_string().into_bytes().into()),
            Self::Names(names) => {
                let names = names.iter().map(|name| Value::text(name)).collect();
                Value::list(names).unwrap_or_default()
            }
        }
    }
}

/// Something that happened to the router, on its way to the rules.
#[derive(Clone, Debug)]
pub struct Occurrence {
    /// What kind of thing.
    pub kind: EventKind,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// Its columns; those that are missing are undefined.
    pub data: Vec<(&'static str, Datum)>,
}

/// An occurrence as rules see it.
pub(super) struct Shown<'a> {
    pub what: &'a Occurrence,
    pub node: &'a str,
}

impl Columns for Shown<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        match name {
            "event" => return Some(Value::text(self.what.kind.about().name)),
            "timestamp" => return Some(Value::Int(self.what.time_ms)),
            "node" => return Some(Value::text(self.node)),
            _ => {}
        }
        let mut data = self.what.data.iter();
        let (_, datum) = data.find(|(column, _)| *column == name)?;
        Some(datum.value())
    }

    fn names(&self) -> &[&'static str] {
        self.what.kind.about().columns
    }
}
