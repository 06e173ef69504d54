//! Trojan's request and datagrams, to and from bytes (proxy-protocols.md 6).
//!
//! Pure. A request is the user's key in hexadecimal, a line's end, command and address, a line's
//! end; there is no answer. Datagrams have their address before them.

use std::fmt;
use std::io;

use crate::encoding::HEX;
use sha2::{Digest, Sha224};

use crate::metadata::Endpoint;
use crate::outbound::packets::{NoEncoding, Packet, PacketCodec};
use crate::outbound::scratch::Scratch;
use crate::outbound::socks_address::{self, AddressError};
use crate::wire::Reader;

/// Hexadecimal digits of a key.
pub const KEY_DIGITS: usize = 56;

/// The longest request: key, command, address, two line ends.
pub const REQUEST_BYTES_MAX: usize = KEY_DIGITS + 2 + 1 + socks_address::ENCODED_MAX + 2;

/// The longest datagram that servers take (Xray's buffer).
const PAYLOAD_MAX: usize = 8192;

const LINE_END: &[u8; 2] = b"\r\n";

/// What a user is known by: the SHA-224 of the password, as it is sent. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct UserKey(pub [u8; KEY_DIGITS]);

impl UserKey {
    /// The key of this password.
    #[must_use]
    pub fn of(password: &str) -> Self {
        let mut digits = [0; KEY_DIGITS];
        HEX.encode_into(&Sha224::digest(password.as_bytes()), &mut digits);
        Self(digits)
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(..)")
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A stream.
    Connect = 1,
    /// Datagrams.
    Associate = 3,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// What should be a line's end is none.
    LineEnd,
    /// No such command.
    Command(u8),
    /// The address is none.
    Address(AddressError),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineEnd => f.write_str("no line end where one belongs"),
            Self::Command(command) => write!(f, "unknown command {command}"),
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
pub fn request(key: &UserKey, command: Command, to: &Endpoint) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(REQUEST_BYTES_MAX);
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(LINE_END);
    bytes.push(command as u8);
    socks_address::encode(to, &mut bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    bytes.extend_from_slice(LINE_END);
    Ok(bytes)
}

/// Datagrams of an association.
pub struct Packets;

impl PacketCodec for Packets {
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding> {
        if payload.len() > PAYLOAD_MAX {
            return Err(NoEncoding);
        }
        let length = u16::try_from(payload.len()).map_err(|_| NoEncoding)?;
        let mut head = Vec::with_capacity(32);
        socks_address::encode(address, &mut head)?;
        head.extend_from_slice(&length.to_be_bytes());
        head.extend_from_slice(LINE_END);
        out.push(&head)?;
        Ok(out.push(payload)?)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>> {
        let mut reader = Reader::new(incoming.data());
        let address = match socks_address::decode(&mut reader) {
            Ok(address) => address,
            Err(AddressError::Truncated) => return Ok(None),
            Err(error) => return Err(Malformed::Address(error).into()),
        };
        let (Ok(length), Ok(end)) = (reader.u16(), reader.array()) else {
            return Ok(None);
        };
        if &end != LINE_END {
            return Err(Malformed::LineEnd.into());
        }
        let start = reader.position();
        let end = start + usize::from(length);
        let packet = Packet {
            address: Some(address),
            payload: start..end,
            length: end,
        };
        Ok((incoming.len() >= end).then_some(packet))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The digest is proxy-protocols.md's, computed by another program.
    #[test]
    fn a_request_is_key_command_and_address() {
        let key = UserKey::of("password");
        let to = Endpoint::parse("example.com:443").unwrap();
        let bytes = request(&key, Command::Connect, &to).unwrap();
        let want = b"d63dc919e201d7bc4c825630d2cf25fdc93d4b2f0d46706d29038d01\r\n\x01\x03\x0bexample.com\x01\xbb\r\n";
        assert_eq!(bytes, want);
        assert!(!format!("{key:?}").contains("d63d"));
    }

    #[test]
    fn datagrams_carry_their_address() {
        let to = Endpoint::parse("1.2.3.4:53").unwrap();
        let mut out = Scratch::take(0);
        Packets.encode(b"hi", &to, &mut out).unwrap();
        let bytes = b"\x01\x01\x02\x03\x04\0\x35\0\x02\r\nhi";
        assert_eq!(out.data(), bytes);
        let scratch = |bytes: &[u8]| {
            let mut scratch = Scratch::take(0);
            scratch.push(bytes).unwrap();
            scratch
        };
        for cut in 0..bytes.len() {
            assert!(
                Packets
                    .decode(&mut scratch(&bytes[..cut]))
                    .unwrap()
                    .is_none()
            );
        }
        let packet = Packets.decode(&mut out).unwrap().unwrap();
        assert_eq!((packet.address, packet.length), (Some(to.clone()), 13));
        assert_eq!(&bytes[packet.payload], b"hi");
        let long = vec![0; PAYLOAD_MAX + 1];
        assert_eq!(Packets.encode(&long, &to, &mut out), Err(NoEncoding));
        let bad = b"\x01\x01\x02\x03\x04\0\x35\0\x02hihi";
        assert!(Packets.decode(&mut scratch(bad)).is_err());
    }

    proptest! {
        #[test]
        fn random_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let length = bytes.len();
            let mut incoming = Scratch::take(0);
            incoming.push(&bytes).unwrap();
            if let Ok(Some(packet)) = Packets.decode(&mut incoming) {
                prop_assert!(packet.length <= length && packet.payload.end <= length);
            }
        }
    }
}
