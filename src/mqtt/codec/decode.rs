//! From a [`Frame`] to a [`Packet`].

use super::property::{Properties, id, place};
use super::{
    Ack, AckKind, BRIDGE, ConnAck, Connect, Frame, Malformed, Packet, Publish, Qos, Reason, SubAck,
    Subscribe, Version, Will, text,
};
use crate::wire::Reader;

/// Decodes a packet of a connection that speaks `version`; CONNECT says its own.
///
/// # Errors
/// Whatever the standard calls malformed, and the protocol errors that one packet alone shows.
pub fn decode(frame: Frame<'_>, version: Version) -> Result<Packet<'_>, Malformed> {
    let mut reader = Reader::new(frame.body);
    let (kind, flags) = (frame.first >> 4, frame.first & 0x0f);
    let expected = match kind {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != expected {
        return Err(Malformed::ReservedFlags(frame.first));
    }
    let packet = match kind {
        1 => Packet::Connect(connect(&mut reader)?),
        2 => Packet::ConnAck(connack(&mut reader, version)?),
        3 => return Ok(Packet::Publish(publish(reader, flags, version)?)),
        4 => ack(&mut reader, AckKind::PubAck, version)?,
        5 => ack(&mut reader, AckKind::PubRec, version)?,
        6 => ack(&mut reader, AckKind::PubRel, version)?,
        7 => ack(&mut reader, AckKind::PubComp, version)?,
        8 => return Ok(Packet::Subscribe(subscribe(reader, version, true)?)),
        9 => return Ok(Packet::SubAck(suback(reader, version, false)?)),
        10 => return Ok(Packet::Unsubscribe(subscribe(reader, version, false)?)),
        11 => return Ok(Packet::SubAck(suback(reader, version, true)?)),
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => {
            let (reason, properties) = ending(&mut reader, version, place::DISCONNECT)?;
            Packet::Disconnect(reason, properties)
        }
        15 if version == Version::V5 => {
            let (reason, properties) = ending(&mut reader, version, place::AUTH)?;
            Packet::Auth(reason, properties)
        }
        _ => return Err(Malformed::PacketType(kind)),
    };
    if reader.is_empty() {
        Ok(packet)
    } else {
        Err(Malformed::Trailing)
    }
}

fn properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    place: u16,
) -> Result<Properties<'a>, Malformed> {
    match version {
        Version::V5 => Properties::read(reader, place),
        Version::V3 | Version::V4 => Ok(Properties::default()),
    }
}

fn packet_id(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    match reader.u16()? {
        0 => Err(Malformed::PacketId),
        id => Ok(id),
    }
}

fn binary<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.u16()?;
    Ok(reader.take(length.into())?)
}

fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, Malformed> {
    let name = binary(reader)?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Malformed::ProtocolName);
    }
    let level = reader.u8()?;
    // Bridges set the highest bit: of no standard, but mosquitto's since 2010.
    let version = match (name, level & !BRIDGE) {
        (b"MQIsdp", 3) => Version::V3,
        (b"MQTT", 4) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        _ => return Err(Malformed::ProtocolLevel(level)),
    };
    let flags = reader.u8()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let will_qos = Qos::from_bits(flags >> 3 & 3).ok_or(Malformed::Qos)?;
    if has(0) || (!has(2) && flags & 0b0011_1000 != 0) {
        return Err(Malformed::ReservedFlags(flags));
    }
    if version != Version::V5 && has(6) && !has(7) {
        return Err(Malformed::PasswordAlone);
    }
    let keep_alive = reader.u16()?;
    let own = properties(reader, version, place::CONNECT)?;
    if own.has(id::AUTH_DATA) && !own.has(id::AUTH_METHOD) {
        return Err(Malformed::PropertyOutOfPlace(id::AUTH_DATA));
    }
    let client_id = text(reader)?;
    let will = if has(2) {
        let properties = properties(reader, version, place::WILL)?;
        Some(Will {
            topic: text(reader)?,
            payload: binary(reader)?,
            qos: will_qos,
            retain: has(5),
            properties,
        })
    } else {
        None
    };
    Ok(Connect {
        version,
        bridge: level & BRIDGE != 0,
        clean: has(1),
        keep_alive,
        properties: own,
        client_id,
        will,
        username: has(7).then(|| text(reader)).transpose()?,
        password: has(6).then(|| binary(reader)).transpose()?,
    })
}

fn connack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<ConnAck<'a>, Malformed> {
    let flags = reader.u8()?;
    if flags > 1 {
        return Err(Malformed::ReservedFlags(flags));
    }
    Ok(ConnAck {
        session_present: flags == 1,
        reason: Reason(reader.u8()?),
        properties: properties(reader, version, place::CONNACK)?,
    })
}

fn publish(mut reader: Reader<'_>, flags: u8, version: Version) -> Result<Publish<'_>, Malformed> {
    let qos = Qos::from_bits(flags >> 1 & 3).ok_or(Malformed::Qos)?;
    let dup = flags & 8 != 0;
    if dup && qos == Qos::AtMostOnce {
        return Err(Malformed::ReservedFlags(flags));
    }
    let topic = text(&mut reader)?;
    if topic.bytes().any(|byte| byte == b'+' || byte == b'#')
        || (topic.is_empty() && version != Version::V5)
    {
        return Err(Malformed::Topic);
    }
    let packet_id = match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => packet_id(&mut reader)?,
    };
    let properties = properties(&mut reader, version, place::PUBLISH)?;
    Ok(Publish {
        dup,
        qos,
        retain: flags & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}

fn ack<'a>(
    reader: &mut Reader<'a>,
    kind: AckKind,
    version: Version,
) -> Result<Packet<'a>, Malformed> {
    let packet_id = packet_id(reader)?;
    let (reason, properties) = if version == Version::V5 {
        ending(reader, version, place::ACK)?
    } else {
        (Reason::SUCCESS, Properties::default())
    };
    Ok(Packet::Ack(Ack {
        kind,
        packet_id,
        reason,
        properties,
    }))
}

/// A reason and properties, both of which may be left out (3.4.2.1, 3.14.2.1).
fn ending<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    place: u16,
) -> Result<(Reason, Properties<'a>), Malformed> {
    if version != Version::V5 || reader.is_empty() {
        return Ok((Reason::SUCCESS, Properties::default()));
    }
    let reason = Reason(reader.u8()?);
    let properties = if reader.is_empty() {
        Properties::default()
    } else {
        Properties::read(reader, place)?
    };
    Ok((reason, properties))
}

fn subscribe(
    mut reader: Reader<'_>,
    version: Version,
    with_options: bool,
) -> Result<Subscribe<'_>, Malformed> {
    let packet_id = packet_id(&mut reader)?;
    let place = if with_options {
        place::SUBSCRIBE
    } else {
        place::UNSUBSCRIBE
    };
    let properties = properties(&mut reader, version, place)?;
    let list = reader.rest();
    if list.is_empty() {
        return Err(Malformed::NoFilters);
    }
    while !reader.is_empty() {
        text(&mut reader)?;
        if with_options {
            check_options(reader.u8()?, version)?;
        }
    }
    Ok(Subscribe {
        packet_id,
        properties,
        list,
    })
}

/// Reserved bits, QoS 3 and retain handling 3 are errors (3.8.3.1).
fn check_options(options: u8, version: Version) -> Result<(), Malformed> {
    let reserved = match version {
        Version::V5 => 0xc0,
        Version::V3 | Version::V4 => 0xfc,
    };
    if options & reserved != 0 || options & 0x30 == 0x30 {
        return Err(Malformed::ReservedFlags(options));
    }
    Qos::from_bits(options & 3).map(drop).ok_or(Malformed::Qos)
}

/// The filters of a SUBSCRIBE with their options, or those of an UNSUBSCRIBE (`options` then 0).
pub fn filters(list: &[u8], with_options: bool) -> impl Iterator<Item = (&str, u8)> {
    let mut reader = Reader::new(list);
    std::iter::from_fn(move || {
        let filter = text(&mut reader).ok()?;
        let options = if with_options { reader.u8().ok()? } else { 0 };
        Some((filter, options))
    })
}

fn suback(
    mut reader: Reader<'_>,
    version: Version,
    unsubscribe: bool,
) -> Result<SubAck<'_>, Malformed> {
    let packet_id = packet_id(&mut reader)?;
    let properties = properties(&mut reader, version, place::SUBACK)?;
    Ok(SubAck {
        unsubscribe,
        packet_id,
        properties,
        reasons: reader.rest(),
    })
}
