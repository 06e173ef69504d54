//! `rule-providers:` as the configuration has it (clash-api.md 3.11).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::geo::Database;
use super::url::Url;
use crate::rules::geo::Geodata;
use crate::rules::set::NamedSet;

/// One entry of `rule-providers:`.
#[derive(Clone, Debug)]
pub struct RuleProviderOptions {
    /// The set that the rules hold on to: name and behavior are its own.
    pub set: Arc<NamedSet>,
    /// What rules among the entries may ask for.
    pub geodata: Geodata,
    /// Where the entries come from.
    pub source: Source,
    /// How they are written; means nothing for inline ones.
    pub format: Format,
    /// `interval`: how old a copy may get. Zero: for ever.
    pub interval: Duration,
    /// `size-limit`, bytes; 0 is none but the reader's own.
    pub size_limit: u64,
}

/// `geodata-mode`, `geox-url` and their like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeodataOptions {
    /// `geodata-mode`: countries are read from `GeoIP.dat`, not from a MaxMind database.
    pub countries_in_dat: bool,
    /// `geo-auto-update`.
    pub auto_update: bool,
    /// `geo-update-interval`.
    pub interval: Duration,
    /// `geodata-fail-soft`: a rule whose database cannot be read matches nothing; otherwise such a
    /// configuration is refused.
    pub fail_soft: bool,
    /// `geox-url`, or where mihomo fetches them from.
    pub downloads: Vec<(Database, Download)>,
}

impl Default for GeodataOptions {
    fn default() -> Self {
        Self {
            countries_in_dat: false,
            auto_update: false,
            interval: Duration::from_secs(24 * 3600),
            fail_soft: true,
            downloads: Vec::new(),
        }
    }
}

/// Where entries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration itself; they are in the set already. Kept for the APIs.
    Inline(Arc<[Box<str>]>),
    /// A file, relative to the working directory.
    File(PathBuf),
    /// A server.
    Http(Box<Download>),
}

/// Where a provider's entries are fetched from, and to.
#[derive(Clone, PartialEq, Eq)]
pub struct Download {
    /// `url`.
    pub url: Url,
    /// `path`; made of the address when `None`.
    pub path: Option<PathBuf>,
    /// The MD5 of the address, hexadecimal: the name of the copy, as in mihomo.
    pub hash: Box<str>,
    /// `proxy`: the outbound to go through; by the rules when `None`.
    pub proxy: Option<Box<str>>,
    /// `header`.
    pub fields: Vec<(Box<str>, Box<str>)>,
}

/// Addresses and fields may hold secrets: the server is all that is shown.
impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Download({})", self.url.endpoint)
    }
}

impl Source {
    /// The `vehicleType` of the Clash API.
    #[must_use]
    pub fn vehicle(&self) -> &'static str {
        match self {
            Self::Inline(_) => "Inline",
            Self::File(_) => "File",
            Self::Http(_) => "HTTP",
        }
    }
}

/// How the entries of a file are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A list under `payload`.
    #[default]
    Yaml,
    /// One a line.
    Text,
    /// mihomo's compiled form.
    Mrs,
}

impl Format {
    /// As the configuration writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "yaml" => Some(Self::Yaml),
            "text" => Some(Self::Text),
            "mrs" => Some(Self::Mrs),
            _ => None,
        }
    }

    /// The `format` of the Clash API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yaml => "YamlRule",
            Self::Text => "TextRule",
            Self::Mrs => "MrsRule",
        }
    }
}
