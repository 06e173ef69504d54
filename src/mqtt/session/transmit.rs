//! From a session's queue to bytes, and the acknowledgements that come back (3.3 to 3.7, 4.3, 4.4).

use std::rc::Rc;

use super::Session;
use super::delivery::{Delivery, Watch};
use crate::mqtt::Time;
use crate::mqtt::codec::property::id;
use crate::mqtt::codec::{
    Ack, AckKind, Packet, Properties, PropertyWriter, Publish, Qos, Reason, Version, encode,
    publish_header,
};
use crate::mqtt::message::Message;

/// Payloads from this size on are not copied into the write buffer but written from where they are.
pub const LARGE_PAYLOAD: usize = 8 * 1024;

/// Where a message of QoS 1 or 2 stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sent; PUBACK or PUBREC is to come.
    Sent,
    /// PUBREC came, PUBREL was sent; PUBCOMP is to come.
    Released,
}

#[derive(Debug)]
pub(super) struct Inflight {
    pub delivery: Delivery,
    pub packet_id: u16,
    pub phase: Phase,
    /// What the log says of it.
    pub noted: Option<Phase>,
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

/// Why a message cannot be sent.
enum Unsendable {
    Expired,
    TooLarge,
}

impl Session {
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
        self.say(&Packet::Ack(ack));
    }

    /// Queues a packet before the messages. One that is larger than the client takes is left out, as
    /// if it had been sent (3.1.2.11.4).
    pub fn say(&mut self, packet: &Packet<'_>) {
        let before = self.control.len();
        encode(packet, self.version, &mut self.control);
        if self.control.len() - before > self.packet_bytes_max as usize {
            self.control.truncate(before);
        }
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
