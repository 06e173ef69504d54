//! Rules in a broker without sockets: what they publish, do and count.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::mqtt::broker::Broker;
use crate::mqtt::codec::{PropertyWriter, Qos};
use crate::mqtt::hook::Publication;
use crate::mqtt::options::Options;
use crate::mqtt::remote::Remote;

#[derive(Default)]
struct Acts(Mutex<Vec<Act>>);

impl Router for Acts {
    fn act(&self, act: Act) -> bool {
        self.0.lock().unwrap().push(act);
        true
    }
}

struct Bench {
    broker: Broker,
    acts: Arc<Acts>,
    feed: Arc<Feed>,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let options = Options {
            acl_default: true,
            allow_anonymous: true,
            ..Options::default()
        };
        let (acts, feed) = (
            Arc::new(Acts::default()),
            Feed::new(Remote::default(), "emqx@127.0.0.1"),
        );
        let mut broker = Broker::new(&options);
        let router = Arc::clone(&acts) as Arc<dyn Router>;
        broker.set_hook(Box::new(Engine::new(Arc::clone(&feed), router)));
        Self {
            broker,
            acts,
            feed,
            now: 1_000_000,
        }
    }

    fn engine<T>(&mut self, call: impl FnOnce(&mut Engine) -> T) -> T {
        self.broker.with_hook(call).unwrap()
    }

    fn make(&mut self, sql: &str, actions: &Value) -> Box<str> {
        let asked = json!({"rawsql": sql, "actions": actions});
        let asked = asked.as_object().unwrap().clone();
        self.engine(|engine| engine.create(&asked)).unwrap()
    }

    fn publish(&mut self, topic: &str, payload: &str) {
        let publication = Publication {
            topic: topic.into(),
            payload: payload.as_bytes().into(),
            properties: PropertyWriter::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            client_id: "c1".into(),
        };
        self.broker.publish_for(self.now, &publication);
    }

    fn report(&mut self, id: &str) -> RuleReport {
        let now = self.now;
        self.engine(|engine| engine.reports(now, Some(id)))
            .remove(0)
    }

    /// Matched, passed, no result, exception, and of its first action success and failed.
    fn counts(&mut self, id: &str) -> [u64; 6] {
        let one = self.report(id);
        let action = &one.actions[0];
        [
            one.matched,
            one.passed,
            one.no_result,
            one.exception,
            action.success,
            action.failed,
        ]
    }
}

fn republish(topic: &str) -> Value {
    json!([{"name": "republish", "params": {"target_topic": topic, "payload_tmpl": "${x}"}}])
}

#[test]
fn a_message_finds_its_rules_and_what_they_publish_goes_on() {
    let mut bench = Bench::new();
    let sql = r#"SELECT payload.x AS x FROM "t/#" WHERE x > 1"#;
    let first = bench.make(sql, &republish("out/${x}"));
    let second = bench.make(
        r#"SELECT topic, payload FROM "out/+", "out/2""#,
        &json!([{"name": "do_nothing"}]),
    );
    bench.publish("t/1", r#"{"x":2}"#);
    bench.publish("t/1", r#"{"x":1}"#);
    bench.publish("t/1", "text");
    bench.publish("u", r#"{"x":2}"#);
    assert_eq!(bench.counts(&first), [3, 1, 1, 1, 1, 0]);
    assert_eq!(bench.counts(&second), [1, 1, 0, 0, 1, 0]);
}

#[test]
fn rules_that_do_not_run_see_nothing() {
    let mut bench = Bench::new();
    let id = bench.make(r##"SELECT * FROM "#""##, &json!([{"name": "do_nothing"}]));
    let off = json!({"enabled": false}).as_object().unwrap().clone();
    let gone = id.clone();
    bench
        .engine(|engine| engine.update(&gone, &off))
        .unwrap()
        .unwrap();
    bench.publish("t", "");
    assert_eq!(bench.report(&id).matched, 0);
    let on = json!({"enabled": true}).as_object().unwrap().clone();
    bench
        .engine(|engine| engine.update(&gone, &on))
        .unwrap()
        .unwrap();
    bench.publish("t", "");
    bench.publish("$SYS/t", "");
    assert_eq!(bench.report(&id).matched, 1);
    assert!(bench.engine(|engine| engine.delete(&gone)));
    bench.publish("t", "");
    assert!(bench.engine(|engine| engine.reports(0, None)).is_empty());
}

#[test]
fn rules_that_feed_each_other_are_cut() {
    let mut bench = Bench::new();
    let there = bench.make(r#"SELECT 1 AS x FROM "a""#, &republish("b"));
    let back = bench.make(r#"SELECT 1 AS x FROM "b""#, &republish("a"));
    let own = bench.make(r#"SELECT 1 AS x FROM "own""#, &republish("own"));
    bench.publish("a", "");
    bench.publish("own", "");
    let matched = [&there, &back].map(|id| bench.counts(id)[0]);
    assert!(matched.iter().sum::<u64>() <= 10, "{matched:?}");
    // One of them was cut in the end; its alarm stands until it was calm for a minute.
    let cut = |bench: &mut Bench, after| {
        let now = bench.now + after;
        bench.engine(|engine| engine.is_cut(now, &there) || engine.is_cut(now, &back))
    };
    assert!(cut(&mut bench, 59_999));
    bench.publish("a", "");
    assert!(!cut(&mut bench, 60_000) && !cut(&mut bench, 0));
    // The second time it saw itself.
    assert_eq!(bench.counts(&own), [2, 2, 0, 0, 1, 1]);
    // Both of these match what both publish: each hop doubles.
    let mut bench = Bench::new();
    let storm: Vec<_> = (0..6)
        .map(|_| bench.make(r#"SELECT 1 AS x FROM "s/#""#, &republish("s/x")))
        .collect();
    bench.publish("s", "");
    for id in &storm {
        let counts = bench.counts(id);
        assert!(
            counts[4] <= u64::from(PUBLISH_RATE) && counts[5] > 0,
            "{counts:?}"
        );
    }
}

#[test]
fn the_alarm_of_a_cut_rule_stands_until_the_rule_is_calm_or_gone() {
    let mut bench = Bench::new();
    let there = bench.make(r#"SELECT 1 AS x FROM "a""#, &republish("b"));
    let back = bench.make(r#"SELECT 1 AS x FROM "b""#, &republish("a"));
    let settled = |bench: &mut Bench, after| {
        let now = bench.now + after;
        let stands = [&there, &back].map(|id| cut::settle(&mut bench.broker, now, id));
        let alarms = bench.broker.alarms();
        let counts = [alarms.active().count(), alarms.past().count()];
        (stands.iter().filter(|stands| **stands).count(), counts)
    };
    assert_eq!(settled(&mut bench, 0), (0, [0, 0]));
    bench.publish("a", "");
    assert_eq!(settled(&mut bench, 0), (1, [1, 0]));
    // Asked again it stays the one alarm; a minute later it is over.
    assert_eq!(settled(&mut bench, 59_999), (1, [1, 0]));
    assert_eq!(settled(&mut bench, 60_000), (0, [0, 1]));
    bench.publish("a", "");
    assert_eq!(settled(&mut bench, 0), (1, [1, 1]));
    for id in [&there, &back] {
        let id = id.clone();
        assert!(bench.engine(move |engine| engine.delete(&id)));
    }
    assert_eq!(settled(&mut bench, 0), (0, [0, 2]));
}

#[test]
fn a_failed_action_has_its_fallbacks_and_may_stop_the_rest() {
    let mut bench = Bench::new();
    let actions = json!([
        {"name": "republish", "params": {"target_topic": "${nothing}/+", "payload_tmpl": ""},
         "fallbacks": [{"name": "republish", "params": {"target_topic": "saved"}}]},
        {"name": "do_nothing"},
    ]);
    let asked = json!({"rawsql": "SELECT payload FROM \"t\"", "actions": actions});
    let refused = asked.as_object().unwrap().clone();
    let error = bench.engine(|engine| engine.create(&refused)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "params.target_topic is not as it must be"
    );
    let text = asked.to_string().replace("${nothing}/+", "${payload}");
    let mut asked: Value = serde_json::from_str(&text).unwrap();
    asked["on_action_failed"] = json!("stop");
    let asked = asked.as_object().unwrap().clone();
    let id = bench.engine(|engine| engine.create(&asked)).unwrap();
    let saved = bench.make(
        r#"SELECT payload FROM "saved""#,
        &json!([{"name": "do_nothing"}]),
    );
    bench.publish("t", "no/+/topic");
    bench.publish("t", "topic");
    let report = bench.report(&id);
    assert_eq!((report.passed, report.exception), (2, 1));
    assert_eq!(
        (
            report.actions[0].failed,
            report.actions[0].fallbacks[0].success
        ),
        (1, 1)
    );
    assert_eq!(report.actions[1].taken, 1);
    assert_eq!(bench.report(&saved).matched, 1);
}

#[test]
fn the_router_is_heard_only_while_a_rule_listens_and_obeys() {
    let mut bench = Bench::new();
    assert!(!bench.feed.wants(EventKind::ConnectionOpened));
    let sql = r#"SELECT device, host FROM "$events/connection_opened" WHERE host = 'abroad.test'"#;
    let select = json!([{"name": "select_proxy", "params": {"group": "Exit", "proxy": "REJECT"}},
        {"name": "close_connections", "params": {"device": "${device}"}}]);
    let id = bench.make(sql, &select);
    assert!(bench.feed.wants(EventKind::ConnectionOpened));
    assert!(!bench.feed.wants(EventKind::ConnectionClosed));
    let mut opened = Occurrence {
        kind: EventKind::ConnectionOpened,
        time_ms: 5,
        data: vec![
            ("device", Datum::Address("192.168.1.9".parse().unwrap())),
            ("host", Datum::Text("abroad.test".into())),
        ],
    };
    let now = bench.now;
    bench.engine(|engine| engine.occurred(now, &opened, &mut Vec::new()));
    opened.data[1].1 = Datum::Text("home.test".into());
    bench.engine(|engine| engine.occurred(now, &opened, &mut Vec::new()));
    let acts = std::mem::take(&mut *bench.acts.0.lock().unwrap());
    let close = Act::CloseConnections {
        device: "192.168.1.9".to_owned(),
        host: String::new(),
    };
    let select = Act::SelectProxy {
        group: "Exit".to_owned(),
        proxy: "REJECT".to_owned(),
    };
    assert_eq!(acts, [select, close]);
    // A storm of connections does not become a storm of acts.
    opened.data[1].1 = Datum::Text("abroad.test".into());
    for _ in 0..1000 {
        bench.engine(|engine| engine.occurred(now, &opened, &mut Vec::new()));
    }
    assert!(bench.acts.0.lock().unwrap().len() < 10);
    assert!(bench.engine(|engine| engine.delete(&id)));
    assert!(!bench.feed.wants(EventKind::ConnectionOpened));
}

#[test]
fn rules_are_kept_with_their_ids_and_come_back() {
    let mut bench = Bench::new();
    let id = bench.make(
        r#"SELECT * FROM "$events/client_connected""#,
        &republish("in/${clientid}"),
    );
    let document = bench.engine(|engine| engine.document());
    let mut other = Bench::new();
    other.engine(|engine| engine.load(&document));
    let (before, after) = (bench.report(&id).definition, other.report(&id).definition);
    assert_eq!(before.to_json(), after.to_json());
    assert!(id.starts_with("rule:") && id.len() == 13);
    assert!(before.actions[0].id.starts_with("republish_"));
}

#[test]
fn what_is_no_rule_is_refused_with_its_place() {
    let mut bench = Bench::new();
    let cases = [
        (json!({"actions": []}), "rawsql is missing"),
        (
            json!({"rawsql": "SELECT * FROM \"t\""}),
            "actions is missing",
        ),
        (
            json!({"rawsql": "SELEC", "actions": []}),
            "rawsql: line 1, column 1: expected SELECT or FOREACH, found \"SELEC\"",
        ),
        (
            json!({"rawsql": "SELECT * FROM \"$events/nothing\"", "actions": []}),
            "there is no event $events/nothing",
        ),
        (
            json!({"rawsql": "SELECT * FROM \"t\"", "actions": [{"name": "fly"}]}),
            "Action fly Not Found",
        ),
        (
            json!({"rawsql": "SELECT * FROM \"t\"", "actions": [{"name": "select_proxy", "params": {"group": "x"}}]}),
            "proxy is missing",
        ),
        (
            json!({"rawsql": "SELECT * FROM \"t\"", "actions": [{"name": "set_mode", "params": {"mode": "fast"}}]}),
            "params.mode is not as it must be",
        ),
        (
            json!({"rawsql": "SELECT * FROM \"t\"", "actions": [{"name": "republish", "params": {"target_topic": "a", "target_qos": 3}}]}),
            "params.target_qos is not as it must be",
        ),
    ];
    for (asked, want) in cases {
        let asked = asked.as_object().unwrap().clone();
        let error = bench.engine(|engine| engine.create(&asked)).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn sql_can_be_tried_on_an_event_that_is_written_down() {
    let given = json!({"payload": "{\"x\":2}", "topic": "t/1"})
        .as_object()
        .unwrap()
        .clone();
    let rows = run_sample(
        r#"SELECT payload.x AS x, qos FROM "t/#" WHERE x = 2"#,
        &given,
        "n@h",
    )
    .unwrap();
    assert_eq!(rows, [json!({"x": 2, "qos": 1})]);
    assert_eq!(
        run_sample(r#"SELECT * FROM "u""#, &given, "n@h"),
        Err(NotSampled::NoMatch)
    );
    assert_eq!(
        run_sample(r#"SELECT * FROM "t/1" WHERE qos = 2"#, &given, "n@h"),
        Err(NotSampled::NoMatch)
    );
    assert!(matches!(
        run_sample("SELECT", &given, "n@h"),
        Err(NotSampled::Rule(_))
    ));
}
