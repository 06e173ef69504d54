//! RoutingService: rules and balancers added at run time, and what the rules would do
//! (xray-api.md 2.5 and 5).
//!
//! A balancer is a group: its override is a person's choice in it, its principle target what it would
//! take. Added rules stand before the configuration's final MATCH (`tunnel::added`); rules of the
//! configuration are listed without a tag, since they cannot be removed here. Flows that an added rule
//! blocks are cut, which makes `xray api sib` do what its help says.

use std::net::SocketAddr;
use std::sync::Arc;

use super::protobuf::{Field, Fields, Message};
use super::rule::{Rule, balancer, rule};
use super::status::{Code, Status};
use super::typed::{Typed, address};
use super::{Answer, Context};
use crate::controllers::change::{Change, ChangeError, NewGroup, NewRule, NewRules};
use crate::metadata::{Endpoint, Host, InboundType, Metadata, Network};
use crate::outbound::{Kind, Outbound};
use crate::rules::RuleLine;
use crate::tunnel::routing::Step;

/// `xray.app.router.command.RoutingService`.
pub(super) const METHODS: &[(&str, Answer)] = &[
    ("AddRule", Answer::Unary(add)),
    ("GetBalancerInfo", Answer::Unary(balancer_info)),
    ("ListRule", Answer::Unary(list)),
    ("OverrideBalancerTarget", Answer::Unary(choose)),
    ("RemoveRule", Answer::Unary(remove)),
    ("SubscribeRoutingStats", Answer::Unary(subscribe)),
    ("TestRoute", Answer::Unary(test)),
];

/// Lines that one request may add.
const LINES_MAX: usize = 16 * 1024;

fn add(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (mut config, mut append) = (Typed::default(), false);
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => config = Typed::read(&field)?,
            2 => append = field.boolean()?,
            _ => {}
        }
    }
    if config.kind() != "app.router.Config" {
        let text = "app/router/command: AddRule: config type error";
        return Err(Status::unknown(text));
    }
    let mut new = NewRules {
        append,
        ..NewRules::default()
    };
    for field in config.fields() {
        let field = field?;
        match field.number {
            2 => new.rules.push(parsed(rule(&field)?)?),
            3 => {
                let balancer = balancer(&field)?;
                new.groups.push(NewGroup {
                    name: balancer.tag.into(),
                    selectors: balancer.selectors.into_iter().map(Into::into).collect(),
                    strategy: balancer.strategy.into(),
                    fallback: balancer.fallback.into(),
                });
            }
            _ => {}
        }
    }
    if new.rules.iter().map(|rule| rule.lines.len()).sum::<usize>() > LINES_MAX {
        return Err(Status::new(Code::ResourceExhausted, "too many rules"));
    }
    let changed = context.control.change(Change::AddRules(Box::new(new)));
    changed.map_err(|error| {
        Status::unknown(match error {
            ChangeError::NameTaken(_) => "app/router: duplicate balancer tag".to_owned(),
            ChangeError::RuleTaken(tag) => format!("app/router: duplicate ruleTag {tag}"),
            ChangeError::NoGroup(name) => format!("app/router: balancer {name} not found"),
            other => format!("app/router: {other}"),
        })
    })?;
    Ok(Message::default())
}

fn parsed(rule: Rule) -> Result<NewRule, Status> {
    for line in &rule.lines {
        let parsed = RuleLine::parse(line);
        parsed.map_err(|error| Status::unknown(format!("app/router: {error}")))?;
    }
    Ok(NewRule {
        tag: rule.tag.into(),
        group: rule.balanced.then(|| rule.target.into()),
        lines: rule.lines.into_iter().map(Into::into).collect(),
    })
}

/// The request's field 1, a string.
fn tag(request: &[u8]) -> Result<&str, Status> {
    let mut tag = "";
    for field in Fields::new(request) {
        let field = field?;
        if field.number == 1 {
            tag = field.text()?;
        }
    }
    Ok(tag)
}

fn remove(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let tag = tag(request)?;
    if tag.is_empty() {
        return Err(Status::unknown("app/router: empty tag name!"));
    }
    let removed = context.control.change(Change::RemoveRule(tag.into()));
    removed.map_err(|error| Status::unknown(error.to_string()))?;
    Ok(Message::default())
}

fn list(context: &Context, _: &[u8]) -> Result<Message, Status> {
    let routing = context.control.tunnel().routing();
    let mut response = Message::default();
    let mut last = "";
    for (_, tag, line) in routing.rules_in_force() {
        // A rule with a condition of several values is several lines here.
        let tag = tag.unwrap_or_default();
        if !tag.is_empty() && tag == last {
            continue;
        }
        last = tag;
        let group = routing.outbounds.get(line.target);
        let group = group.is_some_and(|outbound| outbound.kind().is_group());
        let mut item = Message::default();
        item.text(1, if group { "" } else { line.target });
        item.text(2, tag);
        response.message(1, &item);
    }
    Ok(response)
}

/// The group that a balancer's tag names.
fn group(context: &Context, tag: &str) -> Result<Arc<dyn Outbound>, Status> {
    let routing = context.control.tunnel().routing();
    let found = routing.outbounds.get(tag).cloned();
    found
        .filter(|outbound| outbound.kind().is_group())
        .ok_or_else(|| Status::unknown("app/router/command: cannot find tag"))
}

fn balancer_info(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let group = group(context, tag(request)?)?;
    let now = group.selected(None).map(|member| Arc::clone(member.name()));
    let fixed = group.testing().and_then(|testing| testing.fixed);
    let (fixed, principle) = match group.kind() {
        Kind::Selector => (now, group.members()),
        Kind::LoadBalance => (fixed, group.members()),
        _ => (fixed, now.into_iter().collect()),
    };
    let (mut chosen, mut targets) = (Message::default(), Message::default());
    chosen.text(2, fixed.as_deref().unwrap_or_default());
    for target in principle {
        targets.item(1, target.as_bytes());
    }
    let (mut balancer, mut response) = (Message::default(), Message::default());
    balancer.message(5, &chosen).message(6, &targets);
    response.message(1, &balancer);
    Ok(response)
}

fn choose(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let mut target = "";
    for field in Fields::new(request) {
        let field = field?;
        if field.number == 2 {
            target = field.text()?;
        }
    }
    let group = group(context, tag(request)?)?;
    let first = group.members().first().map(Arc::clone);
    let done = match (target, group.kind(), first) {
        // A person's choice is all that a selector has: without one it takes its first member.
        ("", Kind::Selector, Some(first)) => context.control.select(&group, &first),
        ("", ..) => {
            let _none_to_end = context.control.unpin(&group);
            true
        }
        (target, ..) => context.control.select(&group, target),
    };
    if done {
        Ok(Message::default())
    } else {
        let text = format!(
            "app/router/command: {} does not take {target:?}",
            group.name()
        );
        Err(Status::unknown(text))
    }
}

/// As Xray answers to this day.
fn subscribe(_: &Context, _: &[u8]) -> Result<Message, Status> {
    Err(Status::unknown(
        "app/router/command: Routing statistics not enabled.",
    ))
}

/// `RoutingContext` as a flow.
fn flow(context: &Field<'_>) -> Result<Metadata, Status> {
    let (mut inbound, mut network, mut user, mut host) = ("", Network::Tcp, "", None);
    let (mut source, mut target) = (None, None);
    let (mut source_port, mut port, mut local_port) = (0, 0, 0);
    let number = |field: &Field<'_>| Ok::<_, Status>(u16::try_from(field.short()?).unwrap_or(0));
    for field in context.message()? {
        let field = field?;
        match field.number {
            1 => inbound = field.text()?,
            2 if field.integer()? == 3 => network = Network::Udp,
            3 => source = source.or(Some(address(field.bytes()?)?)),
            4 => target = target.or(Some(address(field.bytes()?)?)),
            5 => source_port = number(&field)?,
            6 => port = number(&field)?,
            7 if !field.bytes()?.is_empty() => host = Host::parse(field.text()?),
            9 => user = field.text()?,
            14 => local_port = number(&field)?,
            _ => {}
        }
    }
    let unset = || [0, 0, 0, 0].into();
    let host = host.or(target.map(Host::from));
    let host = host.ok_or_else(|| Status::unknown(INVALID))?;
    let source = SocketAddr::new(source.unwrap_or_else(unset), source_port);
    let kind = InboundType::Socks5;
    let to = Endpoint { host, port };
    let mut metadata = Metadata::new(network, kind, &inbound.into(), source, to);
    metadata.destination_ip = metadata.destination_ip.or(target);
    metadata.inbound_address = SocketAddr::new(unset(), local_port);
    metadata.inbound_user = (!user.is_empty()).then(|| user.into());
    Ok(metadata)
}

const INVALID: &str = "app/router/command: Invalid routing request.";

/// What the rules make of a flow. Names are not resolved: rules on addresses see those that the
/// request gives.
fn test(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (mut given, mut selectors) = (None, Vec::new());
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => given = Some(field),
            2 => selectors.push(field.text()?),
            _ => {}
        }
    }
    let given = given.ok_or_else(|| Status::unknown(INVALID))?;
    let metadata = flow(&given)?;
    let routing = context.control.tunnel().routing();
    let decided = match routing.decide(&metadata, 0, false) {
        Some(Step::Done(decision)) if decision.rule.is_some() => decision,
        _ => {
            let text = "common: not enough information for making a decision";
            return Err(Status::unknown(text));
        }
    };
    let wanted = |key: &str| {
        selectors.is_empty() || selectors.iter().any(|selector| key.starts_with(selector))
    };
    let mut response = Message::default();
    for field in given.message()? {
        let field = field?;
        let shown = KEYS.iter().find(|(number, _)| *number == field.number);
        if shown.is_some_and(|(_, key)| wanted(key)) {
            response.field(&field);
        }
    }
    if wanted("outbound") {
        response.text(12, decided.node.name());
    }
    Ok(response)
}

/// What a field of `RoutingContext` is called in selectors.
const KEYS: &[(u32, &str)] = &[
    (1, "inbound"),
    (2, "network"),
    (3, "ip_source"),
    (4, "ip_target"),
    (5, "port_source"),
    (6, "port_target"),
    (7, "domain"),
    (8, "protocol"),
    (9, "user"),
    (10, "attributes"),
    (13, "ip_local"),
    (14, "port_local"),
];
