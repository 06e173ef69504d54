//! The rule providers of the running configuration: loaded before its rules decide, followed after.
//!
//! A provider that cannot be had keeps nothing from starting: its set matches nothing, or what it
//! held before. A set that has changed wakes the supervisor, which makes offload forget.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::Config;
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::{BoxFuture, Stream};
use crate::platform::clock;
use crate::provider::http::Connect;
use crate::provider::options::Source;
use crate::provider::rule::{PathOutside, ProviderError, RuleProvider};
use crate::tunnel::Tunnel;

/// How often a provider's own file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How soon a download is tried again after a failure, at first and at last.
const AGAIN_FIRST: Duration = Duration::from_secs(5);
const AGAIN_LAST: Duration = Duration::from_secs(600);

/// Downloads go through the tunnel as flows of type Inner.
struct Way(Arc<OnceLock<Weak<Tunnel>>>);

impl Connect for Way {
    fn connect<'a>(
        &'a self,
        to: &'a Endpoint,
        proxy: Option<&'a str>,
    ) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let tunnel = self.0.get().and_then(Weak::upgrade);
            let tunnel = tunnel.ok_or(io::ErrorKind::NotConnected)?;
            let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
            let inbound = Arc::from("");
            let mut metadata = Metadata::new(
                Network::Tcp,
                InboundType::Inner,
                &inbound,
                nobody,
                to.clone(),
            );
            metadata.special_proxy = proxy.map(Arc::from);
            tunnel.open(metadata).await.map_err(io::Error::other)
        })
    }
}

/// The providers in force. Table: swapped by a reload.
pub struct Providers {
    list: RwLock<Arc<[Arc<RuleProvider>]>>,
    following: Mutex<Following>,
    changed: Arc<Notify>,
    way: Arc<Way>,
}

/// The tasks that follow the providers of one configuration; they end with it.
#[derive(Default)]
struct Following(Vec<JoinHandle<()>>);

impl Drop for Following {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Providers {
    /// No providers yet; their downloads will go through `tunnel`.
    pub fn new(tunnel: Arc<OnceLock<Weak<Tunnel>>>) -> Self {
        Self {
            list: RwLock::default(),
            following: Mutex::default(),
            changed: Arc::default(),
            way: Arc::new(Way(tunnel)),
        }
    }

    /// The rule providers, in the order of the file.
    pub fn list(&self) -> Arc<[Arc<RuleProvider>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a set has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Loads what the configuration's providers have on disk, before its rules are put in force.
    ///
    /// # Errors
    /// A path that may not be written.
    pub async fn load(
        config: &Config,
        directory: &Path,
    ) -> Result<Arc<[Arc<RuleProvider>]>, PathOutside> {
        let options = config.rule_providers.iter();
        let list: Arc<[Arc<RuleProvider>]> = options
            .map(|options| RuleProvider::new(options.clone(), directory).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for provider in list.iter().map(Arc::clone) {
            // What is wrong it has logged.
            let _loaded = spawn_blocking(move || provider.load()).await;
        }
        Ok(list)
    }

    /// Puts loaded providers in the place of those before, and follows them.
    pub fn replace(&self, list: Arc<[Arc<RuleProvider>]>) {
        let tasks = list.iter().filter_map(|provider| {
            let (provider, changed) = (Arc::clone(provider), Arc::clone(&self.changed));
            match provider.options().source {
                Source::Inline(_) => None,
                Source::File(_) => Some(tokio::spawn(follow_file(provider, changed))),
                Source::Http(_) => {
                    let way = Arc::clone(&self.way);
                    Some(tokio::spawn(follow_server(provider, way, changed)))
                }
            }
        });
        let following = Following(tasks.collect());
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        let mut before = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *before = following;
    }

    /// Loads a provider anew; the supervisor hears of it.
    ///
    /// # Errors
    /// What is wrong with its source; the set is as it was.
    pub async fn refresh(&self, provider: &Arc<RuleProvider>) -> Result<(), ProviderError> {
        if provider.refresh(&*self.way).await? {
            self.changed.notify_one();
        }
        Ok(())
    }
}

/// Reads a file again whenever it is another one.
async fn follow_file(provider: Arc<RuleProvider>, changed: Arc<Notify>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let again = Arc::clone(&provider);
        let look = move || again.is_outdated() && again.load().is_ok();
        if spawn_blocking(look).await.unwrap_or(false) {
            log::info!("rule provider {}: loaded again", provider.name());
            changed.notify_one();
        }
    }
}

/// Fetches a set when there is none, and again when its copy is too old.
async fn follow_server(provider: Arc<RuleProvider>, way: Arc<Way>, changed: Arc<Notify>) {
    let mut again = AGAIN_FIRST;
    while let Some(good) = provider.good_for(clock::unix_time()) {
        if !good.is_zero() {
            tokio::time::sleep(good).await;
            continue;
        }
        match provider.refresh(&*way).await {
            Ok(new) => {
                again = AGAIN_FIRST;
                if new {
                    log::info!("rule provider {}: fetched", provider.name());
                    changed.notify_one();
                }
            }
            // It has been logged.
            Err(_) => {
                tokio::time::sleep(again).await;
                again = (again * 2).min(AGAIN_LAST);
            }
        }
    }
}
