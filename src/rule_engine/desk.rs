//! How other threads reach the rules: what they ask runs on the broker's thread; what they change is kept.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::Router;
use super::engine::Engine;
use super::feed::Feed;
use crate::mqtt::Time;
use crate::mqtt::remote::{Remote, Unavailable};

/// Why the rules cannot be reached.
#[derive(Debug)]
pub enum DeskError {
    /// The broker does not answer, or runs without rules.
    Broker(Unavailable),
    /// They are changed, but cannot be kept.
    Kept(io::Error),
}

impl fmt::Display for DeskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(why) => why.fmt(f),
            Self::Kept(error) => write!(f, "the change cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for DeskError {}

impl From<Unavailable> for DeskError {
    fn from(why: Unavailable) -> Self {
        Self::Broker(why)
    }
}

/// Where the document of all rules is kept, whole.
type Keep = Box<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// The rules from afar.
pub struct Desk {
    remote: Remote,
    feed: Arc<Feed>,
    keep: Keep,
    /// One keeps at a time, so that an older document never follows a newer.
    keeping: Mutex<()>,
}

impl Desk {
    /// A desk for a broker that is to come.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        let remote = Remote::default();
        Self {
            feed: Feed::new(remote.clone()),
            remote,
            keep,
            keeping: Mutex::new(()),
        }
    }

    /// The broker, whether it has rules or not.
    #[must_use]
    pub fn broker(&self) -> &Remote {
        &self.remote
    }

    /// The way of the router's events.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Puts an engine with the kept rules into a broker that has just begun. Blocks.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn install(&self, kept: Value, router: Arc<dyn Router>) -> Result<(), DeskError> {
        let feed = Arc::clone(&self.feed);
        self.remote.ask(move |broker, _| {
            let mut engine = Engine::new(feed, router);
            engine.load(&kept);
            broker.set_hook(Box::new(engine));
        })?;
        Ok(())
    }

    /// Asks. Blocks.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Engine, Time) -> T + Send + 'static,
    ) -> Result<T, DeskError> {
        let answer = self
            .remote
            .ask(move |broker, now| broker.with_hook(|engine: &mut Engine| call(engine, now)))?;
        answer.ok_or(DeskError::Broker(Unavailable::Off))
    }

    /// Asks for a change and keeps what is then. Blocks.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn change<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Engine, Time) -> T + Send + 'static,
    ) -> Result<T, DeskError> {
        let _turn = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, document) = self.ask(move |engine, now| {
            let result = call(engine, now);
            (result, engine.document())
        })?;
        (self.keep)(document.to_string().as_bytes()).map_err(DeskError::Kept)?;
        Ok(result)
    }
}
