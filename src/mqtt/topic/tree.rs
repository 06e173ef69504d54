//! The subscriptions of all sessions as a tree of levels, matched without allocation.
//!
//! A node is a level of a filter; `+` and `#` are levels like others. All children of all nodes stand
//! in one hash table of node numbers, keyed by parent and level with a random key, so a node costs
//! some 60 bytes, a wide level costs no more than a narrow one, and nobody can choose names that
//! collide. Promises, tested at random against a list: what matches is what [`super::matches`] says,
//! and a tree from which everything was removed holds no node.

use std::hash::{BuildHasher, RandomState};

use super::LEVELS_MAX;
use crate::mqtt::codec::Qos;

/// A session's number; whatever the caller means by it.
pub type SessionId = u32;
/// A node's number. Stays the same while something is subscribed there or beneath.
pub type NodeId = u32;

const ROOT: NodeId = 0;
/// An empty place of the hash table.
const EMPTY: NodeId = NodeId::MAX;

/// What a subscription asks for (MQTT 5.0 section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriber {
    /// Whose it is.
    pub session: SessionId,
    /// The subscription identifier; 0: none.
    pub id: u32,
    /// At most this.
    pub qos: Qos,
    /// Not what the session itself published.
    pub no_local: bool,
    /// Leave the retain flag as it was published.
    pub retain_as_published: bool,
}

/// The members of a shared subscription.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: Box<str>,
    /// In the order in which they came.
    pub members: Vec<Subscriber>,
    /// How many messages it was given: the turn of the next member.
    pub turn: u32,
}

#[derive(Default)]
struct Node {
    parent: NodeId,
    /// Children, so that the last one gone takes the node with it.
    children: u32,
    name: Box<str>,
    subscribers: Vec<Subscriber>,
    #[expect(
        clippy::box_collection,
        reason = "absent in almost every node; a third of the size"
    )]
    groups: Option<Box<Vec<Group>>>,
}

impl Node {
    /// Whether nothing is subscribed here.
    fn is_bare(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_none()
    }
}

/// The tree.
pub struct Tree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// Open addressing, linear probing; a power of two, at most three quarters full.
    slots: Vec<NodeId>,
    edges: usize,
    /// Nodes at which something is subscribed.
    routes: usize,
    keys: RandomState,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
            slots: vec![EMPTY; 16],
            edges: 0,
            routes: 0,
            keys: RandomState::new(),
        }
    }
}

impl Tree {
    /// Adds a subscription, or replaces that of the same session. Returns its node, and whether it is
    /// new. `filter` is a filter.
    pub fn insert(
        &mut self,
        filter: &str,
        group: Option<&str>,
        subscriber: Subscriber,
    ) -> (NodeId, bool) {
        let mut at = ROOT;
        for level in filter.split('/') {
            at = match self.child(at, level) {
                Some(child) => child,
                None => self.add(at, level),
            };
        }
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return (at, false);
        };
        self.routes += usize::from(node.is_bare());
        let list = match group {
            None => &mut node.subscribers,
            Some(name) => group_of(node.groups.get_or_insert_default(), name),
        };
        let old = list
            .iter_mut()
            .find(|other| other.session == subscriber.session);
        if let Some(old) = old {
            *old = subscriber;
            return (at, false);
        }
        // The first of a node is mostly its only one.
        if list.is_empty() {
            list.reserve_exact(1);
        }
        list.push(subscriber);
        (at, true)
    }

    /// The node of a filter, when something is subscribed there or beneath.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<NodeId> {
        filter
            .split('/')
            .try_fold(ROOT, |at, level| self.child(at, level))
    }

    /// Takes a session's subscription off a node. Whether there was one.
    pub fn remove(&mut self, at: NodeId, group: Option<&str>, session: SessionId) -> bool {
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return false;
        };
        let bare = node.is_bare();
        let removed = match group {
            None => take(&mut node.subscribers, session),
            Some(name) => {
                let Some(groups) = &mut node.groups else {
                    return false;
                };
                let removed = groups
                    .iter_mut()
                    .find(|group| *group.name == *name)
                    .is_some_and(|group| take(&mut group.members, session));
                groups.retain(|group| !group.members.is_empty());
                if groups.is_empty() {
                    node.groups = None;
                }
                removed
            }
        };
        self.routes -= usize::from(!bare && node.is_bare());
        self.prune(at);
        removed
    }

    /// The subscription of a session at a node.
    #[must_use]
    pub fn subscriber(
        &self,
        at: NodeId,
        group: Option<&str>,
        session: SessionId,
    ) -> Option<&Subscriber> {
        let node = self.nodes.get(at as usize)?;
        let list = match group {
            None => &node.subscribers,
            Some(name) => {
                let groups = node.groups.as_ref()?;
                &groups.iter().find(|group| *group.name == *name)?.members
            }
        };
        list.iter().find(|other| other.session == session)
    }

    /// How many filters somebody subscribes to.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.routes
    }

    /// The nodes of those filters, in a stable order.
    pub fn subscribed(&self) -> impl Iterator<Item = NodeId> {
        let nodes = (0..).zip(&self.nodes);
        nodes.filter(|(_, node)| !node.is_bare()).map(|(id, _)| id)
    }

    /// Whether something is subscribed at a node.
    #[must_use]
    pub fn is_subscribed(&self, at: NodeId) -> bool {
        let node = self.nodes.get(at as usize);
        node.is_some_and(|node| !node.is_bare())
    }

    /// The filter of a node.
    #[must_use]
    pub fn filter(&self, at: NodeId) -> String {
        let mut levels = Vec::new();
        let mut at = at;
        while at != ROOT {
            let Some(node) = self.nodes.get(at as usize) else {
                break;
            };
            levels.push(&*node.name);
            at = node.parent;
        }
        levels.reverse();
        levels.join("/")
    }

    /// Shows everything subscribed that matches a topic name: lists of subscribers, and groups.
    pub fn matching(&mut self, topic: &str, found: &mut impl FnMut(Match<'_>)) {
        // `$SYS/…` is not for wildcards at the beginning (4.7.2).
        let wild = !topic.starts_with('$');
        self.walk(ROOT, Some(topic), wild, LEVELS_MAX, found);
    }

    /// `rest`: the levels that are left, `None` after the last.
    fn walk(
        &mut self,
        at: NodeId,
        rest: Option<&str>,
        wild: bool,
        depth: usize,
        found: &mut impl FnMut(Match<'_>),
    ) {
        if wild && let Some(all) = self.child(at, "#") {
            self.show(all, found);
        }
        let Some(rest) = rest else {
            self.show(at, found);
            return;
        };
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.child(at, level) {
            self.walk(child, rest, true, depth, found);
        }
        if wild && let Some(child) = self.child(at, "+") {
            self.walk(child, rest, true, depth, found);
        }
    }

    fn show(&mut self, at: NodeId, found: &mut impl FnMut(Match<'_>)) {
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return;
        };
        if !node.subscribers.is_empty() {
            found(Match::Each(&node.subscribers));
        }
        for group in node.groups.iter_mut().flat_map(|groups| groups.iter_mut()) {
            found(Match::OneOf(group));
        }
    }

    fn slot(&self, parent: NodeId, level: &str) -> usize {
        let hash = self.keys.hash_one((parent, level));
        // Only the low bits count, and the table is far smaller than either.
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let low = hash as usize;
        low & (self.slots.len() - 1)
    }

    /// Where the child stands in the table, or the empty place at which the search ends.
    fn probe(&self, parent: NodeId, level: &str) -> (usize, NodeId) {
        let mut slot = self.slot(parent, level);
        loop {
            let id = self.slots.get(slot).copied().unwrap_or(EMPTY);
            let Some(node) = self.nodes.get(id as usize) else {
                return (slot, EMPTY);
            };
            if node.parent == parent && *node.name == *level {
                return (slot, id);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn child(&self, parent: NodeId, level: &str) -> Option<NodeId> {
        // Leaves are where most walks end.
        if self.nodes.get(parent as usize)?.children == 0 {
            return None;
        }
        let (_, id) = self.probe(parent, level);
        (id != EMPTY).then_some(id)
    }

    fn add(&mut self, parent: NodeId, level: &str) -> NodeId {
        if (self.edges + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let node = Node {
            parent,
            name: level.into(),
            ..Node::default()
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.nodes.get_mut(id as usize) {
                    *place = node;
                }
                id
            }
            None => {
                // Memory ends long before the numbers do.
                let id = NodeId::try_from(self.nodes.len()).unwrap_or(ROOT);
                self.nodes.push(node);
                id
            }
        };
        self.place(id);
        self.edges += 1;
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            parent.children += 1;
        }
        id
    }

    fn place(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id as usize) else {
            return;
        };
        let mut slot = self.slot(node.parent, &node.name);
        while self.slots.get(slot).is_some_and(|&other| other != EMPTY) {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = id;
        }
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, doubled);
        for id in old {
            if id != EMPTY {
                self.place(id);
            }
        }
    }

    /// Removes a node that holds nothing, and its parents as far as they do not either.
    fn prune(&mut self, mut at: NodeId) {
        while at != ROOT {
            let Some(node) = self.nodes.get(at as usize) else {
                return;
            };
            if node.children > 0 || !node.subscribers.is_empty() || node.groups.is_some() {
                return;
            }
            let parent = node.parent;
            let (slot, found) = self.probe(parent, &node.name);
            if found == at {
                self.vacate(slot);
            }
            if let Some(node) = self.nodes.get_mut(at as usize) {
                *node = Node::default();
                // No probe may take it for a child of the root.
                node.parent = EMPTY;
            }
            self.free.push(at);
            self.edges -= 1;
            if let Some(parent) = self.nodes.get_mut(parent as usize) {
                parent.children -= 1;
            }
            at = parent;
        }
        if self.edges == 0 {
            *self = Self::default();
        }
    }

    /// Empties a place and moves those behind it up that could no longer be found.
    fn vacate(&mut self, slot: usize) {
        let mask = self.slots.len() - 1;
        let mut hole = slot;
        let mut next = slot;
        if let Some(place) = self.slots.get_mut(hole) {
            *place = EMPTY;
        }
        loop {
            next = (next + 1) & mask;
            let id = self.slots.get(next).copied().unwrap_or(EMPTY);
            let Some(node) = self.nodes.get(id as usize) else {
                return;
            };
            let home = self.slot(node.parent, &node.name);
            // Whether `hole` lies on the way from its home to where it stands.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                if let Some(place) = self.slots.get_mut(hole) {
                    *place = id;
                }
                if let Some(place) = self.slots.get_mut(next) {
                    *place = EMPTY;
                }
                hole = next;
            }
        }
    }
}

/// What matches a topic.
pub enum Match<'a> {
    /// Each of them gets it.
    Each(&'a [Subscriber]),
    /// One of its members gets it.
    OneOf(&'a mut Group),
}

fn group_of<'a>(groups: &'a mut Vec<Group>, name: &str) -> &'a mut Vec<Subscriber> {
    let index = match groups.iter().position(|group| *group.name == *name) {
        Some(index) => index,
        None => {
            groups.push(Group {
                name: name.into(),
                members: Vec::new(),
                turn: 0,
            });
            groups.len() - 1
        }
    };
    #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
    &mut groups[index].members
}

fn take(list: &mut Vec<Subscriber>, session: SessionId) -> bool {
    let Some(index) = list.iter().position(|other| other.session == session) else {
        return false;
    };
    // The order of a group's members is that of their turns.
    list.remove(index);
    if list.is_empty() {
        *list = Vec::new();
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matches;
    use super::*;

    fn of(session: SessionId) -> Subscriber {
        Subscriber {
            session,
            ..Subscriber::default()
        }
    }

    fn found(tree: &mut Tree, topic: &str) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        tree.matching(topic, &mut |found| match found {
            Match::Each(list) => sessions.extend(list.iter().map(|one| one.session)),
            Match::OneOf(group) => sessions.extend(group.members.iter().map(|one| one.session)),
        });
        sessions.sort_unstable();
        sessions
    }

    #[test]
    fn a_second_subscription_of_a_session_replaces_the_first() {
        let mut tree = Tree::default();
        assert!(tree.insert("a/b", None, of(1)).1);
        let (node, new) = tree.insert("a/b", None, Subscriber { id: 7, ..of(1) });
        assert!(!new);
        assert_eq!(tree.subscriber(node, None, 1).unwrap().id, 7);
        assert_eq!(tree.filter(node), "a/b");
        assert_eq!(found(&mut tree, "a/b"), [1]);
    }

    #[test]
    fn a_share_is_apart_from_the_same_filter_without() {
        let mut tree = Tree::default();
        tree.insert("a", None, of(1));
        let (node, _) = tree.insert("a", Some("g"), of(1));
        assert_eq!(found(&mut tree, "a"), [1, 1]);
        assert!(tree.remove(node, Some("g"), 1));
        assert!(!tree.remove(node, Some("g"), 1));
        assert_eq!(found(&mut tree, "a"), [1]);
    }

    fn levels() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab$]?", 1..5).prop_map(|levels| levels.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![4 => "[ab$]?", 2 => Just("+".to_owned())];
        (proptest::collection::vec(level, 1..5), any::<bool>()).prop_map(|(mut levels, all)| {
            if all {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_a_list_finds(
            steps in proptest::collection::vec((filter(), 0_u32..4, any::<bool>()), 0..60),
            topics in proptest::collection::vec(levels(), 1..10)
        ) {
            let mut tree = Tree::default();
            let mut list: Vec<(String, SessionId)> = Vec::new();
            for (filter, session, add) in steps {
                let known = list.iter().position(|(f, s)| *f == filter && *s == session);
                if add {
                    prop_assert_eq!(tree.insert(&filter, None, of(session)).1, known.is_none());
                    if known.is_none() {
                        list.push((filter, session));
                    }
                } else {
                    let removed = tree.find(&filter).is_some_and(|at| tree.remove(at, None, session));
                    prop_assert_eq!(removed, known.is_some());
                    if let Some(known) = known {
                        list.swap_remove(known);
                    }
                }
            }
            let filters: std::collections::BTreeSet<_> = list.iter().map(|(filter, _)| filter).collect();
            prop_assert_eq!(tree.routes(), filters.len());
            prop_assert_eq!(tree.subscribed().count(), filters.len());
            for topic in &topics {
                let mut want: Vec<_> = list
                    .iter()
                    .filter(|(filter, _)| matches(filter, topic))
                    .map(|(_, session)| *session)
                    .collect();
                want.sort_unstable();
                prop_assert_eq!(found(&mut tree, topic), want);
            }
            for (filter, session) in list {
                let at = tree.find(&filter).unwrap();
                prop_assert!(tree.remove(at, None, session));
            }
            prop_assert_eq!((tree.edges, tree.nodes.len(), tree.routes), (0, 1, 0));
        }
    }
}
