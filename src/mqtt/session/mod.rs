//! What the broker knows of one client: its queue, what is in flight, what it promised.
//!
//! Pure. A session outlives its connections when the client asked for that. It knows how to turn
//! its queue into bytes, but not who else there is; `broker` does.

mod delivery;
pub mod ledger;
mod transmit;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use super::acl::Cache;
use super::codec::property::id;
use super::codec::{Properties, Qos, Version};
use super::hook::Publisher;
use super::message::Message;
use super::options::Limits;
use super::topic::tree::NodeId;
use super::{NEVER, Time};
pub use delivery::{Delivery, Queued, Watch};
use ledger::Ledger;
pub use transmit::{Acknowledged, LARGE_PAYLOAD, Transmitted};
use transmit::{Inflight, Phase};

/// A connection's number, the driver's.
pub type LinkId = u32;

/// Topic aliases that a client may set, and that are set towards a client that takes them.
pub const ALIASES_MAX: u16 = 16;

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
}
