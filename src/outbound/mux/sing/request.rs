//! What sing-mux says before a session and before each stream of it (proxy-protocols.md 10.4).
//!
//! Pure but for the randomness of padding.

use std::io;

use crate::metadata::Endpoint;
use crate::outbound::framed::{Codec, Step, too_long};
use crate::outbound::packets::{NoEncoding, Packet, PacketCodec};
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::outbound::socks_address::{self, AddressError};
use crate::wire::Reader;

/// What a session runs by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `smux`.
    Smux = 0,
    /// `yamux`.
    Yamux = 1,
    /// `h2mux`.
    #[default]
    H2mux = 2,
}

/// Reads and writes that are padded at the start of a session.
const PADDED: u8 = 16;

/// The shortest padding, and how much longer it may be.
const PADDING_MIN: u16 = 256;
const PADDING_MORE: u16 = 512;

/// The destination that asks a server for a session.
pub const SESSION_HOST: &str = "sp.mux.sing-box.arpa";
/// Its port.
pub const SESSION_PORT: u16 = 444;

fn padding_length() -> io::Result<u16> {
    let mut noise = [0; 2];
    random::fill(&mut noise)?;
    Ok(PADDING_MIN + u16::from_be_bytes(noise) % PADDING_MORE)
}

/// What goes before a session.
///
/// # Errors
/// The system has no randomness.
pub fn session(protocol: Protocol, padding: bool) -> io::Result<Vec<u8>> {
    if !padding {
        return Ok(vec![0, protocol as u8]);
    }
    let length = padding_length()?;
    let mut out = vec![1, protocol as u8, 1];
    out.extend_from_slice(&length.to_be_bytes());
    out.resize(out.len() + usize::from(length), 0);
    Ok(out)
}

/// What goes before a stream to `to`, or before datagrams that each name their target.
///
/// # Errors
/// `InvalidInput`: the address has no encoding.
pub fn stream(to: &Endpoint, datagrams: bool) -> io::Result<Vec<u8>> {
    let mut out = vec![0, if datagrams { 3 } else { 0 }];
    socks_address::encode(to, &mut out)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(out)
}

/// How long the answer to that is: a zero. `None`: read more.
///
/// # Errors
/// The server could not connect; what it says of it is passed over, as it is the server's own.
pub fn answer_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    match bytes.first() {
        None => Ok(None),
        Some(0) => Ok(Some(1)),
        Some(_) => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// Datagrams with their address and length before them.
pub struct Packets;

impl PacketCodec for Packets {
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding> {
        let mut head = Vec::with_capacity(socks_address::ENCODED_MAX + 2);
        socks_address::encode(address, &mut head)?;
        let length = u16::try_from(payload.len()).map_err(|_| NoEncoding)?;
        head.extend_from_slice(&length.to_be_bytes());
        out.push(&head)?;
        Ok(out.push(payload)?)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>> {
        let mut reader = Reader::new(incoming.data());
        let address = match socks_address::decode(&mut reader) {
            Ok(address) => address,
            Err(AddressError::Truncated) => return Ok(None),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let Ok(length) = reader.u16() else {
            return Ok(None);
        };
        let start = reader.position();
        let end = start + usize::from(length);
        Ok((end <= incoming.len()).then_some(Packet {
            address: Some(address),
            payload: start..end,
            length: end,
        }))
    }
}

/// The first reads and writes of a padded session; then bytes as they are.
#[derive(Default)]
pub struct Padding {
    sent: u8,
    received: u8,
    /// What is still to come of a frame's data, and of the padding behind it.
    data: usize,
    padding: usize,
}

impl Codec for Padding {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        let extra = 4 + usize::from(PADDING_MIN + PADDING_MORE);
        let room = match self.sent {
            PADDED.. => out.spare().len(),
            _ => out.spare().len().saturating_sub(extra),
        };
        let part = payload.get(..room.min(0xffff)).unwrap_or(payload);
        if part.is_empty() {
            return Ok(0);
        }
        if self.sent >= PADDED {
            out.push(part).map_err(too_long)?;
            return Ok(part.len());
        }
        self.sent += 1;
        let padding = padding_length()?;
        let length = u16::try_from(part.len()).unwrap_or_default();
        out.push(&length.to_be_bytes()).map_err(too_long)?;
        out.push(&padding.to_be_bytes()).map_err(too_long)?;
        out.push(part).map_err(too_long)?;
        out.push(&vec![0; padding.into()]).map_err(too_long)?;
        Ok(part.len())
    }

    fn room(&self, payload: usize) -> usize {
        payload + 4 + usize::from(PADDING_MIN + PADDING_MORE)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        loop {
            if self.data > 0 {
                let here = self.data.min(incoming.len());
                self.data -= here;
                return Ok(match here {
                    0 => Step::NeedMore(1),
                    here => Step::Opened(here, 0),
                });
            }
            if self.padding > 0 {
                let here = self.padding.min(incoming.len());
                incoming.consume(here);
                self.padding -= here;
                if here == 0 {
                    return Ok(Step::NeedMore(1));
                }
                continue;
            }
            if self.received >= PADDED {
                return Ok(match incoming.len() {
                    0 => Step::NeedMore(1),
                    here => Step::Opened(here, 0),
                });
            }
            let mut reader = Reader::new(incoming.data());
            let (Ok(data), Ok(padding)) = (reader.u16(), reader.u16()) else {
                return Ok(Step::NeedMore(4));
            };
            (self.data, self.padding) = (data.into(), padding.into());
            self.received += 1;
            incoming.consume(4);
        }
    }

    fn may_end(&self) -> bool {
        self.data == 0 && self.padding == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_sing_mux_writes_them() {
        assert_eq!(session(Protocol::H2mux, false).unwrap(), [0, 2]);
        let padded = session(Protocol::Smux, true).unwrap();
        let length = usize::from(u16::from_be_bytes([padded[3], padded[4]]));
        assert_eq!((&padded[..3], padded.len()), (&[1, 0, 1][..], 5 + length));
        assert!((256..768).contains(&length));
        let to = Endpoint::parse("1.2.3.4:80").unwrap();
        assert_eq!(stream(&to, false).unwrap(), [0, 0, 1, 1, 2, 3, 4, 0, 80]);
        assert_eq!(stream(&to, true).unwrap()[..2], [0, 3]);
        assert_eq!(answer_length(b"").unwrap(), None);
        assert_eq!(answer_length(b"\0x").unwrap(), Some(1));
        assert!(answer_length(b"\x01\x03abc").is_err());
    }

    #[test]
    fn datagrams_carry_their_address() {
        let to = Endpoint::parse("a.test:53").unwrap();
        let mut out = Scratch::take(0);
        Packets.encode(b"hi", &to, &mut out).unwrap();
        assert_eq!(out.data(), b"\x03\x06a.test\0\x35\0\x02hi");
        for cut in 0..out.len() {
            let mut part = Scratch::take(0);
            part.push(&out.data()[..cut]).unwrap();
            assert!(Packets.decode(&mut part).unwrap().is_none());
        }
        let packet = Packets.decode(&mut out).unwrap().unwrap();
        assert_eq!((packet.address, packet.length), (Some(to), out.len()));
    }

    #[test]
    fn sixteen_writes_are_padded_and_read_in_pieces_of_any_size() {
        for step in [1, 5, 1000] {
            let (mut sender, mut receiver) = (Padding::default(), Padding::default());
            let (mut wire, mut incoming, mut read) = (Vec::new(), Scratch::large(), Vec::new());
            for _ in 0..20 {
                let mut out = Scratch::large();
                assert_eq!(sender.encode(b"hello", &mut out).unwrap(), 5);
                wire.extend_from_slice(out.data());
            }
            assert!(wire.len() > 16 * (4 + 5 + 256));
            assert!(wire.ends_with(b"hellohellohellohello"));
            for piece in wire.chunks(step) {
                incoming.push(piece).unwrap();
                while let Step::Opened(n, 0) = receiver.decode(&mut incoming).unwrap() {
                    read.extend_from_slice(&incoming.data()[..n]);
                    incoming.consume(n);
                }
            }
            assert_eq!(read, b"hello".repeat(20));
            assert!(receiver.may_end());
        }
    }
}
