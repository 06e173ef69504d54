//! Asking the servers of a set.
//!
//! All servers of a set are asked at once and the first usable answer wins (clash-api.md 4.4). Each
//! gives back an answer in normal form, checked to be the answer to what was asked. Datagrams have
//! a socket a question (`udp`); streams are kept while they are used (`line`), whatever is spoken on
//! them: `frames` (TCP, TLS), `http2`, `http1`. `reach` finds the way to a server.
//!
//! No verdict about a server is kept, and a kept stream that has fallen silent is left for a new one:
//! whatever breaks the way to a server, it is usable again the moment the cause is gone.

pub mod dhcp;
pub mod egress;
mod frames;
pub mod http1;
mod http2;
mod line;
mod reach;
mod system;
mod udp;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;

use crate::outbound::BoxFuture;

use super::message::build::{Extras, constant_answer, normalize, upstream_query, vary_case};
use super::message::record::Answer;
use super::message::{Header, NAME_BYTES_MAX, Question, flags, rcode, types};
use super::options::{Protocol, Server, Upstream};

use dhcp::Lease;
use line::Line;
pub(super) use reach::Reach;

/// One exchange with a server, TCP retry included (as mihomo).
pub const EXCHANGE_TIME: Duration = Duration::from_secs(5);
/// How long an answer without addresses waits for a better one from another server.
const EMPTY_ANSWER_GRACE: Duration = Duration::from_millis(300);

/// Why a question has no answer. The client gets SERVFAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No server answered in [`EXCHANGE_TIME`].
    Timeout,
    /// The way to the server is closed: no route, refused, reset.
    Io(io::ErrorKind),
    /// The server answered with this code.
    Code(u8),
    /// The server answered with this HTTP status.
    Status(u16),
    /// The server has no certificate that we accept.
    Certificate,
    /// The server broke the protocol.
    Malformed,
    /// The set has no server that can be asked.
    NoServers,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Timeout => io::ErrorKind::TimedOut,
            Failure::Io(kind) => kind,
            Failure::NoServers => io::ErrorKind::NotConnected,
            Failure::Code(_) | Failure::Status(_) | Failure::Certificate | Failure::Malformed => {
                io::ErrorKind::InvalidData
            }
        };
        Self::new(kind, failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no name server answered in time"),
            Self::Io(kind) => write!(f, "name server not reached: {kind}"),
            Self::Code(code) => write!(f, "name server answered with code {code}"),
            Self::Status(status) => write!(f, "name server answered with status {status}"),
            Self::Certificate => f.write_str("name server has no certificate that is accepted"),
            Self::Malformed => f.write_str("name server answered nonsense"),
            Self::NoServers => f.write_str("no name server to ask"),
        }
    }
}

impl std::error::Error for Failure {}

/// Finds the address of a server that is given by name.
pub(super) trait Bootstrap: Send + Sync {
    /// The addresses of `name`.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Failure>>;
}

/// What is asked, and how.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) question: &'a Question,
    pub(super) checking_disabled: bool,
    pub(super) dnssec_ok: bool,
}

/// One configured nameserver, with what is kept between two questions to it.
enum Remote {
    Udp(Server),
    /// Everything on streams.
    Stream(Server, Line),
    System,
    Dhcp(Lease),
    Rcode(u8),
}

impl Remote {
    fn new(upstream: &Upstream, reach: &Arc<Reach>) -> Self {
        match upstream {
            Upstream::Server(server) if server.protocol == Protocol::Udp => {
                Self::Udp(server.clone())
            }
            Upstream::Server(server) => {
                Self::Stream(server.clone(), Line::new(server.clone(), Arc::clone(reach)))
            }
            Upstream::System => Self::System,
            Upstream::Dhcp(interface) => Self::Dhcp(Lease::new(interface)),
            Upstream::Rcode(code) => Self::Rcode(*code),
        }
    }

    /// The server, if it is one.
    fn server(&self) -> Option<&Server> {
        match self {
            Self::Udp(server) | Self::Stream(server, _) => Some(server),
            Self::System | Self::Dhcp(_) | Self::Rcode(_) => None,
        }
    }
}

/// Makes sets; a server that stands in several is one.
pub(super) struct Remotes {
    reach: Arc<Reach>,
    known: Vec<(Upstream, Arc<Remote>)>,
}

impl Remotes {
    pub(super) fn new(reach: Reach) -> Self {
        Self {
            reach: Arc::new(reach),
            known: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, list: &[Upstream]) -> Set {
        let remotes = list.iter().map(|upstream| self.remote(upstream)).collect();
        Set {
            remotes,
            reach: Arc::clone(&self.reach),
        }
    }

    fn remote(&mut self, upstream: &Upstream) -> Arc<Remote> {
        let known = self.known.iter().find(|(known, _)| known == upstream);
        if let Some((_, remote)) = known {
            return Arc::clone(remote);
        }
        let remote = Arc::new(Remote::new(upstream, &self.reach));
        self.known.push((upstream.clone(), Arc::clone(&remote)));
        remote
    }
}

/// Servers that are asked at once.
pub(super) struct Set {
    remotes: Box<[Arc<Remote>]>,
    reach: Arc<Reach>,
}

type Exchange<'a> = BoxFuture<'a, Result<Vec<u8>, Failure>>;

/// How good an answer is.
enum Worth {
    /// It wins.
    Good,
    /// It counts if nothing better comes.
    Empty,
    Failed(Failure),
}

impl Set {
    /// The code that it answers everything with, if it has nobody to ask.
    pub(super) fn constant(&self) -> Option<u8> {
        match self.remotes.first().map(|remote| &**remote) {
            Some(Remote::Rcode(code)) if self.remotes.len() == 1 => Some(*code),
            _ => None,
        }
    }

    /// Asks all servers; the answer is in normal form.
    pub(super) async fn ask(&self, asked: Asked<'_>) -> Result<Vec<u8>, Failure> {
        let mut exchanges = self.exchanges(asked);
        let mut failure = Failure::NoServers;
        let mut empty = None;
        while let Some(outcome) = exchanges.next().await {
            match asked.weigh(outcome) {
                (Worth::Good, answer) => return Ok(answer),
                (Worth::Empty, answer) => {
                    empty = Some(answer);
                    break;
                }
                // What the owner can do something about is told before what passes.
                (Worth::Failed(_), _) if failure == Failure::Certificate => {}
                (Worth::Failed(cause), _) => failure = cause,
            }
        }
        let Some(empty) = empty else {
            return Err(failure);
        };
        let better = async {
            while let Some(outcome) = exchanges.next().await {
                if let (Worth::Good, answer) = asked.weigh(outcome) {
                    return Some(answer);
                }
            }
            None
        };
        Ok(timeout(EMPTY_ANSWER_GRACE, better)
            .await
            .ok()
            .flatten()
            .unwrap_or(empty))
    }

    /// The table of kinds: one exchange for each server.
    fn exchanges<'a>(&'a self, asked: Asked<'a>) -> FuturesUnordered<Exchange<'a>> {
        let (all, reach) = (FuturesUnordered::new(), &*self.reach);
        let constant = |code| -> Exchange<'a> {
            let answer = constant_answer(asked.question, code);
            Box::pin(std::future::ready(Ok(answer)))
        };
        for remote in &self.remotes {
            let disabled = |server: &Server| server.disabled.contains(&asked.question.qtype);
            if remote.server().is_some_and(disabled) {
                all.push(constant(rcode::NOERROR));
                continue;
            }
            match &**remote {
                Remote::Udp(server) => all.push(limited(udp::exchange(asked, reach, server))),
                Remote::Stream(server, line) => all.push(limited(line.ask(asked, server))),
                Remote::System => {
                    for server in system::servers(&reach.own) {
                        all.push(limited(udp::exchange_with(asked, reach, server, None)));
                    }
                }
                Remote::Dhcp(lease) => all.push(limited(lease.ask(asked, reach))),
                Remote::Rcode(code) => all.push(constant(*code)),
            }
        }
        all
    }
}

impl Asked<'_> {
    fn weigh(&self, outcome: Result<Vec<u8>, Failure>) -> (Worth, Vec<u8>) {
        let bytes = match outcome {
            Ok(bytes) => bytes,
            Err(failure) => return (Worth::Failed(failure), Vec::new()),
        };
        let worth = match Answer::parse(&bytes) {
            Err(_) => Worth::Failed(Failure::Malformed),
            Ok(answer) if self.question.is_address() && answer.addresses().is_empty() => {
                Worth::Empty
            }
            Ok(_) => Worth::Good,
        };
        (worth, bytes)
    }

    /// The query for `server`, with a fresh random id; `varied`: and a random spelling.
    fn query(&self, server: Option<&Server>, varied: bool) -> Result<(u16, Vec<u8>), Failure> {
        let (mut id, mut noise) = ([0; 2], [0; NAME_BYTES_MAX.div_ceil(8)]);
        let system = SystemRandom::new();
        let filled = system.fill(&mut id).and_then(|()| match varied {
            true => system.fill(&mut noise),
            false => Ok(()),
        });
        filled.map_err(|_| Failure::Io(io::ErrorKind::Other))?;
        let id = u16::from_be_bytes(id);
        let encrypted =
            |server: &Server| matches!(server.protocol, Protocol::Tls | Protocol::Https(_));
        let extras = Extras {
            checking_disabled: self.checking_disabled,
            dnssec_ok: self.dnssec_ok,
            subnet: server.and_then(|server| server.subnet),
            padded: server.is_some_and(encrypted),
        };
        let mut query = upstream_query(self.question, id, extras);
        vary_case(&mut query, self.question, &noise);
        Ok((id, query))
    }

    /// Reads what came back on the query `id`. `None`: not the answer to it, wait on.
    fn read(&self, id: u16, bytes: &[u8]) -> Option<Reply> {
        let header = Header::read(bytes).ok()?;
        if header.id != id || header.flags & flags::RESPONSE == 0 {
            return None;
        }
        if header.flags & flags::TRUNCATED != 0 {
            // Some cut in the middle of a record; the answer over TCP is checked instead.
            return Some(Reply::Truncated);
        }
        let answer = Answer::parse(bytes).ok()?;
        if answer.question != *self.question {
            return None;
        }
        // The upper bits of an extended code stand in the OPT record (RFC 6891 section 6.1.3).
        let opt = answer
            .records()
            .flatten()
            .find(|record| record.rtype == types::OPT);
        if opt.is_some_and(|opt| opt.ttl >> 24 != 0) {
            return Some(Reply::Failed(Failure::Malformed));
        }
        Some(match answer.rcode() {
            rcode::NOERROR | rcode::NXDOMAIN => Reply::Whole(normalize(&answer)),
            code => Reply::Failed(Failure::Code(code)),
        })
    }
}

/// What a server sent to our query.
enum Reply {
    Whole(Vec<u8>),
    Truncated,
    Failed(Failure),
}

fn limited<'a>(
    exchange: impl Future<Output = Result<Vec<u8>, Failure>> + Send + 'a,
) -> Exchange<'a> {
    Box::pin(async move {
        timeout(EXCHANGE_TIME, exchange)
            .await
            .unwrap_or(Err(Failure::Timeout))
    })
}
