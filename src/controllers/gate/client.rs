//! One client: its requests in turn, each checked, led to its route, answered.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError};

use super::connection::{BodyError, Connection, HeadError};
use super::feed::{self, Framing};
use super::ui::{self, Ui};
use super::{Dialects, HELD_BYTES_MAX, SMALL_BODY_BYTES, Seat};
use crate::calendar::http_date;
use crate::controllers::clash;
use crate::controllers::http::access::{Door, Refusal};
use crate::controllers::http::head::{self, Head};
use crate::controllers::http::lockout::Lockout;
use crate::controllers::http::route::{Answer, Dialect, Feed, Found, Opener, Route, dialect, find};
use crate::controllers::http::{Method, Query, Request, Response};
use crate::outbound::ByteStream;
use crate::platform::clock;
use crate::websocket;

/// What follows an answer.
enum Next {
    /// Another request may come.
    Again,
    /// The connection ends; unread bytes may be left.
    Close,
    /// The rest of the connection is a feed.
    Feed(Box<dyn Feed>, Framing, OwnedSemaphorePermit),
}

/// Serves a connection until it ends.
pub(super) async fn serve(stream: Box<dyn ByteStream>, door: Door, dialects: Dialects, seat: Seat) {
    let connection = Connection::new(stream);
    let mut client = Client {
        connection,
        door,
        dialects,
        seat,
    };
    loop {
        client.seat.set_waiting(Some(clock::now()));
        let read = client.connection.read_head().await;
        client.seat.set_waiting(None);
        // Boxed: the task of a silent connection stays small.
        let next = match read {
            Ok(Some(head)) => Box::pin(client.answer(&head)).await,
            Ok(None) | Err(HeadError::Lost) => return,
            Err(HeadError::Late) => Box::pin(client.refuse(408)).await,
            Err(HeadError::Bad(bad)) => Box::pin(client.refuse(bad.status())).await,
        };
        match next {
            Ok(Next::Again) => {}
            Ok(Next::Close) => return Box::pin(client.connection.linger()).await,
            Ok(Next::Feed(feed, framing, _permit)) => {
                return Box::pin(feed::run(feed, client.connection, framing)).await;
            }
            Err(_) => return,
        }
    }
}

struct Client {
    connection: Connection,
    door: Door,
    dialects: Dialects,
    seat: Seat,
}

impl Client {
    /// Answers the request that begins with `head`.
    async fn answer(&mut self, head: &[u8]) -> io::Result<Next> {
        let head = match Head::parse(head) {
            Ok(head) => head,
            Err(bad) => return self.refuse(bad.status()).await,
        };
        let has_ui = self.seat.shared.ui.is_some() && super::is_clash(self.dialects);
        if has_ui && Ui::has(head.path) {
            return self.show_page(&head).await;
        }
        let (route, parameters) = match self.decide(&head) {
            Ok(found) => found,
            Err(response) => return self.decline(&head, &response).await,
        };
        match route.answer {
            Answer::Now(_) | Answer::Later(_) => self.answer_here(&head, route, parameters).await,
            Answer::Feed(opener) => self.open_feed(&head, opener, parameters).await,
            Answer::OnceOrFeed(_, opener) if head.websocket => {
                self.open_feed(&head, opener, parameters).await
            }
            Answer::Once(_) | Answer::OnceOrFeed(..) => self.ask(&head, route).await,
        }
    }

    /// The route that the caller may take, or what to answer instead.
    fn decide(&self, head: &Head<'_>) -> Result<(&'static Route, Vec<String>), Response> {
        let policy = &self.seat.shared.policy;
        let Some((dialect, path)) = dialect(self.dialects, head.path) else {
            return Err(Response::no_route());
        };
        let refused = |refusal| refused(dialect, refusal);
        policy.check_host(head, self.door).map_err(refused)?;
        if head.preflight {
            return Err(Response::empty(200));
        }
        let doh = self.seat.shared.doh.as_deref();
        if doh == Some(head.path) && super::is_clash(self.dialects) {
            let route = clash::doh::route(head.method).ok_or_else(|| Response::empty(405))?;
            return Ok((route, Vec::new()));
        }
        let (route, parameters) = match find(dialect.routes, head.method, path) {
            Found::Route(route, parameters) => (route, parameters),
            Found::WrongMethod => return Err((dialect.refuse)(405, "")),
            Found::Undecodable => return Err((dialect.refuse)(400, "a parameter is not UTF-8")),
            Found::Nothing => return Err((dialect.refuse)(404, "")),
        };
        self.check_caller(head, dialect, route)?;
        Ok((route, parameters))
    }

    /// Whether the caller may take `route`. Who was wrong about the secret too often must wait; who
    /// changes something is written down (users.md S6, S12).
    fn check_caller(
        &self,
        head: &Head<'_>,
        dialect: &Dialect,
        route: &Route,
    ) -> Result<(), Response> {
        let shared = &self.seat.shared;
        let guesses = match self.door {
            Door::Network(source) => Some((source, &shared.lockout)),
            Door::Unix => None,
        };
        if let Some((source, lockout)) = guesses
            && let Some(wait) = lock(lockout).wait(source, clock::now())
        {
            let message = format!("wrong secrets: wait {} s", wait.as_secs() + 1);
            return Err((dialect.refuse)(429, &message));
        }
        let checked = shared.policy.check_caller(head, self.door, route.access);
        if let Some((source, lockout)) = guesses {
            let mut lockout = lock(lockout);
            if checked == Err(Refusal::Wrong) {
                log::warn!("controller: a wrong secret from {source}");
                lockout.wrong(source, clock::now());
            } else if checked.is_ok() && !lockout.is_empty() {
                lockout.right(source);
            }
        }
        let caller = checked.map_err(|refusal| refused(dialect, refusal))?;
        if head.method != Method::Get {
            let (method, path) = (head.method.as_str(), head.path);
            match self.door {
                Door::Network(source) => log::info!("{caller} at {source}: {method} {path}"),
                Door::Unix => log::info!("{caller}: {method} {path}"),
            }
        }
        Ok(())
    }

    /// Answers on the runtime: out of a snapshot at once, or when a task's patience is rewarded.
    async fn answer_here(
        &mut self,
        head: &Head<'_>,
        route: &Route,
        parameters: Vec<String>,
    ) -> io::Result<Next> {
        let shared = Arc::clone(&self.seat.shared);
        let (body, _held) = match self.take_body(head, route, &shared.held).await? {
            Ok(taken) => taken,
            Err(next) => return Ok(next),
        };
        let request = Request {
            parameters,
            query: Query(head.query),
            body: &body,
        };
        let response = match route.answer {
            Answer::Now(handler) => handler(&shared.context, &request),
            Answer::Later(waiter) => match waiter(&shared.context, &request) {
                Ok(answer) => answer.await,
                Err(response) => response,
            },
            // These are answered elsewhere.
            Answer::Once(_) | Answer::Feed(_) | Answer::OnceOrFeed(..) => Response::empty(500),
        };
        let Ok(_held) = hold(&shared.held, response.body.len()) else {
            return self.decline(head, &Response::empty(503)).await;
        };
        self.respond(head, &response, head.keep_alive).await
    }

    /// The request's body, with its place among the bodies held; or what follows when it was refused.
    async fn take_body<'h>(
        &mut self,
        head: &Head<'_>,
        route: &Route,
        held: &'h Semaphore,
    ) -> io::Result<Result<(Vec<u8>, Held<'h>), Next>> {
        if !head.has_body() {
            return Ok(Ok((Vec::new(), None)));
        }
        let length = match head.framing {
            head::Framing::Length(length) => length,
            head::Framing::Chunked => route.body_bytes_max,
        };
        if length > route.body_bytes_max {
            let limit = match route.body_bytes_max >> 10 {
                1024 => "1MB".to_owned(),
                kilobytes => format!("{kilobytes}KB"),
            };
            let message = format!("payload exceeds {limit} limit");
            let response = Response::error(413, &message);
            return self.decline(head, &response).await.map(Err);
        }
        let Ok(held) = hold(held, length) else {
            return self.decline(head, &Response::empty(503)).await.map(Err);
        };
        let read = self.connection.read_body(head, route.body_bytes_max);
        let status = match read.await {
            Ok(body) => return Ok(Ok((body, held))),
            Err(BodyError::TooLarge) => 413,
            Err(BodyError::Malformed) => 400,
            Err(BodyError::Late) => 408,
            Err(BodyError::Lost(error)) => return Err(error),
        };
        self.refuse(status).await.map(Err)
    }

    /// Has the request answered by the REST server.
    async fn ask(&mut self, head: &Head<'_>, route: &Route) -> io::Result<Next> {
        let shared = Arc::clone(&self.seat.shared);
        let (body, held) = match self.take_body(head, route, &shared.held).await? {
            Ok(taken) => taken,
            Err(next) => return Ok(next),
        };
        let reply = {
            // Closed never; a slow request waits here, so that the others find a link.
            let _turn = match route.slow {
                true => shared.slow.acquire().await.ok(),
                false => None,
            };
            shared.rest.ask(head.method, head.target, &body).await
        };
        drop((body, held));
        let answered = reply.and_then(|reply| {
            let held = hold(&shared.held, reply.body.len()).ok()?;
            Some((reply, held))
        });
        let Some((reply, _held)) = answered else {
            return self
                .respond(head, &Response::empty(503), head.keep_alive)
                .await;
        };
        let fields = self.fields(head, reply.status, &reply.content_type, reply.body.len());
        let sent = self.send(fields, head.keep_alive, &reply.body).await;
        if reply.restarts {
            shared.context.control.restart();
        }
        sent
    }

    /// Answers with a file of the dashboard.
    async fn show_page(&mut self, head: &Head<'_>) -> io::Result<Next> {
        let shared = Arc::clone(&self.seat.shared);
        let Some(ui) = &shared.ui else {
            return self.decline(head, &Response::no_route()).await;
        };
        if let Err(refusal) = shared.policy.check_host(head, self.door) {
            return self.decline(head, &refused(&clash::DIALECT, refusal)).await;
        }
        if head.preflight {
            return self.decline(head, &Response::empty(200)).await;
        }
        if head.method != Method::Get {
            return self.decline(head, &Response::empty(405)).await;
        }
        let page = match ui.find(head.path).await {
            ui::Found::File(page) => page,
            ui::Found::Moved(to) => {
                let moved = Response {
                    fields: format!("Location: {to}\r\n"),
                    ..Response::empty(307)
                };
                return self.decline(head, &moved).await;
            }
            ui::Found::Nothing => return self.decline(head, &Response::no_route()).await,
        };
        let known = head.if_none_match.unwrap_or_default();
        if known.split(',').any(|tag| tag.trim() == page.etag) {
            let unchanged = Response {
                fields: page.fields,
                ..Response::empty(304)
            };
            return self.decline(head, &unchanged).await;
        }
        let keep_alive = head.keep_alive && !head.has_body();
        let mut fields = self.fields_before_body(head, 200);
        fields.push_str(&page.fields);
        // Writing to a String cannot fail.
        let _ = write!(fields, "Content-Length: {}\r\n", page.bytes);
        let next = self.send(fields, keep_alive, &[]).await?;
        page.send(&mut self.connection).await?;
        Ok(next)
    }

    /// Switches to WebSocket or to a body without end.
    async fn open_feed(
        &mut self,
        head: &Head<'_>,
        opener: Opener,
        parameters: Vec<String>,
    ) -> io::Result<Next> {
        let shared = &self.seat.shared;
        let Ok(permit) = Arc::clone(&shared.feeds).try_acquire_owned() else {
            return self.decline(head, &Response::empty(503)).await;
        };
        let request = Request {
            parameters,
            query: Query(head.query),
            body: &[],
        };
        let opened = if head.has_body() {
            Err(Response::body_invalid())
        } else if head.websocket && head.websocket_key.is_none() {
            Err(Response::empty(400))
        } else {
            opener(&shared.context, &request)
        };
        let feed = match opened {
            Ok(feed) => feed,
            Err(response) => return self.decline(head, &response).await,
        };
        let key = head.websocket_key.filter(|_| head.websocket);
        let (framing, fields) = match key {
            Some(key) => (Framing::WebSocket, websocket::switch(key.as_bytes(), None)),
            None => {
                let mut fields = self.fields_before_body(head, 200);
                fields.push_str("Content-Type: application/json\r\n");
                if head.http11 {
                    fields.push_str("Transfer-Encoding: chunked\r\n\r\n");
                    (Framing::Chunked, fields)
                } else {
                    fields.push_str("Connection: close\r\n\r\n");
                    (Framing::Plain, fields)
                }
            }
        };
        self.connection.send(fields.into_bytes(), &[]).await?;
        Ok(Next::Feed(feed, framing, permit))
    }

    /// Answers without reading the request's body; when it has one, the connection ends.
    async fn decline(&mut self, head: &Head<'_>, response: &Response) -> io::Result<Next> {
        let keep_alive = head.keep_alive && !head.has_body();
        self.respond(head, response, keep_alive).await
    }

    async fn respond(
        &mut self,
        head: &Head<'_>,
        response: &Response,
        keep_alive: bool,
    ) -> io::Result<Next> {
        let length = response.body.len();
        let mut fields = self.fields(head, response.status, response.content_type, length);
        fields.push_str(&response.fields);
        let sent = self.send(fields, keep_alive, &response.body).await;
        if response.restarts {
            self.seat.shared.context.control.restart();
        }
        sent
    }

    /// Answers a request that cannot be understood; the connection ends.
    async fn refuse(&mut self, status: u16) -> io::Result<Next> {
        let reason = reason(status);
        let fields = format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\n");
        self.send(fields, false, &[]).await
    }

    /// Status line and fields, up to those that concern the body.
    fn fields_before_body(&self, head: &Head<'_>, status: u16) -> String {
        let mut fields = String::with_capacity(384);
        let date = http_date(clock::unix_time());
        let reason = reason(status);
        // Writing to a String cannot fail; so for the others.
        let _ = write!(fields, "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n");
        fields.push_str(&self.seat.shared.policy.cors_fields(head));
        fields
    }

    fn fields(&self, head: &Head<'_>, status: u16, content_type: &str, length: usize) -> String {
        let mut fields = self.fields_before_body(head, status);
        if !content_type.is_empty() {
            let _ = write!(fields, "Content-Type: {content_type}\r\n");
        }
        // RFC 9110 section 8.6: a 204 has no length, and that of a 304 would be the file's.
        if !matches!(status, 204 | 304) {
            let _ = write!(fields, "Content-Length: {length}\r\n");
        }
        fields
    }

    async fn send(
        &mut self,
        mut fields: String,
        keep_alive: bool,
        body: &[u8],
    ) -> io::Result<Next> {
        fields.push_str(if keep_alive {
            "\r\n"
        } else {
            "Connection: close\r\n\r\n"
        });
        self.connection.send(fields.into_bytes(), body).await?;
        Ok(if keep_alive { Next::Again } else { Next::Close })
    }
}

fn refused(dialect: &Dialect, refusal: Refusal) -> Response {
    match refusal {
        Refusal::Foreign | Refusal::Narrow => (dialect.refuse)(403, "Forbidden"),
        Refusal::Unproven | Refusal::Wrong => (dialect.refuse)(401, "Unauthorized"),
    }
}

fn lock(lockout: &Mutex<Lockout>) -> MutexGuard<'_, Lockout> {
    lockout.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room that a large body takes up.
type Held<'h> = Option<SemaphorePermit<'h>>;

/// Reserves room for a large body; `None` for a small one, which needs none.
fn hold(held: &Semaphore, bytes: usize) -> Result<Held<'_>, TryAcquireError> {
    if bytes <= SMALL_BODY_BYTES {
        return Ok(None);
    }
    // One that is larger than everything may go alone.
    let bytes = u32::try_from(bytes.min(HELD_BYTES_MAX)).unwrap_or(u32::MAX);
    held.try_acquire_many(bytes).map(Some)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
