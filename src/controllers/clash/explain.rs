//! `GET /explain?host=&ip=&port=&network=&src=`: which rule decides, and why. headgate's own.
//!
//! `host` is a name or an address; `ip` what the name resolves to, since nothing is asked of the
//! network; `src` the client. Rules that plainly do not match are told up to [`PLAIN_MAX`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::metadata::{Endpoint, Host, InboundType, Metadata, Network};
use crate::rules::{Found, Rules};
use crate::tunnel::explain::Explanation;
use crate::tunnel::routing::{Event, Routing};

/// Rules without a word to say that are listed all the same.
const PLAIN_MAX: usize = 100;

/// Lists of `sub-rules:` in each other, as the configuration takes them.
const NESTED_MAX: usize = 16;

/// Explains a flow.
pub(super) fn explain(context: &Context, request: &Request<'_>) -> Response {
    let Some((metadata, address)) = asked(request) else {
        return Response::body_invalid();
    };
    let told = context.control.tunnel().explain(metadata, address);
    let mut json = Json::new();
    json.open_object();
    write_flow(&mut json, &told);
    json.key("rules").open_array();
    write_rules(&mut json, context, &told);
    json.close_array();
    write_decision(&mut json, &told);
    let direct = is_certain(&told);
    let offload = context.control.offloads();
    json.key("kernel").open_object();
    json.key("offload").plain(offload);
    json.key("certainlyDirect").plain(direct);
    json.key("verdict").string(match (offload, direct) {
        (true, true) => "forwarded by the kernel",
        _ => "decided by the daemon",
    });
    json.close_object().close_object();
    Response::json(json)
}

/// The flow that is asked about, and what its name resolves to.
fn asked(request: &Request<'_>) -> Option<(Metadata, Option<IpAddr>)> {
    let text = |name| request.query.get(name).filter(|text| !text.is_empty());
    let address = match text("ip") {
        Some(ip) => Some(ip.parse::<IpAddr>().ok()?.to_canonical()),
        None => None,
    };
    let host = match (text("host"), address) {
        (Some(host), _) => Host::parse(&host)?,
        (None, Some(address)) => Host::Ip(address),
        (None, None) => return None,
    };
    let port = match text("port") {
        Some(port) => port.parse().ok()?,
        None => 443,
    };
    let network = match text("network").as_deref() {
        None | Some("tcp") => Network::Tcp,
        Some("udp") => Network::Udp,
        Some(_) => return None,
    };
    let source = match text("src") {
        Some(source) => match source.parse::<SocketAddr>() {
            Ok(source) => source,
            Err(_) => SocketAddr::new(source.parse().ok()?, 0),
        },
        None => SocketAddr::from(([0, 0, 0, 0], 0)),
    };
    let inbound = Arc::from("DEFAULT-TPROXY");
    let to = Endpoint { host, port };
    let metadata = Metadata::new(network, InboundType::TProxy, &inbound, source, to);
    Some((metadata, address))
}

fn write_flow(json: &mut Json, told: &Explanation) {
    let flow = &told.metadata;
    let shown = |value: Option<String>| value.unwrap_or_default();
    json.key("flow").open_object();
    json.key("network").string(flow.network.as_str());
    json.key("source").quoted(flow.source.ip());
    json.key("sourceMAC")
        .string(&shown(flow.source_mac.map(|mac| mac.to_string())));
    json.key("sourceHost")
        .string(flow.source_host.as_deref().unwrap_or_default());
    json.key("host")
        .string(flow.rule_host().unwrap_or_default());
    json.key("destinationIP")
        .string(&shown(flow.destination_ip.map(|ip| ip.to_string())));
    json.key("destinationPort").plain(flow.destination_port);
    json.key("dnsMode").string(flow.dns_mode.as_str());
    json.key("mode").string(told.routing.mode.as_str());
    json.close_object();
}

fn write_rules(json: &mut Json, context: &Context, told: &Explanation) {
    let routing = &told.routing;
    let decided = match &told.decision {
        Ok(decision) => decision.rule,
        Err(_) => None,
    };
    // A mode or a listener decides without asking any rule.
    let last = match (decided, told.met.last()) {
        (Some(rule), _) => rule + 1,
        (None, Some(_)) => routing.rule_count(),
        (None, None) => 0,
    };
    let mut plain = 0;
    for (index, _, line) in routing.rules_in_force() {
        if index >= last {
            break;
        }
        let mut events = told.met.iter().filter(|met| met.rule == index).peekable();
        if events.peek().is_none() {
            plain += 1;
            if plain > PLAIN_MAX {
                continue;
            }
        }
        json.open_object().key("index").plain(index);
        json.key("place")
            .string(&place(context, routing, index).unwrap_or_default());
        json.key("type").string(line.kind);
        json.key("payload").string(line.payload);
        json.key("proxy").string(line.target);
        json.key("answer")
            .string(match events.last().map(|met| met.what) {
                None => "no",
                Some(Event::Off) => "switched off",
                Some(Event::Resolves) => "no, once the name was resolved",
                Some(Event::PassedOver) => "yes, but its target passes or cannot carry it",
                Some(Event::Decides) => "yes",
            });
        json.close_object();
    }
    if plain > PLAIN_MAX {
        json.open_object().key("index").plain(-1);
        json.key("answer")
            .string(&format!("no, {} more", plain - PLAIN_MAX));
        json.close_object();
    }
}

/// Where the rule at a place of the whole list stands in the configuration.
fn place(context: &Context, routing: &Routing, index: usize) -> Option<String> {
    context.control.place_of_rule(routing.configured(index)?)
}

fn write_decision(json: &mut Json, told: &Explanation) {
    json.key("decision").open_object();
    match &told.decision {
        Err(refusal) => {
            json.key("refused").quoted(refusal);
        }
        Ok(decision) => {
            if let Some((index, line)) = decision
                .rule
                .and_then(|index| Some((index, told.routing.rule(index)?)))
            {
                json.key("rule").plain(index);
                json.key("type").string(line.kind);
                json.key("payload").string(line.payload);
                json.key("subRules").open_array();
                if let Some(index) = told.routing.configured(index) {
                    write_inner(json, &told.routing.rules, index, &told.metadata);
                }
                json.close_array();
            } else {
                json.key("rule").plain(-1);
            }
            json.key("chains").strings(&decision.chain);
        }
    }
    json.close_object();
}

/// The lines that decide inside a SUB-RULE, outermost first.
fn write_inner(json: &mut Json, rules: &Rules, index: usize, metadata: &Metadata) {
    let (mut rules, mut index) = (rules, index);
    let may_resolve = metadata.host.is_some() && metadata.destination_ip.is_none();
    for _ in 0..NESTED_MAX {
        let Some(inner) = rules.inner(index) else {
            return;
        };
        let Found::Rule(found) = inner.find(metadata, 0, may_resolve) else {
            return;
        };
        let Some(line) = inner.line(found) else {
            return;
        };
        json.open_object().key("index").plain(found);
        json.key("type").string(line.kind);
        json.key("payload").string(line.payload);
        json.key("proxy").string(line.target).close_object();
        (rules, index) = (inner, found);
    }
}

/// Whether offload may leave such flows to the kernel.
fn is_certain(told: &Explanation) -> bool {
    let flow = &told.metadata;
    match (flow.rule_host(), flow.destination_ip) {
        (Some(host), _) => told.routing.certainly_direct(host),
        (None, Some(address)) => {
            let ranges = told
                .routing
                .certainly_direct_ranges(address.is_ipv4(), false);
            ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&address))
        }
        (None, None) => false,
    }
}
