//! A client's connection while a proxy protocol is spoken on it.
//!
//! Bytes are buffered only between two messages; what is left when the conversation is over
//! goes on in front of the stream, and usually nothing is.

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::outbound::Stream;
use crate::tunnel::prefixed::Prefixed;

/// How many bytes are asked for at a time: a greeting or a usual request head.
const READ_BYTES: usize = 2048;

/// How much a refused client may still send, and for how long, before its socket is closed:
/// closing with unread bytes would reset the connection and destroy the refusal on its way.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Why a conversation ended without a flow.
#[derive(Debug)]
pub(super) enum Ended<E> {
    /// The connection broke or the client closed it.
    Io(io::Error),
    /// A message is longer than any may be.
    TooLong,
    /// The bytes are not the protocol.
    Malformed(E),
}

impl<E: fmt::Display> fmt::Display for Ended<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::TooLong => f.write_str("message too long"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl<E> From<io::Error> for Ended<E> {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A client's socket with the bytes that were read and not used yet.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    pub(super) unread: Vec<u8>,
    /// Where it connects from; IPv4 even on a socket of both families.
    pub(super) source: SocketAddr,
}

impl Client {
    pub(super) fn new(socket: TcpStream, source: SocketAddr) -> Self {
        Self {
            socket,
            unread: Vec::new(),
            source,
        }
    }

    /// Waits for bytes and reads some. Cancelling it loses nothing.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` when the client closed.
    pub(super) async fn read_more(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            // Clients may wait between requests: no buffer is held meanwhile.
            self.unread = Vec::new();
            self.socket.readable().await?;
        }
        self.unread.reserve(READ_BYTES);
        match self.socket.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads until `decode` answers, and takes the message's bytes. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`Ended`]: also when `decode` wants more than `bytes_max` bytes.
    pub(super) async fn message<T, E>(
        &mut self,
        bytes_max: usize,
        decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
    ) -> Result<T, Ended<E>> {
        loop {
            if let Some((message, length)) = decode(&self.unread).map_err(Ended::Malformed)? {
                self.unread.drain(..length.min(self.unread.len()));
                return Ok(message);
            }
            if self.unread.len() >= bytes_max {
                return Err(Ended::TooLong);
            }
            self.read_more().await?;
        }
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// What the socket says.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Sends a last answer and closes so that it arrives.
    pub(super) async fn refuse(mut self, answer: &[u8]) {
        let end = async {
            self.send(answer).await?;
            self.socket.shutdown().await?;
            let mut sink = [0; 512];
            let mut left = DRAIN_BYTES_MAX;
            while left > 0 {
                match self.socket.read(&mut sink).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            Ok::<_, io::Error>(())
        };
        // Whatever happens here, the client is gone.
        let _gone = timeout(DRAIN_TIME_MAX, end).await;
    }

    /// The rest of the connection, for the relay.
    pub(super) fn into_stream(self) -> Stream {
        if self.unread.is_empty() {
            Stream::Tcp(self.socket)
        } else {
            Stream::Boxed(Box::new(Prefixed::new(
                self.unread.into(),
                Box::new(self.socket),
            )))
        }
    }
}
