//! `/providers/proxies` and `/providers/rules`.
//!
//! Beside the providers of the configuration mihomo shows what the file itself lists as providers of
//! vehicle `Compatible`: `default` with every outbound, and one per group with its members. Dashboards
//! read a group's members there.

use std::sync::Arc;
use std::time::Duration;

use super::proxies::{is_group, one, write_outbound, write_provided};
use crate::calendar::rfc3339;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::outbound::group::{Member, Testing};
use crate::outbound::registry::Registry;
use crate::outbound::{Kind, Outbound};
use crate::platform::clock;
use crate::provider::options::Source;
use crate::provider::proxy::ProxyProvider;
use crate::provider::rule::RuleProvider;
use crate::rules::set::Behavior;

/// The provider of everything that the file lists.
const DEFAULT: &str = "default";

/// Go's zero time: nothing was loaded yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The pseudo providers, and the real ones.
pub(super) fn proxies(context: &Context, _: &Request<'_>) -> Response {
    let routing = context.control.tunnel().routing();
    let outbounds = &routing.outbounds;
    let mut json = Json::new();
    json.open_object().key("providers").open_object();
    json.key(DEFAULT);
    write_provider(&mut json, outbounds, DEFAULT);
    for group in outbounds.iter().filter(|o| is_group(&***o)) {
        json.key(group.name());
        write_provider(&mut json, outbounds, group.name());
    }
    for provider in context.control.proxy_providers().iter() {
        json.key(provider.name());
        write_real_provider(&mut json, outbounds, provider);
    }
    json.close_object().close_object();
    Response::json(json)
}

/// One provider.
pub(super) fn provider(context: &Context, request: &Request<'_>) -> Response {
    let routing = context.control.tunnel().routing();
    let name = request.parameter(0);
    if let Some(provider) = find_real(context, name) {
        let mut json = Json::new();
        write_real_provider(&mut json, &routing.outbounds, &provider);
        return Response::json(json);
    }
    if !is_provider(&routing.outbounds, name) {
        return Response::resource_not_found();
    }
    let mut json = Json::new();
    write_provider(&mut json, &routing.outbounds, name);
    Response::json(json)
}

/// Fetches a provider's nodes and puts them in force. There is nothing to fetch for what the file
/// lists.
pub(super) fn update(context: &Context, request: &Request<'_>) -> Response {
    let name = request.parameter(0);
    if let Some(provider) = find_real(context, name) {
        return match context.control.refresh_nodes(&provider) {
            Ok(()) => Response::no_content(),
            Err(why) => Response::error(503, &why.to_string()),
        };
    }
    if is_provider(&context.control.tunnel().routing().outbounds, name) {
        Response::no_content()
    } else {
        Response::resource_not_found()
    }
}

fn find_real(context: &Context, name: &str) -> Option<Arc<ProxyProvider>> {
    let providers = context.control.proxy_providers();
    providers.iter().find(|known| known.name() == name).cloned()
}

/// One member of a provider.
pub(super) fn member(context: &Context, request: &Request<'_>) -> Response {
    let routing = context.control.tunnel().routing();
    find_member(&routing.outbounds, request).map_or_else(Response::resource_not_found, one)
}

/// Every rule provider by name (clash-api.md 1.10).
pub(super) fn rules(context: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("providers").open_object();
    for provider in context.control.rule_providers().iter() {
        write_rule_provider(&mut json, provider);
    }
    json.close_object().close_object();
    Response::json(json)
}

/// Whether there is a provider of that name.
pub(super) fn is_provider(outbounds: &Registry, name: &str) -> bool {
    name == DEFAULT
        || outbounds.provider(name).is_some()
        || outbounds.get(name).is_some_and(|found| is_group(&**found))
}

/// The member that the request's two parameters name: a provider, and an outbound in it.
pub(super) fn find_member<'a>(
    outbounds: &'a Registry,
    request: &Request<'_>,
) -> Option<&'a Member> {
    let (provider, name) = (request.parameter(0), request.parameter(1));
    let members = members(outbounds, provider);
    members
        .into_iter()
        .find(|member| **member.outbound.name() == *name)
}

fn members<'a>(outbounds: &'a Registry, provider: &str) -> Vec<&'a Member> {
    if provider == DEFAULT {
        let listed = outbounds.members().filter(|m| is_listed(&*m.outbound));
        return listed
            .filter(|m| !outbounds.is_provided(m.outbound.name()))
            .collect();
    }
    if let Some(real) = outbounds.provider(provider) {
        return real.members.iter().collect();
    }
    let group = outbounds.group(provider);
    group.map_or_else(
        || {
            // GLOBAL as it is made when the file has none.
            let group = outbounds.get(provider).filter(|found| is_group(&***found));
            let names = group.map(|group| group.members()).unwrap_or_default();
            let found = names.iter().filter_map(|name| outbounds.member(name));
            found.collect()
        },
        |group| group.member_list().iter().collect(),
    )
}

fn write_real_provider(json: &mut Json, outbounds: &Registry, provider: &ProxyProvider) {
    let options = provider.options();
    json.open_object();
    json.key("expectedStatus")
        .quoted(&options.test.expected)
        .key("name")
        .string(provider.name());
    json.key("proxies").open_array();
    for member in members(outbounds, provider.name()) {
        write_provided(json, member, provider.name());
    }
    json.close_array();
    if let Some(quota) = provider.quota() {
        json.key("subscriptionInfo").open_object();
        json.key("Upload").plain(quota.upload);
        json.key("Download").plain(quota.download);
        json.key("Total").plain(quota.total);
        json.key("Expire").plain(quota.expire).close_object();
    }
    json.key("testUrl").string(&options.test.url);
    json.key("type").string("Proxy");
    json.key("updatedAt").string(&written(provider.updated()));
    json.key("vehicleType").string(options.source.vehicle());
    json.close_object();
}

/// When something was loaded, as Go writes it.
fn written(time: Option<Duration>) -> String {
    time.map_or_else(
        || NEVER.to_owned(),
        |time| rfc3339(time, clock::local_offset(time)),
    )
}

/// Loads a rule provider anew.
pub(super) fn refresh(context: &Context, request: &Request<'_>) -> Response {
    let providers = context.control.rule_providers();
    let name = request.parameter(0);
    let Some(provider) = providers.iter().find(|provider| provider.name() == name) else {
        return Response::resource_not_found();
    };
    match context.control.refresh_provider(provider) {
        Ok(()) => Response::no_content(),
        Err(why) => Response::error(503, &why.to_string()),
    }
}

fn write_rule_provider(json: &mut Json, provider: &RuleProvider) {
    let options = provider.options();
    let behavior = match options.set.behavior() {
        Behavior::Domain => "Domain",
        Behavior::IpCidr => "IPCIDR",
        Behavior::Classical => "Classical",
    };
    let inline = match &options.source {
        Source::Inline(entries) => Some(entries),
        Source::File(_) | Source::Http(_) => None,
    };
    let format = inline.map_or(options.format.as_str(), |_| "");
    let count = options.set.loaded().map_or(0, |set| set.entries());
    json.key(provider.name()).open_object();
    json.key("behavior").string(behavior);
    json.key("format").string(format);
    json.key("name").string(provider.name());
    if let Some(entries) = inline {
        json.key("payload").strings(entries.iter());
    }
    json.key("ruleCount").plain(count);
    json.key("type").string("Rule");
    json.key("updatedAt").string(&written(provider.updated()));
    json.key("vehicleType").string(options.source.vehicle());
    json.close_object();
}

/// DIRECT, REJECT and what the file names; not the other built-ins, nor GLOBAL made of all.
fn is_listed(outbound: &dyn Outbound) -> bool {
    let built_in = matches!(
        outbound.kind(),
        Kind::RejectDrop | Kind::Pass | Kind::Compatible | Kind::Inward
    );
    !built_in && &**outbound.name() != "GLOBAL"
}

fn write_provider(json: &mut Json, outbounds: &Registry, name: &str) {
    let testing = outbounds.get(name).and_then(|group| group.testing());
    let shown = |of: fn(&Testing) -> &str| testing.as_ref().map(of);
    json.open_object();
    json.key("expectedStatus")
        .string(shown(|testing| &testing.expected).unwrap_or("*"));
    json.key("name").string(name).key("proxies").open_array();
    for member in members(outbounds, name) {
        write_outbound(json, member);
    }
    json.close_array();
    json.key("testUrl")
        .string(shown(|testing| &testing.url).unwrap_or_default());
    json.key("type").string("Proxy");
    json.key("updatedAt").string(NEVER);
    json.key("vehicleType").string("Compatible").close_object();
}
