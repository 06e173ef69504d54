//! The broker as a machine: packets and time go in, effects come out.
//!
//! Pure: it owns no socket, reads no clock, logs nothing. The driver (`mqtt::driver`) calls
//! [`Broker::connect`], [`Broker::receive`] and [`Broker::lost`], does what [`Broker::effects`]
//! say, and calls [`Broker::tick`] when [`Broker::deadline`] has come. What is to be sent stays in
//! the sessions until [`Broker::transmit`] asks for it, so a slow socket holds no bytes, only
//! references to messages that others hold too.

mod access;
mod bridge;
mod connect;
mod delayed;
mod flapping;
mod journal;
mod manage;
mod publish;
mod subscribe;
mod system;
#[cfg(test)]
mod tests;
mod timers;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::RandomState;
use std::rc::Rc;

use super::acl::{Access, Acl, Cache, Client};
use super::alarms::Alarms;
use super::auth::Users;
use super::banned::Bans;
use super::codec::{AckKind, Packet, Properties, Qos, Reason, Version, encode};
use super::hook::{Event, HOPS_MAX, Hook, Interest, Publication};
use super::message::Message;
use super::metrics::{Metric, Metrics, Stats};
use super::options::{Limits, Options};
use super::retained::Retained;
use super::session::{LinkId, Session, Watch};
use super::topic::tree::{SessionId, Tree};
use super::{NEVER, Time};

pub use connect::{Admitted, refusal};
pub use journal::Extent;
pub use manage::{Listener, NotSubscribed, Subscription};
pub use system::uptime;

/// The listener of those who came by none.
pub const NO_LISTENER: u16 = u16::MAX;

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// The session has something for its connection: ask [`Broker::transmit`].
    Write(LinkId),
    /// Send these bytes if that goes at once, and close. The broker has forgotten the connection.
    Close(LinkId, Vec<u8>),
}

/// One recipient of the message that is being routed.
struct Target {
    session: SessionId,
    qos: Qos,
    retain_as_published: bool,
    shared: bool,
    id: u32,
}

/// The broker.
pub struct Broker {
    limits: Limits,
    acl: Acl,
    users: Users,
    bans: Bans,
    listeners: Vec<Listener>,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<SessionId>,
    by_client: HashMap<Rc<str>, SessionId>,
    tree: Tree,
    retained: Retained,
    delayed: delayed::Delayed,
    timers: BinaryHeap<Reverse<(Time, SessionId)>>,
    swept: Time,
    sooner: bool,
    /// Seconds that local time is ahead of UTC.
    zone: i32,
    /// What the node is called.
    node: Box<str>,
    system: system::System,
    alarms: Alarms,
    /// Ended connections of clients: since when they are counted, and how many.
    flapping: HashMap<Rc<str>, (Time, u32)>,
    effects: Vec<Effect>,
    /// The recipients of one message; kept for its room.
    targets: Vec<Target>,
    pressing: bool,
    metrics: Metrics,
    stats: Stats,
    keys: RandomState,
    named: u64,
    /// What it is called among other brokers, once somebody asked.
    own_name: Option<Box<str>>,
    /// Messages so far.
    numbered: u64,
    /// Milliseconds from 1970 to time zero.
    epoch: i64,
    response_information: Option<Box<str>>,
    hook: Option<Box<dyn Hook>>,
    interest: Interest,
    watch: Watch,
    hops: u8,
    journal: Option<Box<journal::Journal>>,
}

impl Broker {
    /// A broker without clients.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let mut broker = Self {
            limits: options.limits,
            acl: Acl::default(),
            users: Users::default(),
            bans: Bans::default(),
            listeners: Vec::new(),
            sessions: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::new(),
            tree: Tree::default(),
            retained: Retained::default(),
            delayed: delayed::Delayed::default(),
            timers: BinaryHeap::new(),
            swept: 0,
            sooner: false,
            zone: 0,
            node: options.node.clone(),
            system: system::System::default(),
            alarms: Alarms::default(),
            flapping: HashMap::new(),
            effects: Vec::new(),
            targets: Vec::new(),
            pressing: false,
            metrics: Metrics::default(),
            stats: Stats::default(),
            keys: RandomState::new(),
            named: 0,
            own_name: None,
            numbered: 0,
            epoch: 0,
            response_information: None,
            hook: None,
            interest: Interest::default(),
            watch: Watch::default(),
            hops: 0,
            journal: None,
        };
        broker.reconfigure(0, options);
        broker
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What happened so far.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts something that happened outside.
    pub fn count(&mut self, metric: Metric) {
        self.metrics.add(metric, 1);
    }

    /// Tells what time zero was, in milliseconds since 1970; again when the wall clock was set.
    pub fn set_epoch(&mut self, epoch: i64) {
        self.epoch = epoch;
    }

    /// Tells how many seconds local time is ahead of UTC.
    pub fn set_zone(&mut self, zone: i32) {
        self.zone = zone;
    }

    /// A time as milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self, time: Time) -> u64 {
        unix_ms(self.epoch, time)
    }

    /// What is to be done, in order. The driver takes all of it after each call.
    pub fn effects(&mut self) -> &mut Vec<Effect> {
        &mut self.effects
    }

    /// Whether a queue became so full that it should be written before more is received.
    pub fn take_pressing(&mut self) -> bool {
        std::mem::take(&mut self.pressing)
    }

    /// Counts bytes that came for a session, before its packets.
    pub fn heard(&mut self, id: SessionId, bytes: usize) {
        self.metrics.add(Metric::BytesReceived, bytes as u64);
        if let Some(session) = self.session(id) {
            session.received.bytes += bytes as u64;
            session.received.calls += u64::from(bytes > 0);
        }
    }

    /// Takes a packet of a session's connection.
    pub fn receive(&mut self, now: Time, id: SessionId, packet: &Packet<'_>) {
        self.metrics.add(received_metric(packet), 1);
        let Some(session) = self.session(id) else {
            return;
        };
        session.heard = now;
        session.received.packets += 1;
        match packet {
            Packet::Publish(publish) => {
                session.received.messages += 1;
                self.publish(now, id, publish);
            }
            Packet::Ack(ack) => self.acknowledged(now, id, ack),
            Packet::Subscribe(subscribe) => self.subscribe(now, id, subscribe),
            Packet::Unsubscribe(subscribe) => self.unsubscribe(now, id, subscribe),
            Packet::PingReq => self.say(id, &Packet::PingResp),
            Packet::Disconnect(reason, properties) => {
                self.disconnected(now, id, *reason, *properties);
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::PingResp
            | Packet::Auth(..) => self.close(now, id, Reason::PROTOCOL_ERROR),
        }
    }

    /// Queues a packet for a session's client, before its messages.
    fn say(&mut self, id: SessionId, packet: &Packet<'_>) {
        if let Some(metric) = sent_metric(packet) {
            self.metrics.add(metric, 1);
        }
        if let Some(session) = self.session(id) {
            session.sent.packets += 1;
            session.say(packet);
        }
        self.wake(id);
    }

    /// Writes what may be sent to a session's client, some `budget` bytes of it. A returned message's
    /// payload follows those bytes. Ask again while [`Broker::has_more`].
    pub fn transmit(
        &mut self,
        now: Time,
        id: SessionId,
        out: &mut Vec<u8>,
        budget: usize,
    ) -> Option<Rc<Message>> {
        self.refill(id);
        let session = self.sessions.get_mut(id as usize)?.as_mut()?;
        session.dirty = false;
        let before = out.len();
        let (tail, done) = session.transmit(now, out, budget, &mut self.watch);
        let payload = tail.as_ref().map_or(0, |tail| tail.payload().len());
        let bytes = (out.len() - before + payload) as u64;
        let messages = done.messages.iter().map(|&n| u64::from(n)).sum::<u64>();
        session.sent.bytes += bytes;
        session.sent.calls += u64::from(bytes > 0);
        session.sent.messages += messages;
        session.sent.packets += messages + u64::from(done.releases);
        let metrics = &mut self.metrics;
        metrics.add(Metric::BytesSent, bytes);
        let [most, least, exactly] = done.messages.map(u64::from);
        metrics.add(Metric::Publish0Sent, most);
        metrics.add(Metric::Publish1Sent, least);
        metrics.add(Metric::Publish2Sent, exactly);
        metrics.add(Metric::PubrelSent, done.releases.into());
        metrics.add(Metric::DeliveryExpired, done.expired.into());
        metrics.add(Metric::DeliveryTooLarge, done.too_large.into());
        if least + exactly > 0 || done.expired > 0 || done.too_large > 0 {
            self.note(id, false, |_| {});
        }
        self.show_watched(now, id);
        tail
    }

    /// Whether there is something to send to a session's client.
    #[must_use]
    pub fn has_more(&self, id: SessionId) -> bool {
        self.peek(id)
            .is_some_and(|session| session.has_more() || !session.replays.is_empty())
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id as usize)?.as_deref_mut()
    }

    /// Tells the driver that a session has something to write, once.
    fn wake(&mut self, id: SessionId) {
        let session = self.sessions.get_mut(id as usize);
        let Some(session) = session.and_then(Option::as_deref_mut) else {
            return;
        };
        if let Some(link) = session.link
            && !session.dirty
        {
            session.dirty = true;
            self.effects.push(Effect::Write(link));
        }
    }

    fn allows(&mut self, now: Time, id: SessionId, access: Access, topic: &str) -> bool {
        if self.acl.is_open(access, topic) {
            return true;
        }
        let session = self.sessions.get_mut(id as usize);
        let Some(session) = session.and_then(Option::as_deref_mut) else {
            return false;
        };
        if session.superuser {
            return true;
        }
        let known = session.decisions.as_ref();
        if let Some(allow) = known.and_then(|cache| cache.find(now, access, topic)) {
            self.metrics.add(Metric::AclCached, 1);
            return allow;
        }
        let allow = self.acl.allows(client(session), access, topic);
        let decided = if allow {
            Metric::AclAllowed
        } else {
            Metric::AclDenied
        };
        self.metrics.add(decided, 1);
        let cache = session.decisions.get_or_insert_default();
        Cache::put(cache, now, access, topic, allow);
        allow
    }

    /// Whether a client may do this as the rules are now, connected or not.
    #[must_use]
    pub fn permits(&self, client: Client<'_>, access: Access, topic: &str) -> bool {
        let meant = delayed::meant(topic);
        if access == Access::Publish && meant.starts_with(publish::OWN_TOPICS) {
            return false;
        }
        let session = self.by_client.get(client.client_id);
        let session = session.and_then(|&id| self.peek(id));
        let same = |one: &Session| one.username.as_deref() == client.username;
        session.is_some_and(|one| one.superuser && same(one))
            || self.acl.allows(client, access, meant)
    }

    /// What a client is told whom the rules refuse.
    fn denial(&self) -> Reason {
        if self.limits.hide_rules {
            Reason::UNSPECIFIED
        } else {
            Reason::NOT_AUTHORIZED
        }
    }

    /// Shows something to the hook, if it wants to see that, and publishes what it answers.
    fn notify(
        &mut self,
        now: Time,
        kind: Interest,
        show: impl FnOnce(&Self, &mut dyn FnMut(&Event<'_>)),
    ) {
        if !self.interest.meets(kind) {
            return;
        }
        // It is out of its place meanwhile, so that the event can borrow the broker.
        let Some(mut hook) = self.hook.take() else {
            return;
        };
        let mut answers: Vec<Publication> = Vec::new();
        show(self, &mut |event| hook.event(now, event, &mut answers));
        self.put_hook(hook);
        self.hops += 1;
        for answer in answers {
            if self.hops > HOPS_MAX {
                self.metrics.add(Metric::MessagesForbidden, 1);
                if let Some(hook) = &mut self.hook {
                    hook.cut(now, &answer);
                }
            } else {
                self.publish_for(now, &answer);
            }
        }
        self.hops -= 1;
    }

    fn put_hook(&mut self, hook: Box<dyn Hook>) {
        self.interest = hook.interest();
        self.watch.wants_sent = self.interest.meets(Interest::DELIVERED);
        self.watch.wants_dropped = self.interest.meets(Interest::DELIVERY_DROPPED);
        self.hook = Some(hook);
    }

    /// Shows what the last call left in `watch` for a session.
    fn show_watched(&mut self, now: Time, id: SessionId) {
        for delivery in std::mem::take(&mut self.watch.sent) {
            self.notify(now, Interest::DELIVERED, |broker, show| {
                if let Some(receiver) = broker.peek(id) {
                    show(&Event::Delivered {
                        message: &delivery.message,
                        qos: delivery.qos,
                        receiver,
                    });
                }
            });
        }
        for (delivery, reason) in std::mem::take(&mut self.watch.lost) {
            self.notify(now, Interest::DELIVERY_DROPPED, |broker, show| {
                if let Some(receiver) = broker.peek(id) {
                    show(&Event::DeliveryDropped {
                        message: &delivery.message,
                        qos: delivery.qos,
                        receiver,
                        reason,
                    });
                }
            });
        }
    }

    fn peek(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id as usize)?.as_deref()
    }

    /// Closes a session's connection for a reason; its will is said.
    pub fn close(&mut self, now: Time, id: SessionId, reason: Reason) {
        self.cut(id, reason);
        self.lost(now, id, reason.cause());
    }

    /// Closes every connection, because the broker stops.
    pub fn shut_down(&mut self) {
        for id in 0..self.sessions.len() {
            if let Ok(id) = SessionId::try_from(id) {
                self.cut(id, Reason::SHUTTING_DOWN);
            }
        }
    }

    /// Parts a session from its connection, telling a client of 5.0 why.
    fn cut(&mut self, id: SessionId, reason: Reason) {
        let Some(session) = self.session(id) else {
            return;
        };
        let Some(link) = session.link.take() else {
            return;
        };
        let mut last = std::mem::take(&mut session.control);
        if session.version == Version::V5 {
            let disconnect = Packet::Disconnect(reason, Properties::default());
            encode(&disconnect, session.version, &mut last);
            self.metrics.add(Metric::DisconnectSent, 1);
        }
        self.effects.push(Effect::Close(link, last));
    }
}

/// A time as milliseconds since 1970.
fn unix_ms(epoch: i64, time: Time) -> u64 {
    let time = i64::try_from(time).unwrap_or(i64::MAX);
    u64::try_from(time.saturating_add(epoch)).unwrap_or(0)
}

/// The other way round.
fn time_of(epoch: i64, unix: u64) -> Time {
    let unix = i64::try_from(unix).unwrap_or(i64::MAX);
    Time::try_from(unix.saturating_sub(epoch)).unwrap_or(0)
}

/// A session as the rules see it.
fn client(session: &Session) -> Client<'_> {
    Client {
        client_id: &session.client_id,
        username: session.username.as_deref(),
        address: session.address.ip(),
    }
}

fn received_metric(packet: &Packet<'_>) -> Metric {
    match packet {
        Packet::Connect(_) => Metric::ConnectReceived,
        Packet::Publish(publish) => match publish.qos {
            Qos::AtMostOnce => Metric::Publish0Received,
            Qos::AtLeastOnce => Metric::Publish1Received,
            Qos::ExactlyOnce => Metric::Publish2Received,
        },
        Packet::Ack(ack) => match ack.kind {
            AckKind::PubAck => Metric::PubackReceived,
            AckKind::PubRec => Metric::PubrecReceived,
            AckKind::PubRel => Metric::PubrelReceived,
            AckKind::PubComp => Metric::PubcompReceived,
        },
        Packet::Subscribe(_) => Metric::SubscribeReceived,
        Packet::Unsubscribe(_) => Metric::UnsubscribeReceived,
        Packet::PingReq => Metric::PingReceived,
        Packet::Disconnect(..) => Metric::DisconnectReceived,
        Packet::Auth(..) => Metric::AuthReceived,
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::PingResp => Metric::OtherReceived,
    }
}

/// `None`: counted elsewhere.
fn sent_metric(packet: &Packet<'_>) -> Option<Metric> {
    Some(match packet {
        Packet::ConnAck(_) => Metric::ConnackSent,
        Packet::Ack(ack) => match ack.kind {
            AckKind::PubAck => Metric::PubackSent,
            AckKind::PubRec => Metric::PubrecSent,
            AckKind::PubRel => Metric::PubrelSent,
            AckKind::PubComp => Metric::PubcompSent,
        },
        Packet::SubAck(ack) if ack.unsubscribe => Metric::UnsubackSent,
        Packet::SubAck(_) => Metric::SubackSent,
        Packet::PingResp => Metric::PingSent,
        _ => return None,
    })
}

/// No deadline is nearer than this; a keep-alive may be late by as much.
const RESOLUTION: Time = 500;

/// How often expired retained messages are looked for.
const SWEEP_EVERY: Time = 60_000;

/// Sessions without a timer.
const NO_TIMER: Time = NEVER;
