//! What a packet of one broker is to the other.
//!
//! Pure, and without a memory of messages: acknowledgements pass under the identifiers that they have.
//! A message that does not go on is answered here.

use crate::mqtt::client::Ended;
use crate::mqtt::codec::property::id;
use crate::mqtt::codec::{
    Ack, AckKind, Packet, Properties, PropertyWriter, Publish, Qos, Reason, SubAck, Version, encode,
};
use crate::mqtt::topic;

use super::BridgeTopic;

/// The user property that names the brokers which passed a message on.
pub(super) const VIA: &str = "headgate-via";

/// Brokers that a message may go through.
const VIA_MAX: usize = 8;

/// What the other broker takes; before 5.0 everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub qos: Qos,
    pub retain: bool,
    pub packet_bytes: usize,
}

/// A bridge between two connections.
pub(super) struct Relay<'a> {
    pub topics: &'a [BridgeTopic],
    /// What the other broker speaks; here it is 5.0.
    pub version: Version,
    /// Names this broker among others.
    pub identity: &'a str,
    pub taken: Taken,
}

/// What somebody may want to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Nothing,
    /// A subscription was refused: its place among the filters, and why.
    NotSubscribed(usize, Reason),
    /// The other broker refused a message.
    NotTaken(Reason),
}

impl Relay<'_> {
    /// The filters here, and the options of SUBSCRIBE with them: what is retained comes once, and
    /// nothing that the bridge said itself.
    pub fn local_filters(&self) -> Vec<(Box<str>, u8)> {
        let out = self.topics.iter().filter(|topic| topic.out);
        let filters = out.map(|one| {
            let qos = one.qos.min(self.taken.qos).bits();
            let filter = format!("{}{}", one.local_prefix, one.filter).into();
            (filter, qos | 4 | 8 | 1 << 4)
        });
        filters.collect()
    }

    /// The filters there.
    pub fn remote_filters(&self) -> Vec<(Box<str>, u8)> {
        let inward = self.topics.iter().filter(|topic| topic.inward);
        let more = match self.version {
            Version::V5 => 4 | 8 | 1 << 4,
            Version::V3 | Version::V4 => 0,
        };
        let filters = inward.map(|one| {
            let filter = format!("{}{}", one.remote_prefix, one.filter).into();
            (filter, one.qos.bits() | more)
        });
        filters.collect()
    }

    /// A packet of the broker here; what is said there and back.
    ///
    /// # Errors
    /// The connection here is of no use any more.
    pub fn outward(
        &self,
        packet: &Packet<'_>,
        there: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<Noted, Ended> {
        match packet {
            Packet::Publish(publish) => {
                let moved = |one: &BridgeTopic| {
                    one.out
                        .then(|| moved(&one.local_prefix, one, &one.remote_prefix, publish.topic))
                        .flatten()
                };
                let Some(topic) = self.topics.iter().find_map(moved) else {
                    answer(publish, Version::V5, Reason::SUCCESS, back);
                    return Ok(Noted::Nothing);
                };
                if !self.say_there(publish, &topic, there) {
                    answer(publish, Version::V5, Reason::PACKET_TOO_LARGE, back);
                    return Ok(Noted::NotTaken(Reason::PACKET_TOO_LARGE));
                }
                Ok(Noted::Nothing)
            }
            Packet::Ack(ack) => {
                pass(ack, self.version, there);
                Ok(Noted::Nothing)
            }
            packet => other(packet),
        }
    }

    /// A packet of the broker there; what is said here and back.
    ///
    /// # Errors
    /// The connection there is of no use any more.
    pub fn inward(
        &self,
        packet: &Packet<'_>,
        here: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<Noted, Ended> {
        match packet {
            Packet::Publish(publish) => {
                // No alias was allowed, so none can stand for the topic.
                if publish.topic.is_empty() {
                    return Err(Ended::OutOfPlace);
                }
                let moved = |one: &BridgeTopic| {
                    one.inward
                        .then(|| moved(&one.remote_prefix, one, &one.local_prefix, publish.topic))
                        .flatten()
                };
                let known = self.was_here(publish.properties);
                match self.topics.iter().find_map(moved).filter(|_| !known) {
                    Some(topic) => {
                        let properties = forwarded(publish.properties);
                        let publish = Publish {
                            topic: &topic,
                            properties: properties.finish(),
                            ..*publish
                        };
                        encode(&Packet::Publish(publish), Version::V5, here);
                    }
                    None => answer(publish, self.version, Reason::SUCCESS, back),
                }
                Ok(Noted::Nothing)
            }
            Packet::Ack(ack) => {
                pass(ack, Version::V5, here);
                let refused = ack.reason.is_failure()
                    && matches!(ack.kind, AckKind::PubAck | AckKind::PubRec);
                Ok(match refused {
                    true => Noted::NotTaken(ack.reason),
                    false => Noted::Nothing,
                })
            }
            packet => other(packet),
        }
    }

    /// Whether a message has been at this broker, or at too many.
    fn was_here(&self, properties: Properties<'_>) -> bool {
        let mut count = 0;
        for (_, value, _) in properties.iter() {
            if let crate::mqtt::codec::Value::Pair(VIA, name) = value {
                count += 1;
                if name == self.identity || count > VIA_MAX {
                    return true;
                }
            }
        }
        false
    }

    fn say_there(&self, publish: &Publish<'_>, topic: &str, there: &mut Vec<u8>) -> bool {
        let mut properties = PropertyWriter::default();
        if self.version == Version::V5 {
            properties = forwarded(publish.properties);
            properties.pair(VIA, self.identity);
        }
        let publish = Publish {
            topic,
            retain: publish.retain && self.taken.retain,
            properties: properties.finish(),
            ..*publish
        };
        let before = there.len();
        encode(&Packet::Publish(publish), self.version, there);
        let fits = there.len() - before <= self.taken.packet_bytes;
        if !fits {
            there.truncate(before);
        }
        fits
    }
}

/// A topic under another prefix, if the entry speaks of it and it is a topic there too.
fn moved(from: &str, entry: &BridgeTopic, to: &str, topic: &str) -> Option<String> {
    let rest = topic.strip_prefix(from)?;
    if !topic::matches(&entry.filter, rest) {
        return None;
    }
    let moved = format!("{to}{rest}");
    topic::is_name(&moved).then_some(moved)
}

/// The properties that a message keeps.
fn forwarded(properties: Properties<'_>) -> PropertyWriter {
    let mut kept = PropertyWriter::default();
    for (identifier, _, raw) in properties.iter() {
        if !matches!(identifier, id::TOPIC_ALIAS | id::SUBSCRIPTION_ID) {
            kept.raw(raw);
        }
    }
    kept
}

/// Passes an acknowledgement on, without what its sender had to say about it.
fn pass(ack: &Ack<'_>, version: Version, out: &mut Vec<u8>) {
    let ack = Ack {
        properties: Properties::default(),
        ..*ack
    };
    encode(&Packet::Ack(ack), version, out);
}

/// Answers a message that goes nowhere.
fn answer(publish: &Publish<'_>, version: Version, reason: Reason, back: &mut Vec<u8>) {
    let kind = match publish.qos {
        Qos::AtMostOnce => return,
        Qos::AtLeastOnce => AckKind::PubAck,
        Qos::ExactlyOnce => AckKind::PubRec,
    };
    let ack = Ack {
        kind,
        packet_id: publish.packet_id,
        reason,
        properties: Properties::default(),
    };
    encode(&Packet::Ack(ack), version, back);
}

fn other(packet: &Packet<'_>) -> Result<Noted, Ended> {
    match packet {
        Packet::SubAck(SubAck { reasons, .. }) => {
            let refused = reasons
                .iter()
                .position(|&reason| Reason(reason).is_failure());
            let found = refused.and_then(|place| Some((place, Reason(*reasons.get(place)?))));
            Ok(found.map_or(Noted::Nothing, |(place, reason)| {
                Noted::NotSubscribed(place, reason)
            }))
        }
        Packet::PingResp => Ok(Noted::Nothing),
        Packet::Disconnect(reason, _) => Err(Ended::Disconnected(*reason)),
        _ => Err(Ended::OutOfPlace),
    }
}
