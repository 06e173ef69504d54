//! SUB-RULE: a condition, and a list of its own that is walked where the condition holds.
//!
//! The line matches if the condition holds and some line of the list matches; the flow then goes
//! where that line says ([`super::Rules::target`]). If none does, the walk goes on below. A line that
//! is asked again, once an address was resolved for it, is asked whole: its list is walked from
//! the top.

use std::sync::Arc;

use super::intervals::Intervals;
use super::logic;
use super::matcher::{Bounds, Condition, Known, Matcher, Needs, Payload, Scope, Truth};
use super::{PayloadError, Rules};

/// `SUB-RULE,(NETWORK,tcp),list`.
#[derive(Debug)]
struct SubRule {
    condition: Condition,
    list: Arc<Rules>,
}

impl Matcher for SubRule {
    fn truth(&self, known: &Known<'_>) -> Truth {
        match self.condition.matcher.truth(known) {
            Truth::No => Truth::No,
            Truth::Yes => self.list.truth(known),
            Truth::Unknown => match self.list.truth(known) {
                Truth::No => Truth::No,
                Truth::Unknown | Truth::Yes => Truth::Unknown,
            },
        }
    }

    fn bounds(&self, scope: Scope) -> Bounds {
        // What the list leaves out of the condition's bounds is not worth the walk.
        Bounds {
            always: Intervals::none(),
            possible: self.condition.matcher.bounds(scope).possible,
        }
    }

    fn needs(&self) -> Needs {
        self.condition.matcher.needs() | self.list.needs()
    }

    fn needs_change(&self) -> bool {
        self.condition.matcher.needs_change() || self.list.needs_change()
    }

    fn list(&self) -> Option<&Rules> {
        Some(&self.list)
    }
}

/// Reads `SUB-RULE`, whose target is the list.
pub(super) fn sub_rule(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    if payload.depth > 0 {
        return Err(PayloadError::NotAPart("SUB-RULE"));
    }
    let condition = logic::single_part(payload)?;
    let list = payload.library.list(payload.target);
    let list = Arc::clone(list.ok_or_else(|| PayloadError::NoList(payload.target.into()))?);
    Ok(Condition::new(
        "SubRules",
        payload.text,
        SubRule { condition, list },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::rules::{Found, Library, RuleError, RuleLine};

    fn compile(text: &str, library: &Library) -> Rules {
        Rules::compile(
            text.split_whitespace()
                .map(|line| RuleLine::parse_in(line, library).unwrap()),
        )
    }

    fn flow(destination: &str) -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &Arc::from("in"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse(destination).unwrap(),
        )
    }

    /// `outer` is the main list; `inner` calls `deep` for names below org.
    fn lists(outer: &str) -> Rules {
        let mut library = Library::default();
        let deep = compile("DOMAIN,x.org,A IP-CIDR,1.0.0.0/8,B", &library);
        library.add_list("deep", Arc::new(deep));
        let inner = compile("SUB-RULE,(DOMAIN-SUFFIX,org),deep DOMAIN,b.com,C", &library);
        library.add_list("inner", Arc::new(inner));
        compile(outer, &library)
    }

    #[track_caller]
    fn goes(rules: &Rules, destination: &str, found: Found, target: &str) {
        let flow = flow(destination);
        assert_eq!(rules.find(&flow, 0, true), found, "{destination}");
        if let Found::Rule(index) = found {
            assert_eq!(&**rules.target(index, &flow, true).unwrap(), target);
        }
    }

    #[test]
    fn the_first_line_of_the_list_decides_and_none_leads_on() {
        let rules = lists("SUB-RULE,(NETWORK,tcp),inner MATCH,Z");
        goes(&rules, "x.org:1", Found::Rule(0), "A");
        goes(&rules, "b.com:1", Found::Rule(0), "C");
        goes(&rules, "c.com:1", Found::Rule(1), "Z");
        goes(&rules, "1.1.1.1:1", Found::Rule(1), "Z");
        let mut udp = flow("x.org:1");
        udp.network = Network::Udp;
        assert_eq!(rules.find(&udp, 0, true), Found::Rule(1));
    }

    #[test]
    fn a_list_asks_for_an_address_only_where_its_condition_holds() {
        let rules = lists("SUB-RULE,(NETWORK,tcp),inner MATCH,Z");
        goes(&rules, "y.org:1", Found::NeedIp(0), "");
        let mut resolved = flow("y.org:1");
        resolved.destination_ip = Some([1, 2, 3, 4].into());
        assert_eq!(rules.find(&resolved, 0, false), Found::Rule(0));
        assert_eq!(&**rules.target(0, &resolved, false).unwrap(), "B");
        resolved.destination_ip = Some([2, 2, 3, 4].into());
        assert_eq!(rules.find(&resolved, 0, false), Found::Rule(1));
    }

    #[test]
    fn every_target_is_asked_for_through_all_lists() {
        let rules = lists("DOMAIN,q,Q SUB-RULE,(NETWORK,tcp),inner");
        assert!(rules.leads_only(1, &|target| ["A", "B", "C"].contains(&target)));
        assert!(!rules.leads_only(1, &|target| target != "B"));
        assert!(rules.leads_only(0, &|target| target == "Q"));
    }

    #[test]
    fn mistakes_are_named() {
        let library = Library::default();
        let why = |line: &str| match RuleLine::parse_in(line, &library) {
            Err(RuleError::Payload { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            why("SUB-RULE,(NETWORK,tcp),gone"),
            PayloadError::NoList("gone".into())
        );
        assert_eq!(why("SUB-RULE,NETWORK,gone"), PayloadError::Brackets);
        assert!(matches!(
            why("AND,((SUB-RULE,(NETWORK,tcp))),p"),
            PayloadError::Part(_)
        ));
        assert_eq!(
            why("SUB-RULE,(MATCH),gone"),
            PayloadError::NotAPart("MATCH")
        );
    }
}
