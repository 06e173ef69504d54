//! `GET /` and `GET /version`.

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};

/// Says hello in mihomo's words: clients take them as proof of a Clash API.
pub(super) fn hello(_: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object()
        .key("hello")
        .string("mihomo")
        .close_object();
    Response::json(json)
}

/// Dashboards read a core's kind out of the version: without one of the other names they know, they
/// take it for mihomo.
pub(super) fn version(_: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("meta").plain(true);
    json.key("version")
        .string(concat!("headgate ", env!("CARGO_PKG_VERSION")));
    json.close_object();
    Response::json(json)
}
