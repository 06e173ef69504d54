//! A compact table by byte key, ordered by use: the cache, the fake addresses and the reverse
//! mapping are made of it.
//!
//! Entries lie in one vector and hang together by 32-bit numbers: 12 bytes of links and 4 of hash
//! table for each, nothing else is allocated. An entry keeps its place ("slot") while it lives, and
//! a slot that became free is taken before the vector grows. Not a cache by itself: what is too
//! many or too old is its owner's to say. Keyed by a random SipHash, so names cannot be chosen to
//! collide.

use std::hash::{BuildHasher, RandomState};

/// Marks the end of a list.
const NONE: u32 = u32::MAX;

/// What finds an entry again.
pub(super) trait Keyed {
    /// The key; unique in its table and never changed while the entry is in it.
    fn key(&self) -> &[u8];
}

struct Node<T> {
    /// Next entry of the same bucket.
    chain: u32,
    newer: u32,
    older: u32,
    /// `None`: the slot is free.
    value: Option<T>,
}

/// The table.
pub(super) struct Lru<T> {
    nodes: Vec<Node<T>>,
    /// First entry of each bucket; a power of two of them, never fewer than entries.
    buckets: Box<[u32]>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    hasher: RandomState,
}

impl<T: Keyed> Lru<T> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            buckets: Box::default(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            hasher: RandomState::new(),
        }
    }

    /// The table with `values` in their slots, used in the given order, oldest first. Slots that
    /// `order` does not name and values whose key another slot already has are left free.
    pub(super) fn restore(values: Vec<Option<T>>, order: &[u32]) -> Self {
        let mut table = Self::new();
        let mut values = values;
        let vacant = || Node {
            chain: NONE,
            newer: NONE,
            older: NONE,
            value: None,
        };
        table.nodes.resize_with(values.len(), vacant);
        table.resize_buckets(values.len());
        for &slot in order {
            let value = values.get_mut(index(slot)).and_then(Option::take);
            if let Some(value) = value.filter(|value| table.find(value.key()).is_none()) {
                table.occupy(slot, value);
            }
        }
        let vacant = |(slot, node): (usize, &Node<T>)| {
            node.value
                .is_none()
                .then(|| u32::try_from(slot).ok())
                .flatten()
        };
        table.free = table
            .nodes
            .iter()
            .enumerate()
            .rev()
            .filter_map(vacant)
            .collect();
        table
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// The slot of the entry with this key.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let mut slot = *self.buckets.get(self.bucket(key))?;
        while let Some(node) = self.nodes.get(index(slot)) {
            if node.value.as_ref().is_some_and(|value| value.key() == key) {
                return Some(slot);
            }
            slot = node.chain;
        }
        None
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.nodes.get(index(slot))?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.nodes.get_mut(index(slot))?.value.as_mut()
    }

    /// Makes an entry the newest.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.newest != slot && self.get(slot).is_some() {
            self.unlink(slot);
            self.link_newest(slot);
        }
    }

    /// Enters a value whose key the table does not hold, as the newest; gives its slot.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            if self.nodes.len() == self.nodes.capacity() {
                // Doubling would leave up to half of a large table empty.
                self.nodes.reserve_exact(self.nodes.len() / 4 + 16);
            }
            self.nodes.push(Node {
                chain: NONE,
                newer: NONE,
                older: NONE,
                value: None,
            });
            u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
        });
        if self.nodes.len() > self.buckets.len() {
            self.resize_buckets(self.nodes.len());
        }
        self.occupy(slot, value);
        slot
    }

    /// Takes out the entry that was not used for the longest time.
    pub(super) fn remove_oldest(&mut self) -> Option<T> {
        self.remove(self.oldest)
    }

    /// Takes out the entry in `slot`.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let bucket = self.bucket(self.get(slot)?.key());
        self.unlink(slot);
        let chain = self.nodes.get(index(slot)).map_or(NONE, |node| node.chain);
        self.unchain(bucket, slot, chain);
        self.free.push(slot);
        self.nodes.get_mut(index(slot))?.value.take()
    }

    /// Entries with their slots, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let mut slot = self.oldest;
        std::iter::from_fn(move || {
            let node = self.nodes.get(index(slot))?;
            let this = slot;
            slot = node.newer;
            Some((this, node.value.as_ref()?))
        })
    }

    fn occupy(&mut self, slot: u32, value: T) {
        let bucket = self.bucket(value.key());
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        let chain = std::mem::replace(head, slot);
        if let Some(node) = self.nodes.get_mut(index(slot)) {
            node.chain = chain;
            node.value = Some(value);
        }
        self.link_newest(slot);
    }

    fn unchain(&mut self, bucket: usize, slot: u32, next: u32) {
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *head == slot {
            *head = next;
            return;
        }
        let mut at = *head;
        while let Some(node) = self.nodes.get_mut(index(at)) {
            if node.chain == slot {
                node.chain = next;
                return;
            }
            at = node.chain;
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let before = std::mem::replace(&mut self.newest, slot);
        if let Some(node) = self.nodes.get_mut(index(slot)) {
            node.older = before;
            node.newer = NONE;
        }
        match self.nodes.get_mut(index(before)) {
            Some(node) => node.newer = slot,
            None => self.oldest = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Some(node) = self.nodes.get(index(slot)) else {
            return;
        };
        let (newer, older) = (node.newer, node.older);
        match self.nodes.get_mut(index(newer)) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(index(older)) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn resize_buckets(&mut self, entries: usize) {
        self.buckets = vec![NONE; entries.next_power_of_two().max(16)].into();
        for slot in 0..self.nodes.len() {
            let Some(key) = self.nodes.get(slot).and_then(|node| node.value.as_ref()) else {
                continue;
            };
            let bucket = self.bucket(key.key());
            if let (Some(head), Some(node)) =
                (self.buckets.get_mut(bucket), self.nodes.get_mut(slot))
            {
                node.chain = *head;
                *head = u32::try_from(slot).unwrap_or(NONE);
            }
        }
    }

    fn bucket(&self, key: &[u8]) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any bits of the hash will do"
        )]
        let hash = self.hasher.hash_one(key) as usize;
        hash & self.buckets.len().wrapping_sub(1)
    }
}

fn index(slot: u32) -> usize {
    // NONE is no index of a vector on 64-bit machines, and too large for one on 32-bit ones.
    slot as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Keyed for String {
        fn key(&self) -> &[u8] {
            self.as_bytes()
        }
    }

    fn values(table: &Lru<String>) -> Vec<String> {
        table.iter().map(|(_, value)| value.clone()).collect()
    }

    #[test]
    fn restoring_keeps_slots_and_order_and_drops_doubles() {
        let slots = vec![
            Some("a".to_owned()),
            None,
            Some("b".to_owned()),
            Some("a".to_owned()),
        ];
        let mut table = Lru::restore(slots, &[2, 3, 0]);
        assert_eq!(values(&table), ["b", "a"]);
        assert_eq!(table.find(b"a"), Some(3));
        assert_eq!(table.insert("c".into()), 0);
        assert_eq!(table.insert("d".into()), 1);
        assert_eq!(table.insert("e".into()), 4);
    }

    proptest! {
        #[test]
        fn behaves_as_a_list_in_order_of_use(steps in proptest::collection::vec((0u8..4, 0u8..12), 0..200)) {
            let mut table = Lru::new();
            let mut plain: Vec<String> = Vec::new();
            for (step, key) in steps {
                let key = key.to_string();
                let place = plain.iter().position(|k| *k == key);
                let slot = table.find(key.as_bytes());
                prop_assert_eq!(slot.is_some(), place.is_some());
                match (step, slot, place) {
                    (0, Some(slot), Some(place)) => {
                        table.touch(slot);
                        let value = plain.remove(place);
                        plain.push(value);
                    }
                    (1, Some(slot), Some(place)) => {
                        prop_assert_eq!(table.remove(slot), Some(plain.remove(place)));
                    }
                    (2, ..) => {
                        let oldest = (!plain.is_empty()).then(|| plain.remove(0));
                        prop_assert_eq!(table.remove_oldest(), oldest);
                    }
                    (_, None, None) => {
                        let slot = table.insert(key.clone());
                        prop_assert_eq!(table.get(slot), Some(&key));
                        plain.push(key);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), plain.len());
                prop_assert_eq!(&values(&table), &plain);
            }
        }
    }
}
