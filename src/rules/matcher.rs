//! What one rule asks of one flow, and how it says that it does not know yet.

use std::fmt;
use std::net::IpAddr;
use std::ops::BitOr;
use std::sync::Arc;

use super::intervals::Intervals;
use super::port::{PortField, Ranges};
use super::{Library, Rules};
use crate::metadata::{Mac, Metadata};
use crate::prefix::Prefix;

/// Yes, no, or: it depends on a fact that is not known. AND, OR and NOT are Kleene's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The rule does not match, whatever the unknown facts are.
    No,
    /// An unknown fact decides.
    Unknown,
    /// The rule matches, whatever the unknown facts are.
    Yes,
}

impl Truth {
    /// Yes for no and no for yes.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The destination address, as far as a flow knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// This one, IPv4 where it is IPv4-mapped.
    Address(IpAddr),
    /// Not yet: the host can still be resolved.
    Pending,
    /// There is none and will be none: rules that need it do not match.
    Absent,
}

/// What is known of a flow when a rule is asked.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    host: Option<&'a str>,
    flow: Option<(&'a Metadata, Destination)>,
}

impl<'a> Known<'a> {
    /// Everything about one flow; its address may come later when `may_resolve`.
    #[must_use]
    pub fn flow(metadata: &'a Metadata, may_resolve: bool) -> Self {
        let destination = match metadata.destination_ip {
            Some(ip) => Destination::Address(ip.to_canonical()),
            None if may_resolve && metadata.host.is_some() => Destination::Pending,
            None => Destination::Absent,
        };
        Self {
            // As in mihomo, an unknown name is the empty one.
            host: Some(metadata.rule_host().unwrap_or_default()),
            flow: Some((metadata, destination)),
        }
    }

    /// The name alone (empty: the flow has none). `None`: not even that.
    #[must_use]
    pub fn host_alone(host: Option<&'a str>) -> Self {
        Self { host, flow: None }
    }

    /// The name that domain rules compare; `None` when it is not known whether there is one.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// The destination; `None` when nothing is known of it.
    #[must_use]
    pub fn destination(&self) -> Option<Destination> {
        self.flow.map(|(_, destination)| destination)
    }

    /// The whole flow; `None` when only its name is known.
    #[must_use]
    pub fn metadata(&self) -> Option<&'a Metadata> {
        self.flow.map(|(metadata, _)| metadata)
    }

    /// Asks about the name.
    pub fn ask_host(&self, question: impl FnOnce(&str) -> bool) -> Truth {
        self.host
            .map_or(Truth::Unknown, |host| question(host).into())
    }

    /// Asks about anything but name and destination address.
    pub fn ask(&self, question: impl FnOnce(&Metadata) -> bool) -> Truth {
        self.flow
            .map_or(Truth::Unknown, |(metadata, _)| question(metadata).into())
    }
}

/// What a table must hold to answer for a matcher. A matcher with a key is its key: the compiled
/// list never asks the matcher itself.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    /// None: ask the matcher.
    Ask,
    /// Matches every flow.
    Always,
    /// The whole name.
    Name(&'a str),
    /// The name and all below it.
    NameSuffix(&'a str),
    /// Anywhere in the name.
    NamePart(&'a str),
    /// Destination prefix; the flag: an unknown address is to be resolved.
    Destination(Prefix, bool),
    /// Source prefix.
    Source(Prefix),
    /// A small number.
    Number(PortField, &'a Ranges),
    /// The client's Ethernet address.
    Mac(Mac),
}

/// Addresses of one family for flows of which only the destination address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The rule matches these for certain.
    pub always: Intervals,
    /// The rule matches no others.
    pub possible: Intervals,
}

impl Bounds {
    /// Of what answers alike for every address.
    #[must_use]
    pub fn of(truth: Truth, scope: Scope) -> Self {
        let (always, possible) = match truth {
            Truth::No => (Intervals::none(), Intervals::none()),
            Truth::Unknown => (Intervals::none(), Intervals::all(scope.v4)),
            Truth::Yes => (Intervals::all(scope.v4), Intervals::all(scope.v4)),
        };
        Self { always, possible }
    }
}

/// Flows whose name and all else but the address is left open.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// IPv4, else IPv6.
    pub v4: bool,
    /// Such a flow may have a name; otherwise it has none for certain.
    pub names_may_appear: bool,
}

impl Scope {
    /// Nothing but whether there is a name.
    #[must_use]
    pub fn known(self) -> Known<'static> {
        Known::host_alone((!self.names_may_appear).then_some(""))
    }
}

/// Facts that cost a look-up, and are there only for rules that ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The client's Ethernet address.
    pub mac: bool,
    /// The device's name.
    pub host: bool,
    /// The program that connects.
    pub process: bool,
}

impl BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            mac: self.mac | other.mac,
            host: self.host | other.host,
            process: self.process | other.process,
        }
    }
}

/// The condition of one rule.
pub trait Matcher: fmt::Debug + Send + Sync {
    /// Whether it holds for what is known. With facts left out ([`Known::host_alone`]) yes and no
    /// must hold for every flow that has the others: offload rests on it. For a whole flow only
    /// an address that is still to be resolved is [`Truth::Unknown`].
    fn truth(&self, known: &Known<'_>) -> Truth;

    /// How tables can answer in its place.
    fn key(&self) -> Key<'_> {
        Key::Ask
    }

    /// For which addresses it holds when only the address is known.
    fn bounds(&self, scope: Scope) -> Bounds {
        Bounds::of(self.truth(&scope.known()), scope)
    }

    /// Which facts it asks for that are looked up only then.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Whether its needs may change while it is in use.
    fn needs_change(&self) -> bool {
        false
    }

    /// How many entries the category of geodata has that it asks.
    fn size(&self) -> Option<usize> {
        None
    }

    /// The list in which a flow that it matches finds its target (SUB-RULE).
    fn list(&self) -> Option<&Rules> {
        None
    }
}

/// A payload on its way to a matcher.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// Without blanks around it, never empty but for MATCH.
    pub text: &'a str,
    /// `no-resolve`: never resolve a name for this rule.
    pub no_resolve: bool,
    /// `src`: test the source instead of the destination.
    pub source: bool,
    /// How many AND, OR, NOT and SUB-RULE lie around it.
    pub depth: u8,
    /// Where the line leads; empty for a part of AND, OR, NOT and SUB-RULE.
    pub target: &'a str,
    /// What it may refer to.
    pub library: &'a Library,
}

/// A payload read.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Type name as the Clash API shows it.
    pub kind: &'static str,
    /// Payload as the Clash API shows it.
    pub payload: Box<str>,
    /// What it asks.
    pub matcher: Arc<dyn Matcher>,
}

impl Condition {
    /// Puts the three together.
    pub fn new(
        kind: &'static str,
        payload: impl Into<Box<str>>,
        matcher: impl Matcher + 'static,
    ) -> Self {
        Self {
            kind,
            payload: payload.into(),
            matcher: Arc::new(matcher),
        }
    }
}
