//! `/proxies` and `/group`: outbounds and groups, and a group's choice.

use std::sync::Arc;

use crate::calendar::rfc3339;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::outbound::group::Member;
use crate::outbound::health::Tested;
use crate::outbound::registry::Registry;
use crate::outbound::{Kind, Outbound};
use crate::platform::clock;

/// Every outbound by name.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("proxies").open_object();
    for member in context.control.tunnel().routing().outbounds.members() {
        json.key(member.outbound.name());
        write_outbound(&mut json, member);
    }
    json.close_object().close_object();
    Response::json(json)
}

/// One outbound.
pub(super) fn show(context: &Context, request: &Request<'_>) -> Response {
    let outbounds = outbounds(context);
    let found = outbounds.member(request.parameter(0));
    found.map_or_else(Response::resource_not_found, one)
}

/// Every group, as an array.
pub(super) fn groups(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("proxies").open_array();
    for member in context.control.tunnel().routing().outbounds.members() {
        if is_group(&*member.outbound) {
            write_outbound(&mut json, member);
        }
    }
    json.close_array().close_object();
    Response::json(json)
}

/// One group.
pub(super) fn group(context: &Context, request: &Request<'_>) -> Response {
    let outbounds = outbounds(context);
    let found = outbounds.member(request.parameter(0));
    let found = found.filter(|member| is_group(&*member.outbound));
    found.map_or_else(Response::resource_not_found, one)
}

/// Chooses in a selector, or pins a member of a group that chooses by tests: body `{"name": member}`.
/// Open connections keep their way.
pub(super) fn select(context: &Context, request: &Request<'_>) -> Response {
    let Some(group) = find(context, request) else {
        return Response::resource_not_found();
    };
    let object = request.object();
    let member = object.as_ref().map(|object| object.string("name"));
    let Some(Ok(member)) = member else {
        return Response::body_invalid();
    };
    if !matches!(
        group.kind(),
        Kind::Selector | Kind::UrlTest | Kind::Fallback
    ) {
        return Response::error(400, "Must be a Selector");
    }
    if context.control.select(&group, member.unwrap_or_default()) {
        Response::no_content()
    } else {
        Response::error(400, "Selector update error: proxy not exist")
    }
}

/// Ends the pin of a group that chooses by tests; others have none.
pub(super) fn unpin(context: &Context, request: &Request<'_>) -> Response {
    match find(context, request) {
        None => Response::resource_not_found(),
        Some(group) if context.control.unpin(&group) => Response::no_content(),
        Some(_) => Response::body_invalid(),
    }
}

fn outbounds(context: &Context) -> Arc<Registry> {
    Arc::clone(&context.control.tunnel().routing().outbounds)
}

fn find(context: &Context, request: &Request<'_>) -> Option<Arc<dyn Outbound>> {
    outbounds(context).get(request.parameter(0)).cloned()
}

/// The answer about one outbound.
pub(super) fn one(member: &Member) -> Response {
    let mut json = Json::new();
    write_outbound(&mut json, member);
    Response::json(json)
}

/// Whether it names another outbound rather than being one.
pub(super) fn is_group(outbound: &dyn Outbound) -> bool {
    outbound.kind().is_group()
}

/// The object of clash-api.md 1.8.
pub(super) fn write_outbound(json: &mut Json, member: &Member) {
    write_provided(json, member, "");
}

/// The same of a node that `provider` brought.
pub(super) fn write_provided(json: &mut Json, member: &Member, provider: &str) {
    let outbound = &*member.outbound;
    let (traits, health) = (outbound.traits(), member.health.view());
    json.open_object();
    json.key("alive").plain(health.alive);
    if is_group(outbound) {
        write_group(json, outbound);
    } else {
        json.key("id").string("");
    }
    json.key("dialer-proxy")
        .string(traits.dialer.as_deref().unwrap_or_default());
    json.key("extra").open_object();
    for entry in &health.urls {
        json.key(&entry.url).open_object();
        json.key("alive").plain(entry.alive);
        write_history(json, &entry.history);
        json.close_object();
    }
    json.close_object();
    write_history(json, &health.history);
    json.key("interface")
        .string(traits.interface.as_deref().unwrap_or_default());
    json.key("mptcp").plain(false);
    json.key("name").string(outbound.name());
    json.key("provider-name").string(provider);
    json.key("routing-mark").plain(traits.mark);
    json.key("smux").plain(false);
    json.key("tfo").plain(traits.fast_open);
    json.key("type").string(outbound.kind().as_str());
    json.key("udp").plain(outbound.udp());
    json.key("uot").plain(false).key("xudp").plain(false);
    json.close_object();
}

/// What only a group has; which group has what differs.
fn write_group(json: &mut Json, group: &dyn Outbound) {
    let (hidden, icon) = group.appearance();
    json.key("all").strings(group.members());
    json.key("hidden").plain(hidden).key("icon").string(icon);
    if !matches!(group.kind(), Kind::LoadBalance | Kind::Relay) {
        let chosen = group.selected(None);
        let chosen = chosen.as_ref().map_or("", |chosen| chosen.name());
        json.key("now").string(chosen);
    }
    let testing = group.testing();
    let tested = !matches!(group.kind(), Kind::Selector | Kind::Relay);
    if let Some(testing) = testing.filter(|_| tested) {
        json.key("testUrl").string(&testing.url);
        json.key("expectedStatus").string(&testing.expected);
        if group.kind() != Kind::LoadBalance {
            let fixed = testing.fixed.as_deref();
            json.key("fixed").string(fixed.unwrap_or_default());
        }
    }
}

fn write_history(json: &mut Json, history: &[Tested]) {
    json.key("history").open_array();
    for tested in history {
        let offset = clock::local_offset(tested.time);
        json.open_object();
        json.key("time").quoted(rfc3339(tested.time, offset));
        json.key("delay").plain(tested.delay).close_object();
    }
    json.close_array();
}
