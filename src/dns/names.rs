//! Lists that say something of names: domain wildcards and sets by turns, in the order of the file.
//!
//! Neighbouring wildcards are one [`DomainSet`], in which the most exact one wins; sets (of rule
//! providers, of geo data) are asked one by one. Of these runs the first that matches counts, as in
//! mihomo's `nameserver-policy`. A set that is not loaded matches nothing. Pure.

use std::sync::Arc;

use super::domain_set::{BadPattern, DomainSet};
use crate::rules::matcher::Known;
use crate::rules::{Matcher, Truth};

/// An item of such a list.
#[derive(Clone, Debug)]
pub enum Item {
    /// A domain wildcard.
    Pattern(Box<str>),
    /// A set: what the rule that names it asks.
    Set(Arc<dyn Matcher>),
}

impl From<&str> for Item {
    fn from(pattern: &str) -> Self {
        Self::Pattern(pattern.into())
    }
}

/// A compiled list: which entry a name falls under.
#[derive(Default)]
pub struct Names {
    runs: Box<[Run]>,
}

enum Run {
    /// Each pattern's entry beside it.
    Patterns(DomainSet, Box<[u32]>),
    Set(Arc<dyn Matcher>, u32),
}

impl Names {
    /// Compiles a list; an entry may have several items.
    ///
    /// # Errors
    /// [`BadPattern`] by the index of its entry.
    pub fn new<'i>(
        entries: impl IntoIterator<Item = (usize, &'i Item)>,
    ) -> Result<Self, BadPattern> {
        let (mut runs, mut patterns, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (index, item) in entries {
            let entry = u32::try_from(index).map_err(|_| BadPattern { index })?;
            match item {
                Item::Pattern(pattern) => {
                    patterns.push(&**pattern);
                    owners.push(entry);
                }
                Item::Set(matcher) => {
                    end_run(&mut runs, &mut patterns, &mut owners)?;
                    runs.push(Run::Set(Arc::clone(matcher), entry));
                }
            }
        }
        end_run(&mut runs, &mut patterns, &mut owners)?;
        Ok(Self { runs: runs.into() })
    }

    /// A list of which only membership counts.
    ///
    /// # Errors
    /// As [`Names::new`].
    pub fn of(items: &[Item]) -> Result<Self, BadPattern> {
        Self::new(items.iter().enumerate())
    }

    /// The entry that `name` falls under.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let found = self.runs.iter().find_map(|run| match run {
            Run::Patterns(patterns, owners) => owners.get(patterns.find(name)?).copied(),
            Run::Set(matcher, entry) => matches(&**matcher, name).then_some(*entry),
        })?;
        usize::try_from(found).ok()
    }

    /// Whether some item matches `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// Whether a rule's condition holds for every flow to `name`.
pub(super) fn matches(matcher: &dyn Matcher, name: &str) -> bool {
    matcher.truth(&Known::host_alone(Some(name))) == Truth::Yes
}

fn end_run(
    runs: &mut Vec<Run>,
    patterns: &mut Vec<&str>,
    owners: &mut Vec<u32>,
) -> Result<(), BadPattern> {
    if patterns.is_empty() {
        return Ok(());
    }
    let compiled = DomainSet::new(patterns.drain(..)).map_err(|bad| BadPattern {
        index: owners.get(bad.index).map_or(0, |entry| *entry as usize),
    })?;
    runs.push(Run::Patterns(compiled, std::mem::take(owners).into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleLine;

    fn set(suffix: &str) -> Item {
        let line = RuleLine::parse(&format!("DOMAIN-SUFFIX,{suffix},x")).unwrap();
        Item::Set(Arc::clone(line.matcher()))
    }

    #[test]
    fn runs_count_in_order_and_patterns_by_exactness_within_one() {
        let items: [Item; 5] = [
            "+.a".into(),
            "x.a".into(),
            set("b.c"),
            "y.b.c".into(),
            "+.c".into(),
        ];
        let names = Names::of(&items).unwrap();
        for (name, want) in [
            ("x.a", Some(1)),
            ("z.a", Some(0)),
            ("y.b.c", Some(2)),
            ("z.c", Some(4)),
            ("d", None),
        ] {
            assert_eq!(names.find(name), want, "{name}");
        }
    }

    #[test]
    fn a_bad_pattern_is_told_by_its_entry() {
        let items = [Item::from("a"), set("b"), Item::from("c..d")];
        assert_eq!(Names::of(&items).err(), Some(BadPattern { index: 2 }));
    }
}
