//! Why a line is no rule. The user's configuration is at fault; loading ends.

use std::fmt;

use super::index::LINES_MAX;
use crate::metadata::NotMac;
use crate::prefix::PrefixError;

/// Why a line is no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// The type is not one of [`super::RULE_TYPES`].
    UnknownType(Box<str>),
    /// Nothing stands behind the type.
    MissingPayload(&'static str),
    /// Nothing stands behind the payload.
    MissingTarget(&'static str),
    /// A field behind the target is neither `no-resolve` nor `src`.
    Parameter(Box<str>),
    /// The type cannot read the payload.
    Payload {
        /// Type, as the configuration writes it.
        kind: &'static str,
        /// The payload as written.
        payload: Box<str>,
        /// What is wrong with it.
        why: PayloadError,
    },
    /// More lines, or more text, than the compiled form can number.
    TooMany,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(kind) => write!(f, "unknown rule type {kind:?}"),
            Self::MissingPayload(kind) => write!(f, "{kind} without a payload"),
            Self::MissingTarget(kind) => write!(f, "{kind} without a target"),
            Self::Parameter(text) => {
                write!(f, "unknown parameter {text:?}, expected no-resolve or src")
            }
            Self::Payload { kind, payload, why } => write!(f, "{kind} {payload:?}: {why}"),
            Self::TooMany => write!(f, "more than {LINES_MAX} rules or 4 GiB of their text"),
        }
    }
}

impl std::error::Error for RuleError {}

/// What is wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// It is empty, or one part of a list is.
    Empty,
    /// A label with other than ASCII letters is too long, or stands beside `*` or `?`.
    Label,
    /// Not `address/length`.
    Prefix(PrefixError),
    /// An address without `/length`.
    NoPrefixLength,
    /// Not a number, or `a-b`, of at most this value.
    Range(u16),
    /// More parts than mihomo takes.
    TooManyRanges,
    /// Not an Ethernet address.
    Mac(NotMac),
    /// Neither `tcp` nor `udp`.
    Network,
    /// No such inbound type.
    InboundType(Box<str>),
    /// The expression looks ahead or behind, which no linear-time matcher can do.
    LookAround,
    /// The expression library's own words.
    Regex(Box<str>),
    /// Brackets do not pair, or something stands between the parts.
    Brackets,
    /// NOT takes one part.
    OnePart,
    /// Parts lie deeper in each other than sixteen.
    TooDeep,
    /// This type cannot be a part of AND, OR and NOT.
    NotAPart(&'static str),
    /// SUB-RULE: no list of `sub-rules:` has this name.
    NoList(Box<str>),
    /// RULE-SET: no rule provider has this name.
    NoSet,
    /// Not numbers of users.
    Uid,
    /// No category of geodata can have this name.
    Category,
    /// Not the number of an autonomous system.
    SystemNumber,
    /// Not a domain wildcard.
    Pattern,
    /// The set has 4 GiB of names.
    SetFull,
    /// A part is no rule itself.
    Part(Box<RuleError>),
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Label => f.write_str("a label that no host name can have"),
            Self::Prefix(why) => write!(f, "{why}, expected address/length"),
            Self::NoPrefixLength => f.write_str("the prefix length is missing"),
            Self::Range(most) => write!(
                f,
                "expected numbers or ranges from 0 to {most} joined by a slash"
            ),
            Self::TooManyRanges => f.write_str("more than 28 ranges"),
            Self::Mac(why) => why.fmt(f),
            Self::Network => f.write_str("expected tcp or udp"),
            Self::InboundType(name) => write!(f, "unknown inbound type {name:?}"),
            Self::LookAround => f.write_str(
                "look-around, (?=…) (?!…) (?<=…) (?<!…), is not supported: matching takes linear time",
            ),
            Self::Regex(why) => f.write_str(why),
            Self::Brackets => f.write_str("expected ((TYPE,payload),(TYPE,payload)…)"),
            Self::OnePart => f.write_str("expected exactly one part"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::NotAPart(kind) => write!(f, "{kind} cannot be a part"),
            Self::NoList(name) => write!(f, "no list of sub-rules is named {name:?}"),
            Self::NoSet => f.write_str("no rule provider has this name"),
            Self::Uid => f.write_str("expected numbers or ranges joined by a slash"),
            Self::Category => f.write_str("expected the name of a category"),
            Self::SystemNumber => f.write_str("expected the number of an autonomous system"),
            Self::Pattern => {
                f.write_str("expected a domain name or wildcard (a.b, *.b, .b, +.b)")
            }
            Self::SetFull => f.write_str("the set is full"),
            Self::Part(why) => why.fmt(f),
        }
    }
}
