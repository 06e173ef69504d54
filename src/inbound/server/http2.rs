//! gRPC ("gun") as a server carries it: each call at the service's path is a client of its own.
//!
//! Limits, and what happens at each: [`STREAMS_MAX`] calls of a connection (`h2` refuses the stream), the
//! handshake's time for each call's opening (the call is reset), [`IDLE_TIME_MAX`] without a call (the
//! connection closes).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{Method, Request, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Server;
use crate::inbound::listen::HANDSHAKE_TIME_MAX;
use crate::outbound::BoxFuture;
use crate::outbound::carrier::Carrier;
use crate::outbound::transport::http2::{
    CONNECTION_WINDOW, GRPC, Http2Stream, Incoming, SEND_BYTES_MAX, STREAM_WINDOW,
};

/// How a client of HTTP/2 begins (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Calls of one connection at a time.
const STREAMS_MAX: u32 = 256;

/// All fields of a call.
const HEADERS_BYTES_MAX: u32 = 8 * 1024;

/// Calls that a client may reset before they were looked at; beyond, the connection is closed.
const RESETS_MAX: usize = 32;

/// A connection without a call closes after this.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// A connection whose client has said that it speaks HTTP/2.
pub(super) type Calls = Connection<Carrier, Bytes>;

/// Shakes hands on `carrier`.
///
/// # Errors
/// The client does not speak HTTP/2.
pub(super) async fn handshake(carrier: Carrier) -> Result<Calls, h2::Error> {
    Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(RESETS_MAX))
        .handshake::<_, Bytes>(carrier)
        .await
}

/// Serves a connection's calls at `path` to its end. Boxed: each call proceeds as a connection does.
pub(super) fn serve(
    server: Arc<Server>,
    calls: Calls,
    path: &str,
    source: SocketAddr,
) -> BoxFuture<'_, ()> {
    Box::pin(run(server, calls, path, source))
}

async fn run(server: Arc<Server>, mut calls: Calls, path: &str, source: SocketAddr) {
    let mut flows = JoinSet::new();
    loop {
        tokio::select! {
            accepted = calls.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    if let Some(carrier) = begin(request, respond, path) {
                        flows.spawn(flow(Arc::clone(&server), carrier, source));
                    }
                }
                Some(Err(_)) | None => return,
            },
            Some(_) = flows.join_next() => {}
            () = sleep(IDLE_TIME_MAX), if flows.is_empty() => return,
        }
    }
}

/// The call's bytes both ways; one of another kind is answered.
fn begin(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    path: &str,
) -> Option<Carrier> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(http::header::CONTENT_TYPE);
    let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
    let mut answer = Response::new(());
    if head.method != Method::POST || !grpc || head.uri.path() != path {
        *answer.status_mut() = StatusCode::NOT_FOUND;
        // The client may be gone.
        let _gone = respond.send_response(answer, true);
        return None;
    }
    let headers = answer.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, GRPC);
    let outgoing = respond.send_response(answer, false).ok()?;
    let stream = Http2Stream::new(outgoing, Incoming::Body(body), true, None);
    Some(Carrier::Boxed(Box::new(stream)))
}

async fn flow(server: Arc<Server>, carrier: Carrier, source: SocketAddr) {
    let admitted = timeout(HANDSHAKE_TIME_MAX, Box::pin(server.admit(carrier, source)));
    if let Ok(Some(admitted)) = admitted.await {
        server.proceed(admitted, source).await;
    }
}
