//! How a client comes in: CONNECT in time and whole, who it is, and what it is told that may not.
//!
//! Nothing is set aside for what a client announces: only what came is held, up to
//! [`CONNECT_BYTES_MAX`] and for [`CONNECT_TIME_MAX`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::timeout;

use super::auth::Login;
use super::broker::{Admitted, refusal};
use super::codec::{Connect, Framed, Malformed, Packet, Reason, Version, decode, frame};
use super::driver::Driver;
use super::link::{Link, say_last};
use super::listener::Seat;
use super::metrics::Metric;
use super::session::LinkId;
use super::transport::{Io, Stream};
use crate::platform::blocking::blocking;

/// How long a client may take to send CONNECT (users.md S22).
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The largest CONNECT: names, a password that may be a token, a will. Larger ones are refused by
/// their length alone.
const CONNECT_BYTES_MAX: usize = 8 * 1024;

/// How long a client that was sent away may take to see it.
const LINGER: Duration = Duration::from_secs(1);

/// What it may send meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What a client said to begin with, and that it may come in.
pub(super) struct Greeting {
    /// CONNECT and what came behind it.
    bytes: Vec<u8>,
    /// The length of CONNECT.
    length: usize,
    superuser: bool,
}

/// Reads CONNECT and checks who it is. `None`: it was told to go.
pub(super) async fn greet(
    driver: &Driver,
    io: &mut dyn Io,
    source: SocketAddr,
) -> Option<Greeting> {
    let mut bytes = Vec::new();
    let first = timeout(CONNECT_TIME_MAX, first_packet(io, &mut bytes)).await;
    let length = match first.ok()? {
        Ok(length) => length,
        Err(why) => {
            log::debug!("mqtt: {source}: {why}");
            if speaks_five(&bytes) {
                say_last(io, &refusal(Version::V5, why.reason()));
            } else if matches!(why, Malformed::ProtocolLevel(_)) {
                say_last(io, &refusal(Version::V4, why.reason()));
            }
            return None;
        }
    };
    let connect = connect_of(&bytes)?;
    match driver.admit(&connect, source).await {
        Ok(superuser) => Some(Greeting {
            bytes,
            length,
            superuser,
        }),
        Err(reason) => {
            say_last(io, &refused(driver, &connect, reason, source));
            None
        }
    }
}

/// Begins the session, and lets the broker have what came behind CONNECT. `None`: it is gone already.
pub(super) fn enter(
    driver: &Driver,
    (stream, waker): (Stream, Option<Waker>),
    greeting: &Greeting,
    source: SocketAddr,
    seat: Seat,
) -> Option<(LinkId, Rc<Link>)> {
    let connect = connect_of(&greeting.bytes)?;
    let who = Admitted {
        username: connect.username.map(Box::from),
        superuser: greeting.superuser,
        address: source,
        listener: seat.number(),
    };
    let link = Rc::new(Link::new(stream, connect.version, Some(seat), waker));
    let id = match driver.add(&link) {
        Ok(id) => id,
        Err(error) => {
            driver.turn_away(&error);
            let last = refused(driver, &connect, Reason::SERVER_BUSY, source);
            say_last(link.stream.borrow_mut().io(), &last);
            return None;
        }
    };
    match driver.with(|broker, now| broker.connect(now, id, &connect, who)) {
        Ok(session) => {
            link.session.set(Some(session));
            if let Err(ended) = driver.begin((&link, id), &greeting.bytes, greeting.length) {
                driver.end(id, &link, &ended);
            }
        }
        Err(reason) => driver.close(id, &refused(driver, &connect, reason, source)),
    }
    Some((id, link))
}

impl Driver {
    /// Whether a client may come in, and then whether no rule binds it. A slow hash is computed on a
    /// thread apart.
    async fn admit(&self, connect: &Connect<'_>, from: SocketAddr) -> Result<bool, Reason> {
        let account = match self.with(|broker, now| broker.login(now, connect, from)) {
            Login::Anonymous => return Ok(false),
            Login::Refused(reason) => return Err(reason),
            Login::Check(account) => account,
        };
        let given = connect.password.unwrap_or_default().to_vec();
        let admitted = if account.secret.is_slow() {
            let Ok(_turn) = self.hashing.acquire().await else {
                return Err(Reason::SERVER_BUSY);
            };
            let work = blocking(move || account.secret.admits(&given));
            work.await.unwrap_or(false)
        } else {
            account.secret.admits(&given)
        };
        if admitted {
            Ok(account.superuser)
        } else {
            Err(Reason::BAD_CREDENTIALS)
        }
    }

    /// Counts a client that the system has no room for, and says so, but not for each of them.
    pub(super) fn turn_away(&self, error: &io::Error) {
        self.with(|broker, _| broker.count(Metric::ConnectionsRefused));
        let now = self.running();
        if now >= self.complained.get() {
            self.complained.set(now + COMPLAIN_EVERY);
            log::warn!("mqtt: clients are turned away: {error}");
        }
    }
}

/// How often the log tells that clients are turned away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

fn connect_of(bytes: &[u8]) -> Option<Connect<'_>> {
    let Ok(Framed::Whole(whole)) = frame(bytes, CONNECT_BYTES_MAX) else {
        return None;
    };
    match decode(whole, Version::V4) {
        Ok(Packet::Connect(connect)) => Some(connect),
        _ => None,
    }
}

/// Whether a CONNECT that is refused began as one of 5.0, so that it can be told why.
fn speaks_five(bytes: &[u8]) -> bool {
    let start = bytes.get(..12).unwrap_or(bytes);
    start.windows(7).any(|name| name == b"\0\x04MQTT\x05")
}

/// What a client is told that is refused.
fn refused(driver: &Driver, connect: &Connect<'_>, reason: Reason, source: SocketAddr) -> Vec<u8> {
    log::debug!("mqtt: {source}: refused with {:#04x}", reason.0);
    driver.with(|broker, _| broker.refused(reason));
    refusal(connect.version, reason)
}

/// Reads until the first packet is whole and a CONNECT. Its length.
async fn first_packet(io: &mut dyn Io, bytes: &mut Vec<u8>) -> Result<usize, Malformed> {
    loop {
        // Nothing is set aside for a length; only what came is held.
        if let Some(&kind) = bytes.first()
            && kind != 0x10
        {
            return Err(Malformed::PacketType(kind >> 4));
        }
        if let Framed::Whole(whole) = frame(bytes, CONNECT_BYTES_MAX)? {
            decode(whole, Version::V4)?;
            return Ok(whole.length);
        }
        let mut chunk = [0; 512];
        let mut buffer = ReadBuf::new(&mut chunk);
        let read = poll_fn(|context| Pin::new(&mut *io).poll_read(context, &mut buffer)).await;
        if read.is_err() || buffer.filled().is_empty() {
            return Err(Malformed::Truncated);
        }
        bytes.extend_from_slice(buffer.filled());
    }
}

/// A call that reads.
pub(super) type Read<'a> =
    dyn FnMut(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<()>> + 'a;

/// Reads on and throws away, until the client closes too: a socket that is closed with something
/// unread resets the connection, and the client would not see why.
pub(super) async fn linger(read: &mut Read<'_>) {
    let reading = async {
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let mut chunk = [0; 512];
            let mut buffer = ReadBuf::new(&mut chunk);
            let read = poll_fn(|context| read(context, &mut buffer)).await;
            if read.is_err() || buffer.filled().is_empty() {
                return;
            }
            left = left.saturating_sub(buffer.filled().len());
        }
    };
    let _over = timeout(LINGER, reading).await;
}
