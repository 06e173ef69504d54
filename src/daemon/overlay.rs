//! What controllers changed in the configuration at run time. Private to the supervisor; laid over each
//! configuration that is loaded.

use crate::config::{BUILTIN_NAMES, Config};
use crate::controllers::change::{CHANGES_MAX, ChangeError};
use crate::inbound::options::Options as InboundOptions;
use crate::outbound::options::Credentials;

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
        for (inbound, user) in &self.users {
            if let Some(users) = users_mut(&mut config.inbound, inbound)
                && find(users, &user.username).is_none()
            {
                users.push(user.clone());
            }
        }
        for (inbound, name) in &self.removed_users {
            if let Some(users) = users_mut(&mut config.inbound, inbound)
                && let Some(index) = find(users, name)
                && users.len() > 1
            {
                users.remove(index);
            }
        }
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

/// Whether a listener has that name.
pub fn is_inbound(options: &InboundOptions, name: &str) -> bool {
    options.ports().iter().any(|port| *port.name == *name)
}

/// Whether a proxy or a group has that name.
pub fn is_outbound(config: &Config, name: &str) -> bool {
    let proxies = config.proxies.iter().map(|proxy| &*proxy.name);
    let groups = config.groups.iter().map(|group| &*group.name);
    let mut names = BUILTIN_NAMES.iter().copied().chain(proxies).chain(groups);
    names.any(|taken| taken == name)
}

/// Who logs in at a listener of `listeners:` that has users of its own.
pub fn users_mut<'o>(
    options: &'o mut InboundOptions,
    inbound: &str,
) -> Option<&'o mut Vec<Credentials>> {
    let mut listeners = options.listeners.iter_mut();
    let listener = listeners.find(|listener| *listener.name == *inbound)?;
    listener.users.as_mut().filter(|users| !users.is_empty())
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
