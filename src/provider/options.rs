//! `rule-providers:` as the configuration has it (clash-api.md 3.11).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::rules::set::NamedSet;

/// One entry of `rule-providers:`.
#[derive(Clone, Debug)]
pub struct RuleProviderOptions {
    /// The set that the rules hold on to: name and behavior are its own.
    pub set: Arc<NamedSet>,
    /// Where the entries come from.
    pub source: Source,
    /// How they are written; means nothing for inline ones.
    pub format: Format,
    /// `interval`: how old a copy may get. Zero: for ever.
    pub interval: Duration,
    /// `size-limit`, bytes; 0 is none but the reader's own.
    pub size_limit: u64,
}

/// Where entries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration itself; they are in the set already. Kept for the APIs.
    Inline(Arc<[Box<str>]>),
    /// A file, relative to the working directory.
    File(PathBuf),
}

impl Source {
    /// The `vehicleType` of the Clash API.
    #[must_use]
    pub fn vehicle(&self) -> &'static str {
        match self {
            Self::Inline(_) => "Inline",
            Self::File(_) => "File",
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
}

impl Format {
    /// As the configuration writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "yaml" => Some(Self::Yaml),
            "text" => Some(Self::Text),
            _ => None,
        }
    }

    /// The `format` of the Clash API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yaml => "YamlRule",
            Self::Text => "TextRule",
        }
    }
}
