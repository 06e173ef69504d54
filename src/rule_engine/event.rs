//! The kinds of events and their columns (emqx-api.md 4.6; the router's own are headgate's).

use std::net::IpAddr;

use crate::mqtt::hook::Interest;
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

/// What there is to know of a kind.
pub struct EventType {
    /// The kind.
    pub kind: EventKind,
    /// As FROM names it.
    pub topic: &'static str,
    /// As the column `event` names it.
    pub name: &'static str,
    /// Its title, in English and Chinese.
    pub title: (&'static str, &'static str),
    /// All columns.
    pub columns: &'static [&'static str],
    /// What of the broker is to be watched.
    pub interest: Interest,
}

const PUBLISHED: &EventType = match EVENTS.first() {
    Some(first) => first,
    None => panic!("the table is empty"),
};

/// Of a message on its way to a client, and of its confirmation.
const DELIVERY: &[&str] = &[
    "event",
    "id",
    "from_clientid",
    "from_username",
    "clientid",
    "username",
    "payload",
    "peerhost",
    "topic",
    "qos",
    "flags",
    "headers",
    "pub_props",
    "publish_received_at",
    "timestamp",
    "node",
];

/// Of a device.
const DEVICE: &[&str] = &[
    "event",
    "device",
    "device_mac",
    "device_name",
    "addresses",
    "timestamp",
    "node",
];

/// An event of the router's own.
const fn of_router(
    kind: EventKind,
    topic: &'static str,
    name: &'static str,
    title: (&'static str, &'static str),
    columns: &'static [&'static str],
) -> EventType {
    EventType {
        kind,
        topic,
        name,
        title,
        columns,
        interest: Interest::NOTHING,
    }
}

/// Every kind.
pub const EVENTS: &[EventType] = &[
    EventType {
        kind: EventKind::Published,
        topic: "#",
        name: "message.publish",
        title: ("message publish", "消息发布"),
        columns: &[
            "event",
            "id",
            "clientid",
            "username",
            "payload",
            "peerhost",
            "topic",
            "qos",
            "flags",
            "headers",
            "pub_props",
            "publish_received_at",
            "timestamp",
            "node",
        ],
        interest: Interest::PUBLISHED,
    },
    EventType {
        kind: EventKind::ClientConnected,
        topic: "$events/client_connected",
        name: "client.connected",
        title: ("client connected", "连接建立"),
        columns: &[
            "event",
            "clientid",
            "username",
            "mountpoint",
            "peername",
            "sockname",
            "proto_name",
            "proto_ver",
            "keepalive",
            "clean_start",
            "expiry_interval",
            "is_bridge",
            "connected_at",
            "timestamp",
            "node",
        ],
        interest: Interest::CONNECTED,
    },
    EventType {
        kind: EventKind::ClientDisconnected,
        topic: "$events/client_disconnected",
        name: "client.disconnected",
        title: ("client disconnected", "连接断开"),
        columns: &[
            "event",
            "reason",
            "clientid",
            "username",
            "peername",
            "sockname",
            "proto_name",
            "proto_ver",
            "disconnected_at",
            "timestamp",
            "node",
        ],
        interest: Interest::DISCONNECTED,
    },
    EventType {
        kind: EventKind::SessionSubscribed,
        topic: "$events/session_subscribed",
        name: "session.subscribed",
        title: ("session subscribed", "会话订阅完成"),
        columns: &[
            "event",
            "clientid",
            "username",
            "peerhost",
            "topic",
            "qos",
            "timestamp",
            "node",
        ],
        interest: Interest::SUBSCRIBED,
    },
    EventType {
        kind: EventKind::SessionUnsubscribed,
        topic: "$events/session_unsubscribed",
        name: "session.unsubscribed",
        title: ("session unsubscribed", "会话取消订阅完成"),
        columns: &[
            "event",
            "clientid",
            "username",
            "peerhost",
            "topic",
            "timestamp",
            "node",
        ],
        interest: Interest::UNSUBSCRIBED,
    },
    EventType {
        kind: EventKind::MessageDelivered,
        topic: "$events/message_delivered",
        name: "message.delivered",
        title: ("message delivered", "消息投递"),
        columns: DELIVERY,
        interest: Interest::DELIVERED,
    },
    EventType {
        kind: EventKind::MessageAcked,
        topic: "$events/message_acked",
        name: "message.acked",
        title: ("message acked", "消息应答"),
        columns: DELIVERY,
        interest: Interest::ACKED,
    },
    EventType {
        kind: EventKind::MessageDropped,
        topic: "$events/message_dropped",
        name: "message.dropped",
        title: ("message dropped", "消息丢弃"),
        columns: &[
            "event",
            "reason",
            "id",
            "clientid",
            "username",
            "payload",
            "peerhost",
            "topic",
            "qos",
            "flags",
            "headers",
            "pub_props",
            "publish_received_at",
            "timestamp",
            "node",
        ],
        interest: Interest::DROPPED,
    },
    EventType {
        kind: EventKind::DeliveryDropped,
        topic: "$events/delivery_dropped",
        name: "delivery.dropped",
        title: ("delivery dropped", "消息投递丢弃"),
        columns: &[
            "event",
            "reason",
            "id",
            "from_clientid",
            "from_username",
            "clientid",
            "username",
            "payload",
            "peerhost",
            "topic",
            "qos",
            "flags",
            "headers",
            "pub_props",
            "publish_received_at",
            "timestamp",
            "node",
        ],
        interest: Interest::DELIVERY_DROPPED,
    },
    EventType {
        kind: EventKind::ConnectionOpened,
        topic: "$events/connection_opened",
        name: "connection.opened",
        title: ("connection opened", "设备连接建立"),
        columns: &[
            "event",
            "id",
            "network",
            "device",
            "device_mac",
            "device_port",
            "host",
            "destination",
            "port",
            "inbound",
            "rule",
            "rule_payload",
            "chain",
            "outbound",
            "timestamp",
            "node",
        ],
        interest: Interest::NOTHING,
    },
    EventType {
        kind: EventKind::ConnectionClosed,
        topic: "$events/connection_closed",
        name: "connection.closed",
        title: ("connection closed", "设备连接关闭"),
        columns: &[
            "event",
            "id",
            "network",
            "device",
            "device_mac",
            "device_port",
            "host",
            "destination",
            "port",
            "inbound",
            "rule",
            "rule_payload",
            "chain",
            "outbound",
            "upload",
            "download",
            "duration",
            "timestamp",
            "node",
        ],
        interest: Interest::NOTHING,
    },
    of_router(
        EventKind::ProxySwitched,
        "$events/proxy_switched",
        "proxy.switched",
        ("proxy switched", "代理切换"),
        &["event", "group", "proxy", "timestamp", "node"],
    ),
    of_router(
        EventKind::DnsQuery,
        "$events/dns_query",
        "dns.query",
        ("DNS query", "DNS 查询"),
        &[
            "event",
            "device",
            "name",
            "type",
            "rcode",
            "answers",
            "timestamp",
            "node",
        ],
    ),
    of_router(
        EventKind::DeviceJoined,
        "$events/device_joined",
        "device.joined",
        ("device joined", "设备上线"),
        DEVICE,
    ),
    of_router(
        EventKind::DeviceLeft,
        "$events/device_left",
        "device.left",
        ("device left", "设备离线"),
        DEVICE,
    ),
    of_router(
        EventKind::ProxyDelay,
        "$events/proxy_delay",
        "proxy.delay",
        ("proxy delay", "代理延迟"),
        &[
            "event",
            "proxy",
            "url",
            "delay",
            "alive",
            "timestamp",
            "node",
        ],
    ),
    of_router(
        EventKind::ProviderUpdated,
        "$events/provider_updated",
        "provider.updated",
        ("provider updated", "订阅更新"),
        &["event", "provider", "type", "timestamp", "node"],
    ),
    of_router(
        EventKind::Traffic,
        "$events/traffic",
        "traffic",
        ("traffic of a device", "设备流量"),
        &[
            "event",
            "device",
            "device_mac",
            "upload",
            "download",
            "interval",
            "timestamp",
            "node",
        ],
    ),
    of_router(
        EventKind::WanChanged,
        "$events/wan_changed",
        "wan.changed",
        ("WAN changed", "外网变化"),
        &["event", "up", "addresses", "timestamp", "node"],
    ),
];

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
