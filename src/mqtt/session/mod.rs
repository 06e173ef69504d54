//! What the broker knows of one client: its queue, what is in flight, what it promised.
//!
//! Pure. A session outlives its connections when the client asked for that. It knows how to turn
//! its queue into bytes, but not who else there is; `broker` does.

pub mod ledger;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use super::acl::Cache;
use super::codec::property::id;
use super::codec::{
    Ack, AckKind, Packet, Properties, PropertyWriter, Publish, Qos, Reason, Version, encode,
    publish_header,
};
use super::hook::Publisher;
use super::message::Message;
use super::options::Limits;
use super::topic::tree::NodeId;
use super::{NEVER, Time};
use ledger::Ledger;

/// A connection's number, the driver's.
pub type LinkId = u32;

/// Payloads from this size on are not copied into the write buffer but written from where they are.
pub const LARGE_PAYLOAD: usize = 8 * 1024;

/// Topic aliases that a client may set, and that are set towards a client that takes them.
pub const ALIASES_MAX: u16 = 16;

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What.
    pub message: Rc<Message>,
    /// The subscription identifiers that it matched; absent mostly.
    pub ids: Option<Box<Vec<u32>>>,
    /// The lesser of the message's and the subscription's.
    pub qos: Qos,
    /// The flag as this client is to see it.
    pub retain: bool,
    /// The log has it.
    stored: bool,
    /// Its place among the session's deliveries.
    place: u32,
}

impl Delivery {
    /// One that is new.
    #[must_use]
    pub fn new(message: Rc<Message>, ids: Option<Box<Vec<u32>>>, qos: Qos, retain: bool) -> Self {
        Self {
            message,
            ids,
            qos,
            retain,
            stored: false,
            place: 0,
        }
    }

    /// One that the log has, at its place there.
    #[must_use]
    pub fn restored(self, place: u32) -> Self {
        Self {
            stored: true,
            place,
            ..self
        }
    }
}

/// Where a message of QoS 1 or 2 stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Sent; PUBACK or PUBREC is to come.
    Sent,
    /// PUBREC came, PUBREL was sent; PUBCOMP is to come.
    Released,
}

#[derive(Debug)]
struct Inflight {
    delivery: Delivery,
    packet_id: u16,
    phase: Phase,
    /// What the log says of it.
    noted: Option<Phase>,
}

/// What is said when the client is gone.
#[derive(Debug)]
pub struct LastWill {
    /// The message.
    pub message: Message,
    /// Seconds to wait.
    pub delay: u32,
}

/// Retained messages that are still to be sent for a new subscription.
#[derive(Debug)]
pub struct Replay {
    /// What was subscribed.
    pub filter: Box<str>,
    /// The last topic sent.
    pub after: Option<Box<str>>,
    /// At most this.
    pub qos: Qos,
    /// The subscription identifier; 0: none.
    pub id: u32,
}

/// What an acknowledgement was of. The delivery is the one that it confirms.
#[derive(Debug)]
pub enum Acknowledged {
    /// Nothing with this packet identifier is in flight.
    Unknown,
    /// What is in flight there does not wait for this.
    OutOfPlace,
    /// PUBREL was queued.
    Released(Option<Delivery>),
    /// It is over, and there is room for another.
    Done(Option<Delivery>),
}

/// What became of a message that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits.
    Waiting,
    /// It waits, and so many of the oldest were dropped for it.
    OldestDropped(u32),
    /// The client is away, and messages of QoS 0 do not wait for it.
    NotKept,
}

/// Counts of a call of [`Session::transmit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmitted {
    /// Messages written, by quality.
    pub messages: [u32; 3],
    /// PUBREL written again.
    pub releases: u32,
    /// Messages dropped because they were no longer worth sending.
    pub expired: u32,
    /// Messages dropped because the client does not take so large ones.
    pub too_large: u32,
}

impl Transmitted {
    fn sent(&mut self, qos: Qos) {
        if let Some(count) = self.messages.get_mut(usize::from(qos.bits())) {
            *count += 1;
        }
    }
}

/// What became of deliveries, for a hook that wants to know; otherwise it holds nothing.
#[derive(Debug, Default)]
pub struct Watch {
    /// Whether deliveries are wanted.
    pub wants_sent: bool,
    /// Whether those that are dropped are wanted.
    pub wants_dropped: bool,
    /// What was written.
    pub sent: Vec<Delivery>,
    /// What was dropped and why.
    pub lost: Vec<(Delivery, &'static str)>,
}

impl Watch {
    fn sent(&mut self, delivery: &Delivery) {
        if self.wants_sent {
            self.sent.push(delivery.clone());
        }
    }

    fn dropped(&mut self, delivery: &Delivery, why: &'static str) {
        if self.wants_dropped {
            self.lost.push((delivery.clone(), why));
        }
    }
}

/// Why a message cannot be sent.
enum Unsendable {
    Expired,
    TooLarge,
}

/// What went over a session's connections, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Calls of the socket that had something.
    pub calls: u64,
    /// Packets of any type.
    pub packets: u64,
    /// PUBLISH packets.
    pub messages: u64,
}

/// A client's state.
#[derive(Debug)]
pub struct Session {
    /// Unique among sessions.
    pub client_id: Rc<str>,
    /// As who it logged in.
    pub username: Option<Box<str>>,
    /// No rule binds it.
    pub superuser: bool,
    /// It calls itself a bridge.
    pub bridge: bool,
    /// Whether the last CONNECT asked for a clean start.
    pub clean: bool,
    /// From where it last connected.
    pub address: SocketAddr,
    /// By which of the broker's listeners.
    pub listener: u16,
    /// When it began.
    pub created: Time,
    /// When it last connected.
    pub connected: Time,
    /// From the client.
    pub received: Traffic,
    /// To the client.
    pub sent: Traffic,
    /// Messages dropped from a full queue.
    pub queue_dropped: u64,
    /// What the rules said lately.
    pub decisions: Option<Box<Cache>>,
    /// What the log lacks of it, when it is kept there.
    pub ledger: Option<Box<Ledger>>,
    next_place: u32,
    /// Who it is as a publisher, once somebody asked.
    publisher: Option<Rc<Publisher>>,
    /// What it speaks.
    pub version: Version,
    /// Its connection, while there is one.
    pub link: Option<LinkId>,
    /// Seconds; 0: never.
    pub keep_alive: u16,
    /// Seconds that the session lives without a connection; `u32::MAX`: for ever.
    pub expiry: u32,
    /// When something last came.
    pub heard: Time,
    /// When it was lost; [`NEVER`] while connected.
    pub lost: Time,
    /// When the will is said; [`NEVER`]: not pending.
    pub will_due: Time,
    /// The due time of its entry among the timers; [`NEVER`]: none.
    pub timer: Time,
    /// Set by CONNECT, taken by DISCONNECT.
    pub will: Option<Box<LastWill>>,
    /// Where it is subscribed.
    pub nodes: Vec<NodeId>,
    /// Where it is subscribed as a member of a group.
    pub shares: Vec<(NodeId, Box<str>)>,
    /// Retained messages still to be sent.
    pub replays: VecDeque<Replay>,
    /// Answers, encoded, to be sent before anything of the queue.
    pub control: Vec<u8>,
    /// Whether the driver was told that there is something to write.
    pub dirty: bool,
    /// Messages of QoS 2 that came and were not released.
    pub awaiting_rel: Vec<u16>,
    /// Topics that the client gave numbers to.
    pub aliases: Vec<(u16, Rc<str>)>,
    aliases_out: Vec<Box<str>>,
    aliases_out_max: u16,
    queue: VecDeque<Delivery>,
    /// The sizes of its messages together.
    queued_bytes: usize,
    inflight: VecDeque<Inflight>,
    /// Those of `inflight`, by place, that are still to be sent again.
    again: std::ops::Range<usize>,
    window: u16,
    packet_bytes_max: u32,
    next_id: u16,
}

impl Session {
    /// A session that begins.
    #[must_use]
    pub fn new(client_id: Rc<str>, address: SocketAddr, now: Time) -> Self {
        Self {
            client_id,
            username: None,
            superuser: false,
            bridge: false,
            clean: true,
            address,
            listener: 0,
            created: now,
            connected: now,
            received: Traffic::default(),
            sent: Traffic::default(),
            queue_dropped: 0,
            decisions: None,
            ledger: None,
            next_place: 0,
            publisher: None,
            version: Version::V4,
            link: None,
            keep_alive: 0,
            expiry: 0,
            heard: 0,
            lost: NEVER,
            will_due: NEVER,
            timer: NEVER,
            will: None,
            nodes: Vec::new(),
            shares: Vec::new(),
            replays: VecDeque::new(),
            control: Vec::new(),
            dirty: false,
            awaiting_rel: Vec::new(),
            aliases: Vec::new(),
            aliases_out: Vec::new(),
            aliases_out_max: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            inflight: VecDeque::new(),
            again: 0..0,
            window: 1,
            packet_bytes_max: u32::MAX,
            next_id: 0,
        }
    }

    /// Begins a connection: what was in flight is sent again (4.4).
    pub fn attach(&mut self, link: LinkId, properties: Properties<'_>, limits: &Limits) {
        self.link = Some(link);
        self.decisions = None;
        self.publisher = None;
        self.lost = NEVER;
        self.will_due = NEVER;
        self.dirty = false;
        self.control.clear();
        self.aliases.clear();
        self.aliases_out.clear();
        let alias_max = properties.number(id::ALIAS_MAXIMUM).unwrap_or(0);
        self.aliases_out_max = u16::try_from(alias_max).unwrap_or(0).min(ALIASES_MAX);
        let window = properties.number(id::RECEIVE_MAXIMUM);
        self.window = window
            .and_then(|window| u16::try_from(window).ok())
            .map_or(limits.inflight_max, |window| {
                window.min(limits.inflight_max)
            });
        self.packet_bytes_max = properties.number(id::MAXIMUM_PACKET).unwrap_or(u32::MAX);
        self.again = 0..self.inflight.len();
    }

    /// Ends a connection: what only it needed is given back.
    pub fn detach(&mut self, now: Time) {
        self.link = None;
        self.lost = now;
        self.dirty = false;
        self.control = Vec::new();
        self.aliases = Vec::new();
        self.aliases_out = Vec::new();
        self.decisions = None;
        self.queue.retain(|delivery| delivery.qos > Qos::AtMostOnce);
        let sizes = self.queue.iter().map(|delivery| delivery.message.size());
        self.queued_bytes = sizes.sum();
        self.shrink();
    }

    /// Gives back room that a burst took.
    pub fn shrink(&mut self) {
        self.queue.shrink_to_fit();
        self.inflight.shrink_to_fit();
    }

    /// How many messages wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many messages are sent and not confirmed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// How many may be.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.window
    }

    /// How many subscriptions it has.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.nodes.len() + self.shares.len()
    }

    /// Bytes of memory that it holds, more or less; messages count for each of their receivers.
    #[must_use]
    pub fn size(&self) -> usize {
        let inflight = self.inflight.iter().map(|one| one.delivery.message.size());
        size_of::<Self>()
            + self.queued_bytes
            + inflight.sum::<usize>()
            + self.control.capacity()
            + self.subscription_count() * size_of::<NodeId>()
    }

    /// Who it is to those who get its messages.
    pub fn publisher(&mut self) -> Rc<Publisher> {
        let made = || {
            Rc::new(Publisher {
                client_id: Rc::clone(&self.client_id),
                username: self.username.as_deref().map(Rc::from),
                address: Some(self.address.ip()),
            })
        };
        Rc::clone(self.publisher.get_or_insert_with(made))
    }

    /// Whether the queue should be written before more comes.
    #[must_use]
    pub fn is_half_full(&self, limits: &Limits) -> bool {
        self.queue.len() * 2 >= limits.queue_max || self.queued_bytes * 2 >= limits.queue_bytes_max
    }

    /// Puts a message in the queue; when it is full, the oldest is dropped: it is the least news.
    /// They are shown to `watch`.
    pub fn push(&mut self, mut delivery: Delivery, limits: &Limits, watch: &mut Watch) -> Queued {
        if self.link.is_none() && delivery.qos == Qos::AtMostOnce {
            watch.dropped(&delivery, "qos0_msg");
            return Queued::NotKept;
        }
        let mut dropped = 0;
        let size = delivery.message.size();
        while self.queue.len() >= limits.queue_max
            || self.queued_bytes + size > limits.queue_bytes_max
        {
            let Some(oldest) = self.pop() else {
                break;
            };
            self.done_with(&oldest);
            watch.dropped(&oldest, "queue_full");
            dropped += 1;
        }
        self.queue_dropped += u64::from(dropped);
        self.queued_bytes += size;
        delivery.place = self.next_place;
        self.next_place = self.next_place.wrapping_add(1);
        self.queue.push_back(delivery);
        match dropped {
            0 => Queued::Waiting,
            dropped => Queued::OldestDropped(dropped),
        }
    }

    fn done_with(&mut self, delivery: &Delivery) {
        if let Some(ledger) = &mut self.ledger {
            ledger.done(delivery);
        }
    }

    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queued_bytes -= delivery.message.size();
        Some(delivery)
    }

    /// Takes an acknowledgement of something that was sent.
    pub fn acknowledged(&mut self, ack: &Ack<'_>) -> Acknowledged {
        let index = self
            .inflight
            .iter()
            .position(|one| one.packet_id == ack.packet_id);
        let Some((index, one)) = index.and_then(|i| Some((i, self.inflight.get_mut(i)?))) else {
            return Acknowledged::Unknown;
        };
        match (ack.kind, one.delivery.qos, one.phase) {
            // A failure ends it whatever it is (4.3.3).
            (AckKind::PubRec, Qos::ExactlyOnce, Phase::Sent) if ack.reason.is_failure() => {}
            (AckKind::PubRec, Qos::ExactlyOnce, phase) => {
                one.phase = Phase::Released;
                let first = phase == Phase::Sent;
                let delivery = first.then(|| one.delivery.clone());
                self.answer(AckKind::PubRel, ack.packet_id, Reason::SUCCESS);
                return Acknowledged::Released(delivery);
            }
            (AckKind::PubAck, Qos::AtLeastOnce, _)
            | (AckKind::PubComp, Qos::ExactlyOnce, Phase::Released) => {}
            _ => return Acknowledged::OutOfPlace,
        }
        let done = self.inflight.remove(index);
        self.again.start -= usize::from(index < self.again.start);
        self.again.end -= usize::from(index < self.again.end);
        // PUBCOMP ends what PUBREC confirmed.
        let confirms = ack.kind != AckKind::PubComp;
        if let Some(one) = &done {
            self.done_with(&one.delivery);
        }
        Acknowledged::Done(done.filter(|_| confirms).map(|one| one.delivery))
    }

    /// Queues an acknowledgement.
    pub fn answer(&mut self, kind: AckKind, packet_id: u16, reason: Reason) {
        let properties = Properties::default();
        let ack = Ack {
            kind,
            packet_id,
            reason,
            properties,
        };
        encode(&Packet::Ack(ack), self.version, &mut self.control);
    }

    /// Writes what may be sent, until `out` has `budget` bytes or a large payload is to follow, which
    /// is returned: its bytes come directly behind those in `out`.
    pub fn transmit(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        budget: usize,
        watch: &mut Watch,
    ) -> (Option<Rc<Message>>, Transmitted) {
        let mut done = Transmitted::default();
        if !self.control.is_empty() {
            out.append(&mut self.control);
            if self.control.capacity() > 256 {
                self.control = Vec::new();
            }
        }
        while out.len() < budget {
            if let Some(tail) = self.send_again(now, out, &mut done) {
                if tail.is_some() {
                    return (tail, done);
                }
                continue;
            }
            let Some(next) = self.queue.front() else {
                break;
            };
            let confirmed = next.qos > Qos::AtMostOnce;
            if confirmed && self.inflight.len() >= self.window.into() {
                break;
            }
            let Some(delivery) = self.pop() else {
                break;
            };
            let packet_id = if confirmed { self.new_id() } else { 0 };
            let tail = match self.write(now, &delivery, packet_id, false, out) {
                Ok(tail) => tail,
                Err(Unsendable::Expired) => {
                    self.done_with(&delivery);
                    watch.dropped(&delivery, "expired");
                    done.expired += 1;
                    continue;
                }
                Err(Unsendable::TooLarge) => {
                    self.done_with(&delivery);
                    watch.dropped(&delivery, "too_large");
                    done.too_large += 1;
                    continue;
                }
            };
            done.sent(delivery.qos);
            watch.sent(&delivery);
            if confirmed {
                self.inflight.push_back(Inflight {
                    delivery,
                    packet_id,
                    phase: Phase::Sent,
                    noted: None,
                });
            }
            if tail.is_some() {
                return (tail, done);
            }
        }
        (None, done)
    }

    /// Whether [`Session::transmit`] would write something.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.control.is_empty()
            || !self.again.is_empty()
            || self.queue.front().is_some_and(|next| {
                next.qos == Qos::AtMostOnce || self.inflight.len() < self.window.into()
            })
    }

    /// Sends the next of those in flight again, in their order. `None`: all were.
    fn send_again(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        done: &mut Transmitted,
    ) -> Option<Option<Rc<Message>>> {
        let index = self.again.next()?;
        let one = self.inflight.get(index)?;
        let (packet_id, phase, delivery) = (one.packet_id, one.phase, one.delivery.clone());
        if phase == Phase::Released {
            self.answer(AckKind::PubRel, packet_id, Reason::SUCCESS);
            out.append(&mut self.control);
            done.releases += 1;
            return Some(None);
        }
        done.sent(delivery.qos);
        // One that expired meanwhile is sent all the same: the client may have it already.
        let in_time = now.min(delivery.message.expires.saturating_sub(1));
        let written = self.write(in_time, &delivery, packet_id, true, out);
        Some(written.ok().flatten())
    }

    fn new_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let taken = |one: &Inflight| one.packet_id == self.next_id;
            if !self.inflight.iter().any(taken) {
                return self.next_id;
            }
        }
    }

    fn write(
        &mut self,
        now: Time,
        delivery: &Delivery,
        packet_id: u16,
        dup: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Rc<Message>>, Unsendable> {
        let message = &delivery.message;
        let left = message.left(now).ok_or(Unsendable::Expired)?;
        let payload = message.payload();
        let mut own = PropertyWriter::default();
        let mut topic = message.topic();
        let mut properties: &[u8] = &[];
        // Whether this packet gives the client a new alias.
        let mut named = false;
        if self.version == Version::V5 {
            properties = message.properties();
            if let Some(left) = left {
                own.u32(id::MESSAGE_EXPIRY, left);
            }
            for &identifier in delivery.ids.iter().flat_map(|ids| ids.iter()) {
                own.varint(id::SUBSCRIPTION_ID, identifier);
            }
            if self.aliases_out_max > 0
                && let Some((alias, known)) = self.alias_of(topic)
            {
                own.u16(id::TOPIC_ALIAS, alias);
                if known {
                    topic = "";
                }
                named = !known;
            }
        }
        let start = out.len();
        let own = own.finish();
        let own = own.bytes();
        let head = Publish {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic,
            packet_id,
            properties: Properties::default(),
            payload,
        };
        publish_header(
            &head,
            own.len() + properties.len(),
            payload.len(),
            self.version,
            out,
        );
        out.extend_from_slice(own);
        out.extend_from_slice(properties);
        if out.len() - start + payload.len() > self.packet_bytes_max as usize {
            out.truncate(start);
            if named {
                self.aliases_out.pop();
            }
            return Err(Unsendable::TooLarge);
        }
        if payload.len() >= LARGE_PAYLOAD {
            return Ok(Some(Rc::clone(message)));
        }
        out.extend_from_slice(payload);
        Ok(None)
    }

    /// The number of a topic towards the client and whether the client knows it; the first topics
    /// get one, as long as there are.
    fn alias_of(&mut self, topic: &str) -> Option<(u16, bool)> {
        let known = self.aliases_out.iter().position(|known| **known == *topic);
        let (index, known) = match known {
            Some(index) => (index, true),
            None if self.aliases_out.len() < self.aliases_out_max.into() => {
                self.aliases_out.push(topic.into());
                (self.aliases_out.len() - 1, false)
            }
            None => return None,
        };
        Some((u16::try_from(index + 1).ok()?, known))
    }
}
