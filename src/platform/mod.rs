//! The kernel behind safe wrappers with plain types. The only module that may hold `unsafe`,
//! each block with its SAFETY line. It knows nothing of proxies.

#![allow(
    unsafe_code,
    reason = "system calls that nix does not wrap; nowhere else"
)]

pub mod clock;
pub mod counter;
pub mod memory;
pub mod pipe;
pub mod raw_udp;
pub mod socket;
pub mod transparent;
