//! What is wrong now, and what was (emqx-api.md 2.10).

use serde_json::Value;

use super::reply::{Failure, Outcome, answer, ask, body, data, done};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::alarms::{Alarm, Alarms};

/// Writes some of the alarms; the time in microseconds.
type Members = fn(&mut Json, &Alarms, u64);

fn all(json: &mut Json, alarms: &Alarms, now: u64) {
    active(json, alarms, now);
    past(json, alarms, now);
}

fn active(json: &mut Json, alarms: &Alarms, now: u64) {
    alarms.active().for_each(|alarm| write(json, alarm, now));
}

fn past(json: &mut Json, alarms: &Alarms, now: u64) {
    alarms.past().for_each(|alarm| write(json, alarm, now));
}

fn write(json: &mut Json, alarm: &Alarm, now: u64) {
    let until = alarm.until.unwrap_or(now);
    json.open_object().key("name").string(&alarm.name);
    json.key("message").string(&alarm.message);
    json.key("details").plain(&alarm.details);
    json.key("activate_at").plain(alarm.since);
    match alarm.until {
        Some(until) => json.key("deactivate_at").plain(until),
        None => json.key("deactivate_at").string("infinity"),
    };
    json.key("activated").plain(alarm.until.is_none());
    json.key("duration")
        .plain(until.saturating_sub(alarm.since));
    json.close_object();
}

fn listed(context: &Context, write: Members) -> Outcome {
    let node = context.emqx.node.clone();
    ask(context, move |broker, now| {
        data(|json| {
            json.open_array().open_object();
            json.key("node").string(&node).key("alarms").open_array();
            write(json, broker.alarms(), broker.unix_ms(now) * 1000);
            json.close_array().close_object().close_array();
        })
    })
}

fn of_node(context: &Context, write: Members) -> Outcome {
    ask(context, move |broker, now| {
        data(|json| {
            json.open_array();
            write(json, broker.alarms(), broker.unix_ms(now) * 1000);
            json.close_array();
        })
    })
}

/// `GET /alarms`.
pub fn list(context: &Context, _: &Request<'_>) -> Response {
    answer(context, listed(context, all))
}

/// `GET /alarms/activated`.
pub fn list_active(context: &Context, _: &Request<'_>) -> Response {
    answer(context, listed(context, active))
}

/// `GET /alarms/deactivated`.
pub fn list_past(context: &Context, _: &Request<'_>) -> Response {
    answer(context, listed(context, past))
}

/// `GET /nodes/{node}/alarms`.
pub fn all_here(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_node(context, all))
}

/// `GET /nodes/{node}/alarms/activated`.
pub fn active_here(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_node(context, active))
}

/// `GET /nodes/{node}/alarms/deactivated`.
pub fn past_here(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_node(context, past))
}

/// `POST /alarms/deactivated`: `{"name":…}` ends one.
pub fn deactivate(context: &Context, request: &Request<'_>) -> Response {
    answer(context, lower(context, request))
}

fn lower(context: &Context, request: &Request<'_>) -> Outcome {
    let item = body(request)?;
    let name = item.get("name").and_then(Value::as_str).map(str::to_owned);
    let missing = || Failure::new(Failure::MISSING, "missing mandatory params: ['name']");
    let name = name.ok_or_else(missing)?;
    match ask(context, move |broker, now| broker.lower_alarm(now, &name))? {
        true => Ok(done()),
        false => Err(Failure::new(Failure::NOT_FOUND, "not_found")),
    }
}

/// `DELETE /alarms/deactivated`: forgets those that are over.
pub fn forget(context: &Context, _: &Request<'_>) -> Response {
    let forgotten = ask(context, |broker, _| broker.forget_alarms());
    answer(context, forgotten.map(|()| done()))
}
