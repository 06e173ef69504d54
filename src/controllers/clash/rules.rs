//! `GET /rules`.

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};

/// The rules in order. `size` counts the entries of categories of geodata.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("rules").open_array();
    let routing = context.control.tunnel().routing();
    for (index, line) in routing.rules.lines().enumerate() {
        json.open_object().key("type").string(line.kind);
        json.key("payload").string(line.payload);
        json.key("proxy").string(line.target);
        match routing.rules.size(index) {
            Some(size) => json.key("size").plain(size),
            None => json.key("size").plain(-1),
        };
        json.close_object();
    }
    json.close_array().close_object();
    Response::json(json)
}
