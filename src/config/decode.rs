//! Asking the tree for typed values: a [`Cursor`] stands on a node and knows the way to it.
//!
//! Two styles, as in mihomo. *Strict*, for the file's own sections: key names are exact, a number is
//! written as one, a list is a list. *Weak*, for entries of `proxies:`, `proxy-groups:` and
//! `listeners:`, which come from subscriptions of every kind: key names ignore case and take `_` for
//! `-`, a quoted number is a number, a number is a boolean, a single value is a list of one. A number
//! where a text is asked for keeps its spelling in both (mihomo rewrites `0123` in weak places).
//!
//! A key with a null or empty value counts as absent.

use super::error::{ConfigError, Excerpt, Reason};
use super::scalar;
use super::section::Section;
use super::yaml::{Kind, Node, NodeId, Tree, push_key};
use crate::prefix::Prefix;

/// A node with the way to it. Lives on the stack, child behind parent; costs no allocation.
#[derive(Clone, Copy)]
pub struct Cursor<'c> {
    tree: &'c Tree,
    id: NodeId,
    parent: Option<&'c Self>,
    step: Step<'c>,
    weak: bool,
}

/// How a node hangs on its parent.
#[derive(Clone, Copy)]
pub enum Step<'c> {
    /// The value itself: the document, or a single value taken for a list.
    Here,
    /// The value of a key.
    Key(&'c str),
    /// An item of a list, from 0.
    Item(usize),
}

impl<'c> Cursor<'c> {
    /// The document, in strict style.
    #[must_use]
    pub fn root(tree: &'c Tree) -> Self {
        Self {
            tree,
            id: tree.root(),
            parent: None,
            step: Step::Here,
            weak: false,
        }
    }

    /// The same place; from here on in weak style.
    #[must_use]
    pub fn weak(self) -> Self {
        Self { weak: true, ..self }
    }

    fn node(&self) -> &'c Node {
        self.tree.node(self.id)
    }

    /// A value of an entry of this mapping, under its key.
    pub(super) fn entry(&'c self, key: NodeId, value: NodeId) -> Self {
        self.child(Step::Key(key_text(self.tree, key)), value)
    }

    /// The key itself, as a place to report.
    pub(super) fn entry_key(&'c self, key: NodeId) -> (&'c str, Self) {
        (key_text(self.tree, key), self.entry(key, key))
    }

    fn child(&'c self, step: Step<'c>, id: NodeId) -> Self {
        Self {
            tree: self.tree,
            id,
            parent: Some(self),
            step,
            weak: self.weak,
        }
    }

    /// Line and column, from 1.
    #[must_use]
    pub fn position(&self) -> (u32, u32) {
        (self.node().line, self.node().column)
    }

    /// The way from the document: `proxies[2].port`.
    #[must_use]
    pub fn path(&self) -> String {
        self.render(true)
    }

    /// The way without the places in lists: `proxies[].port`.
    #[must_use]
    pub fn path_without_indices(&self) -> String {
        self.render(false)
    }

    fn render(&self, indices: bool) -> String {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(cursor) = at {
            steps.push(cursor.step);
            at = cursor.parent;
        }
        let mut path = String::new();
        for step in steps.iter().rev() {
            match step {
                Step::Here => {}
                Step::Key(key) => push_key(&mut path, key),
                Step::Item(index) if indices => path.push_str(&format!("[{index}]")),
                Step::Item(_) => path.push_str("[]"),
            }
        }
        path
    }

    /// An error here.
    #[must_use]
    pub fn fail(&self, reason: Reason) -> ConfigError {
        let (line, column) = self.position();
        ConfigError {
            line,
            column,
            path: self.path(),
            reason,
        }
    }

    /// An error at the place `steps` beneath this one, or as near to it as the tree goes.
    #[must_use]
    pub fn fail_at(&self, steps: &[Step<'_>], reason: Reason) -> ConfigError {
        let next = steps.split_first().and_then(|(step, rest)| {
            let child = match *step {
                Step::Here => Some(*self),
                Step::Key(key) => self.key(key),
                Step::Item(index) => self.items().ok()?.nth(index),
            };
            Some((child?, rest))
        });
        match next {
            Some((child, rest)) => child.fail_at(rest, reason),
            None => self.fail(reason),
        }
    }

    /// An error about a key that is not in this mapping.
    #[must_use]
    pub fn missing(&self, key: &'static str, reason: Reason) -> ConfigError {
        self.child(Step::Key(key), self.id).fail(reason)
    }

    /// "expected …, found …" with what stands here.
    #[must_use]
    pub fn expected(&self, expected: &'static str) -> ConfigError {
        self.fail(match &self.node().kind {
            Kind::Scalar { text, plain } if !(*plain && scalar::is_null(text)) => Reason::Value {
                expected,
                found: Excerpt::of(text),
            },
            kind => Reason::Kind {
                expected,
                found: name_of(kind),
            },
        })
    }

    /// Whether nothing stands here: null or an empty text.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match &self.node().kind {
            Kind::Scalar { text, plain } => text.is_empty() || (*plain && scalar::is_null(text)),
            _ => false,
        }
    }

    /// Whether a list stands here.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.node().kind, Kind::Sequence(_))
    }

    /// The text of a scalar, as it is spelled.
    ///
    /// # Errors
    /// A list, a mapping or nothing stands here.
    pub fn text(&self) -> Result<&'c str, ConfigError> {
        match &self.node().kind {
            Kind::Scalar { text, .. } if !self.is_absent() => Ok(text),
            kind => Err(self.fail(Reason::Kind {
                expected: "text",
                found: name_of(kind),
            })),
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn boolean(&self) -> Result<bool, ConfigError> {
        const EXPECTED: &str = "true or false";
        let Kind::Scalar { text, plain } = &self.node().kind else {
            return Err(self.expected(EXPECTED));
        };
        // yaml.v3 takes the words of YAML 1.1 quoted as well, but not "true".
        let word = !matches!(
            &**text,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE"
        );
        if (*plain || self.weak || word)
            && let Some(value) = scalar::boolean(text)
        {
            return Ok(value);
        }
        match scalar::integer(text) {
            Some(number) if self.weak => Ok(number != 0),
            _ => Err(self.expected(EXPECTED)),
        }
    }

    /// An integer of at most 32 bits in `range`, which `expected` describes.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn integer(
        &self,
        range: std::ops::RangeInclusive<u32>,
        expected: &'static str,
    ) -> Result<u32, ConfigError> {
        if let Kind::Scalar { text, plain } = &self.node().kind
            && (*plain || self.weak)
            && let Some(number) = scalar::integer(text)
            && let Ok(number) = u32::try_from(number)
            && range.contains(&number)
        {
            return Ok(number);
        }
        Err(self.expected(expected))
    }

    /// A port, from 1.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn port(&self) -> Result<u16, ConfigError> {
        const EXPECTED: &str = "a port (1 to 65535)";
        let number = self.integer(1..=65535, EXPECTED)?;
        u16::try_from(number).map_err(|_| self.expected(EXPECTED))
    }

    /// An address prefix, or an address alone.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn prefix(&self) -> Result<Prefix, ConfigError> {
        let text = self.text()?;
        text.parse()
            .map_err(|why| self.fail(Reason::Prefix(why, Excerpt::of(text))))
    }

    /// What a function makes of the text; `expected` when it makes nothing.
    ///
    /// # Errors
    /// No text, or none that `parse` takes.
    pub fn parse<T>(
        &self,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        parse(self.text()?).ok_or_else(|| self.expected(expected))
    }

    /// The items of a list; in weak style a single value is a list of one.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn items(&'c self) -> Result<impl Iterator<Item = Self>, ConfigError> {
        let (ids, single): (&[NodeId], _) = match &self.node().kind {
            Kind::Sequence(ids) => (ids, None),
            _ if self.weak => (&[], Some(self.child(Step::Here, self.id))),
            kind => {
                return Err(self.fail(Reason::Kind {
                    expected: "a list",
                    found: name_of(kind),
                }));
            }
        };
        let items = ids.iter().enumerate();
        Ok(items
            .map(|(index, &id)| self.child(Step::Item(index), id))
            .chain(single))
    }

    /// The keys and values of a mapping, in the order of the file.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn entries(&'c self) -> Result<impl Iterator<Item = (&'c str, Self)>, ConfigError> {
        Ok(self.mapping()?.iter().map(|&(key, value)| {
            let name = key_text(self.tree, key);
            (name, self.child(Step::Key(name), value))
        }))
    }

    /// The mapping as a section.
    ///
    /// # Errors
    /// Something else stands here.
    pub fn section(&'c self) -> Result<Section<'c>, ConfigError> {
        Ok(Section::new(self, self.mapping()?))
    }

    fn mapping(&self) -> Result<&'c [(NodeId, NodeId)], ConfigError> {
        match &self.node().kind {
            Kind::Mapping(entries) => Ok(entries),
            kind => Err(self.fail(Reason::Kind {
                expected: "a mapping",
                found: name_of(kind),
            })),
        }
    }

    /// The value of a key of a mapping.
    fn key(&'c self, key: &str) -> Option<Self> {
        let entries = self.mapping().ok()?;
        let index = self.find(entries, key)?;
        let &(name, value) = entries.get(index)?;
        Some(self.child(Step::Key(key_text(self.tree, name)), value))
    }

    /// Which entry has that key.
    pub(super) fn find(&self, entries: &[(NodeId, NodeId)], key: &str) -> Option<usize> {
        let by = |same: fn(&str, &str) -> bool| {
            entries
                .iter()
                .position(|&(name, _)| same(key_text(self.tree, name), key))
        };
        let exact = by(|name, key| name == key);
        if self.weak {
            exact.or_else(|| by(same_folded))
        } else {
            exact
        }
    }
}

fn key_text(tree: &Tree, key: NodeId) -> &str {
    match &tree.node(key).kind {
        Kind::Scalar { text, .. } => text,
        _ => "",
    }
}

fn same_folded(a: &str, b: &str) -> bool {
    let fold = |b: u8| {
        if b == b'_' {
            b'-'
        } else {
            b.to_ascii_lowercase()
        }
    };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Scalar { text, plain } if text.is_empty() || (*plain && scalar::is_null(text)) => {
            "nothing"
        }
        Kind::Scalar { .. } => "a single value",
        Kind::Sequence(items) if items.is_empty() => "an empty list",
        Kind::Sequence(_) => "a list",
        Kind::Mapping(_) => "a mapping",
    }
}
