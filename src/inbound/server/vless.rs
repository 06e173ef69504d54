//! VLESS as a server reads it (proxy-protocols.md 5.1).

use std::io;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::options::User;
use super::{Asked, Opened, Refused, ServerError, ServerProtocol, read_more};
use crate::outbound::BoxFuture;
use crate::outbound::carrier::Carrier;
use crate::outbound::mux::packet_address;
use crate::outbound::packets::PacketStream;
use crate::outbound::prelude::Prelude;
use crate::outbound::vless::codec::{self, Command, Packets};
use crate::outbound::vmess::keys::parse_id;

/// The answer's header: the version, no addons.
const ANSWER: [u8; 2] = [0, 0];

/// The users of one port.
pub(super) struct Server {
    users: Vec<(Arc<str>, [u8; 16])>,
}

impl Server {
    pub(super) fn new(users: &[User]) -> Result<Self, ServerError> {
        let user = |user: &User| {
            let id = parse_id(&user.secret).ok_or(ServerError::Secret)?;
            Ok(((&*user.name).into(), masked(id)))
        };
        Ok(Self {
            users: users.iter().map(user).collect::<Result<_, _>>()?,
        })
    }

    /// The user with this id; every one is compared, in constant time.
    fn user(&self, id: [u8; 16]) -> Option<Arc<str>> {
        let id = masked(id);
        let mut found = None;
        for (name, known) in &self.users {
            if bool::from(known.ct_eq(&id)) {
                found = Some(name);
            }
        }
        found.cloned()
    }

    /// Who asks for what, and how long the request is; `None`: read more.
    pub(super) fn read(&self, bytes: &[u8]) -> io::Result<Option<(Arc<str>, Command, usize)>> {
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
                Ok((user, command, length)) => {
                    let rest = read.split_off(length);
                    Ok(opened(user, command, carrier.preceded(rest)))
                }
                Err(why) => Err(Box::new(Refused { carrier, read, why })),
            }
        })
    }
}

fn opened(user: Arc<str>, command: Command, carrier: Carrier) -> Opened {
    // The answer's header goes with the first bytes back.
    let stream = Box::new(Prelude::new(carrier, ANSWER.to_vec(), None));
    let asked = match command {
        Command::Stream(to) => Asked::Stream(to, stream),
        Command::Mux => Asked::Mux(stream),
        Command::Packets(to) => {
            let codec = match packet_address::is_target(&to) {
                true => Packets::addressed(),
                false => Packets::fixed(),
            };
            Asked::Packets(to, PacketStream::new(stream, Box::new(codec)))
        }
    };
    Opened {
        user: Some(user),
        asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Endpoint;

    const ID: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";

    fn server() -> Server {
        let user = User {
            name: "a".into(),
            secret: ID.into(),
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
            assert!(server().read(&bytes[..cut]).unwrap().is_none());
        }
        let (user, command, length) = server().read(&bytes).unwrap().unwrap();
        assert_eq!((&*user, command, length), ("a", to, bytes.len()));
        id[5] ^= 1;
        let stranger = codec::request(&id, "", &Command::Mux).unwrap();
        assert!(server().read(&stranger[..17]).is_err());
        assert!(server().read(b"GET /").is_err());
    }
}
