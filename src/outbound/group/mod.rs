//! Groups: outbounds that stand for one of their members, a file for each way of choosing.
//!
//! [`Group`] is what all of them share: members, what the APIs show, and the [`check`] that says
//! when the members must be tested again. A way of choosing is a [`Choose`]; it reads its members'
//! health and keeps only what it needs to decide. Flows that run keep the member that they began
//! with.

pub mod check;
pub mod fallback;
pub mod load_balance;
pub mod relay;
pub mod selector;
pub mod url_test;

use std::io;
use std::sync::Arc;

use check::{Check, Failure};

use super::dial::DialError;
use super::health::Health;
use super::options::{GroupKind, GroupOptions};
use super::probe::Probe;
use super::{BoxFuture, Datagrams, Kind, Outbound, Stream};
use crate::metadata::Metadata;
use crate::platform::clock;

/// Members that a group tests at a time (clash-api.md 1.9).
const PARALLEL_MAX: usize = 10;

/// An outbound with what tests have found of it.
#[derive(Clone)]
pub struct Member {
    /// The outbound.
    pub outbound: Arc<dyn Outbound>,
    /// Its health, shared by whoever holds the outbound.
    pub health: Arc<Health>,
}

/// What a way of choosing sees of its group.
pub struct Field<'a> {
    /// The members, at least one.
    pub members: &'a [Member],
    /// The URL by which the group judges them.
    pub url: &'a str,
}

impl Field<'_> {
    /// Whether that member is alive.
    #[must_use]
    pub fn is_alive(&self, index: usize) -> bool {
        let member = self.members.get(index);
        member.is_some_and(|member| member.health.is_alive(self.url))
    }

    /// The first member that is alive.
    #[must_use]
    pub fn first_alive(&self) -> Option<usize> {
        (0..self.members.len()).find(|&index| self.is_alive(index))
    }

    /// How often that member was tested.
    fn tests(&self, index: usize) -> u32 {
        let member = self.members.get(index);
        member.map_or(0, |member| member.health.tests(self.url))
    }
}

/// A way of choosing a member.
pub trait Choose: Send + Sync {
    /// What the group is.
    fn kind(&self) -> Kind;

    /// The index of the member for a flow; with `None` the one to show, which changes nothing.
    fn choose(&self, field: &Field<'_>, metadata: Option<&Metadata>) -> usize;

    /// A person's choice; `false` where a person has no say.
    fn pin(&self, _field: &Field<'_>, _index: usize) -> bool {
        false
    }

    /// Ends a person's choice; `false` where there can be none to end.
    fn unpin(&self) -> bool {
        false
    }

    /// A person's choice among members that otherwise choose themselves.
    fn pinned(&self) -> Option<usize> {
        None
    }
}

/// A group of outbounds.
pub struct Group {
    name: Arc<str>,
    members: Vec<Member>,
    way: Box<dyn Choose>,
    check: Check,
    options: GroupOptions,
    /// Providers that brought members, as groups: they count as used when this is.
    sources: Vec<Arc<Self>>,
}

/// What the APIs show of a group's tests.
pub struct Testing {
    /// `url`.
    pub url: Box<str>,
    /// `expected-status`.
    pub expected: Box<str>,
    /// A person's choice, or nothing.
    pub fixed: Option<Arc<str>>,
}

impl Group {
    /// A group of `members`, at least one. `choice` is what a person chose before; without effect
    /// when that member is gone. `wake` is told when the members should be tested.
    #[must_use]
    pub fn new(
        options: &GroupOptions,
        members: Vec<Member>,
        choice: Option<&str>,
        wake: Arc<tokio::sync::Notify>,
    ) -> Self {
        let way: Box<dyn Choose> = match options.kind {
            GroupKind::Select => Box::<selector::Selector>::default(),
            GroupKind::UrlTest { tolerance } => Box::new(url_test::UrlTest::new(tolerance)),
            GroupKind::Fallback => Box::<fallback::Fallback>::default(),
            GroupKind::LoadBalance(strategy) => Box::new(load_balance::LoadBalance::new(strategy)),
            GroupKind::Relay => Box::new(relay::Relay),
        };
        let group = Self {
            name: Arc::from(&*options.name),
            members,
            way,
            check: Check::new(&options.test, wake),
            options: GroupOptions {
                proxies: Vec::new(),
                wanted: None,
                ..options.clone()
            },
            sources: Vec::new(),
        };
        if let Some(choice) = choice {
            group.select(choice);
        }
        group
    }

    /// The same group, with members from these providers.
    #[must_use]
    pub fn fed_by(mut self, sources: Vec<Arc<Self>>) -> Self {
        self.sources = sources;
        self
    }

    fn touch(&self) {
        self.check.touch();
        for source in &self.sources {
            source.check.touch();
        }
    }

    /// Its members with what tests have found of them.
    #[must_use]
    pub fn member_list(&self) -> &[Member] {
        &self.members
    }

    /// When its members must be tested.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
    }

    /// Tests the members that were not tested since the test became due, and tells the check.
    pub async fn test(&self, unified: bool) {
        let since = self.check.begin(clock::now());
        let probe = self.probe(unified);
        probe.round(&self.members, since, PARALLEL_MAX).await;
        self.check.end(self.field().first_alive().is_some());
    }

    /// What its members are asked.
    #[must_use]
    pub fn probe(&self, unified: bool) -> Probe {
        let test = &self.options.test;
        Probe {
            url: test.url.clone(),
            expected: test.expected.clone(),
            timeout: test.timeout,
            unified,
        }
    }

    fn field(&self) -> Field<'_> {
        Field {
            members: &self.members,
            url: &self.options.test.url,
        }
    }

    fn is_relay(&self) -> bool {
        self.kind() == Kind::Relay
    }

    /// What carries this flow: the choice, or the row of a relay.
    fn carrier(&self, metadata: &Metadata) -> Option<Arc<dyn Outbound>> {
        let chosen = || self.chosen(Some(metadata)).cloned();
        match self.is_relay() {
            true => relay::row(&self.members, metadata).or_else(chosen),
            false => chosen(),
        }
    }

    fn chosen(&self, metadata: Option<&Metadata>) -> Option<&Arc<dyn Outbound>> {
        let index = self.way.choose(&self.field(), metadata);
        self.members.get(index).map(|member| &member.outbound)
    }
}

impl Outbound for Group {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.way.kind()
    }

    fn udp(&self) -> bool {
        // Members of a balanced group take turns: what one cannot carry skips its rule then.
        let chosen = || self.chosen(None).is_some_and(|member| member.udp());
        let all = || self.members.iter().all(|member| member.outbound.udp());
        !self.options.disable_udp && if self.is_relay() { all() } else { chosen() }
    }

    fn refuses_udp(&self) -> bool {
        self.options.disable_udp
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        self.touch();
        match self.carrier(metadata) {
            Some(node) => Box::pin(async move { node.connect(metadata).await }),
            None => Box::pin(std::future::ready(Err(DialError::NoDestination.into()))),
        }
    }

    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        self.touch();
        match self.carrier(metadata).filter(|_| !self.options.disable_udp) {
            Some(node) => Box::pin(async move { node.associate(metadata).await }),
            None => Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into()))),
        }
    }

    fn selected(&self, metadata: Option<&Metadata>) -> Option<Arc<dyn Outbound>> {
        if metadata.is_some() {
            self.touch();
        }
        // A relay is dialled itself: no member of it stands for it.
        let chosen = self.chosen(metadata).filter(|_| !self.is_relay());
        chosen.cloned()
    }

    fn candidates(&self) -> Vec<Arc<dyn Outbound>> {
        if self.kind() == Kind::Selector {
            return self.chosen(None).cloned().into_iter().collect();
        }
        let members = self.members.iter();
        members.map(|member| Arc::clone(&member.outbound)).collect()
    }

    fn hops(&self, metadata: &Metadata) -> Vec<Arc<str>> {
        match self.is_relay() {
            true => relay::names(&self.members, metadata),
            false => Vec::new(),
        }
    }

    fn members(&self) -> Vec<Arc<str>> {
        self.members
            .iter()
            .map(|member| Arc::clone(member.outbound.name()))
            .collect()
    }

    fn select(&self, member: &str) -> bool {
        let mut members = self.members.iter();
        let found = members.position(|known| **known.outbound.name() == *member);
        let pinned = found.is_some_and(|index| self.way.pin(&self.field(), index));
        if let Some(index) = found
            && pinned
            && self.kind() == Kind::Fallback
            && !self.field().is_alive(index)
        {
            // It is taken at its word until the test that this asks for.
            self.check.force(clock::now());
        }
        pinned
    }

    fn unpin(&self) -> bool {
        self.way.unpin()
    }

    fn dialled(&self, node: Kind, failure: Option<&io::Error>) {
        match failure {
            None => self.check.succeeded(),
            Some(_) if !node.has_server() => {}
            Some(error) => {
                let failure = Failure::of(error);
                self.check.failed(failure, clock::now());
            }
        }
    }

    fn testing(&self) -> Option<Testing> {
        let fixed = self.way.pinned().and_then(|index| self.members.get(index));
        Some(Testing {
            url: self.options.test.url.clone(),
            expected: self.options.test.expected.to_string().into(),
            fixed: fixed.map(|member| Arc::clone(member.outbound.name())),
        })
    }

    fn appearance(&self) -> (bool, &str) {
        (self.options.hidden, &self.options.icon)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::health::Outcome;
    use super::super::options::TestOptions;
    use super::super::reject::Reject;
    use super::*;

    const URL: &str = "http://test.example/";

    fn group(kind: GroupKind, names: &[&str]) -> Group {
        let options = GroupOptions {
            test: TestOptions {
                url: URL.into(),
                ..TestOptions::default()
            },
            hidden: true,
            icon: "i".into(),
            ..GroupOptions::new("g", kind)
        };
        let members = names.iter().map(|name| Member {
            outbound: Arc::new(Reject::new((*name).into(), Kind::Reject)),
            health: Arc::default(),
        });
        Group::new(&options, members.collect(), None, Arc::default())
    }

    fn now(group: &Group) -> Arc<str> {
        Arc::clone(group.selected(None).unwrap().name())
    }

    /// Records a delay of the `index`th member; 0 is none.
    fn record(group: &Group, index: usize, delay: u16) {
        let outcome = match delay {
            0 => Outcome::Nothing,
            delay => Outcome::Answer {
                delay,
                expected: true,
            },
        };
        let health = &group.members[index].health;
        health.record(URL, outcome, Duration::ZERO, clock::now());
    }

    fn fixed(group: &Group) -> Option<Arc<str>> {
        group.testing().unwrap().fixed
    }

    #[test]
    fn a_selector_takes_the_first_until_somebody_chooses() {
        let group = group(GroupKind::Select, &["a", "b"]);
        assert_eq!(&*now(&group), "a");
        assert!(group.select("b") && !group.select("c"));
        assert_eq!(&*now(&group), "b");
        record(&group, 1, 0);
        assert_eq!(&*now(&group), "b", "dead or not");
        assert!(!group.unpin());
        assert_eq!(group.appearance(), (true, "i"));
        let members: Vec<_> = group
            .candidates()
            .iter()
            .map(|m| m.name().clone())
            .collect();
        assert_eq!(members, ["b".into()]);
    }

    #[test]
    fn the_fastest_is_taken_and_kept_within_the_tolerance() {
        let group = group(GroupKind::UrlTest { tolerance: 50 }, &["a", "b", "c"]);
        assert_eq!(&*now(&group), "a", "before any test");
        for (index, delay) in [(0, 0), (1, 200), (2, 120)] {
            record(&group, index, delay);
        }
        assert_eq!(&*now(&group), "c");
        record(&group, 1, 80);
        assert_eq!(&*now(&group), "c", "40 ms are not worth it");
        record(&group, 1, 69);
        assert_eq!(&*now(&group), "b");
        record(&group, 1, 0);
        assert_eq!(&*now(&group), "c", "the current one died");
        assert_eq!(group.candidates().len(), 3);
    }

    #[test]
    fn a_pin_of_a_url_test_holds_while_its_member_lives_and_again_later() {
        let group = group(GroupKind::UrlTest { tolerance: 0 }, &["a", "b"]);
        record(&group, 0, 10);
        record(&group, 1, 20);
        assert!(group.select("b"));
        assert_eq!((&*now(&group), &*fixed(&group).unwrap()), ("b", "b"));
        record(&group, 1, 0);
        assert_eq!((&*now(&group), &*fixed(&group).unwrap()), ("a", "b"));
        record(&group, 1, 30);
        assert_eq!(&*now(&group), "b");
        assert!(group.unpin());
        assert_eq!((&*now(&group), fixed(&group)), ("a", None));
    }

    #[test]
    fn a_fallback_takes_the_first_alive_member() {
        let group = group(GroupKind::Fallback, &["a", "b", "c"]);
        assert_eq!(&*now(&group), "a");
        record(&group, 0, 0);
        assert_eq!(&*now(&group), "b");
        record(&group, 1, 0);
        assert_eq!(&*now(&group), "c");
        record(&group, 2, 0);
        assert_eq!(&*now(&group), "a", "all dead");
        record(&group, 1, 500);
        assert_eq!(&*now(&group), "b");
    }

    #[test]
    fn a_fallback_forgets_its_pin_when_the_member_is_found_dead() {
        let group = group(GroupKind::Fallback, &["a", "b", "c"]);
        record(&group, 2, 0);
        assert!(group.select("c"), "dead, and tried once more");
        assert_eq!((&*now(&group), &*fixed(&group).unwrap()), ("c", "c"));
        record(&group, 2, 30);
        assert_eq!(&*now(&group), "c");
        record(&group, 2, 0);
        assert_eq!((&*now(&group), fixed(&group)), ("a", None));
    }

    #[test]
    fn an_earlier_choice_comes_back_unless_its_member_is_gone() {
        let of = |choice| {
            let options = GroupOptions::new("g", GroupKind::Select);
            let member = |name: &str| Member {
                outbound: Arc::new(Reject::new(name.into(), Kind::Reject)),
                health: Arc::default(),
            };
            let members = vec![member("a"), member("b")];
            now(&Group::new(&options, members, Some(choice), Arc::default()))
        };
        assert_eq!((&*of("b"), &*of("gone")), ("b", "a"));
    }

    #[test]
    fn udp_follows_the_choice_unless_disabled() {
        let udp = |disable_udp| {
            let options = GroupOptions {
                disable_udp,
                ..GroupOptions::new("g", GroupKind::Select)
            };
            let member = Member {
                outbound: Arc::new(Reject::new("a".into(), Kind::Reject)),
                health: Arc::default(),
            };
            Group::new(&options, vec![member], None, Arc::default()).udp()
        };
        assert!(udp(false) && !udp(true));
    }
}
