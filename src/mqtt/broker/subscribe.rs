//! SUBSCRIBE, UNSUBSCRIBE and the retained messages that follow (3.8 to 3.11).

use super::Broker;
use crate::mqtt::Time;
use crate::mqtt::acl::Access;
use crate::mqtt::codec::property::id as property;
use crate::mqtt::codec::{Packet, Properties, Qos, Reason, SubAck, Subscribe, Version, filters};
use crate::mqtt::hook::{Event, Interest};
use crate::mqtt::metrics::Metric;
use crate::mqtt::session::{Delivery, Replay, Watch};
use crate::mqtt::topic::Wanted;
use crate::mqtt::topic::tree::{SessionId, Subscriber};

/// Retained messages that a session's queue is filled up with at a time.
const REPLAY_STEP: usize = 64;

/// The failure of a SUBACK of MQTT 3.
const FAILURE: u8 = 0x80;

/// The bit of the subscription options.
const NO_LOCAL: u8 = 4;

impl Broker {
    pub(super) fn subscribe(&mut self, now: Time, id: SessionId, subscribe: &Subscribe<'_>) {
        let identifier = subscribe
            .properties
            .number(property::SUBSCRIPTION_ID)
            .unwrap_or(0);
        // A share has no publisher of its own (3.8.3.1).
        let absurd = |(text, options): (&str, u8)| {
            options & NO_LOCAL != 0 && Wanted::parse(text).is_some_and(|one| one.group.is_some())
        };
        if filters(subscribe.list, true).any(absurd) {
            return self.close(now, id, Reason::PROTOCOL_ERROR);
        }
        let mut reasons = Vec::new();
        for (text, options) in filters(subscribe.list, true) {
            reasons.push(self.subscribe_one(now, id, text, options, identifier));
        }
        let Some(session) = self.session(id) else {
            return;
        };
        if session.version != Version::V5 {
            for reason in &mut reasons {
                *reason = if *reason >= FAILURE { FAILURE } else { *reason };
            }
        }
        self.suback(id, subscribe.packet_id, false, &reasons);
    }

    fn subscribe_one(
        &mut self,
        now: Time,
        id: SessionId,
        text: &str,
        options: u8,
        identifier: u32,
    ) -> u8 {
        let Some(wanted) = Wanted::parse(text) else {
            self.metrics.add(Metric::SubscribeError, 1);
            return Reason::FILTER_INVALID.0;
        };
        if !self.allows(now, id, Access::Subscribe, wanted.filter) {
            self.metrics.add(Metric::SubscribeAuthError, 1);
            return self.denial().0;
        }
        self.add_subscription(now, id, wanted, options, identifier)
    }

    /// Subscribes a session, whatever the rules say. Returns the quality granted, or why not.
    pub(super) fn add_subscription(
        &mut self,
        now: Time,
        id: SessionId,
        wanted: Wanted<'_>,
        options: u8,
        identifier: u32,
    ) -> u8 {
        let known = self.tree.find(wanted.filter);
        let known = known.and_then(|node| self.tree.subscriber(node, wanted.group, id));
        let (fresh, max) = (known.is_none(), self.limits.subscriptions_max);
        let Some(session) = self.session(id) else {
            return Reason::UNSPECIFIED.0;
        };
        if fresh && session.subscription_count() >= max {
            return Reason::QUOTA_EXCEEDED.0;
        }
        let qos = Qos::from_bits(options & 3).unwrap_or_default();
        // A bridge of MQTT 3 has no way to ask for what it needs against loops.
        let old_bridge = session.bridge && session.version != Version::V5;
        let subscriber = Subscriber {
            session: id,
            id: identifier,
            qos,
            no_local: options & NO_LOCAL != 0 || (old_bridge && wanted.group.is_none()),
            retain_as_published: options & 8 != 0 || old_bridge,
        };
        let (node, new) = self.tree.insert(wanted.filter, wanted.group, subscriber);
        self.watch_system(now, wanted.filter);
        if new {
            self.stats.subscriptions.rise();
            self.stats.routes.set(self.tree.routes());
            if wanted.group.is_some() {
                self.stats.shared.rise();
            }
        }
        self.notify(now, Interest::SUBSCRIBED, |broker, show| {
            if let Some(session) = broker.peek(id) {
                let filter = wanted.filter;
                show(&Event::Subscribed {
                    session,
                    filter,
                    qos,
                });
            }
        });
        let Some(session) = self.session(id) else {
            return Reason::UNSPECIFIED.0;
        };
        let text = session.ledger.is_some().then(|| wanted.to_text());
        match wanted.group {
            None if new => session.nodes.push(node),
            Some(group) if new => session.shares.push((node, group.into())),
            _ => {}
        }
        // Retain handling: 0 always, 1 when it is new, 2 never; shares get none (4.8.2).
        let replay = match options >> 4 & 3 {
            0 => true,
            1 => new,
            _ => false,
        };
        if replay && wanted.group.is_none() {
            session
                .replays
                .retain(|other| *other.filter != *wanted.filter);
            session.replays.push_back(Replay {
                filter: wanted.filter.into(),
                after: None,
                qos,
                id: identifier,
            });
            self.show_system(now, id, wanted.filter, identifier);
        }
        if let Some(text) = text {
            self.note(id, true, |ledger| _ = ledger.filters.insert(text.into()));
        }
        qos.bits()
    }

    pub(super) fn unsubscribe(&mut self, now: Time, id: SessionId, unsubscribe: &Subscribe<'_>) {
        let mut reasons = Vec::new();
        for (text, _) in filters(unsubscribe.list, false) {
            let reason = match Wanted::parse(text) {
                None => Reason::FILTER_INVALID,
                Some(wanted) if self.remove_subscription(now, id, wanted) => Reason::SUCCESS,
                Some(_) => Reason::NO_SUBSCRIPTION,
            };
            reasons.push(reason.0);
        }
        self.suback(id, unsubscribe.packet_id, true, &reasons);
    }

    /// Whether there was such a subscription.
    pub(super) fn remove_subscription(
        &mut self,
        now: Time,
        id: SessionId,
        wanted: Wanted<'_>,
    ) -> bool {
        let Some(node) = self.tree.find(wanted.filter) else {
            return false;
        };
        if !self.tree.remove(node, wanted.group, id) {
            return false;
        }
        self.stats.subscriptions.fall();
        self.stats.routes.set(self.tree.routes());
        if wanted.group.is_some() {
            self.stats.shared.fall();
        }
        self.notify(now, Interest::UNSUBSCRIBED, |broker, show| {
            if let Some(session) = broker.peek(id) {
                let filter = wanted.filter;
                show(&Event::Unsubscribed { session, filter });
            }
        });
        if let Some(session) = self.session(id) {
            match wanted.group {
                None => {
                    session.nodes.retain(|&other| other != node);
                    session
                        .replays
                        .retain(|replay| *replay.filter != *wanted.filter);
                }
                Some(name) => session
                    .shares
                    .retain(|(other, group)| *other != node || **group != *name),
            }
        }
        let text = wanted.to_text();
        self.note(id, true, |ledger| _ = ledger.filters.insert(text.into()));
        true
    }

    fn suback(&mut self, id: SessionId, packet_id: u16, unsubscribe: bool, reasons: &[u8]) {
        let plain = unsubscribe && self.peek(id).is_some_and(|one| one.version != Version::V5);
        let ack = SubAck {
            unsubscribe,
            packet_id,
            properties: Properties::default(),
            reasons: if plain { &[] } else { reasons },
        };
        self.say(id, &Packet::SubAck(ack));
    }

    /// Puts retained messages into a queue that has room, a few at a time: however many there are,
    /// none is dropped and none is held twice.
    pub(super) fn refill(&mut self, id: SessionId) {
        let limits = self.limits;
        let session = self.sessions.get_mut(id as usize);
        let Some(session) = session.and_then(Option::as_deref_mut) else {
            return;
        };
        if session.link.is_none() {
            return;
        }
        let room = REPLAY_STEP.min(limits.queue_max);
        while session.waiting() < room {
            let Some(replay) = session.replays.front_mut() else {
                return;
            };
            let Some(message) = self.retained.next(&replay.filter, replay.after.as_deref()) else {
                session.replays.pop_front();
                continue;
            };
            replay.after = Some(message.topic().into());
            let qos = replay.qos.min(message.qos);
            let ids = (replay.id != 0).then(|| Box::new(vec![replay.id]));
            let delivery = Delivery::new(message, ids, qos, true);
            // There is room.
            session.push(delivery, &limits, &mut Watch::default());
        }
    }
}
