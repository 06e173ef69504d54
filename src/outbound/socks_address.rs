//! Addresses in SOCKS5 form (RFC 1928 section 5): type, address, port.
//!
//! Pure. SOCKS5 and Shadowsocks write them alike; other protocols order them otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::metadata::{Endpoint, Host};
use crate::wire::{Reader, Truncated};

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The longest encoding: type, length, 255 bytes of name, port.
pub const ENCODED_MAX: usize = 1 + 1 + 255 + 2;

/// Why bytes are no address, or an endpoint has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The bytes end within the address.
    Truncated,
    /// No such address type.
    Type(u8),
    /// A name that is empty, longer than 255 bytes, or no host name.
    Name,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("address is truncated"),
            Self::Type(kind) => write!(f, "unknown address type {kind}"),
            Self::Name => f.write_str("bad host name in address"),
        }
    }
}

impl std::error::Error for AddressError {}

impl From<Truncated> for AddressError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// Appends `endpoint` to `out`.
///
/// # Errors
/// [`AddressError::Name`]; nothing is appended then.
pub fn encode(endpoint: &Endpoint, out: &mut Vec<u8>) -> Result<(), AddressError> {
    match &endpoint.host {
        Host::Ip(IpAddr::V4(ip)) => {
            out.push(IPV4);
            out.extend_from_slice(&ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            out.push(IPV6);
            out.extend_from_slice(&ip.octets());
        }
        Host::Name(name) => {
            let length = u8::try_from(name.len()).map_err(|_| AddressError::Name)?;
            if length == 0 {
                return Err(AddressError::Name);
            }
            out.extend_from_slice(&[NAME, length]);
            out.extend_from_slice(name.as_bytes());
        }
    }
    out.extend_from_slice(&endpoint.port.to_be_bytes());
    Ok(())
}

/// Takes one address. A literal in the form of a name becomes the address that it spells.
///
/// # Errors
/// [`AddressError`]; where the reader stands is then unspecified.
pub fn decode(reader: &mut Reader<'_>) -> Result<Endpoint, AddressError> {
    let host = match reader.u8()? {
        IPV4 => Host::from(IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?))),
        IPV6 => Host::from(IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?))),
        NAME => {
            let length = usize::from(reader.u8()?);
            let name = str::from_utf8(reader.take(length)?).map_err(|_| AddressError::Name)?;
            Host::parse(name).ok_or(AddressError::Name)?
        }
        kind => return Err(AddressError::Type(kind)),
    };
    let port = reader.u16()?;
    Ok(Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, bytes: &[u8]) {
        let endpoint = Endpoint::parse(text).unwrap();
        let mut out = Vec::new();
        encode(&endpoint, &mut out).unwrap();
        assert_eq!(out, bytes);
        assert_eq!(decode(&mut Reader::new(bytes)), Ok(endpoint));
    }

    #[test]
    fn each_type_has_its_form() {
        check("1.2.3.4:80", &[1, 1, 2, 3, 4, 0, 80]);
        check("a.b:256", &[3, 3, b'a', b'.', b'b', 1, 0]);
        let v6 = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 53];
        check("[::1]:53", &v6);
    }

    #[test]
    fn a_literal_sent_as_a_name_is_an_address() {
        let bytes = b"\x03\x071.2.3.4\x00\x50";
        let endpoint = decode(&mut Reader::new(bytes)).unwrap();
        assert_eq!(endpoint.to_string(), "1.2.3.4:80");
    }

    #[test]
    fn bad_types_and_names_are_refused() {
        let refused = |bytes: &[u8]| decode(&mut Reader::new(bytes)).unwrap_err();
        assert_eq!(refused(&[2, 0, 0]), AddressError::Type(2));
        assert_eq!(refused(&[3, 0, 0, 80]), AddressError::Name);
        assert_eq!(refused(&[3, 1, 0xff, 0, 80]), AddressError::Name);
        assert_eq!(refused(&[1, 1, 2, 3, 4, 0]), AddressError::Truncated);
        for name in [String::new(), "a".repeat(256)] {
            let host = Host::Name(name.into());
            let mut out = Vec::new();
            assert_eq!(
                encode(&Endpoint { host, port: 1 }, &mut out),
                Err(AddressError::Name)
            );
            assert!(out.is_empty());
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(endpoint) = decode(&mut Reader::new(&bytes)) {
                let mut out = Vec::new();
                encode(&endpoint, &mut out).unwrap();
                prop_assert!(out.len() <= ENCODED_MAX);
                prop_assert_eq!(decode(&mut Reader::new(&out)), Ok(endpoint));
            }
        }
    }
}
