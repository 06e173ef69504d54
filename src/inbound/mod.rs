//! Where connections come in.

pub mod options;
pub mod transparent;
