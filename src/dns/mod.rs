//! The DNS server and resolver.

pub mod options;
