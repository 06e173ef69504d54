//! What SQL may ask beside its event: the clock, chance, and what rules remember.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::platform::clock;
use crate::sql::{Store, Surroundings};

/// The real surroundings.
pub(super) struct World {
    store: Store,
    keys: RandomState,
    drawn: Cell<u32>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(),
            keys: RandomState::new(),
            drawn: Cell::new(0),
        }
    }

    /// Forgets what belonged to a client.
    pub(super) fn forget(&self, client: &str) {
        self.store.forget(client);
    }

    /// Random digits that make an id.
    pub(super) fn digits(&self) -> u32 {
        let [a, b, c, d, ..] = self.random().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl Surroundings for World {
    fn now_ns(&self) -> i64 {
        i64::try_from(clock::unix_time().as_nanos()).unwrap_or(i64::MAX)
    }

    fn local_offset(&self, unix_s: i64) -> i32 {
        clock::local_offset(Duration::from_secs(u64::try_from(unix_s).unwrap_or(0)))
    }

    fn random(&self) -> u64 {
        self.drawn.set(self.drawn.get().wrapping_add(1));
        self.keys.hash_one(self.drawn.get())
    }

    fn store(&self) -> &Store {
        &self.store
    }
}
