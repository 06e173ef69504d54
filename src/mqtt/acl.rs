//! Who may publish and subscribe where.
//!
//! Rules are asked in order and the first that speaks of a request decides. A rule that allows a
//! subscription must cover every topic that it matches; one that denies needs to touch only one of
//! them, so that nobody reads by `#` what is denied to him by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::topic;
use super::{Time, seconds};
use crate::prefix::Prefix;

/// Rows added while it runs; further ones are refused.
pub const ROWS_MAX: usize = 10_000;

/// The login of rows that are for everyone.
pub const EVERYONE: &str = "$all";

/// Before a topic of a rule that speaks of this one topic or filter alone, whatever it would match.
pub const EXACTLY: &str = "eq ";

/// First levels of topics that tell of the router: whom no rule names there has no part in them, unless he
/// is on this machine (users.md S20). The same holds for commands to it.
const RESERVED: [&str; 3] = ["$SYS", "$router", "$query"];

/// Decisions that a client's cache holds; the oldest makes room.
const CACHED_MAX: usize = 32;

/// How long a decision counts.
const CACHED_FOR: Time = seconds(60);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To publish to a topic.
    Publish,
    /// To subscribe to a filter.
    Subscribe,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// As who it logged in.
    pub username: Option<&'a str>,
    /// From where.
    pub address: IpAddr,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Or deny.
    pub allow: bool,
    /// Only this user.
    pub username: Option<Box<str>>,
    /// Only this client identifier.
    pub client_id: Option<Box<str>>,
    /// Only from there.
    pub from: Option<Prefix>,
    /// Only this kind.
    pub access: Option<Access>,
    /// Filters, with `%c` and `%u` for the client's own; behind [`EXACTLY`] only what is written just
    /// so. Empty: every topic but those that a rule must name to allow them.
    pub topics: Vec<Box<str>>,
}

/// A row added while it runs: the form of EMQX 4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A filter, with `%c` and `%u`.
    pub topic: Box<str>,
    /// Only this kind.
    pub access: Option<Access>,
    /// Allow or deny.
    pub allow: bool,
}

/// The rules and what holds beside them. Rows of the client's own login come first, then those of
/// [`EVERYONE`], then the rules of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    /// Of the configuration, in order.
    pub rules: Vec<Rule>,
    /// When no rule speaks.
    pub default: bool,
    rows: BTreeMap<Box<str>, Vec<Row>>,
    count: usize,
}

impl Acl {
    /// Rules of a configuration.
    #[must_use]
    pub fn new(rules: Vec<Rule>, default: bool) -> Self {
        Self {
            rules,
            default,
            ..Self::default()
        }
    }

    /// Whether everybody may do this, without looking at rules.
    #[must_use]
    pub fn is_open(&self, access: Access, topic: &str) -> bool {
        self.default && self.count == 0 && self.rules.is_empty() && !is_reserved(access, topic)
    }

    /// Whether `client` may do `access` on a topic name or filter.
    #[must_use]
    pub fn allows(&self, client: Client<'_>, access: Access, topic: &str) -> bool {
        let own = client.username.and_then(|login| self.rows.get(login));
        let rows = own
            .into_iter()
            .chain(self.rows.get(EVERYONE))
            .flatten()
            .find(|row| row.speaks_of(client, access, topic))
            .map(|row| row.allow);
        rows.unwrap_or_else(|| {
            self.rules
                .iter()
                .find(|rule| rule.speaks_of(client, access, topic))
                .map_or_else(
                    || {
                        let reserved = is_reserved(access, topic);
                        self.default && (!reserved || client.address.is_loopback())
                    },
                    |rule| rule.allow,
                )
        })
    }

    /// Adds a row, unless it is there. `false`: there are [`ROWS_MAX`].
    pub fn add(&mut self, login: &str, row: Row) -> bool {
        let known = self.rows.get(login);
        if known.is_some_and(|rows| rows.contains(&row)) {
            return true;
        }
        if self.count >= ROWS_MAX {
            return false;
        }
        self.count += 1;
        self.rows.entry(login.into()).or_default().push(row);
        true
    }

    /// Removes every row of a login on a topic. Whether there was one.
    pub fn remove(&mut self, login: &str, topic: &str) -> bool {
        let Some(rows) = self.rows.get_mut(login) else {
            return false;
        };
        let before = rows.len();
        rows.retain(|row| *row.topic != *topic);
        let removed = before - rows.len();
        self.count -= removed;
        if rows.is_empty() {
            self.rows.remove(login);
        }
        removed > 0
    }

    /// All rows, by login, each login's in order.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows
            .iter()
            .flat_map(|(login, rows)| rows.iter().map(move |row| (&**login, row)))
    }

    /// The rows of a login.
    #[must_use]
    pub fn rows_of(&self, login: &str) -> &[Row] {
        self.rows.get(login).map_or(&[], Vec::as_slice)
    }

    /// How many rows there are.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.count
    }
}

impl Row {
    fn speaks_of(&self, client: Client<'_>, access: Access, topic: &str) -> bool {
        self.access.is_none_or(|only| only == access)
            && touches(&self.topic, client, access, topic, self.allow)
    }
}

impl Rule {
    fn speaks_of(&self, client: Client<'_>, access: Access, topic: &str) -> bool {
        self.access.is_none_or(|only| only == access)
            && self
                .username
                .as_deref()
                .is_none_or(|only| client.username == Some(only))
            && self
                .client_id
                .as_deref()
                .is_none_or(|only| client.client_id == only)
            && self
                .from
                .as_ref()
                .is_none_or(|only| only.contains(client.address))
            && match &*self.topics {
                [] => !(self.allow && is_reserved(access, topic)),
                topics => topics
                    .iter()
                    .any(|pattern| touches(pattern, client, access, topic, self.allow)),
            }
    }
}

fn is_reserved(access: Access, topic: &str) -> bool {
    let command = topic.starts_with("headgate/") && topic.ends_with("/set");
    let first = topic.split('/').next();
    (command && access == Access::Publish)
        || (topic.starts_with('$') && first.is_some_and(|first| RESERVED.contains(&first)))
}

/// Whether a rule on `pattern` speaks of a request. One that allows does not speak of topics that a rule
/// must name where its first level is a wildcard, or a name that its client chose.
fn touches(pattern: &str, client: Client<'_>, access: Access, topic: &str, allow: bool) -> bool {
    if allow && pattern.starts_with(['+', '#', '%']) && is_reserved(access, topic) {
        return false;
    }
    let exact = pattern.strip_prefix(EXACTLY);
    expand(exact.unwrap_or(pattern), client).is_some_and(|filter| match access {
        _ if exact.is_some() => *filter == *topic,
        Access::Publish => topic::matches(&filter, topic),
        Access::Subscribe if allow => covers(&filter, topic),
        Access::Subscribe => overlaps(&filter, topic),
    })
}

/// A decision that was taken for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// What was asked for.
    pub access: Access,
    /// The topic name or filter.
    pub topic: Box<str>,
    /// What was decided.
    pub allow: bool,
    /// When.
    pub at: Time,
}

/// A client's last decisions.
#[derive(Clone, Debug, Default)]
pub struct Cache(Vec<Cached>);

impl Cache {
    /// What was decided lately.
    #[must_use]
    pub fn find(&self, now: Time, access: Access, topic: &str) -> Option<bool> {
        self.0
            .iter()
            .find(|one| one.access == access && *one.topic == *topic && now < one.at + CACHED_FOR)
            .map(|one| one.allow)
    }

    /// Remembers a decision.
    pub fn put(&mut self, at: Time, access: Access, topic: &str, allow: bool) {
        self.0.retain(|one| {
            at < one.at + CACHED_FOR && (one.access != access || *one.topic != *topic)
        });
        if self.0.len() >= CACHED_MAX {
            self.0.remove(0);
        }
        let topic = topic.into();
        self.0.push(Cached {
            access,
            topic,
            allow,
            at,
        });
    }

    /// What counts at `now`.
    pub fn iter(&self, now: Time) -> impl Iterator<Item = &Cached> {
        self.0.iter().filter(move |one| now < one.at + CACHED_FOR)
    }
}

/// Puts the client's own names in. `None`: it has no user name, or a name that would be read as a
/// wildcard or as more than one level.
fn expand<'a>(pattern: &'a str, client: Client<'_>) -> Option<Cow<'a, str>> {
    if !pattern.contains('%') {
        return Some(Cow::Borrowed(pattern));
    }
    let plain = |name: &str| !name.contains(['+', '#', '/']);
    let mut levels = Vec::new();
    for level in pattern.split('/') {
        levels.push(match level {
            "%c" if plain(client.client_id) => client.client_id,
            "%u" => client.username.filter(|name| plain(name))?,
            "%c" => return None,
            level => level,
        });
    }
    Some(Cow::Owned(levels.join("/")))
}

/// Whether `filter` matches every topic that `wanted` matches.
fn covers(filter: &str, wanted: &str) -> bool {
    if wanted.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut ours = filter.split('/');
    for level in wanted.split('/') {
        match (ours.next(), level) {
            (Some("#"), _) => return true,
            (Some("+"), "#") | (None, _) => return false,
            (Some("+"), _) => {}
            (Some(own), level) if own == level => {}
            _ => return false,
        }
    }
    matches!((ours.next(), ours.next()), (None, _) | (Some("#"), None))
}

/// Whether some topic is matched by both.
fn overlaps(filter: &str, wanted: &str) -> bool {
    let hidden = |a: &str, b: &str| a.starts_with('$') && b.starts_with(['+', '#']);
    if hidden(filter, wanted) || hidden(wanted, filter) {
        return false;
    }
    let (mut a, mut b) = (filter.split('/'), wanted.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, access: Option<Access>, topics: &[&str]) -> Rule {
        Rule {
            allow,
            username: None,
            client_id: None,
            from: None,
            access,
            topics: topics.iter().map(|&topic| topic.into()).collect(),
        }
    }

    fn client() -> Client<'static> {
        Client {
            client_id: "c1",
            username: Some("ann"),
            address: IpAddr::from([192, 168, 1, 2]),
        }
    }

    #[test]
    fn the_first_rule_that_speaks_decides() {
        let acl = Acl::new(
            vec![
                rule(false, Some(Access::Publish), &["home/alarm"]),
                rule(true, None, &["home/#"]),
            ],
            false,
        );
        assert!(!acl.allows(client(), Access::Publish, "home/alarm"));
        assert!(acl.allows(client(), Access::Subscribe, "home/alarm"));
        assert!(acl.allows(client(), Access::Publish, "home/x"));
        assert!(!acl.allows(client(), Access::Publish, "work"));
    }

    #[test]
    fn topics_of_the_router_are_for_this_machine_and_for_whom_a_rule_names() {
        let mut acl = Acl::new(Vec::new(), true);
        let near = Client {
            address: IpAddr::from([127, 0, 0, 1]),
            ..client()
        };
        for topic in ["$SYS/#", "$SYS", "$router/x", "$query/a"] {
            assert!(
                !acl.is_open(Access::Subscribe, topic)
                    && !acl.allows(client(), Access::Subscribe, topic)
            );
            assert!(acl.allows(near, Access::Subscribe, topic), "{topic}");
        }
        for topic in ["$SYSTEM", "a/$SYS", "#"] {
            assert!(
                acl.is_open(Access::Subscribe, topic)
                    && acl.allows(client(), Access::Subscribe, topic)
            );
        }
        acl.rules = vec![rule(true, Some(Access::Subscribe), &["$SYS/broker/#"])];
        assert!(acl.allows(client(), Access::Subscribe, "$SYS/broker/uptime"));
        assert!(!acl.allows(client(), Access::Subscribe, "$SYS/#"));
    }

    #[test]
    fn rows_of_the_login_come_before_those_of_everyone_and_the_rules() {
        let row = |topic: &str, allow| Row {
            topic: topic.into(),
            access: None,
            allow,
        };
        let mut acl = Acl::new(vec![rule(false, None, &["#"])], true);
        assert!(acl.add(EVERYONE, row("a/#", false)) && acl.add("ann", row("a/%u", true)));
        assert!(acl.add("ann", row("a/%u", true)));
        assert_eq!((acl.row_count(), acl.rows().count()), (2, 2));
        let may = |acl: &Acl, topic| acl.allows(client(), Access::Publish, topic);
        assert!(may(&acl, "a/ann") && !may(&acl, "a/bob") && !may(&acl, "b"));
        assert!(acl.remove("ann", "a/%u") && !acl.remove("ann", "a/%u"));
        assert!(!may(&acl, "a/ann"));
        assert_eq!(acl.row_count(), 1);
    }

    #[test]
    fn a_rule_on_exactly_a_filter_speaks_of_nothing_else() {
        let acl = Acl::new(
            vec![
                rule(true, None, &["eq a/+", "eq u/%u"]),
                rule(false, None, &["a/b", "eq #", "u/#"]),
            ],
            true,
        );
        for (wanted, allowed) in [
            ("a/+", true),
            ("a/b", false),
            ("#", false),
            ("a/#", false),
            ("u/ann", true),
            ("b/#", true),
        ] {
            let found = acl.allows(client(), Access::Subscribe, wanted);
            assert_eq!(found, allowed, "{wanted}");
        }
    }

    #[test]
    fn decisions_are_remembered_for_a_minute_and_the_oldest_makes_room() {
        let mut cache = Cache::default();
        for n in 0..40 {
            cache.put(n, Access::Publish, &n.to_string(), n % 2 == 0);
        }
        assert_eq!(cache.iter(40).count(), CACHED_MAX);
        assert_eq!(cache.find(40, Access::Publish, "7"), None);
        assert_eq!(cache.find(40, Access::Publish, "39"), Some(false));
        assert_eq!(cache.find(40, Access::Subscribe, "39"), None);
        assert_eq!(cache.find(39 + CACHED_FOR, Access::Publish, "39"), None);
    }

    #[test]
    fn names_are_put_in_unless_they_could_be_wildcards() {
        let acl = Acl::new(vec![rule(true, None, &["u/%u/#", "c/%c"])], false);
        assert!(acl.allows(client(), Access::Publish, "u/ann/x"));
        assert!(acl.allows(client(), Access::Publish, "c/c1"));
        assert!(!acl.allows(client(), Access::Publish, "u/bob/x"));
        for client_id in ["+", "#", "a/b"] {
            let wild = Client {
                client_id,
                ..client()
            };
            assert!(!acl.allows(wild, Access::Publish, "c/x"));
        }
    }

    #[test]
    fn a_wildcard_does_not_read_what_is_denied_by_name() {
        let acl = Acl::new(
            vec![
                rule(false, None, &["secret/#"]),
                rule(true, None, &["a/+", "b/#"]),
            ],
            true,
        );
        for denied in ["#", "+/x", "secret/+", "secret"] {
            assert!(!acl.allows(client(), Access::Subscribe, denied), "{denied}");
        }
        let narrow = Acl {
            default: false,
            ..acl
        };
        for (wanted, allowed) in [
            ("a/+", true),
            ("a/b", true),
            ("a/#", false),
            ("b", true),
            ("b/+/#", true),
            ("+/b", false),
        ] {
            let found = narrow.allows(client(), Access::Subscribe, wanted);
            assert_eq!(found, allowed, "{wanted}");
        }
    }

    #[test]
    fn queries_and_commands_are_open_only_to_those_whom_a_rule_names_there() {
        let everything = Rule {
            allow: true,
            username: None,
            client_id: None,
            from: None,
            access: None,
            topics: Vec::new(),
        };
        let named = Rule {
            username: Some("ann".into()),
            topics: vec!["$query/%u/#".into(), "headgate/+/set".into()],
            ..everything.clone()
        };
        let ann = client();
        let bob = Client {
            username: Some("bob"),
            ..client()
        };
        for rules in [vec![], vec![everything.clone()]] {
            let acl = Acl::new(rules, true);
            assert!(acl.allows(ann, Access::Publish, "headgate/status"));
            assert!(acl.allows(ann, Access::Subscribe, "headgate/#"));
            for (access, topic) in [
                (Access::Publish, "$query/ann/x"),
                (Access::Subscribe, "$query/#"),
                (Access::Subscribe, "$query/ann/x/result"),
                (Access::Publish, "headgate/mode/set"),
            ] {
                assert!(!acl.allows(ann, access, topic), "{topic}");
                assert!(!acl.is_open(access, topic), "{topic}");
            }
        }
        let acl = Acl::new(vec![named, everything], true);
        let may = |who, access, topic| acl.allows(who, access, topic);
        assert!(may(ann, Access::Publish, "$query/ann/x"));
        assert!(may(ann, Access::Subscribe, "$query/ann/#"));
        assert!(may(ann, Access::Publish, "headgate/mode/set"));
        assert!(!may(ann, Access::Subscribe, "$query/#"));
        assert!(!may(ann, Access::Publish, "$query/bob/x"));
        assert!(!may(bob, Access::Publish, "$query/bob/x"));
        assert!(!may(bob, Access::Publish, "headgate/mode/set"));
    }

    #[test]
    fn a_wildcard_or_a_chosen_name_at_the_beginning_allows_no_command() {
        let router = Client {
            client_id: "headgate",
            username: Some("headgate"),
            ..client()
        };
        let commands = ["headgate/mode/set", "headgate/proxies/Exit/set"];
        for pattern in ["#", "+/#", "+/mode/set", "%c/#", "%u/+/set", "$query/#"] {
            let acl = Acl::new(vec![rule(true, None, &[pattern])], true);
            let mut rows = Acl::new(Vec::new(), true);
            let topic = pattern.into();
            let row = Row {
                topic,
                access: None,
                allow: true,
            };
            assert!(rows.add(EVERYONE, row));
            for topic in commands {
                for acl in [&acl, &rows] {
                    assert!(
                        !acl.allows(router, Access::Publish, topic),
                        "{pattern} {topic}"
                    );
                }
            }
            // What is no command is reached as ever, and so is what a rule denies.
            assert!(acl.allows(router, Access::Publish, "headgate/mode"));
        }
        let query = Client {
            client_id: "$query",
            ..client()
        };
        let own = Acl::new(vec![rule(true, None, &["%c/#"])], true);
        assert!(!own.allows(query, Access::Publish, "$query/x"));
        assert!(!own.allows(query, Access::Subscribe, "$query/#"));
        let near = Client {
            address: IpAddr::from([127, 0, 0, 1]),
            ..client()
        };
        let deny = Acl::new(vec![rule(false, None, &["#"])], true);
        assert!(!deny.allows(near, Access::Publish, "headgate/mode/set"));
        let named = Acl::new(vec![rule(true, None, &["headgate/#"])], false);
        assert!(named.allows(client(), Access::Publish, "headgate/mode/set"));
    }
}
