//! A message on its way to one client, and what became of it.

use std::rc::Rc;

use crate::mqtt::codec::Qos;
use crate::mqtt::message::Message;

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
    pub(super) stored: bool,
    /// Its place among the session's deliveries.
    pub(super) place: u32,
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
    pub(super) fn sent(&mut self, delivery: &Delivery) {
        if self.wants_sent {
            self.sent.push(delivery.clone());
        }
    }

    pub(super) fn dropped(&mut self, delivery: &Delivery, why: &'static str) {
        if self.wants_dropped {
            self.lost.push((delivery.clone(), why));
        }
    }
}
