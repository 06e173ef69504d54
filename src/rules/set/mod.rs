//! Rule sets: what RULE-SET asks. Compiled from a provider's entries, swapped whole when the
//! provider has new ones.
//!
//! A [`NamedSet`] is the place that the lines of a configuration hold on to; it is empty until
//! its provider has loaded, and matches nothing then. Flows that are deciding while a set is swapped
//! see the old or the new one. Reading and fetching are the provider's; nothing here knows files.

mod addresses;
mod bits;
mod classical;
mod names;
mod site;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

pub use addresses::{AddressSet, AddressSetBuilder};
pub use names::{NameSet, NameSetBuilder};
pub use site::{SiteSet, SiteSetBuilder};

use super::geo::Geodata;
use super::matcher::{Known, Truth};
use super::{Library, PayloadError, RuleError, Rules, RulesBuilder};
use crate::prefix::Prefix;

/// What the entries of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Domain wildcards.
    Domain,
    /// Address prefixes.
    IpCidr,
    /// Rules without target.
    Classical,
}

/// A compiled set.
pub struct RuleSet {
    pub(super) content: Content,
    entries: usize,
}

/// What there is to ask.
pub(super) enum Content {
    Names(NameSet),
    Addresses(AddressSet),
    Classical(Box<Rules>),
    Site(SiteSet),
}

impl RuleSet {
    /// A set of names, made from `entries` patterns.
    #[must_use]
    pub fn of_names(names: NameSet, entries: usize) -> Self {
        Self {
            content: Content::Names(names),
            entries,
        }
    }

    /// A set of addresses, made from `entries` ranges.
    #[must_use]
    pub fn of_addresses(addresses: AddressSet, entries: usize) -> Self {
        Self {
            content: Content::Addresses(addresses),
            entries,
        }
    }

    /// How many entries it was made from.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// What its entries are.
    #[must_use]
    pub fn behavior(&self) -> Behavior {
        match self.content {
            Content::Names(_) | Content::Site(_) => Behavior::Domain,
            Content::Addresses(_) => Behavior::IpCidr,
            Content::Classical(_) => Behavior::Classical,
        }
    }

    /// The names of a set of wildcards.
    #[must_use]
    pub fn names(&self) -> Option<&NameSet> {
        match &self.content {
            Content::Names(names) => Some(names),
            _ => None,
        }
    }

    /// The addresses of a set of addresses.
    #[must_use]
    pub fn addresses(&self) -> Option<&AddressSet> {
        match &self.content {
            Content::Addresses(addresses) => Some(addresses),
            _ => None,
        }
    }

    /// Whether a name alone, in lower case without the final dot, is enough for an entry to match.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        match &self.content {
            Content::Names(names) => names.contains(name),
            Content::Site(site) => site.contains(name),
            Content::Classical(rules) => rules.truth(&Known::host_alone(Some(name))) == Truth::Yes,
            Content::Addresses(_) => false,
        }
    }

    /// Whether the address is in a set of addresses.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match &self.content {
            Content::Addresses(addresses) => addresses.contains(address.to_canonical()),
            Content::Names(_) | Content::Site(_) | Content::Classical(_) => false,
        }
    }
}

/// Compiles a set, entry by entry; of an entry nothing is kept but what the set keeps.
pub struct RuleSetBuilder {
    behavior: Behavior,
    draft: Draft,
    library: Library,
    entries: usize,
}

enum Draft {
    Names(NameSetBuilder),
    Addresses(AddressSetBuilder),
    Classical(Box<RulesBuilder>),
}

impl RuleSetBuilder {
    /// An empty set; its rules may ask for categories of `geodata`.
    #[must_use]
    pub fn new(behavior: Behavior, geodata: &Geodata) -> Self {
        Self {
            behavior,
            library: Library::new(geodata),
            draft: match behavior {
                Behavior::Domain => Draft::Names(NameSetBuilder::default()),
                Behavior::IpCidr => Draft::Addresses(AddressSetBuilder::default()),
                Behavior::Classical => Draft::Classical(Box::default()),
            },
            entries: 0,
        }
    }

    /// What its entries are.
    #[must_use]
    pub fn behavior(&self) -> Behavior {
        self.behavior
    }

    /// Adds an entry: a wildcard, a prefix or an address, or `TYPE,payload[,no-resolve]`.
    ///
    /// # Errors
    /// What is wrong with it; the set goes on without it.
    pub fn push(&mut self, entry: &str) -> Result<(), EntryError> {
        match &mut self.draft {
            Draft::Names(names) => names.push(entry).map_err(EntryError::Payload)?,
            Draft::Addresses(addresses) => {
                let prefix: Result<Prefix, _> = entry.parse();
                addresses
                    .push(prefix.map_err(|why| EntryError::Payload(PayloadError::Prefix(why)))?);
            }
            Draft::Classical(rules) => {
                let line = classical::entry(entry, &self.library).map_err(EntryError::Rule)?;
                rules.push(&line).map_err(EntryError::Rule)?;
            }
        }
        self.entries += 1;
        Ok(())
    }

    /// The set.
    #[must_use]
    pub fn finish(self) -> RuleSet {
        RuleSet {
            content: match self.draft {
                Draft::Names(names) => Content::Names(names.finish()),
                Draft::Addresses(addresses) => Content::Addresses(addresses.finish()),
                Draft::Classical(rules) => Content::Classical(Box::new(rules.finish())),
            },
            entries: self.entries,
        }
    }
}

/// Why an entry of a set is none. Its author is at fault; the set goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// Of a set of names or addresses.
    Payload(PayloadError),
    /// Of a set of rules.
    Rule(RuleError),
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(why) => why.fmt(f),
            Self::Rule(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for EntryError {}

/// A set by its name. Snapshot: what is in it is swapped whole.
pub struct NamedSet {
    name: Box<str>,
    behavior: Behavior,
    loaded: RwLock<Option<Arc<RuleSet>>>,
}

impl NamedSet {
    /// A set that has not been loaded yet.
    #[must_use]
    pub fn new(name: &str, behavior: Behavior) -> Self {
        Self {
            name: name.into(),
            behavior,
            loaded: RwLock::default(),
        }
    }

    /// The provider's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its entries are.
    #[must_use]
    pub fn behavior(&self) -> Behavior {
        self.behavior
    }

    /// What is in it; `None` until it is loaded.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<RuleSet>> {
        self.loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a name alone is enough for an entry to match ([`RuleSet::has_name`]); no while nothing
    /// is loaded. For lists of names outside the rules.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.loaded().is_some_and(|set| set.has_name(name))
    }

    /// Whether the address is in it ([`RuleSet::has_address`]); no while nothing is loaded.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.loaded().is_some_and(|set| set.has_address(address))
    }

    /// Puts `set` in its place. Decisions may change: offload must be told.
    pub fn replace(&self, set: Arc<RuleSet>) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(set);
    }
}

impl fmt::Debug for NamedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamedSet").field(&self.name).finish()
    }
}
