//! The DNS server and resolver.
//!
//! A query climbs these files from the wire down: [`server`] decides how it is answered ([`hosts`],
//! [`fake_ip`], else the [`resolver`]), the resolver keeps answers ([`cache`]) and asks the servers
//! of a set ([`upstream`]), as the `plan` for the name says. [`mapping`] remembers which name a real answer belonged to, for the
//! tunnel. [`message`] is the codec, [`domain_set`] the wildcard syntax of mihomo's domain lists.

pub mod cache;
pub mod current;
pub mod domain_set;
pub mod fake_ip;
mod fake_ip_log;
pub mod hosts;
pub mod listener;
mod lru;
pub mod mapping;
pub mod message;
pub mod names;
pub mod options;
mod plan;
pub mod replacement;
pub mod resolver;
pub mod server;
pub mod upstream;

#[cfg(test)]
mod tests;
