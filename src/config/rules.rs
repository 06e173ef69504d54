//! `rules:` and `sub-rules:` (clash-api.md 3.12).
//!
//! A list of `sub-rules:` is compiled before the lines that lead to it, in whatever order the file
//! has them; lists that lead back to themselves are refused at the line that closes the circle.

use std::sync::Arc;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason};
use super::geodata::GeoUses;
use super::section::Section;
use crate::rules::{Library, RuleError, RuleLine, Rules, RulesBuilder, list_name};

/// Lists that may lead into each other; evaluation recurses that far.
const NESTED_MAX: usize = 16;

/// What the lines came to.
pub(super) struct Decoded {
    /// `rules:`.
    pub rules: Vec<RuleLine>,
    /// `sub-rules:`, in the order of the file.
    pub lists: Vec<(Box<str>, Arc<Rules>)>,
}

/// Reads both sections. `library` has whatever else lines may refer to.
pub(super) fn decode(
    section: &mut Section<'_>,
    library: Library,
    uses: &mut GeoUses,
) -> Result<Decoded, ConfigError> {
    let sub_rules = section.take("sub-rules");
    let mut entries = Vec::new();
    if let Some(lists) = &sub_rules {
        entries.extend(lists.entries()?);
    }
    let mut lists = Lists {
        entries,
        library,
        uses,
        open: Vec::new(),
    };
    let mut done = Vec::new();
    for index in 0..lists.entries.len() {
        if let Some((name, list)) = lists.compile(index)? {
            done.push((name.into(), list));
        }
    }
    let (library, uses) = (&lists.library, &mut *lists.uses);
    let rules = section.list("rules", |item| parse(item, library, uses))?;
    Ok(Decoded { rules, lists: done })
}

/// The lists on their way from text to compiled form.
struct Lists<'c, 'u> {
    entries: Vec<(&'c str, Cursor<'c>)>,
    library: Library,
    uses: &'u mut GeoUses,
    /// Those whose lines are being read, outermost first.
    open: Vec<&'c str>,
}

impl<'c> Lists<'c, '_> {
    /// Compiles a list after those that its lines lead to; its name and itself.
    fn compile(&mut self, index: usize) -> Result<Option<(&'c str, Arc<Rules>)>, ConfigError> {
        let Some((name, at)) = self.entries.get(index).copied() else {
            return Ok(None);
        };
        if let Some(known) = self.library.list(name) {
            return Ok(Some((name, Arc::clone(known))));
        }
        self.open.push(name);
        let mut builder = RulesBuilder::default();
        if !at.is_absent() {
            for item in at.items()? {
                if let Some(next) = list_name(item.text()?) {
                    self.enter(next, &item)?;
                }
                let line = parse(&item, &self.library, self.uses)?;
                builder
                    .push(&line)
                    .map_err(|why| item.fail(Reason::Rule(why)))?;
            }
        }
        self.open.pop();
        let list = Arc::new(builder.finish());
        self.library.add_list(name, Arc::clone(&list));
        Ok(Some((name, list)))
    }

    /// Compiles the list that the line at `item` leads to; one that does not exist is told by the line.
    fn enter(&mut self, name: &str, item: &Cursor<'_>) -> Result<(), ConfigError> {
        if let Some(first) = self.open.iter().position(|open| *open == name) {
            let mut way: Vec<&str> = self.open.iter().skip(first).copied().collect();
            way.push(name);
            return Err(item.fail(Reason::Loop(Excerpt::of(&way.join(" → ")))));
        }
        let Some(index) = self.entries.iter().position(|(entry, _)| *entry == name) else {
            return Ok(());
        };
        if self.library.list(name).is_none() && self.open.len() >= NESTED_MAX {
            return Err(item.fail(Reason::Limit("lists of sub-rules nested more than 16 deep")));
        }
        self.compile(index).map(|_| ())
    }
}

fn parse(
    item: &Cursor<'_>,
    library: &Library,
    uses: &mut GeoUses,
) -> Result<RuleLine, ConfigError> {
    let line =
        RuleLine::parse_in(item.text()?, library).map_err(|why| item.fail(Reason::Rule(why)))?;
    uses.note(item);
    Ok(line)
}

/// Why a line is no rule, as the configuration tells it.
pub(super) fn reason(why: RuleError) -> Reason {
    Reason::Rule(why)
}
