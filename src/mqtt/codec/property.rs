//! The properties of MQTT 5.0 (section 2.2.2): checked once, then read in place.
//!
//! [`Properties`] borrows the bytes of the packet; nothing is allocated however many there are.

use super::{Malformed, text, varint};
use crate::wire::Reader;

/// Packets in which a property may stand, as bits.
pub(super) mod place {
    pub const CONNECT: u16 = 1;
    pub const CONNACK: u16 = 1 << 1;
    pub const PUBLISH: u16 = 1 << 2;
    pub const WILL: u16 = 1 << 3;
    pub const ACK: u16 = 1 << 4;
    pub const SUBSCRIBE: u16 = 1 << 5;
    pub const SUBACK: u16 = 1 << 6;
    pub const UNSUBSCRIBE: u16 = 1 << 7;
    pub const DISCONNECT: u16 = 1 << 8;
    pub const AUTH: u16 = 1 << 9;
    pub const ALL: u16 = u16::MAX;
}

/// The properties' identifiers.
#[expect(missing_docs, reason = "the standard's own names, section 2.2.2.2")]
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1a;
    pub const SERVER_REFERENCE: u8 = 0x1c;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER: u8 = 0x26;
    pub const MAXIMUM_PACKET: u8 = 0x27;
    pub const WILDCARD_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub const SHARED_AVAILABLE: u8 = 0x2a;
}

#[derive(Clone, Copy)]
enum Kind {
    /// 0 or 1.
    Flag,
    U16,
    /// Zero is a protocol error.
    NonZeroU16,
    U32,
    NonZeroU32,
    Varint,
    Text,
    Binary,
    Pair,
}

/// What a property is and where it may stand (table 2-4). `None`: there is no such property.
fn definition(identifier: u8) -> Option<(Kind, u16)> {
    use place::{ACK, ALL, AUTH, CONNACK, CONNECT, DISCONNECT, PUBLISH, SUBACK, SUBSCRIBE, WILL};
    Some(match identifier {
        id::PAYLOAD_FORMAT => (Kind::Flag, PUBLISH | WILL),
        id::MESSAGE_EXPIRY => (Kind::U32, PUBLISH | WILL),
        id::CONTENT_TYPE | id::RESPONSE_TOPIC => (Kind::Text, PUBLISH | WILL),
        id::CORRELATION_DATA => (Kind::Binary, PUBLISH | WILL),
        id::SUBSCRIPTION_ID => (Kind::Varint, PUBLISH | SUBSCRIBE),
        id::SESSION_EXPIRY => (Kind::U32, CONNECT | CONNACK | DISCONNECT),
        id::ASSIGNED_CLIENT_ID | id::RESPONSE_INFORMATION => (Kind::Text, CONNACK),
        id::SERVER_KEEP_ALIVE => (Kind::U16, CONNACK),
        id::AUTH_METHOD => (Kind::Text, CONNECT | CONNACK | AUTH),
        id::AUTH_DATA => (Kind::Binary, CONNECT | CONNACK | AUTH),
        id::REQUEST_PROBLEM | id::REQUEST_RESPONSE => (Kind::Flag, CONNECT),
        id::WILL_DELAY => (Kind::U32, WILL),
        id::SERVER_REFERENCE => (Kind::Text, CONNACK | DISCONNECT),
        id::REASON_STRING => (Kind::Text, CONNACK | ACK | SUBACK | DISCONNECT | AUTH),
        id::RECEIVE_MAXIMUM => (Kind::NonZeroU16, CONNECT | CONNACK),
        id::ALIAS_MAXIMUM => (Kind::U16, CONNECT | CONNACK),
        id::TOPIC_ALIAS => (Kind::U16, PUBLISH),
        id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_ID_AVAILABLE
        | id::SHARED_AVAILABLE => (Kind::Flag, CONNACK),
        id::USER => (Kind::Pair, ALL),
        id::MAXIMUM_PACKET => (Kind::NonZeroU32, CONNECT | CONNACK),
        _ => return None,
    })
}

/// One property's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A flag, or an integer of whatever width.
    Number(u32),
    /// UTF-8.
    Text(&'a str),
    /// Anything.
    Binary(&'a [u8]),
    /// A user property.
    Pair(&'a str, &'a str),
}

/// The properties of a packet, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// Properties that were checked before, as they stand in a packet.
    pub(in crate::mqtt) fn checked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Properties of a message from the log, which need not be what was written. `None`: they are not.
    pub(in crate::mqtt) fn stored(bytes: &'a [u8]) -> Option<Self> {
        Self::check(bytes, place::PUBLISH).ok()
    }

    /// Reads the length and the properties that may stand at `place`.
    pub(super) fn read(reader: &mut Reader<'a>, place: u16) -> Result<Self, Malformed> {
        let length = read_varint(reader)?;
        Self::check(reader.take(length as usize)?, place)
    }

    fn check(bytes: &'a [u8], place: u16) -> Result<Self, Malformed> {
        let properties = Self(bytes);
        let mut seen = 0_u64;
        let mut rest = Reader::new(bytes);
        while !rest.is_empty() {
            let identifier = rest.u8()?;
            let (kind, allowed) =
                definition(identifier).ok_or(Malformed::UnknownProperty(identifier))?;
            if allowed & place == 0 {
                return Err(Malformed::PropertyOutOfPlace(identifier));
            }
            // Only these may stand more than once (2.2.2.2, 3.3.2.3.8).
            let many = identifier == id::USER
                || (identifier == id::SUBSCRIPTION_ID && place == place::PUBLISH);
            let bit = 1_u64 << (identifier & 63);
            if !many && seen & bit != 0 {
                return Err(Malformed::PropertyTwice(identifier));
            }
            seen |= bit;
            let value = read_value(&mut rest, kind)?;
            check_value(identifier, kind, value)?;
        }
        Ok(properties)
    }

    /// Properties that [`PropertyWriter`] wrote.
    #[must_use]
    pub fn written(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes, without the length.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Identifiers and values, in order.
    #[must_use]
    pub fn iter(self) -> Iter<'a> {
        Iter(Reader::new(self.0))
    }

    /// Whether there is such a property.
    #[must_use]
    pub fn has(self, identifier: u8) -> bool {
        self.iter().any(|(found, _, _)| found == identifier)
    }

    /// The number of a property.
    #[must_use]
    pub fn number(self, identifier: u8) -> Option<u32> {
        self.iter().find_map(|(found, value, _)| match value {
            Value::Number(number) if found == identifier => Some(number),
            _ => None,
        })
    }

    /// The text of a property.
    #[must_use]
    pub fn text(self, identifier: u8) -> Option<&'a str> {
        self.iter().find_map(|(found, value, _)| match value {
            Value::Text(text) if found == identifier => Some(text),
            _ => None,
        })
    }
}

/// The properties one by one: identifier, value, and both as they stand in the packet.
pub struct Iter<'a>(Reader<'a>);

impl<'a> Iterator for Iter<'a> {
    type Item = (u8, Value<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let before = self.0.rest();
        let from = self.0.position();
        let identifier = self.0.u8().ok()?;
        let value = read_value(&mut self.0, definition(identifier)?.0).ok()?;
        let bytes = before.get(..self.0.position() - from)?;
        Some((identifier, value, bytes))
    }
}

/// A variable byte integer of the fewest bytes that hold it, as 5.0 demands (1.5.5); the length of a
/// packet is taken however it is written, since MQTT 3 demands nothing there.
fn read_varint(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let (value, length) = varint(reader.rest())?.ok_or(Malformed::Truncated)?;
    let bytes = reader.take(length)?;
    if length > 1 && bytes.last() == Some(&0) {
        return Err(Malformed::VarintTooLong);
    }
    Ok(value)
}

fn read_value<'a>(reader: &mut Reader<'a>, kind: Kind) -> Result<Value<'a>, Malformed> {
    Ok(match kind {
        Kind::Flag => Value::Number(reader.u8()?.into()),
        Kind::U16 | Kind::NonZeroU16 => Value::Number(reader.u16()?.into()),
        Kind::U32 | Kind::NonZeroU32 => Value::Number(reader.u32()?),
        Kind::Varint => Value::Number(read_varint(reader)?),
        Kind::Text => Value::Text(text(reader)?),
        Kind::Binary => {
            let length = reader.u16()?;
            Value::Binary(reader.take(length.into())?)
        }
        Kind::Pair => Value::Pair(text(reader)?, text(reader)?),
    })
}

fn check_value(identifier: u8, kind: Kind, value: Value<'_>) -> Result<(), Malformed> {
    match (kind, value) {
        (Kind::Flag, Value::Number(2..))
        | (Kind::NonZeroU16 | Kind::NonZeroU32 | Kind::Varint, Value::Number(0)) => {
            Err(Malformed::PropertyValue(identifier))
        }
        (Kind::U16, Value::Number(0)) if identifier == id::TOPIC_ALIAS => {
            Err(Malformed::AliasInvalid)
        }
        // It is a topic's name (3.3.2.3.5).
        (Kind::Text, Value::Text(topic))
            if identifier == id::RESPONSE_TOPIC && topic.contains(['+', '#']) =>
        {
            Err(Malformed::PropertyValue(identifier))
        }
        _ => Ok(()),
    }
}

/// Writes properties one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyWriter(Vec<u8>);

impl PropertyWriter {
    /// A flag.
    pub fn byte(&mut self, identifier: u8, value: u8) {
        self.0.extend([identifier, value]);
    }

    /// An integer of 16 bits.
    pub fn u16(&mut self, identifier: u8, value: u16) {
        self.0.push(identifier);
        self.0.extend(value.to_be_bytes());
    }

    /// An integer of 32 bits.
    pub fn u32(&mut self, identifier: u8, value: u32) {
        self.0.push(identifier);
        self.0.extend(value.to_be_bytes());
    }

    /// A subscription identifier.
    pub fn varint(&mut self, identifier: u8, value: u32) {
        self.0.push(identifier);
        super::encode::put_varint(&mut self.0, value as usize);
    }

    /// A text; one that is too long for the protocol is cut off whole.
    pub fn text(&mut self, identifier: u8, value: &str) {
        if let Ok(length) = u16::try_from(value.len()) {
            self.0.push(identifier);
            self.0.extend(length.to_be_bytes());
            self.0.extend(value.as_bytes());
        }
    }

    /// A user property; a text that is too long for the protocol leaves out both.
    pub fn pair(&mut self, name: &str, value: &str) {
        if let (Ok(name_length), Ok(value_length)) =
            (u16::try_from(name.len()), u16::try_from(value.len()))
        {
            self.0.push(id::USER);
            self.0.extend(name_length.to_be_bytes());
            self.0.extend(name.as_bytes());
            self.0.extend(value_length.to_be_bytes());
            self.0.extend(value.as_bytes());
        }
    }

    /// Bytes.
    pub fn binary(&mut self, identifier: u8, value: &[u8]) {
        if let Ok(length) = u16::try_from(value.len()) {
            self.0.push(identifier);
            self.0.extend(length.to_be_bytes());
            self.0.extend(value);
        }
    }

    /// A property as it stood in another packet.
    pub(in crate::mqtt) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// What was written.
    #[must_use]
    pub fn finish(&self) -> Properties<'_> {
        Properties(&self.0)
    }
}
