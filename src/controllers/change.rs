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
