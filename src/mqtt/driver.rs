//! The driver of the broker: buffers, the clock, who is to be written to.
//!
//! Everything here is one thread's. A task a connection (`listener`) waits for its socket; one task, the writer,
//! runs behind those that are ready in the same turn of the loop and writes what they left for each
//! connection in one call. Nothing waits for more to come.
//!
//! A connection at rest holds no buffer. What was read in part stays with it; what could not be
//! written stays with it too, and it is not read from meanwhile, so a client that does not read
//! cannot make the broker hold its answers.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::Time;
use super::broker::{Broker, Effect};
use super::codec::{Framed, Malformed, Version, decode, frame};
use super::message::Message;
use super::persistence::Keeper;
use super::session::LinkId;
use super::topic::tree::SessionId;
use super::transport::Io;
use crate::platform::clock;

/// One read and one write, shared by all connections.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes to one connection before it is another's turn.
const ROUNDS_MAX: usize = 16;

/// Passwords whose hash is computed at a time; a flood of logins takes no more than one core.
const HASHING_MAX: usize = 1;

/// The time at the start. Far from zero, so that what was before the start has a time too.
const START: Time = 1 << 40;

/// A connection.
pub(super) struct Link {
    pub io: RefCell<Box<dyn Io>>,
    pub address: SocketAddr,
    pub listener: u16,
    /// The waker of the connection's task.
    pub waker: RefCell<Waker>,
    pub unsent: RefCell<Unsent>,
    /// The broker has forgotten it.
    pub closed: Cell<bool>,
}

/// What the socket would not take.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    /// A large payload behind them, from an offset on.
    tail: Option<(Rc<Message>, usize)>,
}

impl Unsent {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.tail.is_none()
    }
}

/// A connection and, after CONNECT, its session.
pub(super) type Joined = (Rc<Link>, Option<SessionId>);

/// The broker and what it runs on.
pub struct Driver {
    pub(super) broker: RefCell<Broker>,
    pub(super) hashing: Semaphore,
    pub(super) keeper: Keeper,
    pub(super) links: RefCell<Vec<Option<Joined>>>,
    pub(super) free: RefCell<Vec<LinkId>>,
    dirty: RefCell<Vec<LinkId>>,
    input: RefCell<Vec<u8>>,
    output: RefCell<Vec<u8>>,
    written: Notify,
    timers: Notify,
    began: std::time::Instant,
}

impl Driver {
    /// Drives a broker.
    #[must_use]
    pub fn new(broker: Broker) -> Rc<Self> {
        Rc::new(Self {
            broker: RefCell::new(broker),
            hashing: Semaphore::new(HASHING_MAX),
            keeper: Keeper::default(),
            links: RefCell::default(),
            free: RefCell::default(),
            dirty: RefCell::default(),
            input: RefCell::new(vec![0; CHUNK_BYTES]),
            output: RefCell::new(Vec::with_capacity(CHUNK_BYTES)),
            written: Notify::new(),
            timers: Notify::new(),
            began: clock::now(),
        })
    }

    /// The broker, for a short call; its effects are done afterwards.
    pub fn with<T>(&self, call: impl FnOnce(&mut Broker, Time) -> T) -> T {
        let now = self.now();
        let mut broker = self.broker.borrow_mut();
        broker.set_epoch(epoch(now));
        let result = call(&mut broker, now);
        drop(broker);
        self.settle();
        result
    }

    pub(super) fn now(&self) -> Time {
        Time::try_from((clock::now() - self.began).as_millis())
            .map_or(super::NEVER - 1, |ms| START + ms)
    }

    /// Does what the broker asks for: writing is left to the writer, closing is done.
    fn settle(&self) {
        let mut broker = self.broker.borrow_mut();
        let effects = std::mem::take(broker.effects());
        if broker.take_sooner() {
            self.timers.notify_one();
        }
        drop(broker);
        let closes = |effect: &Effect| matches!(effect, Effect::Close(..));
        if effects.iter().any(closes) {
            // What is said at last may be a promise.
            self.promise();
        }
        self.keeper.wake();
        for effect in effects {
            match effect {
                Effect::Write(id) => {
                    let mut dirty = self.dirty.borrow_mut();
                    if dirty.is_empty() {
                        self.written.notify_one();
                    }
                    dirty.push(id);
                }
                Effect::Close(id, last) => self.close(id, &last),
            }
        }
    }

    fn close(&self, id: LinkId, last: &[u8]) {
        let link = self.links.borrow().get(id as usize).cloned().flatten();
        let Some((link, _)) = link else {
            return;
        };
        link.closed.set(true);
        let waker = link.waker.borrow().clone();
        let mut context = Context::from_waker(&waker);
        let mut io = link.io.borrow_mut();
        if link.unsent.borrow().is_empty() && !last.is_empty() {
            // Who does not take it now does not learn why.
            let _untold = Pin::new(&mut *io).poll_write(&mut context, last);
            let _untold = Pin::new(&mut *io).poll_flush(&mut context);
        }
        let _down = Pin::new(&mut *io).poll_shutdown(&mut context);
        waker.wake();
    }

    pub(super) fn add(&self, link: Rc<Link>) -> Option<LinkId> {
        let mut links = self.links.borrow_mut();
        let id = match self.free.borrow_mut().pop() {
            Some(id) => id,
            None => {
                links.push(None);
                LinkId::try_from(links.len() - 1).ok()?
            }
        };
        *links.get_mut(id as usize)? = Some((link, None));
        Some(id)
    }

    /// Writes what every connection has, in the order in which they got something.
    fn write_dirty(&self) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        // All that this turn is to acknowledge in one go.
        self.promise();
        for id in dirty {
            let found = self.links.borrow().get(id as usize).cloned().flatten();
            if let Some((link, Some(session))) = found
                && self.write(&link, session).is_err()
            {
                // Its own task sees that too, and cleans up.
                link.waker.borrow().wake_by_ref();
            }
        }
    }

    /// Writes until the session has nothing more or the socket takes nothing more.
    pub(super) fn write(&self, link: &Link, session: SessionId) -> io::Result<()> {
        if link.closed.get() {
            return Ok(());
        }
        let waker = link.waker.borrow().clone();
        let mut context = Context::from_waker(&waker);
        let mut io = link.io.borrow_mut();
        let mut unsent = link.unsent.borrow_mut();
        let mut out = self.output.borrow_mut();
        let now = self.now();
        for _ in 0..ROUNDS_MAX {
            if !unsent.is_empty() && !send_rest(&mut **io, &mut context, &mut unsent)? {
                return flush(&mut **io, &mut context);
            }
            out.clear();
            let mut broker = self.broker.borrow_mut();
            let tail = broker.transmit(now, session, &mut out, CHUNK_BYTES);
            let more = broker.has_more(session);
            drop(broker);
            self.promise();
            if !out.is_empty() && !send(&mut **io, &mut context, &out, tail, &mut unsent)? {
                return flush(&mut **io, &mut context);
            }
            if !more {
                return flush(&mut **io, &mut context);
            }
        }
        waker.wake_by_ref();
        flush(&mut **io, &mut context)
    }

    /// Reads once and lets the broker have what is whole.
    pub(super) fn read(
        &self,
        link: &Link,
        (version, session): (Version, SessionId),
        partial: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Ended>> {
        let mut input = self.input.borrow_mut();
        let mut buffer = ReadBuf::new(&mut input);
        let read = Pin::new(&mut *link.io.borrow_mut()).poll_read(context, &mut buffer);
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Ended::Lost)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                return Poll::Ready(Err(Ended::Lost));
            }
            Poll::Ready(Ok(())) => {}
        }
        let fresh = buffer.filled();
        if partial.is_empty() {
            let used = self.take(link, (version, session), fresh, fresh.len())?;
            partial.extend_from_slice(fresh.get(used..).unwrap_or_default());
        } else {
            partial.extend_from_slice(fresh);
            let used = self.take(link, (version, session), partial, fresh.len())?;
            partial.drain(..used);
            if partial.is_empty() {
                *partial = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands whole packets to the broker; the last `fresh` bytes were read just now. Returns how many
    /// bytes the packets were.
    pub(super) fn take(
        &self,
        link: &Link,
        (version, session): (Version, SessionId),
        bytes: &[u8],
        fresh: usize,
    ) -> Result<usize, Ended> {
        let now = self.now();
        self.broker.borrow_mut().heard(session, fresh);
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let mut broker = self.broker.borrow_mut();
            let max = broker.limits().packet_bytes_max;
            match frame(rest, max).map_err(Ended::Malformed)? {
                Framed::NeedMore(_) => break,
                Framed::Whole(whole) => {
                    let packet = decode(whole, version).map_err(Ended::Malformed)?;
                    broker.receive(now, session, &packet);
                    used += whole.length;
                }
            }
            let pressing = broker.take_pressing();
            drop(broker);
            if pressing {
                self.settle();
                self.write_dirty();
            }
            if link.closed.get() {
                break;
            }
        }
        self.settle();
        Ok(used)
    }
}

/// Milliseconds from 1970 to time zero, by the wall clock of now.
fn epoch(now: Time) -> i64 {
    let wall = i64::try_from(clock::unix_time().as_millis()).unwrap_or(i64::MAX);
    wall.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX))
}

/// Why a connection ends that the broker did not end.
pub(super) enum Ended {
    Lost,
    Malformed(Malformed),
}

/// Lets a transport with a buffer of its own pass on what it holds; what it cannot, it will ask for.
fn flush(io: &mut dyn Io, context: &mut Context<'_>) -> io::Result<()> {
    match Pin::new(io).poll_flush(context) {
        Poll::Ready(done) => done,
        Poll::Pending => Ok(()),
    }
}

/// Sends `bytes` and the payload of `tail`. `false`: the socket would not take all; the rest is kept.
fn send(
    io: &mut dyn Io,
    context: &mut Context<'_>,
    bytes: &[u8],
    tail: Option<Rc<Message>>,
    unsent: &mut Unsent,
) -> io::Result<bool> {
    let payload = tail.as_ref().map_or(&[][..], |message| message.payload());
    let slices = [IoSlice::new(bytes), IoSlice::new(payload)];
    let written = match Pin::new(&mut *io).poll_write_vectored(context, &slices) {
        Poll::Ready(written) => written?,
        Poll::Pending => 0,
    };
    if written == bytes.len() + payload.len() {
        return Ok(true);
    }
    let rest = bytes.get(written..).unwrap_or_default();
    unsent.bytes.extend_from_slice(rest);
    unsent.tail = tail.map(|message| (message, written.saturating_sub(bytes.len())));
    // Only a socket that says no will say when it takes more.
    send_rest(io, context, unsent)
}

/// Sends what was kept. `false`: the socket still does not take all.
fn send_rest(io: &mut dyn Io, context: &mut Context<'_>, unsent: &mut Unsent) -> io::Result<bool> {
    while !unsent.is_empty() {
        let payload = unsent.tail.as_ref().map_or(&[][..], |(message, from)| {
            message.payload().get(*from..).unwrap_or_default()
        });
        let slices = [IoSlice::new(&unsent.bytes), IoSlice::new(payload)];
        let all = unsent.bytes.len() + payload.len();
        let written = match Pin::new(&mut *io).poll_write_vectored(context, &slices) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(written) => written?,
            Poll::Pending => return Ok(false),
        };
        if written == all {
            *unsent = Unsent::default();
            return Ok(true);
        }
        let beyond = written.saturating_sub(unsent.bytes.len());
        unsent.bytes.drain(..written.min(unsent.bytes.len()));
        if let Some((_, from)) = &mut unsent.tail {
            *from += beyond;
        }
    }
    Ok(true)
}

/// The writer: wakes behind those that gave it something to do.
pub async fn write_forever(driver: Rc<Driver>) {
    loop {
        driver.written.notified().await;
        driver.write_dirty();
    }
}

/// Keep-alives, wills and the ends of sessions.
pub async fn tick_forever(driver: Rc<Driver>) {
    loop {
        let (now, deadline) = (driver.now(), driver.broker.borrow().deadline());
        if deadline > now {
            // What comes meanwhile may have a nearer deadline.
            let wait = Duration::from_millis((deadline - now).min(60_000));
            let _woken = timeout(wait, driver.timers.notified()).await;
        }
        driver.with(|broker, now| broker.tick(now));
    }
}
