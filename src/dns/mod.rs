//! The DNS server and resolver.

pub mod cache;
pub mod domain_set;
pub mod fake_ip;
mod fake_ip_log;
pub mod hosts;
mod lru;
pub mod mapping;
pub mod message;
pub mod options;
