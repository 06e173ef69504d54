//! All outbounds by name, built from the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use super::Outbound;

/// The built-in, configured and grouped outbounds. Immutable; a reload makes a new one.
#[derive(Default)]
pub struct Registry {
    order: Vec<Arc<dyn Outbound>>,
    by_name: HashMap<Arc<str>, Arc<dyn Outbound>>,
}

impl Registry {
    /// The outbound of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Outbound>> {
        self.by_name.get(name)
    }

    /// Every outbound: built-ins, proxies in file order, groups in file order, `GLOBAL` last.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Outbound>> {
        self.order.iter()
    }

    /// Adds one; a name that is taken keeps its first owner and answers `false`.
    pub fn insert(&mut self, outbound: Arc<dyn Outbound>) -> bool {
        let name = Arc::clone(outbound.name());
        if self.by_name.contains_key(&name) {
            return false;
        }
        self.order.push(Arc::clone(&outbound));
        self.by_name.insert(name, outbound);
        true
    }
}
