//! socks
pub mod codec;
