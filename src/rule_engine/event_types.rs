//! Every kind of events, with its names and columns (emqx-api.md 4.6; the router's own are headgate's).

use super::event::EventKind;
use crate::mqtt::hook::Interest;

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

pub(super) const PUBLISHED: &EventType = match EVENTS.first() {
    Some(first) => first,
    None => panic!("the table is empty"),
};

/// Columns with others among them: `more` before the one at `at`.
#[expect(
    clippy::indexing_slicing,
    reason = "done when it is compiled, and refused then"
)]
const fn inserted<const N: usize, const K: usize, const M: usize>(
    columns: [&'static str; N],
    at: usize,
    more: [&'static str; K],
) -> [&'static str; M] {
    let mut all = [""; M];
    let mut place = 0;
    while place < M {
        all[place] = if place < at {
            columns[place]
        } else if place < at + K {
            more[place - at]
        } else {
            columns[place - K]
        };
        place += 1;
    }
    all
}

/// Of a message.
const PUBLICATION: [&str; 14] = [
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
];

/// Of a device's connection.
const CONNECTION: [&str; 16] = [
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
];

/// Of a message on its way to a client, and of its confirmation.
const DELIVERY: [&str; 16] = [
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
        columns: &PUBLICATION,
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
        columns: &DELIVERY,
        interest: Interest::DELIVERED,
    },
    EventType {
        kind: EventKind::MessageAcked,
        topic: "$events/message_acked",
        name: "message.acked",
        title: ("message acked", "消息应答"),
        columns: &DELIVERY,
        interest: Interest::ACKED,
    },
    EventType {
        kind: EventKind::MessageDropped,
        topic: "$events/message_dropped",
        name: "message.dropped",
        title: ("message dropped", "消息丢弃"),
        columns: &inserted::<14, 1, 15>(PUBLICATION, 1, ["reason"]),
        interest: Interest::DROPPED,
    },
    EventType {
        kind: EventKind::DeliveryDropped,
        topic: "$events/delivery_dropped",
        name: "delivery.dropped",
        title: ("delivery dropped", "消息投递丢弃"),
        columns: &inserted::<16, 1, 17>(DELIVERY, 1, ["reason"]),
        interest: Interest::DELIVERY_DROPPED,
    },
    EventType {
        kind: EventKind::ConnectionOpened,
        topic: "$events/connection_opened",
        name: "connection.opened",
        title: ("connection opened", "设备连接建立"),
        columns: &CONNECTION,
        interest: Interest::NOTHING,
    },
    EventType {
        kind: EventKind::ConnectionClosed,
        topic: "$events/connection_closed",
        name: "connection.closed",
        title: ("connection closed", "设备连接关闭"),
        columns: &inserted::<16, 3, 19>(CONNECTION, 14, ["upload", "download", "duration"]),
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
