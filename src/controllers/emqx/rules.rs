//! `/rules`: made, shown, changed, tried out (emqx-api.md 2.9).

use serde_json::{Map, Value, json};

use super::reply::{Failure, Outcome, answer, data, done};
use crate::controllers::Context;
use crate::controllers::http::{Request, Response};
use crate::rule_engine::definition::{ActionDefinition, BadRule};
use crate::rule_engine::{ActionReport, Desk, DeskError, NotSampled, RuleReport, run_sample};

/// Bytes of a rule with its actions.
pub(super) const BODY_BYTES_MAX: usize = 128 * 1024;

/// EMQX's code of rules that cannot be made.
pub(super) const BAD: u16 = 400;

pub(super) fn desk(context: &Context) -> Result<&Desk, Failure> {
    let none = || Failure::new(Failure::RPC, "the broker does not run");
    context.control.rules().ok_or_else(none)
}

pub(super) fn body(request: &Request<'_>) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice(request.body) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Failure::new(
            Failure::NOT_JSON,
            "the body is no JSON object",
        )),
    }
}

impl From<DeskError> for Failure {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Broker(why) => why.into(),
            DeskError::Kept(_) => Self::new(Self::UNKNOWN, error.to_string()),
        }
    }
}

impl From<BadRule> for Failure {
    fn from(bad: BadRule) -> Self {
        match bad {
            BadRule::Action(_)
            | BadRule::Exists
            | BadRule::Resource(_)
            | BadRule::ResourceType(_)
            | BadRule::InUse(_) => Self::new(BAD, bad.to_string()),
            // EMQX's 500 in JSON; the status says that the request was not at fault.
            BadRule::Dead(_) => Self::new(Self::INTERNAL, bad.to_string()),
            _ => Self::new(BAD, format!("Bad Arguments: {bad}")),
        }
    }
}

pub(super) fn shown(value: &Value) -> Outcome {
    Ok(data(|json| {
        json.plain(value);
    }))
}

/// `GET /rules`
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let all = || {
        let reports = desk(context)?.ask(|engine, now| engine.reports(now, None))?;
        let views = reports.iter().map(|one| view(one, &context.emqx.node));
        shown(&views.collect())
    };
    answer(context, all())
}

/// `GET /rules/{id}`
pub(super) fn show(context: &Context, request: &Request<'_>) -> Response {
    answer(context, show_one(context, request.parameter(0)))
}

fn show_one(context: &Context, id: &str) -> Outcome {
    let id = id.to_owned();
    let reports = desk(context)?.ask(move |engine, now| engine.reports(now, Some(&id)))?;
    match reports.first() {
        Some(report) => shown(&view(report, &context.emqx.node)),
        None => Err(Failure::new(Failure::NOT_FOUND, "Not Found")),
    }
}

/// `POST /rules`, and with `test` the trial of its SQL.
pub(super) fn create(context: &Context, request: &Request<'_>) -> Response {
    let make = || {
        let asked = body(request)?;
        let tests = |value: &Value| *value == json!(true) || *value == json!("true");
        let queried = request
            .query
            .get("test")
            .is_some_and(|value| value == "true");
        if queried || asked.get("test").is_some_and(tests) {
            return sample(&asked, &context.emqx.node);
        }
        let id = desk(context)?.change(move |engine, _| engine.create(&asked))??;
        show_one(context, &id)
    };
    answer(context, make())
}

fn sample(asked: &Map<String, Value>, node: &str) -> Outcome {
    let sql = asked.get("rawsql").and_then(Value::as_str);
    let sql = sql.ok_or(BadRule::Missing("rawsql"))?;
    let nothing = Map::new();
    let given = asked.get("ctx").and_then(Value::as_object);
    match run_sample(sql, given.unwrap_or(&nothing), node) {
        Ok(rows) => match &*rows {
            [row] => shown(row),
            _ => shown(&Value::Array(rows)),
        },
        Err(NotSampled::NoMatch) => Err(Failure::new(Failure::NOT_FOUND, "SQL Not Match")),
        Err(wrong) => Err(Failure::new(BAD, format!("Bad Arguments: {wrong}"))),
    }
}

/// `PUT /rules/{id}`
pub(super) fn update(context: &Context, request: &Request<'_>) -> Response {
    let change = || {
        let (asked, id) = (body(request)?, request.parameter(0).to_owned());
        match desk(context)?.change(move |engine, _| engine.update(&id, &asked))? {
            Some(changed) => changed?,
            None => {
                let message = format!("Rule {} Not Found", request.parameter(0));
                return Err(Failure::new(Failure::NOT_FOUND, message));
            }
        }
        show_one(context, request.parameter(0))
    };
    answer(context, change())
}

/// `DELETE /rules/{id}`; no error when there is none.
pub(super) fn delete(context: &Context, request: &Request<'_>) -> Response {
    let id = request.parameter(0).to_owned();
    let delete = || {
        desk(context)?.change(move |engine, _| engine.delete(&id))?;
        Ok(done())
    };
    answer(context, delete())
}

/// `PUT /rules/{id}/reset_metrics`
pub(super) fn reset(context: &Context, request: &Request<'_>) -> Response {
    let id = request.parameter(0).to_owned();
    let reset = || match desk(context)?.ask(move |engine, _| engine.reset(&id))? {
        true => Ok(done()),
        false => Err(Failure::new(Failure::NOT_FOUND, "Not Found")),
    };
    answer(context, reset())
}

fn view(report: &RuleReport, node: &str) -> Value {
    let definition = &report.definition;
    let actions = definition.actions.iter().zip(&report.actions);
    json!({
        "id": *definition.id,
        "rawsql": *definition.sql,
        "for": report.from,
        "enabled": definition.enabled,
        "description": *definition.description,
        "on_action_failed": definition.on_failure.as_str(),
        "created_at": definition.created_ms,
        "metrics": [{
            "node": node,
            "matched": report.matched,
            "passed": report.passed,
            "failed": report.no_result + report.exception,
            "exception": report.exception,
            "no_result": report.no_result,
            "speed": report.speeds.now,
            "speed_max": greatest(report.speeds.max),
            "speed_last5m": report.speeds.last5m,
        }],
        "actions": actions.map(|one| action_view(one, node)).collect::<Vec<_>>(),
    })
}

/// EMQX begins with the integer and goes on with decimals.
fn greatest(speed: f64) -> Value {
    match speed > 0.0 {
        true => json!(speed),
        false => json!(0),
    }
}

fn action_view((definition, report): (&ActionDefinition, &ActionReport), node: &str) -> Value {
    let fallbacks = definition.fallbacks.iter().zip(&report.fallbacks);
    json!({
        "id": *definition.id,
        "name": definition.name,
        "params": definition.params,
        "fallbacks": fallbacks.map(|one| action_view(one, node)).collect::<Vec<_>>(),
        "metrics": [{
            "node": node,
            "taken": report.taken,
            "success": report.success,
            "failed": report.failed,
        }],
    })
}
