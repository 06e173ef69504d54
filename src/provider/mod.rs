//! Providers: what a configuration keeps elsewhere, in files and on servers, and how it is read.
//!
//! `options` is what the configuration says, `entries` reads a set's formats, `http` downloads from
//! a `url`, `file` keeps copies on disk, `rule` is a provider with its state. When to load and to
//! refresh is the daemon's.
//!
//! Whatever a file or a server holds, the set of before stays in force until the new one has
//! been read whole.

pub mod entries;
pub mod file;
pub mod http;
pub mod mrs;
pub mod options;
pub mod rule;
pub mod url;
