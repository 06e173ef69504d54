//! What the broker lets others see while it works: messages, and the comings and goings of clients.
//!
//! There is at most one [`Hook`], on the broker's own thread; it sees events as they happen and may
//! answer with messages of its own. An event that it is not interested in costs one test of a bit.

use std::any::Any;
use std::net::IpAddr;
use std::rc::Rc;

use super::Time;
use super::codec::{PropertyWriter, Qos};
use super::message::Message;
use super::session::Session;

/// How often a message may lead to another through the hook; what goes round longer is dropped.
pub const HOPS_MAX: u8 = 8;

/// What a topic begins with that asks the router something; what follows is the asker's choice.
pub const QUERIES: &str = "$query/";

/// A set of kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest(u16);

impl Interest {
    /// The empty set.
    pub const NOTHING: Self = Self(0);
    /// [`Event::Published`].
    pub const PUBLISHED: Self = Self(1);
    /// [`Event::Delivered`].
    pub const DELIVERED: Self = Self(1 << 1);
    /// [`Event::Acked`].
    pub const ACKED: Self = Self(1 << 2);
    /// [`Event::Dropped`].
    pub const DROPPED: Self = Self(1 << 3);
    /// [`Event::DeliveryDropped`].
    pub const DELIVERY_DROPPED: Self = Self(1 << 4);
    /// [`Event::Connected`].
    pub const CONNECTED: Self = Self(1 << 5);
    /// [`Event::Disconnected`].
    pub const DISCONNECTED: Self = Self(1 << 6);
    /// [`Event::Subscribed`].
    pub const SUBSCRIBED: Self = Self(1 << 7);
    /// [`Event::Unsubscribed`].
    pub const UNSUBSCRIBED: Self = Self(1 << 8);
    /// [`Event::Published`] of a topic of [`QUERIES`] alone.
    pub const QUERIED: Self = Self(1 << 9);

    /// Every kind that has to do with any message.
    pub const MESSAGES: Self = Self(0b1_1111);

    /// Both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have something in common.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Who published a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The client identifier, or what the API or the hook named itself.
    pub client_id: Rc<str>,
    /// As who the client logged in.
    pub username: Option<Rc<str>>,
    /// From where.
    pub address: Option<IpAddr>,
}

/// Where a message came from; only kept while the hook looks at deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who published it.
    pub publisher: Rc<Publisher>,
    /// Unique since the start.
    pub id: u64,
    /// When it came in.
    pub received: Time,
}

/// What happened.
pub enum Event<'a> {
    /// A message is about to be routed.
    Published {
        /// The message.
        message: &'a Message,
        /// Its number, unique since the start.
        id: u64,
        /// Who published it.
        publisher: &'a Publisher,
    },
    /// A message was written for a client.
    Delivered {
        /// The message; it has an origin if it came since the hook looks at deliveries.
        message: &'a Message,
        /// With which quality.
        qos: Qos,
        /// To whom.
        receiver: &'a Session,
    },
    /// A client confirmed a message.
    Acked {
        /// As in `Delivered`.
        message: &'a Message,
        /// With which quality.
        qos: Qos,
        /// Who.
        receiver: &'a Session,
    },
    /// A message went to nobody.
    Dropped {
        /// The message.
        message: &'a Message,
        /// Its number.
        id: u64,
        /// Who published it.
        publisher: &'a Publisher,
        /// Why, in EMQX's words.
        reason: &'static str,
    },
    /// A message was not sent to one of its receivers.
    DeliveryDropped {
        /// As in `Delivered`.
        message: &'a Message,
        /// With which quality.
        qos: Qos,
        /// To whom it should have gone.
        receiver: &'a Session,
        /// Why, in EMQX's words.
        reason: &'static str,
    },
    /// A client was let in.
    Connected {
        /// Its session.
        session: &'a Session,
    },
    /// A connection ended.
    Disconnected {
        /// Its session.
        session: &'a Session,
        /// Why, in EMQX's words.
        reason: &'static str,
    },
    /// A subscription was made or changed.
    Subscribed {
        /// Whose.
        session: &'a Session,
        /// The filter without `$share/`.
        filter: &'a str,
        /// As granted.
        qos: Qos,
    },
    /// A subscription ended by request.
    Unsubscribed {
        /// Whose.
        session: &'a Session,
        /// The filter without `$share/`.
        filter: &'a str,
    },
}

/// A message that somebody other than a client publishes.
#[derive(Debug)]
pub struct Publication {
    /// A topic name.
    pub topic: Box<str>,
    /// Anything.
    pub payload: Box<[u8]>,
    /// Of MQTT 5.
    pub properties: PropertyWriter,
    /// How surely.
    pub qos: Qos,
    /// Whether it is kept.
    pub retain: bool,
    /// Who is said to publish it.
    pub client_id: Box<str>,
}

/// Who looks on.
pub trait Hook: Any {
    /// What it wants to see; asked when it is put in and after each event.
    fn interest(&self) -> Interest;

    /// Something happened. What it pushes to `out` is published afterwards, unless that goes on for
    /// more than [`HOPS_MAX`] rounds.
    fn event(&mut self, now: Time, event: &Event<'_>, out: &mut Vec<Publication>);

    /// What it pushed came after more than [`HOPS_MAX`] rounds and is not published.
    fn cut(&mut self, now: Time, publication: &Publication);
}
