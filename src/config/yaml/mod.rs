//! YAML text to a tree whose every node knows its line and column.
//!
//! `saphyr-parser` gives the events; anchors, aliases and `<<` merge keys are resolved here. Only
//! the first document is read. The tree is untyped: [`super::scalar`] says what a scalar means, and
//! [`super::decode`] asks for it.
//!
//! Hostile input is bounded (users.md S13): size, depth, number of nodes, what aliases would expand
//! to, and how far the scanner may look ahead. Nodes lie in one arena, so that an alias is a number
//! and shares what it names: the tree of the largest permitted document, and apart from it the
//! scanner, each stay under 16 MiB (eight times the text), whatever the aliases say. Nothing here
//! recurses over the depth of the document.

mod loader;

use super::error::{ConfigError, Reason, push_printable};

/// Bytes of text: a configuration with ten thousand rules has half a megabyte.
const SIZE_MAX: usize = 2 << 20;

/// The number of a node in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

/// One value.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Of its first character, from 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// A text. `plain`: written without quotes, so it may stand for a number, a boolean or nothing.
    Scalar {
        /// Its characters.
        text: Box<str>,
        /// Written without quotes.
        plain: bool,
    },
    /// A list.
    Sequence(Box<[NodeId]>),
    /// Keys (always scalars, no two alike) and values, merged ones behind those written here.
    Mapping(Box<[(NodeId, NodeId)]>),
}

/// A document.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Tree {
    /// Reads the first document of `text`; an empty one is an empty mapping.
    ///
    /// # Errors
    /// The first thing that is not YAML, or goes past a limit.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > SIZE_MAX {
            return Err(ConfigError {
                line: 1,
                column: 1,
                path: String::new(),
                reason: Reason::Limit("the file is larger than 2 MiB"),
            });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (nodes, root) = loader::load(text)?;
        Ok(Self { nodes, root })
    }

    /// The document's value.
    #[must_use]
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The node of that number.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "a NodeId is only made for a node that was pushed, and none is ever removed"
    )]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

/// Appends a key to a path, cut and escaped as every text of the file in a message.
pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    for c in key.chars().take(64) {
        push_printable(path, c);
    }
}
