//! Integration tests on loopback, against real peers where there are some. What needs more than one
//! machine is in `tests/netns`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a failing check is a failing test"
)]

mod decisions;
mod outbound;
mod relay;
