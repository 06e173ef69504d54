//! The broker as a machine: packets and time go in, effects come out.
//!
//! Pure: it owns no socket, reads no clock, logs nothing. The driver (`mqtt::listener`) calls
//! [`Broker::connect`], [`Broker::receive`] and [`Broker::lost`], does what [`Broker::effects`]
//! say, and calls [`Broker::tick`] when [`Broker::deadline`] has come. What is to be sent stays in
//! the sessions until [`Broker::transmit`] asks for it, so a slow socket holds no bytes, only
//! references to messages that others hold too.

mod connect;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::RandomState;
use std::rc::Rc;

use super::acl::{Access, Acl, Client};
use super::codec::{Packet, Properties, Reason, Version, encode};
use super::message::Message;
use super::options::Limits;
use super::retained::Retained;
use super::session::{LinkId, Session};
use super::topic::tree::{SessionId, Tree};
use super::{NEVER, Time};

pub use connect::{Admitted, refusal};

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// The session has something for its connection: ask [`Broker::transmit`].
    Write(LinkId),
    /// Send these bytes if that goes at once, and close. The broker has forgotten the connection.
    Close(LinkId, Vec<u8>),
}

/// Events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages from clients.
    pub received: u64,
    /// Messages to clients.
    pub sent: u64,
    /// Dropped because a queue was full.
    pub dropped_queue_full: u64,
    /// Dropped when it came to sending: expired, or too large for the client.
    pub dropped_unsendable: u64,
    /// Not kept, because there were enough.
    pub dropped_retained: u64,
    /// Refused by the rules.
    pub denied: u64,
}

/// One recipient of the message that is being routed.
struct Target {
    session: SessionId,
    qos: super::codec::Qos,
    retain_as_published: bool,
    shared: bool,
    id: u32,
}

/// The broker.
pub struct Broker {
    limits: Limits,
    acl: Acl,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<SessionId>,
    by_client: HashMap<Rc<str>, SessionId>,
    tree: Tree,
    retained: Retained,
    timers: BinaryHeap<Reverse<(Time, SessionId)>>,
    swept: Time,
    effects: Vec<Effect>,
    /// The recipients of one message; kept for its room.
    targets: Vec<Target>,
    pressing: bool,
    counts: Counts,
    keys: RandomState,
    named: u64,
}

impl Broker {
    /// A broker without clients.
    #[must_use]
    pub fn new(limits: Limits, acl: Acl) -> Self {
        Self {
            limits,
            acl,
            sessions: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::new(),
            tree: Tree::default(),
            retained: Retained::default(),
            timers: BinaryHeap::new(),
            swept: 0,
            effects: Vec::new(),
            targets: Vec::new(),
            pressing: false,
            counts: Counts::default(),
            keys: RandomState::new(),
            named: 0,
        }
    }

    /// Other bounds and rules from here on; sessions stay.
    pub fn reconfigure(&mut self, limits: Limits, acl: Acl) {
        self.limits = limits;
        self.acl = acl;
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is to be done, in order. The driver takes all of it after each call.
    pub fn effects(&mut self) -> &mut Vec<Effect> {
        &mut self.effects
    }

    /// Whether a queue became so full that it should be written before more is received.
    pub fn take_pressing(&mut self) -> bool {
        std::mem::take(&mut self.pressing)
    }

    /// Takes a packet of a session's connection.
    pub fn receive(&mut self, now: Time, id: SessionId, packet: &Packet<'_>) {
        let Some(session) = self.session(id) else {
            return;
        };
        session.heard = now;
        match packet {
            Packet::Publish(publish) => self.publish(now, id, publish),
            Packet::Ack(ack) => self.acknowledged(id, ack),
            Packet::Subscribe(subscribe) => self.subscribe(id, subscribe),
            Packet::Unsubscribe(subscribe) => self.unsubscribe(id, subscribe),
            Packet::PingReq => {
                let version = session.version;
                encode(&Packet::PingResp, version, &mut session.control);
                self.wake(id);
            }
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
        let (tail, done) = session.transmit(now, out, budget);
        self.counts.sent += u64::from(done.messages);
        self.counts.dropped_unsendable += u64::from(done.dropped);
        tail
    }

    /// Whether there is something to send to a session's client.
    #[must_use]
    pub fn has_more(&self, id: SessionId) -> bool {
        let session = self.sessions.get(id as usize).and_then(Option::as_ref);
        session.is_some_and(|session| session.has_more() || !session.replays.is_empty())
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

    fn allows(&self, id: SessionId, access: Access, topic: &str) -> bool {
        let session = self.sessions.get(id as usize).and_then(Option::as_ref);
        session.is_some_and(|session| {
            let client = Client {
                client_id: &session.client_id,
                username: session.username.as_deref(),
                address: session.address,
            };
            self.acl.allows(client, access, topic)
        })
    }

    /// Closes a session's connection for a reason; its will is said.
    pub fn close(&mut self, now: Time, id: SessionId, reason: Reason) {
        self.cut(id, reason);
        self.lost(now, id);
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
        }
        self.effects.push(Effect::Close(link, last));
    }
}

/// No deadline is nearer than this; a keep-alive may be late by as much.
const RESOLUTION: Time = 500;

/// How often expired retained messages are looked for.
const SWEEP_EVERY: Time = 60_000;

/// Sessions without a timer.
const NO_TIMER: Time = NEVER;
