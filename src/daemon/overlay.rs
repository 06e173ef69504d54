//! What controllers changed in the configuration at run time. Private to the supervisor; laid over each
//! configuration that is loaded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{BUILTIN_NAMES, Config};
use crate::controllers::change::{CHANGES_MAX, ChangeError, NewGroup, NewRule};
use crate::inbound::options::Options as InboundOptions;
use crate::outbound::options::{Credentials, GroupKind, GroupOptions, Strategy};
use crate::rules::geo::Geodata;
use crate::rules::{Library, RuleLine, Rules};
use crate::tunnel::added::{Added, AddedRule};

/// The changes, in the order in which they came.
#[derive(Default)]
pub struct Overlay {
    /// Added listeners: name, and entry of `listeners:`.
    pub inbounds: Vec<(Box<str>, Box<str>)>,
    /// Added proxies: name, and entry of `proxies:`.
    pub outbounds: Vec<(Box<str>, Box<str>)>,
    /// Added users: the listener's name, and who.
    pub users: Vec<(Box<str>, Credentials)>,
    /// Removed users: the listener's name, and whose.
    pub removed_users: Vec<(Box<str>, Box<str>)>,
    /// Added rules, in order.
    pub rules: Vec<NewRule>,
    /// Whether they took the place of the configuration's; a reload ends that.
    pub replaces: bool,
    /// Added groups.
    pub groups: Vec<NewGroup>,
}

impl Overlay {
    /// Changes `config`. What its own names leave no room for, or what is none any more, is left out.
    pub fn apply(&self, config: &mut Config) {
        for (name, entry) in &self.inbounds {
            match Config::listener(entry) {
                Ok(_) if is_inbound(&config.inbound, name) => {
                    log::warn!("the listener {name} is the configuration's now");
                }
                Ok(listener) => config.inbound.listeners.push(listener),
                Err(error) => log::warn!("the listener {name}: {error}"),
            }
        }
        for (name, entry) in &self.outbounds {
            match Config::proxy(entry) {
                Ok(_) if is_outbound(config, name) => {
                    log::warn!("the proxy {name} is the configuration's now");
                }
                Ok(proxy) => config.proxies.push(proxy),
                Err(error) => log::warn!("the proxy {name}: {error}"),
            }
        }
        for group in &self.groups {
            if is_outbound(config, &group.name) {
                log::warn!("the group {} is the configuration's now", group.name);
            } else {
                config.groups.push(balanced(group, config));
            }
        }
        for (inbound, user) in &self.users {
            if let Some(users) = users_mut(&mut config.inbound, inbound)
                && find(users, &user.username).is_none()
            {
                users.push(user.clone());
            }
        }
        for (inbound, name) in &self.removed_users {
            let encrypting = is_server(&config.inbound, inbound);
            if let Some(users) = users_mut(&mut config.inbound, inbound)
                && let Some(index) = find(users, name)
                && (encrypting || users.len() > 1)
            {
                users.remove(index);
            }
        }
    }

    /// Whether one of the added listeners is at that port of that address.
    pub fn listens_at(&self, options: &InboundOptions, address: SocketAddr) -> bool {
        let mut listeners = options.listeners.iter();
        listeners.any(|listener| {
            let added = self.inbounds.iter().any(|(name, _)| *name == listener.name);
            added && (listener.listen, listener.port) == (address.ip(), address.port())
        })
    }

    /// Notes that a listener, and who was added or removed there, is gone.
    pub fn forget_inbound(&mut self, name: &str) {
        self.inbounds.retain(|(inbound, _)| **inbound != *name);
        self.users.retain(|(inbound, _)| **inbound != *name);
        self.removed_users.retain(|(inbound, _)| **inbound != *name);
    }

    /// Notes that a user was added.
    pub fn add_user(&mut self, inbound: &str, user: &Credentials) {
        let same = |name: &str| name.eq_ignore_ascii_case(&user.username);
        self.removed_users
            .retain(|(of, name)| **of != *inbound || !same(name));
        self.users.push((inbound.into(), user.clone()));
    }

    /// Notes that a user was removed.
    pub fn remove_user(&mut self, inbound: &str, name: &str) {
        let before = self.users.len();
        self.users
            .retain(|(of, user)| **of != *inbound || *user.username != *name);
        if self.users.len() == before {
            self.removed_users.push((inbound.into(), name.into()));
        }
    }

    /// The added rules as a block in `configured`, whose categories `geodata` has; none when there is none.
    pub fn block(&self, configured: &Rules, geodata: &Geodata) -> Option<Arc<Added>> {
        let library = Library::new(geodata);
        let rules: Vec<AddedRule> = self
            .rules
            .iter()
            .map(|rule| AddedRule {
                tag: rule.tag.clone(),
                lines: rule
                    .lines
                    .iter()
                    .filter_map(|line| RuleLine::parse_in(line, &library).ok())
                    .collect(),
            })
            .collect();
        (self.replaces || !rules.is_empty())
            .then(|| Arc::new(Added::new(configured, &rules, self.replaces)))
    }

    /// Added groups whose names are the configuration's.
    pub fn taken_groups(&self, config: &Config) -> Vec<Box<str>> {
        let names = self.groups.iter().map(|group| &group.name);
        let taken = names.filter(|name| is_outbound(config, name));
        taken.cloned().collect()
    }

    /// Gives up the groups whose names are `taken`, and puts the file's rules in force again: the block
    /// of added ones among them.
    pub fn settle(
        &mut self,
        taken: &[Box<str>],
        configured: &Rules,
        geodata: &Geodata,
    ) -> Option<Arc<Added>> {
        self.groups.retain(|group| !taken.contains(&group.name));
        self.replaces = false;
        self.block(configured, geodata)
    }

    /// Fills the added groups in `config` with the proxies of the moment.
    pub fn balance(&self, config: &mut Config) {
        for group in &self.groups {
            let options = balanced(group, config);
            let mut groups = config.groups.iter_mut();
            if let Some(known) = groups.find(|known| known.name == group.name) {
                *known = options;
            }
        }
    }

    /// Whether one more of a kind may be changed.
    ///
    /// # Errors
    /// [`ChangeError::TooMany`].
    pub fn room<T>(list: &[T]) -> Result<(), ChangeError> {
        if list.len() < CHANGES_MAX {
            Ok(())
        } else {
            Err(ChangeError::TooMany)
        }
    }
}

/// An added group over the proxies of the moment.
pub fn balanced(group: &NewGroup, config: &Config) -> GroupOptions {
    let kind = match &*group.strategy {
        "leastping" | "leastload" => GroupKind::UrlTest { tolerance: 0 },
        _ => GroupKind::LoadBalance(Strategy::RoundRobin),
    };
    let proxies = config.proxies.iter().map(|proxy| &proxy.name);
    let direct: Box<str> = "DIRECT".into();
    let names = proxies.chain([&direct]);
    let chosen = names.filter(|name| {
        group
            .selectors
            .iter()
            .any(|start| name.starts_with(&**start))
    });
    let mut options = GroupOptions::new(&group.name, kind);
    options.proxies = chosen.cloned().collect();
    if !group.fallback.is_empty() && !options.proxies.contains(&group.fallback) {
        options.proxies.push(group.fallback.clone());
    }
    if kind != GroupKind::LoadBalance(Strategy::RoundRobin) {
        options.test.interval = TEST_EVERY;
    }
    options
}

/// How often the members of an added group are tested.
const TEST_EVERY: Duration = Duration::from_secs(300);

/// Whether a listener has that name.
pub fn is_inbound(options: &InboundOptions, name: &str) -> bool {
    options.ports().iter().any(|port| *port.name == *name)
}

/// Whether a proxy or a group has that name.
pub fn is_outbound(config: &Config, name: &str) -> bool {
    let proxies = config.proxies.iter().map(|proxy| &*proxy.name);
    let groups = config.groups.iter().map(|group| &*group.name);
    let mut names = BUILTIN_NAMES.iter().copied().chain(proxies).chain(groups);
    names.any(|taken| taken == name) || config.xray_tag() == Some(name)
}

/// Who logs in at a listener of `listeners:` that has users of its own. Servers of encrypting protocols
/// may have none left, other listeners would be open then.
pub fn users_mut<'o>(
    options: &'o mut InboundOptions,
    inbound: &str,
) -> Option<&'o mut Vec<Credentials>> {
    let mut listeners = options.listeners.iter_mut();
    let listener = listeners.find(|listener| *listener.name == *inbound)?;
    match &mut listener.server {
        Some(server) => Arc::make_mut(server).protocol.users_mut(),
        None => listener.users.as_mut().filter(|users| !users.is_empty()),
    }
}

/// Whether a listener is a server of an encrypting protocol: nobody is let in there who is no user.
pub fn is_server(options: &InboundOptions, inbound: &str) -> bool {
    let mut listeners = options.listeners.iter();
    listeners.any(|listener| *listener.name == *inbound && listener.server.is_some())
}

/// The place of a user, by a name without case.
pub fn find(users: &[Credentials], name: &str) -> Option<usize> {
    let same = |user: &Credentials| user.username.eq_ignore_ascii_case(name);
    users.iter().position(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text).unwrap().0
    }

    fn user(name: &str) -> Credentials {
        Credentials {
            username: name.into(),
            password: "x".into(),
            ..Credentials::default()
        }
    }

    fn names(config: &Config) -> Vec<String> {
        let users = config.inbound.listeners.iter();
        let users = users.flat_map(|listener| listener.users.iter().flatten());
        users.map(|user| user.username.to_string()).collect()
    }

    const TEXT: &str = "
listeners:
  - {name: door, type: socks, port: 1, users: [{username: ann, password: a}, {username: bob, password: b}]}
proxies:
  - {name: node, type: socks5, server: 192.0.2.1, port: 1}
";

    #[test]
    fn changes_lie_over_every_configuration_that_leaves_them_room() {
        let mut overlay = Overlay::default();
        for name in ["extra", "door"] {
            let entry = format!("{{\"name\": \"{name}\", \"type\": \"http\", \"port\": 2}}");
            overlay.inbounds.push((name.into(), entry.into()));
        }
        for name in ["more", "node", "DIRECT"] {
            let entry = format!("{{\"name\": \"{name}\", \"type\": \"direct\"}}");
            overlay.outbounds.push((name.into(), entry.into()));
        }
        let mut config = config(TEXT);
        overlay.apply(&mut config);
        let listeners = config.inbound.listeners.iter();
        let listeners: Vec<_> = listeners.map(|listener| &*listener.name).collect();
        assert_eq!(listeners, ["door", "extra"]);
        let proxies: Vec<_> = config.proxies.iter().map(|proxy| &*proxy.name).collect();
        assert_eq!(proxies, ["node", "more"]);
    }

    #[test]
    fn users_come_and_go_and_the_last_one_stays() {
        let mut overlay = Overlay::default();
        overlay.add_user("door", &user("eve"));
        overlay.remove_user("door", "ann");
        let mut first = config(TEXT);
        overlay.apply(&mut first);
        assert_eq!(names(&first), ["bob", "eve"]);
        overlay.remove_user("door", "eve");
        overlay.remove_user("door", "bob");
        overlay.add_user("door", &user("Ann"));
        let mut second = config(TEXT);
        overlay.apply(&mut second);
        assert_eq!(names(&second), ["ann"]);
        assert!(overlay.removed_users.len() == 1);
    }
}
