//! What the log on disk lacks of a session, and how it gets it.
//!
//! Pure. What was queued and is done with before the next writing is never written: a client that is
//! there and confirms what it gets costs the flash nothing.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Delivery, Inflight, Phase, Session};
use crate::mqtt::codec::Qos;
use crate::mqtt::message::Message;
use crate::mqtt::store::record::{Record, Stored};
use crate::mqtt::{NEVER, Time};

/// What the log lacks of a session.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The log knows the session.
    pub known: bool,
    /// It stands in the journal's list.
    pub listed: bool,
    /// Its own facts changed.
    pub changed: bool,
    /// Filters, as the client writes them, whose subscriptions changed.
    pub filters: BTreeSet<Box<str>>,
    /// The QoS 2 messages that it has not released changed.
    pub awaiting: bool,
    /// Places of written deliveries that are done with.
    gone: Vec<u32>,
}

/// Numbers of messages in the log.
pub type NextMessage = u32;

/// A message as the log has it; `unix` turns its time of expiry into one since 1970.
pub fn stored<'a>(message: &'a Message, unix: &dyn Fn(Time) -> u64) -> Stored<'a> {
    Stored {
        topic: message.topic(),
        qos: message.qos,
        retain: message.retain,
        expires: match message.expires {
            NEVER => u64::MAX,
            time => unix(time),
        },
        properties: message.properties(),
        payload: message.payload(),
    }
}

/// Appends a record behind its length.
pub fn put(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    record.write(out);
    // Records are made of packets, which are shorter than that.
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

impl Ledger {
    /// Of a session that the log has as it is.
    #[must_use]
    pub fn of_log() -> Self {
        Self {
            known: true,
            ..Self::default()
        }
    }

    /// A delivery is done with.
    pub(super) fn done(&mut self, delivery: &Delivery) {
        if delivery.stored {
            self.gone.push(delivery.place);
        }
    }
}

impl Session {
    /// Forgets what the log knows, since it begins anew.
    pub fn forget_log(&mut self) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        ledger.known = false;
        ledger.changed = true;
        ledger.awaiting = true;
        ledger.gone.clear();
        let inflight = self.inflight.iter_mut().map(|one| {
            one.noted = None;
            &mut one.delivery
        });
        for delivery in inflight.chain(&mut self.queue) {
            delivery.stored = false;
            delivery.message.log_id.set(0);
        }
    }

    /// Appends what the log lacks, but for the subscriptions.
    pub fn write_ledger(
        &mut self,
        number: u32,
        unix: &dyn Fn(Time) -> u64,
        next: &mut NextMessage,
        out: &mut Vec<u8>,
    ) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        ledger.listed = false;
        if std::mem::take(&mut ledger.changed) {
            ledger.known = true;
            let record = Record::Session {
                number,
                client_id: &self.client_id,
                username: self.username.as_deref(),
                version: self.version,
                expiry: self.expiry,
                created: unix(self.created),
                lost: if self.lost == NEVER {
                    0
                } else {
                    unix(self.lost).max(1)
                },
            };
            put(out, &record);
        }
        for place in std::mem::take(&mut ledger.gone) {
            put(out, &Record::Gone { number, place });
        }
        if std::mem::take(&mut ledger.awaiting) {
            let ids = self.awaiting_rel.clone();
            put(out, &Record::Awaiting { number, ids });
        }
        for one in &mut self.inflight {
            write_delivery(number, &mut one.delivery, unix, next, out);
            if one.noted != Some(one.phase) {
                one.noted = Some(one.phase);
                let record = Record::Sent {
                    number,
                    place: one.delivery.place,
                    packet_id: one.packet_id,
                    released: one.phase == Phase::Released,
                };
                put(out, &record);
            }
        }
        // The log lacks the last of them, if any: they come in order.
        let fresh = self.queue.iter().rev().take_while(|one| !one.stored);
        let from = self.queue.len() - fresh.count();
        for delivery in self.queue.range_mut(from..) {
            if delivery.qos > Qos::AtMostOnce {
                write_delivery(number, delivery, unix, next, out);
            }
        }
    }

    /// Takes back what the log has: deliveries in order, those that were sent with their packet
    /// identifiers, and what the client has not released.
    pub fn restore(
        &mut self,
        deliveries: Vec<(Delivery, Option<(u16, bool)>)>,
        awaiting_rel: Vec<u16>,
    ) {
        self.awaiting_rel = awaiting_rel;
        for (delivery, sent) in deliveries {
            self.next_place = self.next_place.max(delivery.place.wrapping_add(1));
            match sent {
                Some((packet_id, released)) => {
                    let phase = if released {
                        Phase::Released
                    } else {
                        Phase::Sent
                    };
                    self.next_id = self.next_id.max(packet_id);
                    self.inflight.push_back(Inflight {
                        delivery,
                        packet_id,
                        phase,
                        noted: Some(phase),
                    });
                }
                None => {
                    self.queued_bytes += delivery.message.size();
                    self.queue.push_back(delivery);
                }
            }
        }
    }
}

fn write_delivery(
    number: u32,
    delivery: &mut Delivery,
    unix: &dyn Fn(Time) -> u64,
    next: &mut NextMessage,
    out: &mut Vec<u8>,
) {
    if delivery.stored {
        return;
    }
    delivery.stored = true;
    let message: &Rc<Message> = &delivery.message;
    if message.log_id.get() == 0 {
        *next = next.wrapping_add(1).max(1);
        message.log_id.set(*next);
        let message = stored(message, unix);
        put(out, &Record::Message { id: *next, message });
    }
    let record = Record::Queued {
        number,
        place: delivery.place,
        message: message.log_id.get(),
        qos: delivery.qos,
        retain: delivery.retain,
        ids: delivery.ids.as_deref().cloned().unwrap_or_default(),
    };
    put(out, &record);
}
