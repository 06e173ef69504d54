//! `/proxies` and `/group`: outbounds and groups, and a group's choice.

use std::sync::Arc;

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::outbound::{Kind, Outbound};

/// Every outbound by name.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("proxies").open_object();
    for outbound in context.control.tunnel().routing().outbounds.iter() {
        json.key(outbound.name());
        write_outbound(&mut json, &**outbound);
    }
    json.close_object().close_object();
    Response::json(json)
}

/// One outbound.
pub(super) fn show(context: &Context, request: &Request<'_>) -> Response {
    find(context, request).map_or_else(Response::resource_not_found, |found| one(&*found))
}

/// Every group, as an array.
pub(super) fn groups(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("proxies").open_array();
    for outbound in context.control.tunnel().routing().outbounds.iter() {
        if is_group(&**outbound) {
            write_outbound(&mut json, &**outbound);
        }
    }
    json.close_array().close_object();
    Response::json(json)
}

/// One group.
pub(super) fn group(context: &Context, request: &Request<'_>) -> Response {
    let found = find(context, request).filter(|found| is_group(&**found));
    found.map_or_else(Response::resource_not_found, |found| one(&*found))
}

/// Chooses in a selector: body `{"name": member}`. Open connections keep their way.
pub(super) fn select(context: &Context, request: &Request<'_>) -> Response {
    let Some(group) = find(context, request) else {
        return Response::resource_not_found();
    };
    let object = request.object();
    let member = object.as_ref().map(|object| object.string("name"));
    let Some(Ok(member)) = member else {
        return Response::body_invalid();
    };
    if group.kind() != Kind::Selector {
        return Response::error(400, "Must be a Selector");
    }
    if context.control.select(&group, member.unwrap_or_default()) {
        Response::no_content()
    } else {
        Response::error(400, "Selector update error: proxy not exist")
    }
}

/// Ends the pin of an automatic group; a selector and a node have none.
pub(super) fn unpin(context: &Context, request: &Request<'_>) -> Response {
    find(context, request).map_or_else(Response::resource_not_found, |_| Response::body_invalid())
}

fn find(context: &Context, request: &Request<'_>) -> Option<Arc<dyn Outbound>> {
    let routing = context.control.tunnel().routing();
    routing.outbounds.get(request.parameter(0)).cloned()
}

fn one(outbound: &dyn Outbound) -> Response {
    let mut json = Json::new();
    write_outbound(&mut json, outbound);
    Response::json(json)
}

/// Whether it names another outbound rather than being one.
pub(super) fn is_group(outbound: &dyn Outbound) -> bool {
    outbound.kind() == Kind::Selector
}

/// The object of clash-api.md 1.8. Nothing has been tested yet, which counts as alive.
pub(super) fn write_outbound(json: &mut Json, outbound: &dyn Outbound) {
    let traits = outbound.traits();
    json.open_object();
    json.key("alive").plain(true);
    if is_group(outbound) {
        let (hidden, icon) = outbound.appearance();
        json.key("all").strings(outbound.members());
        json.key("hidden").plain(hidden).key("icon").string(icon);
        let chosen = outbound.selected(None);
        json.key("now")
            .string(chosen.as_ref().map_or("", |chosen| chosen.name()));
    } else {
        json.key("id").string("");
    }
    json.key("dialer-proxy")
        .string(traits.dialer.as_deref().unwrap_or_default());
    json.key("extra").open_object().close_object();
    json.key("history").open_array().close_array();
    json.key("interface")
        .string(traits.interface.as_deref().unwrap_or_default());
    json.key("mptcp").plain(false);
    json.key("name").string(outbound.name());
    json.key("provider-name").string("");
    json.key("routing-mark").plain(traits.mark);
    json.key("smux").plain(false);
    json.key("tfo").plain(traits.fast_open);
    json.key("type").string(outbound.kind().as_str());
    json.key("udp").plain(outbound.udp());
    json.key("uot").plain(false).key("xudp").plain(false);
    json.close_object();
}
