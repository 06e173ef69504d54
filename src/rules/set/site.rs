//! A set of names as geodata has them: names, names with all below them, parts of names, and
//! expressions. The last two are few, and kept as rules.

use super::classical;
use super::names::NameSetBuilder;
use super::{Content, EntryError, NameSet, RuleSet};
use crate::rules::matcher::{Known, Truth};
use crate::rules::{Library, Rules, RulesBuilder};

/// The set.
pub struct SiteSet {
    names: NameSet,
    rest: Option<Box<Rules>>,
}

impl SiteSet {
    /// Whether an entry matches `name`, which is in lower case without the final dot.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let known = Known::host_alone(Some(name));
        let in_rest = |rest: &Rules| rest.truth(&known) == Truth::Yes;
        self.names.contains(name) || self.rest.as_deref().is_some_and(in_rest)
    }
}

/// Collects entries.
#[derive(Default)]
pub struct SiteSetBuilder {
    names: NameSetBuilder,
    rest: RulesBuilder,
    library: Library,
    entries: usize,
}

impl SiteSetBuilder {
    /// Adds a name.
    ///
    /// # Errors
    /// It is none; the set goes on without it.
    pub fn push_full(&mut self, name: &str) -> Result<(), EntryError> {
        self.push_name(name)
    }

    /// Adds a name and all below it.
    ///
    /// # Errors
    /// It is none; the set goes on without it.
    pub fn push_domain(&mut self, name: &str) -> Result<(), EntryError> {
        self.push_name(&format!("+.{name}"))
    }

    /// Adds a part of names.
    ///
    /// # Errors
    /// No name has it; the set goes on without it.
    pub fn push_keyword(&mut self, text: &str) -> Result<(), EntryError> {
        self.push_rule(&format!("DOMAIN-KEYWORD,{text}"))
    }

    /// Adds an expression.
    ///
    /// # Errors
    /// It is none that takes linear time; the set goes on without it.
    pub fn push_regex(&mut self, expression: &str) -> Result<(), EntryError> {
        self.push_rule(&format!("DOMAIN-REGEX,{expression}"))
    }

    fn push_name(&mut self, pattern: &str) -> Result<(), EntryError> {
        self.names.push(pattern).map_err(EntryError::Payload)?;
        self.entries += 1;
        Ok(())
    }

    fn push_rule(&mut self, entry: &str) -> Result<(), EntryError> {
        let line = classical::entry(entry, &self.library).map_err(EntryError::Rule)?;
        self.rest.push(&line).map_err(EntryError::Rule)?;
        self.entries += 1;
        Ok(())
    }

    /// The set.
    #[must_use]
    pub fn finish(self) -> RuleSet {
        let rest = self.rest.finish();
        RuleSet {
            content: Content::Site(SiteSet {
                names: self.names.finish(),
                rest: (!rest.is_empty()).then(|| Box::new(rest)),
            }),
            entries: self.entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_entry_matches_its_own_way() {
        let mut builder = SiteSetBuilder::default();
        builder.push_full("full.org").unwrap();
        builder.push_domain("domain.org").unwrap();
        builder.push_keyword("word").unwrap();
        builder.push_regex(r"^r[0-9]{1,2}\.org$").unwrap();
        assert!(builder.push_regex("(").is_err());
        assert!(builder.push_full("a..b").is_err());
        let set = builder.finish();
        assert_eq!(set.entries(), 4);
        let Content::Site(set) = set.content else {
            panic!("another content")
        };
        for (name, want) in [
            ("full.org", true),
            ("x.full.org", false),
            ("domain.org", true),
            ("x.domain.org", true),
            ("xdomain.org", false),
            ("a.swordfish.net", true),
            ("r12.org", true),
            ("r123.org", false),
            ("", false),
        ] {
            assert_eq!(set.contains(name), want, "{name}");
        }
    }
}
