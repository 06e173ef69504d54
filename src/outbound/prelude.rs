//! A stream that is the carrier's own but for its beginning: a header before what we send, and
//! maybe one before what we receive (Trojan, VLESS).
//!
//! The header goes out with the client's first bytes in one write, as in `framed`; afterwards
//! bytes pass through untouched and nothing is held: above a socket the relay splices that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::Stream;
use super::carrier::Carrier;
use super::framed::{FIRST_BYTES_WAIT, too_long};
use super::layer::{Shedding, put_first};
use super::scratch::Scratch;

/// How long the peer's header is, once enough of it is there to tell.
///
/// # Errors
/// These bytes begin no such header.
pub type HeaderLength = fn(&[u8]) -> io::Result<Option<usize>>;

/// One end of such a stream.
pub struct Prelude {
    carrier: Carrier,
    sending: Sending,
    receiving: Receiving,
}

enum Sending {
    /// The header waits for the first bytes, which a reader does not await for ever.
    Waiting(Box<[u8]>, Option<Pin<Box<Sleep>>>),
    /// Header and first bytes, not taken by the carrier yet.
    Going(Scratch),
    /// Straight through.
    Through,
}

enum Receiving {
    /// The peer's header, as far as it has come.
    Header(HeaderLength, Vec<u8>),
    /// What came behind it.
    Rest(Vec<u8>),
    /// Straight through.
    Through,
}

impl Prelude {
    /// `header` before what is sent; `answer` tells the header of what is received, if there is one.
    #[must_use]
    pub fn new(carrier: Carrier, header: Vec<u8>, answer: Option<HeaderLength>) -> Self {
        Self {
            carrier,
            sending: match header.is_empty() {
                true => Sending::Through,
                false => Sending::Waiting(header.into(), None),
            },
            receiving: match answer {
                Some(length) => Receiving::Header(length, Vec::new()),
                None => Receiving::Through,
            },
        }
    }

    /// As what the relay takes: it may come to be the carrier's socket.
    #[must_use]
    pub fn into_stream(self) -> Stream {
        Stream::Shedding(Box::new(self))
    }

    /// Puts the header and the start of `first` on their way; how much of it. `None`: that is done.
    fn begin(&mut self, first: &[u8]) -> io::Result<Option<usize>> {
        let Sending::Waiting(header, _) = &self.sending else {
            return Ok(None);
        };
        let mut out = Scratch::take(header.len() + first.len());
        out.push(header).map_err(too_long)?;
        let room = out.spare().len();
        let part = first.get(..room).unwrap_or(first);
        out.push(part).map_err(too_long)?;
        self.sending = Sending::Going(out);
        Ok(Some(part.len()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Sending::Going(out) = &mut self.sending {
            ready!(out.poll_write_to(&mut self.carrier, cx))?;
            self.sending = Sending::Through;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the header alone when the client has been silent for long enough. A reader that waits may be
    /// the only one there is: it sees to it that the header goes out whole.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.sending {
            Sending::Waiting(_, patience) => {
                let patience = patience.get_or_insert_with(|| Box::pin(sleep(FIRST_BYTES_WAIT)));
                if patience.as_mut().poll(cx).is_pending() {
                    return Ok(());
                }
                self.begin(&[])?;
            }
            Sending::Going(_) => {}
            Sending::Through => return Ok(()),
        }
        match Pin::new(self).poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Reads the peer's header. Ready when bytes may pass, or at the end of the stream.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Receiving::Header(length, bytes) = &mut self.receiving {
            let mut piece = [0; 512];
            let mut room = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.carrier).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                return Poll::Ready(match bytes.is_empty() {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
            bytes.extend_from_slice(room.filled());
            if let Some(length) = length(bytes)?
                && length <= bytes.len()
            {
                let rest = bytes.split_off(length);
                self.receiving = match rest.is_empty() {
                    true => Receiving::Through,
                    false => Receiving::Rest(rest),
                };
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Prelude {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_patience(cx)?;
        ready!(this.poll_header(cx))?;
        match &mut this.receiving {
            Receiving::Rest(rest) => {
                let n = rest.len().min(buffer.remaining());
                buffer.put_slice(rest.get(..n).unwrap_or_default());
                rest.drain(..n);
                if rest.is_empty() {
                    this.receiving = Receiving::Through;
                }
                Poll::Ready(Ok(()))
            }
            // The stream ended where its header should have begun.
            Receiving::Header(..) => Poll::Ready(Ok(())),
            Receiving::Through => Pin::new(&mut this.carrier).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Prelude {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let Some(sent) = this.begin(bytes)? else {
            return Pin::new(&mut this.carrier).poll_write(cx, bytes);
        };
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(sent)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.carrier).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The server must learn of the destination to pass the end on.
        this.begin(&[])?;
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.carrier).poll_shutdown(cx)
    }
}

impl Shedding for Prelude {
    fn is_bare(&self) -> bool {
        self.reads_from().is_some() && self.writes_to().is_some()
    }

    fn reads_from(&self) -> Option<&TcpStream> {
        match self.receiving {
            Receiving::Through => self.carrier.bare(),
            Receiving::Header(..) | Receiving::Rest(_) => None,
        }
    }

    fn writes_to(&self) -> Option<&TcpStream> {
        match self.sending {
            Sending::Through => self.carrier.bare(),
            Sending::Waiting(..) | Sending::Going(_) => None,
        }
    }

    fn take_socket(&mut self) -> Option<TcpStream> {
        self.carrier.take_socket()
    }

    fn put_back(&mut self, bytes: Vec<u8>) {
        match &mut self.receiving {
            _ if bytes.is_empty() => {}
            Receiving::Rest(rest) => put_first(rest, bytes),
            // What was read has passed the header.
            Receiving::Header(..) | Receiving::Through => self.receiving = Receiving::Rest(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    /// Longer than anything here takes.
    const WAIT_MAX: Duration = Duration::from_secs(60);

    fn two_bytes(bytes: &[u8]) -> io::Result<Option<usize>> {
        match bytes.first() {
            Some(0) => Ok(bytes.get(1).map(|&n| 2 + usize::from(n))),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        }
    }

    fn pair(capacity: usize) -> (Prelude, tokio::io::DuplexStream) {
        let (near, far) = duplex(capacity);
        let carrier = Carrier::Boxed(Box::new(near));
        let stream = Prelude::new(carrier, b"head".to_vec(), Some(two_bytes));
        (stream, far)
    }

    #[tokio::test]
    async fn headers_go_before_the_bytes_of_both_directions() {
        for capacity in [1, 3, 4096] {
            let (mut stream, mut far) = pair(capacity);
            let near = async {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                assert_eq!(text, b"world");
            };
            let server = async {
                let mut text = Vec::new();
                far.read_to_end(&mut text).await.unwrap();
                assert_eq!(text, b"headhello");
                far.write_all(b"\0\x03abcworld").await.unwrap();
                far.shutdown().await.unwrap();
            };
            tokio::join!(near, server);
        }
    }

    #[tokio::test]
    async fn a_silent_client_still_sends_its_header() {
        // Also through a carrier that takes a byte at a time, with nobody who writes.
        for capacity in [1, 4096] {
            let (mut stream, mut far) = pair(capacity);
            let mut byte = [0];
            let reading = stream.read_exact(&mut byte);
            let server = async {
                let mut head = [0; 4];
                far.read_exact(&mut head).await.unwrap();
                far.write_all(b"\0\0x").await.unwrap();
                head
            };
            let both = async { tokio::join!(reading, server) };
            let (read, head) = timeout(WAIT_MAX, both).await.unwrap();
            read.unwrap();
            assert_eq!((&byte, &head), (b"x", b"head"));
        }
    }

    #[tokio::test]
    async fn a_wrong_or_cut_header_is_an_error() {
        for (answer, clean) in [(&b""[..], true), (b"\0", false), (b"\x01\0", false)] {
            let (mut stream, mut far) = pair(4096);
            far.write_all(answer).await.unwrap();
            far.shutdown().await.unwrap();
            let read = stream.read_to_end(&mut Vec::new()).await;
            assert_eq!(read.is_ok(), clean, "{answer:?}");
        }
    }
}
