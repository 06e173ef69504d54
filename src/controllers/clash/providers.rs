//! `/providers/proxies` and `/providers/rules`, as far as a configuration without providers has them.
//!
//! mihomo shows what the file itself lists as providers of vehicle `Compatible`: `default` with
//! every outbound, and one per group with its members. Dashboards read a group's members there.

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::outbound::{Kind, Outbound};

use super::proxies::{is_group, write_outbound};

/// The pseudo providers.
pub(super) fn proxies(context: &Context, _: &Request<'_>) -> Response {
    let routing = context.control.tunnel().routing();
    let outbounds = &routing.outbounds;
    let mut json = Json::new();
    json.open_object().key("providers").open_object();
    let listed = outbounds.iter().filter(|o| is_listed(&***o));
    write_provider(&mut json, "default", listed.map(|o| &**o));
    for group in outbounds.iter().filter(|o| is_group(&***o)) {
        let members = group.members();
        let members = members.iter().filter_map(|name| outbounds.get(name));
        write_provider(&mut json, group.name(), members.map(|o| &**o));
    }
    json.close_object().close_object();
    Response::json(json)
}

/// Rule providers: none are configured yet.
pub(super) fn rules(_: &Context, _: &Request<'_>) -> Response {
    let mut json = Json::new();
    json.open_object().key("providers").open_object();
    json.close_object().close_object();
    Response::json(json)
}

/// DIRECT, REJECT and what the file names; not the other built-ins, nor GLOBAL made of all.
fn is_listed(outbound: &dyn Outbound) -> bool {
    let built_in = matches!(
        outbound.kind(),
        Kind::RejectDrop | Kind::Pass | Kind::Compatible
    );
    !built_in && &**outbound.name() != "GLOBAL"
}

fn write_provider<'a>(
    json: &mut Json,
    name: &str,
    members: impl Iterator<Item = &'a dyn Outbound>,
) {
    json.key(name).open_object();
    json.key("expectedStatus")
        .string("*")
        .key("name")
        .string(name);
    json.key("proxies").open_array();
    for member in members {
        write_outbound(json, member);
    }
    json.close_array();
    json.key("testUrl").string("").key("type").string("Proxy");
    json.key("updatedAt").string("0001-01-01T00:00:00Z");
    json.key("vehicleType").string("Compatible").close_object();
}
