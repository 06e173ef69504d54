//! What controllers and the rule engine ask of the broker: who is there, who subscribes to what, and
//! acts on behalf of others.
//!
//! Lists are iterators over what is there, in a stable order, so that whoever filters and pages them
//! copies only what he shows. Acts bypass the rules, which bind clients only. A change of users or rules
//! takes hold at once, also of what was granted before it, and drops nobody whom it does not concern.

use std::any::Any;
use std::net::SocketAddr;
use std::rc::Rc;

use super::Broker;
use crate::mqtt::Time;
use crate::mqtt::acl::Cached;
use crate::mqtt::codec::{Qos, Reason};
use crate::mqtt::hook::{Hook, Publication, Publisher};
use crate::mqtt::message::Message;
use crate::mqtt::metrics::{Metric, Stats};
use crate::mqtt::options::{ListenerOptions, Options};
use crate::mqtt::session::Session;
use crate::mqtt::topic::tree::{NodeId, SessionId};
use crate::mqtt::topic::{self, Wanted};

/// A listener, and why its connections ended.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As configured.
    pub options: ListenerOptions,
    /// Whether it still serves.
    pub open: bool,
    /// Ended connections by cause, in EMQX's words.
    pub ended: Vec<(&'static str, u64)>,
}

impl Listener {
    pub(super) fn closed(&mut self, cause: &'static str) {
        match self.ended.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => self.ended.push((cause, 1)),
        }
    }
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Of a shared subscription: its group; that of `$queue/` is `$queue`.
    pub group: Option<&'a str>,
    /// What is matched, without `$share/`.
    pub filter: String,
    /// As granted.
    pub qos: Qos,
}

/// Why a client was not subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSubscribed {
    /// It has no session.
    NoSession,
    /// That is no filter.
    BadFilter,
    /// It has as many as it may.
    Full,
}

impl Broker {
    /// Follows a configuration; sessions stay, as far as it allows them.
    pub fn reconfigure(&mut self, now: Time, options: &Options) {
        self.limits = options.limits;
        self.node.clone_from(&options.node);
        self.response_information
            .clone_from(&options.response_information);
        for listener in &mut self.listeners {
            listener.open = options.listeners.contains(&listener.options);
        }
        for name in self.users.follow(options) {
            self.close_user(now, &name);
        }
        let same = self.acl.rules == options.acl && self.acl.default == options.acl_default;
        self.acl.rules.clone_from(&options.acl);
        self.acl.default = options.acl_default;
        if !same {
            self.recheck(now, None);
        }
    }

    /// The number of a listener that begins to serve.
    pub fn open_listener(&mut self, options: &ListenerOptions) -> u16 {
        let known = self
            .listeners
            .iter()
            .position(|known| known.options.name == options.name);
        let listener = Listener {
            options: options.clone(),
            open: true,
            ended: Vec::new(),
        };
        let number = match known {
            Some(number) => {
                if let Some(known) = self.listeners.get_mut(number) {
                    known.options = listener.options;
                    known.open = true;
                }
                number
            }
            None => {
                self.listeners.push(listener);
                self.listeners.len() - 1
            }
        };
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    /// The listeners; sessions name theirs by its place here.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// How much there is of everything.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Every session, connected or not.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter_map(Option::as_deref)
    }

    /// The session of a client.
    #[must_use]
    pub fn find(&self, client_id: &str) -> Option<&Session> {
        self.peek(*self.by_client.get(client_id)?)
    }

    fn find_mut(&mut self, client_id: &str) -> Option<&mut Session> {
        let id = *self.by_client.get(client_id)?;
        self.session(id)
    }

    /// Where a session's client is.
    #[must_use]
    pub fn address(&self, id: SessionId) -> Option<SocketAddr> {
        self.peek(id).map(|session| session.address)
    }

    /// What a session subscribes to.
    pub fn subscriptions<'a>(
        &'a self,
        session: &'a Session,
    ) -> impl Iterator<Item = Subscription<'a>> {
        let id = self.by_client.get(&session.client_id).copied();
        let own = session.nodes.iter().map(|&node| (node, None));
        let shared = session
            .shares
            .iter()
            .map(|(node, group)| (*node, Some(&**group)));
        own.chain(shared).filter_map(move |(node, group)| {
            let subscriber = self.tree.subscriber(node, group, id?)?;
            Some(Subscription {
                group,
                filter: self.tree.filter(node),
                qos: subscriber.qos,
            })
        })
    }

    /// The filters that somebody subscribes to, by their nodes; [`Broker::filter`] spells them.
    pub fn routes(&self) -> impl Iterator<Item = NodeId> {
        self.tree.subscribed()
    }

    /// The filter of a node.
    #[must_use]
    pub fn filter(&self, node: NodeId) -> String {
        self.tree.filter(node)
    }

    /// Whether somebody subscribes to exactly this filter.
    #[must_use]
    pub fn has_route(&self, filter: &str) -> bool {
        let found = self.tree.find(filter);
        found.is_some_and(|node| self.tree.is_subscribed(node))
    }

    /// Ends a client's connection and session; its will is said. Whether there was one.
    pub fn kick(&mut self, now: Time, client_id: &str) -> bool {
        let Some(&id) = self.by_client.get(client_id) else {
            return false;
        };
        self.close(now, id, Reason::ADMINISTRATIVE);
        self.end(now, id);
        true
    }

    /// Changes a client's keep-alive, seconds. Whether there is such a client.
    pub fn set_keep_alive(&mut self, client_id: &str, keep_alive: u16) -> bool {
        let Some(&id) = self.by_client.get(client_id) else {
            return false;
        };
        if let Some(session) = self.session(id) {
            session.keep_alive = keep_alive;
        }
        self.schedule(id);
        true
    }

    /// Publishes for somebody who is no client. Returns to how many it goes; `None`: no topic name, or
    /// too large for the protocol.
    pub fn publish_for(&mut self, now: Time, publication: &Publication) -> Option<usize> {
        if !topic::is_name(&publication.topic) {
            return None;
        }
        let flags = (publication.qos, publication.retain);
        let message = Message::new(
            now,
            &publication.topic,
            publication.properties.finish(),
            &publication.payload,
            flags,
            SessionId::MAX,
        )?;
        self.metrics.add(
            match publication.qos {
                Qos::AtMostOnce => Metric::Publish0Received,
                Qos::AtLeastOnce => Metric::Publish1Received,
                Qos::ExactlyOnce => Metric::Publish2Received,
            },
            1,
        );
        let publisher = Rc::new(Publisher {
            client_id: (&*publication.client_id).into(),
            username: None,
            address: None,
        });
        match self.delay(now, message, &|_| Some(Rc::clone(&publisher))) {
            Ok(reason) => (!reason.is_failure()).then_some(0),
            Err(message) => Some(self.take_in(now, message, &publisher)),
        }
    }

    /// Subscribes a client, which is not asked; it gets retained messages as if it had.
    ///
    /// # Errors
    /// [`NotSubscribed`].
    pub fn subscribe_for(
        &mut self,
        now: Time,
        client_id: &str,
        filter: &str,
        qos: Qos,
    ) -> Result<(), NotSubscribed> {
        let wanted = Wanted::parse(filter).ok_or(NotSubscribed::BadFilter)?;
        let id = self.by_client.get(client_id);
        let id = *id.ok_or(NotSubscribed::NoSession)?;
        let granted = self.add_subscription(now, id, wanted, qos.bits(), 0);
        if Reason(granted).is_failure() {
            return Err(NotSubscribed::Full);
        }
        self.wake(id);
        Ok(())
    }

    /// Unsubscribes a client, which is not asked. Whether it was subscribed.
    ///
    /// # Errors
    /// [`NotSubscribed`].
    pub fn unsubscribe_for(
        &mut self,
        now: Time,
        client_id: &str,
        filter: &str,
    ) -> Result<bool, NotSubscribed> {
        let wanted = Wanted::parse(filter).ok_or(NotSubscribed::BadFilter)?;
        let id = self.by_client.get(client_id);
        let id = *id.ok_or(NotSubscribed::NoSession)?;
        Ok(self.remove_subscription(now, id, wanted))
    }

    /// What the rules said lately of a client's requests; `None`: it has no session.
    #[must_use]
    pub fn decisions(&self, now: Time, client_id: &str) -> Option<Vec<Cached>> {
        let session = self.find(client_id)?;
        let cache = session.decisions.iter();
        Some(cache.flat_map(|cache| cache.iter(now)).cloned().collect())
    }

    /// Forgets what the rules said of a client's requests. Whether it has a session.
    pub fn forget_decisions(&mut self, client_id: &str) -> bool {
        match self.find_mut(client_id) {
            Some(session) => {
                session.decisions = None;
                true
            }
            None => false,
        }
    }

    /// Forgets what the rules said of everybody's requests.
    pub fn forget_all_decisions(&mut self) {
        for session in self.sessions.iter_mut().flatten() {
            session.decisions = None;
        }
    }

    /// Lets somebody look on, in place of whoever did.
    pub fn set_hook(&mut self, hook: Box<dyn Hook>) {
        self.put_hook(hook);
    }

    /// Whoever looks on, if it is a `T`; its interest is asked for anew after `call`.
    pub fn with_hook<T: Hook, R>(&mut self, call: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut hook = self.hook.take()?;
        let any: &mut dyn Any = &mut *hook;
        let result = any.downcast_mut().map(call);
        self.put_hook(hook);
        result
    }

    pub(super) fn ids(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let all = (0..).zip(&self.sessions);
        all.filter(|(_, session)| session.as_deref().is_some_and(&wanted))
            .map(|(id, _)| id)
            .collect()
    }
}
