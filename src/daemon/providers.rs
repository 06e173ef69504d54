//! The providers of the running configuration: loaded before its rules decide, followed after.
//!
//! A provider that cannot be had keeps nothing from starting: its set matches nothing and its nodes
//! are none, or what they were before. What has changed wakes the supervisor: sets make offload forget,
//! nodes have the outbounds built anew.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Failure, command, geodata};
use crate::config::Config;
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::provided::ProviderNodes;
use crate::outbound::{BoxFuture, Stream};
use crate::platform::blocking::blocking;
use crate::platform::clock;
use crate::provider::Provider;
use crate::provider::geo::{Database, GeoDatabase};
use crate::provider::http::Connect;
use crate::provider::proxy::ProxyProvider;
use crate::provider::resource::{ProviderError, Resource};
use crate::provider::rule::RuleProvider;
use crate::rules::set::Behavior;
use crate::tunnel::Tunnel;

/// How often a provider's own file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How soon a download is tried again after a failure, at first and at last.
pub const AGAIN_FIRST: Duration = Duration::from_secs(5);
pub const AGAIN_LAST: Duration = Duration::from_secs(600);

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
    rules: RwLock<Arc<[Arc<RuleProvider>]>>,
    proxies: RwLock<Arc<[Arc<ProxyProvider>]>>,
    databases: RwLock<Arc<[Arc<GeoDatabase>]>>,
    following: Mutex<Following>,
    changed: Arc<Notify>,
    nodes_changed: Arc<Notify>,
    way: Arc<dyn Connect>,
    /// Table: where the rules stand in the file as it was written then; made when it is asked for.
    places: Mutex<(Option<SystemTime>, Vec<u32>)>,
}

/// What a configuration's providers have on disk.
pub struct Loaded {
    rules: Arc<[Arc<RuleProvider>]>,
    proxies: Arc<[Arc<ProxyProvider>]>,
    databases: Arc<[Arc<GeoDatabase>]>,
}

impl Loaded {
    /// The nodes that there are, for the registry.
    pub fn nodes(&self) -> Vec<ProviderNodes> {
        self.proxies.iter().map(|known| known.nodes()).collect()
    }
}

/// The tasks that follow the providers of one configuration; they end with it.
#[derive(Default)]
struct Following {
    tasks: Vec<JoinHandle<()>>,
    /// The databases that have a task.
    databases: Vec<Database>,
}

impl Drop for Following {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Providers {
    /// No providers yet; their downloads will go through `tunnel`.
    pub fn new(tunnel: Arc<OnceLock<Weak<Tunnel>>>) -> Self {
        Self {
            rules: RwLock::default(),
            proxies: RwLock::default(),
            databases: RwLock::default(),
            following: Mutex::default(),
            changed: Arc::default(),
            nodes_changed: Arc::default(),
            way: Arc::new(Way(tunnel)),
            places: Mutex::default(),
        }
    }

    /// The way of downloads, for others who reach servers.
    pub fn way(&self) -> Arc<dyn Connect> {
        Arc::clone(&self.way)
    }

    /// The rule providers, in the order of the file.
    pub fn list(&self) -> Arc<[Arc<RuleProvider>]> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The proxy providers, in the order of the file.
    pub fn proxies(&self) -> Arc<[Arc<ProxyProvider>]> {
        let proxies = self.proxies.read();
        Arc::clone(&proxies.unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nodes have changed.
    pub async fn nodes_changed(&self) {
        self.nodes_changed.notified().await;
    }

    /// Waits until a set has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The line of a rule in the configuration file, which is read when it has changed.
    pub fn line_of_rule(&self, file: &Path, index: usize) -> Option<u32> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, lines) = &mut *places;
        let written = std::fs::metadata(file).ok()?.modified().ok();
        if *read != written {
            *lines = Config::lines_of_rules(&command::read_config(file).ok()?)?;
            *read = written;
        }
        lines.get(index).copied()
    }

    /// Says that decisions may be others than before.
    pub fn tell_changed(&self) {
        self.changed.notify_one();
    }

    /// Loads what the configuration's providers and databases have on disk, before its rules are put
    /// in force. `origin` is where the configuration came from.
    ///
    /// # Errors
    /// A path that may not be written; without `geodata-fail-soft` what rules ask of geodata in vain.
    pub async fn load(config: &Config, directory: &Path, origin: &str) -> Result<Loaded, Failure> {
        let options = config.rule_providers.iter();
        let rules: Arc<[Arc<RuleProvider>]> = options
            .map(|options| RuleProvider::new(options.clone(), directory).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for provider in rules.iter().map(Arc::clone) {
            // What is wrong it has logged.
            let _loaded = blocking(move || provider.load()).await;
        }
        let options = config.proxy_providers.iter();
        let proxies: Arc<[Arc<ProxyProvider>]> = options
            .map(|options| ProxyProvider::new(options.clone(), directory).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for provider in proxies.iter().map(Arc::clone) {
            // Likewise.
            let _loaded = blocking(move || provider.load()).await;
        }
        let databases = geodata::databases(config, directory)?;
        let (uses, reading) = (config.geo_uses.clone(), Arc::clone(&databases));
        let wanting = blocking(move || geodata::load(&uses, &reading)).await?;
        for line in wanting {
            if !config.geodata.fail_soft {
                return Err(format!("{origin}:{line}").into());
            }
            log::warn!("{origin}:{line}; the rule matches nothing");
        }
        Ok(Loaded {
            rules,
            proxies,
            databases,
        })
    }

    /// Puts what was loaded in the place of what was before, and follows it.
    pub fn replace(&self, loaded: Loaded) {
        let Loaded {
            rules,
            proxies,
            databases,
        } = loaded;
        let tasks = rules.iter();
        let tasks = tasks.filter_map(|known| self.follow(Arc::clone(known) as _, &self.changed));
        let nodes = proxies.iter();
        let nodes =
            nodes.filter_map(|known| self.follow(Arc::clone(known) as _, &self.nodes_changed));
        // Rules of providers may ask for categories that nobody asked for before.
        let may_grow = rules.iter().any(|provider| {
            let classical = provider.options().set.behavior() == Behavior::Classical;
            classical && provider.resource().is_some()
        });
        let followed = databases
            .iter()
            .filter(|database| may_grow || database.is_needed());
        let mut following = Following {
            tasks: tasks.chain(nodes).collect(),
            databases: Vec::new(),
        };
        for database in followed {
            self.follow_database(database, &mut following);
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        *self.proxies.write().unwrap_or_else(PoisonError::into_inner) = proxies;
        *self
            .databases
            .write()
            .unwrap_or_else(PoisonError::into_inner) = databases;
        let mut before = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *before = following;
    }

    /// Keeps the databases up to date of which a category was asked for since.
    pub fn follow_geodata(&self) {
        let databases = self
            .databases
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for database in databases.iter().filter(|database| database.is_needed()) {
            if !following.databases.contains(&database.database()) {
                self.follow_database(database, &mut following);
            }
        }
    }

    fn follow_database(&self, database: &Arc<GeoDatabase>, following: &mut Following) {
        let (way, changed) = (Arc::clone(&self.way), Arc::clone(&self.changed));
        let task = geodata::follow(Arc::clone(database), way, changed).boxed();
        following.tasks.push(tokio::spawn(task));
        following.databases.push(database.database());
    }

    /// A task that keeps a provider up to date, where something can change.
    fn follow(&self, provider: Arc<dyn Provider>, changed: &Arc<Notify>) -> Option<JoinHandle<()>> {
        let changed = Arc::clone(changed);
        let task = match provider.resource()?.is_fetched() {
            false => follow_file(provider, changed).boxed(),
            true => follow_server(provider, Arc::clone(&self.way), changed).boxed(),
        };
        Some(tokio::spawn(task))
    }

    /// Loads a provider's nodes anew; whether they are new. The supervisor must be told.
    ///
    /// # Errors
    /// What is wrong with its source; the nodes are as they were.
    pub async fn refresh_nodes(&self, provider: Arc<ProxyProvider>) -> Result<bool, ProviderError> {
        provider.refresh(&*self.way).await
    }

    /// Fetches every database in use anew.
    ///
    /// # Errors
    /// Of the last that failed; its categories are as they were.
    pub async fn refresh_geodata(&self) -> Result<(), ProviderError> {
        let databases = self
            .databases
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut done = Ok(());
        for database in databases.iter().filter(|database| database.is_needed()) {
            done = self.refresh(Arc::clone(database) as _).await.and(done);
        }
        done
    }

    /// Loads a provider anew; the supervisor hears of it.
    ///
    /// # Errors
    /// What is wrong with its source; the set is as it was.
    pub async fn refresh(&self, provider: Arc<dyn Provider>) -> Result<(), ProviderError> {
        if provider.refresh(&*self.way).await? {
            self.changed.notify_one();
        }
        Ok(())
    }
}

/// What logs call it.
fn name_of(provider: &dyn Provider) -> &str {
    provider.resource().map_or("", Resource::name)
}

/// Reads a file again whenever it is another one.
async fn follow_file(provider: Arc<dyn Provider>, changed: Arc<Notify>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let again = Arc::clone(&provider);
        let look = move || {
            let changed = again.resource().is_some_and(Resource::is_outdated);
            changed && again.load().is_ok()
        };
        if blocking(look).await.unwrap_or(false) {
            log::info!("{}: loaded again", name_of(&*provider));
            changed.notify_one();
        }
    }
}

/// Fetches a set when there is none, and again when its copy is too old.
async fn follow_server(provider: Arc<dyn Provider>, way: Arc<dyn Connect>, changed: Arc<Notify>) {
    let mut again = AGAIN_FIRST;
    let good_for = || provider.resource()?.good_for(clock::unix_time());
    while let Some(good) = good_for() {
        if !good.is_zero() {
            tokio::time::sleep(good).await;
            continue;
        }
        match Arc::clone(&provider).refresh(&*way).await {
            Ok(new) => {
                again = AGAIN_FIRST;
                if new {
                    log::info!("{}: fetched", name_of(&*provider));
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
