//! A Shadowsocks association: drives the codec of `packet` over datagrams to the server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use portable_atomic::{AtomicU64, Ordering};
use tokio::io::ReadBuf;

use super::method::{Edition, Secret};
use super::packet::{self, Numbers, PacketError, Session};
use crate::metadata::{Endpoint, Host};
use crate::outbound::carrier::PacketCarrier;
use crate::outbound::crypto::{KEY_MAX, XNONCE};
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::outbound::{BoxFuture, Datagrams, socks_address};
use crate::platform::clock;

impl From<PacketError> for io::Error {
    fn from(error: PacketError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// One client socket's datagrams by way of a server.
pub struct ShadowsocksDatagrams {
    packets: PacketCarrier,
    secret: Arc<Secret>,
    /// Of the 2022 edition; boxed, since SIP004 has none.
    session: Option<Box<SessionState>>,
}

struct SessionState {
    /// Changed by what is received; the lock is never held while waiting.
    session: Mutex<Session>,
    packet_id: AtomicU64,
}

impl ShadowsocksDatagrams {
    /// An association by the server behind `packets`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(packets: PacketCarrier, secret: &Arc<Secret>) -> io::Result<Self> {
        let mut session = None;
        if secret.method.edition == Edition::Of2022 {
            let mut id = [0; 8];
            random::fill(&mut id)?;
            session = Some(Box::new(SessionState {
                session: Mutex::new(Session::new(secret, id)?),
                packet_id: AtomicU64::new(0),
            }));
        }
        Ok(Self {
            packets,
            secret: Arc::clone(secret),
            session,
        })
    }

    fn seal(&self, payload: &[u8], to: &Endpoint) -> io::Result<Scratch> {
        let mut target = Vec::with_capacity(32);
        socks_address::encode(to, &mut target).map_err(PacketError::Address)?;
        let mut out = Scratch::large();
        let Some(state) = &self.session else {
            let mut salt = [0; KEY_MAX];
            let salt = salt
                .get_mut(..self.secret.salt_length())
                .unwrap_or_default();
            random::fill(salt)?;
            packet::seal(&self.secret, salt, &target, payload, &mut out)?;
            return Ok(out);
        };
        let mut nonce = [0; XNONCE];
        if self.secret.header_keys().is_none() {
            random::fill(&mut nonce)?;
        }
        let numbers = Numbers {
            packet_id: state.packet_id.fetch_add(1, Ordering::Relaxed),
            unix_time: clock::unix_time().as_secs(),
            nonce,
        };
        let session = state.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.seal(&self.secret, &numbers, &target, payload, &mut out)?;
        Ok(out)
    }

    /// Sender and payload of a datagram from the server, decrypted in place.
    fn open<'a>(&self, packet: &'a mut [u8]) -> Result<(SocketAddr, &'a [u8]), PacketError> {
        let (sender, range) = match &self.session {
            None => packet::open(&self.secret, packet)?,
            Some(state) => {
                let now = clock::unix_time().as_secs();
                let mut session = state.session.lock().unwrap_or_else(PoisonError::into_inner);
                session.open(&self.secret, now, packet)?
            }
        };
        match sender.host {
            Host::Ip(ip) => Ok((
                SocketAddr::new(ip, sender.port),
                packet.get(range).unwrap_or_default(),
            )),
            // A client's socket cannot be told of a name.
            Host::Name(_) => Err(PacketError::Address(socks_address::AddressError::Name)),
        }
    }
}

impl Datagrams for ShadowsocksDatagrams {
    fn send_to<'a>(&'a self, payload: &'a [u8], to: &'a Endpoint) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let packet = self.seal(payload, to)?;
            self.packets.send(packet.data()).await
        })
    }

    fn try_send_to(&self, payload: &[u8], to: &Endpoint) -> io::Result<()> {
        self.packets.try_send(self.seal(payload, to)?.data())
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let mut packet = Scratch::large();
        loop {
            let mut received = ReadBuf::new(packet.spare());
            ready!(self.packets.poll_recv(cx, &mut received))?;
            match self.open(received.filled_mut()) {
                Ok((sender, payload)) if payload.len() <= buffer.remaining() => {
                    buffer.put_slice(payload);
                    return Poll::Ready(Ok(sender));
                }
                Ok(_) => {}
                Err(error) => log::debug!("shadowsocks: {error}"),
            }
        }
    }
}
