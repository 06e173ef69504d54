//! VLESS as a server reads it (proxy-protocols.md 5.1).

use std::io;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::members::{Member, Roll};
use super::{Asked, Reading, ServerError, ServerProtocol};
use crate::outbound::carrier::Carrier;
use crate::outbound::mux::packet_address;
use crate::outbound::options::Credentials;
use crate::outbound::packets::PacketStream;
use crate::outbound::prelude::Prelude;
use crate::outbound::vless::codec::{self, Command, Packets};
use crate::outbound::vmess::keys::parse_id;

/// The answer's header: the version, no addons.
const ANSWER: [u8; 2] = [0, 0];

/// The users of one port.
pub(super) struct Server {
    users: Roll<[u8; 16]>,
}

impl Server {
    pub(super) fn new(users: &[Credentials]) -> Result<Self, ServerError> {
        let users = Roll::new(users, &key)?;
        Ok(Self { users })
    }

    /// The user with this id; every one is compared, in constant time.
    fn user(&self, id: [u8; 16]) -> Option<Arc<Member>> {
        let id = masked(id);
        let mut found = None;
        for line in &*self.users.now() {
            if bool::from(line.key.ct_eq(&id)) {
                found = Some(Arc::clone(&line.member));
            }
        }
        found
    }

    /// Who asks for what, and how long the request is; `None`: read more.
    fn parse(&self, bytes: &[u8]) -> io::Result<Option<(Arc<Member>, Command, usize)>> {
        let denied = io::ErrorKind::PermissionDenied;
        match bytes {
            [] => return Ok(None),
            [0, rest @ ..] => {
                if let Some(id) = rest.first_chunk()
                    && self.user(*id).is_none()
                {
                    return Err(denied.into());
                }
            }
            _ => return Err(denied.into()),
        }
        let Some(request) = codec::decode_request(bytes)? else {
            return Ok(None);
        };
        let user = self.user(request.id).ok_or(denied)?;
        if !request.flow.is_empty() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Some((user, request.command, request.length)))
    }
}

/// Bytes 6 and 7 are the user's to set (proxy-protocols.md 5.1).
fn masked(mut id: [u8; 16]) -> [u8; 16] {
    let [_, _, _, _, _, _, a, b, ..] = &mut id;
    (*a, *b) = (0, 0);
    id
}

impl ServerProtocol for Server {
    fn read(&self, bytes: &[u8], _now: u64) -> io::Result<Option<Reading>> {
        let reading = self.parse(bytes)?.map(|(member, command, length)| Reading {
            member,
            length,
            start: Box::new(|carrier| start(command, carrier)),
        });
        Ok(reading)
    }

    fn admit(&self, users: &[Credentials]) -> Result<(), ServerError> {
        self.users.replace(users, &key)
    }
}

fn key(secret: &str) -> Result<[u8; 16], ServerError> {
    parse_id(secret).map(masked).ok_or(ServerError::Secret)
}

fn start(command: Command, carrier: Carrier) -> Asked {
    // The answer's header goes with the first bytes back.
    let stream = Box::new(Prelude::new(carrier, ANSWER.to_vec(), None));
    match command {
        Command::Stream(to) => Asked::Stream(to, stream),
        Command::Mux => Asked::Mux(stream),
        Command::Packets(to) => {
            let codec = match packet_address::is_target(&to) {
                true => Packets::addressed(),
                false => Packets::fixed(),
            };
            Asked::Packets(to, PacketStream::new(stream, Box::new(codec)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Endpoint;

    const ID: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";

    fn server() -> Server {
        let user = Credentials {
            username: "a".into(),
            password: ID.into(),
        };
        Server::new(&[user]).unwrap()
    }

    #[test]
    fn two_bytes_of_an_id_are_free() {
        let mut id = parse_id(ID).unwrap();
        id[6] = 1;
        let to = Command::Stream(Endpoint::parse("a.b:80").unwrap());
        let bytes = codec::request(&id, "", &to).unwrap();
        for cut in 0..bytes.len() {
            assert!(server().parse(&bytes[..cut]).unwrap().is_none());
        }
        let (user, command, length) = server().parse(&bytes).unwrap().unwrap();
        let name = user.name().map(|name| &**name);
        assert_eq!((name, command, length), (Some("a"), to, bytes.len()));
        id[5] ^= 1;
        let stranger = codec::request(&id, "", &Command::Mux).unwrap();
        assert!(server().parse(&stranger[..17]).is_err());
        assert!(server().parse(b"GET /").is_err());
    }
}
