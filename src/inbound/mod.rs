//! Where connections come in.

pub mod options;
