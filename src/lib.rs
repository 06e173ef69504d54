//! headgate: the gate of a home network, in one daemon.
//!
//! The modules in the order in which a connection meets them; a module may use those above
//! it in the tree of the README, never those beneath it (`tests/tidy.rs` holds them to it).
//!
//! Bytes enter by an [`inbound`]; [`sniff`] reads a name from them; [`rules`] choose an
//! [`outbound`]; the [`tunnel`] joins the two ends and counts. Beside that road stand the
//! [`dns`] server and the [`netfilter`] rules that bring the traffic in. [`controllers`] are
//! views over this state in the dialects that people's tools speak.

pub mod calendar;
pub mod config;
pub mod controllers;
pub mod daemon;
pub mod dns;
pub mod encoding;
pub mod inbound;
pub mod inflate;
pub mod metadata;
pub mod mqtt;
pub mod netfilter;
pub mod outbound;
pub mod platform;
pub mod prefix;
pub mod provider;
pub mod rule_engine;
pub mod rules;
pub mod sniff;
pub mod sql;
pub mod tunnel;
pub mod websocket;
pub mod wire;
