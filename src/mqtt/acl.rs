//! Who may publish and subscribe where.
//!
//! Rules are asked in order and the first that speaks of a request decides. A rule that allows a
//! subscription must cover every topic that it matches; one that denies needs to touch only one of
//! them, so that nobody reads by `#` what is denied to him by name.

use std::borrow::Cow;
use std::net::IpAddr;

use super::topic;
use crate::prefix::Prefix;

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
#[derive(Clone, Debug)]
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
    /// Filters, with `%c` and `%u` for the client's own; empty: every topic.
    pub topics: Vec<Box<str>>,
}

/// The rules and what holds beside them.
#[derive(Clone, Debug)]
pub struct Acl {
    /// In order.
    pub rules: Vec<Rule>,
    /// When no rule speaks.
    pub default: bool,
}

impl Acl {
    /// Whether `client` may do `access` on a topic name or filter.
    #[must_use]
    pub fn allows(&self, client: Client<'_>, access: Access, topic: &str) -> bool {
        self.rules
            .iter()
            .find(|rule| rule.speaks_of(client, access, topic))
            .map_or(self.default, |rule| rule.allow)
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
            && (self.topics.is_empty()
                || self.topics.iter().any(|pattern| {
                    expand(pattern, client).is_some_and(|filter| match access {
                        Access::Publish => topic::matches(&filter, topic),
                        Access::Subscribe if self.allow => covers(&filter, topic),
                        Access::Subscribe => overlaps(&filter, topic),
                    })
                }))
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
        let acl = Acl {
            rules: vec![
                rule(false, Some(Access::Publish), &["home/alarm"]),
                rule(true, None, &["home/#"]),
            ],
            default: false,
        };
        assert!(!acl.allows(client(), Access::Publish, "home/alarm"));
        assert!(acl.allows(client(), Access::Subscribe, "home/alarm"));
        assert!(acl.allows(client(), Access::Publish, "home/x"));
        assert!(!acl.allows(client(), Access::Publish, "work"));
    }

    #[test]
    fn names_are_put_in_unless_they_could_be_wildcards() {
        let acl = Acl {
            rules: vec![rule(true, None, &["u/%u/#", "c/%c"])],
            default: false,
        };
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
        let acl = Acl {
            rules: vec![
                rule(false, None, &["secret/#"]),
                rule(true, None, &["a/+", "b/#"]),
            ],
            default: true,
        };
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
}
