//! The rule engine: SQL over what passes the broker and over what the router does, and what follows.
//!
//! [`Engine`] is the broker's [`crate::mqtt::hook::Hook`] and lives on its thread: a message finds its
//! rules by a topic tree of their own, so a rule whose FROM does not match costs nothing. The router's
//! events come from other threads through [`Feed`], which costs them one load of an atomic while no
//! rule wants them. What acts on the router goes out through [`Router`], which must not wait.
//! [`Desk`] is how controllers reach all this from their threads. Rows leave for other servers through
//! `resource`s, whose tasks run on the flows' runtimes.
//!
//! Rules that feed each other are cut twice: the broker counts hops, and each rule may publish and act
//! only so often ([`PUBLISH_RATE`], [`ACT_RATE`]); what is cut counts as failed and raises an
//! alarm, as does a resource whose server does not answer.

use std::time::Duration;

pub mod action;
mod ask;
pub mod catalogue;
mod counters;
mod cut;
pub mod definition;
mod desk;
mod down;
mod engine;
mod event;
mod event_types;
mod feed;
mod flow;
mod forward;
pub mod history;
mod message;
pub mod options;
mod outside;
mod report;
mod resource;
mod resource_definition;
pub mod resource_types;
mod rule;
mod sample;
pub mod state;
pub mod tables;
#[cfg(test)]
mod tests;
mod traffic;
mod webhook;
mod world;

pub use counters::{Speeds, Totals};
pub use desk::{Desk, DeskError};
pub use engine::Engine;
pub use event::{Datum, EventKind, Occurrence};
pub use event_types::{EVENTS, EventType};
pub use feed::{DnsWatch, Feed, Watch};
pub use flow::flow_row;
pub use outside::Outside;
pub use report::{ActionReport, RuleReport};
pub use resource::ResourceReport;
pub use resource_definition::ResourceDefinition;
pub use sample::{NotSampled, run_sample};

/// Rules at a time; further ones are refused.
pub const RULES_MAX: usize = 256;

/// Actions of a rule, its fallbacks among them.
pub const ACTIONS_MAX: usize = 16;

/// Resources at a time; further ones are refused.
pub const RESOURCES_MAX: usize = 16;

/// Messages that may wait for a foreign broker, and bytes of them; the oldest go when there are more.
pub const FORWARD_WAITING_MAX: usize = 1000;
/// See [`FORWARD_WAITING_MAX`].
pub const FORWARD_WAITING_MAX_BYTES: usize = 512 * 1024;

/// Messages a second that a rule may publish, and as many at once; further ones fail.
pub const PUBLISH_RATE: u32 = 5000;

/// Acts on the router a second that a rule may do, and five times as many at once.
pub const ACT_RATE: u32 = 2;

/// Bytes of a payload that a template may make.
pub const RENDERED_MAX_BYTES: usize = 1024 * 1024;

/// For how long a device may be blocked at most.
pub const BLOCK_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What a rule does to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Choose a member of a group.
    SelectProxy {
        /// The group's name.
        group: String,
        /// The member's.
        proxy: String,
    },
    /// Change the mode: rule, global, direct.
    SetMode(String),
    /// Let a device reach nothing for a while.
    BlockDevice {
        /// Its address or Ethernet address.
        device: String,
        /// For how long; zero frees it.
        duration: Duration,
    },
    /// Send the magic packet to an Ethernet address.
    WakeOnLan(String),
    /// Test the members of a group.
    RunHealthcheck(String),
    /// Close the connections of a device (an address), or to a host; of both when both are named.
    CloseConnections {
        /// The device's address; empty: any.
        device: String,
        /// The destination's name or address; empty: any.
        host: String,
    },
}

/// Who does it.
pub trait Router: Send + Sync {
    /// Takes an act over; it is done later, on another thread. `false`: too many wait.
    fn act(&self, act: Act) -> bool;
}
