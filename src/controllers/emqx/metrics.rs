//! Counters and gauges (emqx-api.md 2.8, 3.2, 3.3).

use super::reply::{Outcome, answer, ask, data};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::broker::Broker;
use crate::rule_engine::Engine;

/// Writes the members of one node.
type Members = fn(&mut Json, &mut Broker);

/// `GET /metrics`.
pub fn metrics(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_all(context, "metrics", write_metrics))
}

/// `GET /nodes/{node}/metrics`.
pub fn metrics_here(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_one(context, write_metrics))
}

/// `GET /stats`.
pub fn stats(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_all(context, "stats", write_stats))
}

/// `GET /nodes/{node}/stats`.
pub fn stats_here(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_one(context, write_stats))
}

fn of_all(context: &Context, name: &'static str, write: Members) -> Outcome {
    let node = context.emqx.node.clone();
    ask(context, move |broker, _| {
        data(|json| {
            json.open_array().open_object();
            json.key("node").string(&node);
            json.key(name).open_object();
            write(json, broker);
            json.close_object().close_object().close_array();
        })
    })
}

fn of_one(context: &Context, write: Members) -> Outcome {
    ask(context, move |broker, _| {
        data(|json| {
            json.open_object();
            write(json, broker);
            json.close_object();
        })
    })
}

fn write_metrics(json: &mut Json, broker: &mut Broker) {
    for (name, count) in broker.metrics().named() {
        json.key(name).plain(count);
    }
    // Not counted but held, as EMQX 4.1 has it.
    let stats = broker.stats();
    json.key("messages.retained").plain(stats.retained.count);
    json.key("messages.delayed").plain(stats.delayed.count);
    let totals = broker.with_hook(|engine: &mut Engine| engine.totals());
    for (name, count) in totals.unwrap_or_default().named() {
        json.key(name).plain(count);
    }
}

fn write_stats(json: &mut Json, broker: &mut Broker) {
    for (name, gauge) in broker.stats().named() {
        json.key(&format!("{name}.count")).plain(gauge.count);
        json.key(&format!("{name}.max")).plain(gauge.max);
    }
    let totals = broker.with_hook(|engine: &mut Engine| engine.totals());
    for (name, [count, max]) in totals.unwrap_or_default().gauges() {
        json.key(&format!("{name}.count")).plain(count);
        json.key(&format!("{name}.max")).plain(max);
    }
}
