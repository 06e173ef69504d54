//! An MQTT client's side of the protocol: 3.1, 3.1.1 and 5.0, without sockets or a clock.
//!
//! The driver hands over what the broker sent and the time, and writes what is left in `out`. Section
//! numbers are those of MQTT 5.0. Promises: no more than [`Options::inflight_max`] messages are held; a
//! message of QoS 2 is shown once per session however often the broker repeats it.

use std::collections::VecDeque;
use std::fmt;

use crate::mqtt::codec::property::id;
use crate::mqtt::codec::{
    Ack, AckKind, ConnAck, Connect, Framed, Malformed, Packet, Properties, PropertyWriter, Publish,
    Qos, Reason, SubAck, Subscribe, Version, Will, decode, encode, frame,
};
use crate::mqtt::{NEVER, Time, seconds};

/// Messages of QoS 2 from the broker that may be between PUBLISH and PUBREL: what a broker of MQTT 3 may
/// do as it likes. One that has more open is cut.
const RECEIVING_MAX: usize = 1024;

/// A message for the time after.
#[derive(Clone, Debug)]
pub struct LastWill {
    /// Where to.
    pub topic: Box<str>,
    /// What.
    pub payload: Box<[u8]>,
    /// How surely.
    pub qos: Qos,
    /// Whether it is kept.
    pub retain: bool,
}

/// What the client asks the broker for.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// A topic filter.
    pub filter: Box<str>,
    /// The options byte (3.8.3.1): QoS, and from 5.0 on no-local (4), retain-as-published (8) and how
    /// retained messages are sent (0x30). Before 5.0 only the QoS of it is said.
    pub options: u8,
}

/// How a client speaks.
#[derive(Clone)]
pub struct Options {
    /// Which edition.
    pub version: Version,
    /// The bit by which mosquitto knows a bridge, and does not send it its own messages.
    pub bridge: bool,
    /// Clean session, or clean start.
    pub clean: bool,
    /// Seconds the broker keeps the session of a client of 5.0 that is not clean.
    pub session_expiry: u32,
    /// Seconds between signs of life; 0: none.
    pub keep_alive: u16,
    /// May be empty.
    pub client_id: Box<str>,
    /// Who it is.
    pub username: Option<Box<str>>,
    /// And the proof.
    pub password: Option<Box<[u8]>>,
    /// What to say when it dies.
    pub will: Option<LastWill>,
    /// Asked for whenever a connection is made.
    pub subscriptions: Vec<Subscription>,
    /// Messages that may be unacknowledged, both ways; at least 1.
    pub inflight_max: u16,
    /// Bytes of a packet that may come.
    pub packet_max: usize,
    /// How long an answer may take, in milliseconds. Then the connection counts as dead.
    pub answer_time_max: Time,
}

impl Options {
    /// A plain client of 3.1.1.
    #[must_use]
    pub fn new(client_id: &str) -> Self {
        Self {
            version: Version::V4,
            bridge: false,
            clean: true,
            session_expiry: 0,
            keep_alive: 60,
            client_id: client_id.into(),
            username: None,
            password: None,
            will: None,
            subscriptions: Vec::new(),
            inflight_max: 32,
            packet_max: 1024 * 1024,
            answer_time_max: seconds(20),
        }
    }
}

/// A message to the broker.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// A topic name.
    pub topic: Box<str>,
    /// Anything.
    pub payload: Box<[u8]>,
    /// How surely.
    pub qos: Qos,
    /// Whether it is to be kept.
    pub retain: bool,
    /// Of 5.0; not said before.
    pub properties: PropertyWriter,
}

impl Outgoing {
    /// What it counts for in bounds.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.finish().bytes().len()
    }
}

/// What the broker said.
#[derive(Debug)]
pub enum Event<'a> {
    /// The client is let in.
    Connected {
        /// Whether the broker knew its session.
        session_present: bool,
    },
    /// A message came.
    Message(&'a Publish<'a>),
    /// A subscription is refused.
    NotSubscribed {
        /// The filter.
        filter: &'a str,
        /// Why; 0x80 in MQTT 3.
        reason: Reason,
    },
    /// A message is with the broker: acknowledged, or written when QoS 0.
    Sent,
    /// The broker refused a message, or cannot take one of that size or quality.
    NotSent(Reason),
    /// The connection ended, or none came about; there will be another try.
    Closed(&'a std::io::Error),
}

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The broker's bytes are no MQTT.
    Malformed(Malformed),
    /// It does not let the client in.
    Refused(Reason),
    /// It says good-bye.
    Disconnected(Reason),
    /// It does not answer.
    Silent,
    /// A packet that a broker must not send now.
    OutOfPlace,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the broker does not speak MQTT: {why}"),
            Self::Refused(Reason(1 | 0x84)) => f.write_str("the broker refuses this version"),
            Self::Refused(Reason(2 | 0x85)) => f.write_str("the broker refuses the client id"),
            Self::Refused(Reason(4 | 0x86)) => f.write_str("the broker refuses user or password"),
            Self::Refused(Reason(5 | 0x87)) => f.write_str("the broker says: not authorized"),
            Self::Refused(reason) => write!(f, "the broker refuses with {:#04x}", reason.0),
            Self::Disconnected(reason) => write!(f, "the broker disconnects: {}", reason.cause()),
            Self::Silent => f.write_str("the broker does not answer"),
            Self::OutOfPlace => f.write_str("the broker sends a packet out of place"),
        }
    }
}

impl std::error::Error for Ended {}

impl From<Malformed> for Ended {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// A message that is not acknowledged.
struct Unacknowledged {
    packet_id: u16,
    /// `None`: PUBREC came, PUBCOMP is waited for.
    message: Option<Outgoing>,
    /// Whether the broker may have seen it.
    sent: bool,
    since: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// CONNECT is said.
    Greeting,
    Open,
}

/// What the broker allows; before 5.0 everything.
#[derive(Clone, Copy)]
struct Allowed {
    inflight: u16,
    qos: Qos,
    retain: bool,
    packet: usize,
    keep_alive: u16,
}

/// A client's session.
pub struct Client {
    options: Options,
    state: State,
    allowed: Allowed,
    inflight: VecDeque<Unacknowledged>,
    /// Packet identifiers of QoS 2 messages that were shown and not released.
    receiving: Vec<u16>,
    last_id: u16,
    /// Packet identifier of the SUBSCRIBE that is not answered.
    subscribing: Option<(u16, Time)>,
    /// When the last packet went out.
    spoke: Time,
    /// When CONNECT or PINGREQ was said that is not answered.
    asked: Option<Time>,
}

impl Client {
    /// A client without a connection.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            allowed: Allowed {
                inflight: options.inflight_max.max(1),
                qos: Qos::ExactlyOnce,
                retain: true,
                packet: usize::MAX,
                keep_alive: options.keep_alive,
            },
            options,
            state: State::Closed,
            inflight: VecDeque::new(),
            receiving: Vec::new(),
            last_id: 0,
            subscribing: None,
            spoke: 0,
            asked: None,
        }
    }

    /// A connection is there: says CONNECT.
    pub fn open(&mut self, now: Time, out: &mut Vec<u8>) {
        let options = &self.options;
        let mut properties = PropertyWriter::default();
        if options.version == Version::V5 {
            if !options.clean {
                properties.u32(id::SESSION_EXPIRY, options.session_expiry);
            }
            properties.u16(id::RECEIVE_MAXIMUM, options.inflight_max.max(1));
            let most = u32::try_from(options.packet_max).unwrap_or(u32::MAX);
            properties.u32(id::MAXIMUM_PACKET, most);
        }
        let will = options.will.as_ref().map(|will| Will {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: Properties::default(),
        });
        let connect = Packet::Connect(Connect {
            version: options.version,
            bridge: options.bridge,
            clean: options.clean,
            keep_alive: options.keep_alive,
            properties: properties.finish(),
            client_id: &options.client_id,
            will,
            username: options.username.as_deref(),
            password: options.password.as_deref(),
        });
        encode(&connect, options.version, out);
        self.state = State::Greeting;
        self.subscribing = None;
        self.asked = Some(now);
        self.spoke = now;
    }

    /// The connection is gone. What was not acknowledged is kept for the next one.
    pub fn closed(&mut self) {
        self.state = State::Closed;
    }

    /// Whether a message may be handed over with [`Client::publish`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.state == State::Open && self.inflight.len() < usize::from(self.allowed.inflight)
    }

    /// Sends a message; ask [`Client::has_room`] before.
    pub fn publish(
        &mut self,
        now: Time,
        mut message: Outgoing,
        out: &mut Vec<u8>,
        show: &mut dyn FnMut(Event<'_>),
    ) {
        message.qos = message.qos.min(self.allowed.qos);
        message.retain &= self.allowed.retain;
        // A header is shorter than 16 bytes beside what the weight counts.
        if message.weight().saturating_add(16) > self.allowed.packet {
            return show(Event::NotSent(Reason::PACKET_TOO_LARGE));
        }
        if message.qos == Qos::AtMostOnce {
            say(&message, 0, false, self.options.version, out);
            self.spoke = now;
            return show(Event::Sent);
        }
        let packet_id = self.next_id();
        say(&message, packet_id, false, self.options.version, out);
        self.spoke = now;
        self.inflight.push_back(Unacknowledged {
            packet_id,
            message: Some(message),
            sent: true,
            since: now,
        });
    }

    /// Says good-bye: the will is not wanted.
    pub fn disconnect(&mut self, out: &mut Vec<u8>) {
        if self.state != State::Closed {
            let packet = Packet::Disconnect(Reason::SUCCESS, Properties::default());
            encode(&packet, self.options.version, out);
        }
    }

    /// Takes the whole packets at the beginning of `input`; how many bytes they were.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn receive(
        &mut self,
        now: Time,
        input: &[u8],
        out: &mut Vec<u8>,
        show: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, Ended> {
        let mut taken = 0;
        let before = out.len();
        while let Some(rest) = input.get(taken..)
            && let Framed::Whole(whole) = frame(rest, self.options.packet_max)?
        {
            taken += whole.length;
            let packet = decode(whole, self.options.version)?;
            match (self.state, &packet) {
                (State::Greeting, Packet::ConnAck(ack)) => self.greeted(now, ack, out, show)?,
                (State::Open, packet) => self.take(now, packet, out, show)?,
                _ => return Err(Ended::OutOfPlace),
            }
        }
        if out.len() > before {
            self.spoke = now;
        }
        Ok(taken)
    }

    fn greeted(
        &mut self,
        now: Time,
        ack: &ConnAck<'_>,
        out: &mut Vec<u8>,
        show: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Ended> {
        if ack.reason != Reason::SUCCESS {
            return Err(Ended::Refused(ack.reason));
        }
        self.asked = None;
        self.state = State::Open;
        let number = |identifier| ack.properties.number(identifier);
        let short = |identifier| number(identifier).and_then(|n| u16::try_from(n).ok());
        let own = self.options.inflight_max.max(1);
        self.allowed = Allowed {
            inflight: short(id::RECEIVE_MAXIMUM).map_or(own, |theirs| theirs.min(own)),
            qos: match number(id::MAXIMUM_QOS) {
                Some(0) => Qos::AtMostOnce,
                Some(1) => Qos::AtLeastOnce,
                _ => Qos::ExactlyOnce,
            },
            retain: number(id::RETAIN_AVAILABLE) != Some(0),
            packet: number(id::MAXIMUM_PACKET)
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(usize::MAX),
            keep_alive: short(id::SERVER_KEEP_ALIVE).unwrap_or(self.options.keep_alive),
        };
        show(Event::Connected {
            session_present: ack.session_present,
        });
        if !ack.session_present {
            self.receiving.clear();
            // The broker has these; who forgot the session cannot be asked to release them.
            self.inflight.retain(|one| one.message.is_some());
        }
        self.subscribe(now, out);
        self.repeat(now, ack.session_present, out);
        Ok(())
    }

    fn subscribe(&mut self, now: Time, out: &mut Vec<u8>) {
        if self.options.subscriptions.is_empty() {
            return;
        }
        let mut list = Vec::new();
        for subscription in &self.options.subscriptions {
            let length = u16::try_from(subscription.filter.len()).unwrap_or(u16::MAX);
            let filter = subscription.filter.as_bytes();
            list.extend(length.to_be_bytes());
            list.extend(filter.get(..length.into()).unwrap_or(filter));
            list.push(match self.options.version {
                Version::V5 => subscription.options,
                Version::V3 | Version::V4 => subscription.options & 3,
            });
        }
        let packet_id = self.next_id();
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id,
            properties: Properties::default(),
            list: &list,
        });
        encode(&subscribe, self.options.version, out);
        self.subscribing = Some((packet_id, now));
    }

    /// Sends again what the last connection left open (4.4). More than a broker of 5.0 now allows at a
    /// time cannot have been left by it, unless it was set up anew; then it says so itself.
    fn repeat(&mut self, now: Time, known: bool, out: &mut Vec<u8>) {
        for one in &mut self.inflight {
            one.since = now;
            match &one.message {
                Some(message) => {
                    let dup = known && one.sent;
                    say(message, one.packet_id, dup, self.options.version, out);
                }
                None => answer(AckKind::PubRel, one.packet_id, self.options.version, out),
            }
        }
    }

    fn take(
        &mut self,
        now: Time,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        show: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Ended> {
        match packet {
            Packet::Publish(publish) => self.published(publish, out, show),
            Packet::Ack(ack) => {
                self.acknowledged(now, ack, out, show);
                Ok(())
            }
            Packet::SubAck(ack) => {
                self.subscribed(ack, show);
                Ok(())
            }
            Packet::PingResp => {
                self.asked = None;
                Ok(())
            }
            Packet::Disconnect(reason, _) => Err(Ended::Disconnected(*reason)),
            _ => Err(Ended::OutOfPlace),
        }
    }

    fn published(
        &mut self,
        publish: &Publish<'_>,
        out: &mut Vec<u8>,
        show: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Ended> {
        // No alias was allowed, so none can stand for the topic (3.1.2.11.5).
        if publish.topic.is_empty() {
            return Err(Ended::OutOfPlace);
        }
        let version = self.options.version;
        match publish.qos {
            Qos::AtMostOnce => show(Event::Message(publish)),
            Qos::AtLeastOnce => {
                show(Event::Message(publish));
                answer(AckKind::PubAck, publish.packet_id, version, out);
            }
            Qos::ExactlyOnce => {
                if !self.receiving.contains(&publish.packet_id) {
                    if self.receiving.len() >= RECEIVING_MAX {
                        return Err(Ended::OutOfPlace);
                    }
                    self.receiving.push(publish.packet_id);
                    show(Event::Message(publish));
                }
                answer(AckKind::PubRec, publish.packet_id, version, out);
            }
        }
        Ok(())
    }

    fn acknowledged(
        &mut self,
        now: Time,
        ack: &Ack<'_>,
        out: &mut Vec<u8>,
        show: &mut dyn FnMut(Event<'_>),
    ) {
        let version = self.options.version;
        if ack.kind == AckKind::PubRel {
            self.receiving.retain(|one| *one != ack.packet_id);
            return answer(AckKind::PubComp, ack.packet_id, version, out);
        }
        let mut all = self.inflight.iter();
        let Some(place) = all.position(|one| one.packet_id == ack.packet_id) else {
            // A PUBREC of a message that we forgot: the broker is to forget it too.
            if ack.kind == AckKind::PubRec {
                answer(AckKind::PubRel, ack.packet_id, version, out);
            }
            return;
        };
        if ack.kind == AckKind::PubRec && !ack.reason.is_failure() {
            if let Some(one) = self.inflight.get_mut(place) {
                one.message = None;
                one.since = now;
            }
            return answer(AckKind::PubRel, ack.packet_id, version, out);
        }
        self.inflight.remove(place);
        show(match ack.reason.is_failure() {
            true => Event::NotSent(ack.reason),
            false => Event::Sent,
        });
    }

    fn subscribed(&mut self, ack: &SubAck<'_>, show: &mut dyn FnMut(Event<'_>)) {
        if self.subscribing.is_none_or(|(id, _)| id != ack.packet_id) {
            return;
        }
        self.subscribing = None;
        for (subscription, reason) in self.options.subscriptions.iter().zip(ack.reasons) {
            let reason = Reason(*reason);
            if reason.is_failure() {
                let filter = &subscription.filter;
                show(Event::NotSubscribed { filter, reason });
            }
        }
    }

    /// When [`Client::tick`] must run next, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Time {
        if self.state == State::Closed {
            return NEVER;
        }
        let patience = self.options.answer_time_max;
        let waiting = [
            self.asked,
            self.subscribing.map(|(_, since)| since),
            self.inflight.front().map(|one| one.since),
        ];
        let answers = waiting.into_iter().flatten().min();
        let answer = answers.map_or(NEVER, |since| since.saturating_add(patience));
        answer.min(self.next_ping())
    }

    fn next_ping(&self) -> Time {
        match (self.state, self.asked, self.allowed.keep_alive) {
            // A little before the broker expects it.
            (State::Open, None, 1..) => {
                self.spoke + seconds(self.allowed.keep_alive.into()) * 9 / 10
            }
            _ => NEVER,
        }
    }

    /// Advances time without input.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn tick(&mut self, now: Time, out: &mut Vec<u8>) -> Result<(), Ended> {
        if now >= self.next_ping() {
            encode(&Packet::PingReq, self.options.version, out);
            self.spoke = now;
            self.asked = Some(now);
        }
        match now >= self.deadline() {
            true => Err(Ended::Silent),
            false => Ok(()),
        }
    }

    /// A packet identifier that is free (2.2.1); there is one, since few are in use.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let used = self
                .inflight
                .iter()
                .any(|one| one.packet_id == self.last_id);
            if !used && self.subscribing.is_none_or(|(id, _)| id != self.last_id) {
                return self.last_id;
            }
        }
    }
}

fn say(message: &Outgoing, packet_id: u16, dup: bool, version: Version, out: &mut Vec<u8>) {
    let publish = Packet::Publish(Publish {
        dup,
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        packet_id,
        properties: match version {
            Version::V5 => message.properties.finish(),
            Version::V3 | Version::V4 => Properties::default(),
        },
        payload: &message.payload,
    });
    encode(&publish, version, out);
}

fn answer(kind: AckKind, packet_id: u16, version: Version, out: &mut Vec<u8>) {
    let ack = Packet::Ack(Ack {
        kind,
        packet_id,
        reason: Reason::SUCCESS,
        properties: Properties::default(),
    });
    encode(&ack, version, out);
}
