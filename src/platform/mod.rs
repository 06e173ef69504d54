//! The kernel behind safe wrappers with plain types. The only module that may hold `unsafe`,
//! each block with its SAFETY line. It knows nothing of proxies.

pub mod clock;
pub mod counter;
pub mod socket;
