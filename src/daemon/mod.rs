//! The composition root: builds the parts from a configuration, ties them together, starts, reloads and
//! stops them. The only place that sees the whole [`Config`](crate::config::Config).
//!
//! `command` reads the command line. `build` turns a configuration into parts, without opening
//! anything. `supervisor` is the life of a running instance: one task owns everything that changes,
//! and controllers reach it through `control`. `observe` looks for what SQL rules want to know.
//! `workers` are the loops that flows live on,
//! `listeners` their sockets, `checks` the tests of groups, `providers` where rule sets come from,
//! `geodata` where categories do, `hardening` what is given up at the start, `kernel` the capture rules, `offload` what DNS tells the kernel,
//! `state` what survives a restart, `history` what was moved by whom, `state_topics` what our own broker tells
//! of the router, `tables` what queries read, `storage` what dashboards keep with us, `restart` how the program
//! runs itself anew, `upgrade` how another takes its place.

mod acts;
mod applications;
mod build;
mod checks;
mod client;
pub mod command;
mod control;
mod explain;
mod geodata;
mod hardening;
mod history;
mod kept;
mod kernel;
mod listeners;
mod observe;
mod offload;
mod overlay;
mod providers;
mod restart;
mod state;
mod state_topics;
mod storage;
mod supervisor;
mod tables;
#[cfg(test)]
mod testing;
mod upgrade;
mod workers;

use std::error::Error;

/// Why a command failed: one line for standard error.
type Failure = Box<dyn Error + Send + Sync>;
