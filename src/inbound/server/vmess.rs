//! VMess as a server reads it (proxy-protocols.md 4.6).

use std::io;
use std::sync::Arc;

use super::members::{Listed, Member, Roll};
use super::replay::Replay;
use super::{Asked, Reading, ServerError, ServerProtocol};
use crate::metadata::Endpoint;
use crate::outbound::Stream;
use crate::outbound::carrier::Carrier;
use crate::outbound::framed::{Codec, Framed, Shape, Step};
use crate::outbound::mux::packet_address;
use crate::outbound::options::Credentials;
use crate::outbound::packets::{NoEncoding, Packet, PacketCodec, PacketStream};
use crate::outbound::scratch::Scratch;
use crate::outbound::vmess::body::{CHUNK_FRAME, Chunks};
use crate::outbound::vmess::header::{self, Command, HEADER_MAX, PREFIX, Request};
use crate::outbound::vmess::keys::{UserKey, answer_key, parse_id};

/// How far a client's clock may be off, seconds.
const CLOCK_SKEW_MAX: u64 = 120;

/// How long the keys of a body are remembered, seconds.
const SESSION_SECONDS: u64 = 180;

/// Room for an answer's header.
const ANSWER_BYTES: usize = 64;

/// The users of one port.
pub(super) struct Server {
    users: Roll<UserKey>,
    /// AuthIDs that came: a recorded request is refused.
    seen: Replay,
    /// Body keys that came: so is one under another AuthID.
    bodies: Replay,
}

impl Server {
    pub(super) fn new(users: &[Credentials]) -> Result<Self, ServerError> {
        Ok(Self {
            users: Roll::new(users, &key)?,
            seen: Replay::new(CLOCK_SKEW_MAX),
            bodies: Replay::new(SESSION_SECONDS),
        })
    }

    /// The user whose AuthID this is, at a time that is near `now`. All are tried.
    fn user(&self, auth_id: &[u8; 16], now: u64) -> Option<Arc<Listed<UserKey>>> {
        let mut found = None;
        for line in &*self.users.now() {
            let time = line.key.time_of(auth_id);
            if time.is_some_and(|time| time.abs_diff(now) <= CLOCK_SKEW_MAX) {
                found = Some(Arc::clone(line));
            }
        }
        found
    }

    /// Who asks for what, and how long the request is; `None`: read more.
    fn parse(&self, bytes: &[u8], now: u64) -> io::Result<Option<(Arc<Member>, Request, usize)>> {
        let Some(prefix) = bytes.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let denied = io::ErrorKind::PermissionDenied;
        let auth_id = prefix.first_chunk().ok_or(denied)?;
        let user = self.user(auth_id, now).ok_or(denied)?;
        let key = &user.key;
        let length = header::request_length(key, prefix)?;
        if length > HEADER_MAX {
            return Err(denied.into());
        }
        let end = PREFIX + length;
        let Some(sealed) = bytes.get(PREFIX..end) else {
            return Ok(None);
        };
        let request = header::open_request(key, prefix, &mut sealed.to_vec())?;
        let body = [request.agreement.key, request.agreement.iv].concat();
        if !self.seen.enter(auth_id, now) || !self.bodies.enter(&body, now) {
            return Err(denied.into());
        }
        Ok(Some((Arc::clone(&user.member), request, end)))
    }
}

impl ServerProtocol for Server {
    fn read(&self, bytes: &[u8], now: u64) -> io::Result<Option<Reading>> {
        let reading = self
            .parse(bytes, now)?
            .map(|(member, request, length)| Reading {
                member,
                length,
                start: Box::new(|carrier| start(request, carrier)),
            });
        Ok(reading)
    }

    fn admit(&self, users: &[Credentials]) -> Result<(), ServerError> {
        self.users.replace(users, &key)
    }
}

fn key(user: &Credentials) -> Result<UserKey, ServerError> {
    let id = parse_id(&user.password).ok_or(ServerError::Secret)?;
    UserKey::new(id).map_err(|_| ServerError::Secret)
}

fn start(request: Request, carrier: Carrier) -> Asked {
    let command = request.command.clone();
    let body = Body::new(request);
    match command {
        Command::Packets(to) => {
            let addressed = packet_address::is_target(&to);
            let codec = Box::new(BodyPackets { body, addressed });
            Asked::Packets(to, PacketStream::new(carrier.boxed(), codec))
        }
        Command::Stream(to) => {
            let stream = Framed::bare(carrier, Box::new(body));
            Asked::Stream(to, Stream::Shedding(Box::new(stream)))
        }
        Command::Mux => Asked::Mux(Box::new(Framed::bare(carrier, Box::new(body)))),
    }
}

/// The server's end of a body.
struct Body {
    /// Until the answer's header is sent.
    request: Option<Box<Request>>,
    sending: Chunks,
    receiving: Chunks,
}

impl Body {
    fn new(request: Request) -> Self {
        let agreement = request.agreement;
        let (key, iv) = (answer_key(&agreement.key), answer_key(&agreement.iv));
        Self {
            sending: Chunks::new(&agreement, key, iv),
            receiving: Chunks::new(&agreement, agreement.key, agreement.iv),
            request: Some(Box::new(request)),
        }
    }

    /// Puts the answer's header first, once.
    fn begin(&mut self, out: &mut Scratch) -> io::Result<()> {
        match self.request.take() {
            Some(request) => Ok(header::seal_answer(&request.agreement, request.echo, out)?),
            None => Ok(()),
        }
    }
}

impl Codec for Body {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        self.begin(out)?;
        self.sending.encode(payload, out)
    }

    fn shape(&self) -> Option<Shape> {
        match &self.request {
            Some(_) => None,
            None => Some(self.sending.shape()),
        }
    }

    fn enframe(&mut self, data: usize, out: &mut Scratch) -> io::Result<()> {
        self.sending.enframe(data, out)
    }

    fn room(&self, payload: usize) -> usize {
        ANSWER_BYTES + Chunks::room(payload)
    }

    fn finish(&mut self, out: &mut Scratch) -> io::Result<()> {
        self.begin(out)?;
        self.sending.finish(out)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        self.receiving.decode(incoming)
    }

    fn may_end(&self) -> bool {
        self.receiving.may_end()
    }

    fn rest_sending(&mut self) {
        self.sending.rest();
    }

    fn rest_receiving(&mut self) {
        self.receiving.rest();
    }
}

/// Datagrams in chunks, each with its address before it or all of one.
struct BodyPackets {
    body: Body,
    addressed: bool,
}

impl PacketCodec for BodyPackets {
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding> {
        let mut packet = Scratch::take(payload.len() + CHUNK_FRAME);
        if self.addressed {
            packet_address::encode(address, &mut packet)?;
        }
        packet.push(payload)?;
        self.body.begin(out).map_err(|_| NoEncoding)?;
        let sent = self.body.sending.push(packet.data(), out);
        sent.map_err(|_| NoEncoding)
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>> {
        let (length, trailer) = match self.body.receiving.decode(incoming)? {
            Step::Opened(length, trailer) => (length, trailer),
            Step::NeedMore(_) => return Ok(None),
            Step::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let mut packet = Packet {
            address: None,
            payload: 0..length,
            length: length + trailer,
        };
        if self.addressed {
            let data = incoming.data().get(..length).unwrap_or_default();
            let decoded = packet_address::decode(data);
            let (address, start) =
                decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            packet.address = Some(address);
            packet.payload = start..length;
        }
        Ok(Some(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::vmess::body::{Agreement, Content, Security};
    use crate::outbound::vmess::header::Numbers;

    const ID: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";
    const NOW: u64 = 1_700_000_000;

    fn server() -> Server {
        let user = |name: &str, secret: &str| Credentials {
            username: name.into(),
            password: secret.into(),
            ..Credentials::default()
        };
        Server::new(&[user("a", "somebody"), user("b", ID)]).unwrap()
    }

    fn sealed(time: u64, body: u8, random: u8) -> Vec<u8> {
        let request = Request {
            agreement: Agreement {
                key: [body; 16],
                iv: [1; 16],
                options: 5,
                security: Security::Aes128Gcm,
                content: Content::Stream,
            },
            echo: 9,
            command: Command::Mux,
        };
        let numbers = Numbers {
            unix_time: time,
            random: [random; 4],
            nonce: [3; 8],
            padding: [5; 16],
        };
        let user = UserKey::new(parse_id(ID).unwrap()).unwrap();
        let mut out = Scratch::take(0);
        request.seal(&user, &numbers, &mut out).unwrap();
        out.data().to_vec()
    }

    #[test]
    fn a_request_names_its_user_and_is_taken_once() {
        let (server, bytes) = (server(), sealed(NOW, 1, 1));
        for cut in 0..bytes.len() {
            assert!(server.parse(&bytes[..cut], NOW).unwrap().is_none());
        }
        let (user, request, length) = server.parse(&bytes, NOW + 120).unwrap().unwrap();
        let name = user.name().map(|name| &**name);
        assert_eq!((name, request.echo, length), (Some("b"), 9, bytes.len()));
        assert!(server.read(&bytes, NOW + 120).is_err());
        // The same body under another AuthID.
        assert!(server.read(&sealed(NOW, 1, 2), NOW).is_err());
        assert!(server.read(&sealed(NOW, 2, 3), NOW).is_ok());
    }

    #[test]
    fn strangers_and_old_requests_are_refused() {
        assert!(server().read(&sealed(NOW, 1, 1), NOW + 121).is_err());
        let mut bytes = sealed(NOW, 1, 1);
        bytes[45] ^= 1;
        assert!(server().read(&bytes, NOW).is_err());
        assert!(server().read(&[7; PREFIX], NOW).is_err());
    }
}
