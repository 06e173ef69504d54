//! The turns of connections: what one reads, hands to the broker and writes before it is another's.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::codec::{Framed, Packet, decode, frame};
use super::driver::{Driver, Ended};
use super::link::{Link, flush, send, send_rest};
use super::session::LinkId;

/// One read and one write, shared by all connections.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Writes to one connection before it is another's turn.
const ROUNDS_MAX: usize = 16;

/// How long it takes until clients are waited for again, when that failed.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Writes what every connection has, in the order in which they got something.
    fn write_dirty(&self) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        // All that this turn is to acknowledge in one go.
        self.promise();
        for id in dirty {
            if let Some(link) = self.link(id)
                && self.write(&link, id).is_err()
            {
                // Its turn sees that too, and cleans up.
                self.call_again(&link, id);
            }
        }
    }

    /// Another turn for a connection, after the others.
    pub(super) fn call_again(&self, link: &Link, id: LinkId) {
        match &link.waker {
            Some(waker) => waker.wake_by_ref(),
            None => {
                link.more.set(true);
                self.again.borrow_mut().push(id);
                self.written.notify_one();
            }
        }
    }

    /// Writes until the session has nothing more or the socket takes nothing more.
    fn write(&self, link: &Link, id: LinkId) -> io::Result<()> {
        let Some(session) = link.session.get().filter(|_| !link.closed.get()) else {
            return Ok(());
        };
        let mut context = Context::from_waker(link.waker.as_ref().unwrap_or(Waker::noop()));
        let mut stream = link.stream.borrow_mut();
        let io = stream.io();
        let unsent = &mut link.buffers.borrow_mut().unsent;
        let held = unsent.is_some();
        let mut out = self.output.borrow_mut();
        let now = self.now();
        for _ in 0..ROUNDS_MAX {
            if !send_rest(&mut *io, &mut context, unsent)? {
                return flush(&mut *io, &mut context);
            }
            out.clear();
            let mut broker = self.broker.borrow_mut();
            let tail = broker.transmit(now, session, &mut out, CHUNK_BYTES);
            let more = broker.has_more(session);
            drop(broker);
            self.promise();
            if !out.is_empty() && !send(&mut *io, &mut context, &out, tail, unsent)? {
                return flush(&mut *io, &mut context);
            }
            if !more {
                if held {
                    // It was not read from meanwhile.
                    self.call_again(link, id);
                }
                return flush(&mut *io, &mut context);
            }
        }
        self.call_again(link, id);
        flush(&mut *io, &mut context)
    }

    /// Lets a connection send what it could not, and read. `ended`: a short read may not be the last.
    pub(super) fn turn(
        &self,
        link: &Link,
        id: LinkId,
        ended: bool,
        context: &mut Context<'_>,
    ) -> Poll<Ended> {
        let due = link.more.replace(false) || link.buffers.borrow().unsent.is_some();
        // What lies between may hold something itself.
        let due = due || link.waker.is_some();
        if link.closed.get() || (due && self.write(link, id).is_err()) {
            return Poll::Ready(Ended::Lost);
        }
        if let Err(ended) = self.take_kept(link, id) {
            return Poll::Ready(ended);
        }
        for _ in 0..2 {
            let wait = self.owed(link);
            if !wait.is_zero() {
                self.pause(link, id, wait);
                return Poll::Pending;
            }
            // Who does not read is not read from.
            if link.buffers.borrow().unsent.is_some() {
                return Poll::Pending;
            }
            let count = match self.read(link, id, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(ended)) => return Poll::Ready(ended),
            };
            if link.closed.get() {
                return Poll::Ready(Ended::Lost);
            }
            if count < CHUNK_BYTES && !ended && link.waker.is_none() {
                return Poll::Pending;
            }
        }
        // There may be more, but it is the turn of others.
        self.call_again(link, id);
        Poll::Pending
    }

    /// A turn of a connection without a task.
    fn turn_of(&self, id: LinkId, ended: bool) {
        if let Some(link) = self.link(id) {
            if link.closed.get() {
                if !self.ignore(&link) {
                    self.forget(id, &link);
                }
                return;
            }
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(ended) = self.turn(&link, id, ended, &mut context) {
                self.end(id, &link, &ended);
            }
        }
    }

    /// Throws away what a client still sends that was told to go. `false`: it has gone.
    fn ignore(&self, link: &Link) -> bool {
        let mut input = self.input.borrow_mut();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..ROUNDS_MAX {
            let mut buffer = ReadBuf::new(&mut input);
            let mut stream = link.stream.borrow_mut();
            match Pin::new(stream.io()).poll_read(&mut context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Pending => return true,
                Poll::Ready(_) => return false,
            }
        }
        false
    }

    /// Reads once and lets the broker have what is whole. Returns how much came.
    fn read(
        &self,
        link: &Link,
        id: LinkId,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Ended>> {
        let mut input = self.input.borrow_mut();
        let mut buffer = ReadBuf::new(&mut input);
        let read = Pin::new(link.stream.borrow_mut().io()).poll_read(context, &mut buffer);
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Ended::Lost)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                return Poll::Ready(Err(Ended::Lost));
            }
            Poll::Ready(Ok(())) => {}
        }
        let fresh = buffer.filled();
        let partial = link.buffers.borrow_mut().partial.take();
        let partial = match partial {
            None => {
                let used = self.take((link, id), fresh, fresh.len())?;
                let rest = fresh.get(used..).filter(|rest| !rest.is_empty());
                rest.map(|rest| Box::new(rest.to_vec()))
            }
            Some(mut partial) => {
                partial.extend_from_slice(fresh);
                let used = self.take((link, id), &partial, fresh.len())?;
                partial.drain(..used);
                Some(partial).filter(|partial| !partial.is_empty())
            }
        };
        link.buffers.borrow_mut().partial = partial;
        Poll::Ready(Ok(fresh.len()))
    }

    /// Hands the broker what came behind the CONNECT of `length` bytes.
    pub(super) fn begin(
        &self,
        (link, id): (&Link, LinkId),
        bytes: &[u8],
        length: usize,
    ) -> Result<(), Ended> {
        let rest = bytes.get(length..).unwrap_or_default();
        let used = self.take((link, id), rest, bytes.len())?;
        let left = rest.get(used..).filter(|left| !left.is_empty());
        link.buffers.borrow_mut().partial = left.map(|left| Box::new(left.to_vec()));
        Ok(())
    }

    /// How long a connection is not read from, because it sent faster than it may. A second's worth
    /// may come at once.
    fn owed(&self, link: &Link) -> Duration {
        if link.due.get().is_zero() {
            return Duration::ZERO;
        }
        let now = self.running();
        link.due.get().saturating_sub(now + Duration::from_secs(1))
    }

    /// Notes a message of a connection whose rate is bound.
    fn charge(&self, link: &Link, rate: u32) {
        if let Some(each) = Duration::from_secs(1).checked_div(rate) {
            link.due.set(link.due.get().max(self.running()) + each);
        }
    }

    /// Hands on what was read already when a connection had to wait.
    fn take_kept(&self, link: &Link, id: LinkId) -> Result<(), Ended> {
        if link.due.get().is_zero() || !self.owed(link).is_zero() {
            return Ok(());
        }
        let Some(mut partial) = link.buffers.borrow_mut().partial.take() else {
            return Ok(());
        };
        let used = self.take((link, id), &partial, 0)?;
        partial.drain(..used);
        link.buffers.borrow_mut().partial = Some(partial).filter(|partial| !partial.is_empty());
        Ok(())
    }

    /// Hands whole packets to the broker; the last `fresh` bytes were read just now. Returns how many
    /// bytes the packets were. Whoever must wait with the next one has a turn then: it was read already,
    /// so the kernel tells of it no more.
    fn take(
        &self,
        (link, id): (&Link, LinkId),
        bytes: &[u8],
        fresh: usize,
    ) -> Result<usize, Ended> {
        let session = link.session.get().ok_or(Ended::Lost)?;
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
                    let rate = broker.limits().message_rate;
                    let packet = decode(whole, link.version).map_err(Ended::Malformed)?;
                    broker.receive(now, session, &packet);
                    used += whole.length;
                    if rate > 0 && matches!(packet, Packet::Publish(_)) {
                        self.charge(link, rate);
                    }
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
            let wait = self.owed(link);
            if !wait.is_zero() {
                self.pause(link, id, wait);
                break;
            }
        }
        self.settle();
        Ok(used)
    }
}

/// The writer: wakes behind those that gave it something to do.
pub async fn write_forever(driver: Rc<Driver>) {
    loop {
        driver.written.notified().await;
        let again = std::mem::take(&mut *driver.again.borrow_mut());
        for id in again {
            driver.turn_of(id, true);
        }
        driver.write_dirty();
        yield_now().await;
    }
}

/// Lets the plain connections have their turns, as they are ready.
pub async fn read_forever(driver: Rc<Driver>) {
    loop {
        let Err(error) = read_ready(&driver).await;
        log::error!("mqtt: clients cannot be waited for: {error}");
        // The kernel still knows who has something: nobody is passed over.
        sleep(WATCH_AGAIN).await;
    }
}

async fn read_ready(driver: &Driver) -> io::Result<Infallible> {
    let mut watch = driver.readiness.watch()?;
    loop {
        let ready = watch.next().await?;
        driver.gathering.set(true);
        for one in ready {
            driver.turn_of(one.number, one.ended);
        }
        driver.gathering.set(false);
        driver.write_dirty();
    }
}
