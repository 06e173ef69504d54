//! One plain request and its response, between a client and the flow to a server.
//!
//! The flow is given one end of a pipe in memory as its client; we keep the other end. The two
//! run in one task: whoever waits for the pipe drives the flow ([`Upstream::drive`]). Bodies
//! pass through buffers of [`BODY_BYTES`], request and response at the same time, because a
//! server may answer before it has read everything.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::body::{BadChunk, Body};
use super::request::{Expectation, Forward};
use super::response::{self, Follows, RESPONSE_BYTES_MAX, Response};
use super::{BAD_GATEWAY, BAD_REQUEST};
use crate::inbound::client::Client;
use crate::metadata::{Endpoint, Metadata};
use crate::outbound::{BoxFuture, Stream};
use crate::tunnel::flow::Dispatch;

/// Bytes that the pipe holds in each direction.
const PIPE_BYTES: usize = 16 * 1024;

/// Bytes of a body that are read at a time.
const BODY_BYTES: usize = 8 * 1024;

/// How long a client may take for what the pipe still holds when the flow is over. While the
/// flow runs, the tunnel's own time-outs end it.
const REST_TIME_MAX: Duration = Duration::from_secs(60);

/// What becomes of the client's connection.
pub(super) enum Outcome {
    /// It serves the next request; so may the server's.
    Next {
        /// Whether the server's connection may be kept.
        reuse: bool,
    },
    /// It closes, after this answer.
    Close(&'static [u8]),
}

/// A connection to a server, by way of the dispatch.
pub(super) struct Upstream<'a> {
    server: Endpoint,
    user: Option<Arc<str>>,
    near: DuplexStream,
    /// Bytes of the server that were read and not used yet.
    unread: Vec<u8>,
    /// `None` when it has ended.
    flow: Option<BoxFuture<'a, ()>>,
    /// Whether it has answered a request.
    used: bool,
}

impl<'a> Upstream<'a> {
    pub(super) fn open(dispatch: &'a dyn Dispatch, metadata: Metadata) -> Self {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        Self {
            server: metadata.destination(),
            user: metadata.inbound_user.clone(),
            near,
            unread: Vec::new(),
            flow: Some(dispatch.stream(metadata, Stream::Boxed(Box::new(far)))),
            used: false,
        }
    }

    /// Whether this is a connection to `server` on behalf of `user`.
    pub(super) fn serves(&self, server: &Endpoint, user: &Option<Arc<str>>) -> bool {
        self.server == *server && self.user == *user
    }

    /// Waits until an idle server closes, or says something that nobody asked for.
    pub(super) async fn gone(&mut self) {
        let mut byte = [0];
        let _end = Self::drive(&mut self.flow, self.near.read(&mut byte)).await;
    }

    /// Runs the flow beside `work` until `work` is done; `None` when it is not done in time
    /// after the end of the flow.
    async fn drive<T>(
        flow: &mut Option<BoxFuture<'a, ()>>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        if let Some(running) = flow {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = running => {}
            }
        }
        // Dropping the flow drops its end of the pipe: what it holds can be read, then it ends.
        *flow = None;
        timeout(REST_TIME_MAX, work).await.ok()
    }
}

/// Why an exchange ended early.
enum Broken {
    /// The client closed or broke.
    Client,
    /// The client's chunks are broken.
    BadChunk,
    /// The server closed before it said anything.
    Silent,
    /// The server broke off, or its bytes are no response.
    Server,
}

/// Carries `request` to the server and its response to the client.
pub(super) async fn exchange(
    client: &mut Client,
    upstream: &mut Upstream<'_>,
    request: &Forward,
) -> Outcome {
    let Upstream {
        near,
        unread,
        flow,
        used,
        ..
    } = upstream;
    let mut started = false;
    let both = both_ways(client, near, unread, request, &mut started);
    let outcome = Upstream::drive(flow, both).await;
    let (sent, response) = match outcome {
        Some(Ok(done)) => done,
        Some(Err(Broken::Client)) | None => return Outcome::Close(b""),
        Some(Err(_)) if started => return Outcome::Close(b""),
        // As if the server had closed under the client itself, which then asks again.
        Some(Err(Broken::Silent)) if *used => return Outcome::Close(b""),
        Some(Err(Broken::BadChunk)) => return Outcome::Close(BAD_REQUEST),
        Some(Err(Broken::Silent | Broken::Server)) => return Outcome::Close(BAD_GATEWAY),
    };
    if response.follows == Follows::Upgrade {
        let _over = Upstream::drive(flow, tunnel(client, near, unread)).await;
        return Outcome::Close(b"");
    }
    *used = true;
    let reuse = response.reusable && unread.is_empty();
    // Buffers are for exchanges, not for the wait between them.
    for buffer in [unread, &mut client.unread] {
        buffer.shrink_to_fit();
    }
    if sent && response.keep_alive {
        Outcome::Next { reuse }
    } else {
        Outcome::Close(b"")
    }
}

/// Sends and receives at once. Gives whether the whole request was sent, and the response;
/// `started` tells whether the client got a byte of it.
async fn both_ways(
    client: &mut Client,
    near: &mut DuplexStream,
    unread: &mut Vec<u8>,
    request: &Forward,
    started: &mut bool,
) -> Result<(bool, Response), Broken> {
    let (mut from_client, mut to_client) = client.socket.split();
    let (mut from_server, mut to_server) = tokio::io::split(near);
    let mut send = pin!(send(
        request,
        &mut from_client,
        &mut client.unread,
        &mut to_server
    ));
    let expectation = request.expectation;
    let mut receive = pin!(receive(
        expectation,
        &mut from_server,
        unread,
        &mut to_client,
        started
    ));
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            done = &mut send, if sent.is_none() => match done {
                Ok(()) => sent = Some(true),
                // It takes no more; its response may explain why.
                Err(Broken::Server) => sent = Some(false),
                Err(broken) => return Err(broken),
            },
            response = &mut receive => return Ok((sent == Some(true), response?)),
        }
    }
}

/// Sends the request: its head, then its body as it comes from the client.
async fn send(
    request: &Forward,
    from_client: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    to_server: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Broken> {
    let written = to_server.write_all(&request.head).await;
    written.map_err(|_| Broken::Server)?;
    match pass(Body::new(request.framing), from_client, unread, to_server).await {
        Ok(()) => Ok(()),
        Err(NotPassed::BadChunk) => Err(Broken::BadChunk),
        Err(NotPassed::From) => Err(Broken::Client),
        Err(NotPassed::To) => Err(Broken::Server),
    }
}

/// Receives the response, interim ones before it included, and passes it to the client.
async fn receive(
    expectation: Expectation,
    from_server: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    to_client: &mut (impl AsyncWrite + Unpin),
    started: &mut bool,
) -> Result<Response, Broken> {
    loop {
        let response = response_head(expectation, from_server, unread).await?;
        *started = true;
        let written = to_client.write_all(&response.head).await;
        written.map_err(|_| Broken::Client)?;
        let framing = match response.follows {
            Follows::Response => continue,
            Follows::Upgrade => return Ok(response),
            Follows::Body(framing) => framing,
        };
        return match pass(Body::new(framing), from_server, unread, to_client).await {
            Ok(()) => Ok(response),
            Err(NotPassed::To) => Err(Broken::Client),
            Err(NotPassed::BadChunk | NotPassed::From) => Err(Broken::Server),
        };
    }
}

async fn response_head(
    expectation: Expectation,
    from_server: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
) -> Result<Response, Broken> {
    loop {
        match response::decode(unread, expectation) {
            Ok(Some((response, length))) => {
                unread.drain(..length.min(unread.len()));
                return Ok(response);
            }
            Ok(None) if unread.len() < RESPONSE_BYTES_MAX => {}
            Ok(None) | Err(_) => return Err(Broken::Server),
        }
        unread.reserve(BODY_BYTES);
        match from_server.read_buf(unread).await {
            Ok(0) | Err(_) if unread.is_empty() => return Err(Broken::Silent),
            Ok(0) | Err(_) => return Err(Broken::Server),
            Ok(_) => {}
        }
    }
}

/// Why a body did not pass whole.
enum NotPassed {
    /// It ended early where it came from.
    From,
    /// It is not taken where it goes.
    To,
    /// Its chunks are broken.
    BadChunk,
}

impl From<BadChunk> for NotPassed {
    fn from(_: BadChunk) -> Self {
        Self::BadChunk
    }
}

/// Passes a body on as it stands. Bytes behind its end stay in `unread`.
async fn pass(
    mut body: Body,
    from: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), NotPassed> {
    loop {
        let taken = body.take(unread)?;
        let bytes = unread.get(..taken).unwrap_or_default();
        to.write_all(bytes).await.map_err(|_| NotPassed::To)?;
        unread.drain(..taken);
        if body.is_done() {
            return Ok(());
        }
        unread.reserve(BODY_BYTES);
        match from.read_buf(unread).await {
            Ok(0) if body.may_end() => return Ok(()),
            Ok(0) | Err(_) => return Err(NotPassed::From),
            Ok(_) => {}
        }
    }
}

/// After an upgrade the two ends speak among themselves.
async fn tunnel(
    client: &mut Client,
    near: &mut DuplexStream,
    unread: &mut Vec<u8>,
) -> io::Result<()> {
    near.write_all(&std::mem::take(&mut client.unread)).await?;
    client.socket.write_all(&std::mem::take(unread)).await?;
    tokio::io::copy_bidirectional(&mut client.socket, near).await?;
    Ok(())
}
