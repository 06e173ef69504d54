//! The DNS server and resolver.

pub mod domain_set;
pub mod message;
pub mod options;
