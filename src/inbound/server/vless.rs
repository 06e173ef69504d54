//! VLESS as a server reads it (proxy-protocols.md 5.1), with or without the flow `xtls-rprx-vision`.

use std::io;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::members::{Listed, Member, Roll};
use super::{Asked, Reading, ServerError, ServerProtocol};
use crate::outbound::Stream;
use crate::outbound::carrier::Carrier;
use crate::outbound::mux::packet_address;
use crate::outbound::options::Credentials;
use crate::outbound::packets::PacketStream;
use crate::outbound::prelude::Prelude;
use crate::outbound::vless::codec::{self, Command, Packets};
use crate::outbound::vless::stream::Vision;
use crate::outbound::vless::vision::FLOW;
use crate::outbound::vmess::keys::parse_id;

/// The answer's header: the version, no addons.
const ANSWER: [u8; 2] = [0, 0];

/// What a user's options come to.
struct Key {
    id: [u8; 16],
    /// He is told to use the flow; streams of his without it would show what they carry.
    vision: bool,
}

/// The users of one port.
pub(super) struct Server {
    users: Roll<Key>,
}

impl Server {
    pub(super) fn new(users: &[Credentials]) -> Result<Self, ServerError> {
        let users = Roll::new(users, &key)?;
        Ok(Self { users })
    }

    /// The user with this id; every one is compared, in constant time.
    fn user(&self, id: [u8; 16]) -> Option<Arc<Listed<Key>>> {
        let id = masked(id);
        let mut found = None;
        for line in &*self.users.now() {
            if bool::from(line.key.id.ct_eq(&id)) {
                found = Some(Arc::clone(line));
            }
        }
        found
    }

    /// Who asks for what, with or without the flow, and how long the request is; `None`: read more.
    fn parse(&self, bytes: &[u8]) -> io::Result<Option<Parsed>> {
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
        let vision = match request.flow {
            b"" => false,
            flow if flow == FLOW.as_bytes() => true,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let allowed = match request.command {
            Command::Stream(_) => vision == user.key.vision,
            // XUDP comes without the flow too; plain datagrams never have it.
            Command::Mux => user.key.vision || !vision,
            Command::Packets(_) => !vision,
        };
        if !allowed {
            return Err(denied.into());
        }
        Ok(Some(Parsed {
            member: Arc::clone(&user.member),
            id: request.id,
            vision,
            command: request.command,
            length: request.length,
        }))
    }
}

/// A request.
struct Parsed {
    member: Arc<Member>,
    /// The id as it was sent.
    id: [u8; 16],
    vision: bool,
    command: Command,
    length: usize,
}

/// Bytes 6 and 7 are the user's to set (proxy-protocols.md 5.1).
fn masked(mut id: [u8; 16]) -> [u8; 16] {
    let [_, _, _, _, _, _, a, b, ..] = &mut id;
    (*a, *b) = (0, 0);
    id
}

impl ServerProtocol for Server {
    fn read(&self, bytes: &[u8], _now: u64) -> io::Result<Option<Reading>> {
        let reading = self.parse(bytes)?.map(|parsed| Reading {
            member: Arc::clone(&parsed.member),
            length: parsed.length,
            start: Box::new(|carrier| start(parsed, carrier)),
        });
        Ok(reading)
    }

    fn admit(&self, users: &[Credentials]) -> Result<(), ServerError> {
        self.users.replace(users, &key)
    }

    fn may_leave_tls(&self) -> bool {
        self.users.now().iter().any(|line| line.key.vision)
    }
}

fn key(user: &Credentials) -> Result<Key, ServerError> {
    let id = parse_id(&user.password).ok_or(ServerError::Secret)?;
    Ok(Key {
        id: masked(id),
        vision: user.vision,
    })
}

fn start(parsed: Parsed, carrier: Carrier) -> Asked {
    // The answer's header goes with the first bytes back.
    let header = ANSWER.to_vec();
    if parsed.vision {
        let stream = match carrier {
            Carrier::Layer(layer) if layer.is_tls13() => {
                Box::new(Vision::new(layer, parsed.id, header, None))
            }
            _ => return Asked::Nothing,
        };
        return match parsed.command {
            Command::Stream(to) => Asked::Stream(to, Stream::Shedding(stream)),
            Command::Mux => Asked::Mux(stream),
            Command::Packets(_) => Asked::Nothing,
        };
    }
    let stream = Box::new(Prelude::new(carrier, header, None));
    match parsed.command {
        Command::Stream(to) => Asked::Stream(to, Stream::Shedding(stream)),
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
            ..Credentials::default()
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
        let parsed = server().parse(&bytes).unwrap().unwrap();
        let name = parsed.member.name().map(|name| &**name);
        assert_eq!((name, parsed.id), (Some("a"), id));
        assert_eq!((parsed.command, parsed.length), (to, bytes.len()));
        id[5] ^= 1;
        let stranger = codec::request(&id, "", &Command::Mux).unwrap();
        assert!(server().parse(&stranger[..17]).is_err());
        assert!(server().parse(b"GET /").is_err());
    }

    #[test]
    fn a_flow_is_for_whom_it_was_given_to() {
        let id = parse_id(ID).unwrap();
        let to = || Endpoint::parse("a.b:80").unwrap();
        let allows = |vision, flow: &str, command| {
            let user = Credentials {
                username: "a".into(),
                password: ID.into(),
                vision,
                ..Credentials::default()
            };
            let server = Server::new(&[user]).unwrap();
            let bytes = codec::request(&id, flow, &command).unwrap();
            server.parse(&bytes).is_ok()
        };
        assert!(allows(true, FLOW, Command::Stream(to())));
        assert!(!allows(true, "", Command::Stream(to())));
        assert!(!allows(false, FLOW, Command::Stream(to())));
        assert!(allows(true, "", Command::Mux) && allows(true, FLOW, Command::Mux));
        assert!(!allows(false, FLOW, Command::Mux));
        assert!(!allows(true, FLOW, Command::Packets(to())));
        assert!(!allows(true, "another", Command::Mux));
    }
}
