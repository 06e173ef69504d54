//! What is wrong with a configuration, and where.
//!
//! Every text taken from the file is cut short and has its control characters escaped, so that a
//! message is one line and carries no terminal codes. Secrets are never quoted at all: the
//! decoders do not hand them over.

use std::collections::HashSet;
use std::fmt;

use super::decode::Cursor;
use crate::outbound::shadowsocks::method::MethodError;
use crate::prefix::PrefixError;
use crate::rules::RuleError;

/// The first mistake found. The caller prints it behind the file's name and a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The way to the value: `proxies[2].port`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub reason: Reason,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.reason.fmt(f)
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not YAML, in the scanner's words.
    Syntax(Excerpt),
    /// Past a limit of `yaml`, named.
    Limit(&'static str),
    /// An alias inside the value that it names.
    AliasLoop,
    /// A key for the second time in one mapping.
    DuplicateKey,
    /// A tag other than YAML's own plain types.
    Tag(Excerpt),
    /// A key that is a list or a mapping.
    KeyNotText,
    /// `<<` with something else than mappings.
    MergeNotMapping,
    /// Another kind of value than the key takes.
    Kind {
        /// What the key takes.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value that the key does not take.
    Value {
        /// What the key takes.
        expected: &'static str,
        /// What stands there.
        found: Excerpt,
    },
    /// As [`Reason::Value`], for what must not be shown.
    SecretValue(&'static str),
    /// A required key that is not there.
    Missing,
    /// Not an address prefix.
    Prefix(PrefixError, Excerpt),
    /// A `type`, cipher or sniffer that neither mihomo nor headgate knows.
    Unknown(&'static str, Excerpt),
    /// Something of mihomo's that would change what the entry does.
    NotImplemented(Excerpt),
    /// A name that an earlier proxy, group or listener has.
    DuplicateName(Excerpt),
    /// A name that every configuration has already.
    BuiltinName(Excerpt),
    /// A name that is no proxy and no group.
    UnknownName(Excerpt),
    /// A name that is no proxy provider.
    UnknownProvider(Excerpt),
    /// A proxy or group that leads back to itself; the names on the way.
    Loop(Excerpt),
    /// A `password` that its cipher cannot use.
    Shadowsocks(MethodError),
    /// A line of `rules:`.
    Rule(RuleError),
    /// A group that could never hold a member.
    NoMembers,
    /// `dns.enable` without `nameserver`.
    NoNameserver,
    /// `respect-rules` without `proxy-server-nameserver`.
    RulesWithoutServers,
    /// `dns-hijack` without `dns.enable`.
    HijackWithoutDns,
    /// An address range with too few addresses to hand out.
    RangeTooSmall,
    /// Bits of the mark outside its mask.
    MarkOutsideMask,
    /// `transparent.enable` with nothing to capture.
    NothingToCapture,
    /// A controller that others can reach, without a secret (users.md S2).
    OpenController,
    /// `external-controller-tls` without `tls.certificate` and `tls.private-key`.
    NoCertificate,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Syntax(info) => return write!(f, "not valid YAML: {}", info.0),
            Self::Limit(limit) => return write!(f, "too much: {limit}"),
            Self::Tag(tag) => return write!(f, "tag {tag} is not supported"),
            Self::Kind { expected, found } => {
                return write!(f, "expected {expected}, found {found}");
            }
            Self::Value { expected, found } => {
                return write!(f, "expected {expected}, found {found}");
            }
            Self::SecretValue(expected) => return write!(f, "expected {expected}"),
            Self::Prefix(why, found) => return write!(f, "{found} is no address prefix: {why}"),
            Self::Unknown(what, found) => return write!(f, "unknown {what} {found}"),
            Self::NotImplemented(what) => return write!(f, "not implemented yet: {}", what.0),
            Self::DuplicateName(name) => return write!(f, "the name {name} is taken already"),
            Self::BuiltinName(name) => return write!(f, "{name} is a built-in name"),
            Self::UnknownName(name) => return write!(f, "no proxy or group is named {name}"),
            Self::UnknownProvider(name) => {
                return write!(f, "no proxy provider is named {name}");
            }
            Self::Loop(way) => return write!(f, "leads back to itself: {}", way.0),
            Self::Rule(why) => return f.write_str(&Excerpt::cut(&why.to_string(), RULE_MAX).0),
            Self::Shadowsocks(why) => return why.fmt(f),
            Self::AliasLoop => "alias inside the value that it names",
            Self::DuplicateKey => "this key stands twice in the same mapping",
            Self::KeyNotText => "expected a plain key, found a list or a mapping",
            Self::MergeNotMapping => "expected a mapping, or a list of mappings, to merge",
            Self::Missing => "required key is missing",
            Self::NoMembers => "the group has no members: give it proxies",
            Self::NoNameserver => "dns is enabled, so at least one nameserver is needed",
            Self::RulesWithoutServers => {
                "needs proxy-server-nameserver, which finds the proxies that rules may lead to"
            }
            Self::HijackWithoutDns => "needs dns.enable: true, which answers what is hijacked",
            Self::RangeTooSmall => "the range is too small: at least 8 addresses are needed",
            Self::MarkOutsideMask => "the mark has bits outside its mask",
            Self::NothingToCapture => {
                "nothing to capture: give interfaces, or router-traffic: true"
            }
            Self::OpenController => {
                "other machines could reach the controller without a secret: set secret, \
                 or listen on 127.0.0.1"
            }
            Self::NoCertificate => {
                "TLS needs tls.certificate and tls.private-key: PEM files, or PEM text"
            }
        };
        f.write_str(text)
    }
}

/// A short piece of the file, fit for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

/// Characters of a text that messages show.
const EXCERPT_MAX: usize = 64;
/// Characters of what a rule's error says, which quotes the rule.
const RULE_MAX: usize = 200;

impl Excerpt {
    /// Cuts and escapes.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::cut(text, EXCERPT_MAX)
    }

    fn cut(text: &str, characters_max: usize) -> Self {
        let mut shown = String::new();
        let mut characters = text.chars();
        for c in characters.by_ref().take(characters_max) {
            push_printable(&mut shown, c);
        }
        if characters.next().is_some() {
            shown.push('…');
        }
        Self(shown.into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// Appends `c`, escaped when a terminal or a log could stumble over it.
pub(super) fn push_printable(text: &mut String, c: char) {
    // Escapes of bidirectional text reorder what a person reads.
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || reorders {
        text.extend(c.escape_default());
    } else {
        text.push(c);
    }
}

/// A key or value that its reader should look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The way to it, as in [`ConfigError::path`].
    pub path: String,
    /// What there is to say.
    pub remark: Remark,
}

/// Why something has no effect, or one that is not meant lightly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Nobody knows this key; perhaps the other one was meant.
    Unknown(Option<&'static str>),
    /// It has a meaning that headgate does not serve yet.
    NotImplemented,
    /// As above, for one value of a key that is served.
    ValueNotImplemented(Excerpt),
    /// An entry of a list that is not usable, and what is wrong with it.
    Entry(Excerpt, Excerpt),
    /// Certificates that nobody checks (users.md S17).
    Unverified,
    /// A download that others can exchange on its way (users.md S15).
    Unencrypted,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: ", self.line, self.column, self.path)?;
        match &self.remark {
            Remark::Unknown(None) => f.write_str("unknown key, ignored"),
            Remark::Unknown(Some(meant)) => {
                write!(f, "unknown key, ignored; did you mean {meant}?")
            }
            Remark::NotImplemented => f.write_str("not implemented yet, ignored"),
            Remark::ValueNotImplemented(value) => {
                write!(f, "not implemented yet, ignored: {}", value.0)
            }
            Remark::Entry(entry, why) => write!(f, "{entry} ignored: {}", why.0),
            Remark::Unverified => f.write_str(
                "whoever is on the way can pretend to be the server; fingerprint names its certificate",
            ),
            Remark::Unencrypted => {
                f.write_str("whoever is on the way can send something else; better https")
            }
        }
    }
}

/// Warnings kept of one file; a file with more has told its reader enough.
const WARNINGS_MAX: usize = 100;

/// Collects warnings, each key path once, whatever the list items it stands in.
#[derive(Default)]
pub struct Warnings {
    list: Vec<Warning>,
    seen: HashSet<String>,
}

impl Warnings {
    /// Notes what there is to say of what stands at `at`.
    pub fn note(&mut self, at: &Cursor<'_>, remark: Remark) {
        let mut pattern = at.path_without_indices();
        if let Remark::ValueNotImplemented(value) | Remark::Entry(value, _) = &remark {
            pattern.push('=');
            pattern.push_str(&value.0);
        }
        if self.is_new(pattern) {
            self.push(at, remark);
        }
    }

    /// Notes a key that nobody knows; `meant` is only asked when it is the first of its kind.
    pub fn note_unknown(&mut self, key: &Cursor<'_>, meant: impl FnOnce() -> Option<&'static str>) {
        if self.is_new(key.path_without_indices()) {
            self.push(key, Remark::Unknown(meant()));
        }
    }

    fn is_new(&mut self, pattern: String) -> bool {
        self.list.len() < WARNINGS_MAX && self.seen.insert(pattern)
    }

    fn push(&mut self, at: &Cursor<'_>, remark: Remark) {
        let (line, column) = at.position();
        self.list.push(Warning {
            line,
            column,
            path: at.path(),
            remark,
        });
    }

    /// What was noted, in the order of the decoders.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Warning> {
        self.list
            .sort_by_key(|warning| (warning.line, warning.column));
        self.list
    }
}
