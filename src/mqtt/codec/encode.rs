//! From a [`Packet`] to bytes, behind what is in the buffer already.
//!
//! A caller's text or payload that the protocol cannot carry is a mistake of ours that no peer can
//! cause: what comes from one was bounded by the same fields on its way in.

use super::{
    Ack, AckKind, Connect, Packet, Properties, Publish, Reason, SubAck, Subscribe, Version,
};

/// Appends a packet.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    match packet {
        Packet::Connect(connect) => encode_connect(connect, out),
        Packet::ConnAck(ack) => {
            let (length, body) = sized(version, ack.properties);
            header(out, 0x20, 2 + length);
            out.extend([u8::from(ack.session_present), ack.reason.0]);
            body.write(out);
        }
        Packet::Publish(publish) => {
            let length = publish.payload.len();
            publish_header(
                publish,
                publish.properties.bytes().len(),
                length,
                version,
                out,
            );
            out.extend(publish.properties.bytes());
            out.extend(publish.payload);
        }
        Packet::Ack(ack) => encode_ack(ack, version, out),
        Packet::Subscribe(subscribe) => encode_list(subscribe, 0x82, version, out),
        Packet::Unsubscribe(subscribe) => encode_list(subscribe, 0xa2, version, out),
        Packet::SubAck(ack) => encode_suback(ack, version, out),
        Packet::PingReq => out.extend([0xc0, 0]),
        Packet::PingResp => out.extend([0xd0, 0]),
        Packet::Disconnect(reason, properties) => ending(0xe0, *reason, *properties, version, out),
        Packet::Auth(reason, properties) => ending(0xf0, *reason, *properties, version, out),
    }
}

/// Appends everything of a PUBLISH up to its properties, of which there will be
/// `properties_length` bytes, and its payload of `payload_length`.
pub fn publish_header(
    publish: &Publish<'_>,
    properties_length: usize,
    payload_length: usize,
    version: Version,
    out: &mut Vec<u8>,
) {
    let flags = u8::from(publish.dup) << 3 | publish.qos.bits() << 1 | u8::from(publish.retain);
    let id = if publish.packet_id == 0 { 0 } else { 2 };
    let properties = match version {
        Version::V5 => varint_length(properties_length) + properties_length,
        Version::V3 | Version::V4 => 0,
    };
    header(
        out,
        0x30 | flags,
        2 + publish.topic.len() + id + properties + payload_length,
    );
    put_bytes(out, publish.topic.as_bytes());
    if publish.packet_id != 0 {
        out.extend(publish.packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        put_varint(out, properties_length);
    }
}

/// Properties with their length, or nothing before 5.0.
struct Sized<'a>(Option<Properties<'a>>);

impl Sized<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(properties) = self.0 {
            put_varint(out, properties.bytes().len());
            out.extend(properties.bytes());
        }
    }
}

fn sized(version: Version, properties: Properties<'_>) -> (usize, Sized<'_>) {
    match version {
        Version::V5 => {
            let length = properties.bytes().len();
            (varint_length(length) + length, Sized(Some(properties)))
        }
        Version::V3 | Version::V4 => (0, Sized(None)),
    }
}

fn encode_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let name: &[u8] = match connect.version {
        Version::V3 => b"MQIsdp",
        Version::V4 | Version::V5 => b"MQTT",
    };
    put_bytes(&mut body, name);
    body.push(connect.version.level() | if connect.bridge { super::BRIDGE } else { 0 });
    let mut flags = u8::from(connect.clean) << 1
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.username.is_some()) << 7;
    if let Some(will) = &connect.will {
        flags |= 1 << 2 | will.qos.bits() << 3 | u8::from(will.retain) << 5;
    }
    body.push(flags);
    body.extend(connect.keep_alive.to_be_bytes());
    sized(connect.version, connect.properties)
        .1
        .write(&mut body);
    put_bytes(&mut body, connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        sized(connect.version, will.properties).1.write(&mut body);
        put_bytes(&mut body, will.topic.as_bytes());
        put_bytes(&mut body, will.payload);
    }
    if let Some(username) = connect.username {
        put_bytes(&mut body, username.as_bytes());
    }
    if let Some(password) = connect.password {
        put_bytes(&mut body, password);
    }
    header(out, 0x10, body.len());
    out.extend(body);
}

fn encode_ack(ack: &Ack<'_>, version: Version, out: &mut Vec<u8>) {
    let first = match ack.kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let [high, low] = ack.packet_id.to_be_bytes();
    let plain = ack.reason == Reason::SUCCESS && ack.properties.bytes().is_empty();
    if version != Version::V5 || plain {
        out.extend([first, 2, high, low]);
        return;
    }
    let (length, body) = sized(version, ack.properties);
    header(out, first, 3 + length);
    out.extend([high, low, ack.reason.0]);
    body.write(out);
}

fn encode_list(subscribe: &Subscribe<'_>, first: u8, version: Version, out: &mut Vec<u8>) {
    let (length, body) = sized(version, subscribe.properties);
    header(out, first, 2 + length + subscribe.list.len());
    out.extend(subscribe.packet_id.to_be_bytes());
    body.write(out);
    out.extend(subscribe.list);
}

fn encode_suback(ack: &SubAck<'_>, version: Version, out: &mut Vec<u8>) {
    let first = if ack.unsubscribe { 0xb0 } else { 0x90 };
    let (length, body) = sized(version, ack.properties);
    header(out, first, 2 + length + ack.reasons.len());
    out.extend(ack.packet_id.to_be_bytes());
    body.write(out);
    out.extend(ack.reasons);
}

/// DISCONNECT or AUTH.
fn ending(
    first: u8,
    reason: Reason,
    properties: Properties<'_>,
    version: Version,
    out: &mut Vec<u8>,
) {
    let plain = reason == Reason::SUCCESS && properties.bytes().is_empty();
    if version != Version::V5 || plain {
        out.extend([first, 0]);
        return;
    }
    let (length, body) = sized(version, properties);
    header(out, first, 1 + length);
    out.push(reason.0);
    body.write(out);
}

fn header(out: &mut Vec<u8>, first: u8, remaining: usize) {
    out.push(first);
    put_varint(out, remaining);
}

/// How many bytes the variable byte integer takes.
#[must_use]
fn varint_length(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "seven bits of it are taken at a time"
)]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes with their length before them; the length field holds no more than 65,535.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(bytes.get(..length.into()).unwrap_or(bytes));
}
