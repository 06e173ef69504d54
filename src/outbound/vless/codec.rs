//! VLESS's request, answer and datagrams, to and from bytes (proxy-protocols.md 5.1).
//!
//! Pure. A request is a version, the user's id, addons, a command and an address; an answer a version
//! and addons. Datagrams have their length before them.

use std::fmt;
use std::io;

use crate::metadata::Endpoint;
use crate::outbound::mux::packet_address;
use crate::outbound::packets::{NoEncoding, Packet, PacketCodec};
use crate::outbound::scratch::Scratch;
use crate::outbound::socks_address::AddressError;
use crate::outbound::v2ray_address;
use crate::wire::{Reader, Truncated};

/// The longest request that is read: fixed part, addons, address.
pub const REQUEST_BYTES_MAX: usize = 1 + 16 + 1 + 255 + 1 + v2ray_address::ENCODED_MAX;

const VERSION: u8 = 0;

/// The tag of a flow in the addons: field 1, a string (protobuf).
const FLOW: u8 = 0x0a;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A stream to an endpoint.
    Stream(Endpoint),
    /// Datagrams to an endpoint.
    Packets(Endpoint),
    /// Streams and datagrams of mux.cool.
    Mux,
}

/// A request as a server reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The user's id as it was sent.
    pub id: [u8; 16],
    /// The flow, empty without one.
    pub flow: &'a [u8],
    /// What is asked for.
    pub command: Command,
    /// All of its bytes.
    pub length: usize,
}

/// Why bytes are no VLESS. Ends the connection, or sends it to a fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Another version.
    Version(u8),
    /// No such command.
    Command(u8),
    /// The addons are not what they should be.
    Addons,
    /// The address is none.
    Address(AddressError),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "unknown version {version}"),
            Self::Command(command) => write!(f, "unknown command {command}"),
            Self::Addons => f.write_str("malformed addons"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// A request.
///
/// # Errors
/// `InvalidInput`: the address has no encoding.
pub fn request(id: &[u8; 16], flow: &str, command: &Command) -> io::Result<Vec<u8>> {
    let invalid = |error: AddressError| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut out = Scratch::take(REQUEST_BYTES_MAX);
    let mut push = |bytes: &[u8]| out.push(bytes).map_err(|full| invalid(full.into()));
    push(&[VERSION])?;
    push(id)?;
    // Flows are names of this program's, all short; a longer one is none.
    let length = u8::try_from(flow.len()).ok().filter(|n| *n < 128);
    let length = length.unwrap_or(0);
    match length {
        0 => push(&[0])?,
        _ => {
            push(&[length + 2, FLOW, length])?;
            push(flow.as_bytes())?;
        }
    }
    let (number, to) = match command {
        Command::Stream(to) => (1, Some(to)),
        Command::Packets(to) => (2, Some(to)),
        Command::Mux => (3, None),
    };
    push(&[number])?;
    if let Some(to) = to {
        v2ray_address::encode(to, &mut out).map_err(invalid)?;
    }
    Ok(out.data().to_vec())
}

/// Reads a request; `None`: it goes on beyond the bytes.
///
/// # Errors
/// [`Malformed`].
pub fn decode_request(bytes: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
    match try_request(bytes) {
        Ok(request) => Ok(Some(request)),
        Err(Malformed::Address(AddressError::Truncated)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<Truncated> for Malformed {
    fn from(_: Truncated) -> Self {
        Self::Address(AddressError::Truncated)
    }
}

impl From<AddressError> for Malformed {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

fn try_request(bytes: &[u8]) -> Result<Request<'_>, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let id = reader.array()?;
    let length = reader.u8()?;
    let flow = flow(reader.take(usize::from(length))?)?;
    let command = match reader.u8()? {
        1 => Command::Stream(v2ray_address::decode(&mut reader)?),
        2 => Command::Packets(v2ray_address::decode(&mut reader)?),
        3 => Command::Mux,
        other => return Err(Malformed::Command(other)),
    };
    Ok(Request {
        id,
        flow,
        command,
        length: reader.position(),
    })
}

/// The flow of the addons; other fields are passed over.
fn flow(addons: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(addons);
    let mut flow = &[][..];
    while !reader.is_empty() {
        let wrong = |_| Malformed::Addons;
        let tag = reader.u8().map_err(wrong)?;
        // Both fields that there are have a length, and all of it is shorter than 128 bytes.
        let length = reader.u8().map_err(wrong)?;
        if tag & 7 != 2 || length > 127 {
            return Err(Malformed::Addons);
        }
        let value = reader.take(usize::from(length)).map_err(wrong)?;
        if tag == FLOW {
            flow = value;
        }
    }
    Ok(flow)
}

/// How long the answer's header is, once that can be told.
///
/// # Errors
/// [`Malformed::Version`].
pub fn answer_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    match bytes {
        [] | [VERSION] => Ok(None),
        [VERSION, length, ..] => Ok(Some(2 + usize::from(*length))),
        [version, ..] => Err(Malformed::Version(*version).into()),
    }
}

/// Datagrams with their length before them, to one destination or each with its address.
pub struct Packets {
    addressed: bool,
}

impl Packets {
    /// All to or from the request's destination.
    #[must_use]
    pub fn fixed() -> Self {
        Self { addressed: false }
    }

    /// Each with its address (packetaddr).
    #[must_use]
    pub fn addressed() -> Self {
        Self { addressed: true }
    }
}

impl PacketCodec for Packets {
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding> {
        out.push(&[0, 0])?;
        if self.addressed {
            packet_address::encode(address, out)?;
        }
        out.push(payload)?;
        let length = u16::try_from(out.len() - 2).map_err(|_| NoEncoding)?;
        if let Some(place) = out.data_mut().first_chunk_mut() {
            *place = length.to_be_bytes();
        }
        Ok(())
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>> {
        let mut reader = Reader::new(incoming.data());
        let Ok(length) = reader.u16() else {
            return Ok(None);
        };
        let Ok(packet) = reader.take(usize::from(length)) else {
            return Ok(None);
        };
        let (address, start) = match self.addressed {
            true => {
                let (address, start) = packet_address::decode(packet).map_err(Malformed::from)?;
                (Some(address), start)
            }
            false => (None, 0),
        };
        Ok(Some(Packet {
            address,
            payload: 2 + start..reader.position(),
            length: reader.position(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; 16] = [
        0x66, 0xad, 0x45, 0x40, 0xb5, 0x8c, 0x4a, 0xd2, 0x99, 0x26, 0xea, 0x63, 0x44, 0x5a, 0x9b,
        0x57,
    ];

    fn at(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    /// From a client that spoke to v2ray (proxy-protocols.md 14).
    #[test]
    fn a_request_matches_the_vector() {
        let bytes = request(&ID, "", &Command::Stream(at("127.0.0.1:443"))).unwrap();
        let want = [&[0][..], &ID, b"\0\x01\x01\xbb\x01\x7f\0\0\x01"].concat();
        assert_eq!(bytes, want);
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        for flow in ["", "xtls-rprx-vision"] {
            for command in [
                Command::Stream(at("a.b:80")),
                Command::Packets(at("[::1]:53")),
                Command::Mux,
            ] {
                let mut bytes = request(&ID, flow, &command).unwrap();
                let length = bytes.len();
                for cut in 0..length {
                    assert_eq!(decode_request(&bytes[..cut]), Ok(None));
                }
                bytes.push(7);
                let read = decode_request(&bytes).unwrap().unwrap();
                let flow = flow.as_bytes();
                let want = Request {
                    id: ID,
                    flow,
                    command: command.clone(),
                    length,
                };
                assert_eq!(read, want);
            }
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(decode_request(b"\x01"), Err(Malformed::Version(1)));
        let with = |rest: &[u8]| [&[0][..], &ID, rest].concat();
        let refused = |rest: &[u8]| decode_request(&with(rest)).unwrap_err();
        assert_eq!(refused(b"\0\x09"), Malformed::Command(9));
        assert_eq!(refused(b"\x02\x0a\x05\x01"), Malformed::Addons);
        assert_eq!(refused(b"\x02\x08\x01\x01"), Malformed::Addons);
        let kind = Malformed::Address(AddressError::Type(4));
        assert_eq!(refused(b"\0\x01\0\x50\x04"), kind);
        assert!(answer_length(b"\x01\0").is_err());
        assert_eq!(answer_length(b"\0\x03").unwrap(), Some(5));
    }

    #[test]
    fn datagrams_have_their_length_before_them() {
        let to = at("1.2.3.4:53");
        for (mut codec, want) in [
            (Packets::fixed(), &b"\0\x02hi"[..]),
            (Packets::addressed(), b"\0\x09\x01\x01\x02\x03\x04\0\x35hi"),
        ] {
            let mut out = Scratch::take(0);
            codec.encode(b"hi", &to, &mut out).unwrap();
            assert_eq!(out.data(), want);
            let packet = codec.decode(&mut out).unwrap().unwrap();
            assert_eq!(
                (&out.data()[packet.payload], packet.length),
                (&b"hi"[..], want.len())
            );
            assert_eq!(packet.address.is_some(), codec.addressed);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _request = decode_request(&[&[0][..], &bytes].concat());
            for mut codec in [Packets::fixed(), Packets::addressed()] {
                let mut incoming = Scratch::take(0);
                incoming.push(&bytes).unwrap();
                let _packet = codec.decode(&mut incoming);
            }
        }
    }
}
