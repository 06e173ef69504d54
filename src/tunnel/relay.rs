//! Moves bytes between the two ends of a flow until both directions are done.
//!
//! Plain sockets at both ends are spliced in the kernel once they move bulk, and copied through one
//! scratch buffer a thread while they move little: a pipe costs more than it saves below some
//! kilobytes. No buffer and no pipe is held while nothing flows, so an idle flow costs its task.
//!
//! A stream that has come to be its socket ([`Shedding`]) is relayed as that from then on; one that sends
//! in frames may read to their place in them.
//!
//! The end of one direction is carried across as a half-close; an error as a reset, so that the
//! peer learns that the bytes were cut, not finished.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::outbound::framed::BATCH_MAX;
use crate::outbound::layer::{Shedding, Source};
use crate::outbound::{ByteStream, Stream};
use crate::platform::pipe::Pipe;
use crate::platform::socket;

use super::connections::{Connection, Connections};

/// The thread's copy buffer, bytes.
const SCRATCH: usize = BATCH_MAX;

/// A read this large means bulk: the direction goes over to splicing.
const BULK: usize = 16 * 1024;

/// Splices smaller than this, several in a row, mean that it is bulk no more.
const SMALL: usize = 4 * 1024;

/// How many small splices in a row.
const SMALL_RUN: u8 = 8;

thread_local! {
    /// Private to the thread, and to one poll: nothing stays in it between polls.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Joins `client` and `remote` and counts on `connection`; done when both directions are, when
/// one fails, or when somebody closes the connection.
///
/// # Errors
/// The first failure; both ends are reset then.
pub async fn relay(
    client: Stream,
    remote: Stream,
    connection: &Connection,
    totals: &Connections,
) -> io::Result<()> {
    match (client, remote) {
        (Stream::Tcp(client), Stream::Tcp(remote)) => {
            let up = Direction::new(connection);
            let down = Direction::new(connection);
            Sockets {
                client,
                remote,
                up,
                down,
                connection,
                totals,
            }
            .await
        }
        (client, remote) => {
            let (Some(client), Some(remote)) = (Side::new(client), Side::new(remote)) else {
                return Ok(());
            };
            let mut boxes = Boxes {
                client,
                remote,
                up: Leg::new(connection),
                down: Leg::new(connection),
                connection,
                totals,
            };
            (&mut boxes).await?;
            let (up, down) = (Direction::behind(boxes.up), Direction::behind(boxes.down));
            match (boxes.client.into_socket(), boxes.remote.into_socket()) {
                (Some(client), Some(remote)) if !(up.finished && down.finished) => {
                    Sockets {
                        client,
                        remote,
                        up,
                        down,
                        connection,
                        totals,
                    }
                    .await
                }
                _ => Ok(()),
            }
        }
    }
}

/// One end, of which at least the other is no plain socket.
enum Side {
    Tcp(TcpStream),
    Boxed(Box<dyn ByteStream>),
    Shedding(Box<dyn Shedding>),
}

impl Side {
    fn new(stream: Stream) -> Option<Self> {
        match stream {
            Stream::Tcp(stream) => Some(Self::Tcp(stream)),
            Stream::Boxed(stream) => Some(Self::Boxed(stream)),
            Stream::Shedding(stream) => Some(Self::Shedding(stream)),
            Stream::Closed | Stream::Silent => None,
        }
    }

    fn stream(&mut self) -> &mut dyn ByteStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Boxed(stream) => stream,
            Self::Shedding(stream) => stream,
        }
    }

    /// The same to be read to its place.
    fn pulled(&mut self) -> Source<'_> {
        match self {
            Self::Tcp(stream) => Source::Socket(stream),
            Self::Boxed(stream) => Source::Stream(stream),
            Self::Shedding(stream) => Source::Stream(stream),
        }
    }

    /// The stream, if it may shed work.
    fn shedding(&mut self) -> Option<&mut dyn Shedding> {
        match self {
            Self::Shedding(stream) => Some(&mut **stream),
            Self::Tcp(_) | Self::Boxed(_) => None,
        }
    }

    /// The socket whose bytes are read as they are.
    fn reads_from(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Boxed(_) => None,
            Self::Shedding(stream) => stream.reads_from(),
        }
    }

    /// The socket that takes what is written as it is.
    fn writes_to(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Boxed(_) => None,
            Self::Shedding(stream) => stream.writes_to(),
        }
    }

    /// Whether it is a plain socket by now.
    fn is_bare(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Boxed(_) => false,
            Self::Shedding(stream) => stream.is_bare(),
        }
    }

    fn into_socket(self) -> Option<TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Shedding(mut stream) if stream.is_bare() => stream.take_socket(),
            Self::Boxed(_) | Self::Shedding(_) => None,
        }
    }
}

/// Two plain sockets.
struct Sockets<'a> {
    client: TcpStream,
    remote: TcpStream,
    up: Direction,
    down: Direction,
    connection: &'a Connection,
    totals: &'a Connections,
}

impl Future for Sockets<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.poll_closed(cx.waker()) {
            return this.fail(io::ErrorKind::ConnectionAborted.into());
        }
        let (connection, totals) = (this.connection, this.totals);
        let last = this.down.finished;
        let up = this.up.poll(cx, &this.client, &this.remote, last, |n| {
            totals.count_upload(connection, n)
        });
        let last = this.up.finished;
        let down = this.down.poll(cx, &this.remote, &this.client, last, |n| {
            totals.count_download(connection, n)
        });
        match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => this.fail(error),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (up, down) => {
                connection.note_said_all(up.is_ready(), down.is_ready());
                Poll::Pending
            }
        }
    }
}

impl Sockets<'_> {
    fn fail(&self, error: io::Error) -> Poll<io::Result<()>> {
        socket::reset_on_close(&self.client);
        socket::reset_on_close(&self.remote);
        Poll::Ready(Err(error))
    }
}

/// One direction between plain sockets.
#[derive(Default)]
struct Direction {
    held: Held,
    /// What may be read at a time, and be held, bytes; 0: no limit. With one nothing is spliced.
    read_max: u32,
    /// Bulk: splice instead of copying.
    bulk: bool,
    small_run: u8,
    ended: bool,
    finished: bool,
}

/// Bytes that were taken from the source and that the sink would not take yet.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Bytes(Box<[u8]>, usize),
    Piped(Pipe),
}

/// What a level lets be read at a time; 0: no limit.
fn read_max(connection: &Connection) -> u32 {
    u32::from(connection.buffer) * 1024
}

/// As much of the buffer as may be read into.
fn limited(buffer: &mut [u8], read_max: u32) -> &mut [u8] {
    match usize::try_from(read_max) {
        Ok(most @ 1..) if most < buffer.len() => buffer.get_mut(..most).unwrap_or_default(),
        _ => buffer,
    }
}

impl Direction {
    fn new(connection: &Connection) -> Self {
        Self {
            read_max: read_max(connection),
            ..Self::default()
        }
    }

    /// One that goes on where boxed streams have left it.
    fn behind(leg: Leg) -> Self {
        if let Some(direct) = leg.direct {
            return direct;
        }
        let held = match leg.held.len() > leg.sent {
            true => Held::Bytes(leg.held, leg.sent),
            false => Held::Nothing,
        };
        Self {
            held,
            read_max: leg.read_max,
            ended: leg.ended,
            finished: leg.finished,
            ..Self::default()
        }
    }

    /// Moves what can be moved. `last`: the other direction has finished, so that the end goes out by
    /// the close of the socket, which saves a call for each connection.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        last: bool,
        mut count: impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_flush(cx, sink, &mut count))?;
            if self.ended {
                self.finished = true;
                if !last {
                    socket::shutdown_write(sink);
                }
                return Poll::Ready(Ok(()));
            }
            ready!(source.poll_read_ready(cx))?;
            let moved = if self.bulk {
                self.splice(source, sink, &mut count)
            } else {
                self.copy(source, sink, &mut count)
            };
            match moved {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends what is held; ready when nothing is.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        sink: &TcpStream,
        count: &mut impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        loop {
            let sent = match &mut self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Bytes(bytes, from) => {
                    ready!(sink.poll_write_ready(cx))?;
                    let rest = bytes.get(*from..).unwrap_or_default();
                    let sent = sink.try_write(rest);
                    if let Ok(n) = sent {
                        *from += n;
                        if *from >= bytes.len() {
                            self.held = Held::Nothing;
                        }
                    }
                    sent
                }
                Held::Piped(pipe) => {
                    ready!(sink.poll_write_ready(cx))?;
                    let sent = sink.try_io(Interest::WRITABLE, || pipe.drain_to(sink));
                    if pipe.held() == 0
                        && let Held::Piped(pipe) = std::mem::take(&mut self.held)
                    {
                        pipe.give_back();
                    }
                    sent
                }
            };
            match sent {
                Ok(n) => count(n as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Copies one read's worth; `Ok(0)` at the end of the source.
    fn copy(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        count: &mut impl FnMut(u64),
    ) -> io::Result<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(SCRATCH, 0);
            let n = read_and_settle(source, limited(buffer, self.read_max))?;
            let bytes = buffer.get(..n).unwrap_or_default();
            // Straight to the kernel: readiness of a socket that was just accepted is not known yet.
            let sent = if n == 0 {
                0
            } else {
                socket::send_now(sink, bytes)?
            };
            count(sent as u64);
            if sent < n {
                self.held = Held::Bytes(bytes.get(sent..).unwrap_or_default().into(), 0);
            }
            self.bulk = n >= BULK && self.read_max == 0;
            Ok(n)
        })
    }

    /// Splices once; `Ok(0)` at the end of the source.
    fn splice(
        &mut self,
        source: &TcpStream,
        sink: &TcpStream,
        count: &mut impl FnMut(u64),
    ) -> io::Result<usize> {
        let Ok(mut pipe) = Pipe::take() else {
            // No descriptors left: copying needs none.
            self.bulk = false;
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let n = match source.try_io(Interest::READABLE, || pipe.fill_from(source)) {
            Ok(n) => n,
            Err(error) => {
                pipe.give_back();
                return Err(error);
            }
        };
        self.small_run = if n < SMALL { self.small_run + 1 } else { 0 };
        if self.small_run >= SMALL_RUN {
            self.small_run = 0;
            self.bulk = false;
        }
        if n > 0 {
            match pipe.drain_to(sink) {
                Ok(sent) => count(sent as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if pipe.held() > 0 {
            self.held = Held::Piped(pipe);
        } else {
            pipe.give_back();
        }
        Ok(n)
    }
}

/// Reads, and after a short read notes that the socket is empty, which spares the call that
/// would only say so. (New bytes arrive with a new event; an end that is already known stays known.)
fn read_and_settle(source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = None;
    let result = source.try_io(Interest::READABLE, || {
        let n = socket::receive_now(source, buffer)?;
        if n > 0 && n < buffer.len() {
            got = Some(n);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    got.map_or(result, Ok)
}

/// Two ends of which at least one is no plain socket. Done also when both have come to be.
struct Boxes<'a> {
    client: Side,
    remote: Side,
    up: Leg,
    down: Leg,
    connection: &'a Connection,
    totals: &'a Connections,
}

impl Future for Boxes<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.poll_closed(cx.waker()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let (connection, totals) = (this.connection, this.totals);
        let up = this.up.poll(cx, &mut this.client, &mut this.remote, |n| {
            totals.count_upload(connection, n)
        });
        let down = this.down.poll(cx, &mut this.remote, &mut this.client, |n| {
            totals.count_download(connection, n)
        });
        match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ if this.client.is_bare() && this.remote.is_bare() => Poll::Ready(Ok(())),
            (up, down) => {
                connection.note_said_all(up.is_ready(), down.is_ready());
                Poll::Pending
            }
        }
    }
}

/// One direction between boxed streams.
#[derive(Default)]
struct Leg {
    held: Box<[u8]>,
    sent: usize,
    /// As a [`Direction`]'s.
    read_max: u32,
    unflushed: bool,
    ended: bool,
    finished: bool,
    /// From when on it goes from socket to socket, though the other direction may not yet.
    direct: Option<Direction>,
}

impl Leg {
    fn new(connection: &Connection) -> Self {
        Self {
            read_max: read_max(connection),
            ..Self::default()
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Side,
        sink: &mut Side,
        mut count: impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        if let (Some(source), Some(sink)) = (source.reads_from(), sink.writes_to()) {
            let mut direct = Direction::behind(std::mem::take(self));
            let polled = direct.poll(cx, source, sink, false, count);
            self.finished = direct.finished;
            self.direct = Some(direct);
            return polled;
        }
        loop {
            while let Some(rest) = self.held.get(self.sent..).filter(|rest| !rest.is_empty()) {
                let n = ready!(Pin::new(sink.stream()).poll_write(cx, rest))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.sent += n;
                self.unflushed = true;
                count(n as u64);
            }
            self.held = Box::default();
            self.sent = 0;
            if self.ended {
                ready!(Pin::new(sink.stream()).poll_shutdown(cx))?;
                self.finished = true;
                return Poll::Ready(Ok(()));
            }
            match self.poll_move(cx, source, sink, &mut count) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(sink.stream()).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Moves what can be moved at once, without a copy where the sink knows how.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Side,
        sink: &mut Side,
        count: &mut impl FnMut(u64),
    ) -> Poll<io::Result<usize>> {
        let moved = match sink.shedding() {
            Some(sink) if self.read_max == 0 => ready!(sink.poll_pull(cx, source.pulled()))?,
            _ => None,
        };
        match moved {
            Some(n) => {
                self.unflushed |= n > 0;
                count(n as u64);
                Poll::Ready(Ok(n))
            }
            None => self.poll_copy(cx, source.stream(), sink.stream(), count),
        }
    }

    /// Reads once and writes what the sink takes at once; the rest is held.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut dyn ByteStream,
        sink: &mut dyn ByteStream,
        count: &mut impl FnMut(u64),
    ) -> Poll<io::Result<usize>> {
        let (source, mut sink) = (Pin::new(source), Pin::new(sink));
        // Taken out, not borrowed: a boxed stream may be one whose other end is polled from here.
        let mut buffer = BUFFER.take();
        buffer.resize(SCRATCH, 0);
        let mut read = ReadBuf::new(limited(&mut buffer, self.read_max));
        let polled = source.poll_read(cx, &mut read);
        let mut bytes = read.filled();
        let n = bytes.len();
        let mut result = Poll::Ready(Ok(n));
        match polled {
            Poll::Pending => result = Poll::Pending,
            Poll::Ready(Err(error)) => result = Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                while !bytes.is_empty() {
                    match sink.as_mut().poll_write(cx, bytes) {
                        Poll::Ready(Ok(sent)) if sent > 0 => {
                            bytes = bytes.get(sent..).unwrap_or_default();
                            self.unflushed = true;
                            count(sent as u64);
                        }
                        Poll::Ready(Ok(_)) => {
                            result = Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                            break;
                        }
                        Poll::Ready(Err(error)) => {
                            result = Poll::Ready(Err(error));
                            break;
                        }
                        Poll::Pending => {
                            self.held = bytes.into();
                            break;
                        }
                    }
                }
            }
        }
        BUFFER.replace(buffer);
        result
    }
}
