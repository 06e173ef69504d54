//! A listener's connections: accepting them, CONNECT, and their lives after it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::auth::Login;
use super::bridge::Leg;
use super::broker::{Admitted, NO_LISTENER, refusal};
use super::codec::property::id as property;
use super::codec::{
    Connect, Framed, Malformed, Packet, PropertyWriter, Reason, Version, decode, frame,
};
use super::driver::{Driver, Ended, Link};
use super::session::LinkId;
use super::topic::tree::SessionId;
use super::transport::{Io, Transport};

/// How long a client may take to send CONNECT (users.md S22).
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The largest CONNECT: names, a password that may be a token, a will. Larger ones are refused by
/// their length alone.
const CONNECT_BYTES_MAX: usize = 8 * 1024;

/// How long a client that was sent away may take to see it.
const LINGER: Duration = Duration::from_secs(1);

/// What it may send meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How long accepting pauses when the system is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener does with its connections.
pub struct Service {
    /// What they speak beneath MQTT.
    pub transport: Transport,
    /// Further ones are closed at once.
    pub connections_max: usize,
    /// The broker's number of the listener.
    pub number: u16,
}

/// Accepts connections until it is dropped; they end with it.
pub async fn accept_forever(driver: Rc<Driver>, socket: TcpListener, service: Rc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, source)) => {
                if connections.len() >= service.connections_max {
                    continue;
                }
                // The broker gathers what belongs together; the kernel need not wait for more.
                let _slower = stream.set_nodelay(true);
                let (driver, service) = (Rc::clone(&driver), Rc::clone(&service));
                connections.spawn_local(async move {
                    // On the heap for as long as it lasts: at rest nobody pays for it.
                    let opening = Box::pin(service.transport.open(stream));
                    if let Ok(Ok(io)) = timeout(CONNECT_TIME_MAX, opening).await {
                        serve(driver, io, source, service.number).await;
                    }
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
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
            let work = spawn_blocking(move || account.secret.admits(&given));
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
}

/// Takes a connection out of the driver, and tells the broker, however its task ends.
struct Presence {
    driver: Rc<Driver>,
    link: Rc<Link>,
    id: LinkId,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let place = match self.driver.links.borrow_mut().get_mut(self.id as usize) {
            Some(place) => place.take(),
            None => None,
        };
        if let Some((_, Some(session))) = place
            && !self.link.closed.get()
        {
            self.driver
                .with(|broker, now| broker.lost(now, session, "tcp_closed"));
        }
        self.driver.free.borrow_mut().push(self.id);
    }
}

async fn serve(driver: Rc<Driver>, io: Box<dyn Io>, source: SocketAddr, listener: u16) {
    let link = Rc::new(Link {
        io: RefCell::new(io),
        address: SocketAddr::new(source.ip().to_canonical(), source.port()),
        listener,
        waker: RefCell::new(Waker::noop().clone()),
        unsent: RefCell::default(),
        closed: Cell::new(false),
    });
    let Some(id) = driver.add(Rc::clone(&link)) else {
        return;
    };
    let presence = Presence { driver, link, id };
    // On the heap like the handshakes of the transport.
    if let Some((version, session, partial)) = Box::pin(begin(&presence)).await {
        run(&presence, (version, session), partial).await;
    }
    let _over = timeout(LINGER, linger(&presence.link)).await;
}

/// Reads on and throws away, until the client closes too: a socket that is closed with something
/// unread resets the connection, and the client would not see why.
async fn linger(link: &Link) {
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        let mut chunk = [0; 512];
        let mut buffer = ReadBuf::new(&mut chunk);
        let read =
            poll_fn(|context| Pin::new(&mut *link.io.borrow_mut()).poll_read(context, &mut buffer))
                .await;
        if read.is_err() || buffer.filled().is_empty() {
            return;
        }
        left = left.saturating_sub(buffer.filled().len());
    }
}

/// Whether a CONNECT that is refused began as one of 5.0, so that it can be told why.
fn speaks_five(bytes: &[u8]) -> bool {
    let start = bytes.get(..12).unwrap_or(bytes);
    start.windows(7).any(|name| name == b"\0\x04MQTT\x05")
}

/// Serves the broker's end of a bridge: a client that is let in as it is, and is not asked for signs of
/// life.
pub(super) async fn attach(driver: Rc<Driver>, leg: Leg) {
    let link = Rc::new(Link {
        io: RefCell::new(Box::new(leg.io)),
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        listener: NO_LISTENER,
        waker: RefCell::new(Waker::noop().clone()),
        unsent: RefCell::default(),
        closed: Cell::new(false),
    });
    let Some(id) = driver.add(Rc::clone(&link)) else {
        return;
    };
    let presence = Presence { driver, link, id };
    let Presence { driver, link, .. } = &presence;
    let mut properties = PropertyWriter::default();
    properties.u32(property::SESSION_EXPIRY, u32::MAX);
    properties.u16(property::RECEIVE_MAXIMUM, leg.inflight_max.max(1));
    properties.u32(property::MAXIMUM_PACKET, leg.packet_max.max(1));
    let connect = Connect {
        version: Version::V5,
        bridge: true,
        clean: false,
        keep_alive: 0,
        properties: properties.finish(),
        client_id: &leg.client_id,
        will: None,
        username: None,
        password: None,
    };
    driver.with(|broker, now| broker.adopt(now, &leg.client_id, &leg.filters, leg.forgotten));
    match join(driver, link, id, &connect, true) {
        Ok(session) => run(&presence, (Version::V5, session), Vec::new()).await,
        Err(reason) => log::warn!("mqtt: {}: {:#04x}", leg.client_id, reason.0),
    }
}

/// The connection's life after CONNECT.
async fn run(presence: &Presence, session: (Version, SessionId), mut partial: Vec<u8>) {
    let Presence { driver, link, .. } = presence;
    let ended = poll_fn(|context| {
        link.waker.borrow_mut().clone_from(context.waker());
        if link.closed.get() || driver.write(link, session.1).is_err() {
            return Poll::Ready(Ended::Lost);
        }
        // Who does not read is not read from.
        if !link.unsent.borrow().is_empty() {
            return Poll::Pending;
        }
        match driver.read(link, session, &mut partial, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(ended)) => Poll::Ready(ended),
            // There may be more, but it is the turn of others.
            Poll::Ready(Ok(())) => match driver.read(link, session, &mut partial, context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(ended)) => Poll::Ready(ended),
                Poll::Ready(Ok(())) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            },
        }
    })
    .await;
    if let Ended::Malformed(why) = ended {
        driver.with(|broker, now| broker.close(now, session.1, why.reason()));
        log::debug!("mqtt: {}: {why}", link.address);
    }
}

/// Reads CONNECT, checks who it is, begins the session. Returns what came behind CONNECT too.
async fn begin(presence: &Presence) -> Option<(Version, SessionId, Vec<u8>)> {
    let Presence { driver, link, id } = presence;
    let mut bytes = Vec::new();
    let first = timeout(CONNECT_TIME_MAX, first_packet(link, &mut bytes))
        .await
        .ok()?;
    let length = match first {
        Ok(length) => length,
        Err(why) => {
            log::debug!("mqtt: {}: {why}", link.address);
            if speaks_five(&bytes) {
                say(link, &refusal(Version::V5, why.reason()));
            } else if matches!(why, Malformed::ProtocolLevel(_)) {
                say(link, &refusal(Version::V4, why.reason()));
            }
            return None;
        }
    };
    let Ok(Framed::Whole(whole)) = frame(&bytes, CONNECT_BYTES_MAX) else {
        return None;
    };
    let Ok(Packet::Connect(connect)) = decode(whole, Version::V4) else {
        return None;
    };
    let session = match driver.admit(&connect, link.address).await {
        Ok(superuser) => join(driver, link, *id, &connect, superuser),
        Err(reason) => Err(reason),
    };
    match session {
        Ok(session) => {
            let version = connect.version;
            bytes.drain(..length);
            {
                let used = driver.take(link, (version, session), &bytes, length + bytes.len());
                match used {
                    Ok(used) => drop(bytes.drain(..used)),
                    Err(Ended::Malformed(why)) => {
                        driver.with(|broker, now| broker.close(now, session, why.reason()));
                    }
                    Err(Ended::Lost) => return None,
                }
            }
            bytes.shrink_to_fit();
            Some((version, session, bytes))
        }
        Err(reason) => {
            log::debug!("mqtt: {}: refused with {:#04x}", link.address, reason.0);
            driver.with(|broker, _| broker.refused(reason));
            say(link, &refusal(connect.version, reason));
            None
        }
    }
}

fn join(
    driver: &Driver,
    link: &Link,
    id: LinkId,
    connect: &Connect<'_>,
    superuser: bool,
) -> Result<SessionId, Reason> {
    let who = Admitted {
        username: connect.username.map(Box::from),
        superuser,
        address: link.address,
        listener: link.listener,
    };
    let session = driver.with(|broker, now| broker.connect(now, id, connect, who))?;
    if let Some(Some(place)) = driver.links.borrow_mut().get_mut(id as usize) {
        place.1 = Some(session);
    }
    Ok(session)
}

/// Reads until the first packet is whole and a CONNECT. Its length.
async fn first_packet(link: &Link, bytes: &mut Vec<u8>) -> Result<usize, Malformed> {
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
        let read =
            poll_fn(|context| Pin::new(&mut *link.io.borrow_mut()).poll_read(context, &mut buffer))
                .await;
        if read.is_err() || buffer.filled().is_empty() {
            return Err(Malformed::Truncated);
        }
        bytes.extend_from_slice(buffer.filled());
    }
}

/// Sends a last word, if it goes at once.
fn say(link: &Link, bytes: &[u8]) {
    let mut context = Context::from_waker(Waker::noop());
    let mut io = link.io.borrow_mut();
    if !bytes.is_empty() {
        let _untold = Pin::new(&mut *io).poll_write(&mut context, bytes);
        let _untold = Pin::new(&mut *io).poll_flush(&mut context);
    }
    let _down = Pin::new(&mut *io).poll_shutdown(&mut context);
}
