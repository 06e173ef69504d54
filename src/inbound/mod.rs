//! Where connections come in.

pub mod access;
pub mod options;
pub mod socks;
pub mod transparent;
