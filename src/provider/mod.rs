//! Providers: what a configuration keeps elsewhere, in files and on servers, and how it is read.
//!
//! `options` is what the configuration says, `entries` reads a set's formats, `http` downloads from
//! a `url`, `file` keeps copies on disk, `resource` is one such copy with its state, `rule` a rule
//! provider over one, `proxy` a proxy provider, `geo` a database of geodata; `pages` are a dashboard's, out of an `archive`. When to load and to refresh is the daemon's.
//!
//! Whatever a file or a server holds, the set of before stays in force until the new one has
//! been read whole.

pub mod archive;
pub mod convert;
pub mod entries;
pub mod file;
pub mod geo;
pub mod http;
pub mod mrs;
pub mod options;
pub mod pages;
pub mod proxy;
pub mod resource;
pub mod rule;
pub mod url;

use std::sync::Arc;

use crate::outbound::BoxFuture;
use entries::ReadError;
use http::Connect;
use resource::{ProviderError, Resource};

/// What keeps something of the configuration loaded from a file.
pub trait Provider: Send + Sync {
    /// The file, where it has one.
    fn resource(&self) -> Option<&Resource>;

    /// Reads the file; whether there was one to read. Blocks.
    ///
    /// # Errors
    /// [`ReadError`]; what was loaded before is as it was.
    fn load(&self) -> Result<bool, ReadError>;

    /// Fetches the file, if it is on a server, or reads it again; whether what is loaded is new.
    ///
    /// # Errors
    /// [`ProviderError`]; what was loaded before and the copy on disk are as they were.
    fn refresh<'a>(
        self: Arc<Self>,
        way: &'a dyn Connect,
    ) -> BoxFuture<'a, Result<bool, ProviderError>>;
}
