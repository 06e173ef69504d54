//! A proxy provider: its options, the nodes that it has, when they came, and how they are fetched.
//!
//! What a source holds is read by [`ReadNodes`], which `config` implements: nodes are written there as
//! the file's own are. A copy on disk is replaced only by one that was read and has a node.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Provider;
use super::entries::ReadError;
use super::http::Connect;
use super::options::Source;
use super::resource::{Limits, PathOutside, ProviderError, Resource};
use crate::outbound::BoxFuture;
use crate::outbound::options::{ProxyOptions, TestOptions};
use crate::outbound::provided::ProviderNodes;
use crate::platform::blocking::blocking;

/// How long a download may take.
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);

/// Bytes of a subscription, whatever the configuration allows: the reader takes no more either.
const SIZE_MAX: u64 = 2 << 20;

/// One entry of `proxy-providers:`.
#[derive(Clone)]
pub struct ProxyProviderOptions {
    /// Its name.
    pub name: Box<str>,
    /// Where the nodes come from.
    pub source: Source,
    /// `interval`: how old a copy may get. Zero: for ever.
    pub interval: Duration,
    /// `size-limit`, bytes; 0 is none but `SIZE_MAX`.
    pub size_limit: u64,
    /// `health-check`.
    pub test: TestOptions,
    /// Nodes that stand in the configuration itself.
    pub inline: Arc<[ProxyOptions]>,
    /// How the source is read.
    pub reader: Arc<dyn ReadNodes>,
}

/// Reads what a source holds.
pub trait ReadNodes: Send + Sync {
    /// The nodes in `text`.
    ///
    /// # Errors
    /// It is no list of nodes; in words that tell nothing of its content.
    fn read(&self, text: &str) -> Result<Parsed, NoNodes>;
}

/// What a source held.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The nodes that the provider has, in order.
    pub nodes: Vec<ProxyOptions>,
    /// How many entries were passed over, since they are not understood or not allowed.
    pub skipped: usize,
    /// Why the first of them was.
    pub first_skipped: Option<String>,
}

/// A source is no list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNodes {
    /// Neither YAML with `proxies` nor a list of links.
    NotAList,
    /// None of its entries is a node that this program speaks, or all were filtered out.
    Empty,
}

impl fmt::Display for NoNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAList => "neither YAML with proxies nor a list of links",
            Self::Empty => "no node left",
        })
    }
}

impl std::error::Error for NoNodes {}

/// What the server says of the subscription (`subscription-userinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes sent.
    pub upload: u64,
    /// Bytes received.
    pub download: u64,
    /// Bytes that were bought.
    pub total: u64,
    /// When it ends, seconds since 1970; 0: never.
    pub expire: u64,
}

impl Quota {
    /// Reads `upload=1; download=2; total=3; expire=4`; what is missing is 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut quota, mut found) = (Self::default(), false);
        for pair in text.split(';') {
            let Some((name, number)) = pair.split_once('=') else {
                continue;
            };
            // Some servers write fractions, or nothing.
            let whole = number.trim().split('.').next().unwrap_or_default();
            let number = whole.parse().unwrap_or(0);
            match name.trim() {
                "upload" => quota.upload = number,
                "download" => quota.download = number,
                "total" => quota.total = number,
                "expire" => quota.expire = number,
                _ => continue,
            }
            found = true;
        }
        found.then_some(quota)
    }
}

/// A provider. Its state is a table of one row: few ask, and rarely.
pub struct ProxyProvider {
    options: ProxyProviderOptions,
    resource: Option<Resource>,
    state: Mutex<State>,
}

struct State {
    nodes: Arc<[ProxyOptions]>,
    quota: Option<Quota>,
}

impl ProxyProvider {
    /// A provider that has loaded nothing yet but what is inline. Files lie in `directory`.
    ///
    /// # Errors
    /// [`PathOutside`].
    pub fn new(options: ProxyProviderOptions, directory: &Path) -> Result<Self, PathOutside> {
        let name = format!("provider {}", options.name).into();
        let limits = Limits {
            size: size_max(options.size_limit),
            time: DOWNLOAD_TIME,
        };
        let resource = match &options.source {
            Source::Inline(_) => None,
            // The user's own file may lie anywhere, as in mihomo.
            Source::File(path) => Some(Resource::of_file(name, directory.join(path), limits)),
            Source::Http(download) => {
                let place = Path::new("proxies").join(&*download.hash);
                let (download, interval) = (download.clone(), options.interval);
                let resource =
                    Resource::of_server(name, download, directory, &place, interval, limits)?;
                Some(resource)
            }
        };
        let resource = resource.map(|resource| {
            resource.with_consequences("its nodes stay as they were", "it has no nodes")
        });
        let state = State {
            nodes: Arc::clone(&options.inline),
            quota: resource
                .as_ref()
                .and_then(|resource| remembered_quota(resource.path())),
        };
        Ok(Self {
            options,
            resource,
            state: Mutex::new(state),
        })
    }

    /// What the configuration says.
    #[must_use]
    pub fn options(&self) -> &ProxyProviderOptions {
        &self.options
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// What it has, for the registry.
    #[must_use]
    pub fn nodes(&self) -> ProviderNodes {
        ProviderNodes {
            name: self.options.name.clone(),
            test: self.options.test.clone(),
            nodes: Arc::clone(&self.state().nodes),
        }
    }

    /// When its nodes were written, since 1970; `None` until it has some, and for inline ones.
    #[must_use]
    pub fn updated(&self) -> Option<Duration> {
        self.resource.as_ref()?.written()
    }

    /// What the server said of the subscription.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        self.state().quota
    }

    fn put(&self, parsed: Parsed) {
        if let Some(why) = parsed.first_skipped {
            let (name, skipped) = (self.name(), parsed.skipped);
            log::warn!("provider {name}: {skipped} nodes passed over, the first: {why}");
        }
        self.state().nodes = parsed.nodes.into();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider for ProxyProvider {
    fn resource(&self) -> Option<&Resource> {
        self.resource.as_ref()
    }

    fn load(&self) -> Result<bool, ReadError> {
        let Some(resource) = &self.resource else {
            return Ok(false);
        };
        self.put(resource.read(|file| read(&self.options, file))?);
        Ok(true)
    }

    fn refresh<'a>(
        self: Arc<Self>,
        way: &'a dyn Connect,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move {
            let me = Arc::clone(&self);
            let Some(resource) = self.resource.as_ref().filter(|r| r.is_fetched()) else {
                let loading = blocking(move || me.load());
                return Ok(loading.await.map_err(io::Error::from)??);
            };
            let fetched = resource.fetch(way, move |file| read(&me.options, file));
            let Some(parsed) = fetched.await? else {
                return Ok(false);
            };
            self.put(parsed);
            let quota = resource.quota().as_deref().and_then(Quota::parse);
            self.state().quota = quota;
            remember_quota(resource.path(), quota)?;
            Ok(true)
        })
    }
}

fn read(options: &ProxyProviderOptions, source: File) -> Result<Parsed, ReadError> {
    let limit = size_max(options.size_limit);
    let mut bytes = Vec::new();
    source.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(ReadError::TooLarge(limit));
    }
    // Names in another encoding are garbled, not refused.
    let text = String::from_utf8_lossy(&bytes);
    options.reader.read(&text).map_err(ReadError::NoNodes)
}

fn size_max(limit: u64) -> u64 {
    match limit {
        0 => SIZE_MAX,
        limit => limit.min(SIZE_MAX),
    }
}

/// The file beside a copy that keeps its quota.
fn quota_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".quota");
    path.with_file_name(name)
}

fn remembered_quota(path: &Path) -> Option<Quota> {
    Quota::parse(&std::fs::read_to_string(quota_path(path)).ok()?)
}

/// Writes only what has changed: flash wears.
fn remember_quota(path: &Path, quota: Option<Quota>) -> io::Result<()> {
    let place = quota_path(path);
    if remembered_quota(path) == quota {
        return Ok(());
    }
    match quota {
        Some(quota) => std::fs::write(
            place,
            format!(
                "upload={}; download={}; total={}; expire={}",
                quota.upload, quota.download, quota.total, quota.expire
            ),
        ),
        None => std::fs::remove_file(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_as_servers_write_them() {
        let quota = |upload, download, total, expire| {
            Some(Quota {
                upload,
                download,
                total,
                expire,
            })
        };
        let all = "upload=455727941; download=6174315083; total=1073741824000; expire=1671815872";
        assert_eq!(
            Quota::parse(all),
            quota(455_727_941, 6_174_315_083, 1_073_741_824_000, 1_671_815_872)
        );
        assert_eq!(Quota::parse("total=1.5e9;expire="), quota(0, 0, 1, 0));
        assert_eq!(Quota::parse("upload=-1;x=2"), quota(0, 0, 0, 0));
        for nothing in ["", "upload", "x=1;y=2", ";;;"] {
            assert_eq!(Quota::parse(nothing), None, "{nothing}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read(text in "[a-z=;0-9. -]{0,60}") {
            let _ = Quota::parse(&text);
        }
    }
}
