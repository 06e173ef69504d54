//! Counters of 64 bits on every machine: mips32 and the older arms have no 64-bit atomics.

use portable_atomic::{AtomicU64, Ordering};

/// Counts bytes or events; never loses a count, never wraps in practice.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the count to `n` and returns what it was.
    pub fn replace(&self, n: u64) -> u64 {
        self.0.swap(n, Ordering::Relaxed)
    }
}
