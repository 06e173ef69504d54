//! Shadowsocks datagrams as a server serves them: both editions, one user or several
//! (proxy-protocols.md 2.4, 3.2 to 3.4).
//!
//! One task a port owns the socket. Of the 2022 edition a session is known by its id, wherever its
//! client is at the moment; replies go where the newest datagram that authenticated came from.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use portable_atomic::{AtomicU64, Ordering};
use tokio::net::UdpSocket;

use super::shadowsocks::{Secrets, ServerUser};
use super::{Origin, Server};
use crate::metadata::{Endpoint, Network};
use crate::outbound::crypto::{Forged, Key, XNONCE, open_x, seal_x};
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::outbound::shadowsocks::method::{Edition, Secret};
use crate::outbound::shadowsocks::packet::{
    self, CLIENT, HEADER, PacketError, SERVER, body_nonce, split_header,
};
use crate::outbound::shadowsocks::tcp::CLOCK_SKEW_MAX;
use crate::outbound::shadowsocks::window::Window;
use crate::outbound::socks_address;
use crate::platform::{clock, socket};
use crate::tunnel::flow::ReplySink;
use crate::wire::Reader;

/// Sessions of the 2022 edition; when all are in use new ones are dropped.
const SESSIONS_MAX: usize = 1024;

/// Silence after which a session may give its place up, seconds (SIP022 asks for 60 at least).
const SESSION_IDLE_SECONDS: u64 = 300;

/// Serves until it is dropped. `secrets` are those of the moment.
pub(super) async fn serve(server: Arc<Server>, secrets: Arc<Secrets>, socket: Arc<UdpSocket>) {
    let mut secrets = secrets;
    let mut sessions: HashMap<[u8; 8], Session> = HashMap::new();
    let mut replies = replies_of(&secrets, &socket);
    loop {
        // An error tells of a reply that did not arrive; the next datagram may.
        if socket.readable().await.is_err() {
            continue;
        }
        let mut buffer = Scratch::large();
        let Ok((length, source)) = socket.try_recv_from(buffer.spare()) else {
            continue;
        };
        if let Some(now) = server.shared.protocol.datagrams()
            && !Arc::ptr_eq(&now, &secrets)
        {
            let stays =
                |user: &Arc<ServerUser>| now.users.iter().any(|known| Arc::ptr_eq(known, user));
            sessions.retain(|_, session| stays(&session.user));
            replies = replies_of(&now, &socket);
            secrets = now;
        }
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        buffer.filled(length);
        let taken = match secrets.method.edition {
            Edition::Aead => take_aead(&server, &secrets, &replies, source, buffer.data_mut()),
            Edition::Of2022 => take_2022(
                &server,
                &secrets,
                &socket,
                &mut sessions,
                source,
                &mut buffer,
            ),
        };
        if let Err(error) = taken {
            log::debug!("{}: datagram from {source} dropped: {error}", server.name);
        }
    }
}

/// The way back to each user, in the AEAD edition.
fn replies_of(secrets: &Secrets, socket: &Arc<UdpSocket>) -> Vec<Arc<dyn ReplySink>> {
    let users = secrets.users.iter();
    let users = users.filter(|_| secrets.method.edition == Edition::Aead);
    let sink = |user: &Arc<ServerUser>| -> Arc<dyn ReplySink> {
        Arc::new(Replies {
            socket: Arc::downgrade(socket),
            secret: Arc::clone(&user.key.secret),
        })
    };
    users.map(sink).collect()
}

fn hand_over(
    server: &Arc<Server>,
    user: &ServerUser,
    (key, source): (SocketAddr, SocketAddr),
    (to, payload): (Endpoint, &[u8]),
    replies: &Arc<dyn ReplySink>,
) {
    let origin = Origin {
        server: Arc::clone(server),
        source,
        member: Arc::clone(&user.member),
    };
    let describe = || origin.metadata(Network::Udp, to.clone());
    let dispatch = &server.dispatch;
    dispatch.datagram(key, to.clone(), payload, replies, &describe);
}

fn take_aead(
    server: &Arc<Server>,
    secrets: &Secrets,
    replies: &[Arc<dyn ReplySink>],
    source: SocketAddr,
    datagram: &mut [u8],
) -> Result<(), PacketError> {
    let mut users = secrets.users.iter().zip(replies);
    let copy = (secrets.users.len() > 1).then(|| datagram.to_vec());
    let (user, replies, (to, range)) = loop {
        let (user, replies) = users.next().ok_or(PacketError::Forged)?;
        match packet::open(&user.key.secret, datagram) {
            Ok(opened) => break (user, replies, opened),
            Err(PacketError::Forged) => {
                if let Some(copy) = &copy {
                    datagram.copy_from_slice(copy);
                }
            }
            Err(error) => return Err(error),
        }
    };
    let payload = datagram.get(range).unwrap_or_default();
    hand_over(server, user, (source, source), (to, payload), replies);
    Ok(())
}

/// Replies of the AEAD edition to one user's sockets.
struct Replies {
    socket: Weak<UdpSocket>,
    secret: Arc<Secret>,
}

impl Replies {
    fn seal(&self, from: &Endpoint, payload: &[u8]) -> io::Result<Scratch> {
        let mut target = Vec::with_capacity(32);
        socks_address::encode(from, &mut target).map_err(PacketError::Address)?;
        let mut salt = [0; 32];
        let salt = salt.get_mut(..self.secret.salt_length());
        let salt = salt.unwrap_or_default();
        random::fill(salt)?;
        let mut out = Scratch::large();
        packet::seal(&self.secret, salt, &target, payload, &mut out)?;
        Ok(out)
    }
}

impl ReplySink for Replies {
    fn reply(&self, client: SocketAddr, from: &Endpoint, payload: &[u8]) {
        if let (Some(socket), Ok(out)) = (self.socket.upgrade(), self.seal(from, payload)) {
            let _dropped_when_full = socket::send_to_client(&socket, out.data(), client);
        }
    }
}

/// A session of the 2022 edition, as the socket's task knows it.
struct Session {
    user: Arc<ServerUser>,
    /// Opens what the client sends; none where ChaCha seals with the pre-shared key.
    key: Option<Key>,
    window: Window,
    last: u64,
    /// What the tunnel knows it by.
    known_as: SocketAddr,
    replies: Arc<SessionReplies>,
}

/// The way back to a session's client.
struct SessionReplies {
    socket: Weak<UdpSocket>,
    secret: Arc<Secret>,
    client_id: [u8; 8],
    id: [u8; 8],
    key: Option<Key>,
    next: AtomicU64,
    client: Mutex<SocketAddr>,
}

/// A datagram that authenticated.
struct Opened {
    user: usize,
    id: [u8; 8],
    number: u64,
    /// The key, when the session is new.
    key: Option<Key>,
    to: Endpoint,
    payload: Range<usize>,
}

fn take_2022(
    server: &Arc<Server>,
    secrets: &Secrets,
    socket: &Arc<UdpSocket>,
    sessions: &mut HashMap<[u8; 8], Session>,
    source: SocketAddr,
    datagram: &mut Scratch,
) -> Result<(), PacketError> {
    let now = clock::unix_time().as_secs();
    let known = |id: &[u8; 8]| sessions.get(id).and_then(|session| session.key.as_ref());
    let mut opened = open_2022(secrets, datagram.data_mut(), now, known)?;
    let user = secrets.users.get(opened.user).ok_or(PacketError::Forged)?;
    if !sessions.contains_key(&opened.id) {
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, session| now.saturating_sub(session.last) < SESSION_IDLE_SECONDS);
        }
        if sessions.len() >= SESSIONS_MAX {
            return Err(PacketError::Full);
        }
        let origin = Origin {
            server: Arc::clone(server),
            source,
            member: Arc::clone(&user.member),
        };
        let replies = SessionReplies::new(user, opened.id, socket, source)?;
        let session = Session {
            user: Arc::clone(user),
            key: opened.key.take(),
            window: Window::default(),
            last: now,
            known_as: origin.session_key(),
            replies: Arc::new(replies),
        };
        sessions.insert(opened.id, session);
    }
    let session = sessions
        .get_mut(&opened.id)
        .ok_or(PacketError::OtherSession)?;
    if !Arc::ptr_eq(&session.user, user) || !session.window.accept(opened.number) {
        return Err(PacketError::Replayed);
    }
    session.last = now;
    *session
        .replies
        .client
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = source;
    let replies: Arc<dyn ReplySink> = Arc::<SessionReplies>::clone(&session.replies);
    let payload = datagram.data().get(opened.payload).unwrap_or_default();
    hand_over(
        server,
        user,
        (session.known_as, source),
        (opened.to, payload),
        &replies,
    );
    Ok(())
}

/// Opens a client's datagram in place. `known`: the key of a session that there is.
fn open_2022<'k>(
    secrets: &Secrets,
    datagram: &mut [u8],
    now: u64,
    known: impl Fn(&[u8; 8]) -> Option<&'k Key>,
) -> Result<Opened, PacketError> {
    let first = secrets.users.first().ok_or(PacketError::Forged)?;
    let Some((_, show)) = first.key.secret.header_keys() else {
        let (nonce, sealed) = datagram
            .split_first_chunk_mut::<XNONCE>()
            .ok_or(PacketError::Truncated)?;
        let plain = open_x(first.key.secret.psk(), nonce, sealed)?;
        let (header, body) = plain
            .split_first_chunk::<HEADER>()
            .ok_or(PacketError::Truncated)?;
        let (id, number) = split_header(header);
        let (to, range) = read_body(body, now)?;
        let shift = XNONCE + HEADER;
        let payload = range.start + shift..range.end + shift;
        return Ok(Opened {
            user: 0,
            id,
            number,
            key: None,
            to,
            payload,
        });
    };
    let (header, rest) = datagram
        .split_first_chunk_mut::<HEADER>()
        .ok_or(PacketError::Truncated)?;
    let mut shift = HEADER;
    let (user, sealed) = match &secrets.identity {
        None => {
            show.decrypt(header);
            (0, rest)
        }
        Some(identity) => {
            identity.block.decrypt(header);
            let (hash, sealed) = rest
                .split_first_chunk_mut::<16>()
                .ok_or(PacketError::Truncated)?;
            identity.block.decrypt(hash);
            hash.iter_mut()
                .zip(&*header)
                .for_each(|(byte, mask)| *byte ^= mask);
            let user = secrets.by_hash(hash).ok_or(Forged)?;
            let place = secrets
                .users
                .iter()
                .position(|known| Arc::ptr_eq(known, user));
            shift += 16;
            (place.unwrap_or(0), sealed)
        }
    };
    let (id, number) = split_header(header);
    let nonce = body_nonce(header);
    let user_keys = &secrets.users.get(user).ok_or(PacketError::Forged)?.key;
    let (plain, key) = match known(&id) {
        Some(key) => (key.open(&nonce, sealed)?, None),
        None => {
            let key = user_keys.secret.subkey(&id)?;
            (key.open(&nonce, sealed)?, Some(key))
        }
    };
    let (to, range) = read_body(plain, now)?;
    let payload = range.start + shift..range.end + shift;
    Ok(Opened {
        user,
        id,
        number,
        key,
        to,
        payload,
    })
}

/// Whether a datagram is one of a user's. It is decrypted in place.
pub(super) fn judge(secrets: &Secrets, datagram: &mut [u8], now: u64) -> bool {
    match secrets.method.edition {
        Edition::Of2022 => open_2022(secrets, datagram, now, |_| None).is_ok(),
        Edition::Aead => {
            let users = secrets.users.iter();
            let mut copies = users.map(|user| (user, datagram.to_vec()));
            copies.any(|(user, mut copy)| packet::open(&user.key.secret, &mut copy).is_ok())
        }
    }
}

/// Checks the client's header and finds the payload behind it.
fn read_body(plain: &[u8], now: u64) -> Result<(Endpoint, Range<usize>), PacketError> {
    let mut reader = Reader::new(plain);
    if reader.u8()? != CLIENT {
        return Err(PacketError::NotServer);
    }
    if reader.u64()?.abs_diff(now) > CLOCK_SKEW_MAX {
        return Err(PacketError::Clock);
    }
    let padding = usize::from(reader.u16()?);
    reader.take(padding)?;
    let to = socks_address::decode(&mut reader)?;
    Ok((to, reader.position()..plain.len()))
}

impl SessionReplies {
    fn new(
        user: &ServerUser,
        client_id: [u8; 8],
        socket: &Arc<UdpSocket>,
        client: SocketAddr,
    ) -> Result<Self, PacketError> {
        let mut id = [0; 8];
        random::fill(&mut id).map_err(|_| PacketError::Full)?;
        let secret = Arc::clone(&user.key.secret);
        let key = secret
            .header_keys()
            .map(|_| secret.subkey(&id))
            .transpose()?;
        Ok(Self {
            socket: Arc::downgrade(socket),
            secret,
            client_id,
            id,
            key,
            next: AtomicU64::new(0),
            client: Mutex::new(client),
        })
    }

    fn seal(&self, from: &Endpoint, payload: &[u8]) -> io::Result<Scratch> {
        let mut header = [0; HEADER];
        let (id, number) = header.split_at_mut(8);
        id.copy_from_slice(&self.id);
        number.copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let mut body = vec![SERVER];
        body.extend_from_slice(&clock::unix_time().as_secs().to_be_bytes());
        body.extend_from_slice(&self.client_id);
        body.extend_from_slice(&[0, 0]);
        socks_address::encode(from, &mut body).map_err(PacketError::Address)?;
        let mut out = Scratch::large();
        let full = |_| PacketError::Full;
        let Some(((_, hide), key)) = self.secret.header_keys().zip(self.key.as_ref()) else {
            let mut nonce = [0; XNONCE];
            random::fill(&mut nonce)?;
            for part in [&nonce[..], &header, &body, payload] {
                out.push(part).map_err(full)?;
            }
            let text = out.data_mut().get_mut(XNONCE..).unwrap_or_default();
            let tag = seal_x(self.secret.psk(), &nonce, text)?;
            out.push(&tag).map_err(full)?;
            return Ok(out);
        };
        let nonce = body_nonce(&header);
        hide.encrypt(&mut header);
        for part in [&header[..], &body, payload] {
            out.push(part).map_err(full)?;
        }
        let text = out.data_mut().get_mut(HEADER..).unwrap_or_default();
        let tag = key.seal(&nonce, text)?;
        out.push(&tag).map_err(full)?;
        Ok(out)
    }
}

impl ReplySink for SessionReplies {
    fn reply(&self, _client: SocketAddr, from: &Endpoint, payload: &[u8]) {
        if let (Some(socket), Ok(out)) = (self.socket.upgrade(), self.seal(from, payload)) {
            let client = *self.client.lock().unwrap_or_else(PoisonError::into_inner);
            let _dropped_when_full = socket::send_to_client(&socket, out.data(), client);
        }
    }
}
