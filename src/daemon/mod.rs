//! The composition root: builds the parts from a configuration, ties them together, starts, reloads and
//! stops them. The only place that sees the whole [`Config`](crate::config::Config).
