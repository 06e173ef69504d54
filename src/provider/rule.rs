//! A rule provider: its options, its set, and the file that it comes from.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::entries::{self, Entries, ReadError};
use super::http::Connect;
use super::options::{RuleProviderOptions, Source};
use super::resource::{Limits, PathOutside, ProviderError, Resource};
use crate::outbound::BoxFuture;
use crate::platform::blocking::blocking;
use crate::provider::Provider;
use crate::rules::set::RuleSetBuilder;

/// How long a download may take, as in mihomo but for slow lines.
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);

/// A provider.
pub struct RuleProvider {
    options: RuleProviderOptions,
    /// Its file, where it has one.
    resource: Option<Resource>,
}

impl RuleProvider {
    /// A provider that has loaded nothing yet. Files lie in `directory`.
    ///
    /// # Errors
    /// [`PathOutside`].
    pub fn new(options: RuleProviderOptions, directory: &Path) -> Result<Self, PathOutside> {
        let name = format!("rule provider {}", options.set.name()).into();
        let limits = Limits {
            size: entries::size_max(options.size_limit),
            time: DOWNLOAD_TIME,
        };
        let resource = match &options.source {
            Source::Inline(_) => None,
            // The user's own file may lie anywhere, as in mihomo.
            Source::File(path) => Some(Resource::of_file(name, directory.join(path), limits)),
            Source::Http(download) => {
                let place = Path::new("rules").join(&*download.hash);
                let (download, interval) = (download.clone(), options.interval);
                let resource =
                    Resource::of_server(name, download, directory, &place, interval, limits)?;
                Some(resource)
            }
        };
        Ok(Self { options, resource })
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
        self.resource.as_ref()?.written()
    }

    fn put(&self, loaded: Entries) {
        if let Some((line, why)) = &loaded.first_skipped {
            let (name, skipped) = (self.name(), loaded.skipped);
            log::warn!(
                "rule provider {name}: {skipped} entries passed over, the first in line {line}: {why}"
            );
        }
        self.options.set.replace(Arc::new(loaded.set));
    }
}

impl Provider for RuleProvider {
    fn resource(&self) -> Option<&Resource> {
        self.resource.as_ref()
    }

    fn load(&self) -> Result<bool, ReadError> {
        let Some(resource) = &self.resource else {
            return Ok(false);
        };
        let loaded = resource.read(|file| read(&self.options, file))?;
        self.put(loaded);
        Ok(true)
    }

    fn refresh<'a>(
        self: Arc<Self>,
        way: &'a dyn Connect,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move {
            let me = Arc::clone(&self);
            match &self.resource {
                Some(resource) if resource.is_fetched() => {
                    let fetched = resource.fetch(way, move |file| read(&me.options, file));
                    let fetched = fetched.await?;
                    Ok(fetched.map(|new| self.put(new)).is_some())
                }
                _ => {
                    let loading = blocking(move || me.load());
                    Ok(loading.await.map_err(io::Error::from)??)
                }
            }
        })
    }
}

fn read(options: &RuleProviderOptions, source: File) -> Result<Entries, ReadError> {
    let builder = RuleSetBuilder::new(options.set.behavior(), &options.geodata);
    let source = BufReader::new(source);
    entries::read(source, options.format, builder, options.size_limit)
}
