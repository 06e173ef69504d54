//! A message as the broker holds it: once, however many sessions it goes to.

use std::cell::Cell;

use super::codec::property::id;
use super::codec::{Properties, Qos};
use super::hook::Origin;
use super::topic::tree::SessionId;
use super::{NEVER, Time};

/// A message; shared by `Rc` between the queues it stands in.
#[derive(Debug)]
pub struct Message {
    /// Topic, forwarded properties and payload in one piece: one allocation, not three.
    bytes: Box<[u8]>,
    properties_at: u16,
    payload_at: u32,
    /// As it was published.
    pub qos: Qos,
    /// As it was published.
    pub retain: bool,
    /// When it is no longer worth sending; [`NEVER`] mostly.
    pub expires: Time,
    /// Who published it, for no-local; `SessionId::MAX`: the broker.
    pub from: SessionId,
    /// Where it came from, while somebody looks at deliveries.
    pub origin: Option<Box<Origin>>,
    /// Its number in the log; 0: it is not there.
    pub log_id: Cell<u32>,
}

impl Message {
    /// A message that came in at `now`. Of the properties those that a receiver is to see are kept
    /// as they are (3.3.2.3): not the alias, and the expiry as a time. `None`: a topic or packet
    /// larger than the protocol has.
    #[must_use]
    pub fn new(
        now: Time,
        topic: &str,
        properties: Properties<'_>,
        payload: &[u8],
        (qos, retain): (Qos, bool),
        from: SessionId,
    ) -> Option<Self> {
        let mut bytes = Vec::with_capacity(topic.len() + properties.bytes().len() + payload.len());
        bytes.extend_from_slice(topic.as_bytes());
        let mut expires = NEVER;
        for (identifier, _, raw) in properties.iter() {
            match identifier {
                id::PAYLOAD_FORMAT
                | id::CONTENT_TYPE
                | id::RESPONSE_TOPIC
                | id::CORRELATION_DATA
                | id::USER => bytes.extend_from_slice(raw),
                _ => {}
            }
        }
        if let Some(seconds) = properties.number(id::MESSAGE_EXPIRY) {
            expires = now.saturating_add(super::seconds(seconds));
        }
        let payload_at = u32::try_from(bytes.len()).ok()?;
        bytes.extend_from_slice(payload);
        Some(Self {
            properties_at: u16::try_from(topic.len()).ok()?,
            payload_at,
            bytes: bytes.into(),
            qos,
            retain,
            expires,
            from,
            origin: None,
            log_id: Cell::new(0),
        })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        let bytes = self.bytes.get(..self.properties_at.into());
        // It came from a `str`.
        bytes
            .and_then(|bytes| str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// Properties as they stand in a packet.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        let range = self.properties_at.into()..self.payload_at as usize;
        self.bytes.get(range).unwrap_or_default()
    }

    /// The same, to be read.
    #[must_use]
    pub fn property_list(&self) -> Properties<'_> {
        Properties::checked(self.properties())
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes
            .get(self.payload_at as usize..)
            .unwrap_or_default()
    }

    /// Bytes of memory that it holds, more or less.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    /// Seconds it has left, rounded up; `Some(None)`: it does not expire. `None`: it has.
    #[must_use]
    pub fn left(&self, now: Time) -> Option<Option<u32>> {
        if self.expires == NEVER {
            return Some(None);
        }
        let left = self.expires.checked_sub(now).filter(|&left| left > 0)?;
        Some(Some(u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX)))
    }
}
