//! What rules remember between events: `kv_store_put` for all, `proc_dict_put` for one client.
//!
//! In memory, gone at a restart. When it is full, what was written longest ago makes room.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::value::Value;

/// Entries kept.
const ENTRIES_MAX: usize = 256;

/// Bytes of all keys and values, as JSON.
const BYTES_MAX: usize = 32 * 1024;

/// Whose a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    All,
    Client(&'a [u8]),
}

struct Entry {
    owner: Option<Box<[u8]>>,
    key: Box<[u8]>,
    value: Value<'static>,
    bytes: usize,
}

/// Remembered values.
#[derive(Default)]
pub struct Store {
    /// The one written longest ago first.
    entries: RefCell<VecDeque<Entry>>,
}

impl Entry {
    fn is(&self, owner: Owner<'_>, key: &[u8]) -> bool {
        let owned = match owner {
            Owner::All => self.owner.is_none(),
            Owner::Client(id) => self.owner.as_deref() == Some(id),
        };
        owned && *self.key == *key
    }
}

impl Store {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn get(&self, owner: Owner<'_>, key: &[u8]) -> Option<Value<'static>> {
        let entries = self.entries.borrow();
        let mut found = entries.iter().filter(|entry| entry.is(owner, key));
        found.next().map(|entry| entry.value.clone())
    }

    /// Keeps a value of `bytes` bytes; what was kept before. One larger than the store is not kept.
    pub(super) fn put(
        &self,
        owner: Owner<'_>,
        key: &[u8],
        value: Value<'static>,
        bytes: usize,
    ) -> Option<Value<'static>> {
        let before = self.remove(owner, key);
        let bytes = bytes + key.len();
        if bytes > BYTES_MAX {
            return before;
        }
        let mut entries = self.entries.borrow_mut();
        let mut held: usize = entries.iter().map(|entry| entry.bytes).sum();
        while entries.len() >= ENTRIES_MAX || held + bytes > BYTES_MAX {
            held -= entries.pop_front().map_or(held, |entry| entry.bytes);
        }
        let owner = match owner {
            Owner::All => None,
            Owner::Client(id) => Some(id.into()),
        };
        entries.push_back(Entry {
            owner,
            key: key.into(),
            value,
            bytes,
        });
        before
    }

    pub(super) fn remove(&self, owner: Owner<'_>, key: &[u8]) -> Option<Value<'static>> {
        let mut entries = self.entries.borrow_mut();
        let at = entries.iter().position(|entry| entry.is(owner, key))?;
        entries.remove(at).map(|entry| entry.value)
    }

    /// Forgets what belonged to a client that is gone.
    pub fn forget(&self, client: &str) {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|entry| entry.owner.as_deref() != Some(client.as_bytes()));
    }
}
