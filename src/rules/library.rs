//! What a line may refer to by its name: the lists of `sub-rules:`, the sets of rule providers, and
//! categories of geodata.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Rules;
use super::geo::Geodata;
use super::set::NamedSet;

/// The named things of one configuration. Filled before the lines that refer to them are parsed.
#[derive(Clone, Default)]
pub struct Library {
    lists: HashMap<Box<str>, Arc<Rules>>,
    sets: HashMap<Box<str>, Arc<NamedSet>>,
    geodata: Geodata,
}

impl Library {
    /// One with these categories of geodata, and nothing else yet.
    #[must_use]
    pub fn new(geodata: &Geodata) -> Self {
        Self {
            geodata: geodata.clone(),
            ..Self::default()
        }
    }

    /// The categories of geodata.
    #[must_use]
    pub fn geodata(&self) -> &Geodata {
        &self.geodata
    }

    /// Adds a list of `sub-rules:`; whatever it refers to must be here before it.
    pub fn add_list(&mut self, name: &str, list: Arc<Rules>) {
        self.lists.insert(name.into(), list);
    }

    /// The list of `sub-rules:` with this name.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<&Arc<Rules>> {
        self.lists.get(name)
    }

    /// Adds the set of a rule provider.
    pub fn add_set(&mut self, set: Arc<NamedSet>) {
        self.sets.insert(set.name().into(), set);
    }

    /// The set of the rule provider with this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Arc<NamedSet>> {
        self.sets.get(name)
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.lists.keys())
            .entries(self.sets.keys())
            .finish()
    }
}
