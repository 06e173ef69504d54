//! Who may use a proxy port: source prefixes and credentials.
//!
//! Made from the configuration; only who the users are may change while it is in use. Credentials are kept as digests and
//! compared all of them, each in constant time, so that the time an answer takes tells neither
//! how much of a password was right nor whose it is.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use subtle::ConstantTimeEq;

use crate::outbound::options::Credentials;
use crate::prefix::Prefix;

/// The access rules of one listener.
#[derive(Default)]
pub struct Access {
    /// Snapshot: swapped whole when somebody is added or removed.
    users: RwLock<Arc<[User]>>,
    open_to: Vec<Prefix>,
    allowed: Vec<Prefix>,
    disallowed: Vec<Prefix>,
}

struct User {
    name: Arc<str>,
    level: u32,
    digest: [u8; SHA256_OUTPUT_LEN],
}

impl Access {
    /// `users` may log in (none: nobody has to), sources in `skip_auth` need not.
    #[must_use]
    pub fn new(users: &[Credentials], skip_auth: &[Prefix]) -> Self {
        Self {
            users: RwLock::new(users.iter().map(User::new).collect()),
            open_to: skip_auth.to_vec(),
            ..Self::default()
        }
    }

    /// The same for sources in `allowed` (empty: all) that are not in `disallowed`.
    #[must_use]
    pub fn restricted(self, allowed: &[Prefix], disallowed: &[Prefix]) -> Self {
        Self {
            allowed: allowed.to_vec(),
            disallowed: disallowed.to_vec(),
            ..self
        }
    }

    /// Has `users` log in from now on; who is in stays in.
    pub fn admit(&self, users: &[Credentials]) {
        let users = users.iter().map(User::new).collect();
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
    }

    fn users(&self) -> Arc<[User]> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `source` may connect at all. Denial wins.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        (self.allowed.is_empty() || contains(&self.allowed, source))
            && !contains(&self.disallowed, source)
    }

    /// Whether `source` must log in.
    #[must_use]
    pub fn needs_login(&self, source: IpAddr) -> bool {
        !self.users().is_empty() && !contains(&self.open_to, source)
    }

    /// Which policy holds for a user.
    #[must_use]
    pub fn level(&self, name: &str) -> u32 {
        let users = self.users();
        let user = users.iter().find(|user| *user.name == *name);
        user.map_or(0, |user| user.level)
    }

    /// The user of these credentials.
    #[must_use]
    pub fn login(&self, username: &[u8], password: &[u8]) -> Option<Arc<str>> {
        let given = digest(username, password);
        let mut found = None;
        for user in &*self.users() {
            if bool::from(user.digest.ct_eq(&given)) {
                found = Some(Arc::clone(&user.name));
            }
        }
        found
    }
}

impl User {
    fn new(user: &Credentials) -> Self {
        Self {
            name: (&*user.username).into(),
            level: user.level,
            digest: digest(user.username.as_bytes(), user.password.as_bytes()),
        }
    }
}

fn contains(prefixes: &[Prefix], address: IpAddr) -> bool {
    let address = address.to_canonical();
    prefixes.iter().any(|prefix| prefix.contains(address))
}

/// One value for both parts; the length keeps `a` and `bc` apart from `ab` and `c`.
fn digest(username: &[u8], password: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut context = Context::new(&SHA256);
    context.update(&username.len().to_be_bytes());
    context.update(username);
    context.update(password);
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(list: &[&str]) -> Vec<Prefix> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn users(list: &[(&str, &str)]) -> Vec<Credentials> {
        let credentials = |(username, password): &(&str, &str)| Credentials {
            username: (*username).into(),
            password: (*password).into(),
            ..Credentials::default()
        };
        list.iter().map(credentials).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn denial_wins_over_allowance() {
        let access = Access::default().restricted(
            &prefixes(&["192.168.0.0/16", "fd00::/8"]),
            &prefixes(&["192.168.9.0/24"]),
        );
        assert!(access.admits(ip("192.168.1.1")));
        assert!(access.admits(ip("::ffff:192.168.1.1")));
        assert!(access.admits(ip("fd00::1")));
        assert!(!access.admits(ip("192.168.9.1")));
        assert!(!access.admits(ip("10.0.0.1")));
        assert!(Access::default().admits(ip("10.0.0.1")));
    }

    #[test]
    fn login_is_needed_where_there_are_users_except_from_skipped_prefixes() {
        let access = Access::new(&users(&[("u", "p")]), &prefixes(&["127.0.0.0/8"]));
        assert!(access.needs_login(ip("10.0.0.1")));
        assert!(!access.needs_login(ip("127.0.0.1")));
        assert!(!Access::new(&[], &[]).needs_login(ip("10.0.0.1")));
    }

    #[test]
    fn credentials_match_whole_and_apart() {
        let access = Access::new(&users(&[("a", "bc"), ("ann", ""), ("b", "x")]), &[]);
        assert_eq!(access.login(b"a", b"bc").as_deref(), Some("a"));
        assert_eq!(access.login(b"b", b"x").as_deref(), Some("b"));
        assert_eq!(access.login(b"ann", b"").as_deref(), Some("ann"));
        for (user, password) in [("ab", "c"), ("a", "b"), ("a", "x"), ("", ""), ("A", "bc")] {
            assert_eq!(access.login(user.as_bytes(), password.as_bytes()), None);
        }
    }
}
