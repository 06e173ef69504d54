//! gRPC ("gun") as a server carries it: each call at the service's path is a client of its own.
//!
//! Limits, and what happens at each: [`STREAMS_MAX`] calls of a connection (`h2` refuses the stream), the
//! handshake's time for each call's opening (the call is reset), [`IDLE_TIME_MAX`] without a call (the
//! connection closes), one stranger of a connection at a time with whoever answers strangers (further
//! ones' calls are reset).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::accept::Told;
use super::{Admitted, Client, Server};
use crate::outbound::BoxFuture;
use crate::outbound::carrier::Carrier;
use crate::outbound::transport::http2::{
    CONNECTION_WINDOW, GRPC, Http2Stream, Incoming, SEND_BYTES_MAX, STREAM_WINDOW,
};

/// How a client of HTTP/2 begins (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Calls of one connection at a time.
const STREAMS_MAX: u32 = 100;

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

/// Serves a connection's calls at `path` to its end; each has `time` to say what it is. Boxed: each call proceeds as a connection does.
pub(super) fn serve(
    server: Arc<Server>,
    calls: Calls,
    path: &str,
    source: SocketAddr,
    time: Duration,
) -> BoxFuture<'_, ()> {
    Box::pin(run(server, calls, path, source, time))
}

async fn run(
    server: Arc<Server>,
    mut calls: Calls,
    path: &str,
    source: SocketAddr,
    time: Duration,
) {
    let mut flows = JoinSet::new();
    let door = Arc::new(Semaphore::new(1));
    loop {
        tokio::select! {
            accepted = calls.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    if let Some(carrier) = begin(request, respond, path) {
                        let (server, door) = (Arc::clone(&server), Arc::clone(&door));
                        flows.spawn(flow(server, carrier, source, time, door));
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

/// One call. `door`: for strangers.
async fn flow(
    server: Arc<Server>,
    carrier: Carrier,
    source: SocketAddr,
    time: Duration,
    door: Arc<Semaphore>,
) {
    let client = Client {
        source,
        local: server.address,
        told: Told::default(),
    };
    let admitting = Box::pin(server.admit(carrier, &client));
    let Ok(Some(admitted)) = timeout(time, admitting).await else {
        return;
    };
    let place = match &admitted {
        Admitted::Stranger(..) => door.try_acquire().map(Some),
        _ => Ok(None),
    };
    if let Ok(_place) = place {
        server.proceed(admitted, source, time).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::net::TcpListener;

    use super::*;
    use crate::inbound::options::ListenerKind;
    use crate::inbound::server::Shared;
    use crate::inbound::server::options::{Fallback, ServerOptions, ServerProtocolOptions};
    use crate::inbound::testing::{Direct, port};
    use crate::metadata::InboundType;
    use crate::outbound::sessions::Session as _;
    use crate::outbound::transport::http2::{Asking, Http2};

    #[tokio::test]
    async fn one_stranger_of_a_connection_at_a_time_is_answered() {
        let site = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ServerOptions {
            protocol: ServerProtocolOptions::Vless(Vec::new()),
            tls: None,
            reality: None,
            ws_path: None,
            grpc_service: Some("way".into()),
            fallbacks: vec![Fallback {
                to: site.local_addr().unwrap(),
                name: None,
                alpn: None,
                path: None,
                proxy_version: 0,
            }],
        };
        let shared = Shared::new(&options, Path::new("/")).unwrap();
        let (port, source) = (port(ListenerKind::Mixed), ([127, 0, 0, 1], 9).into());
        let direct = Arc::new(Direct::default());
        let server = Arc::new(Server::new(
            &shared,
            &port,
            InboundType::Vless,
            source,
            direct,
        ));
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(async move {
            let calls = handshake(Carrier::Boxed(Box::new(far))).await.unwrap();
            serve(server, calls, "/way/Tun", source, Duration::from_secs(60)).await;
        });
        let near = Carrier::Boxed(Box::new(near));
        let asking = Arc::new(Asking::gun("h.test", "way").unwrap());
        let session = Http2::begin(near, asking).await.unwrap();
        let mut first = session.open().await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let (mut answering, _) = site.accept().await.unwrap();
        let mut second = session.open().await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(second.read_u8().await.is_err());
        answering.write_all(b"yes").await.unwrap();
        let mut answer = [0; 3];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"yes");
    }
}
