//! StatsService: counters by listener, outbound and user, who is online, the process
//! (xray-api.md 2.7 and 4).
//!
//! The counters are the tunnel's ledger. Unlike Xray's they are there for every listener, outbound and user
//! while no `policy` is configured (with one, its switches say which there are), and hold payload: what the
//! proxy protocol itself adds is not counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use regex_lite::RegexBuilder;

use super::protobuf::{Fields, Malformed, Message};
use super::status::{Code, Status};
use super::{Answer, Context};
use crate::platform::clock;
use crate::tunnel::ledger::{Counted, Direction, Name, Party};
use crate::tunnel::policy::Policy;

/// `xray.app.stats.command.StatsService`.
pub(super) const METHODS: &[(&str, Answer)] = &[
    ("GetAllOnlineUsers", Answer::Unary(all_online_users)),
    ("GetStats", Answer::Unary(get)),
    ("GetStatsOnline", Answer::Unary(online)),
    ("GetStatsOnlineIpList", Answer::Unary(online_addresses)),
    ("GetSysStats", Answer::Unary(system)),
    ("GetUsersStats", Answer::Unary(users)),
    ("QueryStats", Answer::Unary(query)),
];

/// The longest pattern, compiled.
const PATTERN_BYTES_MAX: usize = 64 * 1024;

/// Patterns of one query; more are an error.
const PATTERNS_MAX: usize = 32;

/// The counter's name as Xray spells it.
fn title(name: &Name, direction: Direction) -> String {
    let party = match name.0 {
        Party::Inbound => "inbound",
        Party::Outbound => "outbound",
        Party::User => "user",
    };
    let direction = match direction {
        Direction::Upload => "uplink",
        Direction::Download => "downlink",
    };
    format!("{party}>>>{}>>>traffic>>>{direction}", name.1)
}

/// Listeners and outbounds have counters before anything went through them.
fn known(context: &Context) -> Vec<Name> {
    let inbounds = context.control.inbounds().ports().into_iter();
    let inbounds = inbounds.map(|port| (Party::Inbound, port.name));
    let routing = context.control.tunnel().routing();
    let nodes = routing.outbounds.iter();
    let nodes = nodes.filter(|outbound| !outbound.kind().is_group());
    let outbounds = nodes.map(|outbound| (Party::Outbound, Arc::clone(outbound.name())));
    inbounds.chain(outbounds).collect()
}

fn counted(
    context: &Context,
    reset: bool,
    wanted: &dyn Fn(&Name, Direction) -> bool,
) -> Vec<Counted> {
    let connections = context.control.tunnel().connections();
    let policy = connections.policy();
    let exists = |name: &Name, direction, level| {
        let policy = policy.as_ref();
        policy.is_none_or(|policy| policy.counts(name.0, level, direction))
    };
    connections.counted(known(context), reset, &|name, direction, level| {
        exists(name, direction, level) && wanted(name, direction)
    })
}

fn stat(name: &str, value: u64) -> Message {
    let mut stat = Message::default();
    stat.text(1, name).integer(2, value);
    stat
}

/// `GetStatsRequest`.
fn name_and_reset(request: &[u8]) -> Result<(&str, bool), Malformed> {
    let (mut name, mut reset) = ("", false);
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => name = field.text()?,
            2 => reset = field.boolean()?,
            _ => {}
        }
    }
    Ok((name, reset))
}

fn not_found(name: &str) -> Status {
    Status::new(
        Code::NotFound,
        format!("app/stats/command: {name} not found."),
    )
}

fn get(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (asked, reset) = name_and_reset(request)?;
    let found = counted(context, reset, &|name, direction| {
        title(name, direction) == asked
    });
    let found = found.first().ok_or_else(|| not_found(asked))?;
    let mut response = Message::default();
    response.message(1, &stat(asked, found.bytes));
    Ok(response)
}

/// Which counters a query names: Xray's substring, or sing-box's list of patterns.
struct Wanted {
    pattern: Box<str>,
    patterns: Vec<Box<str>>,
    expressions: Vec<regex_lite::Regex>,
}

impl Wanted {
    fn takes(&self, title: &str) -> bool {
        if self.patterns.is_empty() && self.expressions.is_empty() {
            return title.contains(&*self.pattern);
        }
        let plain = self
            .patterns
            .iter()
            .any(|pattern| title.contains(&**pattern));
        plain || self.expressions.iter().any(|one| one.is_match(title))
    }
}

fn query(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (mut pattern, mut patterns) = ("", Vec::new());
    let (mut reset, mut regular) = (false, false);
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => pattern = field.text()?,
            2 => reset = field.boolean()?,
            3 => patterns.push(field.text()?),
            4 => regular = field.boolean()?,
            _ => {}
        }
    }
    if patterns.len() > PATTERNS_MAX {
        return Err(Status::new(Code::InvalidArgument, "too many patterns"));
    }
    let mut wanted = Wanted {
        pattern: pattern.into(),
        patterns: Vec::new(),
        expressions: Vec::new(),
    };
    for pattern in patterns {
        if regular {
            let built = RegexBuilder::new(pattern)
                .size_limit(PATTERN_BYTES_MAX)
                .build();
            let built = built.map_err(|error| Status::unknown(error.to_string()))?;
            wanted.expressions.push(built);
        } else {
            wanted.patterns.push(pattern.into());
        }
    }
    let found = counted(context, reset, &|name, direction| {
        wanted.takes(&title(name, direction))
    });
    let mut response = Message::default();
    for found in found {
        let title = title(&found.name, found.direction);
        response.message(1, &stat(&title, found.bytes));
    }
    Ok(response)
}

/// Whether users of that level are listed when they are online.
fn is_shown(policy: Option<&Policy>, level: u32) -> bool {
    policy.is_none_or(|policy| policy.level(level).online)
}

/// The addresses that each user's live flows come from, with the start of the latest, Unix seconds.
/// As in Xray, the machine itself is nobody's address.
fn online_now(context: &Context) -> BTreeMap<Arc<str>, BTreeMap<IpAddr, u64>> {
    let connections = context.control.tunnel().connections();
    let policy = connections.policy();
    let mut online: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
    for flow in connections.snapshot() {
        let Some(user) = &flow.metadata.inbound_user else {
            continue;
        };
        if !is_shown(policy.as_deref(), flow.metadata.user_level) {
            continue;
        }
        let address = flow.metadata.source.ip().to_canonical();
        if address.is_loopback() {
            continue;
        }
        let addresses = online.entry(Arc::clone(user)).or_default();
        let last = addresses.entry(address).or_default();
        *last = (*last).max(flow.start.as_secs());
    }
    online
}

/// An address as Xray writes it: IPv6 in brackets.
fn spelled(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The addresses of the user that `user>>>EMAIL>>>online` names.
fn addresses_of(context: &Context, asked: &str) -> Result<BTreeMap<IpAddr, u64>, Status> {
    let email = asked
        .strip_prefix("user>>>")
        .and_then(|rest| rest.strip_suffix(">>>online"))
        .ok_or_else(|| not_found(asked))?;
    let name: Name = (Party::User, email.into());
    let connections = context.control.tunnel().connections();
    let level = connections.level_of(&name);
    if !level.is_some_and(|level| is_shown(connections.policy().as_deref(), level)) {
        return Err(not_found(asked));
    }
    Ok(online_now(context).remove(&name.1).unwrap_or_default())
}

fn online(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (asked, _) = name_and_reset(request)?;
    let addresses = addresses_of(context, asked)?;
    let mut response = Message::default();
    response.message(1, &stat(asked, addresses.len() as u64));
    Ok(response)
}

fn online_addresses(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (asked, _) = name_and_reset(request)?;
    let mut response = Message::default();
    response.text(1, asked);
    for (address, last) in addresses_of(context, asked)? {
        response.message(2, &stat(&spelled(address), last));
    }
    Ok(response)
}

fn all_online_users(context: &Context, _: &[u8]) -> Result<Message, Status> {
    let mut response = Message::default();
    for user in online_now(context).keys() {
        response.item(1, format!("user>>>{user}>>>online").as_bytes());
    }
    Ok(response)
}

fn users(context: &Context, request: &[u8]) -> Result<Message, Status> {
    let (mut traffic, mut reset) = (false, false);
    for field in Fields::new(request) {
        let field = field?;
        match field.number {
            1 => traffic = field.boolean()?,
            2 => reset = field.boolean()?,
            _ => {}
        }
    }
    let online = online_now(context);
    let listed = |name: &Name, _| traffic && name.0 == Party::User && online.contains_key(&name.1);
    let found = counted(context, reset, &listed);
    let mut response = Message::default();
    for (user, addresses) in &online {
        let mut entry = Message::default();
        entry.text(1, user);
        for (&address, &last) in addresses {
            entry.message(2, &stat(&spelled(address), last));
        }
        if traffic {
            let bytes = |direction| {
                let mut own = found.iter();
                let own = own.find(|one| one.name.1 == *user && one.direction == direction);
                own.map_or(0, |one| one.bytes)
            };
            let mut sums = Message::default();
            sums.integer(1, bytes(Direction::Upload));
            sums.integer(2, bytes(Direction::Download));
            entry.message(3, &sums);
        }
        response.message(1, &entry);
    }
    Ok(response)
}

/// Go's figures where there is something alike: live flows for its tasks, resident bytes for its heap.
fn system(context: &Context, _: &[u8]) -> Result<Message, Status> {
    let memory = context.control.memory();
    let flows = context.control.tunnel().connections().len();
    let uptime = clock::now().duration_since(context.began).as_secs();
    let mut response = Message::default();
    response
        .integer(1, flows as u64)
        .integer(3, memory)
        .integer(5, memory)
        .integer(10, uptime);
    Ok(response)
}
