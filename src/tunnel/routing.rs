//! Rules, outbounds and mode as one immutable snapshot.

use std::fmt;
use std::str::FromStr;

use crate::outbound::registry::Registry;
use crate::rules::Rules;

/// What decides: swapped whole when the configuration or the mode changes.
pub struct Routing {
    /// The compiled rules.
    pub rules: Rules,
    /// Every outbound by name; each rule's target is in it.
    pub outbounds: Registry,
    /// `mode`.
    pub mode: Mode,
}

/// `mode` of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By the rules.
    #[default]
    Rule,
    /// Everything to the group GLOBAL.
    Global,
    /// Everything DIRECT.
    Direct,
}

impl Mode {
    /// As the configuration and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Global => "global",
            Self::Direct => "direct",
        }
    }
}

/// The text names no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMode;

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown mode: expected rule, global or direct")
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    /// In any case, as mihomo takes it.
    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        [Self::Rule, Self::Global, Self::Direct]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownMode)
    }
}
