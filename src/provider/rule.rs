//! A rule provider: its options, its set, when that was last loaded, and how it is fetched.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entries::{self, Entries, ReadError};
use super::file::{self, Part};
use super::http::{self, Answer, Connect, FetchError, Request};
use super::options::{Download, RuleProviderOptions, Source};
use crate::platform::clock;

/// How long a download may take, as in mihomo but for slow lines.
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);

/// What servers are told of us: mihomo's name, which some of them insist on.
const AGENT: &str = concat!("clash.meta/", env!("CARGO_PKG_VERSION"));

/// Why a provider has nothing new.
#[derive(Debug)]
pub enum ProviderError {
    /// Its source is no set.
    Read(ReadError),
    /// The download failed.
    Fetch(FetchError),
    /// The download took longer than it may.
    TimedOut,
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(why) => why.fmt(f),
            Self::Fetch(why) => why.fmt(f),
            Self::TimedOut => f.write_str("the download takes too long"),
        }
    }
}

impl std::error::Error for ProviderError {}

impl From<ReadError> for ProviderError {
    fn from(why: ReadError) -> Self {
        Self::Read(why)
    }
}

impl From<FetchError> for ProviderError {
    fn from(why: FetchError) -> Self {
        Self::Fetch(why)
    }
}

impl From<io::Error> for ProviderError {
    fn from(why: io::Error) -> Self {
        Self::Read(ReadError::Io(why))
    }
}

/// The path of an `http` provider leads out of the working directory (clash-api.md 4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathOutside(Box<str>);

impl fmt::Display for PathOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rule provider {}: its path leads out of the working directory",
            self.0
        )
    }
}

impl std::error::Error for PathOutside {}

/// A provider. Its state is a table of one row: few ask, and rarely.
pub struct RuleProvider {
    options: RuleProviderOptions,
    /// Its file, where it has one.
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// One download at a time.
    fetching: tokio::sync::Mutex<()>,
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
    ///
    /// # Errors
    /// [`PathOutside`].
    pub fn new(options: RuleProviderOptions, directory: &Path) -> Result<Self, PathOutside> {
        let path = match &options.source {
            Source::Inline(_) => None,
            // The user's own file may lie anywhere, as in mihomo.
            Source::File(path) => Some(directory.join(path)),
            Source::Http(download) => {
                let path = match &download.path {
                    Some(path) => file::inside(directory, path),
                    None => Some(directory.join("rules").join(&*download.hash)),
                };
                Some(path.ok_or_else(|| PathOutside(options.set.name().into()))?)
            }
        };
        Ok(Self {
            options,
            path,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
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
            // It is to be fetched first.
            Err(ReadError::Io(error))
                if error.kind() == io::ErrorKind::NotFound
                    && matches!(self.options.source, Source::Http(_)) => {}
            Err(error) => self.tell(error),
        }
        self.options.set.replace(Arc::new(loaded?.set));
        Ok(true)
    }

    /// Fetches its entries, if they are on a server, or reads its file again; whether the set is a
    /// new one.
    ///
    /// # Errors
    /// [`ProviderError`]; the set and the copy on disk are as they were.
    pub async fn refresh(self: &Arc<Self>, way: &dyn Connect) -> Result<bool, ProviderError> {
        if let (Source::Http(download), Some(path)) = (&self.options.source, &self.path) {
            let _alone = self.fetching.lock().await;
            let fetched = Box::pin(self.fetch(download, path, way)).await;
            if let Err(error) = &fetched {
                self.tell(error);
            }
            return fetched;
        }
        let me = Arc::clone(self);
        let loading = tokio::task::spawn_blocking(move || me.load());
        Ok(loading.await.map_err(io::Error::from)??)
    }

    async fn fetch(
        self: &Arc<Self>,
        download: &Download,
        path: &Path,
        way: &dyn Connect,
    ) -> Result<bool, ProviderError> {
        let loaded = self.options.set.loaded().is_some();
        let etag = loaded.then(|| file::etag(path, &download.hash)).flatten();
        let request = Request {
            url: &download.url,
            proxy: download.proxy.as_deref(),
            agent: AGENT,
            fields: &download.fields,
            etag: etag.as_deref(),
            size_max: entries::size_max(self.options.size_limit),
        };
        let mut part = Part::begin(path)?;
        let mut sink = |piece: &[u8]| part.write(piece);
        let got = tokio::time::timeout(DOWNLOAD_TIME, http::get(&request, way, &mut sink)).await;
        match got.map_err(|_| ProviderError::TimedOut)?? {
            Answer::Unchanged => {
                let now = clock::unix_time();
                file::touch(path, now)?;
                let mut state = self.state();
                (state.written, state.told) = (file::written(path).ok(), false);
                Ok(false)
            }
            Answer::Body(etag) => {
                let (me, place) = (Arc::clone(self), path.to_owned());
                // Nothing of the old is touched before the new is known to be good.
                let reading = tokio::task::spawn_blocking(move || {
                    let set = me.entries(part.read()?)?.set;
                    part.commit(&place)?;
                    me.options.set.replace(Arc::new(set));
                    let mut state = me.state();
                    (state.written, state.told) = (file::written(&place).ok(), false);
                    Ok::<_, ReadError>(())
                });
                reading.await.map_err(io::Error::from)??;
                file::remember_etag(path, &download.hash, etag.as_deref())?;
                Ok(true)
            }
        }
    }

    /// How long its copy is good yet; `None`: for ever. Never longer than the interval, even if the
    /// copy was written while the clock ran ahead.
    #[must_use]
    pub fn good_for(&self, now: Duration) -> Option<Duration> {
        let written = self.state().written;
        match written.filter(|_| self.options.set.loaded().is_some()) {
            None => Some(Duration::ZERO),
            Some(_) if self.options.interval.is_zero() => None,
            Some(written) => {
                let age = now.saturating_sub(written);
                Some(self.options.interval.saturating_sub(age))
            }
        }
    }

    fn entries(&self, source: File) -> Result<Entries, ReadError> {
        let options = &self.options;
        entries::read(
            BufReader::new(source),
            options.format,
            options.set.behavior(),
            options.size_limit,
        )
    }

    fn load_from(&self, path: &Path) -> Result<Entries, ReadError> {
        // Before reading: a file that changes meanwhile is read again.
        let written = file::written(path)?;
        let loaded = self.entries(File::open(path)?);
        let mut state = self.state();
        if loaded.is_ok() {
            state.told = false;
        }
        // A broken file is not read again until it changes.
        state.written = Some(written);
        loaded
    }

    /// Logs, once until it works again, that the provider cannot be had.
    fn tell(&self, why: &dyn fmt::Display) {
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
