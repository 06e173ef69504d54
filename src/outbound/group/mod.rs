//! Groups: outbounds that stand for one of their members, a file for each way of choosing.

pub mod selector;
