//! Trojan as a server reads it (proxy-protocols.md 6).

use std::io;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::options::User;
use super::{Asked, Opened, Refused, ServerProtocol, read_more};
use crate::metadata::Endpoint;
use crate::outbound::BoxFuture;
use crate::outbound::carrier::Carrier;
use crate::outbound::packets::PacketStream;
use crate::outbound::socks_address::{self, AddressError};
use crate::outbound::trojan::codec::{Command, KEY_DIGITS, Malformed, Packets, UserKey};
use crate::wire::Reader;

/// The users of one port.
pub(super) struct Server {
    users: Vec<(Arc<str>, UserKey)>,
}

impl Server {
    pub(super) fn new(users: &[User]) -> Self {
        let user = |user: &User| ((&*user.name).into(), UserKey::of(&user.secret));
        Self {
            users: users.iter().map(user).collect(),
        }
    }

    /// The user with this key; every one is compared, in constant time.
    fn user(&self, key: &[u8; KEY_DIGITS]) -> Option<Arc<str>> {
        let mut found = None;
        for (name, known) in &self.users {
            if bool::from(known.0.ct_eq(key)) {
                found = Some(name);
            }
        }
        found.cloned()
    }

    /// Who asks for what, and how long the request is; `None`: read more.
    pub(super) fn read(&self, bytes: &[u8]) -> io::Result<Option<(Arc<str>, Request)>> {
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
pub(super) struct Request {
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
}

fn line_end(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.array() {
        Ok([b'\r', b'\n']) => Ok(()),
        Ok(_) => Err(Malformed::LineEnd),
        Err(_) => Err(Malformed::Address(AddressError::Truncated)),
    }
}

impl ServerProtocol for Server {
    fn judge(&self, bytes: &[u8], _now: u64) -> io::Result<bool> {
        Ok(self.read(bytes)?.is_some())
    }

    fn open(&self, mut carrier: Carrier) -> BoxFuture<'_, Result<Opened, Box<Refused>>> {
        Box::pin(async move {
            let mut read = Vec::new();
            let asked = loop {
                match self.read(&read) {
                    Ok(Some(asked)) => break Ok(asked),
                    Ok(None) => {}
                    Err(why) => break Err(why),
                }
                if let Err(why) = read_more(&mut carrier, &mut read).await {
                    break Err(why);
                }
            };
            match asked {
                Ok((user, request)) => {
                    let rest = read.split_off(request.length);
                    Ok(opened(user, request, carrier.preceded(rest)))
                }
                Err(why) => Err(Box::new(Refused { carrier, read, why })),
            }
        })
    }
}

fn opened(user: Arc<str>, request: Request, carrier: Carrier) -> Opened {
    let stream = carrier.boxed();
    let asked = match request.command {
        Command::Connect => Asked::Stream(request.to, stream),
        Command::Associate => {
            Asked::Packets(request.to, PacketStream::new(stream, Box::new(Packets)))
        }
    };
    Opened {
        user: Some(user),
        asked,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbound::trojan::codec;

    fn server() -> Server {
        let user = |name: &str| User {
            name: name.into(),
            secret: format!("{name}-password").into(),
        };
        Server::new(&[user("a"), user("b")])
    }

    #[test]
    fn a_request_names_its_user() {
        let to = Endpoint::parse("a.b:80").unwrap();
        let bytes = codec::request(&UserKey::of("b-password"), Command::Associate, &to).unwrap();
        for cut in 0..bytes.len() {
            assert!(server().read(&bytes[..cut]).unwrap().is_none());
        }
        let (user, request) = server()
            .read(&[&bytes[..], b"more"].concat())
            .unwrap()
            .unwrap();
        assert_eq!((&*user, request.to, request.length), ("b", to, bytes.len()));
        assert_eq!(request.command, Command::Associate);
    }

    #[test]
    fn strangers_are_known_as_soon_as_possible() {
        let stranger = codec::request(
            &UserKey::of("c"),
            Command::Connect,
            &Endpoint::parse("a.b:80").unwrap(),
        );
        assert!(server().read(&stranger.unwrap()[..KEY_DIGITS]).is_err());
        assert!(server().read(b"GET / HTTP/1.1\r\n").is_err());
        assert!(server().read(b"d63d").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn random_requests_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [&UserKey::of("a-password").0[..], b"\r\n", &rest].concat();
            let _request = server().read(&bytes);
        }
    }
}
