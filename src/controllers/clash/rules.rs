//! `GET /rules`.

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};

/// The rules in order. `size` counts the records of geo databases, which no rule of ours has yet.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("rules").open_array();
    for line in context.control.tunnel().routing().rules.lines() {
        json.open_object().key("type").string(line.kind);
        json.key("payload").string(line.payload);
        json.key("proxy").string(line.target);
        json.key("size").plain(-1).close_object();
    }
    json.close_array().close_object();
    Response::json(json)
}
