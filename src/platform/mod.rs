//! The kernel behind safe wrappers with plain types. The only module that may hold `unsafe`,
//! each block with its SAFETY line. It knows nothing of proxies.

#![allow(
    unsafe_code,
    reason = "system calls that nix does not wrap; nowhere else"
)]

pub mod answering_udp;
pub mod beneath;
pub mod blocking;
pub mod clock;
pub mod confinement;
pub mod conntrack;
pub mod counter;
pub mod file_map;
pub mod interfaces;
pub mod leases;
pub mod load;
pub mod logger;
pub mod memory;
pub mod neighbours;
pub mod netlink;
pub mod own_dials;
pub mod pipe;
pub mod process;
pub mod raw_udp;
pub mod readiness;
pub mod reply;
pub mod room;
pub mod route;
pub mod socket;
pub mod sysctl;
pub mod transparent;
pub mod wake_on_lan;
