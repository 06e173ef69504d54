//! A set of domain wildcards as a succinct trie: about eleven bytes a name.
//!
//! The keys are the names backwards, byte by byte; `+` for "and everything below" and `*` for one
//! label are bytes of the keys like any other (`+.b.c` is two keys: `c.b`, and `c.b.+` for what is
//! below). Nodes are numbered breadth first. Three arrays hold everything, in the layout of
//! mihomo's mrs format (clash-api.md 3.11), which is read into them as it stands:
//!
//! - `labels`: the byte that leads to node 1, 2, …, in order;
//! - `shape`: for each node a 0 for each child, then a 1;
//! - `leaves`: for each node whether a key ends there.
//!
//! Pure and immutable. A look-up allocates nothing unless it meets a `*`.

mod builder;

use std::collections::HashSet;

pub use builder::NameSetBuilder;

use super::bits::Bits;

/// The set.
pub struct NameSet {
    leaves: Bits,
    shape: Bits,
    labels: Box<[u8]>,
}

/// Where a search may go on from a node.
enum Step {
    /// A key takes whatever is left.
    Found,
    Child(usize),
    Nowhere,
}

impl NameSet {
    /// Takes the arrays as a file has them. `None`: they are no trie.
    #[must_use]
    pub fn from_parts(leaves: Vec<u64>, shape: Vec<u64>, labels: Vec<u8>) -> Option<Self> {
        let nodes = labels.len().checked_add(1)?;
        let (leaves, shape) = (Bits::new(leaves)?, Bits::new(shape)?);
        // Every node ends once and is led to once, by a node before it: so no walk meets a node
        // twice, and a search costs at most a walk of the whole.
        let (mut ended, mut led) = (0, 0);
        while ended < nodes {
            if shape.get(ended + led)? {
                ended += 1;
                if led < ended.min(nodes - 1) {
                    return None;
                }
            } else {
                led += 1;
                if led >= nodes {
                    return None;
                }
            }
        }
        (shape.ones() == nodes).then_some(Self {
            leaves,
            shape,
            labels: labels.into(),
        })
    }

    /// Whether some pattern matches `name`, which is in lower case without the final dot.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let name = name.as_bytes();
        // Stars that were passed by: the node behind and how much of the name it leaves done.
        let mut stars: Vec<(usize, usize)> = Vec::new();
        let (mut node, mut done) = (0, 0);
        if name.is_empty() {
            return false;
        }
        loop {
            if done == name.len() {
                if self.leaves.get(node).unwrap_or(false) {
                    return true;
                }
            } else {
                match self.step(node, name, done, &mut stars) {
                    Step::Found => return true,
                    Step::Child(child) => {
                        (node, done) = (child, done + 1);
                        continue;
                    }
                    Step::Nowhere => {}
                }
            }
            match stars.pop() {
                Some(star) => (node, done) = star,
                None => return false,
            }
        }
    }

    /// Leaves, shape and labels, as a file has them.
    #[must_use]
    pub fn parts(&self) -> (&[u64], &[u64], &[u8]) {
        (self.leaves.words(), self.shape.words(), &self.labels)
    }

    /// The patterns that it was made from, `+.b` for a name with all below it; each once.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut waiting = vec![(0, Vec::new())];
        while let Some((node, key)) = waiting.pop() {
            if self.leaves.get(node).unwrap_or(false) {
                keys.push(key.clone());
            }
            let mut at = self.first_child(node);
            while self.shape.get(at) == Some(false) {
                let child = at - node + 1;
                if let Some(label) = self.labels.get(child - 1) {
                    let mut longer = key.clone();
                    longer.push(*label);
                    waiting.push((child, longer));
                }
                at += 1;
            }
        }
        let below: HashSet<Vec<u8>> = keys
            .iter()
            .filter_map(|key| Some(key.strip_suffix(b".+")?.to_vec()))
            .collect();
        let itself: HashSet<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let name = |key: &[u8]| {
            let turned: Vec<u8> = key.iter().rev().copied().collect();
            String::from_utf8_lossy(&turned).into_owned()
        };
        let patterns = keys.iter().filter_map(|key| match key.strip_suffix(b".+") {
            Some(base) if itself.contains(base) => Some(format!("+.{}", name(base))),
            Some(base) => Some(format!(".{}", name(base))),
            None if below.contains(key) => None,
            None => Some(name(key)),
        });
        patterns.collect()
    }

    /// Where the children of a node stand in the shape.
    fn first_child(&self, node: usize) -> usize {
        match node.checked_sub(1) {
            None => 0,
            Some(before) => self.shape.select(before).map_or(usize::MAX, |end| end + 1),
        }
    }

    fn step(&self, node: usize, name: &[u8], done: usize, stars: &mut Vec<(usize, usize)>) -> Step {
        let left = name.get(..name.len() - done).unwrap_or_default();
        let Some((wanted, _)) = left.split_last() else {
            return Step::Nowhere;
        };
        let mut at = self.first_child(node);
        let mut next = Step::Nowhere;
        while self.shape.get(at) == Some(false) {
            // Before this place stand `node` ends and as many children as the difference.
            let child = at - node + 1;
            match self.labels.get(child - 1) {
                Some(b'+') => return Step::Found,
                Some(b'*') => {
                    let label = left.iter().rev().take_while(|byte| **byte != b'.').count();
                    if label > 0 {
                        stars.push((child, done + label));
                    }
                }
                Some(label) if label == wanted => next = Step::Child(child),
                Some(_) | None => {}
            }
            at += 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::PayloadError;
    use proptest::prelude::*;

    fn set(patterns: &[&str]) -> NameSet {
        let mut builder = NameSetBuilder::default();
        for pattern in patterns {
            builder.push(pattern).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn each_form_matches_what_the_syntax_says() {
        let has = |pattern: &str, name: &str| set(&[pattern]).contains(name);
        for (pattern, yes, no) in [
            (
                "a.b.c",
                &["a.b.c"][..],
                &["x.a.b.c", "b.c", "xa.b.c", ""][..],
            ),
            ("*.b.c", &["a.b.c", "abc.b.c"], &["b.c", "x.a.b.c", ".b.c"]),
            ("a.*.c", &["a.x.c"], &["a.c", "a.x.y.c"]),
            ("+.b.c", &["b.c", "a.b.c", "x.y.b.c"], &["xb.c", "c"]),
            (".b.c", &["a.b.c", "x.y.b.c"], &["b.c", "xb.c"]),
            ("*", &["router"], &["router.lan", ""]),
            ("Bücher.DE", &["xn--bcher-kva.de"], &["bücher.de"]),
        ] {
            for name in yes {
                assert!(has(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!has(pattern, name), "{pattern} {name}");
            }
        }
        assert!(!set(&[]).contains("a"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "", ".", "+.", "a..b", "a.b.", "+", "a*.b", "+.+.a", "a b", "a/b",
        ] {
            assert_eq!(
                NameSetBuilder::default().push(bad),
                Err(PayloadError::Pattern),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_hundred_thousand_names_take_little() {
        let mut builder = NameSetBuilder::default();
        for i in 0..20_000u32 {
            let word = i.wrapping_mul(0x9e37_79b9);
            builder.push(&format!("+.{word:x}.example.org")).unwrap();
        }
        let set = builder.finish();
        let bytes = set.labels.len() + set.leaves.bytes() + set.shape.bytes();
        assert!(bytes < 20_000 * 16, "{bytes}");
        assert!(set.contains("a.9e3779b9.example.org"));
        assert!(!set.contains("example.org"));
    }

    /// Whether `pattern` matches, read off the syntax.
    fn obvious(pattern: &str, name: &str) -> bool {
        let (bare, itself, below) = match (pattern.strip_prefix("+."), pattern.strip_prefix('.')) {
            (Some(bare), _) => (bare, true, true),
            (None, Some(bare)) => (bare, false, true),
            _ => (pattern, true, false),
        };
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (bare.rsplit('.').collect(), name.rsplit('.').collect());
        ours.len() <= theirs.len()
            && ours.iter().zip(&theirs).all(|(o, t)| *o == "*" || o == t)
            && if ours.len() == theirs.len() {
                itself
            } else {
                below
            }
    }

    proptest! {
        #[test]
        fn agrees_with_a_walk_and_survives_its_own_parts(
            patterns in proptest::collection::vec("(\\+\\.|\\.)?([ab]{1,2}|\\*)(\\.([ab]{1,2}|\\*)){0,3}", 0..12),
            names in proptest::collection::vec("[abc]{1,2}(\\.[abc]{1,2}){0,4}", 8),
        ) {
            let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
            let built = set(&patterns);
            let parts = (built.leaves.words().to_vec(), built.shape.words().to_vec());
            let again = NameSet::from_parts(parts.0, parts.1, built.labels.to_vec()).unwrap();
            for name in names {
                let want = patterns.iter().any(|pattern| obvious(pattern, &name));
                prop_assert_eq!(built.contains(&name), want, "{}", name);
                prop_assert_eq!(again.contains(&name), want, "{}", name);
            }
        }

        #[test]
        fn no_parts_panic_or_hang(
            leaves in proptest::collection::vec(any::<u64>(), 0..3),
            shape in proptest::collection::vec(any::<u64>(), 0..3),
            labels in "[ab.*+]{0,70}",
            name in "[ab.]{0,20}",
        ) {
            if let Some(set) = NameSet::from_parts(leaves, shape, labels.into()) {
                let _ = set.contains(&name);
            }
        }
    }
}
