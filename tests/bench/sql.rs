//! What SQL costs: nanoseconds for each message, of one rule without broker and actions; then of rules in a
//! broker without sockets, beyond what the broker itself needs; and what an engine without rules holds.
//!
//! `cargo bench --bench sql` (bars: the first, and one rule in the broker, at most 1500 ns; a hundred rules
//! on other topics nothing beyond; an idle engine at most 200 KB).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use headgate::mqtt::broker::Broker;
use headgate::mqtt::codec::{PropertyWriter, Qos};
use headgate::mqtt::hook::Publication;
use headgate::mqtt::options::Options;
use headgate::mqtt::remote::Remote;
use headgate::platform::memory;
use headgate::rule_engine::{Act, Engine, Feed, Router};
use headgate::sql::{Input, Program, Template};

mod message;
use message::{Message, Still};

const SMALL: &str = r#"{"temp":35,"hum":20.5}"#;
const LARGE: &str = r#"{"id":"0x00158d0001a2b3c4","linkquality":120,"battery":97,"voltage":3015,"state":"ON",
    "update":{"state":"idle","installed_version":16777241,"latest_version":16777241},"action":null,
    "history":[1,2,3,4,5,6,7,8,9,10,11,12],"device":{"friendlyName":"kitchen","model":"WSDCGQ11LM"},"temp":21.5}"#;

fn main() {
    let cases = [
        (
            "the bar",
            r#"SELECT payload.temp AS t FROM "t/#" WHERE t > 30"#,
            SMALL,
        ),
        (
            "one field of 350 bytes",
            r#"SELECT payload.temp AS t FROM "t/#" WHERE t > 20"#,
            LARGE,
        ),
        (
            "columns only",
            r#"SELECT clientid, topic FROM "t/#" WHERE qos = 0"#,
            SMALL,
        ),
        (
            "a dozen operations",
            r#"SELECT payload.temp * 9 / 5 + 32 AS f, upper(clientid) AS id, CASE WHEN f > 90 THEN 'hot' ELSE 'mild' END AS s FROM "t/#" WHERE payload.hum > 10 AND topic =~ 't/+/1'"#,
            SMALL,
        ),
        (
            "a row for each of twelve",
            r#"FOREACH payload.history AS h DO h * 2 AS x, clientid INCASE h > 0 FROM "t/#""#,
            LARGE,
        ),
    ];
    let still = Still::default();
    let template = Template::new("{\"v\":${t}}");
    for (name, sql, payload) in cases {
        let program = Program::parse(sql).unwrap();
        let once = || {
            let message = Message(black_box(payload));
            let input = Input {
                event: &message,
                surroundings: &still,
                rule: "rule:1",
            };
            for row in program.run(input).unwrap() {
                black_box(template.render(&row, 1024).unwrap());
            }
        };
        let times = 200_000;
        let best = (0..5).map(|_| {
            let start = Instant::now();
            (0..times).for_each(|_| once());
            start.elapsed().as_nanos() as f64 / f64::from(times)
        });
        println!("{:8.0} ns  {name}", best.fold(f64::INFINITY, f64::min));
    }
    in_a_broker();
    println!("{:8} B   an engine without rules", idle());
}

struct Nobody;

impl Router for Nobody {
    fn act(&self, _: Act) -> bool {
        false
    }
}

fn engine() -> Engine {
    Engine::new(
        Feed::new(Remote::default(), "bench@127.0.0.1"),
        Arc::new(Nobody),
    )
}

/// A broker whose rules have these filters.
fn broker(filters: &[String]) -> Broker {
    let mut broker = Broker::new(&Options::default());
    if filters.is_empty() {
        return broker;
    }
    let mut engine = engine();
    for filter in filters {
        let sql = format!("SELECT payload.temp AS t FROM \"{filter}\" WHERE t > 30");
        let asked = serde_json::json!({"rawsql": sql, "actions": [{"name": "do_nothing"}]});
        engine.create(asked.as_object().unwrap()).unwrap();
    }
    broker.set_hook(Box::new(engine));
    broker
}

fn in_a_broker() {
    let message = Publication {
        topic: "t/42/x".into(),
        payload: SMALL.as_bytes().into(),
        properties: PropertyWriter::default(),
        qos: Qos::AtMostOnce,
        retain: false,
        client_id: "bench".into(),
    };
    let hundred = |kind: &str| {
        (0..100)
            .map(|n| format!("{kind}/{n}/#"))
            .collect::<Vec<_>>()
    };
    let mut alone = 0.0;
    for (name, filters) in [
        ("the broker alone", vec![]),
        ("one rule in it", vec!["t/#".to_owned()]),
        ("a hundred rules, one of which matches", hundred("t")),
        ("a hundred rules, none of which matches", hundred("u")),
    ] {
        let mut broker = broker(&filters);
        let times = 100_000;
        let best = (0..5).map(|_| {
            let start = Instant::now();
            for now in 0..times {
                broker.publish_for(now, black_box(&message));
            }
            start.elapsed().as_nanos() as f64 / times as f64
        });
        let best = best.fold(f64::INFINITY, f64::min);
        if filters.is_empty() {
            alone = best;
        }
        println!("{best:8.0} ns  {name} ({:+.0})", best - alone);
    }
}

/// Bytes that an engine without rules holds: what a thousand of them add to the process.
fn idle() -> u64 {
    let before = memory::resident();
    let many: Vec<Engine> = (0..1000).map(|_| engine()).collect();
    let after = memory::resident();
    black_box(&many);
    after.saturating_sub(before) / 1000
}
