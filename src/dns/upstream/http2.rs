//! DNS over HTTPS (RFC 8484) on HTTP/2: a GET a question, many at once on one connection.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::client::{Builder, SendRequest};
use http::Request as HttpRequest;
use http::header::{ACCEPT, AGE, CONTENT_TYPE};
use tokio::time::{Instant, sleep_until};

use super::line::{ANSWER_BYTES_MAX, IDLE_TIME, Request, UNANSWERED_MAX, Work};
use super::{Failure, Protocol, Server};
use crate::dns::message::HEADER_BYTES;
use crate::dns::message::record::{Answer, patch_ttls};
use crate::outbound::carrier::Carrier;

/// The one media type (RFC 8484 section 6).
pub(super) const MEDIA_TYPE: &str = "application/dns-message";
/// Bytes of an answer that may be under way on one connection, all streams together.
const WINDOW_BYTES: u32 = 128 * 1024;
/// Longest head of an answer.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Serves until the connection ends or nobody uses it; gives what the rest is told.
pub(super) async fn serve(carrier: Carrier, server: &Server, work: &mut Work) -> Failure {
    let handshake = Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX)
        .handshake::<_, Bytes>(carrier)
        .await;
    let (sender, connection) = match handshake {
        Ok(pair) => pair,
        Err(error) => return failure(&error),
    };
    let mut connection = pin!(connection);
    let mut running = FuturesUnordered::new();
    let mut used = Instant::now();
    let failure = loop {
        let idle = running.is_empty();
        tokio::select! {
            request = work.requests.recv(), if running.len() < UNANSWERED_MAX => {
                let Some(request) = request else {
                    break Failure::Io(io::ErrorKind::ConnectionAborted);
                };
                running.push(Box::pin(exchange(sender.clone(), server, request, &work.answers)));
            }
            Some(()) = running.next() => used = Instant::now(),
            ended = &mut connection => {
                break match ended {
                    Ok(()) => Failure::Io(io::ErrorKind::UnexpectedEof),
                    Err(error) => failure(&error),
                };
            }
            () = sleep_until(used + IDLE_TIME), if idle => {
                break Failure::Io(io::ErrorKind::ConnectionAborted);
            }
        }
    };
    // The connection is over: what still runs learns it at once.
    while running.next().await.is_some() {}
    failure
}

async fn exchange(
    sender: SendRequest<Bytes>,
    server: &Server,
    request: Request,
    answers: &AtomicU32,
) {
    let Request { query, mut reply } = request;
    let outcome = tokio::select! {
        outcome = get(sender, server, &query) => outcome,
        // Nobody waits any more: the stream is reset.
        () = reply.closed() => return,
    };
    if outcome.is_ok() {
        answers.fetch_add(1, Ordering::Relaxed);
    }
    let _ = reply.send(outcome);
}

async fn get(
    mut sender: SendRequest<Bytes>,
    server: &Server,
    query: &[u8],
) -> Result<Vec<u8>, Failure> {
    let uri = format!("https://{}{}", authority(server), target(server, query));
    let head = HttpRequest::get(uri).header(ACCEPT, MEDIA_TYPE).body(());
    let head = head.map_err(|_| Failure::NoServers)?;
    poll_fn(|cx| sender.poll_ready(cx))
        .await
        .map_err(|error| failure(&error))?;
    let (response, _) = sender
        .send_request(head, true)
        .map_err(|error| failure(&error))?;
    let response = response.await.map_err(|error| failure(&error))?;
    let headers = response.headers();
    let typed = headers.get(CONTENT_TYPE).is_some_and(|is| is == MEDIA_TYPE);
    let age = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok()?.parse().ok());
    match response.status().as_u16() {
        200 if typed => {}
        200 => return Err(Failure::Malformed),
        status => return Err(Failure::Status(status)),
    }
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| failure(&error))?;
        if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::Malformed);
        }
        answer.extend_from_slice(&chunk);
        // Refused only for more than was received.
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    Ok(received(answer, query, age.unwrap_or(0)))
}

/// The answer under the query's id, with the time taken off that caches on the way kept it (RFC 8484
/// section 5.1).
pub(super) fn received(mut answer: Vec<u8>, query: &[u8], age: u32) -> Vec<u8> {
    if age > 0
        && let Ok(parsed) = Answer::parse(&answer)
    {
        let records = parsed.question_end();
        patch_ttls(&mut answer, records, |ttl| ttl.saturating_sub(age));
    }
    // The query went out under id 0 (section 4.1).
    if let (Some(place), Some(id)) = (answer.first_chunk_mut::<2>(), query.first_chunk()) {
        *place = *id;
    }
    answer
}

/// Path and query of a GET (section 4.1).
pub(super) fn target(server: &Server, query: &[u8]) -> String {
    let (Protocol::Https(path) | Protocol::Http(path)) = &server.protocol else {
        return String::new();
    };
    let mut message = query.to_vec();
    if message.len() >= HEADER_BYTES
        && let Some(id) = message.first_chunk_mut::<2>()
    {
        *id = [0, 0];
    }
    let joint = if path.contains('?') { '&' } else { '?' };
    let encoded = crate::encoding::BASE64URL_NOPAD.encode(&message);
    format!("{path}{joint}dns={encoded}")
}

/// What the server is called in requests.
pub(super) fn authority(server: &Server) -> String {
    let standard = if matches!(server.protocol, Protocol::Http(_)) {
        80
    } else {
        443
    };
    let host = if server.host.contains(':') {
        format!("[{}]", server.host)
    } else {
        server.host.to_string()
    };
    if server.port == standard {
        host
    } else {
        format!("{host}:{}", server.port)
    }
}

fn failure(error: &h2::Error) -> Failure {
    if let Some(error) = error.get_io() {
        return Failure::Io(error.kind());
    }
    if error.is_go_away() || error.is_remote() {
        // A new connection may do.
        return Failure::Io(io::ErrorKind::ConnectionReset);
    }
    Failure::Malformed
}
