//! Which way out a connection takes: the user's rule list, compiled.
//!
//! Pure: no tokio, no clock, no log, no resolver. A rule that needs an address says so
//! ([`Found::NeedIp`]); the tunnel resolves and asks again.

use std::fmt;
use std::net::IpAddr;

use crate::metadata::Metadata;

/// One line of `rules:`, parsed: `TYPE,payload,target[,param…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLine {
    /// Type name as the Clash API shows it (`DomainSuffix`).
    pub kind: &'static str,
    /// Payload as the Clash API shows it.
    pub payload: Box<str>,
    /// The proxy, group or built-in that it sends to.
    pub target: Box<str>,
}

/// Why a line is no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// The type is not one of [`RULE_TYPES`].
    UnknownType(Box<str>),
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(kind) => write!(f, "unknown rule type {kind}"),
        }
    }
}

impl RuleLine {
    /// Parses a line.
    ///
    /// # Errors
    /// [`RuleError`] with the reason.
    pub fn parse(_line: &str) -> Result<Self, RuleError> {
        Err(RuleError::UnknownType("".into()))
    }
}

/// What a search of the rules gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The first rule, at or after the asked index, that matches.
    Rule(usize),
    /// The first rule that could decide needs the destination's address: resolve the host, set
    /// [`Metadata::destination_ip`] (or give up), then ask again with `may_resolve` false.
    NeedIp,
    /// No rule matches.
    Nothing,
}

/// The compiled list. Immutable; a reload makes a new one.
pub struct Rules {
    lines: Vec<RuleLine>,
}

impl Rules {
    /// Compiles parsed lines.
    #[must_use]
    pub fn compile(lines: Vec<RuleLine>) -> Self {
        Self { lines }
    }

    /// The first rule at or after `from` that matches, exactly as if the list were walked.
    #[must_use]
    pub fn find(&self, _metadata: &Metadata, _from: usize, _may_resolve: bool) -> Found {
        Found::Nothing
    }

    /// The lines in order, for the APIs.
    #[must_use]
    pub fn lines(&self) -> &[RuleLine] {
        &self.lines
    }

    /// The target of rule `index`.
    #[must_use]
    pub fn target(&self, index: usize) -> Option<&str> {
        self.lines.get(index).map(|line| &*line.target)
    }

    /// Whether some rule asks for the client's MAC address.
    #[must_use]
    pub fn needs_mac(&self) -> bool {
        false
    }

    /// Whether every flow to `host`, from any device, to any port, over TCP or UDP, ends at a
    /// rule for which `is_direct(index)` holds. When no rule matches at all the answer is yes:
    /// that flow goes DIRECT. Rules that might match, depending on what is not known yet, must all
    /// be direct.
    #[must_use]
    pub fn certainly_direct(&self, _host: &str, _is_direct: &dyn Fn(usize) -> bool) -> bool {
        false
    }

    /// The address ranges (first, last; one family) whose every flow without a known host name ends
    /// DIRECT, whatever its source, ports and protocol. `names_may_appear`: the sniffer or a DNS
    /// mapping could still give such a flow a name, so domain rules count as "might match".
    #[must_use]
    pub fn certainly_direct_ranges(
        &self,
        _v4: bool,
        _names_may_appear: bool,
        _is_direct: &dyn Fn(usize) -> bool,
    ) -> Vec<(IpAddr, IpAddr)> {
        Vec::new()
    }
}
