//! MQTT over WebSocket (MQTT 5.0 section 6): binary messages, whose boundaries mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use crate::websocket;

/// The room that each connection sets aside for reading; the default is 128 KB.
const READ_BYTES: usize = 4 * 1024;

/// A client may gather packets in one message, but not without end.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What could not be written before it is an error: more than one gathered write never waits.
const WRITE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What a client has to offer one of: it is no MQTT client otherwise, perhaps some web page.
const PROTOCOLS: &[&str] = &["mqtt", "mqttv3.1"];

/// A WebSocket as the stream of bytes that MQTT takes it for.
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What is left of the message that is being read.
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Answers the client's handshake, which names the subprotocol `mqtt` or `mqttv3.1`.
    ///
    /// # Errors
    /// Not a WebSocket handshake, or not of MQTT; what the stream says.
    pub async fn accept(mut stream: S) -> io::Result<Self> {
        let mut head = Vec::with_capacity(512);
        let opening = loop {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match websocket::read(&head, PROTOCOLS) {
                Ok(Some(opening)) => break opening,
                Ok(None) => {}
                Err(websocket::Refused) => {
                    let refusal = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(refusal.as_bytes()).await?;
                    stream.shutdown().await?;
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        };
        stream.write_all(opening.answer.as_bytes()).await?;
        stream.flush().await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let frames = head.split_off(opening.length);
        let inner =
            WebSocketStream::from_partially_read(stream, frames, Role::Server, Some(config)).await;
        Ok(Self {
            inner,
            rest: Bytes::new(),
        })
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // 6.0: anything but binary frames ends the connection.
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        let part = self.rest.split_to(length);
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(context)).map_err(to_io)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.inner)
            .start_send(message)
            .map_err(to_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context).map_err(to_io)
    }
}
