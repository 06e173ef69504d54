//! A session of smux or yamux: many streams over one connection, as a client.
//!
//! A task moves the frames; streams meet it in one table. What a stream has not read is bounded by the
//! window where the dialect has one, and by [`HELD_MAX`] for all streams together: beyond it nothing is
//! read from the connection (smux knows no other way), so one stream that nobody reads can hold up the
//! others. What waits to be sent is bounded by [`QUEUED_MAX`]: writers wait. An unused session ends after
//! two [`LOOK_TIME`]s, one that nobody holds any more with its last stream, and its task with it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::interval;

use super::frame::{Dialect, Head, WINDOW};
use crate::outbound::carrier::Carrier;
use crate::outbound::scratch::Scratch;
use crate::outbound::sessions::{Counted, Session, Usage};
use crate::outbound::{BoxFuture, ByteStream};

/// What all streams of a session may have unread.
const HELD_MAX: usize = 1024 * 1024;

/// Frames that wait for the connection.
const QUEUED_MAX: usize = 64 * 1024;

/// How often it is looked whether a session is used.
const LOOK_TIME: Duration = Duration::from_secs(30);

/// The last number that a stream gets: a session that has had so many is followed by another.
const STREAM_LAST: u32 = 0x7fff_fff0;

/// One stream as the session sees it.
struct Lane {
    incoming: VecDeque<u8>,
    /// Bytes read that the peer was not told of yet.
    read: u32,
    /// What may be sent still.
    credit: u32,
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the task and the streams share.
struct State {
    lanes: HashMap<u32, Lane>,
    next: u32,
    outgoing: Vec<u8>,
    held: usize,
    over: bool,
    task: Option<Waker>,
}

/// Table: held for moments, never while the connection is asked for something.
struct Shared {
    dialect: Dialect,
    state: Mutex<State>,
    usage: Arc<Usage>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more comes or goes.
    fn end(&self) {
        self.usage.end();
        let mut state = self.state();
        state.over = true;
        for lane in state.lanes.values_mut() {
            wake(&mut lane.reader);
            wake(&mut lane.writer);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn remember(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker
        .as_ref()
        .is_some_and(|known| known.will_wake(cx.waker()))
    {
        *waker = Some(cx.waker().clone());
    }
}

/// A session of smux or yamux.
pub struct Frames(Arc<Shared>);

impl Frames {
    /// Begins a session on `carrier`.
    #[must_use]
    pub fn begin(carrier: Carrier, dialect: Dialect) -> Self {
        let shared = Arc::new(Shared {
            dialect,
            state: Mutex::new(State {
                lanes: HashMap::new(),
                next: dialect.first_stream(),
                outgoing: Vec::new(),
                held: 0,
                over: false,
                task: None,
            }),
            usage: Arc::default(),
        });
        // Ends with the connection, or when nobody uses it: see above.
        tokio::spawn(drive(carrier, Arc::clone(&shared)));
        Self(shared)
    }
}

impl Session for Frames {
    fn usage(&self) -> &Usage {
        &self.0.usage
    }

    fn open(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        let mut state = self.0.state();
        let counted = self.0.usage.count().filter(|_| !state.over);
        let Some(counted) = counted else {
            return Box::pin(std::future::ready(Err(io::ErrorKind::BrokenPipe.into())));
        };
        let number = state.next;
        state.next += 2;
        if number >= STREAM_LAST {
            self.0.usage.end();
        }
        let lane = Lane {
            incoming: VecDeque::new(),
            read: 0,
            credit: self.0.dialect.window(),
            ended: false,
            reset: false,
            reader: None,
            writer: None,
        };
        state.lanes.insert(number, lane);
        self.0.dialect.begin(number, &mut state.outgoing);
        wake(&mut state.task);
        let stream = MuxStream {
            shared: Arc::clone(&self.0),
            number,
            finished: false,
            _counted: counted,
        };
        let stream: Box<dyn ByteStream> = Box::new(stream);
        Box::pin(std::future::ready(Ok(stream)))
    }
}

impl Drop for Frames {
    /// What was begun goes on; the connection ends with the last stream.
    fn drop(&mut self) {
        self.0.usage.end();
        wake(&mut self.0.state().task);
    }
}

/// One stream.
struct MuxStream {
    shared: Arc<Shared>,
    number: u32,
    finished: bool,
    _counted: Counted,
}

impl AsyncRead for MuxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let dialect = self.shared.dialect;
        let mut state = self.shared.state();
        let State {
            lanes,
            outgoing,
            held,
            over,
            task,
            ..
        } = &mut *state;
        let Some(lane) = lanes.get_mut(&self.number) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let (part, _) = lane.incoming.as_slices();
        let n = part.len().min(buffer.remaining());
        if n == 0 && buffer.remaining() > 0 {
            return match (lane.ended, lane.reset || *over) {
                (true, _) => Poll::Ready(Ok(())),
                (_, true) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ => {
                    remember(&mut lane.reader, cx);
                    Poll::Pending
                }
            };
        }
        buffer.put_slice(part.get(..n).unwrap_or_default());
        lane.incoming.drain(..n);
        if lane.incoming.is_empty() {
            // An idle stream holds nothing.
            lane.incoming = VecDeque::new();
        }
        let was_full = *held >= HELD_MAX;
        *held -= n;
        lane.read = lane
            .read
            .saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        if lane.read >= WINDOW / 2 && !lane.ended {
            dialect.credit(self.number, lane.read, outgoing);
            lane.read = 0;
            wake(task);
        }
        if was_full && *held < HELD_MAX {
            wake(task);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let dialect = self.shared.dialect;
        let mut state = self.shared.state();
        let State {
            lanes,
            outgoing,
            over,
            task,
            ..
        } = &mut *state;
        let lane = lanes.get_mut(&self.number);
        let Some(lane) = lane.filter(|lane| !lane.reset && !*over && !self.finished) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if lane.credit == 0 || outgoing.len() >= QUEUED_MAX {
            remember(&mut lane.writer, cx);
            return Poll::Pending;
        }
        let credit = usize::try_from(lane.credit).unwrap_or(usize::MAX);
        let part = bytes.get(..credit).unwrap_or(bytes);
        let sent = dialect.data(self.number, part, outgoing);
        if dialect == Dialect::Yamux {
            lane.credit -= u32::try_from(sent).unwrap_or(lane.credit);
        }
        wake(task);
        Poll::Ready(Ok(sent))
    }

    /// The task sends whatever waits.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.finished, true) {
            let mut state = this.shared.state();
            this.shared.dialect.finish(this.number, &mut state.outgoing);
            wake(&mut state.task);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let dialect = self.shared.dialect;
        let mut state = self.shared.state();
        let Some(lane) = state.lanes.remove(&self.number) else {
            return;
        };
        state.held -= lane.incoming.len();
        if !lane.ended && !lane.reset {
            dialect.reset(self.number, &mut state.outgoing);
        }
        let was_reset = dialect == Dialect::Yamux && !lane.ended;
        if !self.finished && !was_reset {
            dialect.finish(self.number, &mut state.outgoing);
        }
        wake(&mut state.task);
    }
}

/// Moves a session's frames to its end.
async fn drive(carrier: Carrier, shared: Arc<Shared>) {
    let mut driver = Driver {
        carrier,
        shared: &shared,
        sending: Vec::new(),
        sent: 0,
        incoming: None,
        payload: None,
    };
    let mut clock = interval(LOOK_TIME);
    clock.tick().await;
    let mut unused = 0;
    loop {
        tokio::select! {
            ended = std::future::poll_fn(|cx| driver.poll(cx)) => {
                if let Err(error) = ended {
                    log::debug!("multiplexed connection: {error}");
                }
                break;
            }
            _ = clock.tick() => {
                unused = if shared.usage.streams() == 0 { unused + 1 } else { 0 };
                if unused >= 2 && shared.usage.end_unused() {
                    break;
                }
            }
        }
    }
    shared.end();
}

struct Driver<'a> {
    carrier: Carrier,
    shared: &'a Shared,
    /// Frames on their way, and how much of them is out.
    sending: Vec<u8>,
    sent: usize,
    incoming: Option<Scratch>,
    /// The head whose payload comes, of which so much is still to come.
    payload: Option<Head>,
}

impl Driver<'_> {
    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        remember(&mut self.shared.state().task, cx);
        self.send(cx)?;
        let received = self.receive(cx)?;
        // What came may have had answers.
        self.send(cx)?;
        match received {
            Poll::Pending if self.is_left() => Poll::Ready(Ok(())),
            received => received.map(Ok),
        }
    }

    /// Whether nobody is left that could use the session, and nothing that is to be sent.
    fn is_left(&self) -> bool {
        let state = self.shared.state();
        let silent = state.outgoing.is_empty() && self.sending.is_empty();
        self.shared.usage.is_over() && state.lanes.is_empty() && silent
    }

    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let Some(rest) = self
                .sending
                .get(self.sent..)
                .filter(|rest| !rest.is_empty())
            else {
                if !self.refill() {
                    return match Pin::new(&mut self.carrier).poll_flush(cx) {
                        Poll::Ready(result) => result,
                        Poll::Pending => Ok(()),
                    };
                }
                continue;
            };
            match Pin::new(&mut self.carrier).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Takes the frames that wait; `false`: none.
    fn refill(&mut self) -> bool {
        (self.sending, self.sent) = (Vec::new(), 0);
        let mut state = self.shared.state();
        self.sending = std::mem::take(&mut state.outgoing);
        if self.sending.len() >= QUEUED_MAX {
            for lane in state.lanes.values_mut() {
                wake(&mut lane.writer);
            }
        }
        !self.sending.is_empty()
    }

    /// Reads until nothing more comes for now, or until enough waits to be read.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        while self.shared.state().held < HELD_MAX {
            if self.incoming.is_none() {
                match self.carrier.poll_readable(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return Ok(Poll::Pending),
                }
            }
            let incoming = self.incoming.get_or_insert_with(|| Scratch::take(0));
            let mut room = ReadBuf::new(incoming.spare());
            let read = Pin::new(&mut self.carrier).poll_read(cx, &mut room);
            let n = room.filled().len();
            incoming.filled(n);
            match read {
                Poll::Pending => {
                    if incoming.is_empty() {
                        self.incoming = None;
                    }
                    return Ok(Poll::Pending);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) if n == 0 => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => self.take_frames()?,
            }
        }
        Ok(Poll::Pending)
    }

    fn take_frames(&mut self) -> io::Result<()> {
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let dialect = self.shared.dialect;
        let Some(incoming) = &mut self.incoming else {
            return Ok(());
        };
        let mut state = self.shared.state();
        loop {
            if let Some(mut head) = self.payload.take() {
                let most = usize::try_from(head.payload).unwrap_or(usize::MAX);
                let here = incoming.data().get(..most).unwrap_or(incoming.data());
                let taken = here.len();
                state.deliver(head.stream, here);
                incoming.consume(taken);
                head.payload -= u32::try_from(taken).unwrap_or(head.payload);
                if head.payload > 0 {
                    self.payload = Some(head);
                    return Ok(());
                }
                state.close(&head);
            }
            let Some(head) = dialect.decode(incoming.data()).map_err(malformed)? else {
                incoming.reserve(dialect.head_bytes());
                return Ok(());
            };
            incoming.consume(dialect.head_bytes());
            state.apply(dialect, &head)?;
            if head.leaves {
                self.shared.usage.end();
            }
            self.payload = Some(head);
        }
    }
}

impl State {
    /// Bytes of a stream; nobody may want them any more.
    fn deliver(&mut self, number: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&number).filter(|lane| !lane.ended) {
            lane.incoming.extend(bytes);
            self.held += bytes.len();
            wake(&mut lane.reader);
        }
    }

    /// What a head says that holds behind its payload.
    fn close(&mut self, head: &Head) {
        let closes = head.ends || head.resets;
        if let Some(lane) = self.lanes.get_mut(&head.stream).filter(|_| closes) {
            lane.ended |= head.ends;
            lane.reset |= head.resets;
            wake(&mut lane.reader);
            wake(&mut lane.writer);
        }
    }

    /// What a head says before its payload.
    fn apply(&mut self, dialect: Dialect, head: &Head) -> io::Result<()> {
        if let Some(value) = head.ping {
            dialect.pong(value, &mut self.outgoing);
            // A peer that does nothing but ask is none.
            if self.outgoing.len() > 2 * QUEUED_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let Some(lane) = self.lanes.get_mut(&head.stream) else {
            return Ok(());
        };
        if dialect == Dialect::Yamux {
            let unread = u32::try_from(lane.incoming.len()).unwrap_or(u32::MAX);
            // More than it was allowed to send.
            if head.payload > WINDOW.saturating_sub(unread.saturating_add(lane.read)) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if head.credit > 0 {
                lane.credit = lane.credit.saturating_add(head.credit);
                wake(&mut lane.writer);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
