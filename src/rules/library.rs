//! What a line may refer to by its name: the lists of `sub-rules:`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Rules;

/// The named things of one configuration. Filled before the lines that refer to them are parsed.
#[derive(Clone, Default)]
pub struct Library {
    lists: HashMap<Box<str>, Arc<Rules>>,
}

impl Library {
    /// Adds a list of `sub-rules:`; whatever it refers to must be here before it.
    pub fn add_list(&mut self, name: &str, list: Arc<Rules>) {
        self.lists.insert(name.into(), list);
    }

    /// The list of `sub-rules:` with this name.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<&Arc<Rules>> {
        self.lists.get(name)
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lists.keys()).finish()
    }
}
