//! From lines to tables, a line at a time.

use std::sync::Arc;

use super::super::matcher::{Key, Matcher, Needs};
use super::super::port::{PortField, Ranges};
use super::super::{RuleError, RuleLine};
use super::keywords::Keywords;
use super::lines::LinesBuilder;
use super::names::{self, Names, Reach};
use super::numbers::Numbers;
use super::{Class, Families, LINES_MAX, Rules};
use crate::metadata::Mac;
use crate::prefix::Prefix;

/// Compiles lines one by one, keeping of each only what the compiled list keeps.
#[derive(Default)]
pub struct RulesBuilder {
    lines: LinesBuilder,
    always: Vec<u32>,
    names: Vec<(u32, u32)>,
    keywords: Vec<(u32, Box<str>)>,
    destinations: Vec<(Prefix, u32)>,
    resolving: Vec<(u32, u32)>,
    sources: Vec<(Prefix, u32)>,
    numbers: [Vec<(u32, Box<Ranges>)>; 4],
    macs: Vec<(Mac, u32)>,
    asked: Vec<(u32, Arc<dyn Matcher>)>,
    needs: Needs,
    needs_change: bool,
}

impl RulesBuilder {
    /// Adds a line behind those before.
    ///
    /// # Errors
    /// [`RuleError::TooMany`]: the list is full; nothing was added.
    pub fn push(&mut self, line: &RuleLine) -> Result<(), RuleError> {
        let number = u32::try_from(self.lines.len())
            .ok()
            .filter(|_| self.lines.len() < LINES_MAX)
            .ok_or(RuleError::TooMany)?;
        let matcher = line.matcher();
        let key = matcher.key();
        let class = match key {
            Key::Always => Class::Always,
            Key::Name(_) | Key::NameSuffix(_) | Key::NamePart(_) => Class::Name,
            Key::Destination(..) => Class::Destination,
            Key::Source(_) | Key::Number(..) | Key::Mac(_) => Class::Other,
            Key::Ask => Class::Ask,
        };
        self.lines
            .push(line.kind, class, &line.payload, &line.target)
            .map_err(|_| RuleError::TooMany)?;
        self.needs = self.needs | matcher.needs();
        self.needs_change |= matcher.needs_change();
        match key {
            Key::Always => self.always.push(number),
            Key::Name(name) => self.names.push((names::hash(name, Reach::Exact), number)),
            Key::NameSuffix(name) => self.names.push((names::hash(name, Reach::Suffix), number)),
            Key::NamePart(text) => self.keywords.push((number, text.into())),
            Key::Destination(prefix, resolve) => {
                self.destinations.push((prefix, number));
                if resolve {
                    self.push_resolving(number);
                }
            }
            Key::Source(prefix) => self.sources.push((prefix, number)),
            Key::Number(field, ranges) => {
                let tables = PortField::ALL.into_iter().zip(&mut self.numbers);
                for (_, table) in tables.filter(|(its_field, _)| *its_field == field) {
                    table.push((number, ranges.into()));
                }
            }
            Key::Mac(mac) => self.macs.push((mac, number)),
            Key::Ask => self.asked.push((number, Arc::clone(matcher))),
        }
        Ok(())
    }

    fn push_resolving(&mut self, number: u32) {
        match self.resolving.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.resolving.push((number, number)),
        }
    }

    /// The compiled list.
    #[must_use]
    pub fn finish(mut self) -> Rules {
        self.macs.sort_unstable();
        let count = self.lines.len();
        Rules {
            // First, since it gives back what its buffer has too much.
            lines: self.lines.finish(),
            names: Names::build(self.names, count),
            always: self.always.into(),
            keywords: Keywords::build(self.keywords),
            destinations: Families::build(self.destinations),
            resolving: self.resolving.into(),
            sources: Families::build(self.sources),
            numbers: self.numbers.map(Numbers::build),
            macs: self.macs.into(),
            asked: self.asked.into(),
            needs: self.needs,
            needs_change: self.needs_change,
        }
    }
}
