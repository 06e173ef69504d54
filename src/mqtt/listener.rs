//! A listener's connections: accepting them, CONNECT, and their lives after it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::auth::Login;
use super::bridge::Leg;
use super::broker::{Admitted, NO_LISTENER, refusal};
use super::codec::property::id as property;
use super::codec::{
    Connect, Framed, Malformed, Packet, PropertyWriter, Reason, Version, decode, frame,
};
use super::driver::{Driver, Ended};
use super::link::{Link, say_last};
use super::session::LinkId;
use super::transport::{Io, Opened, Plain, Stream, Transport};

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
    /// How many there are.
    pub connections: Cell<usize>,
    /// So many a second begin; 0: no bound.
    pub connection_rate: u32,
}

/// Spreads what is faster than a rate, after a second's worth at once.
struct Pace {
    rate: u32,
    due: Duration,
}

impl Pace {
    /// How long the next one is to wait that comes at `now`.
    fn wait(&mut self, now: Duration) -> Duration {
        let Some(each) = Duration::from_secs(1).checked_div(self.rate) else {
            return Duration::ZERO;
        };
        self.due = self.due.max(now) + each;
        self.due.saturating_sub(now + Duration::from_secs(1))
    }
}

/// A connection's place among those of its listener.
pub struct Seat(Rc<Service>);

impl Seat {
    fn take(service: &Rc<Service>) -> Option<Self> {
        let count = service.connections.get();
        if count >= service.connections_max {
            return None;
        }
        service.connections.set(count + 1);
        Some(Self(Rc::clone(service)))
    }

    /// Whether it is one of these.
    pub(super) fn is_of(&self, service: &Rc<Service>) -> bool {
        Rc::ptr_eq(&self.0, service)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

/// Ends the connections that have no task with their listener.
struct Listening {
    driver: Rc<Driver>,
    service: Rc<Service>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.driver.end_all(&self.service);
    }
}

/// Accepts connections until it is dropped; they end with it.
pub async fn accept_forever(driver: Rc<Driver>, socket: TcpListener, service: Rc<Service>) {
    let mut pace = Pace {
        rate: service.connection_rate,
        due: Duration::ZERO,
    };
    let listening = Listening { driver, service };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, source)) => {
                let Some(seat) = Seat::take(&listening.service) else {
                    continue;
                };
                // The broker gathers what belongs together; the kernel need not wait for more.
                let _slower = stream.set_nodelay(true);
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                connections.spawn_local(serve(Rc::clone(&listening.driver), stream, source, seat));
                let wait = pace.wait(listening.driver.running());
                if !wait.is_zero() {
                    // The others wait in the kernel's queue.
                    sleep(wait).await;
                }
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// A connection until its CONNECT is answered; one with a task of its own to its end.
async fn serve(driver: Rc<Driver>, stream: TcpStream, source: SocketAddr, seat: Seat) {
    // On the heap for as long as it lasts: at rest nobody pays for it.
    let opening = Box::pin(seat.0.transport.open(stream));
    let Ok(Ok(mut opened)) = timeout(CONNECT_TIME_MAX, opening).await else {
        return;
    };
    let Some(greeting) = Box::pin(greet(&driver, opened.io(), source)).await else {
        let mut read = |context: &mut Context<'_>, buffer: &mut ReadBuf<'_>| {
            Pin::new(opened.io()).poll_read(context, buffer)
        };
        return linger(&mut read).await;
    };
    let (stream, waker) = match opened {
        Opened::Plain(stream) => match Plain::new(stream) {
            Ok(plain) => (Stream::Plain(plain), None),
            Err(_) => return,
        },
        Opened::Layered(io) => {
            let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            (Stream::Layered(io), Some(waker))
        }
    };
    let entered = enter(&driver, (stream, waker), &greeting, source, seat);
    drop(greeting);
    if let Some((id, link)) = entered
        && link.waker.is_some()
    {
        let presence = Presence { driver, link, id };
        run(&presence).await;
        let stream = &presence.link.stream;
        let mut read = |context: &mut Context<'_>, buffer: &mut ReadBuf<'_>| {
            Pin::new(stream.borrow_mut().io()).poll_read(context, buffer)
        };
        linger(&mut read).await;
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

/// A connection with a task, however that ends.
struct Presence {
    driver: Rc<Driver>,
    link: Rc<Link>,
    id: LinkId,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.driver.end(self.id, &self.link, &Ended::Lost);
    }
}

/// The life of a connection with a task, after CONNECT.
async fn run(presence: &Presence) {
    let Presence { driver, link, id } = presence;
    let ended = poll_fn(|context| driver.turn(link, *id, true, context)).await;
    driver.end(*id, link, &ended);
}

/// A call that reads.
type Read<'a> = dyn FnMut(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<()>> + 'a;

/// Reads on and throws away, until the client closes too: a socket that is closed with something
/// unread resets the connection, and the client would not see why.
async fn linger(read: &mut Read<'_>) {
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

/// Whether a CONNECT that is refused began as one of 5.0, so that it can be told why.
fn speaks_five(bytes: &[u8]) -> bool {
    let start = bytes.get(..12).unwrap_or(bytes);
    start.windows(7).any(|name| name == b"\0\x04MQTT\x05")
}

/// Serves the broker's end of a bridge: a client that is let in as it is, and is not asked for signs of
/// life.
pub(super) async fn attach(driver: Rc<Driver>, leg: Leg) {
    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let link = Rc::new(Link {
        stream: RefCell::new(Stream::Layered(Box::new(leg.io))),
        version: Version::V5,
        session: Cell::new(None),
        seat: None,
        waker: Some(waker),
        buffers: RefCell::default(),
        more: Cell::new(false),
        due: Cell::new(Duration::ZERO),
        paused: Cell::new(false),
        closed: Cell::new(false),
    });
    let Ok(id) = driver.add(&link) else {
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
    let who = Admitted {
        username: None,
        superuser: true,
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        listener: NO_LISTENER,
    };
    driver.with(|broker, now| broker.adopt(now, &leg.client_id, &leg.filters, leg.forgotten));
    match driver.with(|broker, now| broker.connect(now, id, &connect, who)) {
        Ok(session) => {
            link.session.set(Some(session));
            run(&presence).await;
        }
        Err(reason) => log::warn!("mqtt: {}: {:#04x}", leg.client_id, reason.0),
    }
}

/// What a client said to begin with, and that it may come in.
struct Greeting {
    /// CONNECT and what came behind it.
    bytes: Vec<u8>,
    /// The length of CONNECT.
    length: usize,
    superuser: bool,
}

fn connect_of(bytes: &[u8]) -> Option<Connect<'_>> {
    let Ok(Framed::Whole(whole)) = frame(bytes, CONNECT_BYTES_MAX) else {
        return None;
    };
    match decode(whole, Version::V4) {
        Ok(Packet::Connect(connect)) => Some(connect),
        _ => None,
    }
}

/// Reads CONNECT and checks who it is.
async fn greet(driver: &Driver, io: &mut dyn Io, source: SocketAddr) -> Option<Greeting> {
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

/// What a client is told that is refused.
fn refused(driver: &Driver, connect: &Connect<'_>, reason: Reason, source: SocketAddr) -> Vec<u8> {
    log::debug!("mqtt: {source}: refused with {:#04x}", reason.0);
    driver.with(|broker, _| broker.refused(reason));
    refusal(connect.version, reason)
}

/// Begins the session, and lets the broker have what came behind CONNECT. `None`: it is gone already.
fn enter(
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
        listener: seat.0.number,
    };
    let link = Rc::new(Link {
        stream: RefCell::new(stream),
        version: connect.version,
        session: Cell::new(None),
        seat: Some(seat),
        waker,
        buffers: RefCell::default(),
        more: Cell::new(false),
        due: Cell::new(Duration::ZERO),
        paused: Cell::new(false),
        closed: Cell::new(false),
    });
    let id = driver.add(&link).ok()?;
    match driver.with(|broker, now| broker.connect(now, id, &connect, who)) {
        Ok(session) => {
            link.session.set(Some(session));
            if let Err(ended) = driver.begin(&link, &greeting.bytes, greeting.length) {
                driver.end(id, &link, &ended);
            }
        }
        Err(reason) => driver.close(id, &refused(driver, &connect, reason, source)),
    }
    Some((id, link))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_the_rest_in_step() {
        let mut pace = Pace {
            rate: 10,
            due: Duration::ZERO,
        };
        let now = Duration::from_secs(100);
        let waits: Vec<_> = (0..12).map(|_| pace.wait(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]);
        assert_eq!(pace.wait(now + Duration::from_secs(9)).as_millis(), 0);
        let mut free = Pace {
            rate: 0,
            due: Duration::ZERO,
        };
        assert!((0..100).all(|_| free.wait(now).is_zero()));
    }
}
