//! The kernel rules that bring the LAN's traffic in.

pub mod options;
