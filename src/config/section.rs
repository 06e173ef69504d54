//! A mapping whose keys are asked for one by one, so that what is left over can be reported.

use super::decode::Cursor;
use super::error::{ConfigError, Reason, Remark, Warnings};
use super::nearest::nearest;
use super::yaml::NodeId;
use crate::prefix::Prefix;

/// A mapping whose keys are taken one after the other.
pub struct Section<'c> {
    at: &'c Cursor<'c>,
    entries: &'c [(NodeId, NodeId)],
    seen: Vec<bool>,
    asked: Vec<&'static str>,
}

impl<'c> Section<'c> {
    pub(super) fn new(at: &'c Cursor<'c>, entries: &'c [(NodeId, NodeId)]) -> Self {
        Self {
            at,
            entries,
            seen: vec![false; entries.len()],
            asked: Vec::new(),
        }
    }

    /// The section's own place.
    #[must_use]
    pub fn at(&self) -> &'c Cursor<'c> {
        self.at
    }

    /// The value of `key`; `None` when it is absent, null or empty.
    pub fn take(&mut self, key: &'static str) -> Option<Cursor<'c>> {
        self.asked.push(key);
        let index = self.at.find(self.entries, key)?;
        let &(name, value) = self.entries.get(index)?;
        *self.seen.get_mut(index)? = true;
        Some(self.at.entry(name, value)).filter(|value| !value.is_absent())
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// It is not; told at the section's beginning.
    pub fn require(&mut self, key: &'static str) -> Result<Cursor<'c>, ConfigError> {
        self.take(key)
            .ok_or_else(|| self.at.missing(key, Reason::Missing))
    }

    /// A boolean, or what it is when absent.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn boolean(&mut self, key: &'static str, absent: bool) -> Result<bool, ConfigError> {
        self.take(key).map_or(Ok(absent), |value| value.boolean())
    }

    /// A text, unless absent.
    ///
    /// # Errors
    /// A list or a mapping stands there.
    pub fn text(&mut self, key: &'static str) -> Result<Option<Box<str>>, ConfigError> {
        let value = self.take(key);
        value.map(|value| value.text().map(Box::from)).transpose()
    }

    /// An integer of 32 bits, or what it is when absent.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn number(&mut self, key: &'static str, absent: u32) -> Result<u32, ConfigError> {
        self.take(key).map_or(Ok(absent), |value| {
            value.integer(0..=u32::MAX, "a number (0 to 4294967295)")
        })
    }

    /// What `parse` makes of each item of a list; none when absent.
    ///
    /// # Errors
    /// No list, or what `parse` says.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        mut parse: impl FnMut(&Cursor<'_>) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        match self.take(key) {
            Some(list) => list.items()?.map(|item| parse(&item)).collect(),
            None => Ok(Vec::new()),
        }
    }

    /// Address prefixes.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn prefixes(&mut self, key: &'static str) -> Result<Vec<Prefix>, ConfigError> {
        self.list(key, |item| item.prefix())
    }

    /// Reports those of `keys` that are there as known but not served.
    pub fn not_implemented(&mut self, keys: &[&'static str], warnings: &mut Warnings) {
        for &key in keys {
            if let Some(value) = self.take(key) {
                warnings.note(&value, Remark::NotImplemented);
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self, warnings: &mut Warnings) {
        for (&(name, _), seen) in self.entries.iter().zip(&self.seen) {
            if *seen {
                continue;
            }
            // Told at the key: its value may be an alias from elsewhere.
            let (text, at) = self.at.entry_key(name);
            warnings.note_unknown(&at, || nearest(text, &self.asked));
        }
    }
}
