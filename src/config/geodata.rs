//! `geodata-mode`, `geox-url` and their like (clash-api.md 3.1), and where categories are first asked
//! for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Cursor;
use super::error::{ConfigError, Warnings};
use super::rule_providers;
use super::section::Section;
use crate::provider::geo::Database;
use crate::provider::options::GeodataOptions;
use crate::rules::geo::{GeoSet, Geodata};

/// How often databases are fetched anew, hours.
const INTERVAL: u32 = 24;

/// Reads the keys.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<GeodataOptions, ConfigError> {
    // How mihomo keeps geodata in memory; ours is always the smallest.
    for key in ["geodata-loader", "geosite-matcher"] {
        section.text(key)?;
    }
    let hours = section.number("geo-update-interval", INTERVAL)?;
    let mut options = GeodataOptions {
        countries_in_dat: section.boolean("geodata-mode", false)?,
        auto_update: section.boolean("geo-auto-update", false)?,
        interval: Duration::from_secs(u64::from(hours.max(1)) * 3600),
        fail_soft: section.boolean("geodata-fail-soft", true)?,
        downloads: Vec::new(),
    };
    let urls = section.take("geox-url");
    let mut urls = urls.as_ref().map(Cursor::section).transpose()?;
    for database in Database::ALL {
        let at = urls.as_mut().and_then(|urls| urls.take(database.key()));
        let download = match at {
            Some(at) => rule_providers::from_address(&at)?,
            None => match rule_providers::from_text(database.default_url()) {
                Some(download) => download,
                None => continue,
            },
        };
        options.downloads.push((database, download));
    }
    if let Some(urls) = urls {
        urls.finish(warnings);
    }
    Ok(options)
}

/// Where something stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    line: u32,
    column: u32,
    path: String,
}

/// `12:5: rules[3]`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, path } = self;
        write!(f, "{line}:{column}: {path}")
    }
}

/// A category of geodata and where the file first asks for it.
#[derive(Clone)]
pub struct GeoUse {
    /// The category.
    pub set: Arc<GeoSet>,
    /// Where.
    pub place: Place,
}

/// Notes where categories are first asked for.
#[derive(Default)]
pub(super) struct GeoUses {
    geodata: Geodata,
    list: Vec<GeoUse>,
}

impl GeoUses {
    /// The categories themselves.
    pub fn geodata(&self) -> &Geodata {
        &self.geodata
    }

    /// What was asked for since the last time was asked for here.
    pub fn note(&mut self, at: &Cursor<'_>) {
        if self.geodata.count() == self.list.len() {
            return;
        }
        let (line, column) = at.position();
        for set in self.geodata.sets().into_iter().skip(self.list.len()) {
            let path = at.path();
            let place = Place { line, column, path };
            self.list.push(GeoUse { set, place });
        }
    }

    /// Everything noted.
    pub fn into_list(self) -> Vec<GeoUse> {
        self.list
    }
}
