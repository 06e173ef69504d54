//! `/resource_types` and `/resources` (emqx-api.md 2.9, 4.10).

use serde_json::{Map, Value, json};

use super::reply::{Failure, Outcome, answer, done};
use super::rules::{BAD, body, desk, shown};
use super::types::{params, words};
use crate::controllers::Context;
use crate::controllers::http::{Request, Response};
use crate::rule_engine::ResourceReport;
use crate::rule_engine::definition::BadRule;
use crate::rule_engine::resource_types::{RESOURCE_TYPES, ResourceType, resource_type};

fn type_view(found: &ResourceType) -> Value {
    json!({
        "name": found.name,
        "provider": found.provider,
        "params": params(found.params),
        "title": words(found.title),
        "description": words(found.description),
    })
}

fn not_found() -> Failure {
    Failure::new(Failure::NOT_FOUND, "Not Found")
}

/// `GET /resource_types`
pub(super) fn types(context: &Context, _: &Request<'_>) -> Response {
    answer(
        context,
        shown(&RESOURCE_TYPES.iter().map(type_view).collect()),
    )
}

/// `GET /resource_types/{name}`
pub(super) fn one_type(context: &Context, request: &Request<'_>) -> Response {
    let found = resource_type(request.parameter(0)).ok_or_else(not_found);
    answer(context, found.and_then(|found| shown(&type_view(found))))
}

/// `GET /resource_types/{name}/resources`
pub(super) fn of_type(context: &Context, request: &Request<'_>) -> Response {
    let of_type = || {
        let wanted = resource_type(request.parameter(0)).ok_or_else(not_found)?;
        list_where(context, |one| one.definition.kind == wanted.name)
    };
    answer(context, of_type())
}

/// `GET /resources`
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    answer(context, list_where(context, |_| true))
}

fn list_where(context: &Context, wanted: impl Fn(&ResourceReport) -> bool) -> Outcome {
    let reports = desk(context)?.ask(|engine, _| engine.resources(None))?;
    let views = reports
        .iter()
        .filter(|one| wanted(one))
        .map(|report| view(report, json!(report.alive)));
    shown(&views.collect())
}

fn view(report: &ResourceReport, status: Value) -> Value {
    let mut view = report.definition.to_json();
    if let Value::Object(members) = &mut view {
        members.insert("status".to_owned(), status);
    }
    view
}

fn find(context: &Context, id: &str) -> Result<ResourceReport, Failure> {
    let id = id.to_owned();
    let mut found = desk(context)?.ask(move |engine, _| engine.resources(Some(&id)))?;
    found.pop().ok_or_else(not_found)
}

/// `GET /resources/{id}`
pub(super) fn show(context: &Context, request: &Request<'_>) -> Response {
    let show = || {
        let report = find(context, request.parameter(0))?;
        let status = json!([{"node": *context.emqx.node, "is_alive": report.alive}]);
        shown(&view(&report, status))
    };
    answer(context, show())
}

/// `GET /resource_status/{id}`
pub(super) fn status(context: &Context, request: &Request<'_>) -> Response {
    let found = find(context, request.parameter(0));
    answer(
        context,
        found.and_then(|report| shown(&json!({"is_alive": report.alive}))),
    )
}

/// `POST /resources`, and with `test` the trial of one.
pub(super) fn create(context: &Context, request: &Request<'_>) -> Response {
    let make = || {
        let asked = body(request)?;
        let desk = desk(context)?;
        let tests = |value: &Value| *value == json!(true) || *value == json!("true");
        let mut query = request.query.get("test").into_iter();
        if query.any(|value| value == "true") || asked.get("test").is_some_and(tests) {
            desk.try_resource(&asked)?;
            return Ok(done());
        }
        let id = desk.change(move |engine, _| engine.create_resource(&asked))??;
        shown(&find(context, &id)?.definition.to_json())
    };
    answer(context, make())
}

/// `PUT /resources/{id}`
pub(super) fn update(context: &Context, request: &Request<'_>) -> Response {
    answer(
        context,
        body(request).and_then(|asked| change(context, request, asked)),
    )
}

/// `POST /resources/{id}`: starts it anew.
pub(super) fn restart(context: &Context, request: &Request<'_>) -> Response {
    answer(context, change(context, request, Map::new()))
}

fn change(context: &Context, request: &Request<'_>, asked: Map<String, Value>) -> Outcome {
    let id = request.parameter(0).to_owned();
    desk(context)?.change(move |engine, _| engine.update_resource(&id, &asked))??;
    Ok(done())
}

/// `DELETE /resources/{id}`; no error when there is none.
pub(super) fn delete(context: &Context, request: &Request<'_>) -> Response {
    let id = request.parameter(0).to_owned();
    let delete = || {
        let deleted = desk(context)?.change(move |engine, _| engine.delete_resource(&id))?;
        match deleted {
            Ok(()) => Ok(done()),
            Err(bad @ BadRule::InUse(_)) => Err(Failure::new(BAD, bad.to_string())),
            Err(bad) => Err(bad.into()),
        }
    };
    answer(context, delete())
}
