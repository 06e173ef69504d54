//! The rule providers of the running configuration: loaded before its rules decide, followed after.
//!
//! A provider that cannot be had keeps nothing from starting: its set matches nothing, or what it
//! held before. A set that has changed wakes the supervisor, which makes offload forget.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::Config;
use crate::provider::entries::ReadError;
use crate::provider::options::Source;
use crate::provider::rule::RuleProvider;

/// How often a provider's own file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The providers in force. Table: swapped by a reload.
#[derive(Default)]
pub struct Providers {
    list: RwLock<Arc<[Arc<RuleProvider>]>>,
    changed: Arc<Notify>,
}

/// The tasks that follow the providers of one configuration; they end with it.
pub struct Following(Vec<JoinHandle<()>>);

impl Drop for Following {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Providers {
    /// The rule providers, in the order of the file.
    pub fn list(&self) -> Arc<[Arc<RuleProvider>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a set has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Loads what the configuration's providers have on disk, before its rules are put in force.
    pub async fn load(config: &Config, directory: &Path) -> Arc<[Arc<RuleProvider>]> {
        let list: Arc<[Arc<RuleProvider>]> = config
            .rule_providers
            .iter()
            .map(|options| Arc::new(RuleProvider::new(options.clone(), directory)))
            .collect();
        for provider in list.iter().map(Arc::clone) {
            // What is wrong it has logged.
            let _loaded = spawn_blocking(move || provider.load()).await;
        }
        list
    }

    /// Puts loaded providers in the place of those before, and follows them.
    pub fn replace(&self, list: Arc<[Arc<RuleProvider>]>) -> Following {
        let tasks = list
            .iter()
            .filter(|provider| matches!(provider.options().source, Source::File(_)))
            .map(|provider| tokio::spawn(follow(Arc::clone(provider), Arc::clone(&self.changed))));
        let tasks = tasks.collect();
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        Following(tasks)
    }

    /// Loads a provider anew; the supervisor hears of it. Blocks.
    ///
    /// # Errors
    /// What is wrong with its source; the set is as it was.
    pub fn refresh(&self, provider: &RuleProvider) -> Result<(), ReadError> {
        if provider.load()? {
            self.changed.notify_one();
        }
        Ok(())
    }
}

/// Reads a file again whenever it is another one.
async fn follow(provider: Arc<RuleProvider>, changed: Arc<Notify>) {
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
