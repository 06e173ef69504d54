//! What the broker says of itself, whom it chooses, and whom it keeps out.

use serde_json::{Value, json};

use super::*;
use crate::mqtt::options::{Flapping, Limits, Share};

fn with(limits: Limits) -> Broker {
    Broker::new(&Options {
        limits,
        node: "n@h".into(),
        ..open()
    })
}

/// Topics and payloads of the messages among what is sent.
fn told(broker: &mut Broker, now: Time, id: SessionId) -> Vec<(String, String)> {
    let bytes = sent(broker, now, id);
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while let Ok(Framed::Whole(whole)) = frame(rest, 1 << 20) {
        if let Ok(Packet::Publish(publish)) = decode(whole, Version::V4) {
            let payload = String::from_utf8_lossy(publish.payload).into_owned();
            found.push((publish.topic.to_owned(), payload));
        }
        rest = &rest[whole.length..];
    }
    found
}

#[test]
fn who_listens_gets_values_at_once_and_again_and_nobody_else_costs_anything() {
    let mut broker = with(Limits::default());
    let id = join(&mut broker, 0, "dash", true);
    let before = broker.deadline();
    subscribe(&mut broker, id, "$SYS/broker/clients/connected", 0);
    let one = ("$SYS/broker/clients/connected".to_owned(), "1".to_owned());
    assert_eq!(told(&mut broker, 1, id), [one]);
    assert!(broker.take_sooner() && before > 10_001 && broker.deadline() == 10_001);
    subscribe(&mut broker, id, "$SYS/#", 0);
    let all = told(&mut broker, 1, id);
    for topic in [
        "$SYS/brokers",
        "$SYS/brokers/n@h/uptime",
        "$SYS/brokers/n@h/stats/connections.count",
        "$SYS/brokers/n@h/metrics/bytes/received",
        "$SYS/broker/uptime",
        "$SYS/broker/load/messages/received/15min",
    ] {
        assert!(all.iter().any(|(known, _)| known == topic), "{topic}");
    }
    broker.tick(10_001);
    assert!(told(&mut broker, 10_001, id).len() > 100);
    // The level alone is no wildcard's.
    subscribe(&mut broker, id, "#", 0);
    let other = join(&mut broker, 1, "other", true);
    subscribe(&mut broker, other, "#", 0);
    broker.tick(20_002);
    assert!(told(&mut broker, 20_002, other).is_empty());
}

#[test]
fn values_come_in_time_however_the_subscription_came_about() {
    // By a share, without what is retained, and from the log.
    for (filter, options) in [
        ("$share/g/$SYS/broker/uptime", 0),
        ("$SYS/broker/uptime", 2 << 4),
    ] {
        let mut broker = with(Limits::default());
        broker.keep_journal(1000);
        let id = join(&mut broker, 0, "dash", false);
        broker.take_sooner();
        subscribe(&mut broker, id, filter, options);
        assert!(
            told(&mut broker, 1, id).is_empty() && broker.take_sooner(),
            "{filter}"
        );
        let mut log = Vec::new();
        broker.write_journal(2, Extent::All, &mut log);
        let mut again = with(Limits::default());
        again.keep_journal(1000);
        assert_eq!(again.restore(1, &log), log.len());
        let back = join(&mut again, 0, "dash", false);
        for (broker, id) in [(&mut broker, id), (&mut again, back)] {
            assert_eq!(broker.deadline(), 10_001, "{filter}");
            broker.tick(10_001);
            let told = told(broker, 10_001, id);
            assert_eq!(told.len(), 1, "{filter}");
            assert_eq!(told[0].0, "$SYS/broker/uptime");
        }
    }
}

#[test]
fn values_name_the_subscription_that_asked_for_them() {
    let mut broker = with(Limits::default());
    let connect = connect("dash", Version::V5, true);
    let id = broker.connect(1, 0, &connect, anyone()).unwrap();
    let mut properties = PropertyWriter::default();
    properties.varint(property::SUBSCRIPTION_ID, 7);
    let list = b"\0\x12$SYS/broker/uptime\0";
    let asked = Subscribe {
        packet_id: 3,
        properties: properties.finish(),
        list,
    };
    broker.receive(1, id, &Packet::Subscribe(asked));
    let bytes = sent(&mut broker, 1, id);
    let mut rest = &bytes[..];
    let mut named = Vec::new();
    while let Ok(Framed::Whole(whole)) = frame(rest, 1 << 20) {
        if let Ok(Packet::Publish(publish)) = decode(whole, Version::V5) {
            named.push(publish.properties.number(property::SUBSCRIPTION_ID));
        }
        rest = &rest[whole.length..];
    }
    assert_eq!(named, [Some(7)]);
}

#[test]
fn comings_goings_and_alarms_are_told_as_they_happen() {
    let mut broker = with(Limits::default());
    let id = join(&mut broker, 0, "dash", true);
    subscribe(&mut broker, id, "$SYS/brokers/+/clients/#", 0);
    subscribe(&mut broker, id, "$SYS/brokers/+/alarms/+", 0);
    told(&mut broker, 1, id);
    let guest = join(&mut broker, 1, "guest", true);
    broker.lost(2, guest, "tcp_closed");
    assert!(broker.raise_alarm(2, "loop", "too often", &json!({"rule": "r"})));
    assert!(!broker.raise_alarm(2, "loop", "too often", &json!({})));
    assert!(broker.lower_alarm(3, "loop") && !broker.lower_alarm(3, "loop"));
    let all = told(&mut broker, 3, id);
    let topics: Vec<_> = all
        .iter()
        .filter_map(|(topic, _)| topic.strip_prefix("$SYS/brokers/n@h/"))
        .collect();
    let want = [
        "clients/guest/connected",
        "clients/guest/disconnected",
        "alarms/activate",
        "alarms/deactivate",
    ];
    assert_eq!(topics, want);
    let of = |n: usize| serde_json::from_str::<Value>(&all[n].1).unwrap();
    assert_eq!(
        (&of(0)["clientid"], &of(1)["reason"]),
        (&json!("guest"), &json!("tcp_closed"))
    );
    assert_eq!(
        (&of(2)["details"]["rule"], &of(3)["activated"]),
        (&json!("r"), &json!(false))
    );
}

/// How many of sixty messages each of three members gets, by two publishers on two topics.
fn shares(strategy: Share) -> Vec<usize> {
    let mut broker = with(Limits {
        share: strategy,
        ..Limits::default()
    });
    let members: Vec<_> = (0..3)
        .map(|n| {
            let id = join(&mut broker, n, &format!("m{n}"), true);
            subscribe(&mut broker, id, "$share/g/#", 0);
            id
        })
        .collect();
    let publishers = [
        join(&mut broker, 8, "p1", true),
        join(&mut broker, 9, "p2", true),
    ];
    for n in 0..60 {
        let topic = if n % 2 == 0 { "a" } else { "b" };
        let packet = Packet::Publish(publish(topic, "x", Qos::AtMostOnce, 0));
        broker.receive(1, publishers[n / 30], &packet);
    }
    let all = members.iter();
    all.map(|&id| payloads(&mut broker, 1, id).len()).collect()
}

#[test]
fn members_of_a_share_are_chosen_as_the_strategy_says() {
    assert_eq!(shares(Share::RoundRobin), [20, 20, 20]);
    assert_eq!(shares(Share::Sticky), [60, 0, 0]);
    let random = shares(Share::Random);
    assert!(random.iter().sum::<usize>() == 60 && random.iter().all(|&count| count < 50));
    for strategy in [Share::HashClientId, Share::HashTopic] {
        let counts = shares(strategy);
        assert!(counts.iter().all(|count| count % 30 == 0), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 60);
    }
}

#[test]
fn who_comes_and_goes_too_often_is_kept_out() {
    let flapping = Flapping {
        count: 3,
        window: 60,
        ban: 300,
    };
    let mut broker = with(Limits {
        flapping: Some(flapping),
        ..Limits::default()
    });
    let mut now = 1;
    let mut round = |broker: &mut Broker, wait: Time| {
        let id = join(broker, 0, "flap", true);
        now += wait;
        broker.lost(now, id, "tcp_closed");
        broker.bans().len()
    };
    // Too slow to count together.
    assert!((0..5).all(|_| round(&mut broker, 40_000) == 0));
    assert_eq!(round(&mut broker, 100_000), 0);
    assert_eq!((round(&mut broker, 10), round(&mut broker, 10)), (0, 1));
    let (_, ban) = broker.bans().iter().next().unwrap();
    assert_eq!((&*ban.by, ban.until - ban.at), ("flapping detector", 300));
}
