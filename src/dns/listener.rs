//! The drivers of [`Server`]: datagrams and streams to and from clients.
//!
//! One task a UDP socket, and one for each query that has to wait; one task a TCP listener, and one
//! for each connection. All are held here and end with their listener. The sockets are shared, so
//! that a reload can put another server behind them without closing them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::outbound::ByteStream;
use crate::platform::answering_udp::{AnsweringUdp, Asker};

use super::message::build::Transport;
use super::server::{Now, Server};

/// Longest query read; longer ones are no questions of a sane client.
const QUERY_BYTES_MAX: usize = 4096;
/// Datagrams read before other tasks get their turn.
const BURST: usize = 64;
/// TCP clients at once; the newest beyond it is closed.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a TCP client may be silent, or refuse to read (RFC 7766 section 6.2.3: some seconds).
pub const IDLE_TIME: Duration = Duration::from_secs(10);
/// Questions of one TCP client answered at once; further ones are read when there is room.
const PIPELINE_MAX: usize = 16;
/// Rest after an error of the listening socket (out of descriptors, network down).
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams for as long as it is polled.
pub async fn serve_udp(server: Arc<Server>, socket: Arc<AnsweringUdp>) {
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; QUERY_BYTES_MAX];
    let mut reply = Vec::new();
    loop {
        let readable = tokio::select! {
            readable = socket.readable() => readable,
            Some(_) = waiting.join_next() => continue,
        };
        let burst = readable.and_then(|()| {
            let mut later = |query: &[u8], asker: Asker| {
                let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
                let query: Box<[u8]> = query.into();
                waiting.spawn(async move {
                    let client = asker.client;
                    let answered = server.answer_later(&query, client, Transport::Udp).await;
                    if let Some(reply) = answered {
                        // The client will ask again if this is lost.
                        let _ = socket.answer(&reply, &asker).await;
                    }
                });
            };
            answer_burst(&server, &socket, &mut buffer, &mut reply, &mut later)
        });
        match burst {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::debug!("dns listener: {error}");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Answers up to [`BURST`] datagrams that are there already.
fn answer_burst(
    server: &Server,
    socket: &AnsweringUdp,
    buffer: &mut [u8],
    reply: &mut Vec<u8>,
    later: &mut dyn FnMut(&[u8], Asker),
) -> io::Result<()> {
    for _ in 0..BURST {
        let (length, asker) = socket.try_receive(buffer)?;
        let query = buffer.get(..length).unwrap_or_default();
        match server.answer_now(query, asker.client, Transport::Udp, reply) {
            // A full send buffer loses it, as the network may; the client asks again.
            Now::Replied => drop(socket.try_answer(reply, &asker)),
            Now::Ignored => {}
            Now::Later => later(query, asker),
        }
    }
    Ok(())
}

/// Accepts and answers TCP clients for as long as it is polled.
pub async fn serve_tcp(server: Arc<Server>, listener: Arc<TcpListener>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, client)) if connections.len() < CONNECTIONS_MAX => {
                let server = Arc::clone(&server);
                connections.spawn(async move {
                    let mut stream = stream;
                    let _ = stream.set_nodelay(true);
                    // An error is the client's: it went away.
                    let _ = serve_stream(&server, &mut stream, client).await;
                });
            }
            Ok(_) => log::debug!("dns listener: too many tcp clients, newest closed"),
            Err(error) => {
                log::debug!("dns listener: {error}");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Answers one client's stream until it ends, is silent for [`IDLE_TIME`], or breaks the framing.
///
/// # Errors
/// What the stream says.
pub async fn serve_stream(
    server: &Server,
    stream: &mut dyn ByteStream,
    client: SocketAddr,
) -> io::Result<()> {
    let mut unread = Vec::new();
    let mut answers = FuturesUnordered::new();
    let mut open = true;
    loop {
        while answers.len() < PIPELINE_MAX
            && let Some(query) = take_frame(&mut unread)?
        {
            answers.push(Box::pin(async move {
                server.answer(&query, client, Transport::Tcp).await
            }));
        }
        let mut chunk = [0; 512];
        tokio::select! {
            Some(answer) = answers.next() => {
                if let Some(answer) = answer {
                    timeout(IDLE_TIME, write_frame(stream, &answer)).await??;
                }
            }
            read = timeout(IDLE_TIME, stream.read(&mut chunk)), if open && answers.len() < PIPELINE_MAX => {
                match read {
                    Ok(read) => {
                        let read = read?;
                        open = read > 0;
                        unread.extend_from_slice(chunk.get(..read).unwrap_or_default());
                    }
                    // The client may wait for what is still being asked.
                    Err(_) if !answers.is_empty() => {}
                    Err(_) => return Ok(()),
                }
            }
            else => return Ok(()),
        }
    }
}

/// Takes the first whole message off the bytes read so far.
fn take_frame(unread: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some((length, rest)) = unread.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > QUERY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    unread.drain(..2 + length);
    Ok(Some(message))
}

async fn write_frame(stream: &mut dyn ByteStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}
