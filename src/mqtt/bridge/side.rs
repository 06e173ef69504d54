//! One end of a bridge: its buffers, its packets, and whether it still lives.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf, split};

use crate::mqtt::client::Ended;
use crate::mqtt::codec::{
    Framed, Malformed, Packet, Properties, Subscribe, Version, decode, encode, frame,
};
use crate::outbound::carrier::Carrier;

/// Bytes that may wait for a side; nothing is read for it while more do.
const UNSENT_MAX: usize = 64 * 1024;

/// Room for one read.
const READ_BYTES: usize = 8 * 1024;

/// The packet identifier of our SUBSCRIBE: messages get there last.
const SUBSCRIBE_ID: u16 = u16::MAX;

/// How long an answer to PINGREQ may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection: what was read and not taken, what is to be written.
pub(super) struct Side {
    pub reader: ReadHalf<Carrier>,
    pub writer: WriteHalf<Carrier>,
    pub input: Vec<u8>,
    pub out: Vec<u8>,
    /// Bytes of `out` that are written.
    pub written: usize,
    /// What was written may stay in a buffer beneath.
    pub unflushed: bool,
}

impl Side {
    pub fn new(carrier: Carrier) -> Self {
        let (reader, writer) = split(carrier);
        Self {
            reader,
            writer,
            input: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
        }
    }

    pub fn is_full(&self) -> bool {
        self.out.len() - self.written >= UNSENT_MAX
    }

    /// Gives room back when a burst is over.
    pub fn tidy(&mut self) {
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(READ_BYTES);
            self.written = 0;
        }
        if self.input.is_empty() {
            self.input.shrink_to(READ_BYTES);
        }
    }
}

/// Reads something behind what is there. May be given up and begun anew.
pub(super) async fn read(reader: &mut ReadHalf<Carrier>, input: &mut Vec<u8>) -> io::Result<()> {
    input.reserve(READ_BYTES);
    match reader.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What ends a connection whose bytes are no packets.
pub(super) fn malformed(why: Malformed) -> io::Error {
    io::Error::other(Ended::Malformed(why))
}

/// Takes the whole packets at the beginning of `input`.
pub(super) fn take(
    input: &mut Vec<u8>,
    version: Version,
    packet_max: usize,
    mut show: impl FnMut(&Packet<'_>) -> Result<(), Ended>,
) -> io::Result<()> {
    let mut at = 0;
    while let Some(rest) = input.get(at..)
        && let Framed::Whole(whole) = frame(rest, packet_max).map_err(malformed)?
    {
        let packet = decode(whole, version).map_err(malformed)?;
        show(&packet).map_err(io::Error::other)?;
        at += whole.length;
    }
    input.drain(..at);
    Ok(())
}

/// Appends SUBSCRIBE, if there is something to subscribe to.
pub(super) fn put_subscribe(filters: &[(Box<str>, u8)], version: Version, out: &mut Vec<u8>) {
    if filters.is_empty() {
        return;
    }
    let mut list = Vec::new();
    for (filter, options) in filters {
        let length = u16::try_from(filter.len()).unwrap_or(u16::MAX);
        list.extend(length.to_be_bytes());
        list.extend(filter.as_bytes());
        list.push(*options);
    }
    let subscribe = Subscribe {
        packet_id: SUBSCRIBE_ID,
        properties: Properties::default(),
        list: &list,
    };
    encode(&Packet::Subscribe(subscribe), version, out);
}

/// When a connection was heard of, and when it is asked.
pub(super) struct Life {
    keep_alive: Duration,
    pub heard: Instant,
    pub spoke: Instant,
    pub asked: Option<Instant>,
}

impl Life {
    /// A connection that begins; `keep_alive` in seconds, 0: it is never asked.
    pub fn new(keep_alive: u16, now: Instant) -> Self {
        Self {
            keep_alive: Duration::from_secs(keep_alive.into()),
            heard: now,
            spoke: now,
            asked: None,
        }
    }

    fn due(&self) -> Option<Instant> {
        if self.keep_alive.is_zero() {
            return None;
        }
        Some(match self.asked {
            Some(asked) => asked + ANSWER_TIME_MAX,
            // A little before the other side expects it.
            None => self.heard.min(self.spoke) + self.keep_alive * 3 / 4,
        })
    }

    /// How long until [`Life::tick`] has something to do.
    pub fn wait(&self, now: Instant) -> Duration {
        let due = self.due();
        due.map_or(Duration::from_secs(3600), |due| {
            due.saturating_duration_since(now)
        })
    }

    /// Asks for a sign of life, or gives up.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> io::Result<()> {
        if self.due().is_none_or(|due| now < due) {
            return Ok(());
        }
        if self.asked.is_some() {
            return Err(io::Error::other(Ended::Silent));
        }
        encode(&Packet::PingReq, Version::V4, out);
        self.asked = Some(now);
        self.spoke = now;
        Ok(())
    }
}
