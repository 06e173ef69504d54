//! A file that others keep: read from disk, fetched from a server when it is missing or old, and
//! replaced there whole.
//!
//! What is made of it stays in force, and so does the copy, until a new one has been read whole.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entries::ReadError;
use super::file::{self, Part};
use super::http::{self, Answer, Connect, FetchError, Request};
use super::options::Download;
use crate::platform::blocking::blocking;
use crate::platform::clock;

/// What servers are told of us: mihomo's name, which some of them insist on.
const AGENT: &str = concat!("clash.meta/", env!("CARGO_PKG_VERSION"));

/// Why there is nothing new.
#[derive(Debug)]
pub enum ProviderError {
    /// What came is not what was asked for.
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

/// The path of something that is fetched leads out of the working directory (clash-api.md 4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathOutside(Box<str>);

impl fmt::Display for PathOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: its path leads out of the working directory", self.0)
    }
}

impl std::error::Error for PathOutside {}

/// What a resource may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub size: u64,
    /// How long a download may take.
    pub time: Duration,
}

/// The file. Its state is a table of one row: few ask, and rarely.
pub struct Resource {
    /// What logs call it: `rule provider ads`.
    name: Box<str>,
    path: PathBuf,
    download: Option<Box<Download>>,
    /// How old a copy may get. Zero: for ever.
    interval: Duration,
    limits: Limits,
    state: Mutex<State>,
    /// What the server said of a subscription when it gave the copy.
    quota: Mutex<Option<Box<str>>>,
    /// What logs say of the content when there is nothing new: that of before stays, or there is none.
    consequences: (&'static str, &'static str),
    /// One download at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// When what was read last had been written, since 1970.
    written: Option<Duration>,
    /// Whether what was made of it is in force.
    loaded: bool,
    /// Whether its being unusable was logged since it last was usable.
    told: bool,
}

impl Resource {
    /// Somebody else's file, which is only ever read.
    #[must_use]
    pub fn of_file(name: Box<str>, path: PathBuf, limits: Limits) -> Self {
        Self {
            name,
            path,
            download: None,
            interval: Duration::ZERO,
            limits,
            state: Mutex::default(),
            quota: Mutex::default(),
            consequences: ("its rules stay as they were", "its rules match nothing"),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// A copy of what a server has, below `directory`: where the download says, else at
    /// `default_path` there.
    ///
    /// # Errors
    /// [`PathOutside`].
    pub fn of_server(
        name: Box<str>,
        download: Box<Download>,
        directory: &Path,
        default_path: &Path,
        interval: Duration,
        limits: Limits,
    ) -> Result<Self, PathOutside> {
        let place = download.path.as_deref().unwrap_or(default_path);
        let Some(path) = file::inside(directory, place) else {
            return Err(PathOutside(name));
        };
        Ok(Self {
            interval,
            download: Some(download),
            ..Self::of_file(name, path, limits)
        })
    }

    /// The same, holding something else than rules.
    #[must_use]
    pub fn with_consequences(mut self, stays: &'static str, nothing: &'static str) -> Self {
        self.consequences = (stays, nothing);
        self
    }

    /// What the server said of a subscription when it last gave something new.
    #[must_use]
    pub fn quota(&self) -> Option<Box<str>> {
        let quota = self.quota.lock();
        quota.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What logs call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it comes from a server.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.download.is_some()
    }

    /// When what was read last had been written, since 1970.
    #[must_use]
    pub fn written(&self) -> Option<Duration> {
        self.state().written
    }

    /// Whether the file is another than the one that was read.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let written = file::written(&self.path);
        matches!(written, Ok(time) if self.state().written != Some(time))
    }

    /// How long the copy is good yet; `None`: for ever. Never longer than the interval, even if the
    /// copy was written while the clock ran ahead.
    #[must_use]
    pub fn good_for(&self, now: Duration) -> Option<Duration> {
        let state = *self.state();
        match state.written.filter(|_| state.loaded) {
            None => Some(Duration::ZERO),
            Some(_) if self.interval.is_zero() => None,
            Some(written) => {
                let age = now.saturating_sub(written);
                Some(self.interval.saturating_sub(age))
            }
        }
    }

    /// Makes something of the file. Blocks.
    ///
    /// # Errors
    /// [`ReadError`]; logged, but for a file that is still to be fetched.
    pub fn read<T>(&self, read: impl FnOnce(File) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let done = self.try_read(read);
        match &done {
            Ok(_) => {}
            Err(ReadError::Io(error))
                if error.kind() == io::ErrorKind::NotFound && self.is_fetched() => {}
            Err(error) => self.tell(error),
        }
        done
    }

    fn try_read<T>(&self, read: impl FnOnce(File) -> Result<T, ReadError>) -> Result<T, ReadError> {
        // Before reading: a file that changes meanwhile is read again.
        let written = file::written(&self.path)?;
        let done = read(File::open(&self.path)?);
        let mut state = self.state();
        if done.is_ok() {
            (state.loaded, state.told) = (true, false);
        }
        // A broken file is not read again until it changes.
        state.written = Some(written);
        done
    }

    /// Fetches it and makes something of it; `None`: the copy that we have is the newest.
    ///
    /// # Errors
    /// [`ProviderError`], logged; the copy is as it was.
    pub async fn fetch<T: Send + 'static>(
        &self,
        way: &dyn Connect,
        read: impl FnOnce(File) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<Option<T>, ProviderError> {
        let _alone = self.fetching.lock().await;
        let fetched = Box::pin(self.try_fetch(way, read)).await;
        if let Err(error) = &fetched {
            self.tell(error);
        }
        fetched
    }

    async fn try_fetch<T: Send + 'static>(
        &self,
        way: &dyn Connect,
        read: impl FnOnce(File) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<Option<T>, ProviderError> {
        let Some(download) = &self.download else {
            return Ok(None);
        };
        let loaded = self.state().loaded;
        let etag = loaded.then(|| file::etag(&self.path, &download.hash));
        let etag = etag.flatten();
        let request = Request {
            url: &download.url,
            proxy: download.proxy.as_deref(),
            agent: AGENT,
            fields: &download.fields,
            etag: etag.as_deref(),
            size_max: self.limits.size,
        };
        let mut part = Part::begin(&self.path)?;
        let mut sink = |piece: &[u8]| part.write(piece);
        let got = http::get(&request, way, &mut sink);
        let got = tokio::time::timeout(self.limits.time, got).await;
        match got.map_err(|_| ProviderError::TimedOut)?? {
            Answer::Unchanged => {
                file::touch(&self.path, clock::unix_time())?;
                self.have();
                Ok(None)
            }
            Answer::Body { etag, quota } => {
                let place = self.path.clone();
                // Nothing of the old is touched before the new is known to be good.
                let reading = blocking(move || {
                    let made = read(part.read()?)?;
                    part.commit(&place)?;
                    Ok::<_, ReadError>(made)
                });
                let made = reading.await.map_err(io::Error::from)??;
                self.have();
                *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
                file::remember_etag(&self.path, &download.hash, etag.as_deref())?;
                Ok(Some(made))
            }
        }
    }

    /// What is on disk is what is in force.
    fn have(&self) {
        *self.state() = State {
            written: file::written(&self.path).ok(),
            loaded: true,
            told: false,
        };
    }

    /// Logs, once until it works again, that it cannot be had.
    fn tell(&self, why: &dyn fmt::Display) {
        let mut state = self.state();
        let told = std::mem::replace(&mut state.told, true);
        if !told {
            let (stays, nothing) = self.consequences;
            let instead = if state.loaded { stays } else { nothing };
            log::warn!("{}: {why}; {instead}", self.name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
