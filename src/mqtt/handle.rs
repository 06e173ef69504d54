//! The broker's thread, as the rest of the daemon sees it.
//!
//! Sockets are bound by the caller, so that a port that is taken is its error; they are served on
//! the thread. A reload replaces users and rules and keeps the listeners that stay, with their
//! clients.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener as Socket};
use std::path::Path;
use std::rc::Rc;
use std::thread::{self, JoinHandle};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use super::Time;
use super::bridge::Leg;
use super::broker::Broker;
use super::driver::{Driver, tick_forever};
use super::leg::attach;
use super::listener::{Service, accept_forever};
use super::options::{ListenerOptions, Options};
use super::persistence::write_down_forever;
use super::remote::Remote;
use super::store::file::Log;
use super::transport::Transport;
use super::turn::{read_forever, write_forever};
use crate::platform::readiness::Readiness;

/// Commands that may wait: one a reload, one a controller's thread.
const COMMANDS_MAX: usize = 32;

/// Connections that wait in the kernel to be taken.
const BACKLOG: u32 = 1024;

/// The deepest the broker's calls nest is the walk of a topic.
const STACK_BYTES: usize = 256 * 1024;

/// A listener that is bound and not served yet.
pub(super) struct Bound {
    options: ListenerOptions,
    socket: Socket,
    transport: Transport,
}

/// What another thread asks for.
type Call = Box<dyn FnOnce(&mut Broker, Time) + Send>;

pub(super) enum Command {
    Follow(Box<Options>, Vec<Bound>),
    Call(Call),
    Attach(Box<Leg>),
    Stop,
}

/// The running broker. Dropping it stops it.
pub struct Handle {
    commands: mpsc::Sender<Command>,
    remote: Remote,
    listeners: Vec<ListenerOptions>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Binds the listeners and serves them; `remote` leads here from then on. What survives a restart is
    /// in `directory`.
    ///
    /// # Errors
    /// The address that cannot be bound, or what the kernel says of the thread.
    pub fn start(
        options: &Options,
        remote: &Remote,
        directory: &Path,
    ) -> Result<Self, (String, io::Error)> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .map_err(|error| ("mqtt".to_owned(), error))?;
        let mut handle = Self {
            commands,
            remote: remote.clone(),
            listeners: Vec::new(),
            thread: None,
        };
        handle.follow(options)?;
        let log = if options.persistence {
            Some(Log::open(directory).map_err(|error| (directory.display().to_string(), error))?)
        } else {
            None
        };
        let options = options.clone();
        let readiness = Readiness::new().map_err(|error| ("mqtt".to_owned(), error))?;
        let run = move || {
            let driver = Driver::new(Broker::new(&options), readiness);
            if let Some((log, frames)) = log {
                driver.keep(log, &frames, &options);
            }
            LocalSet::new().block_on(&runtime, run(driver, receiver));
        };
        let thread = thread::Builder::new()
            .name("mqtt".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(run)
            .map_err(|error| ("mqtt".to_owned(), error))?;
        handle.thread = Some(thread);
        remote.set(Some(handle.commands.clone()));
        Ok(handle)
    }

    /// Follows a new configuration; on failure the old one stays in force.
    ///
    /// # Errors
    /// The address that cannot be bound.
    pub fn follow(&mut self, options: &Options) -> Result<(), (String, io::Error)> {
        let mut fresh = Vec::new();
        for listener in &options.listeners {
            if self.listeners.contains(listener) {
                continue;
            }
            let address = listener.listen;
            let mut same = options
                .listeners
                .iter()
                .filter(|other| other.listen == address);
            if same.nth(1).is_some() && address.port() != 0 {
                return Err((address.to_string(), io::ErrorKind::AddrInUse.into()));
            }
            let bound = bind(address).map_err(|error| (address.to_string(), error))?;
            let transport =
                Transport::new(listener).map_err(|error| (listener.name.to_string(), error))?;
            fresh.push(Bound {
                options: listener.clone(),
                socket: bound,
                transport,
            });
        }
        let command = Command::Follow(Box::new(options.clone()), fresh);
        self.commands.try_send(command).map_err(|_| {
            let error = io::Error::from(io::ErrorKind::ResourceBusy);
            ("mqtt".to_owned(), error)
        })?;
        self.listeners.clone_from(&options.listeners);
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.remote.set(None);
        // Where the queue is full, its last sender's end does the same.
        let _gone = self.commands.try_send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _done = thread.join();
        }
    }
}

/// Beside the listener that it takes the place of, which is closed when this one is served.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

async fn run(driver: Rc<Driver>, mut commands: mpsc::Receiver<Command>) {
    // Boxed: the runtime's part of a task is then compiled once, not for each kind.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(read_forever(Rc::clone(&driver)).boxed_local());
    tasks.spawn_local(write_forever(Rc::clone(&driver)).boxed_local());
    tasks.spawn_local(tick_forever(Rc::clone(&driver)).boxed_local());
    tasks.spawn_local(write_down_forever(Rc::clone(&driver)).boxed_local());
    // The ends of bridges.
    let mut legs = JoinSet::new();
    let mut serving: Vec<(ListenerOptions, JoinSet<()>)> = Vec::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Stop => break,
            Command::Call(call) => driver.with(call),
            Command::Attach(leg) => {
                while legs.try_join_next().is_some() {}
                legs.spawn_local(attach(Rc::clone(&driver), *leg).boxed_local());
            }
            Command::Follow(options, fresh) => {
                driver.with(|broker, now| broker.reconfigure(now, &options));
                serving.retain(|(listener, _)| options.listeners.contains(listener));
                for bound in fresh {
                    serving.extend(serve(&driver, bound));
                }
            }
        }
    }
    driver.with(|broker, _| broker.shut_down());
    driver.write_all_down();
}

fn serve(driver: &Rc<Driver>, bound: Bound) -> Option<(ListenerOptions, JoinSet<()>)> {
    let listener = bound.options;
    match TcpListener::from_std(bound.socket) {
        Ok(socket) => {
            let number = driver.with(|broker, _| broker.open_listener(&listener));
            let service = Service {
                transport: bound.transport,
                connections_max: listener.connections_max,
                number,
                connections: Cell::new(0),
                connection_rate: listener.connection_rate,
            };
            let mut task = JoinSet::new();
            let accepting = accept_forever(Rc::clone(driver), socket, Rc::new(service));
            task.spawn_local(accepting.boxed_local());
            Some((listener, task))
        }
        Err(error) => {
            log::error!("mqtt: {}: {error}", listener.listen);
            None
        }
    }
}
