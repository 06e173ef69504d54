//! The MQTT broker: what it speaks, what it remembers, and the thread it lives on.
//!
//! `codec` and `topic` are pure; so are `session` and `broker`, the machine, which is told the time
//! and states effects. `driver` has the buffers and timers, `listener` the sockets, `greeting` lets their
//! clients in; `client` is the other side.

pub mod acl;
pub mod alarms;
pub mod auth;
pub mod banned;
pub mod bridge;
pub mod broker;
pub mod client;
pub mod codec;
pub mod driver;
mod greeting;
pub mod handle;
pub mod hook;
mod leg;
mod link;
pub mod listener;
pub mod message;
pub mod metrics;
pub mod options;
pub mod password;
mod persistence;
pub mod remote;
pub mod retained;
pub mod session;
pub mod store;
pub mod topic;
pub mod transport;
mod turn;
pub mod websocket;

/// Milliseconds of the broker's own clock, which never goes back.
pub type Time = u64;

/// The time at the start. Far from zero, so that what was before the start has a time too.
pub const START: Time = 1 << 40;

/// The EMQX whose topics and API these are; tools read it as a number.
pub const EMQX_VERSION: &str = "4.3.22";

/// A time that never comes.
pub const NEVER: Time = Time::MAX;

/// Milliseconds of `seconds`.
#[must_use]
pub const fn seconds(seconds: u32) -> Time {
    seconds as Time * 1000
}
