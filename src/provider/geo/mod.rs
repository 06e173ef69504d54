//! Geodata: the databases that GEOSITE, GEOIP and IP-ASN ask, of which only the categories in use are
//! ever read.
//!
//! A category becomes a set, like one of a rule provider; the file itself is needed only while it is
//! read. A file is found whatever the case of its name, and fetched when it is missing.

mod dat;
mod mmdb;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::entries::ReadError;
use super::http::Connect;
use super::options::GeodataOptions;
use super::resource::{Limits, PathOutside, ProviderError, Resource};
use crate::outbound::BoxFuture;
use crate::platform::file_map::FileMap;
use crate::provider::Provider;
use crate::rules::geo::{GeoKind, GeoSet, Geodata};
use crate::rules::set::{AddressSetBuilder, RuleSet, SiteSetBuilder};

/// What a database may cost.
const LIMITS: Limits = Limits {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(300),
};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Lists of names.
    Sites,
    /// Countries, in protobuf (`geodata-mode: true`).
    CountriesDat,
    /// Countries, in MaxMind's format.
    Countries,
    /// Autonomous systems.
    Systems,
}

impl Database {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Sites,
        Self::CountriesDat,
        Self::Countries,
        Self::Systems,
    ];

    /// Its key in `geox-url`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Sites => "geosite",
            Self::CountriesDat => "geoip",
            Self::Countries => "mmdb",
            Self::Systems => "asn",
        }
    }

    /// Where it is fetched from unless the configuration says otherwise, as in mihomo.
    #[must_use]
    pub fn default_url(self) -> &'static str {
        match self {
            Self::Sites => {
                "https://github.com/MetaCubeX/meta-rules-dat/releases/download/latest/geosite.dat"
            }
            Self::CountriesDat => {
                "https://github.com/MetaCubeX/meta-rules-dat/releases/download/latest/geoip.dat"
            }
            Self::Countries => {
                "https://github.com/MetaCubeX/meta-rules-dat/releases/download/latest/geoip.metadb"
            }
            Self::Systems => {
                "https://github.com/MetaCubeX/meta-rules-dat/releases/download/latest/GeoLite2-ASN.mmdb"
            }
        }
    }

    /// What its file may be called; the first is what we call it.
    fn file_names(self) -> &'static [&'static str] {
        match self {
            Self::Sites => &["GeoSite.dat"],
            Self::CountriesDat => &["GeoIP.dat"],
            Self::Countries => &["geoip.metadb", "Country.mmdb", "geoip.db"],
            Self::Systems => &["ASN.mmdb", "GeoLite2-ASN.mmdb"],
        }
    }

    /// Whether a category is in it.
    fn holds(self, set: &GeoSet, options: &GeodataOptions) -> bool {
        match (self, set.kind) {
            (Self::Sites, GeoKind::Site) | (Self::Systems, GeoKind::AutonomousSystem) => true,
            (Self::CountriesDat, GeoKind::Country) => options.countries_in_dat,
            (Self::Countries, GeoKind::Country) => !options.countries_in_dat,
            _ => false,
        }
    }

    /// Its place in `directory`: that of the file which is there, or where it would be put.
    fn find(self, directory: &Path) -> PathBuf {
        let names = self.file_names();
        let rank = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            names
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name))
        };
        let entries = fs::read_dir(directory).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let ranked = files.filter_map(|path| Some((rank(&path)?, path)));
        match ranked.min() {
            Some((_, path)) => path,
            None => directory.join(names.first().unwrap_or(&"")),
        }
    }
}

/// A database that some rule needs.
pub struct GeoDatabase {
    database: Database,
    options: GeodataOptions,
    geodata: Geodata,
    resource: Resource,
    /// How many categories there were when it was read last.
    known: AtomicUsize,
}

impl GeoDatabase {
    /// The database, whose file lies in `directory`.
    ///
    /// # Errors
    /// [`PathOutside`], in theory.
    pub fn new(
        database: Database,
        options: &GeodataOptions,
        geodata: &Geodata,
        directory: &Path,
    ) -> Result<Self, PathOutside> {
        let path = database.find(directory);
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into();
        let mut downloads = options.downloads.iter();
        let download = downloads.find(|(of, _)| *of == database);
        let interval = match options.auto_update {
            true => options.interval,
            false => Duration::ZERO,
        };
        let resource = match download {
            None => Resource::of_file(name, path, LIMITS),
            Some((_, download)) => {
                let download = Box::new(download.clone());
                Resource::of_server(name, download, directory, &path, interval, LIMITS)?
            }
        };
        Ok(Self {
            database,
            options: options.clone(),
            geodata: geodata.clone(),
            resource,
            known: AtomicUsize::new(0),
        })
    }

    /// Which database it is.
    #[must_use]
    pub fn database(&self) -> Database {
        self.database
    }

    /// The categories in use that it should hold.
    #[must_use]
    pub fn sets(&self) -> Vec<Arc<GeoSet>> {
        let mut sets = self.geodata.sets();
        sets.retain(|set| self.database.holds(set, &self.options));
        sets
    }

    /// Whether some category cannot do without it.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.sets().iter().any(|set| !set.built_in)
    }

    /// Whether categories were asked for since it was read.
    #[must_use]
    pub fn has_new_categories(&self) -> bool {
        self.is_needed() && self.sets().len() != self.known.load(Ordering::Relaxed)
    }

    /// The categories that a reading is to fill.
    fn begin(&self) -> Vec<Arc<GeoSet>> {
        let sets = self.sets();
        self.known.store(sets.len(), Ordering::Relaxed);
        sets
    }
}

impl Provider for GeoDatabase {
    fn resource(&self) -> Option<&Resource> {
        Some(&self.resource)
    }

    fn load(&self) -> Result<bool, ReadError> {
        let (database, sets) = (self.database, self.begin());
        let loaded = self.resource.read(|file| read(database, &file, &sets))?;
        put(&sets, loaded);
        Ok(true)
    }

    fn refresh<'a>(
        self: Arc<Self>,
        way: &'a dyn Connect,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move {
            let (database, sets) = (self.database, self.begin());
            let wanted = sets.clone();
            let reading = self
                .resource
                .fetch(way, move |file| read(database, &file, &wanted));
            let loaded = reading.await?;
            Ok(loaded.map(|loaded| put(&sets, loaded)).is_some())
        })
    }
}

/// What is not in the file stays as it was.
fn put(sets: &[Arc<GeoSet>], loaded: Vec<RuleSet>) {
    for (set, loaded) in sets.iter().zip(loaded) {
        if loaded.entries() > 0 {
            set.set.replace(Arc::new(loaded));
        }
    }
}

/// Reads these categories, each in its place; one that is not in the file comes out empty. Blocks.
///
/// # Errors
/// [`ReadError::NotGeodata`], or the file cannot be read.
pub fn read(
    database: Database,
    file: &File,
    sets: &[Arc<GeoSet>],
) -> Result<Vec<RuleSet>, ReadError> {
    if database == Database::Sites {
        let builders = sets.iter().map(|set| (&**set, SiteSetBuilder::default()));
        let mut builders: Vec<_> = builders.collect();
        let skipped = dat::sites(&mut BufReader::new(file), &mut builders).map_err(not_geodata)?;
        if skipped > 0 {
            log::warn!("geosite: {skipped} entries passed over");
        }
        return Ok(builders
            .into_iter()
            .map(|(_, builder)| builder.finish())
            .collect());
    }
    let builders = sets
        .iter()
        .map(|set| (&*set.name, AddressSetBuilder::default(), 0));
    let mut builders: Vec<_> = builders.collect();
    if database == Database::CountriesDat {
        dat::addresses(&mut BufReader::new(file), &mut builders).map_err(not_geodata)?;
    } else {
        let map = FileMap::of(file)?;
        mmdb::collect(map.bytes(), &mut builders).ok_or(ReadError::NotGeodata)?;
    }
    let finish = |(_, addresses, count): (_, AddressSetBuilder, _)| {
        RuleSet::of_addresses(addresses.finish(), count)
    };
    Ok(builders.into_iter().map(finish).collect())
}

fn not_geodata(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ReadError::NotGeodata,
        _ => ReadError::Io(error),
    }
}

#[cfg(test)]
mod tests;
