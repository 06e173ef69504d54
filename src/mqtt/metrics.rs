//! What the broker counts, under the names that EMQX 4 gives it.
//!
//! Each event is counted once; [`NAMES`] says which counters a name is the sum of. Plain numbers: all
//! of it belongs to the broker's thread. `messages.retained`, `messages.delayed` and the names of the
//! rule engine are not here: they are gauges and another's counters.

/// An event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Bytes from clients.
    BytesReceived,
    /// Bytes to clients.
    BytesSent,
    /// CONNECT packets.
    ConnectReceived,
    /// CONNACK packets.
    ConnackSent,
    /// Those that refuse.
    ConnackError,
    /// Those that refuse for who it is.
    ConnackAuthError,
    /// PUBLISH from clients and from the API, by quality.
    Publish0Received,
    /// See [`Metric::Publish0Received`].
    Publish1Received,
    /// See [`Metric::Publish0Received`].
    Publish2Received,
    /// PUBLISH to clients, by quality.
    Publish0Sent,
    /// See [`Metric::Publish0Sent`].
    Publish1Sent,
    /// See [`Metric::Publish0Sent`].
    Publish2Sent,
    /// QoS 2 with a packet identifier that is in use.
    PublishInUse,
    /// Answered with a failure.
    PublishError,
    /// Refused by the rules.
    PublishAuthError,
    /// QoS 2 beyond `max-awaiting-rel`.
    PublishDropped,
    /// PUBACK from clients.
    PubackReceived,
    /// PUBACK to clients.
    PubackSent,
    /// PUBACK for a packet identifier in another state.
    PubackInUse,
    /// PUBACK for an unknown packet identifier.
    PubackMissed,
    /// PUBREC from clients.
    PubrecReceived,
    /// PUBREC to clients.
    PubrecSent,
    /// PUBREC for a packet identifier in another state.
    PubrecInUse,
    /// PUBREC for an unknown packet identifier.
    PubrecMissed,
    /// PUBREL from clients.
    PubrelReceived,
    /// PUBREL to clients.
    PubrelSent,
    /// PUBREL for an unknown packet identifier.
    PubrelMissed,
    /// PUBCOMP from clients.
    PubcompReceived,
    /// PUBCOMP to clients.
    PubcompSent,
    /// PUBCOMP for a packet identifier in another state.
    PubcompInUse,
    /// PUBCOMP for an unknown packet identifier.
    PubcompMissed,
    /// SUBSCRIBE from clients.
    SubscribeReceived,
    /// SUBSCRIBE with a filter that was refused.
    SubscribeError,
    /// SUBSCRIBE with a filter that the rules refused.
    SubscribeAuthError,
    /// SUBACK to clients.
    SubackSent,
    /// UNSUBSCRIBE from clients.
    UnsubscribeReceived,
    /// UNSUBSCRIBE with a filter that was refused.
    UnsubscribeError,
    /// UNSUBACK to clients.
    UnsubackSent,
    /// PINGREQ or PINGRESP from clients.
    PingReceived,
    /// PINGREQ or PINGRESP to clients.
    PingSent,
    /// DISCONNECT from clients.
    DisconnectReceived,
    /// DISCONNECT to clients.
    DisconnectSent,
    /// AUTH from clients.
    AuthReceived,
    /// Packets that clients must not send.
    OtherReceived,
    /// Messages that were routed.
    MessagesPublished,
    /// Routed to nobody.
    MessagesUnmatched,
    /// Expired before they were routed.
    MessagesExpired,
    /// Messages that a client confirmed.
    MessagesAcked,
    /// Messages of a hook that went round too often.
    MessagesForbidden,
    /// Not kept, because there were enough.
    RetainedRefused,
    /// To `$delayed/…`, and not taken: too many, or no time and topic.
    DelayedRefused,
    /// Not sent to their own publisher.
    DeliveryNoLocal,
    /// Larger than the client takes.
    DeliveryTooLarge,
    /// QoS 0 for a client that is away.
    DeliveryQos0,
    /// Dropped from a full queue.
    DeliveryQueueFull,
    /// Expired in a queue.
    DeliveryExpired,
    /// Connections that there was no room for: at the listener, or on this system.
    ConnectionsRefused,
    /// Clients let in.
    ClientConnected,
    /// Those of them without a password.
    ClientAnonymous,
    /// Those of them with one.
    ClientAuthSuccess,
    /// Clients that did not show who they are.
    ClientAuthFailure,
    /// Connections that ended.
    ClientDisconnected,
    /// Requests that the rules allowed.
    AclAllowed,
    /// Requests that the rules denied.
    AclDenied,
    /// Requests decided from the cache.
    AclCached,
    /// Sessions begun.
    SessionCreated,
    /// Sessions taken up again.
    SessionResumed,
    /// Resumed from a connection that was still there.
    SessionTakenOver,
    /// Replaced by a clean start.
    SessionDiscarded,
    /// Sessions ended.
    SessionTerminated,
}

/// How many [`Metric`]s there are.
const COUNT: usize = Metric::SessionTerminated as usize + 1;

/// Names and the counters that they sum up.
pub const NAMES: &[(&str, &[Metric])] = &[
    ("bytes.received", &[Metric::BytesReceived]),
    ("bytes.sent", &[Metric::BytesSent]),
    (
        "packets.received",
        &[
            Metric::ConnectReceived,
            Metric::Publish0Received,
            Metric::Publish1Received,
            Metric::Publish2Received,
            Metric::PubackReceived,
            Metric::PubrecReceived,
            Metric::PubrelReceived,
            Metric::PubcompReceived,
            Metric::SubscribeReceived,
            Metric::UnsubscribeReceived,
            Metric::PingReceived,
            Metric::DisconnectReceived,
            Metric::AuthReceived,
            Metric::OtherReceived,
        ],
    ),
    (
        "packets.sent",
        &[
            Metric::ConnackSent,
            Metric::Publish0Sent,
            Metric::Publish1Sent,
            Metric::Publish2Sent,
            Metric::PubackSent,
            Metric::PubrecSent,
            Metric::PubrelSent,
            Metric::PubcompSent,
            Metric::SubackSent,
            Metric::UnsubackSent,
            Metric::PingSent,
            Metric::DisconnectSent,
        ],
    ),
    ("packets.connect.received", &[Metric::ConnectReceived]),
    ("packets.connack.sent", &[Metric::ConnackSent]),
    ("packets.connack.error", &[Metric::ConnackError]),
    ("packets.connack.auth_error", &[Metric::ConnackAuthError]),
    (
        "packets.publish.received",
        &[
            Metric::Publish0Received,
            Metric::Publish1Received,
            Metric::Publish2Received,
        ],
    ),
    (
        "packets.publish.sent",
        &[
            Metric::Publish0Sent,
            Metric::Publish1Sent,
            Metric::Publish2Sent,
        ],
    ),
    ("packets.publish.inuse", &[Metric::PublishInUse]),
    ("packets.publish.error", &[Metric::PublishError]),
    ("packets.publish.auth_error", &[Metric::PublishAuthError]),
    ("packets.publish.dropped", &[Metric::PublishDropped]),
    ("packets.puback.received", &[Metric::PubackReceived]),
    ("packets.puback.sent", &[Metric::PubackSent]),
    ("packets.puback.inuse", &[Metric::PubackInUse]),
    ("packets.puback.missed", &[Metric::PubackMissed]),
    ("packets.pubrec.received", &[Metric::PubrecReceived]),
    ("packets.pubrec.sent", &[Metric::PubrecSent]),
    ("packets.pubrec.inuse", &[Metric::PubrecInUse]),
    ("packets.pubrec.missed", &[Metric::PubrecMissed]),
    ("packets.pubrel.received", &[Metric::PubrelReceived]),
    ("packets.pubrel.sent", &[Metric::PubrelSent]),
    ("packets.pubrel.missed", &[Metric::PubrelMissed]),
    ("packets.pubcomp.received", &[Metric::PubcompReceived]),
    ("packets.pubcomp.sent", &[Metric::PubcompSent]),
    ("packets.pubcomp.inuse", &[Metric::PubcompInUse]),
    ("packets.pubcomp.missed", &[Metric::PubcompMissed]),
    ("packets.subscribe.received", &[Metric::SubscribeReceived]),
    ("packets.subscribe.error", &[Metric::SubscribeError]),
    (
        "packets.subscribe.auth_error",
        &[Metric::SubscribeAuthError],
    ),
    ("packets.suback.sent", &[Metric::SubackSent]),
    (
        "packets.unsubscribe.received",
        &[Metric::UnsubscribeReceived],
    ),
    ("packets.unsubscribe.error", &[Metric::UnsubscribeError]),
    ("packets.unsuback.sent", &[Metric::UnsubackSent]),
    ("packets.pingreq.received", &[Metric::PingReceived]),
    ("packets.pingresp.sent", &[Metric::PingSent]),
    ("packets.disconnect.received", &[Metric::DisconnectReceived]),
    ("packets.disconnect.sent", &[Metric::DisconnectSent]),
    ("packets.auth.received", &[Metric::AuthReceived]),
    ("packets.auth.sent", &[]),
    (
        "messages.received",
        &[
            Metric::Publish0Received,
            Metric::Publish1Received,
            Metric::Publish2Received,
        ],
    ),
    (
        "messages.sent",
        &[
            Metric::Publish0Sent,
            Metric::Publish1Sent,
            Metric::Publish2Sent,
        ],
    ),
    ("messages.qos0.received", &[Metric::Publish0Received]),
    ("messages.qos1.received", &[Metric::Publish1Received]),
    ("messages.qos2.received", &[Metric::Publish2Received]),
    ("messages.qos0.sent", &[Metric::Publish0Sent]),
    ("messages.qos1.sent", &[Metric::Publish1Sent]),
    ("messages.qos2.sent", &[Metric::Publish2Sent]),
    ("messages.publish", &[Metric::MessagesPublished]),
    (
        "messages.dropped",
        &[
            Metric::MessagesUnmatched,
            Metric::MessagesExpired,
            Metric::PublishDropped,
            Metric::MessagesForbidden,
            Metric::DelayedRefused,
        ],
    ),
    ("messages.dropped.expired", &[Metric::MessagesExpired]),
    (
        "messages.dropped.no_subscribers",
        &[Metric::MessagesUnmatched],
    ),
    ("messages.dropped.await_pubrel_timeout", &[]),
    // Ours: EMQX counts neither.
    ("messages.dropped.delayed", &[Metric::DelayedRefused]),
    ("messages.dropped.retained", &[Metric::RetainedRefused]),
    ("messages.forward", &[]),
    (
        "messages.delivered",
        &[
            Metric::Publish0Sent,
            Metric::Publish1Sent,
            Metric::Publish2Sent,
        ],
    ),
    ("messages.acked", &[Metric::MessagesAcked]),
    (
        "delivery.dropped",
        &[
            Metric::DeliveryNoLocal,
            Metric::DeliveryTooLarge,
            Metric::DeliveryQos0,
            Metric::DeliveryQueueFull,
            Metric::DeliveryExpired,
        ],
    ),
    ("delivery.dropped.no_local", &[Metric::DeliveryNoLocal]),
    ("delivery.dropped.too_large", &[Metric::DeliveryTooLarge]),
    ("delivery.dropped.qos0_msg", &[Metric::DeliveryQos0]),
    ("delivery.dropped.queue_full", &[Metric::DeliveryQueueFull]),
    ("delivery.dropped.expired", &[Metric::DeliveryExpired]),
    // Ours.
    ("client.turned_away", &[Metric::ConnectionsRefused]),
    ("client.connect", &[Metric::ConnectReceived]),
    ("client.connack", &[Metric::ConnackSent]),
    ("client.connected", &[Metric::ClientConnected]),
    (
        "client.authenticate",
        &[
            Metric::ClientAnonymous,
            Metric::ClientAuthSuccess,
            Metric::ClientAuthFailure,
        ],
    ),
    ("client.auth.anonymous", &[Metric::ClientAnonymous]),
    (
        "client.auth.success",
        &[Metric::ClientAuthSuccess, Metric::ClientAnonymous],
    ),
    ("client.auth.success.anonymous", &[Metric::ClientAnonymous]),
    ("client.auth.failure", &[Metric::ClientAuthFailure]),
    ("client.check_acl", &[Metric::AclAllowed, Metric::AclDenied]),
    ("client.acl.allow", &[Metric::AclAllowed]),
    ("client.acl.deny", &[Metric::AclDenied]),
    ("client.acl.cache_hit", &[Metric::AclCached]),
    ("client.subscribe", &[Metric::SubscribeReceived]),
    ("client.unsubscribe", &[Metric::UnsubscribeReceived]),
    ("client.disconnected", &[Metric::ClientDisconnected]),
    ("session.created", &[Metric::SessionCreated]),
    ("session.resumed", &[Metric::SessionResumed]),
    ("session.takeovered", &[Metric::SessionTakenOver]),
    ("session.discarded", &[Metric::SessionDiscarded]),
    ("session.terminated", &[Metric::SessionTerminated]),
];

/// The counters, since the start.
#[derive(Clone, Debug)]
pub struct Metrics([u64; COUNT]);

impl Default for Metrics {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Metrics {
    /// Counts `n` events.
    pub fn add(&mut self, metric: Metric, n: u64) {
        if let Some(count) = self.0.get_mut(metric as usize) {
            *count += n;
        }
    }

    /// One counter.
    #[must_use]
    pub fn get(&self, metric: Metric) -> u64 {
        self.0.get(metric as usize).copied().unwrap_or_default()
    }

    /// Every name with its sum, in the order of [`NAMES`].
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let sum = |of: &[Metric]| of.iter().map(|&metric| self.get(metric)).sum();
        NAMES.iter().map(move |&(name, of)| (name, sum(of)))
    }
}

/// How many there are now, and were at most since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Now.
    pub count: usize,
    /// At most.
    pub max: usize,
}

impl Gauge {
    /// There are `count` now.
    pub fn set(&mut self, count: usize) {
        self.count = count;
        self.max = self.max.max(count);
    }

    /// One more.
    pub fn rise(&mut self) {
        self.set(self.count + 1);
    }

    /// One less.
    pub fn fall(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// What the broker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients that are connected.
    pub connections: Gauge,
    /// Sessions, connected or not.
    pub sessions: Gauge,
    /// Distinct filters that somebody subscribes to.
    pub routes: Gauge,
    /// Subscriptions, shared ones too.
    pub subscriptions: Gauge,
    /// Shared subscriptions.
    pub shared: Gauge,
    /// Retained messages.
    pub retained: Gauge,
    /// Messages that wait for their time.
    pub delayed: Gauge,
}

impl Stats {
    /// By EMQX's names, to which `.count` and `.max` are added.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Gauge); 11] {
        [
            ("connections", self.connections),
            ("channels", self.sessions),
            ("sessions", self.sessions),
            ("topics", self.routes),
            ("routes", self.routes),
            ("suboptions", self.subscriptions),
            ("subscribers", self.subscriptions),
            ("subscriptions", self.subscriptions),
            ("subscriptions.shared", self.shared),
            ("retained", self.retained),
            ("delayed", self.delayed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sums_and_stand_once() {
        let mut metrics = Metrics::default();
        metrics.add(Metric::Publish1Received, 2);
        metrics.add(Metric::Publish2Received, 3);
        let of = |name| metrics.named().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!(of("messages.qos1.received"), 2);
        assert_eq!(of("messages.received"), 5);
        assert_eq!(of("packets.publish.received"), 5);
        let mut names: Vec<_> = NAMES.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }
}
