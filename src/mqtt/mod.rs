//! The MQTT broker: what it speaks.

pub mod codec;
pub mod topic;
