//! A stream to one server that is kept while it is used.
//!
//! The first question opens it; those that come meanwhile wait for it; it closes when nothing was
//! asked for [`IDLE_TIME`]. A task holds the stream, so that a question which is given up (another
//! server was faster) does not cut the others' way. A stream that stays silent for [`SILENCE_TIME`]
//! while it is asked may be dead (a WAN that came back with another address): the question goes over
//! a new one as well, and the old one is left.
//!
//! Tasks: one for each line that is open, held by the line and by those who wait on it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Asked, EXCHANGE_TIME, Failure, Protocol, Reach, Reply, Server, frames, http1, http2};
use crate::outbound::carrier::Carrier;
use crate::outbound::options::TlsOptions;
use crate::outbound::tls::TlsClient;

/// How long an unused stream is kept: a page's worth of questions comes over one stream, and a
/// TLS session's memory (some 50 KB) is not held for longer.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(20);
/// How long nothing may come before a stream in use is doubted.
const SILENCE_TIME: Duration = Duration::from_millis(1500);
/// Questions that wait for their turn on one stream; further ones fail at once.
const QUEUE_MAX: usize = 64;
/// Questions on one stream at once; further ones wait in the queue.
pub(super) const UNANSWERED_MAX: usize = 64;
/// Longest answer (its length has 16 bits on a stream).
pub(super) const ANSWER_BYTES_MAX: usize = u16::MAX as usize;

/// A question for the task that holds the stream.
pub(super) struct Request {
    pub(super) query: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Vec<u8>, Failure>>,
}

/// What a stream's task works with.
pub(super) struct Work {
    pub(super) requests: mpsc::Receiver<Request>,
    /// How many answers came.
    pub(super) answers: Arc<AtomicU32>,
}

/// Table: the stream of the moment.
pub(super) struct Line {
    end: Arc<End>,
    current: Mutex<Option<Arc<Open>>>,
}

/// The server's end.
struct End {
    server: Server,
    reach: Arc<Reach>,
    tls: Option<TlsClient>,
}

/// A stream that is open, or opening. The last one who holds it ends its task.
struct Open {
    requests: mpsc::Sender<Request>,
    answers: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A question that is on its way.
struct Sent {
    open: Arc<Open>,
    answer: oneshot::Receiver<Result<Vec<u8>, Failure>>,
    /// The stream was opened for it.
    fresh: bool,
    answers_before: u32,
}

impl Line {
    pub(super) fn new(server: Server, reach: Arc<Reach>) -> Self {
        let alpn: &[&str] = match server.protocol {
            Protocol::Https(_) => &["h2", "http/1.1"],
            _ => &[],
        };
        let options = TlsOptions {
            skip_verify: server.skip_verify,
            alpn: alpn.iter().map(|&name| name.into()).collect(),
            ..TlsOptions::default()
        };
        let encrypted = matches!(server.protocol, Protocol::Tls | Protocol::Https(_));
        // A host that TLS cannot name cannot be connected to either; opening says so.
        let tls = encrypted.then(|| TlsClient::new(&options, &server.host).ok());
        Self {
            end: Arc::new(End {
                server,
                reach,
                tls: tls.flatten(),
            }),
            current: Mutex::default(),
        }
    }

    /// One exchange.
    pub(super) async fn ask(&self, asked: Asked<'_>, server: &Server) -> Result<Vec<u8>, Failure> {
        let (id, query) = asked.query(Some(server), false)?;
        let answer = self.exchange(query).await?;
        match asked.read(id, &answer) {
            Some(Reply::Whole(answer)) => Ok(answer),
            Some(Reply::Failed(failure)) => Err(failure),
            // There is no longer way than a stream.
            Some(Reply::Truncated) | None => Err(Failure::Malformed),
        }
    }

    async fn exchange(&self, query: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut first = self.send(query.clone())?;
        if first.fresh {
            return first.outcome().await;
        }
        match timeout(SILENCE_TIME, first.outcome()).await {
            // The other end may have closed it the moment we used it.
            Ok(Err(Failure::Io(_))) => {
                self.leave(&first.open);
                return self.send(query)?.outcome().await;
            }
            Ok(outcome) => return outcome,
            Err(_) => {}
        }
        if first.open.answers.load(Ordering::Relaxed) != first.answers_before {
            // It lives; only this answer takes long.
            return first.outcome().await;
        }
        self.leave(&first.open);
        let mut second = self.send(query)?;
        tokio::select! {
            Ok(answer) = first.outcome() => Ok(answer),
            outcome = second.outcome() => outcome,
        }
    }

    fn send(&self, query: Vec<u8>) -> Result<Sent, Failure> {
        let (reply, answer) = oneshot::channel();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = current.as_ref().filter(|open| !open.requests.is_closed());
        let (open, fresh) = match kept {
            Some(open) => (Arc::clone(open), false),
            None => (Arc::new(self.open()), true),
        };
        if fresh {
            *current = Some(Arc::clone(&open));
        }
        drop(current);
        let answers_before = open.answers.load(Ordering::Relaxed);
        let request = Request { query, reply };
        let sent = open.requests.try_send(request);
        sent.map_err(|_| Failure::Io(io::ErrorKind::QuotaExceeded))?;
        Ok(Sent {
            open,
            answer,
            fresh,
            answers_before,
        })
    }

    fn open(&self) -> Open {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let answers = Arc::<AtomicU32>::default();
        let work = Work {
            requests: queue,
            answers: Arc::clone(&answers),
        };
        let task = tokio::spawn(serve(Arc::clone(&self.end), work).boxed());
        Open {
            requests,
            answers,
            task,
        }
    }

    /// Lets further questions open a new stream.
    fn leave(&self, left: &Arc<Open>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|open| Arc::ptr_eq(open, left)) {
            *current = None;
        }
    }
}

impl Sent {
    async fn outcome(&mut self) -> Result<Vec<u8>, Failure> {
        let outcome = (&mut self.answer).await;
        outcome.unwrap_or(Err(Failure::Io(io::ErrorKind::ConnectionReset)))
    }
}

/// Opens a stream and holds it to its end; then whoever still waits is told.
async fn serve(end: Arc<End>, mut work: Work) {
    let opened = timeout(EXCHANGE_TIME, Box::pin(end.connect())).await;
    let failure = match opened.unwrap_or(Err(Failure::Timeout)) {
        Ok((carrier, protocol)) => match protocol {
            Spoken::Frames => Box::pin(frames::serve(carrier, &mut work)).await,
            Spoken::Http2 => Box::pin(http2::serve(carrier, &end.server, &mut work)).await,
            Spoken::Http1 => Box::pin(http1::serve(carrier, &end.server, &mut work)).await,
        },
        Err(failure) => {
            log::debug!("dns: {}: {failure}", end.server);
            failure
        }
    };
    work.requests.close();
    while let Some(request) = work.requests.recv().await {
        let _ = request.reply.send(Err(failure));
    }
}

/// What is spoken on a stream.
enum Spoken {
    Frames,
    Http2,
    Http1,
}

impl End {
    async fn connect(&self) -> Result<(Carrier, Spoken), Failure> {
        let carrier = self.reach.connect(&self.server).await?;
        let http1 = match &self.server.protocol {
            Protocol::Udp | Protocol::Tcp => return Ok((carrier, Spoken::Frames)),
            Protocol::Http(_) => return Ok((carrier, Spoken::Http1)),
            Protocol::Tls => false,
            Protocol::Https(_) => true,
        };
        let tls = self.tls.as_ref().ok_or(Failure::NoServers)?;
        let (carrier, chosen) = tls.negotiate(carrier).await.map_err(|error| {
            // The owner must learn of it: it is an attack, or the clock, or the configuration.
            log::warn!("dns: {}: {error}", self.server);
            match error.kind() {
                io::ErrorKind::InvalidData => Failure::Certificate,
                kind => Failure::Io(kind),
            }
        })?;
        let spoken = match chosen.as_deref() {
            _ if !http1 => Spoken::Frames,
            Some(b"h2") => Spoken::Http2,
            _ => Spoken::Http1,
        };
        Ok((carrier, spoken))
    }
}
