//! `GET /rules` and `PATCH /rules/disable` (clash-api.md 1.10).

use serde_json::{Map, Value};

use crate::calendar::rfc3339;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::platform::clock;
use crate::tunnel::tally::{Count, Record};

/// The rules in order, with what each has done. `size` counts the entries of categories of geodata.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("rules").open_array();
    let routing = context.control.tunnel().routing();
    let records = routing.tally.records(routing.rule_count());
    for (index, _, line) in routing.rules_in_force() {
        let Some(record) = records.get(index) else {
            break;
        };
        json.open_object().key("index").plain(index);
        json.key("type").string(line.kind);
        json.key("payload").string(line.payload);
        json.key("proxy").string(line.target);
        match routing.rule_size(index) {
            Some(size) => json.key("size").plain(size),
            None => json.key("size").plain(-1),
        };
        write_record(&mut json, record);
        json.close_object();
    }
    json.close_array().close_object();
    Response::json(json)
}

fn write_record(json: &mut Json, record: &Record) {
    // What never happened was in 1970, as mihomo has it (v1.19.30).
    let at = |count: &Count| rfc3339(count.last, clock::local_offset(count.last));
    json.key("extra").open_object();
    json.key("disabled").plain(record.off);
    json.key("hitCount").plain(record.hits.times);
    json.key("hitAt").string(&at(&record.hits));
    json.key("missCount").plain(record.misses.times);
    json.key("missAt").string(&at(&record.misses));
    json.close_object();
}

/// Switches rules off and on, until the next reload. Rules that are not there are passed over.
pub(super) fn disable(context: &Context, request: &Request<'_>) -> Response {
    let wanted: Option<Map<String, Value>> = serde_json::from_slice(request.body).ok();
    let wanted = wanted.and_then(|wanted| {
        let entries = wanted.iter();
        let switch = |(key, value): (&String, &Value)| Some((key.parse().ok()?, value.as_bool()?));
        entries.map(switch).collect::<Option<Vec<(usize, bool)>>>()
    });
    let Some(wanted) = wanted else {
        return Response::body_invalid();
    };
    context.control.switch_rules(&wanted);
    Response::no_content()
}
