//! tiny_http behind the gate: requests in, responses out, over a few private connections.
//!
//! tiny_http gives each connection a thread and waits for it without limit, so no client may
//! reach it. It listens on a Unix socket in a directory of mode 0700; the gate makes its
//! [`LINKS`] connections at once and removes the socket, so that nobody else ever can. What
//! crosses a link was checked before: one whole request with its body, one whole response with
//! its length. A link belongs to a task that sees each exchange through, whatever becomes of the
//! client that asked.

use std::io::{self, Cursor, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use futures_util::FutureExt;
use tiny_http::{Header, Server, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::controllers::http::head::HEAD_BYTES_MAX;
use crate::controllers::http::route::{Answer, Dialect, Found, dialect, find};
use crate::controllers::http::{Method, Query, Request, Response};
use crate::controllers::{Cause, Context};

/// Connections to tiny_http, and threads that answer: how many requests are worked on at a time. Each
/// costs two threads, which is some 150 KB on x86_64; a slow request leaves one for the others.
const LINKS: usize = 2;

/// Requests that wait for a link: one of each client. Large bodies are bounded by the gate.
const WAITING_MAX: usize = super::CLIENTS_MAX;

/// Stack of an answering thread: serde_json goes 128 values deep. Only touched pages cost memory.
const STACK_BYTES: usize = 256 * 1024;

/// The field of a response after which the program runs anew; it stays between the threads and the gate.
const RESTARTS: &str = "Restarts";

/// One request on its way through, and where its response goes.
struct Exchange {
    request: Vec<u8>,
    respond: oneshot::Sender<Reply>,
}

/// A response as it came over a link.
#[derive(Debug)]
pub(super) struct Reply {
    /// Status code.
    pub(super) status: u16,
    /// `Content-Type`, empty without a body.
    pub(super) content_type: String,
    /// The body.
    pub(super) body: Vec<u8>,
    /// [`Response::restarts`].
    pub(super) restarts: bool,
}

/// The server and its links. Dropping it ends the links, then the threads.
pub(super) struct Rest {
    server: Arc<Server>,
    listener: UnixListener,
    queue: mpsc::Sender<Exchange>,
    _links: JoinSet<()>,
}

impl Rest {
    /// Starts the server and its threads; must be called on the runtime.
    pub(super) fn start(
        dialects: &'static [&'static Dialect],
        context: &Arc<Context>,
    ) -> Result<Self, Cause> {
        let place = PrivatePlace::new(&std::env::temp_dir())
            .or_else(|_| PrivatePlace::new(context.control.directory()))?;
        let listener = UnixListener::bind(place.socket())?;
        let server = Arc::new(Server::from_listener(listener.try_clone()?, None)?);
        let (queue, exchanges) = mpsc::channel(WAITING_MAX);
        let exchanges = Arc::new(Mutex::new(exchanges));
        let mut links = JoinSet::new();
        for _ in 0..LINKS {
            let link = StdUnixStream::connect(place.socket())?;
            link.set_nonblocking(true)?;
            let serving = serve_link(UnixStream::from_std(link)?, Arc::clone(&exchanges));
            links.spawn(serving.boxed());
            let (server, context) = (Arc::clone(&server), Arc::clone(context));
            thread::Builder::new()
                .name("rest".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || answer_all(&server, dialects, &context))?;
        }
        Ok(Self {
            server,
            listener,
            queue,
            _links: links,
        })
    }

    /// Has a request answered. `None`: too many wait already.
    pub(super) async fn ask(&self, method: Method, target: &str, body: &[u8]) -> Option<Reply> {
        let mut request = Vec::with_capacity(target.len() + body.len() + 64);
        // Writing to a Vec cannot fail.
        let _ = write!(
            request,
            "{} {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            method.as_str(),
            body.len()
        );
        request.extend_from_slice(body);
        let (respond, reply) = oneshot::channel();
        self.queue.try_send(Exchange { request, respond }).ok()?;
        reply.await.ok()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        for _ in 0..LINKS {
            self.server.unblock();
        }
        // tiny_http's accepting thread ends when its socket does; the threads of the links follow them.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.listener),
            nix::sys::socket::Shutdown::Both,
        );
    }
}

/// A directory that only this user can enter, for as long as it takes to connect.
struct PrivatePlace(PathBuf);

impl PrivatePlace {
    fn new(parent: &Path) -> Result<Self, Cause> {
        let mut random = [0; 8];
        let generator = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&generator, &mut random)
            .map_err(|_| "no random numbers from the kernel")?;
        let name = format!("headgate-{:016x}", u64::from_be_bytes(random));
        let path = parent.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("rest")
    }
}

impl Drop for PrivatePlace {
    fn drop(&mut self) {
        // Both are ours alone; what cannot be removed lies in a temporary directory.
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Takes requests from the queue for as long as the link holds.
async fn serve_link(mut link: UnixStream, exchanges: Arc<Mutex<mpsc::Receiver<Exchange>>>) {
    loop {
        let next = exchanges.lock().await.recv().await;
        let Some(Exchange { request, respond }) = next else {
            return;
        };
        match exchange(&mut link, &request).await {
            // The client may be gone: nobody to tell.
            Ok(reply) => drop(respond.send(reply)),
            Err(error) => {
                log::error!("REST server lost a link: {error}");
                return;
            }
        }
    }
}

/// One request and its response. tiny_http frames by `Content-Length` alone here, since no threshold
/// of it asks for chunks ([`answer`]) and no request carries `TE`.
async fn exchange(link: &mut UnixStream, request: &[u8]) -> io::Result<Reply> {
    link.write_all(request).await?;
    let mut bytes = Vec::with_capacity(512);
    loop {
        if link.read_buf(&mut bytes).await? == 0 || bytes.len() > HEAD_BYTES_MAX * 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((head_length, body_length, mut reply)) = parse_reply(&bytes)? else {
            continue;
        };
        bytes.drain(..head_length);
        let missing = body_length.saturating_sub(bytes.len());
        bytes.reserve_exact(missing);
        let mut rest = link.take(u64::try_from(missing).unwrap_or(u64::MAX));
        if rest.read_to_end(&mut bytes).await? < missing {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reply.body = bytes;
        return Ok(reply);
    }
}

/// Length of the head, length of the body, and the reply without its body; `None` for a part of a head.
fn parse_reply(bytes: &[u8]) -> io::Result<Option<(usize, usize, Reply)>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| invalid())? else {
        return Ok(None);
    };
    let field = |name: &str| {
        let mut fields = response.headers.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let body_length = field("Content-Length").and_then(|digits| digits.parse().ok());
    let reply = Reply {
        status: response.code.ok_or_else(invalid)?,
        content_type: field("Content-Type").unwrap_or_default().to_owned(),
        body: Vec::new(),
        restarts: field(RESTARTS).is_some(),
    };
    Ok(Some((length, body_length.ok_or_else(invalid)?, reply)))
}

/// A thread of the pool: one request after the other, until the server is unblocked.
fn answer_all(server: &Server, dialects: &[&'static Dialect], context: &Context) {
    while let Ok(mut request) = server.recv() {
        let response = answer(&mut request, dialects, context);
        let mut headers = Vec::new();
        if !response.content_type.is_empty() {
            headers.extend(Header::from_bytes("Content-Type", response.content_type));
        }
        if response.restarts {
            headers.extend(Header::from_bytes(RESTARTS, "1"));
        }
        let length = response.body.len();
        let status = StatusCode(response.status);
        let body = Cursor::new(response.body);
        let response = tiny_http::Response::new(status, headers, body, Some(length), None);
        // A link that broke is its task's to report.
        let _ = request.respond(response.with_chunked_threshold(usize::MAX));
    }
}

fn answer(
    request: &mut tiny_http::Request,
    dialects: &[&'static Dialect],
    context: &Context,
) -> Response {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
    if io::Read::read_to_end(request.as_reader(), &mut body).is_err() {
        return Response::body_invalid();
    }
    let method = Method::parse(request.method().as_str());
    let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
    let Some((dialect, path)) = dialect(dialects, path) else {
        return Response::no_route();
    };
    let Found::Route(route, parameters) = find(dialect.routes, method, path) else {
        return Response::no_route();
    };
    let (Answer::Once(handler) | Answer::OnceOrFeed(handler, _)) = route.answer else {
        return Response::no_route();
    };
    let mut request = Request {
        parameters,
        query: Query(query),
        body: &body,
    };
    match route
        .guard
        .map_or(Ok(()), |guard| guard(context, &mut request))
    {
        Ok(()) => handler(context, &request),
        Err(refusal) => refusal,
    }
}
