//! The parser's events, put together to nodes without recursion and within limits.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::str::Chars;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{Kind, Node, NodeId, push_key};
use crate::config::error::{ConfigError, Excerpt, Reason};
use crate::config::scalar;

/// Lists and mappings inside each other, aliases followed: mihomo's own keys reach eight.
const DEPTH_MAX: usize = 32;
/// Values, keys and aliases written in the document: at some 60 bytes each, 12 MiB.
const NODES_MAX: usize = 200_000;
/// Indicators between two events, in halves: a quote is half a quoted text. Where a key could stand
/// (a file in JSON, `- {…}`) the scanner keeps all tokens of a bracketed collection until it ends,
/// up to 530 bytes an indicator (measured, 64 bits). This is JSON with some 1000 proxies.
const FLOW_MAX: usize = 60_000;
/// What aliases may stand for, in nodes: ten times what a text of that length holds at eight bytes
/// a node, and some more for small files,
const ALIAS_FACTOR: usize = 10;
const BYTES_PER_NODE: usize = 8;
const ALIAS_FREE: usize = 4096;
/// but never more than this: what is decoded from them is memory again.
const ALIAS_MAX: usize = 500_000;

/// The nodes of the first document, and which is its root.
pub(super) fn load(text: &str) -> Result<(Vec<Node>, NodeId), ConfigError> {
    let flow = Cell::new(0);
    let mut parser = Parser::new_from_iter(Counted {
        characters: text.chars(),
        flow: &flow,
    });
    let mut loader = Loader {
        aliases_left: (text.len() / BYTES_PER_NODE * ALIAS_FACTOR + ALIAS_FREE).min(ALIAS_MAX),
        ..Loader::default()
    };
    while let Some(next) = parser.next_event() {
        if flow.replace(0) >= FLOW_MAX {
            let at = next.map_or_else(|error| *error.marker(), |(_, span)| span.start);
            let limit = "a list or mapping in brackets is too long; write it line by line";
            return Err(loader.error(at, Reason::Limit(limit)));
        }
        match next {
            Err(error) => {
                let reason = Reason::Syntax(Excerpt::of(error.info()));
                return Err(loader.error(*error.marker(), reason));
            }
            Ok((Event::DocumentEnd | Event::StreamEnd, _)) => break,
            Ok((Event::DocumentStart(_) | Event::StreamStart | Event::Nothing, _)) => {}
            Ok((event, span)) => loader.take(event, span.start)?,
        }
    }
    let root = match loader.root {
        Some(root) if !loader.is_null(root) => root,
        _ => loader.push(Kind::Mapping(Box::default()), Marker::new(0, 1, 0))?,
    };
    Ok((loader.nodes, root))
}

/// The text's characters, which end early once too many were taken since `flow` was last reset.
struct Counted<'a> {
    characters: Chars<'a>,
    flow: &'a Cell<usize>,
}

impl Iterator for Counted<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        if self.flow.get() >= FLOW_MAX {
            return None;
        }
        let c = self.characters.next()?;
        let halves = match c {
            ',' | ':' | '[' | ']' | '{' | '}' | '?' | '&' | '*' | '!' => 2,
            '"' | '\'' => 1,
            _ => 0,
        };
        self.flow.set(self.flow.get() + halves);
        Some(c)
    }
}

/// A list or mapping that is still open.
struct Frame {
    start: Marker,
    anchor: usize,
    /// Nodes in it so far, aliases expanded.
    weight: usize,
    /// Levels of lists and mappings beneath it so far.
    height: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<NodeId>),
    Mapping {
        entries: Vec<(NodeId, NodeId)>,
        key: Option<NodeId>,
        merges: Vec<NodeId>,
    },
}

/// A finished value on its way into its parent.
#[derive(Clone, Copy)]
struct Finished {
    id: NodeId,
    weight: usize,
    height: usize,
}

#[derive(Default)]
struct Loader {
    nodes: Vec<Node>,
    open: Vec<Frame>,
    /// By the parser's number; no entry while the anchored value is still open.
    anchors: HashMap<usize, Finished>,
    root: Option<NodeId>,
    /// Nodes, keys and aliases written so far.
    written: usize,
    /// Nodes that aliases may still stand for.
    aliases_left: usize,
}

impl Loader {
    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), ConfigError> {
        self.written += 1;
        if self.written > NODES_MAX {
            return Err(self.error(at, Reason::Limit("more than 200000 values")));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced = self.check_tag(tag.as_deref(), at)?;
                let plain = style == ScalarStyle::Plain && !forced;
                let text = text.into_owned().into_boxed_str();
                let id = self.push(Kind::Scalar { text, plain }, at)?;
                self.finish(id, anchor, 1, 0, at)
            }
            Event::Alias(anchor) => {
                let Some(&named) = self.anchors.get(&anchor) else {
                    return Err(self.error(at, Reason::AliasLoop));
                };
                let Some(left) = self.aliases_left.checked_sub(named.weight) else {
                    let limit = "aliases repeat more than ten times what is written";
                    return Err(self.error(at, Reason::Limit(limit)));
                };
                self.aliases_left = left;
                self.attach(named, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), at)?;
                self.open(at, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), at)?;
                let content = Content::Mapping {
                    entries: Vec::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(at, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn push(&mut self, kind: Kind, at: Marker) -> Result<NodeId, ConfigError> {
        let Ok(number) = u32::try_from(self.nodes.len()) else {
            return Err(self.error(at, Reason::Limit("more than 200000 values")));
        };
        let (line, column) = position(at);
        self.nodes.push(Node { kind, line, column });
        Ok(NodeId(number))
    }

    fn open(&mut self, start: Marker, anchor: usize, content: Content) -> Result<(), ConfigError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(self.error(start, Reason::Limit("more than 32 levels")));
        }
        self.open.push(Frame {
            start,
            anchor,
            weight: 1,
            height: 0,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), ConfigError> {
        let Some(frame) = self.open.pop() else {
            return Ok(());
        };
        let kind = match frame.content {
            Content::Sequence(items) => Kind::Sequence(items.into()),
            Content::Mapping {
                entries, merges, ..
            } => Kind::Mapping(self.merge(entries, &merges)?),
        };
        let id = self.push(kind, frame.start)?;
        let height = frame.height + 1;
        self.finish(id, frame.anchor, frame.weight, height, frame.start)
    }

    /// Registers a whole value under its anchor and gives it to its parent.
    fn finish(
        &mut self,
        id: NodeId,
        anchor: usize,
        weight: usize,
        height: usize,
        at: Marker,
    ) -> Result<(), ConfigError> {
        let value = Finished { id, weight, height };
        if anchor != 0 {
            self.anchors.insert(anchor, value);
        }
        self.attach(value, at)
    }

    fn attach(&mut self, value: Finished, at: Marker) -> Result<(), ConfigError> {
        // An alias may bring more levels than the document shows.
        if self.open.len() + value.height > DEPTH_MAX {
            return Err(self.error(at, Reason::Limit("more than 32 levels")));
        }
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(value.id);
            return Ok(());
        };
        frame.weight = frame.weight.saturating_add(value.weight);
        frame.height = frame.height.max(value.height);
        match &mut frame.content {
            Content::Sequence(items) => items.push(value.id),
            Content::Mapping {
                entries,
                key,
                merges,
            } => match key.take() {
                None if value.height > 0 => return Err(self.error(at, Reason::KeyNotText)),
                None => *key = Some(value.id),
                Some(name) if is_merge_key(&self.nodes, name) && merges.is_empty() => {
                    merges.push(name);
                    merges.push(value.id);
                }
                Some(name) => entries.push((name, value.id)),
            },
        }
        Ok(())
    }

    /// The entries of a mapping with what `<<` (its key and its value in `merges`) brings.
    fn merge(
        &self,
        mut entries: Vec<(NodeId, NodeId)>,
        merges: &[NodeId],
    ) -> Result<Box<[(NodeId, NodeId)]>, ConfigError> {
        let mut names = HashSet::with_capacity(entries.len());
        for &(key, _) in &entries {
            // A second `<<` is only left among the entries to be refused as a repetition.
            if !names.insert(self.text(key)) || is_merge_key(&self.nodes, key) {
                return Err(self.error_at(key, Reason::DuplicateKey));
            }
        }
        let &[_, value] = merges else {
            return Ok(entries.into());
        };
        let sources: &[NodeId] = match self.kind(value) {
            Some(Kind::Sequence(items)) => items,
            _ => &[value],
        };
        for &source in sources {
            let Some(Kind::Mapping(merged)) = self.kind(source) else {
                return Err(self.error_at(value, Reason::MergeNotMapping));
            };
            for &(key, value) in merged {
                if names.insert(self.text(key)) {
                    entries.push((key, value));
                }
            }
        }
        Ok(entries.into())
    }

    fn is_null(&self, id: NodeId) -> bool {
        let kind = self.kind(id);
        matches!(kind, Some(Kind::Scalar { text, plain: true }) if scalar::is_null(text))
    }

    fn kind(&self, id: NodeId) -> Option<&Kind> {
        self.nodes.get(id.0 as usize).map(|node| &node.kind)
    }

    fn text(&self, id: NodeId) -> &str {
        match self.kind(id) {
            Some(Kind::Scalar { text, .. }) => text,
            _ => "",
        }
    }

    /// Whether the tag makes the scalar a text. Subscription converters write `!<str> 0123`; the
    /// other types of YAML's core say nothing that the key would not.
    fn check_tag(&self, tag: Option<&Tag>, at: Marker) -> Result<bool, ConfigError> {
        let Some(tag) = tag else {
            return Ok(false);
        };
        match &*tag.suffix {
            "str" | "tag:yaml.org,2002:str" => Ok(true),
            "int" | "bool" | "float" | "null" | "map" | "seq" if tag.is_yaml_core_schema() => {
                Ok(false)
            }
            suffix => Err(self.error(at, Reason::Tag(Excerpt::of(suffix)))),
        }
    }

    fn error(&self, at: Marker, reason: Reason) -> ConfigError {
        let (line, column) = position(at);
        self.error_on(line, column, "", reason)
    }

    /// An error at a key of the mapping that was just closed.
    fn error_at(&self, key: NodeId, reason: Reason) -> ConfigError {
        let (line, column) = self
            .nodes
            .get(key.0 as usize)
            .map_or((1, 1), |node| (node.line, node.column));
        self.error_on(line, column, self.text(key), reason)
    }

    /// Names the way through the open lists and mappings, then `last`.
    fn error_on(&self, line: u32, column: u32, last: &str, reason: Reason) -> ConfigError {
        let mut path = String::new();
        for frame in &self.open {
            match &frame.content {
                Content::Sequence(items) => path.push_str(&format!("[{}]", items.len())),
                Content::Mapping { key: Some(key), .. } => push_key(&mut path, self.text(*key)),
                Content::Mapping { key: None, .. } => {}
            }
        }
        if !last.is_empty() {
            push_key(&mut path, last);
        }
        ConfigError {
            line,
            column,
            path,
            reason,
        }
    }
}

fn is_merge_key(nodes: &[Node], id: NodeId) -> bool {
    nodes.get(id.0 as usize).is_some_and(
        |node| matches!(&node.kind, Kind::Scalar { text, plain: true } if &**text == "<<"),
    )
}

/// Line and column from 1; the parser counts columns from 0.
fn position(at: Marker) -> (u32, u32) {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (small(at.line()).max(1), small(at.col()).saturating_add(1))
}
