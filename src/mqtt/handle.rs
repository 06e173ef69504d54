//! The broker's thread, as the rest of the daemon sees it.
//!
//! Sockets are bound by the caller, so that a port that is taken is its error; they are served on
//! the thread. A reload replaces users and rules and keeps the listeners that stay, with their
//! clients.

use std::io;
use std::net::TcpListener as Socket;
use std::rc::Rc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use super::acl::Acl;
use super::auth::Users;
use super::broker::Broker;
use super::listener::{Driver, accept_forever, tick_forever, write_forever};
use super::options::{ListenerOptions, Options};
use super::transport::Transport;

/// Commands that may wait; there is one a reload.
const COMMANDS_MAX: usize = 8;

/// The deepest the broker's calls nest is the walk of a topic.
const STACK_BYTES: usize = 256 * 1024;

/// A listener that is bound and not served yet.
struct Bound {
    options: ListenerOptions,
    socket: Socket,
    transport: Transport,
}

enum Command {
    Follow(Box<Options>, Vec<Bound>),
    Stop,
}

/// The running broker. Dropping it stops it.
pub struct Handle {
    commands: mpsc::Sender<Command>,
    listeners: Vec<ListenerOptions>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Binds the listeners and serves them.
    ///
    /// # Errors
    /// The address that cannot be bound, or what the kernel says of the thread.
    pub fn start(options: &Options) -> Result<Self, (String, io::Error)> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .map_err(|error| ("mqtt".to_owned(), error))?;
        let mut handle = Self {
            commands,
            listeners: Vec::new(),
            thread: None,
        };
        handle.follow(options)?;
        let options = options.clone();
        let run = move || {
            let broker = Broker::new(options.limits, acl(&options));
            let driver = Driver::new(broker, Users::new(&options));
            LocalSet::new().block_on(&runtime, run(driver, receiver));
        };
        let thread = thread::Builder::new()
            .name("mqtt".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(run)
            .map_err(|error| ("mqtt".to_owned(), error))?;
        handle.thread = Some(thread);
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
            let bound = Socket::bind(listener.listen)
                .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
                .map_err(|error| (listener.listen.to_string(), error))?;
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
        let _gone = self.commands.try_send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _done = thread.join();
        }
    }
}

fn acl(options: &Options) -> Acl {
    Acl {
        rules: options.acl.clone(),
        default: options.acl_default,
    }
}

async fn run(driver: Rc<Driver>, mut commands: mpsc::Receiver<Command>) {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(write_forever(Rc::clone(&driver)));
    tasks.spawn_local(tick_forever(Rc::clone(&driver)));
    let mut serving: Vec<(ListenerOptions, JoinSet<()>)> = Vec::new();
    while let Some(Command::Follow(options, fresh)) = commands.recv().await {
        driver.set_users(Users::new(&options));
        driver.with(|broker, _| broker.reconfigure(options.limits, acl(&options)));
        serving.retain(|(listener, _)| options.listeners.contains(listener));
        for bound in fresh {
            let listener = bound.options;
            let mut task = JoinSet::new();
            match TcpListener::from_std(bound.socket) {
                Ok(socket) => {
                    let max = listener.connections_max;
                    let transport = Rc::new(bound.transport);
                    task.spawn_local(accept_forever(Rc::clone(&driver), socket, transport, max));
                    serving.push((listener, task));
                }
                Err(error) => log::error!("mqtt: {}: {error}", listener.listen),
            }
        }
    }
    driver.with(|broker, _| broker.shut_down());
}
