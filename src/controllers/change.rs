//! Changes of listeners, users and proxies at run time: what controllers may ask for, and why it may
//! be refused. They outlive a reload of the configuration, unless the new one takes their names.

use std::fmt;

use super::Cause;
use crate::outbound::options::Credentials;

/// One change. Done whole, or not at all.
#[derive(Clone)]
pub enum Change {
    /// Listen there too: an entry of `listeners:`, as JSON.
    AddInbound(Box<str>),
    /// Close the listener of that name and its connections; one of the configuration's returns with
    /// the next reload.
    RemoveInbound(Box<str>),
    /// Let a user log in at the listener of that name.
    AddUser(Box<str>, Credentials),
    /// Let a user log in there no more, and cut who did. Names are compared without case.
    RemoveUser(Box<str>, Box<str>),
    /// Add a proxy: an entry of `proxies:`, as JSON.
    AddOutbound(Box<str>),
    /// Take the proxy of that name away, from groups too; unknown names are no error.
    RemoveOutbound(Box<str>),
    /// Add rules and groups.
    AddRules(Box<NewRules>),
    /// Take away the added rules of that tag; unknown tags are no error.
    RemoveRule(Box<str>),
}

/// Rules and groups to be added.
#[derive(Clone, Default)]
pub struct NewRules {
    /// Whether they stand behind those added before; otherwise they take the place of all rules but
    /// the final MATCH, and of the groups added before.
    pub append: bool,
    /// The rules, in order.
    pub rules: Vec<NewRule>,
    /// The groups.
    pub groups: Vec<NewGroup>,
}

/// A rule to be added.
#[derive(Clone)]
pub struct NewRule {
    /// Unique, or empty.
    pub tag: Box<str>,
    /// The group that it leads to, when it must lead to one.
    pub group: Option<Box<str>>,
    /// Its lines, which are right.
    pub lines: Vec<Box<str>>,
}

/// A group to be added: its members are the proxies whose names begin in one of these ways.
#[derive(Clone)]
pub struct NewGroup {
    /// Unique among groups and proxies.
    pub name: Box<str>,
    /// Beginnings of names.
    pub selectors: Vec<Box<str>>,
    /// `random`, `roundrobin`, `leastping` or `leastload`; empty is random.
    pub strategy: Box<str>,
    /// A last member, or empty.
    pub fallback: Box<str>,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum ChangeError {
    /// A listener, or a proxy or group, has that name.
    NameTaken(Box<str>),
    /// No listener has that name.
    NoInbound(Box<str>),
    /// Nobody logs in at that listener.
    NoUsers,
    /// A user of that listener has that name.
    UserTaken(Box<str>),
    /// No user of that listener has that name.
    NoUser(Box<str>),
    /// Without its last user the listener would be open to everybody.
    LastUser,
    /// An added rule has that tag.
    RuleTaken(Box<str>),
    /// No group has that name.
    NoGroup(Box<str>),
    /// [`CHANGES_MAX`] are in force.
    TooMany,
    /// What the kernel or another part says.
    Failed(Cause),
}

/// Listeners, proxies and users that may be added at run time, each.
pub const CHANGES_MAX: usize = 4096;

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(f, "the name {name} is taken"),
            Self::NoInbound(name) => write!(f, "no listener is named {name}"),
            Self::NoUsers => f.write_str("nobody logs in at this listener"),
            Self::UserTaken(name) => write!(f, "there is a user {name}"),
            Self::NoUser(name) => write!(f, "there is no user {name}"),
            Self::LastUser => {
                f.write_str("without its last user the listener would be open to everybody")
            }
            Self::RuleTaken(tag) => write!(f, "there is a rule {tag}"),
            Self::NoGroup(name) => write!(f, "no group is named {name}"),
            Self::TooMany => write!(f, "{CHANGES_MAX} changes are in force"),
            Self::Failed(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<Cause> for ChangeError {
    fn from(cause: Cause) -> Self {
        Self::Failed(cause)
    }
}
