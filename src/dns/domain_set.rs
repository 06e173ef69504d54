//! mihomo's domain wildcards, compiled: which pattern of a list matches a name.
//!
//! | Pattern | Matches |
//! |---|---|
//! | `a.b.c` | exactly that |
//! | `*.b.c` | one label more; `*` may stand for any whole label, several times |
//! | `+.b.c` | `b.c` and everything below |
//! | `.b.c` | everything below `b.c`, not itself |
//! | `*` | any name of one label |
//!
//! The more exact label wins, from the right: the label itself, then `*`, then `.` and `+`. Of equal
//! patterns the later one counts. (Reference: clash-api.md 3.2, "Domain wildcard syntax".)
//!
//! A trie over labels in three flat tables; pure, immutable, no DNS in it. A look-up allocates
//! nothing. It answers with the index of the pattern in the list, so that callers keep what they
//! attach to patterns in a table of their own. Meant for lists that people write (hosts, filters,
//! sniffer lists); names are expected in lower case without the final dot.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Labels in a name (RFC 1035 section 2.3.4); bounds the depth of the search too.
const LABELS_MAX: usize = 127;
/// Marks the absence of a pattern.
const NONE: u32 = u32::MAX;

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPattern {
    /// Its index in the list.
    pub index: usize,
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a domain pattern")
    }
}

impl std::error::Error for BadPattern {}

/// A compiled list of patterns.
#[derive(Default)]
pub struct DomainSet {
    /// The root first; the children of a node stand together, sorted by label.
    nodes: Box<[Node]>,
    labels: Box<str>,
    patterns: usize,
}

struct Node {
    label: Range<u32>,
    children: Range<u32>,
    /// The pattern that ends here.
    exact: u32,
    /// The pattern that takes everything below.
    below: u32,
}

/// A node while the list is read.
struct Draft {
    children: BTreeMap<String, Self>,
    exact: u32,
    below: u32,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            children: BTreeMap::new(),
            exact: NONE,
            below: NONE,
        }
    }
}

impl DomainSet {
    /// Compiles a list.
    ///
    /// # Errors
    /// [`BadPattern`] names the first pattern with an empty or overlong label, a final dot, or a
    /// character that no name has.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, BadPattern> {
        let mut root = Draft::default();
        let mut count = 0;
        for (index, pattern) in patterns.into_iter().enumerate() {
            let number = u32::try_from(index).ok().filter(|number| *number != NONE);
            let placed = number.and_then(|number| root.place(pattern, number));
            placed.ok_or(BadPattern { index })?;
            count = index + 1;
        }
        Ok(Self::flatten(root, count))
    }

    /// Whether the text is a pattern.
    #[must_use]
    pub fn accepts(pattern: &str) -> bool {
        Draft::default().place(pattern, 0).is_some()
    }

    /// The index of the pattern that matches `name` best.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let found = self.search(self.nodes.first()?, Some(name), LABELS_MAX)?;
        usize::try_from(found).ok()
    }

    /// Whether some pattern matches `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// How many patterns the list had.
    #[must_use]
    pub fn len(&self) -> usize {
        self.patterns
    }

    /// Whether nothing can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns == 0
    }

    /// Searches below `node` for what is left of the name; `None` left: the name ends here. Every
    /// call is for a node of its own, so the work is bounded by the size of the trie.
    fn search(&self, node: &Node, left: Option<&str>, depth: usize) -> Option<u32> {
        let Some(left) = left else {
            return (node.exact != NONE).then_some(node.exact);
        };
        let (rest, label) = match left.rsplit_once('.') {
            Some((rest, label)) => (Some(rest), label),
            None => (None, left),
        };
        let depth = depth.checked_sub(1)?;
        // A name may have `*` for a label too, and then it is the same node.
        let any = (label != "*").then_some("*");
        std::iter::once(label)
            .chain(any)
            .filter_map(|label| self.child(node, label))
            .find_map(|child| self.search(child, rest, depth))
            .or_else(|| (node.below != NONE).then_some(node.below))
    }

    fn child(&self, node: &Node, label: &str) -> Option<&Node> {
        let children = self.nodes.get(span(&node.children))?;
        let found = children
            .binary_search_by(|child| self.label(child).cmp(label))
            .ok()?;
        children.get(found)
    }

    fn label(&self, node: &Node) -> &str {
        self.labels.get(span(&node.label)).unwrap_or_default()
    }

    /// Lays the drafts out breadth first, so that siblings stand together.
    fn flatten(root: Draft, patterns: usize) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut labels = String::new();
        let mut queue = vec![(String::new(), root)];
        let mut first_child = 1;
        while !queue.is_empty() {
            let mut below = Vec::new();
            for (label, draft) in queue {
                let start = position(labels.len());
                labels.push_str(&label);
                let children = first_child..first_child + position(draft.children.len());
                first_child = children.end;
                nodes.push(Node {
                    label: start..position(labels.len()),
                    children,
                    exact: draft.exact,
                    below: draft.below,
                });
                below.extend(draft.children);
            }
            queue = below;
        }
        Self {
            nodes: nodes.into(),
            labels: labels.into(),
            patterns,
        }
    }
}

impl Draft {
    /// Enters a pattern; `None` when it is none.
    fn place(&mut self, pattern: &str, number: u32) -> Option<()> {
        let (name, itself, below) = match pattern.strip_prefix("+.") {
            Some(name) => (name, true, true),
            None => match pattern.strip_prefix('.') {
                Some(name) => (name, false, true),
                None => (pattern, true, false),
            },
        };
        if name.len() > 253 {
            return None;
        }
        let mut node = self;
        for label in name.rsplit('.') {
            let plain = |b: u8| {
                b > b' ' && b != 0x7f && !matches!(b, b'*' | b'+' | b'/' | b':' | b',' | b'\\')
            };
            let fits = (1..64).contains(&label.len()) && label.bytes().all(plain);
            if label != "*" && !fits {
                return None;
            }
            node = node.children.entry(label.to_lowercase()).or_default();
        }
        if itself {
            node.exact = number;
        }
        if below {
            node.below = number;
        }
        Some(())
    }
}

fn position(length: usize) -> u32 {
    // A configuration of 4 GiB is refused long before.
    u32::try_from(length).unwrap_or(NONE)
}

fn span(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(patterns: &[&str], name: &str, want: Option<&str>) {
        let set = DomainSet::new(patterns.iter().copied()).unwrap();
        assert_eq!(set.find(name).map(|i| patterns[i]), want, "{name}");
    }

    #[test]
    fn each_form_matches_what_the_table_says() {
        check(&["a.b.c"], "a.b.c", Some("a.b.c"));
        check(&["a.b.c"], "x.a.b.c", None);
        check(&["*.b.c"], "a.b.c", Some("*.b.c"));
        check(&["*.b.c"], "b.c", None);
        check(&["*.b.c"], "x.a.b.c", None);
        check(&["a.*.c"], "a.x.c", Some("a.*.c"));
        check(&["*.*.c"], "a.b.c", Some("*.*.c"));
        check(&["+.b.c"], "b.c", Some("+.b.c"));
        check(&["+.b.c"], "x.y.b.c", Some("+.b.c"));
        check(&["+.b.c"], "xb.c", None);
        check(&[".b.c"], "b.c", None);
        check(&[".b.c"], "x.y.b.c", Some(".b.c"));
        check(&["*"], "router", Some("*"));
        check(&["*"], "router.lan", None);
        check(
            &["+.lan", "Printer.LAN"],
            "printer.lan",
            Some("Printer.LAN"),
        );
        check(&[], "a", None);
    }

    #[test]
    fn the_more_exact_label_wins_and_failing_deeper_falls_back() {
        let list = ["+.c", "*.b.c", "a.b.c", "y.x.b.c"];
        check(&list, "a.b.c", Some("a.b.c"));
        check(&list, "z.b.c", Some("*.b.c"));
        check(&list, "x.b.c", Some("*.b.c"));
        check(&list, "z.x.b.c", Some("+.c"));
        check(&list, "c", Some("+.c"));
    }

    #[test]
    fn a_name_of_stars_takes_no_longer_than_another() {
        let stars = ".*".repeat(90);
        let name = format!("b{stars}");
        check(&[&format!("a{stars}")], &name, None);
        check(&[&format!("*{stars}")], &name, Some(&format!("*{stars}")));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_its_index() {
        for bad in [
            "",
            ".",
            "+.",
            "a..b",
            "a.b.",
            "+",
            "a*.b",
            "+.+.a",
            "geosite:cn",
            "a b",
        ] {
            assert!(!DomainSet::accepts(bad), "{bad:?}");
        }
        let error = DomainSet::new(["a", "b."]).err().unwrap();
        assert_eq!(error.index, 1);
    }

    /// Whether `pattern` matches, read off the table above; ordered by how exact it is.
    fn obvious(pattern: &str, name: &str) -> Option<Vec<u8>> {
        let (bare, itself, below) = match (pattern.strip_prefix("+."), pattern.strip_prefix('.')) {
            (Some(bare), _) => (bare, true, true),
            (None, Some(bare)) => (bare, false, true),
            _ => (pattern, true, false),
        };
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (bare.rsplit('.').collect(), name.rsplit('.').collect());
        let fits = ours.len() <= theirs.len()
            && ours.iter().zip(&theirs).all(|(o, t)| *o == "*" || o == t)
            && if ours.len() == theirs.len() {
                itself
            } else {
                below
            };
        let mut rank: Vec<u8> = ours.iter().map(|o| u8::from(*o == "*")).collect();
        rank.resize(theirs.len(), 2);
        fits.then_some(rank)
    }

    proptest! {
        #[test]
        fn agrees_with_a_walk_of_the_list(
            patterns in proptest::collection::vec("(\\+\\.|\\.)?[ab*](\\.[ab*]){0,3}", 0..12),
            name in "[abc*](\\.[abc*]){0,4}",
        ) {
            let set = DomainSet::new(patterns.iter().map(String::as_str)).unwrap();
            let walked = patterns
                .iter()
                .enumerate()
                .filter_map(|(i, p)| Some((obvious(p, &name)?, std::cmp::Reverse(i))))
                .min()
                .map(|(_, std::cmp::Reverse(i))| i);
            prop_assert_eq!(set.find(&name), walked);
        }

        #[test]
        fn no_text_panics(pattern in ".{0,40}", name in ".{0,40}") {
            if let Ok(set) = DomainSet::new([pattern.as_str()]) {
                let _ = set.find(&name);
            }
        }
    }
}
