//! `/actions` and `/rule_events`: what rules can be made of (emqx-api.md 2.9).

use serde_json::{Map, Value, json};

use super::reply::{Failure, answer, data};
use crate::controllers::Context;
use crate::controllers::http::{Request, Response};
use crate::rule_engine::EVENTS;
use crate::rule_engine::catalogue::{ACTION_TYPES, ActionType, Param, Words, action_type};

/// `GET /actions`
pub(super) fn actions(context: &Context, _: &Request<'_>) -> Response {
    let all: Value = ACTION_TYPES.iter().map(view).collect();
    answer(
        context,
        Ok(data(|json| {
            json.plain(&all);
        })),
    )
}

/// `GET /actions/{name}`
pub(super) fn action(context: &Context, request: &Request<'_>) -> Response {
    let found = action_type(request.parameter(0)).map(view);
    let found = found.ok_or_else(|| Failure::new(Failure::NOT_FOUND, "Not Found"));
    let shown = found.map(|found| {
        data(|json| {
            json.plain(&found);
        })
    });
    answer(context, shown)
}

/// `GET /rule_events`
pub(super) fn events(context: &Context, _: &Request<'_>) -> Response {
    let events = EVENTS.iter().map(|event| {
        json!({
            "event": event.topic,
            "title": words(event.title),
            "description": words(event.title),
            "columns": event.columns,
            "test_columns": {},
            "sql_example": format!("SELECT * FROM \"{}\"", event.topic),
        })
    });
    let events: Value = events.collect();
    answer(
        context,
        Ok(data(|json| {
            json.plain(&events);
        })),
    )
}

pub(super) fn words((en, zh): Words) -> Value {
    json!({"en": en, "zh": zh})
}

fn view(action: &ActionType) -> Value {
    json!({
        "name": action.name,
        "app": action.app,
        "for": "$any",
        "types": action.types,
        "category": action.category,
        "params": params(action.params),
        "title": words(action.title),
        "description": words(action.description),
    })
}

pub(super) fn params(params: &[Param]) -> Value {
    let mut shown = Map::new();
    for (order, param) in (1..).zip(params) {
        let mut entry = json!({
            "type": param.kind,
            "required": param.required,
            "order": order,
            "title": words(param.title),
            "description": words(param.description),
        });
        let default = param.default.map(serde_json::from_str::<Value>);
        let choices = (!param.choices.is_empty()).then(|| json!(param.choices));
        if let Value::Object(entry) = &mut entry {
            entry.extend(
                default
                    .and_then(Result::ok)
                    .map(|value| ("default".to_owned(), value)),
            );
            entry.extend(choices.map(|value| ("enum".to_owned(), value)));
            let format = param
                .format
                .map(|value| ("format".to_owned(), json!(value)));
            entry.extend(format);
            // The document's headers have one, of no members.
            let schema = (param.kind == "object").then(|| ("schema".to_owned(), json!({})));
            entry.extend(schema);
            entry.extend(param.long.then(|| ("input".to_owned(), json!("textarea"))));
        }
        shown.insert(param.name.to_owned(), entry);
    }
    Value::Object(shown)
}
