//! What the targets share: how they take a fuzzer's bytes apart, a scratch file, and a network in
//! memory. Nothing here knows what the parsers promise; each target checks that itself.

pub mod network;

use std::path::PathBuf;

/// A fuzzer's bytes, taken from the front; past their end everything is zero or empty.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// At most the next `n` bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the next byte says.
    pub fn chunk(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte());
        self.take(length)
    }

    /// As [`Input::chunk`] with a length of two bytes.
    pub fn long_chunk(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_be_bytes(self.array()));
        self.take(length)
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a parser that reads a file finds it: one file a process, in `TMPDIR`.
pub fn scratch_file(contents: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("headgate-fuzz-{}", std::process::id()));
    std::fs::write(&path, contents).unwrap();
    path
}

/// Cuts for `length` bytes: all of them when they are few, else some that `seed` chooses.
pub fn cuts(length: usize, seed: u8) -> impl Iterator<Item = usize> {
    let step = length / 64 + 1;
    (usize::from(seed) % step..=length).step_by(step)
}
