//! The HTTP/1.1 forward proxy: CONNECT, and plain requests in absolute form.
//!
//! A client's connection serves one request after another, each for whatever host it names;
//! the connection to the last server is kept while the client asks it again. `request`,
//! `response` and `body` know the bytes, `exchange` carries one request and its response.
//! CONNECT is answered before anything is dialled, as SOCKS is, and ends HTTP on the connection.

pub mod body;
mod exchange;
pub mod fields;
pub mod request;
pub mod response;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{future, io};

use exchange::{Outcome, Upstream};
use fields::Malformed;
use request::{Action, REQUEST_BYTES_MAX, Request};
use tokio::time::timeout;

use super::client::{Client, Ended};
use super::listen::HANDSHAKE_TIME_MAX;
use super::mixed::{Opened, Proxy};
use crate::metadata::{InboundType, Metadata, Network};
use crate::outbound::Stream;

/// How long a client may wait between requests.
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(60);

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

// Answers of our own, after which the connection closes.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const LOGIN_REQUIRED: &[u8] = b"HTTP/1.1 407 Proxy Authentication Required\r\n\
    Proxy-Authenticate: Basic realm=\"headgate\"\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";
const HEAD_TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";
const BAD_GATEWAY: &[u8] =
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Reads the first request of a client whose first bytes are there.
pub(super) async fn open(proxy: &Proxy, mut client: Client) -> Option<(Client, Opened)> {
    match client.message(REQUEST_BYTES_MAX, request::decode).await {
        Ok(request) => Some((client, Opened::Http(request))),
        Err(ended) => {
            refuse(proxy, client, &ended).await;
            None
        }
    }
}

/// Serves requests. Gives the stream of a CONNECT, `None` when the connection is over.
pub(super) async fn run(
    proxy: &Proxy,
    mut client: Client,
    mut request: Request,
) -> Option<(Metadata, Stream)> {
    let mut upstream: Option<Upstream<'_>> = None;
    loop {
        let Ok(user) = authenticate(proxy, &client, &request) else {
            proxy.refused(client.source, &"wrong user name or password");
            client.refuse(LOGIN_REQUIRED).await;
            return None;
        };
        let flow = |kind, to| proxy.metadata(kind, Network::Tcp, client.source, to, user.as_ref());
        match request.action {
            Action::Tunnel(to) => {
                let metadata = flow(InboundType::Https, to);
                client.send(ESTABLISHED).await.ok()?;
                return Some((metadata, client.into_stream()));
            }
            Action::Forward(forward) => {
                let kept = upstream
                    .take()
                    .filter(|kept| kept.serves(&forward.server, &user));
                let mut server = kept.unwrap_or_else(|| {
                    let metadata = flow(InboundType::Http, forward.server.clone());
                    Upstream::open(&*proxy.dispatch, metadata)
                });
                match exchange::exchange(&mut client, &mut server, &forward).await {
                    Outcome::Next { reuse } => upstream = reuse.then_some(server),
                    Outcome::Close(answer) => {
                        // The flow ends before the client's last second begins.
                        drop(server);
                        client.refuse(answer).await;
                        return None;
                    }
                }
            }
        }
        request = match next_request(&mut client, &mut upstream).await {
            Ok(request) => request,
            Err(ended) => {
                drop(upstream);
                refuse(proxy, client, &ended).await;
                return None;
            }
        };
    }
}

/// Waits for the client's next request, and lets go of the server if it closes meanwhile.
async fn next_request(
    client: &mut Client,
    upstream: &mut Option<Upstream<'_>>,
) -> Result<Request, Ended<Malformed>> {
    let mut reading = pin!(async {
        if client.unread.is_empty() {
            let first = timeout(KEEP_ALIVE_TIME_MAX, client.read_more());
            first.await.map_err(io::Error::from)??;
        }
        let message = client.message(REQUEST_BYTES_MAX, request::decode);
        timeout(HANDSHAKE_TIME_MAX, message)
            .await
            .map_err(io::Error::from)?
    });
    loop {
        let gone = async {
            match &mut *upstream {
                Some(server) => server.gone().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            request = &mut reading => return request,
            () = gone => *upstream = None,
        }
    }
}

/// The user that the request is made as, `Ok(None)` where none is needed.
fn authenticate(
    proxy: &Proxy,
    client: &Client,
    request: &Request,
) -> Result<Option<Arc<str>>, Unauthorized> {
    if !proxy.access.needs_login(client.source.ip()) {
        return Ok(None);
    }
    let login = request.login.as_ref();
    let user = login.and_then(|login| proxy.access.login(&login.username, &login.password));
    user.map(Some).ok_or(Unauthorized)
}

/// The request's credentials are missing or wrong.
struct Unauthorized;

async fn refuse(proxy: &Proxy, client: Client, ended: &Ended<Malformed>) {
    match ended {
        // Closed, broken or silent between requests: nothing to answer.
        Ended::Io(_) => return,
        Ended::Malformed(_) | Ended::TooLong => proxy.refused(client.source, ended),
    }
    let answer = match ended {
        Ended::TooLong => HEAD_TOO_LARGE,
        _ => BAD_REQUEST,
    };
    client.refuse(answer).await;
}

#[cfg(test)]
mod tests;
