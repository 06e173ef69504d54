//! How other threads reach the rules: what they ask runs on the broker's thread; what they change is kept.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};

use super::Router;
use super::definition::BadRule;
use super::engine::Engine;
use super::feed::Feed;
use super::options::Options;
use super::outside::Outside;
use super::resource;
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
    /// Where resources reach, once there is a broker.
    outside: OnceLock<Arc<Outside>>,
    /// One keeps at a time, so that an older document never follows a newer.
    keeping: Mutex<()>,
}

impl Desk {
    /// A desk for a broker that is to come.
    #[must_use]
    pub fn new(keep: Keep, node: &str) -> Self {
        let remote = Remote::default();
        Self {
            feed: Feed::new(remote.clone(), node),
            remote,
            keep,
            outside: OnceLock::new(),
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
    pub fn install(
        &self,
        kept: Value,
        router: Arc<dyn Router>,
        outside: &Arc<Outside>,
    ) -> Result<(), DeskError> {
        let feed = Arc::clone(&self.feed);
        let outside = Arc::clone(self.outside.get_or_init(|| Arc::clone(outside)));
        self.remote.ask(move |broker, _| {
            let mut engine = Engine::new(feed, router);
            engine.reach(outside);
            engine.load(&kept);
            broker.set_hook(Box::new(engine));
        })?;
        Ok(())
    }

    /// Follows a new configuration.
    pub fn follow(&self, options: &Options) {
        if let Some(outside) = self.outside.get() {
            outside.follow(options);
        }
        let obeys = options.state.is_some_and(|state| state.commands);
        let told = self.remote.tell(move |broker, _| {
            let packet_max = broker.limits().packet_bytes_max;
            broker.with_hook(|engine: &mut Engine| {
                engine.obey(obeys);
                engine.bound(packet_max);
            });
        });
        if !told && obeys {
            log::warn!("commands by topic are not heard: the broker is too busy, or does not run");
        }
    }

    /// Tries a resource without keeping it. Blocks, for seconds.
    ///
    /// # Errors
    /// [`BadRule`], or that no broker runs.
    pub fn try_resource(&self, asked: &Map<String, Value>) -> Result<(), BadRule> {
        let outside = self.outside.get();
        let outside = outside.ok_or(BadRule::Dead("the broker does not run".into()))?;
        resource::try_resource(asked, outside, &self.feed)
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
