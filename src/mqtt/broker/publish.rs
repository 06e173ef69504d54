//! A message's way from its publisher to the queues (3.3, 4.3).

use std::rc::Rc;

use super::{Broker, Target};
use crate::mqtt::Time;
use crate::mqtt::acl::Access;
use crate::mqtt::codec::property::id as property;
use crate::mqtt::codec::{Ack, AckKind, Publish, Qos, Reason, Version};
use crate::mqtt::message::Message;
use crate::mqtt::session::{ALIASES_MAX, Delivery, Queued, Session};
use crate::mqtt::topic;
use crate::mqtt::topic::tree::{Group, Match, SessionId, Subscriber};

/// Topics of the broker's own, which nobody else publishes to (users.md S20).
const OWN_TOPICS: &str = "$SYS/";

impl Broker {
    pub(super) fn publish(&mut self, now: Time, id: SessionId, publish: &Publish<'_>) {
        self.counts.received += 1;
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
                    return self.answer(id, AckKind::PubRec, publish.packet_id, Reason::SUCCESS);
                }
                Begun::TooMany => return self.close(now, id, Reason::RECEIVE_MAXIMUM),
            }
        }
        let mut reason = Reason::NOT_AUTHORIZED;
        if topic.starts_with(OWN_TOPICS) || !self.allows(id, Access::Publish, topic) {
            self.counts.denied += 1;
        } else {
            let flags = (publish.qos, publish.retain);
            let message = Message::new(now, topic, publish.properties, publish.payload, flags, id);
            let Some(message) = message else {
                return self.close(now, id, Reason::PACKET_TOO_LARGE);
            };
            let message = Rc::new(message);
            self.keep(&message);
            reason = if self.route(now, &message) == 0 {
                Reason::NO_MATCHING_SUBSCRIBERS
            } else {
                Reason::SUCCESS
            };
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
        if reason.is_failure()
            && kind == AckKind::PubRec
            && let Some(session) = self.session(id)
            && session.version == Version::V5
        {
            // No PUBREL follows a failure (4.3.3).
            session
                .awaiting_rel
                .retain(|&other| other != publish.packet_id);
        }
        self.answer(id, kind, publish.packet_id, reason);
    }

    fn answer(&mut self, id: SessionId, kind: AckKind, packet_id: u16, reason: Reason) {
        if let Some(session) = self.session(id) {
            session.answer(kind, packet_id, reason);
        }
        self.wake(id);
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
        Begun::New
    }

    pub(super) fn acknowledged(&mut self, id: SessionId, ack: &Ack<'_>) {
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
                    Reason::SUCCESS
                }
                None => Reason::PACKET_ID_NOT_FOUND,
            };
            session.answer(AckKind::PubComp, ack.packet_id, reason);
            return self.wake(id);
        }
        match session.acknowledged(ack) {
            Some(_) => self.wake(id),
            // Somebody asks to go on with what is unknown here: let him finish (4.3.3).
            None if ack.kind == AckKind::PubRec && !ack.reason.is_failure() => {
                session.answer(AckKind::PubRel, ack.packet_id, Reason::PACKET_ID_NOT_FOUND);
                self.wake(id);
            }
            None => {}
        }
    }

    pub(super) fn keep(&mut self, message: &Rc<Message>) {
        if message.retain && !self.retained.keep(message, self.limits.retained_max) {
            self.counts.dropped_retained += 1;
        }
    }

    /// Queues a message for everyone who subscribes to its topic. Returns how many those are.
    pub(super) fn route(&mut self, now: Time, message: &Rc<Message>) -> usize {
        if message.expires <= now {
            return 0;
        }
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        let sessions = &self.sessions;
        let mut lists = 0;
        self.tree
            .matching(message.topic(), &mut |found| match found {
                Match::Each(list) => {
                    lists += 1;
                    let wanted = list
                        .iter()
                        .filter(|one| !(one.no_local && one.session == message.from));
                    targets.extend(wanted.map(|one| Target::new(one, false)));
                }
                Match::OneOf(group) => {
                    targets.extend(turn(group, sessions).map(|one| Target::new(&one, true)));
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
            self.deliver(message, merged);
            count += 1;
            rest = others;
        }
        self.targets = targets;
        count
    }

    /// Queues a message for one session, by one or more of its subscriptions: once, with the highest
    /// of their qualities and all their identifiers (3.3.4).
    fn deliver(&mut self, message: &Rc<Message>, by: &[Target]) {
        let Some(first) = by.first() else {
            return;
        };
        let qos = by.iter().map(|one| one.qos).max().unwrap_or_default();
        let ids: Vec<u32> = by.iter().map(|one| one.id).filter(|&id| id != 0).collect();
        let delivery = Delivery {
            message: Rc::clone(message),
            ids: (!ids.is_empty()).then(|| Box::new(ids)),
            qos: qos.min(message.qos),
            retain: message.retain && by.iter().any(|one| one.retain_as_published),
        };
        let limits = self.limits;
        let Some(session) = self.session(first.session) else {
            return;
        };
        let queued = session.push(delivery, &limits);
        let half = session.is_half_full(&limits);
        if let Queued::OldestDropped(dropped) = queued {
            self.counts.dropped_queue_full += dropped as u64;
        }
        self.pressing |= half;
        self.wake(first.session);
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

/// Whose turn it is in a group: the next in the round that is connected, else the next.
fn turn(group: &mut Group, sessions: &[Option<Box<Session>>]) -> Option<Subscriber> {
    let count = group.members.len();
    let start = group.turn as usize % count.max(1);
    let connected = |one: &Subscriber| {
        let session = sessions.get(one.session as usize).and_then(Option::as_ref);
        session.is_some_and(|session| session.link.is_some())
    };
    let round = (0..count).map(|step| (start + step) % count);
    let chosen = round
        .into_iter()
        .find(|&index| group.members.get(index).is_some_and(connected))
        .unwrap_or(start);
    group.turn = u32::try_from(chosen + 1).unwrap_or(0);
    group.members.get(chosen).copied()
}
