//! The other side of MQTT: a client of a foreign broker, for bridges and for rules that forward.
//!
//! `machine` is the protocol, pure; `outbox` is what waits to be sent, filled from any thread and bounded;
//! `driver` is the task that connects, reconnects and moves bytes. Who wants a client makes an
//! [`Outbox`], spawns [`run`] with [`Options`] and a [`Server`], and looks at [`Outbox::report`].
//!
//! QoS 1 and 2 are kept while the task lives: what was not acknowledged when a connection broke is sent
//! again on the next one. Nothing is kept on disk here.

mod driver;
mod machine;
mod outbox;
#[cfg(test)]
mod tests;

pub(super) use driver::write_or_flush;
pub use driver::{Patience, Server, run};
pub use machine::{Client, Ended, Event, LastWill, Options, Outgoing, Subscription};
pub use outbox::{Outbox, Report};
