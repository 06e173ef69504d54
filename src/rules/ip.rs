//! IP-CIDR, IP-CIDR6, IP-SUFFIX and their SRC- forms.
//!
//! Families never match each other. A destination that can still be resolved is a question to
//! the tunnel unless the rule says `no-resolve`; once an address is known, for whatever rule above
//! it was resolved, `no-resolve` rules match it like any other.

use std::net::IpAddr;

use super::PayloadError;
use super::intervals::Intervals;
use super::matcher::{Bounds, Condition, Destination, Key, Known, Matcher, Payload, Scope, Truth};
use crate::prefix::{self, Prefix};

/// Which address a rule tests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// The destination; `resolve`: have it looked up when it is not known.
    Destination { resolve: bool },
    /// The source.
    Source,
}

impl Side {
    pub fn of(payload: &Payload<'_>) -> Self {
        if payload.source {
            Self::Source
        } else {
            Self::Destination {
                resolve: !payload.no_resolve,
            }
        }
    }

    pub fn ask(self, known: &Known<'_>, question: impl FnOnce(IpAddr) -> bool) -> Truth {
        match (self, known.destination()) {
            (Self::Source, _) => known.ask(|m| question(m.source.ip().to_canonical())),
            // Nothing but the name is known: even `no-resolve` may find an address, which the
            // client gave or a rule above had resolved.
            (_, None) => Truth::Unknown,
            (_, Some(Destination::Address(ip))) => question(ip).into(),
            (Self::Destination { resolve: true }, Some(Destination::Pending)) => Truth::Unknown,
            (_, Some(Destination::Pending | Destination::Absent)) => Truth::No,
        }
    }
}

/// `IP-CIDR,10.0.0.0/8`: addresses with the same leading bits.
#[derive(Debug)]
struct Cidr {
    prefix: Prefix,
    side: Side,
}

impl Matcher for Cidr {
    fn truth(&self, known: &Known<'_>) -> Truth {
        self.side.ask(known, |ip| self.prefix.contains(ip))
    }

    fn key(&self) -> Key<'_> {
        match self.side {
            Side::Destination { resolve } => Key::Destination(self.prefix, resolve),
            Side::Source => Key::Source(self.prefix),
        }
    }

    fn bounds(&self, scope: Scope) -> Bounds {
        let (always, possible) = match self.side {
            Side::Source => (Intervals::none(), Intervals::all(scope.v4)),
            Side::Destination { .. } if self.prefix.address().is_ipv4() != scope.v4 => {
                (Intervals::none(), Intervals::none())
            }
            Side::Destination { .. } => {
                let (first, last) = self.prefix.range();
                let inside = Intervals::one(first, last);
                (inside.clone(), inside)
            }
        };
        Bounds { always, possible }
    }
}

/// Reads `IP-CIDR` and `IP-CIDR6`; either takes both families, as in mihomo.
pub(super) fn cidr(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let prefix = whole_prefix(payload.text)?;
    let side = Side::of(payload);
    let kind = match side {
        Side::Destination { .. } => "IPCIDR",
        Side::Source => "SrcIPCIDR",
    };
    Ok(Condition::new(
        kind,
        prefix.to_string(),
        Cidr { prefix, side },
    ))
}

/// Reads `SRC-IP-CIDR`.
pub(super) fn source_cidr(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    cidr(&Payload {
        source: true,
        ..*payload
    })
}

/// `IP-SUFFIX,0.0.0.1/8`: addresses with the same trailing bits.
#[derive(Debug)]
struct Suffix {
    pattern: Prefix,
    side: Side,
}

impl Matcher for Suffix {
    fn truth(&self, known: &Known<'_>) -> Truth {
        self.side.ask(known, |ip| {
            let (value, width) = prefix::bits(ip);
            let (pattern, pattern_width) = prefix::bits(self.pattern.address());
            let beyond = 128 - u32::from(self.pattern.length());
            // A suffix of no bits at all would shift by the whole width.
            width == pattern_width && (value ^ pattern).checked_shl(beyond).unwrap_or(0) == 0
        })
    }
}

/// Reads `IP-SUFFIX`.
pub(super) fn suffix(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let pattern = whole_prefix(payload.text)?;
    let side = Side::of(payload);
    let kind = match side {
        Side::Destination { .. } => "IPSuffix",
        Side::Source => "SrcIPSuffix",
    };
    Ok(Condition::new(kind, payload.text, Suffix { pattern, side }))
}

/// Reads `SRC-IP-SUFFIX`.
pub(super) fn source_suffix(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    suffix(&Payload {
        source: true,
        ..*payload
    })
}

/// A prefix whose length is written out: a bare address is a slip more often than a wish.
fn whole_prefix(text: &str) -> Result<Prefix, PayloadError> {
    let prefix = text.parse().map_err(PayloadError::Prefix)?;
    if text.contains('/') {
        Ok(prefix)
    } else {
        Err(PayloadError::NoPrefixLength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::prefix::PrefixError;
    use crate::rules::{RuleError, RuleLine};
    use std::sync::Arc;

    fn flow(destination: &str) -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &Arc::from("in"),
            "[::ffff:192.168.1.7]:999".parse().unwrap(),
            Endpoint::parse(destination).unwrap(),
        )
    }

    #[track_caller]
    fn check(rule: &str, destination: &str, want: Truth) {
        let line = RuleLine::parse(rule).unwrap();
        let flow = flow(destination);
        assert_eq!(
            line.matcher().truth(&Known::flow(&flow, true)),
            want,
            "{rule} {destination}"
        );
    }

    #[test]
    fn cidr_compares_leading_bits_of_one_family() {
        check("IP-CIDR,10.1.2.3/8,p", "10.9.9.9:1", Truth::Yes);
        check("IP-CIDR,10.0.0.0/8,p", "11.0.0.0:1", Truth::No);
        check("IP-CIDR,0.0.0.0/0,p", "[2001:db8::1]:1", Truth::No);
        check("IP-CIDR6,10.0.0.0/8,p", "10.0.0.1:1", Truth::Yes);
        check("IP-CIDR6,2001:db8::/32,p", "[2001:db8::1]:1", Truth::Yes);
    }

    #[test]
    fn source_rules_see_mapped_addresses_as_ipv4() {
        check("SRC-IP-CIDR,192.168.1.0/24,p", "a.b:1", Truth::Yes);
        check("IP-CIDR,192.168.2.0/24,p,src", "192.168.2.1:1", Truth::No);
        check("SRC-IP-SUFFIX,0.0.0.7/8,p", "a.b:1", Truth::Yes);
        check("IP-SUFFIX,0.0.0.8/8,p,src", "0.0.0.8:1", Truth::No);
    }

    #[test]
    fn suffix_compares_trailing_bits() {
        check("IP-SUFFIX,1.2.3.4/16,p", "9.9.3.4:1", Truth::Yes);
        check("IP-SUFFIX,1.2.3.4/17,p", "9.9.3.4:1", Truth::No);
        check("IP-SUFFIX,1.2.3.4/32,p", "1.2.3.4:1", Truth::Yes);
        check("IP-SUFFIX,1.2.3.4/0,p", "9.9.9.9:1", Truth::Yes);
        check("IP-SUFFIX,1.2.3.4/0,p", "[::1]:1", Truth::No);
        check("IP-SUFFIX,::1:2/128,p", "[::1:2]:1", Truth::Yes);
        check("IP-SUFFIX,::2/16,p", "[2001::1:2]:1", Truth::Yes);
        check("IP-SUFFIX,::2/0,p", "[2001::1:2]:1", Truth::Yes);
    }

    #[test]
    fn an_unresolved_name_is_a_question_unless_no_resolve() {
        check("IP-CIDR,10.0.0.0/8,p", "a.b:1", Truth::Unknown);
        check("IP-SUFFIX,10.0.0.0/8,p", "a.b:1", Truth::Unknown);
        check("IP-CIDR,10.0.0.0/8,p,no-resolve", "a.b:1", Truth::No);
        let rule = RuleLine::parse("IP-CIDR,10.0.0.0/8,p").unwrap();
        let flow = flow("a.b:1");
        assert_eq!(rule.matcher().truth(&Known::flow(&flow, false)), Truth::No);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for (text, want) in [
            ("1.2.3.4", PayloadError::NoPrefixLength),
            ("1.2.3.4/33", PayloadError::Prefix(PrefixError::Length)),
            ("1.2.3/8", PayloadError::Prefix(PrefixError::Address)),
        ] {
            for kind in [
                "IP-CIDR",
                "IP-CIDR6",
                "IP-SUFFIX",
                "SRC-IP-CIDR",
                "SRC-IP-SUFFIX",
            ] {
                match RuleLine::parse(&format!("{kind},{text},p")) {
                    Err(RuleError::Payload { why, .. }) => assert_eq!(why, want),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
