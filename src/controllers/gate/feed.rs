//! Documents without end (`/traffic`, `/logs` …), to a WebSocket or as lines of a chunked body.
//!
//! A resource gives a [`Feed`]; this file drives it. One document is on its way at a time, and
//! what a feed holds back for a slow reader is the feed's to bound. A reader that takes nothing
//! for [`WRITE_TIMEOUT`] is cut.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use crate::controllers::http::route::Feed;
use crate::outbound::ByteStream;

/// How long a reader may take nothing while a document waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Payload bytes of a WebSocket frame. A longer document goes as fragments, so that a megabyte of
/// connections costs each reader one frame's buffer and not a copy of the whole.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a message from the client: nothing that it could say matters, but pings and the
/// farewell are answered.
const CLIENT_MESSAGE_BYTES_MAX: usize = 4096;

/// How the documents travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// One text message each.
    WebSocket,
    /// One chunk each.
    Chunked,
    /// As they are; the end of the connection ends them (HTTP/1.0).
    Plain,
}

/// Drives `feed` until it ends, the client leaves or takes nothing. `received` came behind the head.
pub(super) async fn run(
    mut feed: Box<dyn Feed>,
    stream: Box<dyn ByteStream>,
    received: Vec<u8>,
    framing: Framing,
) {
    // However it ends, the connection goes with it: nothing is left to tell anybody.
    let _ = match framing {
        Framing::WebSocket => run_websocket(&mut *feed, stream, received).await,
        Framing::Chunked | Framing::Plain => {
            let chunked = framing == Framing::Chunked;
            run_body(&mut *feed, stream, chunked)
                .await
                .map_err(Into::into)
        }
    };
}

/// The client sends nothing more that matters; its end of file says that it is gone.
async fn run_body(
    feed: &mut dyn Feed,
    mut stream: Box<dyn ByteStream>,
    chunked: bool,
) -> io::Result<()> {
    loop {
        let mut ignored = [0; 64];
        let document = tokio::select! {
            document = feed.next() => document,
            read = stream.read(&mut ignored) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        let Some(document) = document else {
            if chunked {
                write(&mut stream, b"0\r\n\r\n").await?;
            }
            return stream.shutdown().await;
        };
        if chunked {
            let mut chunk = format!("{:x}\r\n", document.len()).into_bytes();
            chunk.extend_from_slice(&document);
            chunk.extend_from_slice(b"\r\n");
            write(&mut stream, &chunk).await?;
        } else {
            write(&mut stream, &document).await?;
        }
    }
}

async fn write(stream: &mut Box<dyn ByteStream>, bytes: &[u8]) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, stream.write_all(bytes)).await?
}

async fn run_websocket(
    feed: &mut dyn Feed,
    stream: Box<dyn ByteStream>,
    received: Vec<u8>,
) -> Result<(), tungstenite::Error> {
    let config = WebSocketConfig::default()
        .read_buffer_size(512)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * FRAME_BYTES_MAX)
        .max_message_size(Some(CLIENT_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(CLIENT_MESSAGE_BYTES_MAX));
    let mut socket =
        WebSocketStream::from_partially_read(stream, received, Role::Server, Some(config)).await;
    loop {
        let document = tokio::select! {
            document = feed.next() => document,
            message = socket.next() => match message {
                // tungstenite answers pings and closes by itself, on the next write or read.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        };
        let Some(document) = document else {
            let closed = timeout(WRITE_TIMEOUT, socket.close(None)).await;
            return closed.map_err(io::Error::from)?;
        };
        for frame in frames(document) {
            let sent = timeout(WRITE_TIMEOUT, socket.send(Message::Frame(frame))).await;
            sent.map_err(io::Error::from)??;
        }
    }
}

/// One text message as frames that share its bytes.
fn frames(mut document: Bytes) -> impl Iterator<Item = Frame> {
    let mut first = true;
    std::iter::from_fn(move || {
        if document.is_empty() && !first {
            return None;
        }
        let payload = document.split_to(document.len().min(FRAME_BYTES_MAX));
        let data = if first { Data::Text } else { Data::Continue };
        first = false;
        Some(Frame::message(
            payload,
            OpCode::Data(data),
            document.is_empty(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_are_fragmented_and_short_ones_are_not() {
        let lengths = |bytes: usize| -> Vec<(bool, usize)> {
            let document = Bytes::from(vec![b'x'; bytes]);
            let frames = frames(document);
            frames
                .map(|f| (f.header().is_final, f.payload().len()))
                .collect()
        };
        assert_eq!(lengths(0), [(true, 0)]);
        assert_eq!(lengths(FRAME_BYTES_MAX), [(true, FRAME_BYTES_MAX)]);
        assert_eq!(
            lengths(FRAME_BYTES_MAX + 1),
            [(false, FRAME_BYTES_MAX), (true, 1)]
        );
    }
}
