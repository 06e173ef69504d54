//! SOCKS 4, 4a and 5 messages as a server reads and writes them (RFC 1928, RFC 1929, and the
//! memos SOCKS and SOCKS 4A of Ying-Da Lee), to and from bytes.
//!
//! Pure. A reader answers the message and how many bytes it took, `None` while the message goes
//! on beyond the bytes, or [`Malformed`]. No message is longer than [`MESSAGE_BYTES_MAX`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::metadata::{Endpoint, Host};
use crate::outbound::socks_address::{self, AddressError};
use crate::wire::{Reader, Truncated};

/// The longest message: user name and password of RFC 1929, or SOCKS 4a with both strings.
pub const MESSAGE_BYTES_MAX: usize = 8 + 2 * (STRING_BYTES_MAX + 1);

/// The longest user name or host name of SOCKS 4; the memo sets no limit.
const STRING_BYTES_MAX: usize = 255;

/// First byte of a SOCKS 4 request.
pub const VERSION_4: u8 = 4;
/// First byte of a SOCKS 5 greeting and request.
pub const VERSION_5: u8 = 5;

/// Why a client's bytes are no SOCKS message. Always fatal to that connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The message has another version than the conversation.
    Version(u8),
    /// The address is of no known type.
    AddressType(u8),
    /// The host name is none.
    Name,
    /// A SOCKS 4 string has no end within its limit.
    Endless,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "unexpected SOCKS version {version}"),
            Self::AddressType(kind) => write!(f, "unknown address type {kind}"),
            Self::Name => f.write_str("not a host name"),
            Self::Endless => f.write_str("endless string"),
        }
    }
}

/// A message and its length, or `None`: read more.
pub type Decoded<T> = Result<Option<(T, usize)>, Malformed>;

/// Authentication methods that a client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    /// 00: none.
    pub none: bool,
    /// 02: user name and password.
    pub password: bool,
}

/// The chosen method, as the server answers a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// No authentication.
    None = 0,
    /// User name and password.
    Password = 2,
    /// None of the offered ones will do.
    Unacceptable = 0xff,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 1: a stream.
    Connect,
    /// 3: datagrams (SOCKS 5 only).
    Associate,
    /// BIND and whatever else: answered with a refusal.
    Other(u8),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub command: Command,
    /// Where to.
    pub destination: Endpoint,
}

/// SOCKS 5 reply codes (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Granted.
    Succeeded = 0,
    /// General failure.
    Failure = 1,
    /// Unknown command.
    CommandNotSupported = 7,
    /// Unknown address type.
    AddressTypeNotSupported = 8,
}

/// A SOCKS 5 greeting.
///
/// # Errors
/// [`Malformed::Version`].
pub fn greeting(bytes: &[u8]) -> Decoded<Methods> {
    let Some((mut reader, count)) = versioned(bytes, VERSION_5)? else {
        return Ok(None);
    };
    Ok(reader.take(usize::from(count)).ok().map(|offered| {
        let methods = Methods {
            none: offered.contains(&0),
            password: offered.contains(&2),
        };
        (methods, reader.position())
    }))
}

/// User name and password (RFC 1929).
///
/// # Errors
/// [`Malformed::Version`]: the negotiation's version is 1.
pub fn login(bytes: &[u8]) -> Decoded<(&[u8], &[u8])> {
    let Some((mut reader, length)) = versioned(bytes, 1)? else {
        return Ok(None);
    };
    let mut fields = || {
        let username = reader.take(usize::from(length))?;
        let length = reader.u8()?;
        let password = reader.take(usize::from(length))?;
        Ok::<_, Truncated>(((username, password), reader.position()))
    };
    Ok(fields().ok())
}

/// A SOCKS 5 request.
///
/// # Errors
/// [`Malformed`].
pub fn request(bytes: &[u8]) -> Decoded<Request> {
    let Some((mut reader, command)) = versioned(bytes, VERSION_5)? else {
        return Ok(None);
    };
    if reader.u8().is_err() {
        return Ok(None);
    }
    let destination = match socks_address::decode(&mut reader) {
        Ok(destination) => destination,
        Err(AddressError::Truncated) => return Ok(None),
        Err(AddressError::Type(kind)) => return Err(Malformed::AddressType(kind)),
        Err(AddressError::Name) => return Err(Malformed::Name),
    };
    let command = match command {
        1 => Command::Connect,
        3 => Command::Associate,
        other => Command::Other(other),
    };
    let request = Request {
        command,
        destination,
    };
    Ok(Some((request, reader.position())))
}

/// A SOCKS 4 or 4a request with its user name.
///
/// # Errors
/// [`Malformed`].
pub fn request_4(bytes: &[u8]) -> Decoded<(Request, &[u8])> {
    let Some((mut reader, command)) = versioned(bytes, VERSION_4)? else {
        return Ok(None);
    };
    let (Ok(port), Ok(address)) = (reader.u16(), reader.array::<4>()) else {
        return Ok(None);
    };
    let Some(user) = string(&mut reader)? else {
        return Ok(None);
    };
    let host = match address {
        // SOCKS 4A: an impossible address says that the name follows.
        [0, 0, 0, last] if last != 0 => {
            let Some(name) = string(&mut reader)? else {
                return Ok(None);
            };
            let name = str::from_utf8(name).map_err(|_| Malformed::Name)?;
            Host::parse(name).ok_or(Malformed::Name)?
        }
        address => Host::Ip(IpAddr::V4(Ipv4Addr::from(address))),
    };
    let command = match command {
        1 => Command::Connect,
        other => Command::Other(other),
    };
    let request = Request {
        command,
        destination: Endpoint { host, port },
    };
    Ok(Some(((request, user), reader.position())))
}

/// The second byte of a message that begins with `version`.
fn versioned(bytes: &[u8], version: u8) -> Result<Option<(Reader<'_>, u8)>, Malformed> {
    let mut reader = Reader::new(bytes);
    match reader.u8() {
        Ok(given) if given != version => Err(Malformed::Version(given)),
        Ok(_) => Ok(reader.u8().ok().map(|second| (reader, second))),
        Err(Truncated) => Ok(None),
    }
}

/// A string that ends with a zero byte.
fn string<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    let rest = reader.rest();
    let Some(length) = rest.iter().take(STRING_BYTES_MAX + 1).position(|b| *b == 0) else {
        return if rest.len() > STRING_BYTES_MAX {
            Err(Malformed::Endless)
        } else {
            Ok(None)
        };
    };
    let string = reader.take(length + 1).unwrap_or_default();
    Ok(string.strip_suffix(&[0]))
}

/// The answer to a request, with the address that the server bound for it.
#[must_use]
pub fn reply(code: Reply, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION_5, code as u8, 0];
    append(&bound.into(), &mut bytes);
    bytes
}

/// The answer to a SOCKS 4 request.
#[must_use]
pub fn reply_4(granted: bool) -> [u8; 8] {
    [0, if granted { 0x5a } else { 0x5b }, 0, 0, 0, 0, 0, 0]
}

/// Address and payload of a client's datagram (RFC 1928 section 7); `None`: to be dropped, as
/// malformed ones and fragments are.
#[must_use]
pub fn datagram(bytes: &[u8]) -> Option<(Endpoint, &[u8])> {
    let mut reader = Reader::new(bytes);
    let [_, _, 0] = reader.array().ok()? else {
        return None;
    };
    let to = socks_address::decode(&mut reader).ok()?;
    Some((to, reader.rest()))
}

/// A datagram for the client with `payload` that came from `from`.
#[must_use]
pub fn reply_datagram(from: &Endpoint, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + 1 + 16 + 2 + payload.len());
    bytes.extend_from_slice(&[0, 0, 0]);
    append(from, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// Appends an address. A name that has no encoding, which no reply has, becomes 0.0.0.0:0.
fn append(address: &Endpoint, bytes: &mut Vec<u8>) {
    if socks_address::encode(address, bytes).is_err() {
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    #[test]
    fn a_greeting_lists_methods() {
        let methods = |none, password| Methods { none, password };
        assert_eq!(
            greeting(b"\x05\x02\x00\x02"),
            Ok(Some((methods(true, true), 4)))
        );
        assert_eq!(
            greeting(b"\x05\x01\x02rest"),
            Ok(Some((methods(false, true), 3)))
        );
        assert_eq!(greeting(b"\x05\x00"), Ok(Some((methods(false, false), 2))));
        assert_eq!(greeting(b"\x05\x02\x00"), Ok(None));
        assert_eq!(greeting(b"\x06"), Err(Malformed::Version(6)));
    }

    #[test]
    fn a_login_has_name_and_password() {
        assert_eq!(
            login(b"\x01\x01u\x02pwX"),
            Ok(Some(((&b"u"[..], &b"pw"[..]), 6)))
        );
        assert_eq!(login(b"\x01\x00\x00"), Ok(Some(((&b""[..], &b""[..]), 3))));
        assert_eq!(login(b"\x01\x01u\x02p"), Ok(None));
        assert_eq!(login(b"\x05"), Err(Malformed::Version(5)));
    }

    #[test]
    fn a_request_names_its_destination() {
        let connect = |destination| Request {
            command: Command::Connect,
            destination,
        };
        assert_eq!(
            request(b"\x05\x01\x00\x03\x05A.org\x01\xbbhello"),
            Ok(Some((connect(to("a.org:443")), 12)))
        );
        assert_eq!(
            request(b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"),
            Ok(Some((connect(to("1.2.3.4:80")), 10)))
        );
        let associate = request(b"\x05\x03\x00\x01\0\0\0\0\0\0").unwrap().unwrap();
        assert_eq!(associate.0.command, Command::Associate);
        let bind = request(b"\x05\x02\x00\x01\0\0\0\0\0\0").unwrap().unwrap();
        assert_eq!(bind.0.command, Command::Other(2));
        assert_eq!(request(b"\x05\x01\x00\x09"), Err(Malformed::AddressType(9)));
        assert_eq!(
            request(b"\x05\x01\x00\x03\x03a b\0\0"),
            Err(Malformed::Name)
        );
        assert_eq!(request(b"\x04\x01"), Err(Malformed::Version(4)));
    }

    #[test]
    fn socks_4_sends_an_address_and_4a_a_name() {
        let decode = |bytes| request_4(bytes).unwrap().unwrap();
        let ((plain, user), length) = decode(b"\x04\x01\x00\x50\x01\x02\x03\x04me\0");
        assert_eq!(
            (plain.destination, user, length),
            (to("1.2.3.4:80"), &b"me"[..], 11)
        );
        let ((named, user), length) = decode(b"\x04\x01\x00\x50\0\0\0\x01\0b.org\0x");
        assert_eq!(
            (named.destination, user, length),
            (to("b.org:80"), &b""[..], 15)
        );
        assert_eq!(request_4(b"\x04\x01\x00\x50\0\0\0\x01\0b.org"), Ok(None));
        assert_eq!(
            request_4(b"\x04\x01\x00\x50\0\0\0\x01\0\0"),
            Err(Malformed::Name)
        );
    }

    #[test]
    fn socks_4_strings_end_within_their_limit() {
        let mut bytes = b"\x04\x01\x00\x50\x01\x02\x03\x04".to_vec();
        bytes.extend([b'u'; STRING_BYTES_MAX]);
        assert_eq!(request_4(&bytes), Ok(None));
        bytes.push(b'u');
        assert_eq!(request_4(&bytes), Err(Malformed::Endless));
    }

    #[test]
    fn fragments_and_broken_datagrams_are_dropped() {
        assert_eq!(
            datagram(b"\0\0\0\x01\x01\x02\x03\x04\0\x35data"),
            Some((to("1.2.3.4:53"), &b"data"[..]))
        );
        assert_eq!(datagram(b"\0\0\x01\x01\x01\x02\x03\x04\0\x35data"), None);
        assert_eq!(datagram(b"\0\0\0\x01\x01\x02"), None);
        assert_eq!(datagram(b""), None);
    }

    #[test]
    fn answers_have_the_bytes_of_the_standard() {
        let bound = "[2001:db8::1]:1080".parse().unwrap();
        assert_eq!(reply(Reply::Succeeded, bound)[..4], [5, 0, 0, 4]);
        assert_eq!(reply(Reply::Succeeded, bound)[20..], 1080u16.to_be_bytes());
        assert_eq!(reply_4(true), [0, 0x5a, 0, 0, 0, 0, 0, 0]);
        let bytes = reply_datagram(&to("9.8.7.6:53"), b"x");
        assert_eq!(datagram(&bytes), Some((to("9.8.7.6:53"), &b"x"[..])));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_answers_stay(
            first in prop_oneof![Just(1u8), Just(4), Just(5)],
            rest in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let bytes = [vec![first], rest].concat();
            for end in 0..bytes.len() {
                let part = &bytes[..end];
                for (early, late) in [
                    (request(part), request(&bytes)),
                    (request_4(part).map(|v| v.map(|(v, n)| (v.0, n))),
                     request_4(&bytes).map(|v| v.map(|(v, n)| (v.0, n)))),
                ] {
                    prop_assert!(early == Ok(None) || early == late);
                }
                prop_assert!(greeting(part) == Ok(None) || greeting(part) == greeting(&bytes));
                prop_assert!(login(part) == Ok(None) || login(part) == login(&bytes));
            }
            let _ = datagram(&bytes);
            if bytes.len() >= MESSAGE_BYTES_MAX {
                prop_assert!(request_4(&bytes) != Ok(None));
                prop_assert!(login(&bytes) != Ok(None));
            }
        }
    }
}
