//! The log's records, to and from bytes.
//!
//! A record says what is so from here on; later ones overrule earlier ones. Sessions and the messages in
//! their queues are named by numbers that the log gives them. Numbers are big-endian, texts and bytes
//! have their length before them; times are milliseconds since 1970.

use crate::mqtt::codec::{Qos, Version};
use crate::wire::{Reader, Truncated};

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Where to.
    pub topic: &'a str,
    /// As published.
    pub qos: Qos,
    /// As published.
    pub retain: bool,
    /// When it expires; `u64::MAX`: never.
    pub expires: u64,
    /// As in a packet of MQTT 5.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message is retained.
    Retained(Stored<'a>),
    /// Nothing is retained on a topic.
    RetainedGone(&'a str),
    /// There is a session.
    Session {
        /// Its number.
        number: u32,
        /// The client identifier.
        client_id: &'a str,
        /// As who.
        username: Option<&'a str>,
        /// What it spoke last.
        version: Version,
        /// Seconds; `u32::MAX`: for ever.
        expiry: u32,
        /// When it began.
        created: u64,
        /// When its connection was lost; 0: it was not.
        lost: u64,
    },
    /// A session ended.
    SessionGone(u32),
    /// A session subscribes; in place of the same filter before.
    Subscribed {
        /// Whose.
        number: u32,
        /// As the client wrote it.
        filter: &'a str,
        /// Quality, no-local and retain-as-published as SUBSCRIBE has them.
        options: u8,
        /// The subscription identifier; 0: none.
        identifier: u32,
    },
    /// A session does not subscribe any more.
    Unsubscribed {
        /// Whose.
        number: u32,
        /// As the client wrote it.
        filter: &'a str,
    },
    /// A message that stands in queues.
    Message {
        /// Its number.
        id: u32,
        /// The message.
        message: Stored<'a>,
    },
    /// A message stands in a session's queue.
    Queued {
        /// Whose.
        number: u32,
        /// Its place: greater ones come later.
        place: u32,
        /// Which.
        message: u32,
        /// As it will be delivered.
        qos: Qos,
        /// As the client is to see it.
        retain: bool,
        /// Subscription identifiers.
        ids: Vec<u32>,
    },
    /// A queued message was sent.
    Sent {
        /// Whose.
        number: u32,
        /// Its place.
        place: u32,
        /// As what.
        packet_id: u16,
        /// Whether PUBREC came.
        released: bool,
    },
    /// A queued message is done with.
    Gone {
        /// Whose.
        number: u32,
        /// Its place.
        place: u32,
    },
    /// The packet identifiers of QoS 2 that a client has not released.
    Awaiting {
        /// Whose.
        number: u32,
        /// All of them.
        ids: Vec<u16>,
    },
    /// Something of another part's, by a key.
    Document {
        /// The key.
        key: &'a str,
        /// Anything.
        value: &'a [u8],
    },
    /// There is nothing by that key.
    DocumentGone(&'a str),
    /// A message waits for its time.
    Delayed {
        /// Its number.
        number: u32,
        /// When it is published.
        due: u64,
        /// Who published it.
        client_id: &'a str,
        /// As who.
        username: Option<&'a str>,
        /// The message.
        message: Stored<'a>,
    },
    /// It waits no more.
    DelayedGone(u32),
}

/// The record is not one of this version, or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl From<Truncated> for Unreadable {
    fn from(_: Truncated) -> Self {
        Self
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Unreadable> {
    let length = usize::try_from(reader.u32()?).map_err(|_| Unreadable)?;
    Ok(reader.take(length)?)
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Unreadable> {
    std::str::from_utf8(bytes(reader)?).map_err(|_| Unreadable)
}

fn qos(reader: &mut Reader<'_>) -> Result<Qos, Unreadable> {
    Qos::from_bits(reader.u8()?).ok_or(Unreadable)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Unreadable> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Unreadable),
    }
}

impl<'a> Stored<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.qos.bits());
        out.push(self.retain.into());
        out.extend(self.expires.to_be_bytes());
        for part in [self.topic.as_bytes(), self.properties, self.payload] {
            put_bytes(out, part);
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let (qos, retain, expires) = (qos(reader)?, flag(reader)?, reader.u64()?);
        Ok(Self {
            qos,
            retain,
            expires,
            topic: text(reader)?,
            properties: bytes(reader)?,
            payload: bytes(reader)?,
        })
    }
}

impl<'a> Record<'a> {
    /// Appends the record.
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of record")]
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Retained(message) => {
                out.push(1);
                message.write(out);
            }
            Self::RetainedGone(topic) => {
                out.push(2);
                put_bytes(out, topic.as_bytes());
            }
            Self::Session {
                number,
                client_id,
                username,
                version,
                expiry,
                created,
                lost,
            } => {
                out.push(3);
                out.extend(number.to_be_bytes());
                put_bytes(out, client_id.as_bytes());
                out.push(username.is_some().into());
                put_bytes(out, username.unwrap_or_default().as_bytes());
                out.push(version.level());
                out.extend(expiry.to_be_bytes());
                out.extend(created.to_be_bytes());
                out.extend(lost.to_be_bytes());
            }
            Self::SessionGone(number) => {
                out.push(4);
                out.extend(number.to_be_bytes());
            }
            Self::Subscribed {
                number,
                filter,
                options,
                identifier,
            } => {
                out.push(5);
                out.extend(number.to_be_bytes());
                put_bytes(out, filter.as_bytes());
                out.push(*options);
                out.extend(identifier.to_be_bytes());
            }
            Self::Unsubscribed { number, filter } => {
                out.push(6);
                out.extend(number.to_be_bytes());
                put_bytes(out, filter.as_bytes());
            }
            Self::Message { id, message } => {
                out.push(7);
                out.extend(id.to_be_bytes());
                message.write(out);
            }
            Self::Queued {
                number,
                place,
                message,
                qos,
                retain,
                ids,
            } => {
                out.push(8);
                for value in [number, place, message] {
                    out.extend(value.to_be_bytes());
                }
                out.extend([qos.bits(), (*retain).into()]);
                out.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
            }
            Self::Sent {
                number,
                place,
                packet_id,
                released,
            } => {
                out.push(9);
                out.extend(number.to_be_bytes());
                out.extend(place.to_be_bytes());
                out.extend(packet_id.to_be_bytes());
                out.push((*released).into());
            }
            Self::Gone { number, place } => {
                out.push(10);
                out.extend(number.to_be_bytes());
                out.extend(place.to_be_bytes());
            }
            Self::Awaiting { number, ids } => {
                out.push(11);
                out.extend(number.to_be_bytes());
                out.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
            }
            Self::Document { key, value } => {
                out.push(12);
                put_bytes(out, key.as_bytes());
                put_bytes(out, value);
            }
            Self::DocumentGone(key) => {
                out.push(13);
                put_bytes(out, key.as_bytes());
            }
            Self::Delayed {
                number,
                due,
                client_id,
                username,
                message,
            } => {
                out.push(14);
                out.extend(number.to_be_bytes());
                out.extend(due.to_be_bytes());
                put_bytes(out, client_id.as_bytes());
                out.push(username.is_some().into());
                put_bytes(out, username.unwrap_or_default().as_bytes());
                message.write(out);
            }
            Self::DelayedGone(number) => {
                out.push(15);
                out.extend(number.to_be_bytes());
            }
        }
    }

    /// Reads a record that fills `contents`.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(contents: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(contents);
        let from = &mut reader;
        let record = match from.u8()? {
            1 => Self::Retained(Stored::read(from)?),
            2 => Self::RetainedGone(text(from)?),
            3 => Self::session(from)?,
            4 => Self::SessionGone(from.u32()?),
            5 => Self::Subscribed {
                number: from.u32()?,
                filter: text(from)?,
                options: from.u8()?,
                identifier: from.u32()?,
            },
            6 => Self::Unsubscribed {
                number: from.u32()?,
                filter: text(from)?,
            },
            7 => Self::Message {
                id: from.u32()?,
                message: Stored::read(from)?,
            },
            8 => Self::Queued {
                number: from.u32()?,
                place: from.u32()?,
                message: from.u32()?,
                qos: qos(from)?,
                retain: flag(from)?,
                ids: list(from, Reader::u32)?,
            },
            9 => Self::Sent {
                number: from.u32()?,
                place: from.u32()?,
                packet_id: from.u16()?,
                released: flag(from)?,
            },
            10 => Self::Gone {
                number: from.u32()?,
                place: from.u32()?,
            },
            11 => Self::Awaiting {
                number: from.u32()?,
                ids: list(from, Reader::u16)?,
            },
            12 => Self::Document {
                key: text(from)?,
                value: bytes(from)?,
            },
            13 => Self::DocumentGone(text(from)?),
            14 => {
                let (number, due, client_id) = (from.u32()?, from.u64()?, text(from)?);
                let (named, username) = (flag(from)?, text(from)?);
                Self::Delayed {
                    number,
                    due,
                    client_id,
                    username: named.then_some(username),
                    message: Stored::read(from)?,
                }
            }
            15 => Self::DelayedGone(from.u32()?),
            _ => return Err(Unreadable),
        };
        if reader.is_empty() {
            Ok(record)
        } else {
            Err(Unreadable)
        }
    }

    fn session(from: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let (number, client_id) = (from.u32()?, text(from)?);
        let (named, username) = (flag(from)?, text(from)?);
        let version = match from.u8()? {
            3 => Version::V3,
            4 => Version::V4,
            5 => Version::V5,
            _ => return Err(Unreadable),
        };
        Ok(Self::Session {
            number,
            client_id,
            username: named.then_some(username),
            version,
            expiry: from.u32()?,
            created: from.u64()?,
            lost: from.u64()?,
        })
    }
}

/// Numbers up to the end.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, Truncated>,
) -> Result<Vec<T>, Unreadable> {
    let mut numbers = Vec::new();
    while !reader.is_empty() {
        numbers.push(read(reader)?);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn returns(record: &Record<'_>) {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        assert_eq!(Record::read(&bytes).as_ref(), Ok(record));
        assert_eq!(Record::read(&bytes[..bytes.len() - 1]).ok(), None);
    }

    proptest! {
        #[test]
        fn records_return_as_they_were(
            number: u32, place: u32, topic: String, payload: Vec<u8>, flag: bool, expires: u64
        ) {
            let message = Stored {
                topic: &topic, qos: Qos::ExactlyOnce, retain: flag, expires,
                properties: &payload, payload: &payload,
            };
            returns(&Record::Retained(message));
            returns(&Record::Message { id: number, message });
            returns(&Record::Session {
                number, client_id: &topic, username: flag.then_some(""), version: Version::V5,
                expiry: place, created: expires, lost: 0,
            });
            returns(&Record::Subscribed { number, filter: &topic, options: 9, identifier: place });
            returns(&Record::Sent { number, place, packet_id: 7, released: flag });
            returns(&Record::Gone { number, place });
            returns(&Record::Document { key: &topic, value: &payload });
            returns(&Record::DocumentGone(&topic));
            returns(&Record::SessionGone(number));
            returns(&Record::DelayedGone(number));
            returns(&Record::Delayed {
                number, due: expires, client_id: &topic, username: flag.then_some("u"), message,
            });
            returns(&Record::Unsubscribed { number, filter: &topic });
            returns(&Record::RetainedGone(&topic));
            let (ids, numbers) = (vec![place; 3], vec![5; 2]);
            let queued = Record::Queued {
                number, place, message: 3, qos: Qos::AtLeastOnce, retain: flag, ids,
            };
            let awaiting = Record::Awaiting { number, ids: numbers };
            for record in [queued, awaiting] {
                let mut bytes = Vec::new();
                record.write(&mut bytes);
                prop_assert_eq!(Record::read(&bytes), Ok(record));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Record::read(&bytes);
        }
    }
}
