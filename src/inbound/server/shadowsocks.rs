//! Shadowsocks streams as a server reads them: both editions, one user or several
//! (proxy-protocols.md 2.5, 3.1).

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use crate::encoding::BASE64;
use subtle::ConstantTimeEq;

use super::members::{List, Listed, Member, renewed};
use super::options::ShadowsocksServer;
use super::replay::Replay;
use super::{Asked, Reading, ServerError, ServerProtocol};
use crate::metadata::Endpoint;
use crate::outbound::Stream;
use crate::outbound::carrier::Carrier;
use crate::outbound::crypto::{BlockKey, KEY_MAX, Nonce, TAG, identity_subkey};
use crate::outbound::framed::{Codec, Framed, Shape, Step};
use crate::outbound::layer::Shedding;
use crate::outbound::options::Credentials;
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::outbound::shadowsocks::method::{Edition, Method, MethodError, Secret};
use crate::outbound::shadowsocks::stream;
use crate::outbound::shadowsocks::tcp::{self, CLOCK_SKEW_MAX, Opener, REQUEST, Request, Sealer};
use crate::outbound::socks_address::{self, AddressError};
use crate::platform::clock;
use crate::wire::Reader;

/// How long salts of the 2022 edition are remembered, seconds (SIP022 section 3.1.5).
const SALT_SECONDS: u64 = 60;

/// Bytes before the address is known at most: odd clients split it over chunks.
const ADDRESS_BYTES_MAX: usize = socks_address::ENCODED_MAX;

/// The keys of one port. Immutable; a change of users makes new ones.
pub(super) struct Secrets {
    pub(super) users: List<UserKeys>,
    pub(super) method: Method,
    /// Of several users of the 2022 edition: the key of their identity headers.
    pub(super) identity: Option<Identity>,
}

/// One user.
pub(super) type ServerUser = Listed<UserKeys>;

/// What a user's password comes to.
pub(super) struct UserKeys {
    pub(super) secret: Arc<Secret>,
    /// What an identity header holds.
    pub(super) hash: [u8; 16],
}

/// The server's own key, before the users'.
pub(super) struct Identity {
    pub(super) key: Box<[u8]>,
    pub(super) block: BlockKey,
}

fn wrong(_: MethodError) -> ServerError {
    ServerError::Secret
}

impl UserKeys {
    fn new(cipher: &str, password: &str) -> Result<Self, ServerError> {
        let secret = Secret::new(cipher, password).map_err(wrong)?;
        let mut hash = [0; 16];
        let digest = *blake3::hash(secret.psk()).as_bytes();
        hash.iter_mut()
            .zip(digest)
            .for_each(|(to, byte)| *to = byte);
        Ok(Self {
            secret: Arc::new(secret),
            hash,
        })
    }
}

impl Identity {
    fn new(options: &ShadowsocksServer) -> Result<Self, ServerError> {
        // Checked as a key of the method.
        Secret::new(&options.cipher, &options.password).map_err(wrong)?;
        let key = BASE64.decode(options.password.as_bytes());
        let key = key.map_err(|_| ServerError::Secret)?.into_boxed_slice();
        let block = BlockKey::new(&key).map_err(|_| ServerError::Secret)?;
        Ok(Self { key, block })
    }
}

impl Secrets {
    /// The keys of `options`; users of `before` that are among them stay.
    fn new(options: &ShadowsocksServer, before: &[Arc<ServerUser>]) -> Result<Self, ServerError> {
        let method = Method::parse(&options.cipher).map_err(wrong)?;
        let everybody = [Credentials {
            username: "".into(),
            password: options.password.clone(),
            ..Credentials::default()
        }];
        let several = options.users.is_some();
        let identity = match several && method.edition == Edition::Of2022 {
            true => Some(Identity::new(options)?),
            false => None,
        };
        let users = options.users.as_deref().unwrap_or(&everybody);
        let key = |user: &Credentials| UserKeys::new(&options.cipher, &user.password);
        Ok(Self {
            users: renewed(before, users, &key)?,
            method,
            identity,
        })
    }

    /// The user whom an identity header names; every one is compared, in constant time.
    pub(super) fn by_hash(&self, hash: &[u8; 16]) -> Option<&Arc<ServerUser>> {
        let mut found = None;
        for user in &*self.users {
            if bool::from(user.key.hash.ct_eq(hash)) {
                found = Some(user);
            }
        }
        found
    }

    fn salt_length(&self) -> usize {
        self.method.cipher.key_length()
    }
}

/// A server on one port.
pub(super) struct Server {
    options: ShadowsocksServer,
    secrets: RwLock<Arc<Secrets>>,
    salts: Replay,
}

/// A request that was read.
struct Accepted {
    member: Arc<Member>,
    secret: Arc<Secret>,
    /// The request's own.
    salt: [u8; KEY_MAX],
    to: Endpoint,
    opener: Opener,
    /// Data that came with the request.
    first: Vec<u8>,
    /// Bytes that were used; the rest are chunks.
    used: usize,
}

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

impl Server {
    pub(super) fn new(options: &ShadowsocksServer) -> Result<Self, ServerError> {
        let secrets = Secrets::new(options, &[])?;
        let seconds = match secrets.method.edition {
            Edition::Of2022 => SALT_SECONDS,
            // Without times in requests a salt is worth remembering as long as there is room.
            Edition::Aead => 0,
        };
        Ok(Self {
            options: options.clone(),
            secrets: RwLock::new(Arc::new(secrets)),
            salts: Replay::new(seconds),
        })
    }

    fn secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.secrets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who asks for what; `None`: read more.
    fn parse(&self, bytes: &[u8], now: u64) -> io::Result<Option<Accepted>> {
        let secrets = self.secrets();
        let Some((salt, rest)) = bytes.split_at_checked(secrets.salt_length()) else {
            return Ok(None);
        };
        let accepted = match secrets.method.edition {
            Edition::Aead => secrets.read_aead(salt, rest)?,
            Edition::Of2022 => secrets.read_2022(salt, rest, now)?,
        };
        let Some(mut accepted) = accepted else {
            return Ok(None);
        };
        accepted.used += salt.len();
        let own = accepted.salt.iter_mut().zip(salt);
        own.for_each(|(to, byte)| *to = *byte);
        // Only what authenticated is remembered.
        if !self.salts.enter(salt, now) {
            return Err(denied());
        }
        Ok(Some(accepted))
    }
}

impl Secrets {
    fn read_aead(&self, salt: &[u8], rest: &[u8]) -> io::Result<Option<Accepted>> {
        let Some(length) = rest.first_chunk::<{ 2 + TAG }>() else {
            return Ok(None);
        };
        let mut found = None;
        for user in &*self.users {
            let mut key = user.key.secret.stream_key(salt)?;
            let nonce = Nonce::default().advance();
            if key.wake()?.open(&nonce, &mut length.clone()).is_ok() {
                found = Some((user, key));
            }
        }
        let (user, key) = found.ok_or_else(denied)?;
        let mut opener = Opener::chunks(Arc::clone(&user.key.secret), key, Nonce::default());
        let mut buffer = Scratch::take(rest.len());
        buffer.push(rest).map_err(|_| denied())?;
        let mut first = Vec::new();
        loop {
            match opener.step(&mut buffer, 0)? {
                tcp::Step::NeedMore(_) => return Ok(None),
                tcp::Step::Opened(n) => {
                    first.extend_from_slice(buffer.data().get(..n).unwrap_or_default());
                    buffer.consume(n + TAG);
                }
            }
            let mut reader = Reader::new(&first);
            match socks_address::decode(&mut reader) {
                Err(AddressError::Truncated) if first.len() < ADDRESS_BYTES_MAX => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Ok(to) => {
                    let first = reader.rest().to_vec();
                    let used = rest.len() - buffer.len();
                    return Ok(Some(accepted(user, to, opener, first, used)));
                }
            }
        }
    }

    fn read_2022(&self, salt: &[u8], rest: &[u8], now: u64) -> io::Result<Option<Accepted>> {
        let mut reader = Reader::new(rest);
        let user = match &self.identity {
            None => self.users.first().ok_or_else(denied)?,
            Some(identity) => {
                let Ok(mut header) = reader.array() else {
                    return Ok(None);
                };
                let subkey = identity_subkey(&identity.key, salt);
                let subkey = subkey.get(..identity.key.len()).ok_or_else(denied)?;
                BlockKey::new(subkey)?.decrypt(&mut header);
                self.by_hash(&header).ok_or_else(denied)?
            }
        };
        let Ok(mut fixed) = reader.array::<{ 1 + 8 + 2 + TAG }>() else {
            return Ok(None);
        };
        let mut key = user.key.secret.stream_key(salt)?;
        let mut nonce = Nonce::default();
        let opened = key.wake()?.open(&nonce.advance(), &mut fixed)?;
        let mut header = Reader::new(opened);
        let fields = (header.u8(), header.u64(), header.u16());
        let (Ok(REQUEST), Ok(time), Ok(length)) = fields else {
            return Err(denied());
        };
        if time.abs_diff(now) > CLOCK_SKEW_MAX {
            return Err(denied());
        }
        let Ok(variable) = reader.take(usize::from(length) + TAG) else {
            return Ok(None);
        };
        let mut variable = variable.to_vec();
        let opened = key.wake()?.open(&nonce.advance(), &mut variable)?;
        let mut header = Reader::new(opened);
        let to = socks_address::decode(&mut header).map_err(|_| denied())?;
        let padding = header.u16().map_err(|_| denied())?;
        header.take(usize::from(padding)).map_err(|_| denied())?;
        let first = header.rest().to_vec();
        // A request without either is what a prober would make of another (SIP022 section 3.1.3).
        if first.is_empty() && padding == 0 {
            return Err(denied());
        }
        key.rest();
        let opener = Opener::chunks(Arc::clone(&user.key.secret), key, nonce);
        Ok(Some(accepted(user, to, opener, first, reader.position())))
    }
}

fn accepted(
    user: &ServerUser,
    to: Endpoint,
    opener: Opener,
    first: Vec<u8>,
    used: usize,
) -> Accepted {
    Accepted {
        member: Arc::clone(&user.member),
        secret: Arc::clone(&user.key.secret),
        salt: [0; KEY_MAX],
        to,
        opener,
        first,
        used,
    }
}

impl ServerProtocol for Server {
    fn read(&self, bytes: &[u8], now: u64) -> io::Result<Option<Reading>> {
        let reading = self.parse(bytes, now)?.map(|accepted| Reading {
            member: Arc::clone(&accepted.member),
            length: accepted.used,
            start: Box::new(|carrier| start(accepted, carrier)),
        });
        Ok(reading)
    }

    fn admit(&self, users: &[Credentials]) -> Result<(), ServerError> {
        let mut options = self.options.clone();
        options.users = Some(users.to_vec());
        let secrets = Secrets::new(&options, &self.secrets().users)?;
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
        Ok(())
    }

    fn datagrams(&self) -> Option<Arc<Secrets>> {
        Some(self.secrets())
    }
}

fn start(accepted: Accepted, carrier: Carrier) -> Asked {
    let served = Served {
        sending: Sending::Owed(accepted.secret, accepted.salt),
        opener: accepted.opener,
    };
    let mut stream = Framed::bare(carrier, Box::new(served));
    stream.put_back(accepted.first);
    Asked::Stream(accepted.to, Stream::Shedding(Box::new(stream)))
}

/// The server's end of a stream.
struct Served {
    sending: Sending,
    opener: Opener,
}

enum Sending {
    /// The answer's beginning is not sent; the request's salt.
    Owed(Arc<Secret>, [u8; KEY_MAX]),
    Begun(Sealer),
}

impl Codec for Served {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        let mut sealed = 0;
        if let Sending::Owed(secret, request_salt) = &self.sending {
            let length = secret.salt_length();
            let mut salt = [0; KEY_MAX];
            let salt = salt.get_mut(..length).unwrap_or_default();
            random::fill(salt)?;
            let answer = Request {
                salt,
                target: &[],
                unix_time: clock::unix_time().as_secs(),
                padding: 0,
                payload,
            };
            let request_salt = request_salt.get(..length).unwrap_or_default();
            let (sealer, first) = Sealer::answer(secret, request_salt, &answer, out)?;
            self.sending = Sending::Begun(sealer);
            sealed = first;
        }
        if let Sending::Begun(sealer) = &mut self.sending {
            sealed += sealer.seal(payload.get(sealed..).unwrap_or_default(), out)?;
        }
        Ok(sealed)
    }

    fn room(&self, payload: usize) -> usize {
        stream::room(payload)
    }

    fn shape(&self) -> Option<Shape> {
        match &self.sending {
            Sending::Owed(..) => None,
            Sending::Begun(sealer) => Some(sealer.shape()),
        }
    }

    fn enframe(&mut self, data: usize, out: &mut Scratch) -> io::Result<()> {
        match &mut self.sending {
            Sending::Owed(..) => Err(io::ErrorKind::InvalidInput.into()),
            Sending::Begun(sealer) => Ok(sealer.enframe(data, out)?),
        }
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step> {
        stream::decode(&mut self.opener, incoming)
    }

    fn may_end(&self) -> bool {
        self.opener.at_boundary()
    }

    fn rest_sending(&mut self) {
        if let Sending::Begun(sealer) = &mut self.sending {
            sealer.rest();
        }
    }

    fn rest_receiving(&mut self) {
        self.opener.rest();
    }
}
