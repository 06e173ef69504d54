//! The client's machine against packets of a broker, and its task against our own broker's words.

use super::*;
use crate::mqtt::codec::{
    Ack, AckKind, ConnAck, Framed, Packet, Properties, PropertyWriter, Publish, Qos, Reason,
    SubAck, Version, decode, encode, frame,
};

fn message(topic: &str, qos: Qos) -> Outgoing {
    Outgoing {
        topic: topic.into(),
        payload: (*b"x").into(),
        qos,
        retain: false,
        properties: PropertyWriter::default(),
    }
}

fn connack(session_present: bool) -> Packet<'static> {
    Packet::ConnAck(ConnAck {
        session_present,
        reason: Reason::SUCCESS,
        properties: Properties::default(),
    })
}

fn ack(kind: AckKind, packet_id: u16) -> Packet<'static> {
    Packet::Ack(Ack {
        kind,
        packet_id,
        reason: Reason::SUCCESS,
        properties: Properties::default(),
    })
}

/// A client, what it says, and what it shows.
struct Bench {
    client: Client,
    out: Vec<u8>,
    shown: Vec<String>,
    version: Version,
}

impl Bench {
    fn new(options: Options) -> Self {
        let version = options.version;
        let mut bench = Self {
            client: Client::new(options),
            out: Vec::new(),
            shown: Vec::new(),
            version,
        };
        bench.client.open(0, &mut bench.out);
        bench
    }

    fn hear(&mut self, now: u64, packet: &Packet<'_>) -> Result<(), Ended> {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes);
        let shown = &mut self.shown;
        let taken = self
            .client
            .receive(now, &bytes, &mut self.out, &mut |event| {
                shown.push(name(&event));
            })?;
        assert_eq!(taken, bytes.len());
        Ok(())
    }

    fn publish(&mut self, now: u64, message: Outgoing) {
        let shown = &mut self.shown;
        assert!(self.client.has_room());
        self.client
            .publish(now, message, &mut self.out, &mut |event| {
                shown.push(name(&event));
            });
    }

    /// What was said since the last call, packet by packet.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let mut rest = &*self.out;
        while let Ok(Framed::Whole(whole)) = frame(rest, usize::MAX) {
            said.push(match decode(whole, self.version).unwrap() {
                Packet::Connect(connect) => format!("CONNECT {}", connect.client_id),
                Packet::Publish(publish) => format!(
                    "PUBLISH {} {}{}",
                    publish.packet_id,
                    publish.topic,
                    if publish.dup { " dup" } else { "" }
                ),
                Packet::Ack(ack) => format!("{:?} {}", ack.kind, ack.packet_id),
                Packet::Subscribe(subscribe) => format!("SUBSCRIBE {}", subscribe.packet_id),
                other => format!("{other:?}"),
            });
            rest = &rest[whole.length..];
        }
        assert!(rest.is_empty());
        self.out.clear();
        said
    }
}

fn name(event: &Event<'_>) -> String {
    match event {
        Event::Message(publish) => format!("message {}", publish.topic),
        other => format!("{other:?}"),
    }
}

fn open(options: Options) -> Bench {
    let mut bench = Bench::new(options);
    bench.hear(0, &connack(false)).unwrap();
    bench.said();
    bench.shown.clear();
    bench
}

#[test]
fn each_quality_is_acknowledged_as_the_standard_says() {
    for version in [Version::V4, Version::V5] {
        let mut bench = open(Options {
            version,
            ..Options::new("c")
        });
        bench.publish(1, message("a", Qos::AtMostOnce));
        bench.publish(1, message("b", Qos::AtLeastOnce));
        bench.publish(1, message("c", Qos::ExactlyOnce));
        assert_eq!(bench.said(), ["PUBLISH 0 a", "PUBLISH 1 b", "PUBLISH 2 c"]);
        assert_eq!(bench.shown, ["Sent"]);
        bench.hear(2, &ack(AckKind::PubAck, 1)).unwrap();
        bench.hear(2, &ack(AckKind::PubRec, 2)).unwrap();
        assert_eq!(
            (bench.said(), bench.shown.len()),
            (vec!["PubRel 2".into()], 2)
        );
        bench.hear(2, &ack(AckKind::PubComp, 2)).unwrap();
        assert_eq!(bench.shown, ["Sent"; 3]);
        // An acknowledgement of nothing is none.
        bench.hear(2, &ack(AckKind::PubAck, 1)).unwrap();
        assert_eq!(bench.shown.len(), 3);
    }
}

#[test]
fn what_was_not_acknowledged_is_sent_again_on_the_next_connection() {
    for (known, want) in [
        (true, vec!["PUBLISH 1 a dup", "PubRel 2"]),
        (false, vec!["PUBLISH 1 a"]),
    ] {
        let mut bench = open(Options {
            clean: false,
            ..Options::new("c")
        });
        bench.publish(1, message("a", Qos::AtLeastOnce));
        bench.publish(1, message("b", Qos::ExactlyOnce));
        bench.hear(1, &ack(AckKind::PubRec, 2)).unwrap();
        bench.said();
        bench.client.closed();
        assert!(!bench.client.has_room());
        bench.client.open(5, &mut bench.out);
        bench.hear(5, &connack(known)).unwrap();
        assert_eq!(bench.said()[1..], want);
    }
}

#[test]
fn a_message_of_qos_2_is_shown_once() {
    let mut bench = open(Options::new("c"));
    let publish = |dup| {
        Packet::Publish(Publish {
            dup,
            qos: Qos::ExactlyOnce,
            retain: false,
            topic: "t",
            packet_id: 7,
            properties: Properties::default(),
            payload: b"",
        })
    };
    bench.hear(1, &publish(false)).unwrap();
    bench.hear(1, &publish(true)).unwrap();
    bench.hear(1, &ack(AckKind::PubRel, 7)).unwrap();
    bench.hear(1, &publish(false)).unwrap();
    assert_eq!(bench.shown, ["message t", "message t"]);
    assert_eq!(
        bench.said(),
        ["PubRec 7", "PubRec 7", "PubComp 7", "PubRec 7"]
    );
}

#[test]
fn subscriptions_are_made_on_each_connection_and_refusals_shown() {
    let subscription = |filter: &str| Subscription {
        filter: filter.into(),
        options: 1,
    };
    let mut bench = Bench::new(Options {
        subscriptions: vec![subscription("a/#"), subscription("b")],
        ..Options::new("c")
    });
    bench.hear(0, &connack(false)).unwrap();
    assert_eq!(bench.said(), ["CONNECT c", "SUBSCRIBE 1"]);
    let suback = Packet::SubAck(SubAck {
        unsubscribe: false,
        packet_id: 1,
        properties: Properties::default(),
        reasons: &[1, 0x80],
    });
    bench.hear(0, &suback).unwrap();
    assert_eq!(bench.shown.len(), 2);
    assert!(
        bench.shown[1].contains("filter: \"b\""),
        "{}",
        bench.shown[1]
    );
}

#[test]
fn a_silent_broker_is_given_up_and_a_quiet_one_is_asked() {
    // CONNECT without an answer.
    let mut bench = Bench::new(Options::new("c"));
    assert_eq!(bench.client.deadline(), 20_000);
    assert_eq!(
        bench.client.tick(20_000, &mut bench.out),
        Err(Ended::Silent)
    );
    // A keep-alive of 60 s: asked after 54, dead after 20 more.
    let mut bench = open(Options::new("c"));
    assert_eq!(bench.client.deadline(), 54_000);
    assert_eq!(bench.client.tick(54_000, &mut bench.out), Ok(()));
    assert_eq!(bench.said(), ["PingReq"]);
    assert_eq!(bench.client.deadline(), 74_000);
    bench.hear(55_000, &Packet::PingResp).unwrap();
    assert_eq!(bench.client.deadline(), 108_000);
    // A message that is not acknowledged.
    bench.publish(60_000, message("a", Qos::AtLeastOnce));
    assert_eq!(bench.client.deadline(), 80_000);
}

#[test]
fn the_limits_of_a_broker_of_5_hold() {
    let mut bench = Bench::new(Options {
        version: Version::V5,
        ..Options::new("c")
    });
    let mut limits = PropertyWriter::default();
    limits.u16(0x21, 1);
    limits.byte(0x24, 1);
    limits.u32(0x27, 100);
    let greeting = Packet::ConnAck(ConnAck {
        session_present: false,
        reason: Reason::SUCCESS,
        properties: limits.finish(),
    });
    bench.hear(0, &greeting).unwrap();
    bench.said();
    let large = Outgoing {
        payload: vec![0; 100].into(),
        ..message("large", Qos::AtMostOnce)
    };
    bench.publish(1, large);
    assert_eq!(bench.shown[1], "NotSent(Reason(149))");
    // QoS 2 goes as 1, and one at a time.
    bench.publish(1, message("a", Qos::ExactlyOnce));
    assert!(!bench.client.has_room());
    assert_eq!(bench.said(), ["PUBLISH 1 a"]);
    bench.hear(1, &ack(AckKind::PubAck, 1)).unwrap();
    assert!(bench.client.has_room());
}

#[test]
fn what_a_broker_must_not_send_ends_the_connection() {
    let mut bench = Bench::new(Options::new("c"));
    assert_eq!(bench.hear(0, &Packet::PingResp), Err(Ended::OutOfPlace));
    let refusal = Packet::ConnAck(ConnAck {
        session_present: false,
        reason: Reason(5),
        properties: Properties::default(),
    });
    let refused = bench.hear(0, &refusal).unwrap_err();
    assert_eq!(refused.to_string(), "the broker says: not authorized");
    let mut bench = open(Options::new("c"));
    assert_eq!(bench.hear(0, &connack(true)), Err(Ended::OutOfPlace));
    assert_eq!(bench.hear(0, &Packet::PingReq), Err(Ended::OutOfPlace));
}
