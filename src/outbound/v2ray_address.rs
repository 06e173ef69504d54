//! Addresses in V2Ray's form: port, type, address. VMess, VLESS and their multiplexing write them so.
//!
//! Pure. The types have other numbers than SOCKS5's (proxy-protocols.md 1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::scratch::{Full, Scratch};
use super::socks_address::AddressError;
use crate::metadata::{Endpoint, Host};
use crate::wire::Reader;

const IPV4: u8 = 1;
const NAME: u8 = 2;
const IPV6: u8 = 3;

/// The longest encoding: port, type, length, 255 bytes of name.
pub const ENCODED_MAX: usize = 2 + 1 + 1 + 255;

impl From<Full> for AddressError {
    fn from(_: Full) -> Self {
        Self::Truncated
    }
}

/// Appends `endpoint` to `out`.
///
/// # Errors
/// [`AddressError::Name`] for a name that is empty or too long, [`AddressError::Truncated`] when
/// `out` is full.
pub fn encode(endpoint: &Endpoint, out: &mut Scratch) -> Result<(), AddressError> {
    out.push(&endpoint.port.to_be_bytes())?;
    match &endpoint.host {
        Host::Ip(IpAddr::V4(ip)) => {
            out.push(&[IPV4])?;
            out.push(&ip.octets())?;
        }
        Host::Ip(IpAddr::V6(ip)) => {
            out.push(&[IPV6])?;
            out.push(&ip.octets())?;
        }
        Host::Name(name) => {
            let length = u8::try_from(name.len()).map_err(|_| AddressError::Name)?;
            if length == 0 {
                return Err(AddressError::Name);
            }
            out.push(&[NAME, length])?;
            out.push(name.as_bytes())?;
        }
    }
    Ok(())
}

/// Takes one address. A literal in the form of a name becomes the address that it spells.
///
/// # Errors
/// [`AddressError`]; where the reader stands is then unspecified.
pub fn decode(reader: &mut Reader<'_>) -> Result<Endpoint, AddressError> {
    let port = reader.u16()?;
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
    Ok(Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, bytes: &[u8]) {
        let endpoint = Endpoint::parse(text).unwrap();
        let mut out = Scratch::take(0);
        encode(&endpoint, &mut out).unwrap();
        assert_eq!(out.data(), bytes);
        assert_eq!(decode(&mut Reader::new(bytes)), Ok(endpoint));
    }

    #[test]
    fn the_port_comes_first_and_types_have_their_own_numbers() {
        check("127.0.0.1:443", &[1, 0xbb, 1, 127, 0, 0, 1]);
        check("a.b:53", &[0, 53, 2, 3, b'a', b'.', b'b']);
        let v6 = [0, 53, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        check("[::1]:53", &v6);
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(endpoint) = decode(&mut Reader::new(&bytes)) {
                let mut out = Scratch::take(0);
                encode(&endpoint, &mut out).unwrap();
                prop_assert!(out.len() <= ENCODED_MAX);
                prop_assert_eq!(decode(&mut Reader::new(out.data())), Ok(endpoint));
            }
        }
    }
}
