//! Trojan as a server reads it (proxy-protocols.md 6).

use std::io;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::members::{Member, Roll};
use super::{Asked, Reading, ServerError, ServerProtocol};
use crate::metadata::Endpoint;
use crate::outbound::Stream;
use crate::outbound::carrier::Carrier;
use crate::outbound::options::Credentials;
use crate::outbound::packets::PacketStream;
use crate::outbound::socks_address::{self, AddressError};
use crate::outbound::trojan::codec::{Command, KEY_DIGITS, Malformed, Packets, UserKey};
use crate::wire::Reader;

/// The users of one port.
pub(super) struct Server {
    users: Roll<UserKey>,
}

impl Server {
    pub(super) fn new(users: &[Credentials]) -> Result<Self, ServerError> {
        let users = Roll::new(users, &key)?;
        Ok(Self { users })
    }

    /// The user with this key; every one is compared, in constant time.
    fn user(&self, key: &[u8; KEY_DIGITS]) -> Option<Arc<Member>> {
        let mut found = None;
        for line in &*self.users.now() {
            if bool::from(line.key.0.ct_eq(key)) {
                found = Some(Arc::clone(&line.member));
            }
        }
        found
    }

    /// Who asks for what, and how long the request is; `None`: read more.
    fn parse(&self, bytes: &[u8]) -> io::Result<Option<(Arc<Member>, Request)>> {
        let digits = bytes.get(..KEY_DIGITS).unwrap_or(bytes);
        // A stranger's request is handed on as soon as it can be told from a user's.
        if !digits
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut reader = Reader::new(bytes);
        let Ok(key) = reader.array() else {
            return Ok(None);
        };
        let user = self.user(&key).ok_or(io::ErrorKind::PermissionDenied)?;
        match Request::decode(reader) {
            Ok(request) => Ok(Some((user, request))),
            Err(Malformed::Address(AddressError::Truncated)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What follows the key.
struct Request {
    command: Command,
    to: Endpoint,
    length: usize,
}

impl Request {
    fn decode(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        line_end(&mut reader)?;
        let truncated = |_| Malformed::Address(AddressError::Truncated);
        let command = match reader.u8().map_err(truncated)? {
            1 => Command::Connect,
            3 => Command::Associate,
            other => return Err(Malformed::Command(other)),
        };
        let to = socks_address::decode(&mut reader).map_err(Malformed::Address)?;
        line_end(&mut reader)?;
        Ok(Self {
            command,
            to,
            length: reader.position(),
        })
    }

    fn start(self, carrier: Carrier) -> Asked {
        let stream = carrier.boxed();
        match self.command {
            Command::Connect => Asked::Stream(self.to, Stream::Boxed(stream)),
            Command::Associate => {
                Asked::Packets(self.to, PacketStream::new(stream, Box::new(Packets)))
            }
        }
    }
}

fn line_end(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.array() {
        Ok([b'\r', b'\n']) => Ok(()),
        Ok(_) => Err(Malformed::LineEnd),
        Err(_) => Err(Malformed::Address(AddressError::Truncated)),
    }
}

impl ServerProtocol for Server {
    fn read(&self, bytes: &[u8], _now: u64) -> io::Result<Option<Reading>> {
        let reading = self.parse(bytes)?.map(|(member, request)| Reading {
            member,
            length: request.length,
            start: Box::new(|carrier| request.start(carrier)),
        });
        Ok(reading)
    }

    fn admit(&self, users: &[Credentials]) -> Result<(), ServerError> {
        self.users.replace(users, &key)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "other protocols' secrets may be unusable"
)]
fn key(user: &Credentials) -> Result<UserKey, ServerError> {
    Ok(UserKey::of(&user.password))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbound::trojan::codec;

    fn server() -> Server {
        let user = |name: &str| Credentials {
            username: name.into(),
            password: format!("{name}-password").into(),
            ..Credentials::default()
        };
        Server::new(&[user("a"), user("b")]).unwrap()
    }

    #[test]
    fn a_request_names_its_user() {
        let to = Endpoint::parse("a.b:80").unwrap();
        let bytes = codec::request(&UserKey::of("b-password"), Command::Associate, &to).unwrap();
        for cut in 0..bytes.len() {
            assert!(server().parse(&bytes[..cut]).unwrap().is_none());
        }
        let (user, request) = server()
            .parse(&[&bytes[..], b"more"].concat())
            .unwrap()
            .unwrap();
        let name = user.name().map(|name| &**name);
        assert_eq!(
            (name, request.to, request.length),
            (Some("b"), to, bytes.len())
        );
        assert_eq!(request.command, Command::Associate);
    }

    #[test]
    fn strangers_are_known_as_soon_as_possible() {
        let stranger = codec::request(
            &UserKey::of("c"),
            Command::Connect,
            &Endpoint::parse("a.b:80").unwrap(),
        );
        assert!(server().parse(&stranger.unwrap()[..KEY_DIGITS]).is_err());
        assert!(server().parse(b"GET / HTTP/1.1\r\n").is_err());
        assert!(server().parse(b"d63d").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn random_requests_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [&UserKey::of("a-password").0[..], b"\r\n", &rest].concat();
            let _request = server().parse(&bytes);
        }
    }
}
