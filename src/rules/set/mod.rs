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

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

pub use addresses::{AddressSet, AddressSetBuilder};
pub use names::{NameSet, NameSetBuilder};

use super::{PayloadError, RuleError, Rules, RulesBuilder};
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
            Content::Names(_) => Behavior::Domain,
            Content::Addresses(_) => Behavior::IpCidr,
            Content::Classical(_) => Behavior::Classical,
        }
    }
}

/// Compiles a set, entry by entry; of an entry nothing is kept but what the set keeps.
pub struct RuleSetBuilder {
    draft: Draft,
    entries: usize,
}

enum Draft {
    Names(NameSetBuilder),
    Addresses(AddressSetBuilder),
    Classical(Box<RulesBuilder>),
}

impl RuleSetBuilder {
    /// An empty set.
    #[must_use]
    pub fn new(behavior: Behavior) -> Self {
        Self {
            draft: match behavior {
                Behavior::Domain => Draft::Names(NameSetBuilder::default()),
                Behavior::IpCidr => Draft::Addresses(AddressSetBuilder::default()),
                Behavior::Classical => Draft::Classical(Box::default()),
            },
            entries: 0,
        }
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
                let line = classical::entry(entry).map_err(EntryError::Rule)?;
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
