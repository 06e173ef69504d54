//! One line of `rules:`, from text.

use std::sync::Arc;

use super::matcher::{Condition, Matcher, Payload};
use super::{Form, Library, RuleError, RuleType};

/// One line of `rules:`, parsed: `TYPE,payload,target[,param…]`.
#[derive(Clone, Debug)]
pub struct RuleLine {
    /// Type name as the Clash API shows it (`DomainSuffix`).
    pub kind: &'static str,
    /// Payload as the Clash API shows it.
    pub payload: Box<str>,
    /// The proxy, group or built-in that it sends to.
    pub target: Box<str>,
    matcher: Arc<dyn Matcher>,
}

impl RuleLine {
    /// Parses a line. Types and parameters are taken in any case, blanks around commas are
    /// dropped; `no-resolve` and `src` are taken, as in mihomo, where they mean nothing too.
    ///
    /// # Errors
    /// [`RuleError`] with the reason.
    pub fn parse(line: &str) -> Result<Self, RuleError> {
        Self::parse_in(line, &Library::default())
    }

    /// Parses a line that may refer to what is in `library`.
    ///
    /// # Errors
    /// [`RuleError`] with the reason.
    pub fn parse_in(line: &str, library: &Library) -> Result<Self, RuleError> {
        let (row, rest) = split_type(line)?;
        let (text, target, parameters) = match row.form {
            Form::NoPayload => {
                let (target, parameters) = split_first(rest);
                ("", target, parameters)
            }
            Form::Plain => {
                let (text, rest) = split_first(rest);
                let (target, parameters) = split_first(rest);
                (text, target, parameters)
            }
            Form::Greedy => match rest.rsplit_once(',') {
                Some((text, target)) => (text.trim(), target.trim(), ""),
                None => (rest, "", ""),
            },
        };
        if text.is_empty() && row.form != Form::NoPayload {
            return Err(RuleError::MissingPayload(row.name));
        }
        if target.is_empty() {
            return Err(RuleError::MissingTarget(row.name));
        }
        let mut payload = Payload {
            text,
            no_resolve: false,
            source: false,
            depth: 0,
            target,
            library,
        };
        read_parameters(parameters, &mut payload)?;
        let Condition {
            kind,
            payload: shown,
            matcher,
        } = read(row, &payload)?;
        Ok(Self {
            kind,
            payload: shown,
            target: target.into(),
            matcher,
        })
    }

    /// A condition that leads nowhere: an entry of a rule set.
    pub(super) fn without_target(condition: Condition) -> Self {
        Self {
            kind: condition.kind,
            payload: condition.payload,
            target: Box::default(),
            matcher: condition.matcher,
        }
    }

    /// Whether the target is a list of `sub-rules:`.
    #[must_use]
    pub fn leads_to_list(&self) -> bool {
        self.matcher.list().is_some()
    }

    /// The condition.
    #[must_use]
    pub fn matcher(&self) -> &Arc<dyn Matcher> {
        &self.matcher
    }
}

/// A part of AND, OR or NOT: `TYPE,payload[,param…]`, without a target.
pub(super) fn parse_part(
    text: &str,
    outer: &Payload<'_>,
) -> Result<(&'static RuleType, Condition), RuleError> {
    let (row, rest) = split_type(text)?;
    let (text, parameters) = match row.form {
        Form::Plain => split_first(rest),
        Form::Greedy | Form::NoPayload => (rest, ""),
    };
    if text.is_empty() && row.form != Form::NoPayload {
        return Err(RuleError::MissingPayload(row.name));
    }
    let mut payload = Payload {
        text,
        no_resolve: false,
        source: false,
        depth: outer.depth + 1,
        target: "",
        library: outer.library,
    };
    read_parameters(parameters, &mut payload)?;
    Ok((row, read(row, &payload)?))
}

/// The list that a SUB-RULE line leads to, read before the line itself can be.
#[must_use]
pub fn list_name(line: &str) -> Option<&str> {
    let (row, rest) = split_type(line).ok()?;
    let (_, list) = rest.rsplit_once(',')?;
    (row.name == "SUB-RULE").then(|| list.trim())
}

fn split_type(line: &str) -> Result<(&'static RuleType, &str), RuleError> {
    let (name, rest) = split_first(line);
    let row = RuleType::named(name).ok_or_else(|| RuleError::UnknownType(name.into()))?;
    Ok((row, rest))
}

fn split_first(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(',').unwrap_or((text, ""));
    (first.trim(), rest.trim())
}

/// An empty field is passed over: lists often end in a comma.
fn read_parameters(fields: &str, payload: &mut Payload<'_>) -> Result<(), RuleError> {
    for field in fields.split(',').map(str::trim) {
        if field.eq_ignore_ascii_case("no-resolve") {
            payload.no_resolve = true;
        } else if field.eq_ignore_ascii_case("src") {
            payload.source = true;
        } else if !field.is_empty() {
            return Err(RuleError::Parameter(field.into()));
        }
    }
    Ok(())
}

fn read(row: &RuleType, payload: &Payload<'_>) -> Result<Condition, RuleError> {
    (row.read)(payload).map_err(|why| RuleError::Payload {
        kind: row.name,
        payload: payload.text.into(),
        why,
    })
}

/// Lines are equal when they decide alike. Matchers are compared by their debug text: payloads as
/// shown leave out the parameters of a part of AND, OR and NOT.
impl PartialEq for RuleLine {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.payload == other.payload
            && self.target == other.target
            && format!("{:?}", self.matcher) == format!("{:?}", other.matcher)
    }
}

impl Eq for RuleLine {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{PayloadError, RULE_TYPES};

    #[track_caller]
    fn shown(line: &str, kind: &str, payload: &str, target: &str) {
        let parsed = RuleLine::parse(line).unwrap();
        assert_eq!(parsed.kind, kind);
        assert_eq!(&*parsed.payload, payload);
        assert_eq!(&*parsed.target, target);
    }

    #[track_caller]
    fn refused(line: &str, why: &str) {
        assert_eq!(RuleLine::parse(line).unwrap_err().to_string(), why);
    }

    #[test]
    fn every_type_is_shown_as_the_clash_api_names_it() {
        shown("DOMAIN,WWW.Example.org,p", "Domain", "www.example.org", "p");
        shown(
            "DOMAIN-SUFFIX,Bücher.de,p",
            "DomainSuffix",
            "xn--bcher-kva.de",
            "p",
        );
        shown("DOMAIN-KEYWORD,Ad,p", "DomainKeyword", "ad", "p");
        shown(
            "DOMAIN-WILDCARD,*.A?.org,p",
            "DomainWildcard",
            "*.a?.org",
            "p",
        );
        shown("DOMAIN-REGEX,^a{1,2}$,p", "DomainRegex", "^a{1,2}$", "p");
        shown(
            "IP-CIDR,10.1.2.3/8,p,no-resolve",
            "IPCIDR",
            "10.1.2.3/8",
            "p",
        );
        shown("IP-CIDR6,2001:DB8::/32,p", "IPCIDR", "2001:db8::/32", "p");
        shown("IP-CIDR,10.0.0.0/8,p,src", "SrcIPCIDR", "10.0.0.0/8", "p");
        shown("SRC-IP-CIDR,10.0.0.0/8,p", "SrcIPCIDR", "10.0.0.0/8", "p");
        shown("IP-SUFFIX,0.0.0.1/8,p", "IPSuffix", "0.0.0.1/8", "p");
        shown("IP-SUFFIX,0.0.0.1/8,p,src", "SrcIPSuffix", "0.0.0.1/8", "p");
        shown("SRC-IP-SUFFIX,::1/64,p", "SrcIPSuffix", "::1/64", "p");
        shown(
            "SRC-MAC,AA-BB-CC-00-11-22,p",
            "SrcMAC",
            "aa:bb:cc:00:11:22",
            "p",
        );
        shown("SRC-PORT,1-5/9,p", "SrcPort", "1-5/9", "p");
        shown("DST-PORT,443,p", "DstPort", "443", "p");
        shown("IN-PORT,7890,p", "InPort", "7890", "p");
        shown("DSCP,4/8-16,p", "DSCP", "4/8-16", "p");
        shown("NETWORK,UDP,p", "Network", "udp", "p");
        shown("IN-TYPE,socks/Http,p", "InType", "SOCKS/HTTP", "p");
        shown("IN-NAME,a/b,p", "InName", "a/b", "p");
        shown("IN-USER,Me,p", "InUser", "Me", "p");
        shown("MATCH,p", "Match", "", "p");
        shown(
            "AND,((DOMAIN,a.b),(NOT,((NETWORK,udp)))),p",
            "AND",
            "((Domain,a.b) && (NOT,(!(Network,udp))))",
            "p",
        );
        shown(
            "OR,((DST-PORT,1),(DSCP,2)),p",
            "OR",
            "((DstPort,1) || (DSCP,2))",
            "p",
        );
        shown("NOT,((DST-PORT,1)),p", "NOT", "(!(DstPort,1))", "p");
    }

    #[test]
    fn case_and_blanks_around_commas_do_not_matter() {
        shown(
            " domain , a.b , Auto select ,",
            "Domain",
            "a.b",
            "Auto select",
        );
        let line = RuleLine::parse("ip-cidr, 1.0.0.0/8, p, NO-RESOLVE").unwrap();
        assert_eq!(
            line,
            RuleLine::parse("IP-CIDR,1.0.0.0/8,p,no-resolve").unwrap()
        );
        assert_ne!(line, RuleLine::parse("IP-CIDR,1.0.0.0/8,p").unwrap());
    }

    #[test]
    fn lines_that_are_shown_alike_may_still_differ() {
        let with = RuleLine::parse("NOT,((IP-CIDR,1.0.0.0/8,no-resolve)),p").unwrap();
        let without = RuleLine::parse("NOT,((IP-CIDR,1.0.0.0/8)),p").unwrap();
        assert_eq!(with.payload, without.payload);
        assert_ne!(with, without);
    }

    #[test]
    fn parameters_that_mean_nothing_are_taken() {
        shown("DOMAIN,a.b,p,no-resolve,src", "Domain", "a.b", "p");
    }

    #[test]
    fn broken_lines_name_what_is_broken() {
        refused("", "unknown rule type \"\"");
        refused("SCRIPT,x,p", "unknown rule type \"SCRIPT\"");
        refused("DOMAIN", "DOMAIN without a payload");
        refused("DOMAIN,,p", "DOMAIN without a payload");
        refused("DOMAIN,a.b", "DOMAIN without a target");
        refused("DOMAIN-REGEX,a", "DOMAIN-REGEX without a target");
        refused("MATCH", "MATCH without a target");
        refused(
            "IP-CIDR,::/0,p,resolve",
            "unknown parameter \"resolve\", expected no-resolve or src",
        );
        refused(
            "DST-PORT,x,p",
            "DST-PORT \"x\": expected numbers or ranges from 0 to 65535 joined by a slash",
        );
        refused(
            "AND,((DOMAIN,a),(FOO,b)),p",
            "AND \"((DOMAIN,a),(FOO,b))\": unknown rule type \"FOO\"",
        );
        assert!(matches!(
            RuleLine::parse("NOT,((IP-CIDR,1.2.3.4)),p"),
            Err(RuleError::Payload {
                kind: "NOT",
                why: PayloadError::Part(_),
                ..
            })
        ));
    }

    #[test]
    fn the_table_is_sorted_and_upper_case() {
        assert!(RULE_TYPES.is_sorted_by_key(|row| row.name));
        for row in RULE_TYPES {
            assert_eq!(row.name, row.name.to_ascii_uppercase());
        }
    }
}
