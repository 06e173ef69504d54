//! Packets on real bytes, at their edges, and round trips of random ones.

use proptest::prelude::*;

use super::property::id;
use super::*;

fn parse(bytes: &[u8], version: Version) -> Result<Packet<'_>, Malformed> {
    match frame(bytes, 1 << 20)? {
        Framed::Whole(whole) => decode(whole, version),
        Framed::NeedMore(_) => Err(Malformed::Truncated),
    }
}

#[track_caller]
fn refuses(bytes: &[u8], version: Version, why: Malformed) {
    assert_eq!(parse(bytes, version), Err(why));
}

#[test]
fn varint_is_at_most_four_bytes() {
    assert_eq!(varint(b"\xff\xff\xff\x7f"), Ok(Some((268_435_455, 4))));
    assert_eq!(varint(b"\x80\x80"), Ok(None));
    assert_eq!(varint(b"\x80\x80\x80\x80"), Err(Malformed::VarintTooLong));
}

#[test]
fn a_packet_that_is_too_large_is_refused_by_its_length_alone() {
    assert_eq!(frame(b"\x30\xff\x7f", 100), Err(Malformed::TooLarge));
    assert_eq!(frame(b"\x30\x05ab", 100), Ok(Framed::NeedMore(7)));
    assert_eq!(frame(b"\x30", 100), Ok(Framed::NeedMore(2)));
}

#[test]
fn connect_of_mosquitto_pub_is_read() {
    let bytes = b"\x10\x17\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x02me\x00\x04\x00\xffpw";
    let Ok(Packet::Connect(connect)) = parse(bytes, Version::V4) else {
        panic!("no connect");
    };
    assert_eq!(connect.version, Version::V4);
    assert!(connect.clean);
    assert_eq!((connect.keep_alive, connect.client_id), (60, "c"));
    assert_eq!(connect.username, Some("me"));
    assert_eq!(connect.password, Some(&b"\x00\xffpw"[..]));
    assert!(!format!("{connect:?}").contains("pw"));
}

#[test]
fn connect_with_reserved_or_contradictory_flags_is_refused() {
    refuses(
        b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01c",
        Version::V4,
        Malformed::ReservedFlags(3),
    );
    refuses(
        b"\x10\x0d\x00\x04MQTT\x04\x28\x00\x3c\x00\x01c",
        Version::V4,
        Malformed::ReservedFlags(0x28),
    );
    refuses(
        b"\x10\x0d\x00\x04MQTT\x04\x42\x00\x3c\x00\x01c",
        Version::V4,
        Malformed::PasswordAlone,
    );
    refuses(
        b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01c",
        Version::V4,
        Malformed::ProtocolLevel(6),
    );
}

#[test]
fn publish_with_wildcard_empty_topic_or_bad_text_is_refused() {
    refuses(b"\x30\x03\x00\x01#", Version::V4, Malformed::Topic);
    refuses(b"\x30\x02\x00\x00", Version::V4, Malformed::Topic);
    refuses(b"\x30\x03\x00\x01\x00", Version::V4, Malformed::Text);
    refuses(b"\x30\x03\x00\x01\xff", Version::V4, Malformed::Text);
    refuses(b"\x36\x03\x00\x01a", Version::V4, Malformed::Qos);
    refuses(
        b"\x38\x03\x00\x01a",
        Version::V4,
        Malformed::ReservedFlags(8),
    );
    refuses(
        b"\x32\x05\x00\x01a\x00\x00",
        Version::V4,
        Malformed::PacketId,
    );
}

#[test]
fn subscribe_needs_its_flags_and_a_filter() {
    refuses(
        b"\x80\x06\x00\x01\x00\x01a\x00",
        Version::V4,
        Malformed::ReservedFlags(0x80),
    );
    refuses(b"\x82\x02\x00\x01", Version::V4, Malformed::NoFilters);
    refuses(
        b"\x82\x06\x00\x01\x00\x01a\x04",
        Version::V4,
        Malformed::ReservedFlags(4),
    );
    refuses(
        b"\x82\x07\x00\x01\x00\x00\x01a\x30",
        Version::V5,
        Malformed::ReservedFlags(0x30),
    );
}

#[test]
fn properties_are_held_to_their_place_number_and_range() {
    let publish = |properties: &[u8]| {
        let mut bytes = vec![0x30, 0, 0, 1, b'a', u8::try_from(properties.len()).unwrap()];
        bytes.extend(properties);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        bytes
    };
    let check = |properties: &[u8], why| refuses(&publish(properties), Version::V5, why);
    check(&[0x7f, 0], Malformed::UnknownProperty(0x7f));
    check(
        &[0x11, 0, 0, 0, 1],
        Malformed::PropertyOutOfPlace(id::SESSION_EXPIRY),
    );
    check(
        &[0x01, 1, 0x01, 1],
        Malformed::PropertyTwice(id::PAYLOAD_FORMAT),
    );
    check(&[0x01, 2], Malformed::PropertyValue(id::PAYLOAD_FORMAT));
    check(&[0x0b, 0], Malformed::PropertyValue(id::SUBSCRIPTION_ID));
    check(&[0x23, 0, 0], Malformed::AliasInvalid);
    check(
        &[0x08, 0, 1, b'#'],
        Malformed::PropertyValue(id::RESPONSE_TOPIC),
    );
    check(&[0x0b, 0x81, 0], Malformed::VarintTooLong);
    let twice = publish(b"\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01w");
    let Ok(Packet::Publish(publish)) = parse(&twice, Version::V5) else {
        panic!("user properties may repeat");
    };
    assert_eq!(publish.properties.iter().count(), 2);
}

#[test]
fn acks_may_leave_reason_and_properties_out() {
    for bytes in [
        &b"\x40\x02\x00\x07"[..],
        b"\x40\x03\x00\x07\x00",
        b"\x40\x04\x00\x07\x00\x00",
    ] {
        let Ok(Packet::Ack(ack)) = parse(bytes, Version::V5) else {
            panic!("{bytes:?}");
        };
        assert_eq!((ack.packet_id, ack.reason), (7, Reason::SUCCESS));
    }
    refuses(b"\x40\x03\x00\x07\x00", Version::V4, Malformed::Trailing);
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3), Just(Version::V4), Just(Version::V5)]
}

fn qos() -> impl Strategy<Value = Qos> {
    (0_u8..3).prop_map(|bits| Qos::from_bits(bits).unwrap())
}

#[track_caller]
fn returns(packet: &Packet<'_>, version: Version) {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes);
    let Ok(Framed::Whole(whole)) = frame(&bytes, usize::MAX) else {
        panic!("no frame in {bytes:?}");
    };
    assert_eq!(whole.length, bytes.len());
    assert_eq!(decode(whole, version).as_ref(), Ok(packet));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, version in version()) {
        let _ = parse(&bytes, version);
    }

    /// What decodes and is written again decodes to the same.
    #[test]
    fn bytes_shaped_as_packets_survive_a_second_round(
        first: u8, body in proptest::collection::vec(any::<u8>(), 0..40), version in version()
    ) {
        let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
        bytes.extend(&body);
        if let Ok(packet) = parse(&bytes, version) {
            let version = match packet {
                Packet::Connect(connect) => connect.version,
                _ => version,
            };
            returns(&packet, version);
        }
    }

    #[test]
    fn publish_returns_as_it_was(
        version in version(), qos in qos(), dup: bool, retain: bool, packet_id in 1_u16..,
        topic in "[a-z/]{1,40}", expiry: u32, user in "[a-z]{0,200}", payload: Vec<u8>
    ) {
        let mut writer = PropertyWriter::default();
        if version == Version::V5 {
            writer.u32(id::MESSAGE_EXPIRY, expiry);
            writer.text(id::CONTENT_TYPE, &user);
        }
        let at_most_once = qos == Qos::AtMostOnce;
        let packet = Publish {
            dup: dup && !at_most_once,
            qos,
            retain,
            topic: &topic,
            packet_id: if at_most_once { 0 } else { packet_id },
            properties: writer.finish(),
            payload: &payload,
        };
        returns(&Packet::Publish(packet), version);
    }

    #[test]
    fn connect_returns_as_it_was(
        version in version(), bridge: bool, clean: bool, keep_alive: u16, client_id in "[a-z]{0,30}",
        will in proptest::option::of(("[a-z/]{1,9}", any::<Vec<u8>>(), qos(), any::<bool>())),
        login in proptest::option::of(("[a-z]{0,9}", any::<Vec<u8>>()))
    ) {
        let packet = Connect {
            version,
            bridge,
            clean,
            keep_alive,
            properties: Properties::default(),
            client_id: &client_id,
            will: will.as_ref().map(|(topic, payload, qos, retain)| Will {
                topic,
                payload,
                qos: *qos,
                retain: *retain,
                properties: Properties::default(),
            }),
            username: login.as_ref().map(|(user, _)| user.as_str()),
            password: login.as_ref().map(|(_, password)| password.as_slice()),
        };
        returns(&Packet::Connect(packet), version);
    }

    #[test]
    fn answers_return_as_they_were(
        version in version(), packet_id in 1_u16.., reason: u8, kind in 0..4,
        session_present: bool, unsubscribe: bool, reasons: Vec<u8>
    ) {
        let five = version == Version::V5;
        let properties = Properties::default();
        let of_five = if five { Reason(reason) } else { Reason::SUCCESS };
        let kind = match kind {
            0 => AckKind::PubAck,
            1 => AckKind::PubRec,
            2 => AckKind::PubRel,
            _ => AckKind::PubComp,
        };
        returns(&Packet::Ack(Ack { kind, packet_id, reason: of_five, properties }), version);
        let connack = ConnAck { session_present, reason: Reason(reason), properties };
        returns(&Packet::ConnAck(connack), version);
        let reasons = &reasons;
        returns(&Packet::SubAck(SubAck { unsubscribe, packet_id, properties, reasons }), version);
        returns(&Packet::Disconnect(of_five, properties), version);
    }
}
