//! The machine without sockets: clients are links, packets go in as structures and out as bytes.

mod conformance;
mod journal;
mod manage;
mod system;

use std::net::Ipv4Addr;

use super::*;
use crate::mqtt::codec::property::id as property;
use crate::mqtt::codec::{
    Ack, AckKind, Connect, Framed, PropertyWriter, Publish, Qos, Subscribe, Will, decode, frame,
};
use crate::mqtt::session::ALIASES_MAX;

fn open() -> Options {
    Options {
        acl_default: true,
        allow_anonymous: true,
        ..Options::default()
    }
}

fn broker() -> Broker {
    Broker::new(&open())
}

fn connect(client_id: &str, version: Version, clean: bool) -> Connect<'_> {
    Connect {
        version,
        bridge: false,
        clean,
        keep_alive: 10,
        properties: Properties::default(),
        client_id,
        will: None,
        username: None,
        password: None,
    }
}

fn anyone() -> Admitted {
    Admitted {
        username: None,
        superuser: false,
        address: (Ipv4Addr::LOCALHOST, 4000).into(),
        listener: 0,
    }
}

#[track_caller]
fn join(broker: &mut Broker, link: LinkId, client_id: &str, clean: bool) -> SessionId {
    let connect = connect(client_id, Version::V4, clean);
    let id = broker.connect(1, link, &connect, anyone()).unwrap();
    let ack = sent(broker, 1, id);
    assert_eq!(ack[0], 0x20);
    id
}

/// Everything that is sent to a session now.
fn sent(broker: &mut Broker, now: Time, id: SessionId) -> Vec<u8> {
    let mut out = Vec::new();
    while broker.has_more(id) {
        let tail = broker.transmit(now, id, &mut out, 1 << 16);
        out.extend(tail.iter().flat_map(|tail| tail.payload()));
    }
    out
}

/// The messages among what is sent: packet identifier, dup, retain, payload.
fn messages(broker: &mut Broker, now: Time, id: SessionId) -> Vec<(u16, bool, bool, String)> {
    let bytes = sent(broker, now, id);
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while let Ok(Framed::Whole(whole)) = frame(rest, 1 << 20) {
        if let Ok(Packet::Publish(publish)) = decode(whole, Version::V4) {
            let payload = String::from_utf8_lossy(publish.payload).into_owned();
            found.push((publish.packet_id, publish.dup, publish.retain, payload));
        }
        rest = &rest[whole.length..];
    }
    found
}

fn payloads(broker: &mut Broker, now: Time, id: SessionId) -> Vec<String> {
    let all = messages(broker, now, id);
    all.into_iter().map(|(.., payload)| payload).collect()
}

fn publish<'a>(topic: &'a str, payload: &'a str, qos: Qos, packet_id: u16) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id,
        properties: Properties::default(),
        payload: payload.as_bytes(),
    }
}

fn subscribe(broker: &mut Broker, id: SessionId, filter: &str, options: u8) {
    let mut list = u16::try_from(filter.len()).unwrap().to_be_bytes().to_vec();
    list.extend(filter.as_bytes());
    list.push(options);
    let packet = Subscribe {
        packet_id: 1,
        properties: Properties::default(),
        list: &list,
    };
    broker.receive(1, id, &Packet::Subscribe(packet));
}

fn ack(broker: &mut Broker, id: SessionId, kind: AckKind, packet_id: u16) {
    let packet = Ack {
        kind,
        packet_id,
        reason: Reason::SUCCESS,
        properties: Properties::default(),
    };
    broker.receive(1, id, &Packet::Ack(packet));
}

fn closed(broker: &mut Broker) -> Vec<LinkId> {
    let effects = std::mem::take(broker.effects());
    let closes = effects.into_iter().filter_map(|effect| match effect {
        Effect::Close(link, _) => Some(link),
        Effect::Write(_) => None,
    });
    closes.collect()
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_quality() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "a/#", 0);
    subscribe(&mut broker, id, "a/+", 1);
    let from = join(&mut broker, 1, "p", true);
    broker.receive(
        1,
        from,
        &Packet::Publish(publish("a/b", "x", Qos::ExactlyOnce, 7)),
    );
    let got = messages(&mut broker, 1, id);
    assert_eq!(got, [(1, false, false, "x".to_owned())]);
}

#[test]
fn a_message_of_qos_2_that_comes_twice_is_routed_once() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "t", 0);
    let from = join(&mut broker, 1, "p", true);
    let packet = Packet::Publish(publish("t", "x", Qos::ExactlyOnce, 7));
    broker.receive(1, from, &packet);
    broker.receive(1, from, &packet);
    assert_eq!(sent(&mut broker, 1, from), b"\x50\x02\0\x07\x50\x02\0\x07");
    ack(&mut broker, from, AckKind::PubRel, 7);
    assert_eq!(sent(&mut broker, 1, from), b"\x70\x02\0\x07");
    broker.receive(1, from, &packet);
    assert_eq!(payloads(&mut broker, 1, id), ["x", "x"]);
}

#[test]
fn more_than_the_window_waits_for_acknowledgements() {
    let mut broker = broker();
    broker.limits.inflight_max = 2;
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "t", 1);
    let from = join(&mut broker, 1, "p", true);
    for payload in ["1", "2", "3"] {
        broker.receive(
            1,
            from,
            &Packet::Publish(publish("t", payload, Qos::AtLeastOnce, 1)),
        );
    }
    assert_eq!(payloads(&mut broker, 1, id), ["1", "2"]);
    ack(&mut broker, id, AckKind::PubAck, 1);
    assert_eq!(payloads(&mut broker, 1, id), ["3"]);
}

#[test]
fn a_session_that_returns_gets_what_was_in_flight_first_and_then_what_waited() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", false);
    subscribe(&mut broker, id, "t", 1);
    let from = join(&mut broker, 1, "p", true);
    let say = |broker: &mut Broker, payload: &str, qos| {
        broker.receive(1, from, &Packet::Publish(publish("t", payload, qos, 1)));
    };
    say(&mut broker, "1", Qos::AtLeastOnce);
    say(&mut broker, "2", Qos::AtLeastOnce);
    assert_eq!(payloads(&mut broker, 1, id), ["1", "2"]);
    ack(&mut broker, id, AckKind::PubAck, 1);
    broker.lost(2, id, "tcp_closed");
    say(&mut broker, "3", Qos::AtLeastOnce);
    say(&mut broker, "not kept", Qos::AtMostOnce);
    let again = connect("s", Version::V4, false);
    assert_eq!(broker.connect(3, 2, &again, anyone()), Ok(id));
    let got = messages(&mut broker, 3, id);
    let want = [
        (2, true, false, "2".to_owned()),
        (3, false, false, "3".to_owned()),
    ];
    assert_eq!(got, want);
}

#[test]
fn a_full_queue_drops_its_oldest_and_counts_it() {
    let mut broker = broker();
    broker.limits.queue_max = 2;
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "t", 0);
    let from = join(&mut broker, 1, "p", true);
    for payload in ["1", "2", "3"] {
        broker.receive(
            1,
            from,
            &Packet::Publish(publish("t", payload, Qos::AtMostOnce, 0)),
        );
    }
    assert!(broker.take_pressing());
    assert_eq!(payloads(&mut broker, 1, id), ["2", "3"]);
    assert_eq!(broker.metrics().get(Metric::DeliveryQueueFull), 1);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let mut broker = broker();
    broker.limits.queue_bytes_max = 1000;
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "t", 0);
    let from = join(&mut broker, 1, "p", true);
    let (small, large) = ("x".repeat(300), "y".repeat(5000));
    for payload in [&small, &small, &small, &large] {
        let packet = publish("t", payload, Qos::AtMostOnce, 0);
        broker.receive(1, from, &Packet::Publish(packet));
    }
    assert_eq!(payloads(&mut broker, 1, id), [large]);
    assert_eq!(broker.metrics().get(Metric::DeliveryQueueFull), 3);
}

#[test]
fn silent_client_is_closed_after_one_and_a_half_keep_alives_and_its_will_is_said() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "will", 0);
    let dying = Connect {
        will: Some(Will {
            topic: "will",
            payload: b"gone",
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        }),
        ..connect("d", Version::V4, true)
    };
    broker.connect(1, 1, &dying, anyone()).unwrap();
    broker.receive(10_000, id, &Packet::PingReq);
    broker.effects().clear();
    broker.tick(15_000);
    assert!(closed(&mut broker).is_empty());
    broker.tick(15_001);
    assert_eq!(closed(&mut broker), [1]);
    assert_eq!(payloads(&mut broker, 15_001, id), ["gone"]);
    assert!(broker.deadline() >= 25_000);
}

#[test]
fn a_will_waits_for_its_delay_and_is_dropped_when_the_client_returns() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "will", 0);
    let mut delay = PropertyWriter::default();
    delay.u32(property::WILL_DELAY, 5);
    let mut expiry = PropertyWriter::default();
    expiry.u32(property::SESSION_EXPIRY, 60);
    let dying = Connect {
        will: Some(Will {
            topic: "will",
            payload: b"gone",
            qos: Qos::AtMostOnce,
            retain: false,
            properties: delay.finish(),
        }),
        properties: expiry.finish(),
        ..connect("d", Version::V5, true)
    };
    let gone = broker.connect(1, 1, &dying, anyone()).unwrap();
    broker.take_sooner();
    broker.lost(1000, gone, "tcp_closed");
    assert!(broker.take_sooner() && broker.deadline() < 7000);
    broker.tick(5999);
    let back = Connect {
        clean: false,
        ..dying
    };
    let back = broker.connect(5999, 2, &back, anyone()).unwrap();
    assert_eq!(back, gone);
    broker.tick(7000);
    assert!(payloads(&mut broker, 7000, id).is_empty());
    broker.lost(8000, back, "tcp_closed");
    broker.tick(13_000);
    assert_eq!(payloads(&mut broker, 13_000, id), ["gone"]);
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", false);
    broker.effects().clear();
    let again = connect("s", Version::V4, false);
    assert_eq!(broker.connect(2, 1, &again, anyone()), Ok(id));
    assert_eq!(closed(&mut broker), [0]);
    assert_eq!(sent(&mut broker, 2, id), b"\x20\x02\x01\x00");
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", false);
    subscribe(&mut broker, id, "t", 1);
    broker.lost(1000, id, "tcp_closed");
    let expiry = crate::mqtt::seconds(broker.limits.session_expiry);
    broker.tick(999 + expiry);
    assert_eq!(broker.by_client.len(), 1);
    broker.tick(1000 + expiry);
    assert!(broker.by_client.is_empty());
    assert_eq!(broker.tree.find("t"), None);
}

#[test]
fn retained_messages_come_with_their_flag_and_however_many_there_are() {
    let mut broker = broker();
    broker.limits.queue_max = 10;
    let from = join(&mut broker, 0, "p", true);
    for number in 0..200 {
        let topic = format!("r/{number:03}");
        let kept = Publish {
            retain: true,
            ..publish(&topic, "x", Qos::AtMostOnce, 0)
        };
        broker.receive(1, from, &Packet::Publish(kept));
    }
    let id = join(&mut broker, 1, "s", true);
    subscribe(&mut broker, id, "r/#", 0);
    let got = messages(&mut broker, 1, id);
    assert_eq!(got.len(), 200);
    assert!(got.iter().all(|(_, _, retain, _)| *retain));
}

#[test]
fn members_of_a_share_take_turns() {
    let mut broker = broker();
    let one = join(&mut broker, 0, "1", true);
    let two = join(&mut broker, 1, "2", true);
    subscribe(&mut broker, one, "$share/g/t", 0);
    subscribe(&mut broker, two, "$share/g/t", 0);
    let from = join(&mut broker, 2, "p", true);
    for _ in 0..4 {
        broker.receive(
            1,
            from,
            &Packet::Publish(publish("t", "x", Qos::AtMostOnce, 0)),
        );
    }
    assert_eq!(payloads(&mut broker, 1, one).len(), 2);
    assert_eq!(payloads(&mut broker, 1, two).len(), 2);
}

#[test]
fn a_message_that_expired_is_not_sent() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", true);
    subscribe(&mut broker, id, "t", 0);
    let from = broker
        .connect(1, 1, &connect("p", Version::V5, true), anyone())
        .unwrap();
    let mut expiry = PropertyWriter::default();
    expiry.u32(property::MESSAGE_EXPIRY, 1);
    let short = Publish {
        properties: expiry.finish(),
        ..publish("t", "x", Qos::AtMostOnce, 0)
    };
    broker.receive(1, from, &Packet::Publish(short));
    assert!(payloads(&mut broker, 1001, id).is_empty());
    assert_eq!(broker.metrics().get(Metric::DeliveryExpired), 1);
}

#[test]
fn nobody_else_speaks_for_the_broker_and_no_other_user_takes_a_session() {
    let mut broker = broker();
    let id = join(&mut broker, 0, "s", false);
    subscribe(&mut broker, id, "$SYS/#", 1);
    broker.receive(
        1,
        id,
        &Packet::Publish(publish("$SYS/x", "x", Qos::AtMostOnce, 0)),
    );
    assert!(!payloads(&mut broker, 1, id).contains(&"x".to_owned()));
    assert_eq!(broker.metrics().get(Metric::PublishAuthError), 1);
    let other = Admitted {
        username: Some("eve".into()),
        ..anyone()
    };
    let again = connect("s", Version::V4, false);
    let taken = broker.connect(2, 1, &again, other).unwrap();
    assert_eq!(sent(&mut broker, 2, taken), b"\x20\x02\x00\x00");
    assert_eq!(broker.tree.find("$SYS/#"), None);
}
