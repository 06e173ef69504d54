//! Geodata of the running configuration: which databases its rules need, what is missing, and how
//! they are kept new.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::providers::{AGAIN_FIRST, AGAIN_LAST};
use crate::config::{Config, GeoUse};
use crate::platform::blocking::blocking;
use crate::platform::clock;
use crate::provider::Provider;
use crate::provider::entries::ReadError;
use crate::provider::geo::{Database, GeoDatabase};
use crate::provider::http::Connect;
use crate::provider::resource::PathOutside;

/// How often it is looked whether a rule provider has brought new categories.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The databases that the configuration's rules may ask, none of them read yet.
///
/// # Errors
/// [`PathOutside`].
pub fn databases(
    config: &Config,
    directory: &Path,
) -> Result<Arc<[Arc<GeoDatabase>]>, PathOutside> {
    let all = Database::ALL.into_iter();
    let open = |database| {
        let (options, categories) = (&config.geodata, &config.geo_categories);
        GeoDatabase::new(database, options, categories, directory).map(Arc::new)
    };
    all.map(open).collect()
}

/// Reads what is needed of the databases on disk, and tells what some rule asks for in vain: a line
/// each, with the place of the rule. Blocks.
pub fn load(uses: &[GeoUse], databases: &[Arc<GeoDatabase>]) -> Vec<String> {
    let mut wanting = Vec::new();
    for database in databases.iter().filter(|database| database.is_needed()) {
        let name = database.resource().map_or("", |resource| resource.name());
        let why = match database.load() {
            Ok(_) => format!("{name} has no such category"),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                format!("{name} is not there")
            }
            Err(error) => format!("{name}: {error}"),
        };
        let sets = database.sets();
        for used in uses {
            let ours = sets.iter().any(|set| Arc::ptr_eq(set, &used.set));
            if ours && used.set.set.loaded().is_none() {
                wanting.push(format!("{}: {}: {why}", used.place, used.set.set.name()));
            }
        }
    }
    wanting
}

/// Fetches a database when it is missing or too old, and reads it again when a rule provider has
/// brought new categories.
pub async fn follow(database: Arc<GeoDatabase>, way: Arc<dyn Connect>, changed: Arc<Notify>) {
    let mut again = AGAIN_FIRST;
    loop {
        if database.has_new_categories() {
            let reading = Arc::clone(&database);
            if let Ok(Ok(_)) = blocking(move || reading.load()).await {
                changed.notify_one();
            }
        }
        let resource = database.resource().filter(|resource| resource.is_fetched());
        let good = resource.map_or(Some(LOOK_EVERY), |resource| {
            resource.good_for(clock::unix_time())
        });
        let good = good.filter(|_| database.is_needed()).unwrap_or(LOOK_EVERY);
        if !good.is_zero() {
            tokio::time::sleep(good.min(LOOK_EVERY)).await;
            continue;
        }
        match Arc::clone(&database).refresh(&*way).await {
            Ok(new) => {
                again = AGAIN_FIRST;
                if new {
                    let name = database.resource().map_or("", |resource| resource.name());
                    log::info!("{name}: fetched");
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
