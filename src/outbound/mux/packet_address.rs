//! packetaddr: a datagram's address before it, where the protocol knows one destination alone
//! (proxy-protocols.md 1 and 10.3).
//!
//! Pure. The destination's name says that it is spoken. Addresses are never names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::metadata::{Endpoint, Host};
use crate::outbound::scratch::Scratch;
use crate::outbound::socks_address::AddressError;
use crate::wire::Reader;

/// The destination that stands for all.
pub const TARGET: &str = "sp.packet-addr.v2fly.arpa";

const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// [`TARGET`] as a destination.
#[must_use]
pub fn target() -> Endpoint {
    Endpoint {
        host: Host::Name(TARGET.into()),
        port: 0,
    }
}

/// Whether datagrams to `to` have their addresses before them.
#[must_use]
pub fn is_target(to: &Endpoint) -> bool {
    matches!(&to.host, Host::Name(name) if **name == *TARGET)
}

/// Appends an address.
///
/// # Errors
/// It is a name, or does not fit.
pub fn encode(address: &Endpoint, out: &mut Scratch) -> Result<(), AddressError> {
    match address.host {
        Host::Ip(IpAddr::V4(ip)) => {
            out.push(&[IPV4])?;
            out.push(&ip.octets())?;
        }
        Host::Ip(IpAddr::V6(ip)) => {
            out.push(&[IPV6])?;
            out.push(&ip.octets())?;
        }
        Host::Name(_) => return Err(AddressError::Name),
    }
    Ok(out.push(&address.port.to_be_bytes())?)
}

/// The address at the start of `packet`, and how long it is.
///
/// # Errors
/// There is none.
pub fn decode(packet: &[u8]) -> Result<(Endpoint, usize), AddressError> {
    let mut reader = Reader::new(packet);
    let host = match reader.u8()? {
        IPV4 => Host::from(IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?))),
        IPV6 => Host::from(IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?))),
        kind => return Err(AddressError::Type(kind)),
    };
    let port = reader.u16()?;
    Ok((Endpoint { host, port }, reader.position()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_before_the_datagram_and_are_no_names() {
        let v4 = Endpoint::parse("1.2.3.4:53").unwrap();
        let mut out = Scratch::take(0);
        encode(&v4, &mut out).unwrap();
        assert_eq!(out.data(), [1, 1, 2, 3, 4, 0, 53]);
        out.push(b"hi").unwrap();
        assert_eq!(decode(out.data()), Ok((v4, 7)));
        let v6 = Endpoint::parse("[::1]:53").unwrap();
        let mut out = Scratch::take(0);
        encode(&v6, &mut out).unwrap();
        assert_eq!(decode(out.data()), Ok((v6, 19)));
        assert_eq!(decode(&[3, 1, b'a', 0, 53]), Err(AddressError::Type(3)));
        assert_eq!(decode(&[1, 1, 2]), Err(AddressError::Truncated));
        assert_eq!(encode(&target(), &mut out), Err(AddressError::Name));
    }
}
