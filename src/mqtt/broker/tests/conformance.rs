//! What the standards demand of a server, where no other test shows it: `tests/mqtt/conformance.md` says
//! which statement each of these is for.

use super::*;
use crate::mqtt::codec::{ConnAck, SubAck};

/// The packets in what was sent.
fn packets(bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Ok(Framed::Whole(whole)) = frame(rest, 1 << 20) {
        found.push(decode(whole, version).unwrap());
        rest = &rest[whole.length..];
    }
    assert!(rest.is_empty(), "no packet: {rest:?}");
    found
}

fn property_u32(identifier: u8, value: u32) -> PropertyWriter {
    let mut writer = PropertyWriter::default();
    writer.u32(identifier, value);
    writer
}

/// Connects a client of 5.0; its session and what CONNACK says.
#[track_caller]
fn join5(
    broker: &mut Broker,
    now: Time,
    link: LinkId,
    connect: &Connect<'_>,
) -> (SessionId, Vec<u8>) {
    let id = broker.connect(now, link, connect, anyone()).unwrap();
    let mut out = Vec::new();
    broker.transmit(now, id, &mut out, 1);
    (id, out)
}

/// A client of 5.0 whose session stays for a minute.
fn stays<'a>(name: &'a str, properties: &'a PropertyWriter) -> Connect<'a> {
    Connect {
        clean: false,
        properties: properties.finish(),
        ..connect(name, Version::V5, false)
    }
}

fn minute() -> PropertyWriter {
    property_u32(property::SESSION_EXPIRY, 60)
}

#[track_caller]
fn connack(bytes: &[u8]) -> ConnAck<'_> {
    match packets(bytes, Version::V5).first() {
        Some(&Packet::ConnAck(ack)) => ack,
        other => panic!("no connack: {other:?}"),
    }
}

fn keep(broker: &mut Broker, id: SessionId, topic: &str, payload: &str, qos: Qos) {
    let message = Publish {
        retain: true,
        ..publish(topic, payload, qos, 1)
    };
    broker.receive(1, id, &Packet::Publish(message));
}

fn filter_list(filters: &[(&str, u8)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (filter, options) in filters {
        list.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        list.extend(filter.as_bytes());
        list.push(*options);
    }
    list
}

fn subscribe_all(broker: &mut Broker, id: SessionId, filters: &[(&str, u8)], identifier: u32) {
    let mut properties = PropertyWriter::default();
    if identifier > 0 {
        properties.varint(property::SUBSCRIPTION_ID, identifier);
    }
    let list = filter_list(filters);
    let packet = Subscribe {
        packet_id: 77,
        properties: properties.finish(),
        list: &list,
    };
    broker.receive(1, id, &Packet::Subscribe(packet));
}

#[test]
fn a_retained_message_is_replaced_kept_beside_others_and_removed_by_an_empty_one() {
    let mut broker = broker();
    let from = join(&mut broker, 0, "p", true);
    keep(&mut broker, from, "a", "1", Qos::AtMostOnce);
    keep(&mut broker, from, "a", "2", Qos::ExactlyOnce);
    let plain = publish("a", "not kept", Qos::AtMostOnce, 0);
    broker.receive(1, from, &Packet::Publish(plain));
    let id = join(&mut broker, 1, "s", true);
    subscribe(&mut broker, id, "a", 2);
    // The last one, with its flag, at the quality that it was published with.
    let bytes = sent(&mut broker, 1, id);
    let Some(&Packet::Publish(kept)) = packets(&bytes, Version::V4).last() else {
        panic!("nothing was kept");
    };
    assert_eq!((kept.payload, kept.retain), (&b"2"[..], true));
    assert_eq!(kept.qos, Qos::ExactlyOnce);
    // An empty one goes to who is there, without the flag, and to nobody later.
    keep(&mut broker, from, "a", "", Qos::AtMostOnce);
    let got = messages(&mut broker, 1, id);
    assert_eq!(got, [(0, false, false, String::new())]);
    let late = join(&mut broker, 2, "late", true);
    subscribe(&mut broker, late, "a", 2);
    assert!(messages(&mut broker, 1, late).is_empty());
}

#[test]
fn retained_messages_outlive_the_session_of_who_published_them() {
    let mut broker = broker();
    let from = join(&mut broker, 0, "p", true);
    keep(&mut broker, from, "a", "1", Qos::AtMostOnce);
    broker.lost(1, from, "tcp_closed");
    let id = join(&mut broker, 1, "s", true);
    subscribe(&mut broker, id, "a", 0);
    assert_eq!(payloads(&mut broker, 1, id), ["1"]);
}

#[test]
fn retain_handling_says_when_retained_messages_come() {
    let mut broker = broker();
    let from = join(&mut broker, 0, "p", true);
    keep(&mut broker, from, "a", "x", Qos::AtMostOnce);
    let id = join(&mut broker, 1, "s", true);
    let mut count = |options| {
        subscribe(&mut broker, id, "a", options);
        messages(&mut broker, 1, id).len()
    };
    assert_eq!(count(2 << 4), 0, "never");
    assert_eq!(count(1 << 4), 0, "the subscription is not new");
    assert_eq!(count(0), 1, "always");
    assert_eq!(count(0), 1, "again");
    let other = join(&mut broker, 2, "t", true);
    subscribe(&mut broker, other, "a", 1 << 4);
    assert_eq!(messages(&mut broker, 1, other).len(), 1, "it is new");
}

#[test]
fn the_retain_flag_is_passed_on_only_to_who_asks_for_it() {
    let mut broker = broker();
    let plain = join(&mut broker, 0, "plain", true);
    let asking = join(&mut broker, 1, "asking", true);
    subscribe(&mut broker, plain, "a", 0);
    subscribe(&mut broker, asking, "a", 8);
    let from = join(&mut broker, 2, "p", true);
    keep(&mut broker, from, "a", "x", Qos::AtMostOnce);
    let flag = |got: Vec<(u16, bool, bool, String)>| got[0].2;
    assert!(!flag(messages(&mut broker, 1, plain)));
    assert!(flag(messages(&mut broker, 1, asking)));
}

#[test]
fn shared_subscriptions_get_no_retained_messages_and_each_member_its_own_quality() {
    let mut broker = broker();
    let from = join(&mut broker, 0, "p", true);
    keep(&mut broker, from, "a", "old", Qos::ExactlyOnce);
    let one = join(&mut broker, 1, "1", true);
    let two = join(&mut broker, 2, "2", true);
    subscribe(&mut broker, one, "$share/g/a", 0);
    subscribe(&mut broker, two, "$share/g/a", 1);
    for _ in 0..2 {
        let message = publish("a", "x", Qos::AtLeastOnce, 3);
        broker.receive(1, from, &Packet::Publish(message));
    }
    let identifiers = |got: Vec<(u16, bool, bool, String)>| -> Vec<u16> {
        got.into_iter().map(|one| one.0).collect()
    };
    assert_eq!(identifiers(messages(&mut broker, 1, one)), [0]);
    assert_eq!(identifiers(messages(&mut broker, 1, two)), [1]);
}

#[test]
fn a_shared_message_that_was_sent_stays_with_its_client() {
    let mut broker = broker();
    let one = join(&mut broker, 0, "1", false);
    let two = join(&mut broker, 1, "2", false);
    subscribe(&mut broker, one, "$share/g/a", 2);
    let from = join(&mut broker, 2, "p", true);
    let message = publish("a", "x", Qos::ExactlyOnce, 3);
    broker.receive(1, from, &Packet::Publish(message));
    assert_eq!(payloads(&mut broker, 1, one), ["x"]);
    subscribe(&mut broker, two, "$share/g/a", 2);
    // It goes: the message waits for it, and for nobody else.
    broker.lost(1, one, "tcp_closed");
    assert!(payloads(&mut broker, 1, two).is_empty());
    let back = connect("1", Version::V4, false);
    let one = broker.connect(1, 3, &back, anyone()).unwrap();
    assert_eq!(payloads(&mut broker, 1, one), ["x"]);
    // Its refusal ends it, and its end as well.
    let refusal = Ack {
        kind: AckKind::PubRec,
        packet_id: 1,
        reason: Reason::UNSPECIFIED,
        properties: Properties::default(),
    };
    broker.receive(1, one, &Packet::Ack(refusal));
    assert!(payloads(&mut broker, 1, two).is_empty());
    assert_eq!(broker.find("1").unwrap().in_flight(), 0);
}

#[test]
fn what_a_client_does_not_end_itself_ends_with_its_will() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "will", 0);
    let dying = |retain| Connect {
        will: Some(Will {
            topic: "will",
            payload: b"gone",
            qos: Qos::AtLeastOnce,
            retain,
            properties: Properties::default(),
        }),
        ..connect("d", Version::V5, true)
    };
    let mut ends = |retain, end: &dyn Fn(&mut Broker, SessionId)| {
        let (gone, _) = join5(&mut broker, 1, 1, &dying(retain));
        end(&mut broker, gone);
        broker.effects().clear();
        let kept = broker.stats().retained.count;
        (payloads(&mut broker, 1, id).len(), kept)
    };
    let disconnect = |reason| {
        move |broker: &mut Broker, gone| {
            let packet = Packet::Disconnect(reason, Properties::default());
            broker.receive(1, gone, &packet);
        }
    };
    assert_eq!(ends(false, &disconnect(Reason::SUCCESS)), (0, 0));
    let with_will = disconnect(Reason::DISCONNECT_WITH_WILL);
    assert_eq!(ends(false, &with_will), (1, 0));
    let again = |broker: &mut Broker, gone| broker.receive(1, gone, &Packet::Connect(dying(false)));
    assert_eq!(ends(false, &again), (1, 0), "a protocol error");
    let lost = |broker: &mut Broker, gone| broker.lost(1, gone, "tcp_closed");
    assert_eq!(ends(true, &lost), (1, 1), "and it is kept if it says so");
}

#[test]
fn a_will_is_said_at_the_session_s_end_even_if_its_delay_is_longer() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "will", 0);
    let (delay, expiry) = (
        property_u32(property::WILL_DELAY, 100),
        property_u32(property::SESSION_EXPIRY, 2),
    );
    let dying = Connect {
        will: Some(Will {
            topic: "will",
            payload: b"gone",
            qos: Qos::AtMostOnce,
            retain: false,
            properties: delay.finish(),
        }),
        ..stays("d", &expiry)
    };
    let (gone, _) = join5(&mut broker, 1, 1, &dying);
    broker.lost(1000, gone, "tcp_closed");
    broker.tick(2999);
    assert!(payloads(&mut broker, 2999, id).is_empty());
    broker.tick(3000);
    assert_eq!(payloads(&mut broker, 3000, id), ["gone"]);
    assert!(broker.find("d").is_none());
}

#[test]
fn a_session_is_resumed_or_begun_anew_as_connect_says() {
    let mut broker = broker();
    let minute = minute();
    let first = stays("c", &minute);
    let (id, bytes) = join5(&mut broker, 1, 0, &first);
    assert!(!connack(&bytes).session_present, "there was none");
    subscribe(&mut broker, id, "a", 0);
    broker.lost(1, id, "tcp_closed");
    let (id, bytes) = join5(&mut broker, 1, 1, &first);
    assert!(connack(&bytes).session_present);
    assert_eq!(broker.find("c").unwrap().subscription_count(), 1);
    broker.lost(1, id, "tcp_closed");
    let anew = Connect {
        clean: true,
        ..first
    };
    let (_, bytes) = join5(&mut broker, 1, 2, &anew);
    assert!(!connack(&bytes).session_present);
    assert_eq!(broker.find("c").unwrap().subscription_count(), 0);
}

#[test]
fn a_session_without_expiry_cannot_get_one_by_disconnect() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    let minute = minute();
    broker.effects().clear();
    let packet = Packet::Disconnect(Reason::SUCCESS, minute.finish());
    broker.receive(1, id, &packet);
    let effects = std::mem::take(broker.effects());
    assert_eq!(effects, [Effect::Close(0, b"\xe0\x02\x82\x00".to_vec())]);
    // One that has may change it.
    let (id, _) = join5(&mut broker, 1, 1, &stays("d", &minute));
    let longer = property_u32(property::SESSION_EXPIRY, 120);
    broker.receive(1, id, &Packet::Disconnect(Reason::SUCCESS, longer.finish()));
    broker.tick(100_000);
    assert!(broker.find("d").is_some());
    broker.tick(121_000);
    assert!(broker.find("d").is_none());
}

#[test]
fn a_client_without_a_name_gets_one_that_is_told_and_holds() {
    let mut broker = broker();
    let (id, bytes) = join5(&mut broker, 1, 0, &connect("", Version::V5, false));
    let given = connack(&bytes).properties;
    let given = given.text(property::ASSIGNED_CLIENT_ID).unwrap().to_owned();
    assert!(broker.find(&given).is_some_and(|one| one.link == Some(0)));
    let (other, _) = join5(&mut broker, 1, 1, &connect("", Version::V5, true));
    assert_ne!(other, id);
    for (version, clean) in [(Version::V3, true), (Version::V4, false)] {
        let nameless = connect("", version, clean);
        let refused = broker.connect(1, 2, &nameless, anyone());
        assert_eq!(refused, Err(Reason::BAD_CLIENT_ID));
    }
    let long = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    join(&mut broker, 3, long, true);
    assert!(broker.find(long).is_some());
}

#[test]
fn a_keep_alive_beyond_the_limit_is_replaced_and_the_client_is_told() {
    let mut broker = broker();
    broker.limits.keep_alive_max = 60;
    for (asked, told) in [(0, Some(60)), (61, Some(60)), (60, None), (5, None)] {
        let asking = Connect {
            keep_alive: asked,
            ..connect("c", Version::V5, true)
        };
        let (id, bytes) = join5(&mut broker, 1, 0, &asking);
        let found = connack(&bytes).properties;
        assert_eq!(found.number(property::SERVER_KEEP_ALIVE), told, "{asked}");
        let holds = broker.session(id).unwrap().keep_alive;
        assert_eq!(u32::from(holds), told.unwrap_or(asked.into()));
    }
    // MQTT 3 has no way to tell: its clients keep theirs.
    let old = Connect {
        keep_alive: 600,
        ..connect("old", Version::V4, true)
    };
    let id = broker.connect(1, 1, &old, anyone()).unwrap();
    assert_eq!(broker.session(id).unwrap().keep_alive, 600);
}

#[test]
fn response_information_is_for_those_who_ask() {
    let mut broker = Broker::new(&Options {
        response_information: Some("answers/".into()),
        ..open()
    });
    for (asked, told) in [(None, None), (Some(0), None), (Some(1), Some("answers/"))] {
        let mut properties = PropertyWriter::default();
        if let Some(asked) = asked {
            properties.byte(property::REQUEST_RESPONSE, asked);
        }
        let asking = stays("c", &properties);
        let (_, bytes) = join5(&mut broker, 1, 0, &asking);
        let found = connack(&bytes).properties;
        assert_eq!(found.text(property::RESPONSE_INFORMATION), told);
    }
}

#[test]
fn an_authentication_method_is_refused_before_anything_else() {
    let mut broker = broker();
    let mut properties = PropertyWriter::default();
    properties.text(property::AUTH_METHOD, "SCRAM-SHA-1");
    let asking = stays("c", &properties);
    let refused = broker.connect(1, 0, &asking, anyone());
    assert_eq!(refused, Err(Reason::BAD_AUTH_METHOD));
    assert!(broker.find("c").is_none());
    assert_eq!(
        refusal(Version::V5, Reason::BAD_AUTH_METHOD),
        b"\x20\x03\x00\x8c\x00"
    );
}

#[test]
fn each_filter_is_answered_in_its_place() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("a", 2), ("a#", 0), ("b", 1)], 0);
    let bytes = sent(&mut broker, 1, id);
    let want = SubAck {
        unsubscribe: false,
        packet_id: 77,
        properties: Properties::default(),
        reasons: &[2, 0x8f, 1],
    };
    assert_eq!(packets(&bytes, Version::V5), [Packet::SubAck(want)]);
    let list: Vec<u8> = ["c", "a#", "a"]
        .iter()
        .flat_map(|filter| filter_list(&[(filter, 0)])[..2 + filter.len()].to_vec())
        .collect();
    let packet = Subscribe {
        packet_id: 78,
        properties: Properties::default(),
        list: &list,
    };
    broker.receive(1, id, &Packet::Unsubscribe(packet));
    let bytes = sent(&mut broker, 1, id);
    let want = SubAck {
        unsubscribe: true,
        packet_id: 78,
        properties: Properties::default(),
        reasons: &[0x11, 0x8f, 0],
    };
    assert_eq!(packets(&bytes, Version::V5), [Packet::SubAck(want)]);
    assert_eq!(broker.find("c").unwrap().subscription_count(), 1);
}

#[test]
fn mqtt_3_knows_one_failure_of_a_filter_and_none_of_unsubscribing() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "c", true);
    subscribe_all(&mut broker, id, &[("a#", 0), ("b", 1)], 0);
    assert_eq!(sent(&mut broker, 1, id), b"\x90\x04\x00\x4d\x80\x01");
    let list = b"\x00\x01x";
    let packet = Subscribe {
        packet_id: 2,
        properties: Properties::default(),
        list,
    };
    broker.receive(1, id, &Packet::Unsubscribe(packet));
    assert_eq!(sent(&mut broker, 1, id), b"\xb0\x02\x00\x02");
}

#[test]
fn the_same_filter_again_replaces_the_subscription() {
    let mut broker = broker();
    broker.limits.subscriptions_max = 1;
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("a", 0)], 5);
    subscribe_all(&mut broker, id, &[("a", 1)], 6);
    subscribe_all(&mut broker, id, &[("b", 1)], 0);
    let bytes = sent(&mut broker, 1, id);
    assert!(bytes.ends_with(&[0x97]), "there is room for one: {bytes:?}");
    let from = join(&mut broker, 1, "p", true);
    let message = publish("a", "x", Qos::AtLeastOnce, 1);
    broker.receive(1, from, &Packet::Publish(message));
    let bytes = sent(&mut broker, 1, id);
    let [Packet::Publish(got)] = packets(&bytes, Version::V5)[..] else {
        panic!("{bytes:?}");
    };
    assert_eq!(got.qos, Qos::AtLeastOnce);
    assert_eq!(got.properties.number(property::SUBSCRIPTION_ID), Some(6));
}

#[test]
fn one_copy_carries_the_identifiers_of_all_that_match() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("a/+", 0)], 5);
    subscribe_all(&mut broker, id, &[("a/#", 2)], 268_435_455);
    subscribe_all(&mut broker, id, &[("a/b", 1)], 0);
    sent(&mut broker, 1, id);
    let from = join(&mut broker, 1, "p", true);
    let message = publish("a/b", "x", Qos::ExactlyOnce, 1);
    broker.receive(1, from, &Packet::Publish(message));
    let bytes = sent(&mut broker, 1, id);
    let [Packet::Publish(got)] = packets(&bytes, Version::V5)[..] else {
        panic!("{bytes:?}");
    };
    let mut identifiers: Vec<_> = got.properties.iter().map(|(_, value, _)| value).collect();
    identifiers.sort_by_key(|value| format!("{value:?}"));
    let number = crate::mqtt::codec::Value::Number;
    assert_eq!(identifiers, [number(268_435_455), number(5)]);
    assert_eq!(got.qos, Qos::ExactlyOnce);
}

#[test]
fn no_local_on_a_share_is_a_protocol_error() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    broker.effects().clear();
    subscribe_all(&mut broker, id, &[("a", 0), ("$share/g/a", 4)], 0);
    let effects = std::mem::take(broker.effects());
    assert_eq!(effects, [Effect::Close(0, b"\xe0\x02\x82\x00".to_vec())]);
    assert!(!broker.has_route("a"));
}

#[test]
fn no_local_keeps_from_a_client_what_it_says_itself() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("a", 4)], 0);
    sent(&mut broker, 1, id);
    let message = publish("a", "own", Qos::AtMostOnce, 0);
    broker.receive(1, id, &Packet::Publish(message));
    assert!(sent(&mut broker, 1, id).is_empty());
    let from = join(&mut broker, 1, "p", true);
    broker.receive(1, from, &Packet::Publish(message));
    assert!(!sent(&mut broker, 1, id).is_empty());
}

#[test]
fn what_was_sent_before_unsubscribing_is_completed_and_nothing_new_comes() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "c", true);
    subscribe(&mut broker, id, "a", 2);
    let from = join(&mut broker, 1, "p", true);
    let message = publish("a", "x", Qos::ExactlyOnce, 1);
    broker.receive(1, from, &Packet::Publish(message));
    assert_eq!(payloads(&mut broker, 1, id), ["x"]);
    let packet = Subscribe {
        packet_id: 2,
        properties: Properties::default(),
        list: b"\x00\x01a",
    };
    broker.receive(1, id, &Packet::Unsubscribe(packet));
    sent(&mut broker, 1, id);
    ack(&mut broker, id, AckKind::PubRec, 1);
    assert_eq!(sent(&mut broker, 1, id), b"\x62\x02\x00\x01");
    ack(&mut broker, id, AckKind::PubComp, 1);
    ack(&mut broker, from, AckKind::PubRel, 1);
    broker.receive(1, from, &Packet::Publish(message));
    assert!(sent(&mut broker, 1, id).is_empty());
}

#[test]
fn everything_that_a_publisher_says_reaches_the_subscriber_unaltered() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("\u{feff}å/#", 0)], 0);
    sent(&mut broker, 1, id);
    let (from, _) = join5(&mut broker, 1, 1, &connect("p", Version::V5, true));
    let mut properties = PropertyWriter::default();
    properties.pair("b", "1");
    properties.byte(property::PAYLOAD_FORMAT, 1);
    properties.text(property::CONTENT_TYPE, "text/plain");
    properties.pair("a", "2");
    properties.text(property::RESPONSE_TOPIC, "answers");
    properties.binary(property::CORRELATION_DATA, b"\x00\xff");
    properties.pair("a", "1");
    let message = Publish {
        properties: properties.finish(),
        dup: true,
        ..publish("\u{feff}å/x", "payload", Qos::AtLeastOnce, 1)
    };
    broker.receive(1, from, &Packet::Publish(message));
    let bytes = sent(&mut broker, 1, id);
    let [Packet::Publish(got)] = packets(&bytes, Version::V5)[..] else {
        panic!("{bytes:?}");
    };
    assert_eq!(got.topic, "\u{feff}å/x");
    assert_eq!(got.properties.bytes(), properties.finish().bytes());
    assert!(!got.dup, "it is not sent again here");
    // A with ring above in two characters is another topic.
    let message = publish("\u{feff}a\u{30a}/x", "", Qos::AtMostOnce, 0);
    broker.receive(1, from, &Packet::Publish(message));
    assert!(sent(&mut broker, 1, id).is_empty());
}

#[test]
fn a_message_that_waited_says_how_long_it_still_counts() {
    let mut broker = broker();
    let minute = minute();
    let (id, _) = join5(&mut broker, 1, 0, &stays("c", &minute));
    subscribe_all(&mut broker, id, &[("a", 1)], 0);
    sent(&mut broker, 1, id);
    broker.lost(1, id, "tcp_closed");
    let (from, _) = join5(&mut broker, 1, 1, &connect("p", Version::V5, true));
    for (payload, seconds) in [("0", 0), ("5", 5), ("30", 30)] {
        let expiry = property_u32(property::MESSAGE_EXPIRY, seconds);
        let message = Publish {
            properties: expiry.finish(),
            ..publish("a", payload, Qos::AtLeastOnce, 1)
        };
        broker.receive(1000, from, &Packet::Publish(message));
    }
    let (id, bytes) = join5(&mut broker, 11_000, 2, &stays("c", &minute));
    assert!(connack(&bytes).session_present);
    let bytes = sent(&mut broker, 11_000, id);
    let [Packet::Publish(got)] = packets(&bytes, Version::V5)[..] else {
        panic!("{bytes:?}");
    };
    assert_eq!(got.payload, b"30");
    assert_eq!(got.properties.number(property::MESSAGE_EXPIRY), Some(20));
    // Sent in time, it is sent again in time or not: the client may know it already.
    broker.lost(12_000, id, "tcp_closed");
    let (id, _) = join5(&mut broker, 60_000, 3, &stays("c", &minute));
    let bytes = sent(&mut broker, 60_000, id);
    let [Packet::Publish(again)] = packets(&bytes, Version::V5)[..] else {
        panic!("{bytes:?}");
    };
    assert!(again.dup && again.packet_id == got.packet_id);
}

#[test]
fn what_is_larger_than_the_client_takes_counts_as_sent() {
    let mut broker = broker();
    let small = property_u32(property::MAXIMUM_PACKET, 64);
    let (id, _) = join5(&mut broker, 1, 0, &stays("c", &small));
    let filters: Vec<_> = (0..70).map(|_| ("a", 2)).collect();
    subscribe_all(&mut broker, id, &filters, 0);
    assert!(sent(&mut broker, 1, id).is_empty(), "a SUBACK of 76 bytes");
    let from = join(&mut broker, 1, "p", true);
    for payload in ["x".repeat(64), "fits".to_owned()] {
        let message = publish("a", &payload, Qos::AtLeastOnce, 1);
        broker.receive(1, from, &Packet::Publish(message));
    }
    let bytes = sent(&mut broker, 1, id);
    let [Packet::Publish(got)] = packets(&bytes, Version::V5)[..] else {
        panic!("{bytes:?}");
    };
    assert_eq!(got.payload, b"fits");
    assert_eq!(broker.find("c").unwrap().in_flight(), 1);
}

#[test]
fn topics_get_numbers_only_as_far_as_the_client_wants_them() {
    let mut broker = broker();
    let from = join(&mut broker, 9, "p", true);
    for (link, max) in [(0, 0_u16), (1, 1)] {
        let mut properties = PropertyWriter::default();
        properties.u16(property::ALIAS_MAXIMUM, max);
        let name = max.to_string();
        let (id, _) = join5(&mut broker, 1, link, &stays(&name, &properties));
        subscribe_all(&mut broker, id, &[("+", 0)], 0);
        sent(&mut broker, 1, id);
        for topic in ["a", "b", "a"] {
            let message = publish(topic, "x", Qos::AtMostOnce, 0);
            broker.receive(1, from, &Packet::Publish(message));
        }
        let bytes = sent(&mut broker, 1, id);
        let seen: Vec<_> = packets(&bytes, Version::V5)
            .into_iter()
            .map(|packet| match packet {
                Packet::Publish(got) => (got.topic, got.properties.number(property::TOPIC_ALIAS)),
                other => panic!("{other:?}"),
            })
            .collect();
        let want = match max {
            0 => [("a", None), ("b", None), ("a", None)],
            _ => [("a", Some(1)), ("b", None), ("", Some(1))],
        };
        assert_eq!(seen, want);
    }
}

#[test]
fn a_topic_s_number_does_not_outlive_its_connection() {
    let mut broker = broker();
    let minute = minute();
    let (id, _) = join5(&mut broker, 1, 0, &stays("c", &minute));
    let mut alias = PropertyWriter::default();
    alias.u16(property::TOPIC_ALIAS, ALIASES_MAX);
    let named = Publish {
        properties: alias.finish(),
        ..publish("a", "x", Qos::AtMostOnce, 0)
    };
    let bare = Publish { topic: "", ..named };
    broker.receive(1, id, &Packet::Publish(named));
    broker.receive(1, id, &Packet::Publish(bare));
    assert_eq!(broker.metrics().get(Metric::MessagesPublished), 2);
    broker.lost(1, id, "tcp_closed");
    let (id, _) = join5(&mut broker, 1, 1, &stays("c", &minute));
    broker.effects().clear();
    broker.receive(1, id, &Packet::Publish(bare));
    let effects = std::mem::take(broker.effects());
    assert_eq!(effects, [Effect::Close(1, b"\xe0\x02\x94\x00".to_vec())]);
}

#[test]
fn a_refusal_of_a_message_ends_its_exchange() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("a", 2)], 0);
    sent(&mut broker, 1, id);
    let from = join(&mut broker, 1, "p", true);
    let mut refuse = |qos, kind| {
        let message = publish("a", "x", qos, 9);
        broker.receive(1, from, &Packet::Publish(message));
        ack(&mut broker, from, AckKind::PubRel, 9);
        let bytes = sent(&mut broker, 1, id);
        let [Packet::Publish(got)] = packets(&bytes, Version::V5)[..] else {
            panic!("{bytes:?}");
        };
        let packet = Ack {
            kind,
            packet_id: got.packet_id,
            reason: Reason::QUOTA_EXCEEDED,
            properties: Properties::default(),
        };
        broker.receive(1, id, &Packet::Ack(packet));
        assert!(sent(&mut broker, 1, id).is_empty(), "no PUBREL follows");
        broker.find("c").unwrap().in_flight()
    };
    assert_eq!(refuse(Qos::AtLeastOnce, AckKind::PubAck), 0);
    assert_eq!(refuse(Qos::ExactlyOnce, AckKind::PubRec), 0);
}

#[test]
fn after_a_refused_message_its_identifier_is_free() {
    let mut options = open();
    options.acl = vec![crate::mqtt::acl::Rule {
        allow: false,
        username: None,
        client_id: None,
        from: None,
        access: None,
        topics: vec!["no".into()],
    }];
    let mut broker = Broker::new(&options);
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    let message = publish("no", "x", Qos::ExactlyOnce, 9);
    broker.receive(1, id, &Packet::Publish(message));
    assert_eq!(sent(&mut broker, 1, id), b"\x50\x04\x00\x09\x87\x00");
    let message = publish("yes", "x", Qos::ExactlyOnce, 9);
    broker.receive(1, id, &Packet::Publish(message));
    assert_eq!(sent(&mut broker, 1, id), b"\x50\x04\x00\x09\x10\x00");
    // MQTT 3 has no way to say no: it is confirmed, and goes nowhere.
    let old = join(&mut broker, 1, "old", true);
    let message = publish("no", "x", Qos::AtLeastOnce, 9);
    broker.receive(1, old, &Packet::Publish(message));
    assert_eq!(sent(&mut broker, 1, old), b"\x40\x02\x00\x09");
    assert_eq!(broker.metrics().get(Metric::MessagesPublished), 1);
}

#[test]
fn a_rule_that_refuses_need_not_be_told() {
    let mut options = open();
    options.limits.hide_rules = true;
    options.acl_default = false;
    let mut broker = Broker::new(&options);
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    subscribe_all(&mut broker, id, &[("a", 0)], 0);
    assert_eq!(sent(&mut broker, 1, id), b"\x90\x04\x00\x4d\x00\x80");
    let message = publish("a", "x", Qos::AtLeastOnce, 9);
    broker.receive(1, id, &Packet::Publish(message));
    assert_eq!(sent(&mut broker, 1, id), b"\x40\x04\x00\x09\x80\x00");
}

#[test]
fn strays_are_answered_as_the_standard_says() {
    let mut broker = broker();
    let (id, _) = join5(&mut broker, 1, 0, &connect("c", Version::V5, true));
    ack(&mut broker, id, AckKind::PubRel, 5);
    assert_eq!(sent(&mut broker, 1, id), b"\x70\x04\x00\x05\x92\x00");
    ack(&mut broker, id, AckKind::PubRec, 5);
    assert_eq!(sent(&mut broker, 1, id), b"\x62\x04\x00\x05\x92\x00");
    ack(&mut broker, id, AckKind::PubAck, 5);
    ack(&mut broker, id, AckKind::PubComp, 5);
    assert!(sent(&mut broker, 1, id).is_empty());
    let old = join(&mut broker, 1, "old", true);
    ack(&mut broker, old, AckKind::PubRel, 5);
    assert_eq!(sent(&mut broker, 1, old), b"\x70\x02\x00\x05");
}

#[test]
fn identifiers_in_flight_are_not_given_again_and_never_zero() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "c", true);
    subscribe(&mut broker, id, "a", 1);
    let from = join(&mut broker, 1, "p", true);
    let mut next = |confirm: bool| {
        let message = publish("a", "x", Qos::AtLeastOnce, 1);
        broker.receive(1, from, &Packet::Publish(message));
        sent(&mut broker, 1, from);
        let got = messages(&mut broker, 1, id)[0].0;
        if confirm {
            ack(&mut broker, id, AckKind::PubAck, got);
        }
        got
    };
    assert_eq!(next(false), 1);
    for expected in 2..=u16::MAX {
        assert_eq!(next(true), expected);
    }
    assert_eq!(next(true), 2, "1 is still in flight");
}

#[test]
fn with_a_full_window_everything_but_messages_goes_on() {
    let mut broker = broker();
    let mut one = PropertyWriter::default();
    one.u16(property::RECEIVE_MAXIMUM, 1);
    let (id, _) = join5(&mut broker, 1, 0, &stays("c", &one));
    subscribe_all(&mut broker, id, &[("a", 1)], 0);
    sent(&mut broker, 1, id);
    let from = join(&mut broker, 1, "p", true);
    for _ in 0..2 {
        let message = publish("a", "x", Qos::AtLeastOnce, 1);
        broker.receive(1, from, &Packet::Publish(message));
    }
    let bytes = sent(&mut broker, 1, id);
    assert_eq!(packets(&bytes, Version::V5).len(), 1);
    broker.receive(1, id, &Packet::PingReq);
    let message = publish("other", "x", Qos::AtLeastOnce, 7);
    broker.receive(1, id, &Packet::Publish(message));
    let bytes = sent(&mut broker, 1, id);
    let answered = packets(&bytes, Version::V5);
    assert_eq!(answered[0], Packet::PingResp);
    assert!(matches!(answered[1], Packet::Ack(Ack { packet_id: 7, .. })));
}

#[test]
fn after_a_disconnect_nothing_is_sent_and_the_connection_is_closed() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "c", false);
    broker.effects().clear();
    subscribe(&mut broker, id, "a", 1);
    let packet = Packet::Disconnect(Reason::SUCCESS, Properties::default());
    broker.receive(1, id, &packet);
    assert!(closed(&mut broker).contains(&0));
    let from = join(&mut broker, 1, "p", true);
    broker.effects().clear();
    let message = publish("a", "x", Qos::AtLeastOnce, 1);
    broker.receive(1, from, &Packet::Publish(message));
    let effects = std::mem::take(broker.effects());
    assert!(effects.iter().all(|effect| *effect == Effect::Write(1)));
}
