//! Web hooks: requests that rules make of a server, by tasks of their own.
//!
//! A rule hands a request over and goes on: at most [`WAITING_MAX`] wait, of [`WAITING_MAX_BYTES`]
//! together; further ones fail at once. A request is tried [`TRIES`] times with back-off while its
//! server lives, and once while it does not, so what waits for a dead server is soon through.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::down::Down;
use super::feed::Feed;
use super::outside::Outside;
use crate::outbound::tls::TlsClient;
use crate::platform::counter::Counter;
use crate::provider::http::{Exchange, FetchError};
use crate::provider::url::Url;

/// Requests that may wait.
const WAITING_MAX: usize = 256;

/// Bytes of their bodies.
const WAITING_MAX_BYTES: usize = 1024 * 1024;

/// How often a request is tried on a server that lives.
const TRIES: u32 = 4;

/// Before the second try; doubled before each further one.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How often a server is looked at while nothing is asked of it; an idle connection lives as long.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How an action's requests ended.
#[derive(Default)]
pub(super) struct Tally {
    pub success: Counter,
    pub failed: Counter,
}

/// One request.
pub(super) struct Job {
    pub method: &'static str,
    /// Behind the path of the hook's address.
    pub path: Box<str>,
    pub fields: Vec<(Box<str>, Box<str>)>,
    pub body: Box<[u8]>,
    pub tally: Arc<Tally>,
    /// The action, and the row as JSON for its fallbacks; none: it has no fallbacks.
    pub fallback: Option<(Box<str>, Box<[u8]>)>,
}

/// Where requests go and how long they may take.
pub(super) struct Target {
    pub url: Url,
    pub tls: Option<TlsClient>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    bytes: usize,
}

/// A server with what waits for it. Table: shared by the broker's thread and the tasks.
pub(super) struct Hook {
    target: Target,
    queue: Mutex<Queue>,
    arrived: Notify,
    alive: AtomicBool,
    down: Arc<Down>,
}

impl Hook {
    pub(super) fn new(target: Target, down: Arc<Down>) -> Arc<Self> {
        Arc::new(Self {
            target,
            queue: Mutex::default(),
            arrived: Notify::new(),
            alive: AtomicBool::new(false),
            down,
        })
    }

    /// Whether the server answered when it was last asked.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Takes a request over; `false`: too many wait.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = queue.bytes.saturating_add(job.body.len());
        if queue.waiting.len() >= WAITING_MAX || bytes > WAITING_MAX_BYTES {
            return false;
        }
        queue.bytes = bytes;
        queue.waiting.push_back(job);
        drop(queue);
        self.arrived.notify_one();
        true
    }

    fn take(&self) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = queue.waiting.pop_front()?;
        queue.bytes -= job.body.len();
        if !queue.waiting.is_empty() {
            // Another task may be free.
            self.arrived.notify_one();
        }
        Some(job)
    }

    async fn next(&self) -> Job {
        loop {
            if let Some(job) = self.take() {
                return job;
            }
            self.arrived.notified().await;
        }
    }

    /// Serves the queue, for ever.
    pub(super) async fn serve(self: Arc<Self>, outside: Arc<Outside>, feed: Arc<Feed>) {
        let mut open = None;
        self.look(&outside).await;
        loop {
            match timeout(LOOK_EVERY, self.next()).await {
                Ok(job) => match self.deliver(&job, &outside, &mut open).await {
                    true => job.tally.success.add(1),
                    false => {
                        job.tally.failed.add(1);
                        if let Some((action, row)) = job.fallback {
                            feed.fall_back(action, row);
                        }
                    }
                },
                Err(_idle) => {
                    open = None;
                    self.look(&outside).await;
                }
            }
        }
    }

    /// Sees whether the server takes a connection.
    async fn look(&self, outside: &Outside) {
        let opened = self.open(outside).await;
        self.is_now(opened.map(drop).map_err(Into::into));
    }

    fn is_now(&self, state: Result<(), FetchError>) {
        let was = self.alive.swap(state.is_ok(), Ordering::Relaxed);
        match state {
            Ok(()) => self.down.lower(),
            Err(why) => {
                if was {
                    log::warn!("web hook {}: {why}", self.target.url.endpoint);
                }
                self.down.raise(&why.to_string());
            }
        }
    }

    /// Tries until it is done or in vain; whether it is done.
    async fn deliver(&self, job: &Job, outside: &Outside, open: &mut Option<Exchange>) -> bool {
        let mut wait = AGAIN_AFTER;
        for attempt in 1.. {
            let reused = open.is_some();
            let tried = timeout(
                self.target.request_timeout,
                self.attempt(job, outside, open),
            );
            let tried = tried
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
            let lives = self.is_alive();
            match tried {
                Ok(status) => {
                    self.is_now(Ok(()));
                    match status {
                        200..=299 => return true,
                        // Come back later, says the server.
                        408 | 429 | 500..=599 => {}
                        _ => return false,
                    }
                }
                Err(why) => {
                    *open = None;
                    // A connection that lay idle may be closed by now; that says nothing of the server.
                    if reused && attempt == 1 {
                        continue;
                    }
                    self.is_now(Err(why));
                }
            }
            if attempt >= TRIES || !lives {
                return false;
            }
            sleep(wait).await;
            wait *= 2;
        }
        false
    }

    async fn attempt(
        &self,
        job: &Job,
        outside: &Outside,
        open: &mut Option<Exchange>,
    ) -> Result<u16, FetchError> {
        let mut exchange = match open.take() {
            Some(exchange) => exchange,
            None => self.open(outside).await?,
        };
        let url = &self.target.url;
        let head = url.request_with_body(job.method, &job.path, &job.fields, job.body.len());
        let (status, stays) = exchange.send(&head, &job.body).await?;
        *open = stays.then_some(exchange);
        Ok(status)
    }

    async fn open(&self, outside: &Outside) -> io::Result<Exchange> {
        let opening = async {
            let carrier = outside.open_hook(&self.target.url.endpoint).await?;
            match &self.target.tls {
                Some(tls) => tls.handshake(carrier).await,
                None => Ok(carrier),
            }
        };
        let opened = timeout(self.target.connect_timeout, opening).await;
        opened
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map(Exchange::new)
    }
}
