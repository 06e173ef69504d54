//! A rule provider: its options, its set, and when that was last loaded.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entries::{self, Entries, ReadError};
use super::file;
use super::options::{RuleProviderOptions, Source};

/// A provider. Its state is a table of one row: few ask, and rarely.
pub struct RuleProvider {
    options: RuleProviderOptions,
    /// Its file, where it has one.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// When what is in the set was written, since 1970.
    written: Option<Duration>,
    /// Whether its being unusable was logged since it last was usable.
    told: bool,
}

impl RuleProvider {
    /// A provider that has loaded nothing yet. Files lie in `directory`.
    #[must_use]
    pub fn new(options: RuleProviderOptions, directory: &Path) -> Self {
        let path = match &options.source {
            Source::Inline(_) => None,
            // The user's own file may lie anywhere, as in mihomo.
            Source::File(path) => Some(directory.join(path)),
        };
        Self {
            options,
            path,
            state: Mutex::default(),
        }
    }

    /// What the configuration says.
    #[must_use]
    pub fn options(&self) -> &RuleProviderOptions {
        &self.options
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.options.set.name()
    }

    /// When its entries were written, since 1970; `None` until it is loaded.
    #[must_use]
    pub fn updated(&self) -> Option<Duration> {
        self.state().written
    }

    /// Whether its file is another than the one that was loaded.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let written = self.path.as_deref().map(file::written);
        matches!(written, Some(Ok(time)) if self.state().written != Some(time))
    }

    /// Reads its file into the set; whether there was one to read. Blocks.
    ///
    /// # Errors
    /// [`ReadError`]; the set is as it was.
    pub fn load(&self) -> Result<bool, ReadError> {
        let Some(path) = &self.path else {
            return Ok(false);
        };
        let loaded = self.load_from(path);
        match &loaded {
            Ok(Entries {
                first_skipped: Some((line, why)),
                skipped,
                ..
            }) => log::warn!(
                "rule provider {}: {skipped} entries passed over, the first in line {line}: {why}",
                self.name()
            ),
            Ok(_) => {}
            Err(error) => self.tell(error),
        }
        self.options.set.replace(Arc::new(loaded?.set));
        Ok(true)
    }

    fn load_from(&self, path: &Path) -> Result<Entries, ReadError> {
        // Before reading: a file that changes meanwhile is read again.
        let written = file::written(path)?;
        let source = BufReader::new(File::open(path)?);
        let options = &self.options;
        let behavior = options.set.behavior();
        let loaded = entries::read(source, options.format, behavior, options.size_limit);
        let mut state = self.state();
        if loaded.is_ok() {
            state.told = false;
        }
        // A broken file is not read again until it changes.
        state.written = Some(written);
        loaded
    }

    /// Logs, once until it works again, that the provider cannot be had.
    fn tell(&self, why: &dyn std::fmt::Display) {
        let told = std::mem::replace(&mut self.state().told, true);
        if !told {
            let instead = match self.options.set.loaded() {
                Some(_) => "its rules stay as they were",
                None => "its rules match nothing",
            };
            log::warn!("rule provider {}: {why}; {instead}", self.name());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
