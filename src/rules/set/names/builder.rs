//! From patterns to the arrays of a [`NameSet`].
//!
//! A pattern is one key: its name backwards, with two flags that say whether it means the name itself
//! and what is below it. The keys are sorted by four bytes at a time, and walked twice in order: what a
//! key does not share with the one before it are new nodes of the trie, one at each depth. The first
//! walk counts the nodes of each depth; with that every node has its place, and the second walk fills
//! arrays that have their final size. Names that a shorter pattern covers are left out.
//!
//! While a set is made it costs the text of its names, twelve bytes for each, and the set.

use super::NameSet;
use crate::rules::PayloadError;
use crate::rules::domain::lowered;
use crate::rules::set::bits::Bits;

/// Bytes of a name (RFC 1035 section 2.3.4), and the wildcard before it.
const PATTERN_MAX: usize = 255;

/// Nodes above each other: the root, a name, and the two of "and everything below".
const DEPTHS: usize = PATTERN_MAX + 3;

/// The key means its name.
const ITSELF: u8 = 1;
/// The key means what is below its name.
const BELOW: u8 = 2;

/// Collects patterns; the text is kept backwards in one buffer until the set is made.
#[derive(Default)]
pub struct NameSetBuilder {
    text: Vec<u8>,
    keys: Vec<Key>,
}

/// A name in the text, and what of it is meant.
#[derive(Clone, Copy)]
struct Key {
    /// The four bytes that are being sorted by, as a number.
    chunk: u32,
    start: u32,
    length: u8,
    means: u8,
}

impl Key {
    fn bytes(self, text: &[u8]) -> &[u8] {
        let start = self.start as usize;
        text.get(start..start + usize::from(self.length))
            .unwrap_or_default()
    }
}

impl NameSetBuilder {
    /// Adds a pattern: `a.b`, `*.b`, `+.b`, `.b`.
    ///
    /// # Errors
    /// [`PayloadError::Pattern`]: it is none; [`PayloadError::SetFull`].
    pub fn push(&mut self, pattern: &str) -> Result<(), PayloadError> {
        let (name, means) = match pattern.strip_prefix("+.") {
            Some(name) => (name, ITSELF | BELOW),
            None => match pattern.strip_prefix('.') {
                Some(name) => (name, BELOW),
                None => (pattern, ITSELF),
            },
        };
        let ascii;
        let name = if name.is_ascii() {
            name
        } else {
            let labels: Result<Vec<_>, _> = name.split('.').map(label_lowered).collect();
            ascii = labels?.join(".");
            &ascii
        };
        if !is_pattern(name.as_bytes()) {
            return Err(PayloadError::Pattern);
        }
        let start = u32::try_from(self.text.len()).map_err(|_| PayloadError::SetFull)?;
        let length = u8::try_from(name.len()).map_err(|_| PayloadError::Pattern)?;
        let backwards = name.bytes().rev();
        self.text.extend(backwards.map(|b| b.to_ascii_lowercase()));
        self.keys.push(Key {
            chunk: 0,
            start,
            length,
            means,
        });
        Ok(())
    }

    /// The set.
    #[must_use]
    pub fn finish(self) -> NameSet {
        let Self { text, mut keys } = self;
        sort(&mut keys, &text, 0);
        keys.dedup_by(|later, earlier| {
            let same = later.bytes(&text) == earlier.bytes(&text);
            earlier.means |= if same { later.means } else { 0 };
            same
        });
        let mut levels = vec![Level::default(); DEPTHS];
        walk(&keys, &text, &mut |depth, _, _| {
            if let Some(level) = levels.get_mut(depth) {
                level.nodes += 1;
            }
        });
        let mut filling = Filling::new(levels);
        walk(&keys, &text, &mut |depth, label, leaf| {
            filling.push(depth, label, leaf);
        });
        filling.finish()
    }
}

/// A label in its ASCII form; one without letters beyond ASCII is judged later.
fn label_lowered(label: &str) -> Result<Box<str>, PayloadError> {
    if label.is_ascii() {
        Ok(label.into())
    } else {
        lowered(label)
    }
}

/// Whether these are labels, each a `*` or without bytes that no name has.
fn is_pattern(name: &[u8]) -> bool {
    let plain = |b: u8| !b.is_ascii_control() && !b" *+/:,\\".contains(&b);
    name.len() <= PATTERN_MAX
        && name
            .split(|b| *b == b'.')
            .all(|label| label == b"*" || !label.is_empty() && label.iter().all(|b| plain(*b)))
}

/// Sorts keys that are the same in the first `depth` bytes. No name has a zero byte, so that what stands
/// behind an end is less than any byte.
fn sort(keys: &mut [Key], text: &[u8], depth: usize) {
    for key in keys.iter_mut() {
        let rest = key.bytes(text).get(depth..).unwrap_or_default();
        let mut chunk = [0; 4];
        chunk
            .iter_mut()
            .zip(rest)
            .for_each(|(to, from)| *to = *from);
        key.chunk = u32::from_be_bytes(chunk);
    }
    keys.sort_unstable_by_key(|key| key.chunk);
    for same in keys.chunk_by_mut(|a, b| a.chunk == b.chunk) {
        let ended = same.first().is_none_or(|key| key.chunk & 0xff == 0);
        if same.len() > 1 && !ended {
            sort(same, text, depth + 4);
        }
    }
}

/// Tells `visit` of every node but the root, in the order of the keys, each before those below it: how
/// deep it is, the byte that leads to it, and whether a key ends there.
fn walk(keys: &[Key], text: &[u8], visit: &mut dyn FnMut(usize, u8, bool)) {
    let mut before: &[u8] = &[];
    // Names whose "and everything below" has not come yet, each the beginning of the next: `.` sorts
    // behind `-`, so that other names may stand between a name and what is below it.
    let mut open: Vec<&[u8]> = Vec::new();
    let close = |name: &[u8], visit: &mut dyn FnMut(usize, u8, bool)| {
        visit(name.len() + 1, b'.', false);
        visit(name.len() + 2, b'+', true);
    };
    for key in keys {
        let bytes = key.bytes(text);
        let mut covered = false;
        while let Some(name) = open.last() {
            match bytes.strip_prefix(*name).and_then(<[u8]>::first) {
                Some(next) if *next < b'.' => break,
                Some(b'.') => {
                    covered = true;
                    break;
                }
                _ => close(name, visit),
            }
            open.pop();
        }
        if covered {
            continue;
        }
        let shared = before.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        for (at, label) in bytes.iter().enumerate().skip(shared) {
            let last = at + 1 == bytes.len();
            visit(at + 1, *label, last && key.means & ITSELF != 0);
        }
        if key.means & BELOW != 0 {
            open.push(bytes);
        }
        before = bytes;
    }
    while let Some(name) = open.pop() {
        close(name, visit);
    }
}

/// The nodes of one depth.
#[derive(Clone, Copy, Default)]
struct Level {
    nodes: usize,
    /// Its last node is not ended yet.
    open: bool,
    /// The number of its next node.
    next: usize,
    /// Where its next bit stands in the shape.
    shape: usize,
}

/// The arrays, being filled at a place for each depth.
struct Filling {
    levels: Vec<Level>,
    leaves: Vec<u64>,
    shape: Vec<u64>,
    labels: Vec<u8>,
}

impl Filling {
    /// Arrays for so many nodes at each depth; the root is there already.
    fn new(mut levels: Vec<Level>) -> Self {
        if let Some(root) = levels.first_mut() {
            (root.nodes, root.open) = (1, true);
        }
        // Every node but the root has a bit that leads to it, beside the bit that ends it.
        let (mut nodes, mut bits) = (0, 0);
        for level in &mut levels {
            bits += if nodes == 0 { 0 } else { level.nodes };
            (level.next, level.shape) = (nodes, bits);
            nodes += level.nodes;
            bits += level.nodes;
        }
        Self {
            levels,
            leaves: vec![0; nodes.div_ceil(64)],
            shape: vec![0; bits.div_ceil(64)],
            labels: vec![0; nodes - 1],
        }
    }

    /// Adds the next node of its depth.
    fn push(&mut self, depth: usize, label: u8, leaf: bool) {
        if let Some(parent) = depth.checked_sub(1).and_then(|d| self.levels.get_mut(d)) {
            parent.shape += 1;
        }
        let Some(level) = self.levels.get_mut(depth) else {
            return;
        };
        if level.open {
            set(&mut self.shape, level.shape);
            level.shape += 1;
        }
        level.open = true;
        if leaf {
            set(&mut self.leaves, level.next);
        }
        if let Some(place) = self.labels.get_mut(level.next - 1) {
            *place = label;
        }
        level.next += 1;
    }

    fn finish(mut self) -> NameSet {
        for level in self.levels.iter().filter(|level| level.open) {
            set(&mut self.shape, level.shape);
        }
        // Text is bounded by 4 GiB, and its bits can be counted.
        let (leaves, shape) = (Bits::new(self.leaves), Bits::new(self.shape));
        NameSet {
            leaves: leaves.unwrap_or_default(),
            shape: shape.unwrap_or_default(),
            labels: self.labels.into(),
        }
    }
}

fn set(bits: &mut [u64], index: usize) {
    if let Some(word) = bits.get_mut(index / 64) {
        *word |= 1 << (index % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The arrays of the trie of all keys, `+.b` being `b` and `b.+`, level by level.
    fn obvious(patterns: &[String]) -> (Vec<bool>, Vec<bool>, Vec<u8>) {
        let mut keys = std::collections::BTreeSet::new();
        for pattern in patterns {
            let name = pattern.trim_start_matches('+').trim_start_matches('.');
            let key: Vec<u8> = name.bytes().rev().collect();
            if !pattern.starts_with('.') {
                keys.insert(key.clone());
            }
            if pattern.starts_with(['+', '.']) {
                keys.insert([key.as_slice(), b".+"].concat());
            }
        }
        let below = |key: &[u8]| {
            (0..key.len()).any(|end| {
                let wide = [&key[..end], b".+"].concat();
                key[end] == b'.' && key != wide && keys.contains(&wide)
            })
        };
        let keys: Vec<&[u8]> = keys
            .iter()
            .map(Vec::as_slice)
            .filter(|key| !below(key))
            .collect();
        let (mut leaves, mut shape, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut level: Vec<&[u8]> = vec![b""];
        while !level.is_empty() {
            let mut next = Vec::new();
            for node in level {
                leaves.push(keys.contains(&node));
                let longer = keys.iter().filter(|key| key.starts_with(node));
                let mut children: Vec<&[u8]> =
                    longer.filter_map(|key| key.get(..=node.len())).collect();
                children.dedup();
                for child in children {
                    labels.push(*child.last().unwrap());
                    shape.push(false);
                    next.push(child);
                }
                shape.push(true);
            }
            level = next;
        }
        (leaves, shape, labels)
    }

    proptest! {
        #[test]
        fn the_arrays_are_those_of_the_trie_level_by_level(
            patterns in proptest::collection::vec("(\\+\\.|\\.)?([a-]{1,6}|\\*)(\\.([ab!]{1,2}|\\*)){0,3}", 0..20),
        ) {
            let mut builder = NameSetBuilder::default();
            for pattern in &patterns {
                builder.push(pattern).unwrap();
            }
            let built = builder.finish();
            let (leaves, shape, labels) = obvious(&patterns);
            prop_assert_eq!(&*built.labels, labels.as_slice());
            for (bits, want) in [(&built.leaves, leaves), (&built.shape, shape)] {
                let got: Vec<bool> = (0..want.len()).map(|at| bits.get(at).unwrap()).collect();
                prop_assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn what_a_shorter_pattern_covers_costs_nothing() {
        let built = |patterns: &[&str]| {
            let mut builder = NameSetBuilder::default();
            patterns
                .iter()
                .for_each(|pattern| builder.push(pattern).unwrap());
            builder.finish().labels
        };
        let wide = built(&["+.a.org", "b-a.org"]);
        assert_eq!(
            built(&[
                "x.a.org",
                "+.y.a.org",
                "*.a.org",
                "b-a.org",
                "+.a.org",
                ".a.org"
            ]),
            wide
        );
        assert_ne!(built(&["xa.org", "+.a.org", "b-a.org"]), wide);
    }
}
