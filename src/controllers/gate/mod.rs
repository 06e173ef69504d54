//! The listeners of the API, and the one place where its clients are waited for.
//!
//! Each client connection is a task that holds no buffer while nothing arrives, so that a
//! thousand silent ones cost what their kernel sockets cost. A request is read whole, within
//! limits of size and time, and checked; then a feed runs right here (`feed`), and everything
//! else is answered by tiny_http's threads (`rest`), which never meet a slow client.
//!
//! Limits, and what happens at each: `CLIENTS_MAX` connections (the one that has waited longest
//! for a request is closed; when all are busy the new one is), `FEEDS_MAX` feeds (503),
//! `HELD_BYTES_MAX` bytes of large bodies (503), `SLOW_MAX` slow requests (more wait their turn),
//! and the times in `connection`.

mod client;
mod connection;
mod feed;
mod rest;
mod tls;
mod ui;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::http::access::{Door, Policy};
use super::http::lockout::Lockout;
use super::http::route::Dialect;
use super::options::Options;
use super::{Cause, Context, Control, clash, emqx};
use crate::outbound::BoxFuture;
use crate::platform::clock;

/// Client connections at a time, over all listeners.
const CLIENTS_MAX: usize = 512;

/// Feeds at a time; the rest of [`CLIENTS_MAX`] stays for requests.
const FEEDS_MAX: usize = 128;

/// Bytes of large request and response bodies that are held for clients at a time.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Bodies up to this size are held without asking [`HELD_BYTES_MAX`].
const SMALL_BODY_BYTES: usize = 8 * 1024;

/// Slow requests at a time: fewer than `rest` answers, so that a dashboard which has fifty names
/// looked up does not keep the others waiting.
const SLOW_MAX: usize = 1;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener serves: the first dialect whose prefix fits a path.
type Dialects = &'static [&'static Dialect];

/// mihomo's alone, both, EMQX's alone.
const CONTROLLER: Dialects = &[&clash::DIALECT];
const BOTH: Dialects = &[&emqx::DIALECT, &clash::DIALECT];
const MANAGEMENT: Dialects = &[&emqx::STATUS, &emqx::DIALECT];

/// Whether mihomo's is among them, and so are its pages.
fn is_clash(dialects: Dialects) -> bool {
    dialects
        .iter()
        .any(|dialect| dialect.prefixes == clash::DIALECT.prefixes)
}

/// Why the API cannot be served.
#[derive(Debug)]
pub enum StartError {
    /// `external-controller` cannot be bound.
    Tcp(SocketAddr, io::Error),
    /// `management.listen` cannot be bound.
    Management(SocketAddr, io::Error),
    /// `external-controller-tls` cannot be served.
    Tls(SocketAddr, Cause),
    /// `external-controller-unix` cannot be bound.
    Unix(PathBuf, io::Error),
    /// The REST server behind the gate cannot start.
    Rest(Cause),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address, error) => {
                write!(f, "controller cannot listen on {address}: {error}")
            }
            Self::Management(address, error) => {
                write!(f, "management cannot listen on {address}: {error}")
            }
            Self::Tls(address, error) => {
                write!(f, "controller cannot serve TLS on {address}: {error}")
            }
            Self::Unix(path, error) => {
                write!(f, "controller cannot listen on {}: {error}", path.display())
            }
            Self::Rest(error) => write!(f, "controller's REST server cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The running API. Dropping it closes listeners and connections.
pub struct Gate {
    address: Option<SocketAddr>,
    tls_address: Option<SocketAddr>,
    unix: Option<PathBuf>,
    listeners: JoinSet<()>,
}

impl Gate {
    /// Binds what `options` name and serves `control` there. Must be called on the runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub fn start(options: &Options, control: Arc<dyn Control>) -> Result<Self, StartError> {
        let mut gate = Self {
            address: None,
            tls_address: None,
            unix: None,
            listeners: JoinSet::new(),
        };
        let tcp = options.listen.map(|address| {
            let failed = |error| StartError::Tcp(address, error);
            bind_tcp(address).map_err(failed)
        });
        let tcp = tcp.transpose()?;
        gate.address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let tls = options.tls.as_ref().map(|tls| {
            let failed = |error: Cause| StartError::Tls(tls.listen, error);
            let acceptor =
                tls::acceptor(tls, control.directory()).map_err(|error| failed(error.into()))?;
            let bound = bind_tcp(tls.listen).map_err(|error| failed(error.into()))?;
            Ok((bound, acceptor))
        });
        let tls = tls.transpose()?;
        gate.tls_address = tls
            .as_ref()
            .and_then(|(listener, _)| listener.local_addr().ok());
        let unix = options.unix.as_ref().map(|path| {
            let path = control.directory().join(path);
            let failed = |error| StartError::Unix(path.clone(), error);
            Ok((bind_unix(&path).map_err(failed)?, path))
        });
        let (unix, path) = unix.transpose()?.unzip();
        gate.unix = path;
        let management = options.management.listen.map(|address| {
            let failed = |error| StartError::Management(address, error);
            bind_tcp(address).map_err(failed)
        });
        let management = management.transpose()?;
        if tcp.is_none() && tls.is_none() && unix.is_none() && management.is_none() {
            return Ok(gate);
        }
        let controller = match (options.management.enable, &management) {
            (true, None) => BOTH,
            _ => CONTROLLER,
        };
        let shared = Arc::new(Shared::new(options, control)?);
        for (listener, dialects) in [(tcp, controller), (management, MANAGEMENT)] {
            if let Some(listener) = listener {
                let accepting = accept_tcp(listener, None, dialects, Arc::clone(&shared));
                gate.listeners.spawn(accepting.boxed());
            }
        }
        if let Some((listener, acceptor)) = tls {
            let accepting = accept_tcp(listener, Some(acceptor), controller, Arc::clone(&shared));
            gate.listeners.spawn(accepting.boxed());
        }
        if let Some(listener) = unix {
            // Whoever may open it may ask for everything.
            let dialects = if options.management.enable {
                BOTH
            } else {
                CONTROLLER
            };
            let accepting = accept_unix(listener, dialects, shared);
            gate.listeners.spawn(accepting.boxed());
        }
        Ok(gate)
    }

    /// Closes everything; the addresses are free when it is done, as they are not yet after a drop.
    pub async fn close(mut self) {
        self.listeners.shutdown().await;
    }

    /// The TCP address in use; tells the port when the configured one is 0.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The same of the TLS listener.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(path) = &self.unix {
            // A socket that is gone already is what we want.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Binds the Unix socket for its owner alone: whoever can open it needs no secret. Takes the place of
/// a socket that a dead instance left, never of any other kind of file.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What the connections share.
struct Shared {
    policy: Policy,
    lockout: Mutex<Lockout>,
    ui: Option<ui::Ui>,
    doh: Option<Box<str>>,
    rest: rest::Rest,
    context: Arc<Context>,
    clients: Clients,
    feeds: Arc<Semaphore>,
    held: Semaphore,
    slow: Semaphore,
}

impl Shared {
    fn new(options: &Options, control: Arc<dyn Control>) -> Result<Self, StartError> {
        let ui = options.ui.as_ref();
        let ui =
            ui.map(|ui| ui::Ui::new(control.directory().join(&ui.directory), ui.name.as_deref()));
        let context = Arc::new(Context {
            clash: clash::Shared::new().map_err(StartError::Rest)?,
            emqx: emqx::Shared::new(&options.management),
            control,
        });
        Ok(Self {
            policy: Policy::new(options),
            lockout: Mutex::default(),
            ui,
            doh: options.doh.clone(),
            rest: rest::Rest::start(BOTH, &context).map_err(StartError::Rest)?,
            context,
            clients: Clients::default(),
            feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
            held: Semaphore::new(HELD_BYTES_MAX),
            slow: Semaphore::new(SLOW_MAX),
        })
    }
}

async fn accept_tcp(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    dialects: Dialects,
    shared: Arc<Shared>,
) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // A reply is one write; small ones should not wait for an acknowledgement. Without
                    // the option it is only slower.
                    let _ = stream.set_nodelay(true);
                    let door = Door::Network(peer.ip().to_canonical());
                    let serve: Serve = match tls.clone() {
                        None => Box::new(move |seat| {
                            Box::pin(client::serve(Box::new(stream), door, dialects, seat))
                        }),
                        Some(acceptor) => Box::new(move |seat| {
                            Box::pin(tls::serve(acceptor, stream, door, dialects, seat))
                        }),
                    };
                    admit(serve, &shared, &mut tasks);
                }
                Err(error) => pause(&error).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn accept_unix(listener: UnixListener, dialects: Dialects, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let serve: Serve = Box::new(move |seat| {
                        Box::pin(client::serve(Box::new(stream), Door::Unix, dialects, seat))
                    });
                    admit(serve, &shared, &mut tasks);
                }
                Err(error) => pause(&error).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// A client that left before it was accepted is its own affair; a want of descriptors passes.
async fn pause(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        log::warn!("controller cannot accept a connection: {error}");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// What a connection's task does with its seat.
type Serve = Box<dyn FnOnce(Seat) -> BoxFuture<'static, ()>>;

fn admit(serve: Serve, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let mut table = shared.clients.table();
    if table.by_id.len() >= CLIENTS_MAX && !table.evict() {
        return;
    }
    table.next_id += 1;
    let id = table.next_id;
    let seat = Seat {
        id,
        shared: Arc::clone(shared),
    };
    // The task may end before it is entered here, but its seat needs the lock to leave.
    let task = tasks.spawn(serve(seat));
    let waiting_since = Some(clock::now());
    table.by_id.insert(
        id,
        Entry {
            waiting_since,
            task,
        },
    );
}

/// Table: the connections, and since when each has waited for a request.
#[derive(Default)]
struct Clients(Mutex<Table>);

#[derive(Default)]
struct Table {
    next_id: u64,
    by_id: HashMap<u64, Entry>,
}

struct Entry {
    /// `None` while it is answered.
    waiting_since: Option<Instant>,
    task: AbortHandle,
}

impl Clients {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes the connection that has waited longest; `false` when none waits.
    fn evict(&mut self) -> bool {
        let waiting = self.by_id.iter();
        let waiting = waiting.filter_map(|(id, entry)| Some((entry.waiting_since?, *id)));
        let Some(entry) = waiting.min().and_then(|(_, id)| self.by_id.remove(&id)) else {
            return false;
        };
        entry.task.abort();
        true
    }
}

/// A connection's place in the table, given up when its task ends, however it ends.
struct Seat {
    id: u64,
    shared: Arc<Shared>,
}

impl Seat {
    /// Notes that the connection waits for a request from now on, or is being answered.
    fn set_waiting(&self, since: Option<Instant>) {
        if let Some(entry) = self.shared.clients.table().by_id.get_mut(&self.id) {
            entry.waiting_since = since;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.clients.table().by_id.remove(&self.id);
    }
}
