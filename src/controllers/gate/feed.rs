//! Documents without end (`/traffic`, `/logs` …), to a WebSocket or as lines of a chunked body.
//!
//! A resource gives a [`Feed`]; this file drives it. One document is on its way at a time, and goes out of
//! the bytes that all readers of it share; what a feed holds back for a slow reader is the feed's to bound.
//! A reader that takes nothing for a while is cut (`connection`).

use std::io;

use super::connection::Connection;
use crate::controllers::http::route::Feed;
use crate::websocket::{self, Incoming, OpCode, Said};

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

impl Framing {
    /// What goes before a document of `length` bytes, and what behind it.
    fn around(self, length: usize) -> (Vec<u8>, &'static [u8]) {
        match self {
            Self::WebSocket => (websocket::header(OpCode::Text, length), b""),
            Self::Chunked => (format!("{length:x}\r\n").into_bytes(), b"\r\n"),
            Self::Plain => (Vec::new(), b""),
        }
    }

    /// What says that no document follows.
    fn end(self) -> Vec<u8> {
        match self {
            Self::WebSocket => websocket::header(OpCode::Close, 0),
            Self::Chunked => b"0\r\n\r\n".to_vec(),
            Self::Plain => Vec::new(),
        }
    }
}

/// Drives `feed` until it ends, the client leaves or takes nothing.
pub(super) async fn run(mut feed: Box<dyn Feed>, mut connection: Connection, framing: Framing) {
    // However it ends, the connection goes with it: nothing is left to tell anybody.
    let _ended = drive(&mut *feed, &mut connection, framing).await;
}

async fn drive(
    feed: &mut dyn Feed,
    connection: &mut Connection,
    framing: Framing,
) -> io::Result<()> {
    let mut incoming = Incoming::default();
    loop {
        // Some may have come behind the request.
        if framing == Framing::WebSocket {
            if listen(&mut incoming, connection).await? {
                return Ok(());
            }
        } else {
            // Nothing that it could say matters.
            connection.received().clear();
        }
        let document = tokio::select! {
            document = feed.next() => document,
            read = connection.fill() => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        let Some(document) = document else {
            return connection.send(framing.end(), &[]).await;
        };
        let (before, behind) = framing.around(document.len());
        connection.send_between(before, &document, behind).await?;
    }
}

/// Answers what the client has said; whether that was its farewell.
async fn listen(incoming: &mut Incoming, connection: &mut Connection) -> io::Result<bool> {
    loop {
        let said = incoming.next(connection.received());
        let (opcode, payload) = match said.map_err(|_| io::ErrorKind::InvalidData)? {
            None => return Ok(false),
            Some(Said::Ping(payload)) => (OpCode::Pong, payload),
            Some(Said::Close(payload)) => (OpCode::Close, payload),
        };
        let header = websocket::header(opcode, payload.len());
        connection.send(header, &payload).await?;
        if opcode == OpCode::Close {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_framed_as_their_reader_takes_them() {
        let around = |framing: Framing, length| {
            let (before, behind) = framing.around(length);
            [&before, &b"_"[..], behind].concat()
        };
        assert_eq!(around(Framing::WebSocket, 5), b"\x81\x05_");
        assert_eq!(around(Framing::Chunked, 255), b"ff\r\n_\r\n");
        assert_eq!(around(Framing::Plain, 255), b"_");
    }
}
