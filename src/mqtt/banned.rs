//! Who must stay out: client identifiers, user names and addresses, each until some time.
//!
//! Pure. Times are seconds since 1970, as those who ban think of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bans at a time; further ones are refused.
pub const BANS_MAX: usize = 10_000;

/// What is banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A client identifier.
    ClientId(Box<str>),
    /// A user name.
    Username(Box<str>),
    /// An address.
    Address(IpAddr),
}

/// A ban's circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// By whom.
    pub by: Box<str>,
    /// Why.
    pub reason: Option<Box<str>>,
    /// Since when.
    pub at: u64,
    /// Until when; `u64::MAX`: for ever.
    pub until: u64,
}

/// The bans.
#[derive(Debug, Default)]
pub struct Bans(BTreeMap<Who, Ban>);

impl Bans {
    /// Bans somebody, or changes a ban. `false`: there are [`BANS_MAX`].
    pub fn set(&mut self, who: Who, ban: Ban) -> bool {
        if self.0.len() >= BANS_MAX && !self.0.contains_key(&who) {
            return false;
        }
        self.0.insert(who, ban);
        true
    }

    /// Lifts a ban. Whether there was one.
    pub fn lift(&mut self, who: &Who) -> bool {
        self.0.remove(who).is_some()
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&Who, &Ban)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody is banned at `time`.
    #[must_use]
    pub fn hold(&self, client_id: &str, username: Option<&str>, from: IpAddr, time: u64) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let holds = |who: &Who| self.0.get(who).is_some_and(|ban| ban.until > time);
        holds(&Who::ClientId(client_id.into()))
            || holds(&Who::Address(from))
            || username.is_some_and(|name| holds(&Who::Username(name.into())))
    }

    /// Forgets those that are over.
    pub fn sweep(&mut self, time: u64) {
        self.0.retain(|_, ban| ban.until > time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_holds_until_its_end() {
        let mut bans = Bans::default();
        let ban = Ban {
            by: "user".into(),
            reason: None,
            at: 10,
            until: 20,
        };
        let from = IpAddr::from([192, 168, 1, 2]);
        for who in [
            Who::ClientId("c".into()),
            Who::Username("u".into()),
            Who::Address(from),
        ] {
            assert!(bans.set(who.clone(), ban.clone()));
            assert!(bans.hold("c", Some("u"), from, 19));
            assert!(!bans.hold("c", Some("u"), from, 20));
            assert!(bans.lift(&who));
            assert!(!bans.hold("c", Some("u"), from, 19));
        }
        bans.set(Who::ClientId("c".into()), ban);
        bans.sweep(20);
        assert!(bans.is_empty());
    }
}
