//! gRPC over HTTP/2 without TLS, as Xray serves it: listener, connections, calls.
//!
//! `h2` owns the frames and their floods; here are the limits and what a call is. A call's bytes
//! are read within `REQUEST_TIME_MAX`, its method runs on a thread that may block, and every
//! failure ends as a status. Browsers cannot reach this: no page speaks HTTP/2 without TLS.
//!
//! Limits, and what happens at each: `CLIENTS_MAX` connections (a new one is closed),
//! `STREAMS_MAX` calls of a connection (`h2` refuses the stream), [`super::framing`]'s length of a
//! message (a status), and the times below (a status, or the connection closes).

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::framing::{Unframed, framed};
use super::options::Options;
use super::status::{Code, Status};
use super::{Answer, Context, Service, find};
use crate::controllers::Control;
use crate::outbound::carrier::Carrier;
use crate::outbound::inward::{Entrance, Visitor};
use crate::platform::blocking::blocking;
use crate::platform::clock;

/// Connections at a time.
const CLIENTS_MAX: usize = 32;

/// Calls of one connection at a time.
const STREAMS_MAX: u32 = 16;

/// All headers of a call.
const HEADERS_BYTES_MAX: u32 = 8 * 1024;

/// What a connection may send before it is read.
const WINDOW_BYTES: u32 = 64 * 1024;

/// Streams that a client may reset before they were looked at; beyond, the connection is closed.
const RESETS_MAX: usize = 16;

/// How long a client may take for the preface, and for a request's bytes.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);

/// A connection without a call is told to go after this, and closed after as long again.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running API. Dropping it closes the listener and every connection.
pub struct Server {
    address: Option<SocketAddr>,
    options: Options,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds and serves, also those who come by `entrance` where it has a tag. Must be called on the
    /// runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(
        options: &Options,
        control: Arc<dyn Control>,
        entrance: &Entrance,
    ) -> io::Result<Self> {
        let listener = options.listen.map(listener).transpose()?;
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let visitors = options.tag.as_ref().map(|_| entrance.open());
        let shared = Arc::new(Shared {
            services: options.services.clone(),
            secret: options.secret.clone(),
            context: Context {
                control,
                began: clock::now(),
                services: options.services.clone(),
            },
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, visitors, shared).boxed());
        Ok(Self {
            address,
            options: options.clone(),
            tasks,
        })
    }

    /// Stops, and returns when its port is free.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }

    /// Where it listens, if it does, with the port that the kernel chose for port 0.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Whether it serves as `options` say. Limits are not its own.
    #[must_use]
    pub fn follows(&self, options: &Options) -> bool {
        let Options {
            listen,
            tag,
            services,
            secret,
            ..
        } = &self.options;
        let own = (listen, tag, services, secret);
        let Options {
            listen,
            tag,
            services,
            secret,
            ..
        } = options;
        own == (listen, tag, services, secret)
    }
}

struct Shared {
    services: Vec<Service>,
    secret: Box<str>,
    context: Context,
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

async fn accept(
    listener: Option<TcpListener>,
    mut visitors: Option<Receiver<Visitor>>,
    shared: Arc<Shared>,
) {
    let mut clients = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = arrival(listener.as_ref()) => match accepted {
                Ok(client) => {
                    // Answers are small and somebody waits for each; where it fails they are late, no more.
                    let _late = client.set_nodelay(true);
                    Carrier::Tcp(client)
                }
                Err(_) => {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            (from, visitor) = visit(&mut visitors) => {
                if shared.secret.is_empty() && !from.is_loopback() {
                    log::warn!("xray-api: {from} is refused: from other machines only with a `secret`");
                    continue;
                }
                Carrier::Boxed(visitor)
            },
            Some(_) = clients.join_next() => continue,
        };
        if clients.len() < CLIENTS_MAX {
            clients.spawn(serve(client, Arc::clone(&shared)).boxed());
        } else {
            log::warn!("xray-api: {CLIENTS_MAX} connections: one more is refused");
        }
    }
}

/// Who connects; nobody where nothing listens.
async fn arrival(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => pending().await,
    }
}

/// Who comes by the entrance; nobody once it leads elsewhere.
async fn visit(visitors: &mut Option<Receiver<Visitor>>) -> Visitor {
    if let Some(coming) = visitors
        && let Some(visitor) = coming.recv().await
    {
        return visitor;
    }
    *visitors = None;
    pending().await
}

/// Serves one connection to its end.
async fn serve(client: Carrier, shared: Arc<Shared>) {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(RESETS_MAX))
        .max_concurrent_reset_streams(RESETS_MAX);
    let shaken = timeout(HANDSHAKE_TIME_MAX, builder.handshake::<_, Bytes>(client)).await;
    let Ok(Ok(mut connection)) = shaken else {
        return;
    };
    let mut calls = JoinSet::new();
    let mut leaving = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(call(request, respond, Arc::clone(&shared)).boxed());
                }
                Some(Err(_)) | None => return,
            },
            Some(_) = calls.join_next() => {}
            () = sleep(IDLE_TIME_MAX), if calls.is_empty() => {
                if leaving {
                    return;
                }
                connection.graceful_shutdown();
                leaving = true;
            }
        }
    }
}

/// One call from its headers to its trailers.
async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, shared: Arc<Shared>) {
    let (head, body) = request.into_parts();
    let content_type = head.headers.get(http::header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
        && head.method == http::Method::POST;
    if !grpc {
        let mut refusal = Response::new(());
        *refusal.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        // The client may be gone.
        let _gone = respond.send_response(refusal, true);
        return;
    }
    let found = shared
        .permits(&head.headers)
        .and_then(|()| find(head.uri.path(), &shared.services));
    let done = match found {
        Ok(Answer::Unary(method)) => unary(method, body, &mut respond, &shared).await,
        Ok(Answer::Each(method)) => each(method, body, &mut respond, &shared).await,
        Err(status) => Err(End::Status(status)),
    };
    if let Err(End::Status(status)) = done {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, CONTENT_TYPE);
        headers.extend(trailers(&status));
        let _gone = respond.send_response(response, true);
    }
}

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Why a call ends before its answer.
enum End {
    /// The client is told.
    Status(Status),
    /// Nobody is there to be told.
    Gone,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<h2::Error> for End {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

impl Shared {
    /// Asks for the secret, when there is one.
    fn permits(&self, headers: &HeaderMap) -> Result<(), Status> {
        let given = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
            .unwrap_or_default();
        if self.secret.is_empty() || bool::from(self.secret.as_bytes().ct_eq(given)) {
            return Ok(());
        }
        Err(Status::new(
            Code::Unauthenticated,
            "the secret is missing or wrong",
        ))
    }
}

/// A method of one request and one response.
async fn unary(
    method: super::Method,
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    shared: &Arc<Shared>,
) -> Result<(), End> {
    let mut unframed = Unframed::default();
    let request = timeout(REQUEST_TIME_MAX, next(&mut body, &mut unframed));
    let request = request.await.map_err(|_| late())??;
    let request =
        request.ok_or_else(|| Status::new(Code::Internal, "grpc: the request holds no message"))?;
    let answer = run(method, request, shared).await?;
    let mut stream = respond.send_response(head(), false)?;
    stream.send_data(framed(&answer).into(), false)?;
    stream.send_trailers(trailers(&Status::new(Code::Ok, "")))?;
    Ok(())
}

/// A stream of requests, each with its response.
async fn each(
    method: super::Method,
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    shared: &Arc<Shared>,
) -> Result<(), End> {
    let mut stream = respond.send_response(head(), false)?;
    let mut unframed = Unframed::default();
    let end = loop {
        let request = timeout(IDLE_TIME_MAX, next(&mut body, &mut unframed)).await;
        let request = match request.unwrap_or_else(|_| Err(late().into())) {
            Ok(Some(request)) => request,
            Ok(None) => break Status::new(Code::Ok, ""),
            Err(End::Gone) => return Err(End::Gone),
            Err(End::Status(status)) => break status,
        };
        match run(method, request, shared).await {
            // The client's window bounds what waits here: answers are asked for one by one.
            Ok(answer) => {
                stream.reserve_capacity(answer.len());
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
                match timeout(REQUEST_TIME_MAX, room).await {
                    Ok(Some(Ok(_))) => stream.send_data(framed(&answer).into(), false)?,
                    _ => {
                        stream.send_reset(Reason::CANCEL);
                        return Err(End::Gone);
                    }
                }
            }
            Err(status) => break status,
        }
    };
    stream.send_trailers(trailers(&end))?;
    Ok(())
}

/// Runs a method where it may block.
async fn run(
    method: super::Method,
    request: Vec<u8>,
    shared: &Arc<Shared>,
) -> Result<Vec<u8>, Status> {
    let shared = Arc::clone(shared);
    let answered = blocking(move || method(&shared.context, &request));
    let answered = answered
        .await
        .map_err(|_| Status::new(Code::Unavailable, "the daemon is stopping"))?;
    answered.map(super::protobuf::Message::into_bytes)
}

/// The next message of a body; `None` at its end.
async fn next(body: &mut RecvStream, unframed: &mut Unframed) -> Result<Option<Vec<u8>>, End> {
    loop {
        if let Some(message) = unframed.take()? {
            return Ok(Some(message));
        }
        let Some(bytes) = body.data().await else {
            if unframed.is_empty() {
                return Ok(None);
            }
            return Err(Status::new(Code::Internal, "grpc: unexpected end of the request").into());
        };
        let bytes = bytes?;
        unframed.push(&bytes);
        body.flow_control().release_capacity(bytes.len())?;
    }
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "the request did not come in time")
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status.code as u16));
    if !status.message.is_empty()
        && let Ok(message) = HeaderValue::from_str(&status.encoded_message())
    {
        trailers.insert("grpc-message", message);
    }
    trailers
}
