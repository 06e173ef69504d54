//! Asking the servers of a set.
//!
//! All servers of a set are asked at once and the first usable answer wins (clash-api.md 4.4). A
//! scheme is a file here, a variant of [`Upstream`] and a line in `Asked::exchanges`; each gives
//! back an answer in normal form, checked to be the answer to what was asked. Nothing is kept
//! between two questions: no connection, no verdict about a server. So whatever breaks the way to a
//! server, it is usable again the moment the cause is gone.

pub mod egress;
mod system;
mod tcp;
mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;

use crate::metadata::{Endpoint, Host};
use crate::outbound::BoxFuture;

use super::message::build::{constant_answer, normalize, upstream_query};
use super::message::record::Answer;
use super::message::{Header, Question, flags, rcode, types};
use super::options::{Server, Upstream};

use egress::{Egress, Via};

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
            Failure::Code(_) | Failure::Malformed => io::ErrorKind::InvalidData,
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
            Self::Malformed => f.write_str("name server answered nonsense"),
            Self::NoServers => f.write_str("no name server to ask"),
        }
    }
}

impl std::error::Error for Failure {}

/// Finds the address of a server that is given by name.
pub(super) trait Bootstrap: Sync {
    /// The addresses of `name`.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Failure>>;
}

/// What is asked, and how.
pub(super) struct Asked<'a> {
    pub(super) question: &'a Question,
    pub(super) checking_disabled: bool,
    pub(super) dnssec_ok: bool,
    pub(super) egress: &'a dyn Egress,
    /// `None` for the set that resolves the others' names: it takes literals only.
    pub(super) bootstrap: Option<&'a dyn Bootstrap>,
    /// Our own listeners: never asked by way of `system`.
    pub(super) own: &'a [SocketAddr],
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

impl<'a> Asked<'a> {
    /// Asks all `servers`; the answer is in normal form.
    pub(super) async fn ask(&'a self, servers: &'a [Upstream]) -> Result<Vec<u8>, Failure> {
        let mut exchanges = self.exchanges(servers);
        let mut failure = Failure::NoServers;
        let mut empty = None;
        while let Some(outcome) = exchanges.next().await {
            match self.weigh(outcome) {
                (Worth::Good, answer) => return Ok(answer),
                (Worth::Empty, answer) => {
                    empty = Some(answer);
                    break;
                }
                (Worth::Failed(cause), _) => failure = cause,
            }
        }
        let Some(empty) = empty else {
            return Err(failure);
        };
        let better = async {
            while let Some(outcome) = exchanges.next().await {
                if let (Worth::Good, answer) = self.weigh(outcome) {
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

    /// The table of schemes: one exchange for each server.
    fn exchanges(&'a self, servers: &'a [Upstream]) -> FuturesUnordered<Exchange<'a>> {
        let all = FuturesUnordered::new();
        for server in servers {
            match server {
                Upstream::Udp(server) => all.push(limited(udp::exchange(self, server))),
                Upstream::Tcp(server) => all.push(limited(tcp::exchange(self, server))),
                Upstream::System => {
                    for server in system::servers(self.own) {
                        all.push(limited(udp::exchange_with(self, server)));
                    }
                }
                Upstream::Rcode(code) => {
                    let answer = constant_answer(self.question, *code);
                    all.push(Box::pin(std::future::ready(Ok(answer))));
                }
            }
        }
        all
    }

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

    /// Where `server` is to be reached, and by which way.
    async fn locate(&self, server: &Server) -> Result<(Endpoint, Via), Failure> {
        let via = Via::find(self.egress, server.via.as_deref());
        let host = Host::parse(&server.host).ok_or(Failure::NoServers)?;
        let host = match (host, &via) {
            // A proxy is told the name.
            (Host::Name(name), Via::Outbound(_)) => Host::Name(name),
            (Host::Name(name), Via::Interface(_)) => {
                let bootstrap = self.bootstrap.ok_or(Failure::NoServers)?;
                let addresses = bootstrap.addresses(&name).await?;
                Host::Ip(*addresses.first().ok_or(Failure::NoServers)?)
            }
            (ip, _) => ip,
        };
        let port = server.port;
        Ok((Endpoint { host, port }, via))
    }

    /// The query with a fresh random id.
    fn query(&self) -> Result<(u16, Vec<u8>), Failure> {
        let mut id = [0; 2];
        let random = SystemRandom::new().fill(&mut id);
        random.map_err(|_| Failure::Io(io::ErrorKind::Other))?;
        let id = u16::from_be_bytes(id);
        let query = upstream_query(self.question, id, self.checking_disabled, self.dnssec_ok);
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
