//! UDP sessions: one for each client socket, with one mapping to the outside and any number of
//! destinations (endpoint-independent mapping, RFC 4787).
//!
//! The first datagram decides by the rules and opens the association; those that follow are sent by
//! the inbound's own task, without a queue between. A name (a fake address) is resolved once for the
//! session, since the answer's real sender must be turned back into the address that the client knows.

mod opening;

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Instant, sleep};

use crate::metadata::{Endpoint, Host, Metadata};
use crate::outbound::{Datagrams, IpVersion, Purpose};
use crate::platform::clock;

use super::Tunnel;
use super::admission::Lacking;
use super::connections::Connection;
use super::flow::ReplySink;
use super::names::Mapping;
use super::pacing::{Pace, Way};

/// Datagrams that wait while a session opens; beyond it the newest are dropped.
const WAITING_MAX: usize = 64;

/// Bytes that wait while a session opens.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Named destinations of one session; beyond it new ones are dropped.
const NAMED_MAX: usize = 256;

/// Silence after which a session ends, as mihomo's.
const IDLE: Duration = Duration::from_secs(60);

/// The same for QUIC, whose connections outlive a minute's silence.
const IDLE_QUIC: Duration = Duration::from_secs(300);

thread_local! {
    /// Private to the thread, and to one poll.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Table: the live sessions. [`Admission`](super::admission::Admission) says how many; beyond that new ones
/// are dropped, and old ones that are silent end.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_client: HashMap<SocketAddr, Arc<Session>>,
    /// How many each device has: none gets more than half of all.
    by_device: HashMap<IpAddr, usize>,
}

impl Table {
    /// Enters a session; if there is no room for it, whose it lacks.
    fn enter(&mut self, session: &Arc<Session>, most: usize) -> Result<(), Lacking> {
        let device = session.client.ip();
        let own = self.by_device.get(&device).copied().unwrap_or(0);
        if own >= most / 2 {
            return Err(Lacking::OfDevice(device));
        }
        if self.by_client.len() >= most {
            return Err(Lacking::OfAll);
        }
        self.by_client.insert(session.client, Arc::clone(session));
        self.by_device.insert(device, own + 1);
        Ok(())
    }

    fn leave(&mut self, client: SocketAddr) {
        if self.by_client.remove(&client).is_none() {
            return;
        }
        if let Entry::Occupied(mut own) = self.by_device.entry(client.ip()) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
        // A flood must not pin its table for ever.
        if self.by_client.capacity() > 1024 && self.by_client.len() * 8 < self.by_client.capacity()
        {
            self.by_client.shrink_to_fit();
            self.by_device.shrink_to_fit();
        }
    }
}

struct Session {
    client: SocketAddr,
    /// The sink that came last: an inbound may have opened a new one.
    reply: Mutex<Arc<dyn ReplySink>>,
    /// Set once the association is open.
    open: OnceLock<Open>,
    state: Mutex<State>,
    /// Bytes moved since the idle timer last looked.
    active: AtomicBool,
}

struct Open {
    datagrams: Box<dyn Datagrams>,
    connection: Arc<Connection>,
    direct: bool,
    pace: Option<Arc<Pace>>,
}

impl Open {
    /// Whether the user's rate lets a datagram pass; beyond it is dropped, as a full queue would drop it.
    fn passes(&self, way: Way, payload: &[u8]) -> bool {
        let pace = self.pace.as_ref();
        pace.is_none_or(|pace| pace.passes(way, clock::now(), payload.len()))
    }
}

#[derive(Default)]
struct State {
    /// Until the association is open, and while a name is resolved.
    waiting: Vec<(Endpoint, Box<[u8]>)>,
    waiting_bytes: usize,
    /// What a fake address stands for in this session: where it is really sent.
    named: Vec<(SocketAddr, SocketAddr)>,
    resolving: Vec<SocketAddr>,
}

impl Sessions {
    /// Hands one datagram to its client's session, which it may begin.
    pub(super) fn datagram(
        &self,
        tunnel: &Tunnel,
        source: SocketAddr,
        to: Endpoint,
        payload: &[u8],
        reply: &Arc<dyn ReplySink>,
        describe: &dyn Fn() -> Metadata,
    ) {
        let found = self.table().by_client.get(&source).cloned();
        if let Some(session) = found {
            session.answer_by(reply);
            session.send(tunnel, to, payload);
            return;
        }
        let session = Arc::new(Session {
            client: source,
            reply: Mutex::new(Arc::clone(reply)),
            open: OnceLock::new(),
            state: Mutex::default(),
            active: AtomicBool::new(true),
        });
        session.wait(to, payload);
        let most = tunnel.admission.sessions_max();
        let entered = self.table().enter(&session, most);
        if let Err(lacking) = entered {
            tunnel.admission.make_session_room(&lacking);
            return;
        }
        let Some(tunnel) = tunnel.handle() else {
            return;
        };
        let metadata = describe();
        tokio::spawn(async move {
            run(&tunnel, &session, metadata).await;
            tunnel.sessions.table().leave(source);
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has replies go back by `reply` from now on.
    fn answer_by(&self, reply: &Arc<dyn ReplySink>) {
        let mut present = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&present, reply) {
            *present = Arc::clone(reply);
        }
    }

    fn reply(&self, from: SocketAddr, payload: &[u8]) {
        let known = self.known_as(from).into();
        let present = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        present.reply(self.client, &known, payload);
    }

    /// Keeps a datagram until it can go.
    fn wait(&self, to: Endpoint, payload: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() < WAITING_MAX
            && state.waiting_bytes + payload.len() <= WAITING_BYTES_MAX
        {
            state.waiting_bytes += payload.len();
            state.waiting.push((to, payload.into()));
        }
    }

    /// Sends a datagram, now if it can go now.
    fn send(self: &Arc<Self>, tunnel: &Tunnel, to: Endpoint, payload: &[u8]) {
        self.active.store(true, Ordering::Relaxed);
        let Some(open) = self.open.get() else {
            self.wait(to, payload);
            return;
        };
        match self.target(tunnel, &to) {
            Target::At(to) => {
                // A full socket buffer drops the datagram, as a full queue on the way would.
                let passes = open.passes(Way::Up, payload);
                if passes && open.datagrams.try_send_to(payload, &to).is_ok() {
                    tunnel
                        .connections
                        .count_upload(&open.connection, payload.len() as u64);
                }
            }
            Target::Unresolved(fake, name) => {
                let begin = {
                    let mut state = self.state();
                    let known = state.resolving.contains(&fake);
                    if !known && state.resolving.len() + state.named.len() < NAMED_MAX {
                        state.resolving.push(fake);
                    }
                    !known
                };
                self.wait(to, payload);
                if begin && let Some(tunnel) = tunnel.handle() {
                    let session = Arc::clone(self);
                    tokio::spawn(async move { session.resolve(&tunnel, fake, &name).await });
                }
            }
            Target::Nowhere => {}
        }
    }

    /// Where a datagram really goes.
    fn target(&self, tunnel: &Tunnel, to: &Endpoint) -> Target {
        let Host::Ip(address) = to.host else {
            return Target::At(to.clone());
        };
        let asked = SocketAddr::new(address, to.port);
        if let Some((_, real)) = self.state().named.iter().find(|(fake, _)| *fake == asked) {
            return Target::At((*real).into());
        }
        match tunnel.names.map(address) {
            Mapping::Fake(name) => Target::Unresolved(asked, name),
            Mapping::FakeUnknown => Target::Nowhere,
            Mapping::Real(_) | Mapping::Unknown => Target::At(to.clone()),
        }
    }

    async fn resolve(self: &Arc<Self>, tunnel: &Tunnel, fake: SocketAddr, name: &str) {
        let purpose = if self.open.get().is_some_and(|open| open.direct) {
            Purpose::Direct
        } else {
            Purpose::Rule
        };
        let found = tunnel.names.resolve(name, IpVersion::Dual, purpose).await;
        let address = found.ok().and_then(|addresses| pick(&addresses, fake.ip()));
        let waiting = {
            let mut state = self.state();
            state.resolving.retain(|resolving| *resolving != fake);
            if let Some(address) = address {
                state
                    .named
                    .push((fake, SocketAddr::new(address, fake.port())));
            }
            let (due, kept) = std::mem::take(&mut state.waiting)
                .into_iter()
                .partition(|(to, _)| *to == fake.into());
            state.waiting = kept;
            state.waiting_bytes = state.waiting.iter().map(|(_, payload)| payload.len()).sum();
            due
        };
        let waiting: Vec<(Endpoint, Box<[u8]>)> = waiting;
        if address.is_some() {
            for (to, payload) in waiting {
                self.send(tunnel, to, &payload);
            }
        }
    }

    /// The address that the client knows for a real sender.
    fn known_as(&self, from: SocketAddr) -> SocketAddr {
        let state = self.state();
        state
            .named
            .iter()
            .find(|(_, real)| *real == from)
            .map_or(from, |(fake, _)| *fake)
    }
}

enum Target {
    At(Endpoint),
    Unresolved(SocketAddr, Box<str>),
    Nowhere,
}

/// An address for a client that speaks the family of `like`, or any.
fn pick(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses
        .iter()
        .find(|address| address.is_ipv4() == like.is_ipv4())
        .or(addresses.first())
        .copied()
}

/// The life of a session, in its task.
async fn run(tunnel: &Tunnel, session: &Arc<Session>, metadata: Metadata) {
    let port = metadata.destination_port;
    let Some(opened) = opening::open(tunnel, session, metadata).await else {
        return;
    };
    let open = session.open.get_or_init(|| opened);
    let idle = if port == 443 { IDLE_QUIC } else { IDLE };
    let waiting = {
        let mut state = session.state();
        state.waiting_bytes = 0;
        std::mem::take(&mut state.waiting)
    };
    for (to, payload) in waiting {
        match session.target(tunnel, &to) {
            // Awaited: a socket this new does not know yet that it can be written to.
            Target::At(to) => {
                if open.datagrams.send_to(&payload, &to).await.is_ok() {
                    tunnel
                        .connections
                        .count_upload(&open.connection, payload.len() as u64);
                }
            }
            Target::Unresolved(..) | Target::Nowhere => session.send(tunnel, to, &payload),
        }
    }
    let ended = receive(tunnel, session, open, idle).await;
    if let Err(error) = ended {
        log::debug!("[UDP] {}: {error}", session.client);
    }
    tunnel.connections.remove(open.connection.id);
}

/// Carries replies back until the session idles, fails or is closed.
async fn receive(
    tunnel: &Tunnel,
    session: &Session,
    open: &Open,
    idle: Duration,
) -> io::Result<()> {
    let mut timer = Box::pin(sleep(idle));
    poll_fn(|cx| {
        if open.connection.poll_closed(cx.waker()) {
            return Poll::Ready(Ok(()));
        }
        while timer.as_mut().poll(cx).is_ready() {
            if !session.active.swap(false, Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            timer.as_mut().reset(Instant::now() + idle);
        }
        loop {
            let mut buffer = BUFFER.take();
            buffer.resize(usize::from(u16::MAX), 0);
            let mut read = ReadBuf::new(&mut buffer);
            let polled = open.datagrams.poll_recv_from(cx, &mut read);
            let outcome = match polled {
                Poll::Ready(Ok(from)) => {
                    let payload = read.filled();
                    session.active.store(true, Ordering::Relaxed);
                    if open.passes(Way::Down, payload) {
                        tunnel
                            .connections
                            .count_download(&open.connection, payload.len() as u64);
                        session.reply(from, payload);
                    }
                    None
                }
                // An ICMP error on the socket is news of one destination, not the session's end.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => None,
                Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
                Poll::Pending => Some(Poll::Pending),
            };
            BUFFER.replace(buffer);
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    })
    .await
}
