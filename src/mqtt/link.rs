//! One connection: what the driver keeps of it, and how its bytes go out.
//!
//! At rest it holds no buffer. What was read in part stays with it; what could not be written stays
//! with it too.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::codec::Version;
use super::listener::Seat;
use super::message::Message;
use super::topic::tree::SessionId;
use super::transport::{Io, Stream};

/// A connection whose CONNECT was good.
pub(super) struct Link {
    pub stream: RefCell<Stream>,
    pub version: Version,
    /// `None` until the broker has let it in.
    pub session: Cell<Option<SessionId>>,
    /// Its place at a listener; none: it came by none.
    pub seat: Option<Seat>,
    /// The waker of the connection's task; `None`: it has none, the driver is told when it is ready.
    pub waker: Option<Waker>,
    pub buffers: RefCell<Buffers>,
    /// Its turn was over before it was done.
    pub more: Cell<bool>,
    /// When its messages so far are made good, at the rate that it may have.
    pub due: Cell<Duration>,
    /// It is among those that wait for that.
    pub paused: Cell<bool>,
    /// The broker has forgotten it.
    pub closed: Cell<bool>,
}

impl Link {
    /// A connection that the broker has not let in yet.
    pub fn new(stream: Stream, version: Version, seat: Option<Seat>, waker: Option<Waker>) -> Self {
        Self {
            stream: RefCell::new(stream),
            version,
            session: Cell::new(None),
            seat,
            waker,
            buffers: RefCell::default(),
            more: Cell::new(false),
            due: Cell::new(Duration::ZERO),
            paused: Cell::new(false),
            closed: Cell::new(false),
        }
    }
}

/// What a connection holds while it is not at rest.
#[derive(Default)]
pub(super) struct Buffers {
    /// The beginning of a packet.
    #[expect(clippy::box_collection, reason = "absent in almost every connection")]
    pub partial: Option<Box<Vec<u8>>>,
    /// What the socket would not take.
    pub unsent: Option<Box<Unsent>>,
}

/// What the socket would not take.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    /// A large payload behind them, from an offset on.
    tail: Option<(Rc<Message>, usize)>,
}

/// Lets a transport with a buffer of its own pass on what it holds; what it cannot, it will ask for.
pub(super) fn flush(io: &mut dyn Io, context: &mut Context<'_>) -> io::Result<()> {
    match Pin::new(io).poll_flush(context) {
        Poll::Ready(done) => done,
        Poll::Pending => Ok(()),
    }
}

/// Sends `bytes` and the payload of `tail`. `false`: the socket would not take all; the rest is kept.
pub(super) fn send(
    io: &mut dyn Io,
    context: &mut Context<'_>,
    bytes: &[u8],
    tail: Option<Rc<Message>>,
    unsent: &mut Option<Box<Unsent>>,
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
    let tail = tail.map(|message| (message, written.saturating_sub(bytes.len())));
    let bytes = rest.to_vec();
    *unsent = Some(Box::new(Unsent { bytes, tail }));
    // Only a socket that says no will say when it takes more.
    send_rest(io, context, unsent)
}

/// Sends what was kept. `false`: the socket still does not take all.
pub(super) fn send_rest(
    io: &mut dyn Io,
    context: &mut Context<'_>,
    kept: &mut Option<Box<Unsent>>,
) -> io::Result<bool> {
    while let Some(unsent) = kept {
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
            *kept = None;
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

/// Sends last words and ends the stream, as far as that goes at once.
pub(super) fn say_last(io: &mut dyn Io, bytes: &[u8]) {
    let mut context = Context::from_waker(Waker::noop());
    if !bytes.is_empty() {
        // Who does not take it now does not learn why.
        let _untold = Pin::new(&mut *io).poll_write(&mut context, bytes);
        let _untold = Pin::new(&mut *io).poll_flush(&mut context);
    }
    let _down = Pin::new(&mut *io).poll_shutdown(&mut context);
}
