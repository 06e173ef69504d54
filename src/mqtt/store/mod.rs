//! What the broker keeps on disk: an append-only log of records, each with a checksum.
//!
//! `frame` and `record` are pure: bytes to records and back. `broker::journal` decides what is written
//! and restores from it; `file` is the driver that appends, syncs and rewrites. A power cut tears at
//! most the log's end, which is cut off at the next start.

pub mod file;
pub mod frame;
pub mod record;
