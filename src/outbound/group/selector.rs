//! `type: select`: a person chooses the member (clash-api.md 3.9 and 4.5).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metadata::Metadata;
use crate::outbound::dial::DialError;
use crate::outbound::options::GroupOptions;
use crate::outbound::{BoxFuture, Datagrams, Kind, Outbound, Stream};

/// A group whose choice changes by hand alone. The choice is a counter-like state: flows that
/// run keep the member that they began with.
pub struct Selector {
    name: Arc<str>,
    members: Vec<Arc<dyn Outbound>>,
    choice: AtomicUsize,
    disable_udp: bool,
    hidden: bool,
    icon: Box<str>,
}

impl Selector {
    /// A group of `members`, at least one. `choice` is what was chosen before; the first member
    /// stands in when nothing was, or when it is gone.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        options: &GroupOptions,
        members: Vec<Arc<dyn Outbound>>,
        choice: Option<&str>,
    ) -> Self {
        let selector = Self {
            name,
            members,
            choice: AtomicUsize::new(0),
            disable_udp: options.disable_udp,
            hidden: options.hidden,
            icon: options.icon.clone(),
        };
        if let Some(choice) = choice {
            selector.select(choice);
        }
        selector
    }

    fn chosen(&self) -> Option<&Arc<dyn Outbound>> {
        self.members.get(self.choice.load(Ordering::Relaxed))
    }
}

impl Outbound for Selector {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Selector
    }

    fn udp(&self) -> bool {
        !self.disable_udp && self.chosen().is_some_and(|member| member.udp())
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        match self.chosen() {
            Some(member) => member.connect(metadata),
            None => Box::pin(std::future::ready(Err(DialError::NoDestination.into()))),
        }
    }

    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        match self.chosen() {
            Some(member) if !self.disable_udp => member.associate(metadata),
            _ => Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into()))),
        }
    }

    fn selected(&self, _metadata: Option<&Metadata>) -> Option<Arc<dyn Outbound>> {
        self.chosen().cloned()
    }

    fn members(&self) -> Vec<Arc<str>> {
        self.members
            .iter()
            .map(|member| Arc::clone(member.name()))
            .collect()
    }

    fn select(&self, member: &str) -> bool {
        let found = self.members.iter().position(|m| **m.name() == *member);
        if let Some(index) = found {
            self.choice.store(index, Ordering::Relaxed);
        }
        found.is_some()
    }

    fn appearance(&self) -> (bool, &str) {
        (self.hidden, &self.icon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::options::GroupKind;
    use crate::outbound::reject::Reject;

    fn group(disable_udp: bool, choice: Option<&str>) -> Selector {
        let options = GroupOptions {
            name: "g".into(),
            kind: GroupKind::Select,
            proxies: Vec::new(),
            disable_udp,
            hidden: true,
            icon: "i".into(),
        };
        let member =
            |name: &str| -> Arc<dyn Outbound> { Arc::new(Reject::new(name.into(), Kind::Reject)) };
        Selector::new("g".into(), &options, vec![member("a"), member("b")], choice)
    }

    fn now(group: &Selector) -> Arc<str> {
        Arc::clone(group.selected(None).unwrap().name())
    }

    #[test]
    fn the_first_member_is_chosen_until_somebody_chooses() {
        let group = group(false, None);
        assert_eq!(&*now(&group), "a");
        assert!(group.select("b"));
        assert!(!group.select("c"));
        assert_eq!(&*now(&group), "b");
        assert_eq!(group.appearance(), (true, "i"));
    }

    #[test]
    fn a_choice_that_is_gone_falls_back_to_the_first_member() {
        assert_eq!(&*now(&group(false, Some("b"))), "b");
        assert_eq!(&*now(&group(false, Some("gone"))), "a");
    }

    #[test]
    fn udp_follows_the_choice_unless_disabled() {
        assert!(group(false, None).udp());
        assert!(!group(true, None).udp());
    }
}
