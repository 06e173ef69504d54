//! MQTT 3.1, 3.1.1 and 5.0 packets, to and from bytes, in both directions.
//!
//! Pure functions: no sockets, no clock, no logging. `mqtt::driver` owns the buffers and the
//! timeouts; `mqtt::broker` decides what a packet means. Section numbers in comments are those of
//! the MQTT 5.0 standard unless they say otherwise.
//!
//! Callers rely on two promises: decoding allocates nothing, it borrows from its input; and
//! decoding what `encode` wrote gives back the same packet (a property test holds it to that).

mod decode;
mod encode;
pub mod property;
pub mod reason;
#[cfg(test)]
mod tests;

use std::fmt;

pub use decode::{decode, filters};
pub use encode::{encode, publish_header};
pub use property::{Properties, PropertyWriter, Value};
pub use reason::Reason;

use crate::wire::{Reader, Truncated};

/// The largest remaining length that the protocol can say (1.5.5).
pub const REMAINING_MAX: usize = 268_435_455;

/// The bit of the protocol level by which a client calls itself a bridge.
const BRIDGE: u8 = 0x80;

/// Which edition of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// "MQIsdp", level 3.
    V3,
    /// 3.1.1, level 4.
    V4,
    /// 5.0, level 5.
    V5,
}

impl Version {
    /// The protocol level of CONNECT.
    #[must_use]
    pub fn level(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }
}

/// How surely a message arrives (4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once.
    ExactlyOnce,
}

impl Qos {
    /// From its two bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            2 => Self::ExactlyOnce,
            _ => return None,
        })
    }

    /// As its two bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

/// A control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// 3.1
    Connect(Connect<'a>),
    /// 3.2
    ConnAck(ConnAck<'a>),
    /// 3.3
    Publish(Publish<'a>),
    /// 3.4 to 3.7
    Ack(Ack<'a>),
    /// 3.8
    Subscribe(Subscribe<'a>),
    /// 3.9 and 3.11
    SubAck(SubAck<'a>),
    /// 3.10
    Unsubscribe(Subscribe<'a>),
    /// 3.12
    PingReq,
    /// 3.13
    PingResp,
    /// 3.14
    Disconnect(Reason, Properties<'a>),
    /// 3.15
    Auth(Reason, Properties<'a>),
}

/// The first packet of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What the client speaks from here on.
    pub version: Version,
    /// Whether the client calls itself a bridge.
    pub bridge: bool,
    /// Clean session, or clean start.
    pub clean: bool,
    /// Seconds; 0: never.
    pub keep_alive: u16,
    /// Of 5.0.
    pub properties: Properties<'a>,
    /// May be empty.
    pub client_id: &'a str,
    /// What to say when it dies.
    pub will: Option<Will<'a>>,
    /// Who it is.
    pub username: Option<&'a str>,
    /// And the proof.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Connect<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A message for the time after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where to.
    pub topic: &'a str,
    /// What.
    pub payload: &'a [u8],
    /// How surely.
    pub qos: Qos,
    /// Whether it is kept.
    pub retain: bool,
    /// Of 5.0.
    pub properties: Properties<'a>,
}

/// The broker's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the session was there already.
    pub session_present: bool,
    /// Of 5.0; for MQTT 3 the return code as it is on the wire.
    pub reason: Reason,
    /// Of 5.0.
    pub properties: Properties<'a>,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before.
    pub dup: bool,
    /// How surely.
    pub qos: Qos,
    /// Keep it; or: it was kept.
    pub retain: bool,
    /// Empty with a topic alias only.
    pub topic: &'a str,
    /// 0 with QoS 0.
    pub packet_id: u16,
    /// Of 5.0.
    pub properties: Properties<'a>,
    /// Anything.
    pub payload: &'a [u8],
}

/// The four acknowledgements of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// QoS 1.
    PubAck,
    /// QoS 2, first.
    PubRec,
    /// QoS 2, second, by the sender.
    PubRel,
    /// QoS 2, last.
    PubComp,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which of them.
    pub kind: AckKind,
    /// Of the message.
    pub packet_id: u16,
    /// Of 5.0.
    pub reason: Reason,
    /// Of 5.0.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE or UNSUBSCRIBE; [`filters`] reads its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// Of 5.0.
    pub properties: Properties<'a>,
    /// The list as it stands in the packet, checked.
    pub list: &'a [u8],
}

/// SUBACK or UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Whether it answers UNSUBSCRIBE.
    pub unsubscribe: bool,
    /// Of the request.
    pub packet_id: u16,
    /// Of 5.0.
    pub properties: Properties<'a>,
    /// A reason each; none in an UNSUBACK of MQTT 3.
    pub reasons: &'a [u8],
}

/// Why a peer's bytes are not MQTT. Always fatal to that connection, never to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A field runs past the packet's end.
    Truncated,
    /// Bytes after the last field.
    Trailing,
    /// A variable byte integer ran past four bytes, or had more than it needs (1.5.5).
    VarintTooLong,
    /// The packet is larger than this side allows.
    TooLarge,
    /// Not UTF-8, or with U+0000 (1.5.4).
    Text,
    /// No such packet type, or one that has no place here (2.1.2).
    PacketType(u8),
    /// The fixed header or a flags byte has reserved bits set (2.1.3).
    ReservedFlags(u8),
    /// Not "MQTT" or "MQIsdp" at the beginning.
    ProtocolName,
    /// A protocol level that is not spoken.
    ProtocolLevel(u8),
    /// QoS 3.
    Qos,
    /// Packet identifier 0 where one is needed (2.2.1).
    PacketId,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter.
    NoFilters,
    /// A password without a user name in MQTT 3 (3.1.1: 3.1.2.9).
    PasswordAlone,
    /// No property has this identifier.
    UnknownProperty(u8),
    /// The property may not stand in this packet.
    PropertyOutOfPlace(u8),
    /// The property stands twice.
    PropertyTwice(u8),
    /// The property's value is out of its range.
    PropertyValue(u8),
    /// Topic alias 0.
    AliasInvalid,
    /// An empty topic, or one with a wildcard (4.7).
    Topic,
}

impl Malformed {
    /// What a DISCONNECT or CONNACK of 5.0 says of it.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::PACKET_TOO_LARGE,
            Self::ProtocolName | Self::ProtocolLevel(_) => Reason::UNSUPPORTED_VERSION,
            Self::PropertyTwice(_)
            | Self::PropertyOutOfPlace(_)
            | Self::PropertyValue(_)
            | Self::NoFilters => Reason::PROTOCOL_ERROR,
            Self::AliasInvalid => Reason::ALIAS_INVALID,
            Self::Topic => Reason::TOPIC_INVALID,
            _ => Reason::MALFORMED,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a field runs past the end of its packet"),
            Self::Trailing => f.write_str("bytes after the last field"),
            Self::VarintTooLong => f.write_str("variable byte integer of too many bytes"),
            Self::TooLarge => f.write_str("packet larger than allowed"),
            Self::Text => f.write_str("text is not UTF-8 or holds U+0000"),
            Self::PacketType(kind) => write!(f, "packet type {kind} out of place"),
            Self::ReservedFlags(flags) => write!(f, "reserved flags in {flags:#04x}"),
            Self::ProtocolName => f.write_str("unknown protocol name"),
            Self::ProtocolLevel(level) => write!(f, "unknown protocol level {level}"),
            Self::Qos => f.write_str("quality of service 3"),
            Self::PacketId => f.write_str("packet identifier 0"),
            Self::NoFilters => f.write_str("no topic filter"),
            Self::PasswordAlone => f.write_str("password without user name"),
            Self::UnknownProperty(id) => write!(f, "unknown property {id:#04x}"),
            Self::PropertyOutOfPlace(id) => write!(f, "property {id:#04x} out of place"),
            Self::PropertyTwice(id) => write!(f, "property {id:#04x} twice"),
            Self::PropertyValue(id) => write!(f, "property {id:#04x} out of range"),
            Self::AliasInvalid => f.write_str("topic alias 0"),
            Self::Topic => f.write_str("invalid topic name"),
        }
    }
}

impl From<Truncated> for Malformed {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// A packet's bytes, cut out of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first: u8,
    /// What the remaining length counts.
    pub body: &'a [u8],
    /// Bytes of the whole packet.
    pub length: usize,
}

/// What stands at the beginning of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole packet.
    Whole(Frame<'a>),
    /// The packet will have so many bytes, or at least so many.
    NeedMore(usize),
}

/// Cuts the first packet out of `input`. Packets of more than `length_max` bytes are refused
/// before anything is set aside for them.
///
/// # Errors
/// Too large, or no length.
pub fn frame(input: &[u8], length_max: usize) -> Result<Framed<'_>, Malformed> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(Framed::NeedMore(2));
    };
    let Some((remaining, header)) = varint(rest)? else {
        return Ok(Framed::NeedMore(input.len() + 1));
    };
    let start = 1 + header;
    let length = start + remaining as usize;
    if length > length_max {
        return Err(Malformed::TooLarge);
    }
    Ok(match input.get(start..length) {
        Some(body) => Framed::Whole(Frame {
            first,
            body,
            length,
        }),
        None => Framed::NeedMore(length),
    })
}

/// Reads a variable byte integer (1.5.5). `Ok(None)`: it continues past `input`.
///
/// # Errors
/// More than four bytes.
pub fn varint(input: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (i, &byte) in input.iter().enumerate().take(4) {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if input.len() >= 4 {
        return Err(Malformed::VarintTooLong);
    }
    Ok(None)
}

/// A UTF-8 string with its length before it (1.5.4).
fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let length = reader.u16()?;
    let bytes = reader.take(length.into())?;
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Text)?;
    if bytes.contains(&0) {
        return Err(Malformed::Text);
    }
    Ok(text)
}
