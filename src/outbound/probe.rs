//! The delay test: HTTP HEAD through an outbound, timed (clash-api.md 1.8, "Delay test").
//!
//! A small client for that one request (RFC 9110, RFC 9112): redirects are not followed, certificates
//! are verified, an answer ends with its head. Time runs from the dial to the end of the answer's head;
//! with `unified` a second request on the same connection is timed instead, so that protocols with
//! long handshakes compare fairly.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Outbound;
use super::carrier::Carrier;
use super::group::Member;
use super::health::Outcome;
use super::http_url::HttpUrl;
use super::options::TlsOptions;
use super::status_ranges::StatusRanges;
use super::tls::TlsClient;
use crate::metadata::{InboundType, Metadata, Network};
use crate::platform::clock;

/// Tests that run at a time, whoever wants them; more wait their turn. One over TLS costs some 50 KB.
const PROBES_MAX: usize = 32;

/// Bytes of an answer's head; a longer one is no answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Interim answers (1xx) before the final one.
const INTERIM_MAX: usize = 4;

/// Groups within groups; the configuration refuses loops, so this only bounds the walk.
const DEPTH_MAX: usize = 32;

/// Counter: the tests that may still begin.
static PROBES: Semaphore = Semaphore::const_new(PROBES_MAX);

/// What is asked, and what counts as an answer.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The address as it was given: results are filed under it. One that is none fails.
    pub url: Box<str>,
    /// The statuses of a good answer.
    pub expected: StatusRanges,
    /// For everything.
    pub timeout: Duration,
    /// Whether the second request is timed (`unified-delay`).
    pub unified: bool,
}

/// Why there is no delay. The outbound is at fault, or the address.
#[derive(Debug)]
pub enum ProbeError {
    /// Not done in time.
    TimedOut,
    /// The address is no HTTP address.
    Url,
    /// The outbound refuses streams (REJECT).
    Rejected,
    /// What came back is not HTTP.
    NotHttp,
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out"),
            Self::Url => f.write_str("not an http or https address"),
            Self::Rejected => f.write_str("the outbound rejects"),
            Self::NotHttp => f.write_str("the answer is not HTTP"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ProbeError {}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            Self::TimedOut
        } else {
            Self::Io(error)
        }
    }
}

impl Probe {
    /// Tests `member` now and records the result under its name; milliseconds, at least 1.
    ///
    /// # Errors
    /// [`ProbeError`]. An answer with an unexpected status is a delay all the same.
    pub async fn test(&self, member: &Member) -> Result<u16, ProbeError> {
        // Never closed.
        let _permit = PROBES.acquire().await;
        let measured = if self.timeout.is_zero() {
            Err(ProbeError::TimedOut)
        } else {
            let measuring = Box::pin(self.measure(&member.outbound));
            let in_time = timeout(self.timeout, measuring).await;
            in_time.unwrap_or(Err(ProbeError::TimedOut))
        };
        let outcome = match &measured {
            &Ok((delay, status)) => Outcome::Answer {
                delay,
                expected: self.expected.contain(status),
            },
            Err(error) => {
                log::debug!("delay test of {}: {error}", member.outbound.name());
                Outcome::Nothing
            }
        };
        let (time, now) = (clock::unix_time(), clock::now());
        member.health.record(&self.url, outcome, time, now);
        measured.map(|(delay, _)| delay)
    }

    /// Tests each of `members` that was not tested by this URL since `since`, `parallel` at a time.
    pub async fn round(&self, members: &[Member], since: Instant, parallel: usize) {
        let (mut waiting, mut running) = (members.iter(), FuturesUnordered::new());
        loop {
            while running.len() < parallel
                && let Some(member) = waiting.next()
            {
                running.push(self.test_unless_since(member, since));
            }
            if running.next().await.is_none() {
                return;
            }
        }
    }

    async fn test_unless_since(&self, member: &Member, since: Instant) {
        let _turn = member.health.turn().await;
        if !member.health.is_tested_since(&self.url, since) {
            // Logged and recorded there.
            let _ = self.test(member).await;
        }
    }

    /// Milliseconds and status.
    async fn measure(&self, outbound: &Arc<dyn Outbound>) -> Result<(u16, u16), ProbeError> {
        let url = HttpUrl::parse(&self.url).ok_or(ProbeError::Url)?;
        let node = shown_leaf(outbound);
        let begun = clock::now();
        let metadata = Metadata::new(
            Network::Tcp,
            InboundType::Inner,
            &Arc::from("INNER"),
            SocketAddr::from(([0, 0, 0, 0], 0)),
            url.endpoint.clone(),
        );
        let stream = node.connect(&metadata).await?;
        let mut carrier = Carrier::of(stream).ok_or(ProbeError::Rejected)?;
        if url.tls {
            let host = url.endpoint.host.to_string();
            let tls = TlsClient::new(&TlsOptions::default(), &host).map_err(io::Error::other)?;
            carrier = tls.handshake(carrier).await?;
        }
        let status = head(&mut carrier, &url).await?;
        let first = (since(begun), status);
        if !self.unified {
            return Ok(first);
        }
        // A server that closes after the first answer leaves only that to be timed, as in mihomo.
        let begun = clock::now();
        let second = head(&mut carrier, &url).await;
        Ok(second.map_or(first, |status| (since(begun), status)))
    }
}

/// The node behind `outbound` as its groups show it; looking does not count as use.
fn shown_leaf(outbound: &Arc<dyn Outbound>) -> Arc<dyn Outbound> {
    let mut node = Arc::clone(outbound);
    for _ in 0..DEPTH_MAX {
        match node.selected(None) {
            Some(member) => node = member,
            None => break,
        }
    }
    node
}

/// Milliseconds since `begun`; at least 1, for 0 means failure everywhere.
fn since(begun: Instant) -> u16 {
    let elapsed = clock::now().duration_since(begun).as_millis();
    u16::try_from(elapsed).unwrap_or(u16::MAX - 1).max(1)
}

/// Asks once and reads to the end of the final answer's head; its status.
async fn head(carrier: &mut Carrier, url: &HttpUrl) -> Result<u16, ProbeError> {
    let request = format!(
        "HEAD {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: headgate\r\nAccept: */*\r\n\r\n",
        url.target, url.authority
    );
    carrier.write_all(request.as_bytes()).await?;
    carrier.flush().await?;
    let mut received = Vec::new();
    for _ in 0..INTERIM_MAX {
        let status = read_status(carrier, &mut received).await?;
        if !(100..200).contains(&status) {
            return Ok(status);
        }
    }
    Err(ProbeError::NotHttp)
}

/// Takes one head off `received`, reading on as long as it is not whole.
async fn read_status(carrier: &mut Carrier, received: &mut Vec<u8>) -> Result<u16, ProbeError> {
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let status = status(received).ok_or(ProbeError::NotHttp)?;
            received.drain(..end + 4);
            return Ok(status);
        }
        if received.len() >= HEAD_BYTES_MAX {
            return Err(ProbeError::NotHttp);
        }
        let mut chunk = [0; 1024];
        let length = carrier.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        received.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
}

/// The status of a status line (RFC 9112 section 4).
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?.get(1..)?;
    let digits = rest.strip_prefix(b" ")?.get(..3)?;
    let text = std::str::from_utf8(digits).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| digits && *status >= 100)
}
