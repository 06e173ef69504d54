//! The driver of the broker: buffers, the clock, who is to be written to.
//!
//! Everything here is one thread's. One task is told by the kernel which plain connections are ready,
//! reads from them, and writes what that gave each connection in one call; a connection with TLS or
//! WebSocket has a task of its own, and one more task, the writer, writes what those and other threads
//! gave. Nothing waits for more to come.
//!
//! A connection that has something unsent is not read from meanwhile, so a client that does not read
//! cannot make the broker hold its answers.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::broker::{Broker, Effect};
use super::codec::Malformed;
use super::link::{Link, say_last};
use super::listener::Service;
use super::persistence::Keeper;
use super::session::LinkId;
use super::transport::Stream;
use super::turn::CHUNK_BYTES;
use super::{START, Time};
use crate::platform::clock;
use crate::platform::readiness::Readiness;

/// Passwords whose hash is computed at a time; a flood of logins takes no more than one core.
const HASHING_MAX: usize = 1;

/// How long a client that was sent away may take to see it: a socket that is closed with something
/// unread resets the connection.
const LINGER: Time = 1000;

/// The broker and what it runs on.
pub struct Driver {
    pub(super) broker: RefCell<Broker>,
    pub(super) hashing: Semaphore,
    pub(super) keeper: Keeper,
    links: RefCell<Vec<Option<Rc<Link>>>>,
    free: RefCell<Vec<LinkId>>,
    pub(super) dirty: RefCell<Vec<LinkId>>,
    /// Those without a task whose turn was over before they were done.
    pub(super) again: RefCell<Vec<LinkId>>,
    pub(super) readiness: Readiness,
    /// Somebody is at work who writes afterwards.
    pub(super) gathering: Cell<bool>,
    pub(super) input: RefCell<Vec<u8>>,
    pub(super) output: RefCell<Vec<u8>>,
    pub(super) written: Notify,
    timers: Notify,
    /// Connections that sent faster than they may, and when they have their next turn.
    paused: RefCell<BinaryHeap<Reverse<(Time, LinkId)>>>,
    /// Plain connections that were told why they end, until when they may see it.
    lingering: RefCell<VecDeque<(Time, LinkId, Weak<Link>)>>,
    /// When the log may next tell that clients are turned away.
    pub(super) complained: Cell<Duration>,
    began: std::time::Instant,
}

impl Driver {
    /// Drives a broker.
    #[must_use]
    pub fn new(broker: Broker, readiness: Readiness) -> Rc<Self> {
        Rc::new(Self {
            broker: RefCell::new(broker),
            hashing: Semaphore::new(HASHING_MAX),
            keeper: Keeper::default(),
            links: RefCell::default(),
            free: RefCell::default(),
            dirty: RefCell::default(),
            again: RefCell::default(),
            readiness,
            gathering: Cell::new(false),
            input: RefCell::new(vec![0; CHUNK_BYTES]),
            output: RefCell::new(Vec::with_capacity(CHUNK_BYTES)),
            written: Notify::new(),
            timers: Notify::new(),
            paused: RefCell::default(),
            lingering: RefCell::default(),
            complained: Cell::default(),
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

    /// How long it runs.
    pub(super) fn running(&self) -> Duration {
        clock::now() - self.began
    }

    pub(super) fn now(&self) -> Time {
        Time::try_from(self.running().as_millis()).map_or(super::NEVER - 1, |ms| START + ms)
    }

    /// Does what the broker asks for: writing is left to the writer, closing is done.
    pub(super) fn settle(&self) {
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
                    if dirty.is_empty() && !self.gathering.get() {
                        self.written.notify_one();
                    }
                    dirty.push(id);
                }
                Effect::Close(id, last) => self.close(id, &last),
            }
        }
    }

    pub(super) fn close(&self, id: LinkId, last: &[u8]) {
        let Some(link) = self.link(id) else {
            return;
        };
        link.closed.set(true);
        let told = link.buffers.borrow().unsent.is_none();
        say_last(link.stream.borrow_mut().io(), if told { last } else { &[] });
        match &link.waker {
            // Its task ends, and forgets it.
            Some(waker) => waker.wake_by_ref(),
            None => {
                let until = self.now() + LINGER;
                let entry = (until, id, Rc::downgrade(&link));
                self.lingering.borrow_mut().push_back(entry);
                self.timers.notify_one();
            }
        }
    }

    /// Has a connection wait for its next turn.
    pub(super) fn pause(&self, link: &Link, id: LinkId, wait: Duration) {
        if link.paused.replace(true) {
            return;
        }
        let wait = Time::try_from(wait.as_millis()).unwrap_or(Time::MAX);
        let until = self.now().saturating_add(wait).saturating_add(1);
        self.paused.borrow_mut().push(Reverse((until, id)));
        self.timers.notify_one();
    }

    /// Gives those a turn that waited for it. When the next one has its.
    fn resume(&self, now: Time) -> Time {
        loop {
            let next = self
                .paused
                .borrow()
                .peek()
                .map(|Reverse((until, _))| *until);
            match next {
                Some(until) if until <= now => {}
                next => return next.unwrap_or(super::NEVER),
            }
            let over = self.paused.borrow_mut().pop();
            if let Some(Reverse((_, id))) = over
                && let Some(link) = self.link(id)
                && link.paused.replace(false)
            {
                self.call_again(&link, id);
            }
        }
    }

    /// Lets go of those that had their time. When the next one has had it.
    fn end_lingering(&self, now: Time) -> Time {
        loop {
            let next = self.lingering.borrow().front().map(|(until, ..)| *until);
            match next {
                Some(until) if until <= now => {}
                next => return next.unwrap_or(super::NEVER),
            }
            let over = self.lingering.borrow_mut().pop_front();
            if let Some((_, id, link)) = over
                && let Some(link) = link.upgrade()
            {
                self.forget(id, &link);
            }
        }
    }

    pub(super) fn link(&self, id: LinkId) -> Option<Rc<Link>> {
        self.links.borrow().get(id as usize)?.clone()
    }

    /// Gives a connection's place to others, if it has it still.
    pub(super) fn forget(&self, id: LinkId, link: &Rc<Link>) {
        let mut links = self.links.borrow_mut();
        let place = links.get_mut(id as usize);
        if let Some(known) = place
            && known.as_ref().is_some_and(|known| Rc::ptr_eq(known, link))
        {
            *known = None;
            self.free.borrow_mut().push(id);
        }
    }

    /// Takes a connection in, and watches it if nobody else does.
    pub(super) fn add(&self, link: &Rc<Link>) -> io::Result<LinkId> {
        let id = self.free.borrow_mut().pop();
        let mut links = self.links.borrow_mut();
        let id = id.unwrap_or_else(|| {
            links.push(None);
            LinkId::try_from(links.len() - 1).unwrap_or(LinkId::MAX)
        });
        let place = links.get_mut(id as usize);
        let place = place.ok_or(io::ErrorKind::QuotaExceeded)?;
        if let Stream::Plain(plain) = &*link.stream.borrow()
            && let Err(error) = self.readiness.add(plain.socket(), id)
        {
            self.free.borrow_mut().push(id);
            return Err(error);
        }
        *place = Some(Rc::clone(link));
        Ok(id)
    }

    /// Takes a connection out, and tells the broker, unless that knows.
    pub(super) fn end(&self, id: LinkId, link: &Rc<Link>, ended: &Ended) {
        if let (Ended::Malformed(why), Some(session)) = (ended, link.session.get()) {
            if let Some(from) = self.broker.borrow().address(session) {
                log::debug!("mqtt: {from}: {why}");
            }
            self.with(|broker, now| broker.close(now, session, why.reason()));
        }
        let known = link.closed.replace(true);
        if !known || link.waker.is_some() {
            self.forget(id, link);
        }
        if known {
            return;
        }
        if let Some(session) = link.session.take() {
            self.with(|broker, now| broker.lost(now, session, "tcp_closed"));
        }
    }

    /// Ends the connections of a listener that have no task.
    pub(super) fn end_all(&self, service: &Rc<Service>) {
        let links = self.links.borrow().clone();
        for (id, link) in (0..).zip(links) {
            if let Some(link) = link
                && link.waker.is_none()
                && link.seat.as_ref().is_some_and(|seat| seat.is_of(service))
            {
                self.end(id, &link, &Ended::Lost);
            }
        }
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

/// Keep-alives, wills and the ends of sessions.
pub async fn tick_forever(driver: Rc<Driver>) {
    loop {
        let zone = clock::local_offset(clock::unix_time());
        driver.broker.borrow_mut().set_zone(zone);
        let (now, deadline) = (driver.now(), driver.broker.borrow().deadline());
        let deadline = deadline
            .min(driver.end_lingering(now))
            .min(driver.resume(now));
        if deadline > now {
            // What comes meanwhile may have a nearer deadline.
            let wait = Duration::from_millis((deadline - now).min(60_000));
            let _woken = timeout(wait, driver.timers.notified()).await;
        }
        driver.with(|broker, now| broker.tick(now));
    }
}
