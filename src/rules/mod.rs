//! Which way out a connection takes: the user's rule list, compiled.
//!
//! Pure: no tokio, no clock, no log, no resolver. A rule that needs an address says so
//! ([`Found::NeedIp`]); the tunnel resolves and asks again. Semantics are those of mihomo's
//! documentation: the first rule of the list that matches decides, as if the list were walked;
//! no list is walked, though ([`Rules::find`]).
//!
//! A line becomes a [`RuleLine`], whose [`Matcher`] answers for that line alone. [`Rules`] takes
//! the matchers apart by their [`matcher::Key`] into tables that are searched at once; only what
//! has no key is asked one by one. To add a type, write its matcher and its row in
//! [`RULE_TYPES`]; it works at once, unkeyed, and a key can follow when a measurement asks for it.
//!
//! What is not known yet is a third answer beside yes and no ([`Truth`]). One evaluator thus
//! serves the decision (unknown: the address must be resolved first), lazy AND, OR and NOT, and
//! the proof that flows are DIRECT whatever their unknown facts are (`certain.rs`).

mod certain;
mod domain;
pub mod geo;
mod inbound;
mod index;
mod intervals;
mod ip;
mod library;
mod line;
mod logic;
pub mod matcher;
mod network;
mod origin;
mod port;
mod punycode;
mod rule_error;
mod rule_set;
pub mod set;
mod source_mac;
mod sub_rule;

#[cfg(test)]
mod equivalence;

pub use index::{Found, RuleView, Rules, RulesBuilder};
pub use library::Library;
pub use line::{RuleLine, list_name};
pub use matcher::{Matcher, Truth};
pub use rule_error::{PayloadError, RuleError};

use matcher::{Condition, Payload};

/// How a line of this type is cut at its commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `TYPE,payload,target[,param…]`.
    Plain,
    /// `TYPE,payload,target` where the payload may hold commas: the last field is the target.
    Greedy,
    /// `TYPE,target`.
    NoPayload,
}

/// One rule type: its name in the configuration and what reads its payload.
#[derive(Debug)]
pub struct RuleType {
    /// As the configuration writes it, upper case.
    pub name: &'static str,
    form: Form,
    read: fn(&Payload<'_>) -> Result<Condition, PayloadError>,
}

impl RuleType {
    const fn new(
        name: &'static str,
        form: Form,
        read: fn(&Payload<'_>) -> Result<Condition, PayloadError>,
    ) -> Self {
        Self { name, form, read }
    }

    fn named(name: &str) -> Option<&'static Self> {
        RULE_TYPES
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(name))
    }
}

/// Every rule type, sorted by name: a new one is its matcher and one row here.
pub const RULE_TYPES: &[RuleType] = &[
    RuleType::new("AND", Form::Greedy, logic::and),
    RuleType::new("DOMAIN", Form::Plain, domain::exact),
    RuleType::new("DOMAIN-KEYWORD", Form::Plain, domain::keyword),
    RuleType::new("DOMAIN-REGEX", Form::Greedy, domain::regex),
    RuleType::new("DOMAIN-SUFFIX", Form::Plain, domain::suffix),
    RuleType::new("DOMAIN-WILDCARD", Form::Plain, domain::wildcard),
    RuleType::new("DSCP", Form::Plain, port::dscp),
    RuleType::new("DST-PORT", Form::Plain, port::destination),
    RuleType::new("GEOIP", Form::Plain, geo::geoip),
    RuleType::new("GEOSITE", Form::Plain, geo::geosite),
    RuleType::new("IN-NAME", Form::Plain, inbound::name),
    RuleType::new("IN-PORT", Form::Plain, port::inbound),
    RuleType::new("IN-TYPE", Form::Plain, inbound::kind),
    RuleType::new("IN-USER", Form::Plain, inbound::user),
    RuleType::new("IP-ASN", Form::Plain, geo::ip_asn),
    RuleType::new("IP-CIDR", Form::Plain, ip::cidr),
    RuleType::new("IP-CIDR6", Form::Plain, ip::cidr),
    RuleType::new("IP-SUFFIX", Form::Plain, ip::suffix),
    RuleType::new("MATCH", Form::NoPayload, logic::always),
    RuleType::new("NETWORK", Form::Plain, network::network),
    RuleType::new("NOT", Form::Greedy, logic::not),
    RuleType::new("OR", Form::Greedy, logic::or),
    RuleType::new("PROCESS-NAME", Form::Plain, origin::process_name),
    RuleType::new(
        "PROCESS-NAME-REGEX",
        Form::Greedy,
        origin::process_name_regex,
    ),
    RuleType::new(
        "PROCESS-NAME-WILDCARD",
        Form::Plain,
        origin::process_name_wildcard,
    ),
    RuleType::new("PROCESS-PATH", Form::Plain, origin::process_path),
    RuleType::new(
        "PROCESS-PATH-REGEX",
        Form::Greedy,
        origin::process_path_regex,
    ),
    RuleType::new(
        "PROCESS-PATH-WILDCARD",
        Form::Plain,
        origin::process_path_wildcard,
    ),
    RuleType::new("REMATCH-NAME", Form::Plain, origin::rematch),
    RuleType::new("RULE-SET", Form::Plain, rule_set::rule_set),
    RuleType::new("SRC-GEOIP", Form::Plain, geo::source_geoip),
    RuleType::new("SRC-HOST", Form::Plain, origin::source_host),
    RuleType::new("SRC-IP-ASN", Form::Plain, geo::source_ip_asn),
    RuleType::new("SRC-IP-CIDR", Form::Plain, ip::source_cidr),
    RuleType::new("SRC-IP-SUFFIX", Form::Plain, ip::source_suffix),
    RuleType::new("SRC-MAC", Form::Plain, source_mac::source_mac),
    RuleType::new("SRC-PORT", Form::Plain, port::source),
    RuleType::new("SUB-RULE", Form::Greedy, sub_rule::sub_rule),
    RuleType::new("UID", Form::Plain, origin::uid),
];
