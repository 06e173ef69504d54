//! The relay: packets in, packets out.

use super::relay::{Noted, Relay, Taken, VIA};
use super::*;
use crate::mqtt::codec::property::id;
use crate::mqtt::codec::{
    Ack, AckKind, Framed, Packet, Properties, PropertyWriter, Publish, Reason, SubAck, Value,
    decode, frame,
};

fn topic(filter: &str, direction: (bool, bool), local: &str, remote: &str) -> BridgeTopic {
    BridgeTopic {
        filter: filter.into(),
        out: direction.0,
        inward: direction.1,
        qos: Qos::ExactlyOnce,
        local_prefix: local.into(),
        remote_prefix: remote.into(),
    }
}

const OUT: (bool, bool) = (true, false);
const IN: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);

fn everything() -> Taken {
    Taken {
        qos: Qos::ExactlyOnce,
        retain: true,
        packet_bytes: usize::MAX,
    }
}

fn relay(topics: &[BridgeTopic], version: Version) -> Relay<'_> {
    Relay {
        topics,
        version,
        identity: "me",
        taken: everything(),
    }
}

fn publish<'a>(topic: &'a str, qos: Qos, properties: &'a PropertyWriter) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: true,
        topic,
        packet_id: if qos == Qos::AtMostOnce { 0 } else { 9 },
        properties: properties.finish(),
        payload: b"x",
    })
}

fn ack(kind: AckKind, reason: Reason) -> Packet<'static> {
    Packet::Ack(Ack {
        kind,
        packet_id: 9,
        reason,
        properties: Properties::default(),
    })
}

/// The only packet in `bytes`.
#[track_caller]
fn only(bytes: &[u8], version: Version) -> Packet<'_> {
    let Ok(Framed::Whole(whole)) = frame(bytes, usize::MAX) else {
        panic!("no packet in {bytes:?}");
    };
    assert_eq!(whole.length, bytes.len());
    decode(whole, version).unwrap()
}

#[test]
fn topics_lose_one_prefix_and_get_the_other() {
    let topics = [
        topic("a/#", OUT, "here/", "there/"),
        topic("#", OUT, "", "rest/"),
        topic("+", IN, "from/", "to/"),
    ];
    let relay = relay(&topics, Version::V4);
    let none = PropertyWriter::default();
    for (from, want) in [
        ("here/a/b", "there/a/b"),
        ("here/b", "rest/here/b"),
        ("x", "rest/x"),
    ] {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let packet = publish(from, Qos::AtLeastOnce, &none);
        relay.outward(&packet, &mut there, &mut back).unwrap();
        let Packet::Publish(said) = only(&there, Version::V4) else {
            panic!("{there:?}");
        };
        assert_eq!((said.topic, said.packet_id, said.retain), (want, 9, true));
        assert!(back.is_empty());
    }
    let (mut here, mut back) = (Vec::new(), Vec::new());
    let packet = publish("to/y", Qos::ExactlyOnce, &none);
    relay.inward(&packet, &mut here, &mut back).unwrap();
    let Packet::Publish(said) = only(&here, Version::V5) else {
        panic!("{here:?}");
    };
    assert_eq!((said.topic, said.qos), ("from/y", Qos::ExactlyOnce));
    let filters = |list: Vec<(Box<str>, u8)>| -> Vec<String> {
        list.into_iter().map(|one| one.0.into()).collect()
    };
    assert_eq!(filters(relay.local_filters()), ["here/a/#", "#"]);
    assert_eq!(filters(relay.remote_filters()), ["to/+"]);
}

#[test]
fn what_does_not_go_on_is_answered_and_refused_to_nobody() {
    let topics = [topic("a", BOTH, "", "")];
    let relay = relay(&topics, Version::V4);
    let none = PropertyWriter::default();
    for (qos, answer) in [
        (Qos::AtMostOnce, None),
        (Qos::AtLeastOnce, Some(AckKind::PubAck)),
        (Qos::ExactlyOnce, Some(AckKind::PubRec)),
    ] {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let packet = publish("b", qos, &none);
        relay.inward(&packet, &mut there, &mut back).unwrap();
        assert!(there.is_empty());
        match answer {
            None => assert!(back.is_empty()),
            Some(kind) => assert_eq!(only(&back, Version::V4), ack(kind, Reason::SUCCESS)),
        }
    }
}

#[test]
fn what_the_other_broker_cannot_take_is_refused_here() {
    let topics = [topic("#", OUT, "", "long/prefix/")];
    let mut relay = relay(&topics, Version::V5);
    relay.taken.packet_bytes = 20;
    let none = PropertyWriter::default();
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let noted = relay.outward(
        &publish("a", Qos::ExactlyOnce, &none),
        &mut there,
        &mut back,
    );
    assert_eq!(noted, Ok(Noted::NotTaken(Reason::PACKET_TOO_LARGE)));
    assert!(there.is_empty());
    let refused = ack(AckKind::PubRec, Reason::PACKET_TOO_LARGE);
    assert_eq!(only(&back, Version::V5), refused);
    relay.taken.qos = Qos::AtLeastOnce;
    let (_, options) = relay.local_filters().remove(0);
    assert_eq!(options & 3, 1, "no more is asked for than goes on");
}

#[test]
fn acknowledgements_pass_under_their_identifier_with_their_reason() {
    let relay = relay(&[], Version::V5);
    for kind in [
        AckKind::PubAck,
        AckKind::PubRec,
        AckKind::PubRel,
        AckKind::PubComp,
    ] {
        let (mut out, mut back) = (Vec::new(), Vec::new());
        relay
            .outward(&ack(kind, Reason::SUCCESS), &mut out, &mut back)
            .unwrap();
        assert_eq!(only(&out, Version::V5), ack(kind, Reason::SUCCESS));
        assert!(back.is_empty());
    }
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let refusal = ack(AckKind::PubAck, Reason::QUOTA_EXCEEDED);
    let noted = relay.inward(&refusal, &mut out, &mut back);
    assert_eq!(noted, Ok(Noted::NotTaken(Reason::QUOTA_EXCEEDED)));
    assert_eq!(only(&out, Version::V5), refusal);
    let refused = Packet::SubAck(SubAck {
        unsubscribe: false,
        packet_id: 65_535,
        properties: Properties::default(),
        reasons: &[1, 0x87],
    });
    let noted = relay.inward(&refused, &mut out, &mut back);
    assert_eq!(noted, Ok(Noted::NotSubscribed(1, Reason::NOT_AUTHORIZED)));
}

#[test]
fn a_message_names_the_brokers_it_went_through_and_comes_to_none_twice() {
    let topics = [topic("#", BOTH, "", "")];
    let relay = relay(&topics, Version::V5);
    let mut properties = PropertyWriter::default();
    properties.text(id::CONTENT_TYPE, "text/plain");
    properties.varint(id::SUBSCRIPTION_ID, 5);
    properties.pair(VIA, "other");
    let packet = publish("a", Qos::AtLeastOnce, &properties);
    let (mut there, mut back) = (Vec::new(), Vec::new());
    relay.outward(&packet, &mut there, &mut back).unwrap();
    let Packet::Publish(said) = only(&there, Version::V5) else {
        panic!("{there:?}");
    };
    let values: Vec<_> = said.properties.iter().map(|(_, value, _)| value).collect();
    let want = [
        Value::Text("text/plain"),
        Value::Pair(VIA, "other"),
        Value::Pair(VIA, "me"),
    ];
    assert_eq!(values, want);
    // It comes back, over whatever way.
    let mut here = Vec::new();
    let returned = Packet::Publish(said);
    relay.inward(&returned, &mut here, &mut back).unwrap();
    assert!(here.is_empty());
    assert_eq!(
        only(&back, Version::V5),
        ack(AckKind::PubAck, Reason::SUCCESS)
    );
    relay.inward(&packet, &mut here, &mut back).unwrap();
    assert!(!here.is_empty());
}

#[test]
fn a_password_is_not_shown() {
    let options = BridgeOptions {
        name: "b".into(),
        server: Endpoint::parse("example.org:1883").unwrap(),
        tls: None,
        trust: TrustFiles::default(),
        proxy: None,
        version: Version::V5,
        client_id: None,
        username: None,
        password: Some("geheim".into()),
        clean: false,
        keep_alive: 60,
        topics: Vec::new(),
    };
    assert!(!format!("{options:?}").contains("geheim"));
}
