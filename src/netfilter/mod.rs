//! The kernel rules that bring the LAN's traffic in.
//!
//! [`ruleset`] says what they are and why; [`table`] is how they are said, [`text`] and
//! [`encode`] the two ways to render that; [`apply`] puts them into the kernel and keeps them
//! alive. [`routing`] keeps the policy routes beneath them, [`switches`] the kernel switches
//! that they cannot live with, [`support`] asks what this kernel can do.

pub mod apply;
pub mod encode;
#[cfg(test)]
mod kernel_tests;
pub mod marks;
pub mod options;
pub mod routing;
pub mod ruleset;
pub mod support;
pub mod switches;
pub mod table;
pub mod text;
