//! A message's way from its publisher to the queues (3.3, 4.3).

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use super::{Broker, Target, delayed};
use crate::mqtt::Time;
use crate::mqtt::acl::Access;
use crate::mqtt::codec::property::id as property;
use crate::mqtt::codec::{Ack, AckKind, Packet, Properties, Publish, Qos, Reason, Version};
use crate::mqtt::hook::{Event, Interest, Origin, Publisher, QUERIES};
use crate::mqtt::message::Message;
use crate::mqtt::metrics::Metric;
use crate::mqtt::options::Share;
use crate::mqtt::session::{ALIASES_MAX, Acknowledged, Delivery, Queued, Session};
use crate::mqtt::topic;
use crate::mqtt::topic::tree::{Group, Match, SessionId, Subscriber};

/// Topics of the broker's own, which nobody else publishes to (users.md S20).
pub(super) const OWN_TOPICS: &str = "$SYS/";

impl Broker {
    pub(super) fn publish(&mut self, now: Time, id: SessionId, publish: &Publish<'_>) {
        let aliased;
        let mut topic = publish.topic;
        if let Some(alias) = publish.properties.number(property::TOPIC_ALIAS) {
            match self.alias(id, alias, topic) {
                Some(known) => aliased = known,
                None => return self.close(now, id, Reason::ALIAS_INVALID),
            }
            topic = &aliased;
        }
        if topic.is_empty() {
            return self.close(now, id, Reason::PROTOCOL_ERROR);
        }
        if !topic::is_name(topic) {
            return self.close(now, id, Reason::TOPIC_INVALID);
        }
        if publish
            .properties
            .number(property::SUBSCRIPTION_ID)
            .is_some()
        {
            return self.close(now, id, Reason::PROTOCOL_ERROR);
        }
        if publish.qos == Qos::ExactlyOnce {
            match self.begin_exactly_once(id, publish.packet_id) {
                Begun::New => {}
                // It was routed when it came first.
                Begun::Known => {
                    self.metrics.add(Metric::PublishInUse, 1);
                    return self.answer(id, AckKind::PubRec, publish.packet_id, Reason::SUCCESS);
                }
                Begun::TooMany => {
                    self.metrics.add(Metric::PublishDropped, 1);
                    return self.close(now, id, Reason::RECEIVE_MAXIMUM);
                }
            }
        }
        let mut reason = self.denial();
        let meant = delayed::meant(topic);
        if meant.starts_with(OWN_TOPICS) || !self.allows(now, id, Access::Publish, meant) {
            self.metrics.add(Metric::PublishAuthError, 1);
        } else {
            let flags = (publish.qos, publish.retain);
            let message = Message::new(now, topic, publish.properties, publish.payload, flags, id);
            let Some(message) = message else {
                return self.close(now, id, Reason::PACKET_TOO_LARGE);
            };
            reason = self.take_or_delay(now, message, id);
        }
        self.confirm(id, publish, reason);
    }

    /// Answers what asks for an answer. MQTT 3 cannot say no: a refusal looks like success there.
    fn confirm(&mut self, id: SessionId, publish: &Publish<'_>, reason: Reason) {
        let kind = match publish.qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => AckKind::PubAck,
            Qos::ExactlyOnce => AckKind::PubRec,
        };
        if reason.is_failure() {
            self.metrics.add(Metric::PublishError, 1);
        }
        if reason.is_failure()
            && kind == AckKind::PubRec
            && let Some(session) = self.session(id)
            && session.version == Version::V5
        {
            // No PUBREL follows a failure (4.3.3).
            session
                .awaiting_rel
                .retain(|&other| other != publish.packet_id);
            self.note(id, false, |ledger| ledger.awaiting = true);
        }
        self.answer(id, kind, publish.packet_id, reason);
    }

    fn answer(&mut self, id: SessionId, kind: AckKind, packet_id: u16, reason: Reason) {
        let properties = Properties::default();
        let ack = Ack {
            kind,
            packet_id,
            reason,
            properties,
        };
        self.say(id, &Packet::Ack(ack));
    }

    fn take_or_delay(&mut self, now: Time, message: Message, id: SessionId) -> Reason {
        let publisher = |broker: &mut Self| broker.session(id).map(Session::publisher);
        match self.delay(now, message, &publisher) {
            Ok(reason) => reason,
            Err(message) => match self.take_in_from(now, message, id) {
                0 => Reason::NO_MATCHING_SUBSCRIBERS,
                _ => Reason::SUCCESS,
            },
        }
    }

    /// Takes a message of a client in: shows it, keeps it if it asks for that, queues it for everyone
    /// who subscribes. Returns how many those are.
    fn take_in_from(&mut self, now: Time, message: Message, id: SessionId) -> usize {
        if !self.interest.meets(Interest::MESSAGES) && !message.topic().starts_with(QUERIES) {
            self.metrics.add(Metric::MessagesPublished, 1);
            return self.spread(now, &Rc::new(message));
        }
        match self.session(id).map(Session::publisher) {
            Some(publisher) => self.take_in(now, message, &publisher),
            None => 0,
        }
    }

    /// The same for a message of anyone.
    pub(super) fn take_in(
        &mut self,
        now: Time,
        mut message: Message,
        publisher: &Rc<Publisher>,
    ) -> usize {
        self.metrics.add(Metric::MessagesPublished, 1);
        self.numbered += 1;
        let id = self.numbered;
        let deliveries = Interest::DELIVERED
            .with(Interest::ACKED)
            .with(Interest::DELIVERY_DROPPED);
        if self.interest.meets(deliveries) {
            let (publisher, received) = (Rc::clone(publisher), now);
            message.origin = Some(Box::new(Origin {
                publisher,
                id,
                received,
            }));
        }
        let message = Rc::new(message);
        let published = match message.topic().starts_with(QUERIES) {
            true => Interest::PUBLISHED.with(Interest::QUERIED),
            false => Interest::PUBLISHED,
        };
        self.notify(now, published, |_, show| {
            show(&Event::Published {
                message: &message,
                id,
                publisher,
            });
        });
        let count = self.spread(now, &message);
        if count == 0 {
            self.notify(now, Interest::DROPPED, |_, show| {
                show(&Event::Dropped {
                    message: &message,
                    id,
                    publisher,
                    reason: "no_subscribers",
                });
            });
        }
        count
    }

    fn spread(&mut self, now: Time, message: &Rc<Message>) -> usize {
        self.keep(now, message);
        let count = self.route(now, message);
        if count == 0 {
            self.metrics.add(Metric::MessagesUnmatched, 1);
        }
        count
    }

    /// The topic of an alias, after it was set when a topic came with it (3.3.2.3.4).
    fn alias(&mut self, id: SessionId, alias: u32, topic: &str) -> Option<Rc<str>> {
        let alias = u16::try_from(alias)
            .ok()
            .filter(|&alias| alias <= ALIASES_MAX)?;
        let session = self.session(id)?;
        let known = session
            .aliases
            .iter_mut()
            .find(|(known, _)| *known == alias);
        if topic.is_empty() {
            return known.map(|(_, topic)| Rc::clone(topic));
        }
        let topic: Rc<str> = topic.into();
        match known {
            Some((_, known)) => *known = Rc::clone(&topic),
            None => session.aliases.push((alias, Rc::clone(&topic))),
        }
        Some(topic)
    }

    fn begin_exactly_once(&mut self, id: SessionId, packet_id: u16) -> Begun {
        let max = usize::from(self.limits.awaiting_rel_max);
        let Some(session) = self.session(id) else {
            return Begun::TooMany;
        };
        if session.awaiting_rel.contains(&packet_id) {
            return Begun::Known;
        }
        if session.awaiting_rel.len() >= max {
            return Begun::TooMany;
        }
        session.awaiting_rel.push(packet_id);
        self.note(id, true, |ledger| ledger.awaiting = true);
        Begun::New
    }

    pub(super) fn acknowledged(&mut self, now: Time, id: SessionId, ack: &Ack<'_>) {
        let Some(session) = self.session(id) else {
            return;
        };
        if ack.kind == AckKind::PubRel {
            let known = session
                .awaiting_rel
                .iter()
                .position(|&one| one == ack.packet_id);
            let reason = match known {
                Some(index) => {
                    session.awaiting_rel.swap_remove(index);
                    self.note(id, false, |ledger| ledger.awaiting = true);
                    Reason::SUCCESS
                }
                None => {
                    self.metrics.add(Metric::PubrelMissed, 1);
                    Reason::PACKET_ID_NOT_FOUND
                }
            };
            return self.answer(id, AckKind::PubComp, ack.packet_id, reason);
        }
        match session.acknowledged(ack) {
            Acknowledged::Done(delivery) => {
                self.note(id, false, |_| {});
                self.wake(id);
                self.confirmed(now, id, delivery);
            }
            Acknowledged::Released(delivery) => {
                session.sent.packets += 1;
                self.note(id, false, |_| {});
                self.metrics.add(Metric::PubrelSent, 1);
                self.wake(id);
                self.confirmed(now, id, delivery);
            }
            Acknowledged::OutOfPlace => self.count_stray(ack.kind, true),
            Acknowledged::Unknown => {
                self.count_stray(ack.kind, false);
                // Somebody asks to go on with what is unknown here: let him finish (4.3.3).
                if ack.kind == AckKind::PubRec && !ack.reason.is_failure() {
                    let reason = Reason::PACKET_ID_NOT_FOUND;
                    self.answer(id, AckKind::PubRel, ack.packet_id, reason);
                }
            }
        }
    }

    fn confirmed(&mut self, now: Time, id: SessionId, delivery: Option<Delivery>) {
        let Some(delivery) = delivery else {
            return;
        };
        self.metrics.add(Metric::MessagesAcked, 1);
        self.notify(now, Interest::ACKED, |broker, show| {
            if let Some(receiver) = broker.peek(id) {
                show(&Event::Acked {
                    message: &delivery.message,
                    qos: delivery.qos,
                    receiver,
                });
            }
        });
    }

    fn count_stray(&mut self, kind: AckKind, in_use: bool) {
        let metric = match (kind, in_use) {
            (AckKind::PubAck, true) => Metric::PubackInUse,
            (AckKind::PubAck, false) => Metric::PubackMissed,
            (AckKind::PubRec, true) => Metric::PubrecInUse,
            (AckKind::PubRec, false) => Metric::PubrecMissed,
            (AckKind::PubComp, true) => Metric::PubcompInUse,
            (AckKind::PubComp, false) => Metric::PubcompMissed,
            (AckKind::PubRel, _) => Metric::PubrelMissed,
        };
        self.metrics.add(metric, 1);
    }

    fn keep(&mut self, now: Time, message: &Rc<Message>) {
        if !message.retain {
            return;
        }
        let (max, bytes_max) = (self.limits.retained_max, self.limits.retained_bytes_max);
        let Some(known) = self.retained.keep(message, max, bytes_max) else {
            self.metrics.add(Metric::RetainedRefused, 1);
            return;
        };
        if known || !message.payload().is_empty() {
            let stays = known && !message.payload().is_empty();
            self.note_retained(now, message.topic(), stays);
        }
        self.stats.retained.set(self.retained.len());
    }

    /// Queues a message for everyone who subscribes to its topic. Returns how many those are.
    pub(super) fn route(&mut self, now: Time, message: &Rc<Message>) -> usize {
        if message.expires <= now {
            self.metrics.add(Metric::MessagesExpired, 1);
            return 0;
        }
        let mut own = 0;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        let sessions = &self.sessions;
        let choice = Choice {
            strategy: self.limits.share,
            keys: &self.keys,
            topic: message.topic(),
            publisher: sessions
                .get(message.from as usize)
                .and_then(Option::as_deref),
        };
        let mut lists = 0;
        self.tree
            .matching(message.topic(), &mut |found| match found {
                Match::Each(list) => {
                    lists += 1;
                    for one in list {
                        if one.no_local && one.session == message.from {
                            own += 1;
                        } else {
                            targets.push(Target::new(one, false));
                        }
                    }
                }
                Match::OneOf(group) => {
                    targets.extend(
                        choice
                            .turn(group, sessions)
                            .map(|one| Target::new(&one, true)),
                    );
                }
            });
        // Only overlapping subscriptions can name a session twice.
        if lists > 1 {
            targets.sort_by_key(|target| (target.session, target.shared));
        }
        let mut rest = targets.as_slice();
        let mut count = 0;
        while let Some(first) = rest.first() {
            let same =
                |other: &&Target| other.session == first.session && !other.shared && !first.shared;
            let length = if lists > 1 {
                rest.iter().take_while(same).count().max(1)
            } else {
                1
            };
            let (merged, others) = rest.split_at(length.min(rest.len()));
            self.deliver(now, message, merged);
            count += 1;
            rest = others;
        }
        self.targets = targets;
        self.metrics.add(Metric::DeliveryNoLocal, own);
        count
    }

    /// Queues a message for one session, by one or more of its subscriptions: once, with the highest
    /// of their qualities and all their identifiers (3.3.4).
    fn deliver(&mut self, now: Time, message: &Rc<Message>, by: &[Target]) {
        let Some(first) = by.first() else {
            return;
        };
        let qos = by.iter().map(|one| one.qos).max().unwrap_or_default();
        let ids: Vec<u32> = by.iter().map(|one| one.id).filter(|&id| id != 0).collect();
        let ids = (!ids.is_empty()).then(|| Box::new(ids));
        let qos = qos.min(message.qos);
        let retain = message.retain && by.iter().any(|one| one.retain_as_published);
        let delivery = Delivery::new(Rc::clone(message), ids, qos, retain);
        let limits = self.limits;
        let session = self.sessions.get_mut(first.session as usize);
        let Some(session) = session.and_then(Option::as_deref_mut) else {
            return;
        };
        let queued = session.push(delivery, &limits, &mut self.watch);
        self.pressing |= session.is_half_full(&limits);
        match queued {
            Queued::Waiting => {}
            Queued::OldestDropped(dropped) => {
                self.metrics.add(Metric::DeliveryQueueFull, dropped.into());
            }
            Queued::NotKept => self.metrics.add(Metric::DeliveryQos0, 1),
        }
        if qos > Qos::AtMostOnce {
            self.note(first.session, true, |_| {});
        }
        self.wake(first.session);
        if !self.watch.lost.is_empty() {
            self.show_watched(now, first.session);
        }
    }
}

enum Begun {
    New,
    Known,
    TooMany,
}

impl Target {
    fn new(one: &Subscriber, shared: bool) -> Self {
        Self {
            session: one.session,
            qos: one.qos,
            retain_as_published: one.retain_as_published,
            shared,
            id: one.id,
        }
    }
}

/// By what a member of a group is chosen.
struct Choice<'a> {
    strategy: Share,
    keys: &'a RandomState,
    topic: &'a str,
    publisher: Option<&'a Session>,
}

impl Choice<'_> {
    /// Whose turn it is in a group, or the next one behind him that is connected.
    fn turn(&self, group: &mut Group, sessions: &[Option<Box<Session>>]) -> Option<Subscriber> {
        let count = group.members.len();
        let start = self.first(group) % count.max(1);
        let connected = |one: &Subscriber| {
            let session = sessions.get(one.session as usize).and_then(Option::as_ref);
            session.is_some_and(|session| session.link.is_some())
        };
        let round = (0..count).map(|step| (start + step) % count);
        let chosen = round
            .into_iter()
            .find(|&index| group.members.get(index).is_some_and(connected))
            .unwrap_or(start);
        let member = group.members.get(chosen).copied()?;
        group.turn = match self.strategy {
            Share::RoundRobin => u32::try_from(chosen + 1).unwrap_or(0),
            Share::Sticky => member.session.wrapping_add(1),
            _ => group.turn.wrapping_add(1),
        };
        Some(member)
    }

    /// Where to begin to look.
    fn first(&self, group: &Group) -> usize {
        let hash = match self.strategy {
            Share::RoundRobin => return group.turn as usize,
            Share::Sticky => {
                let last = group.turn.wrapping_sub(1);
                let place = group.members.iter().position(|one| one.session == last);
                return place.unwrap_or(0);
            }
            // A number that nobody knows in advance.
            Share::Random => self.keys.hash_one((group.turn, &group.name)),
            Share::HashClientId => {
                let client_id = self.publisher.map(|session| &*session.client_id);
                self.keys.hash_one(client_id)
            }
            Share::HashTopic => self.keys.hash_one(self.topic),
        };
        usize::try_from(hash % group.members.len().max(1) as u64).unwrap_or(0)
    }
}
