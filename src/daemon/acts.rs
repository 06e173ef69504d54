//! What SQL rules do to the router: taken over from the broker's thread, done one after the other.
//!
//! At most [`WAITING_MAX`] wait; further ones fail at once, and the rule counts that.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::control::Door;
use crate::controllers::{Cause, Control, Patch};
use crate::rule_engine::{Act, Router};
use crate::tunnel::connections::Connection;

/// Acts that may wait.
const WAITING_MAX: usize = 32;

/// The task that does them. Dropping it ends it.
pub struct Acts {
    sender: Sender<Act>,
    _task: JoinSet<()>,
}

struct Queue(Sender<Act>);

impl Router for Queue {
    fn act(&self, act: Act) -> bool {
        self.0.try_send(act).is_ok()
    }
}

impl Acts {
    /// Starts the task; must be called on the runtime.
    pub fn start(door: &Arc<Door>) -> Self {
        let (sender, receiver) = channel(WAITING_MAX);
        let mut task = JoinSet::new();
        task.spawn(follow(Arc::clone(door), receiver));
        Self {
            sender,
            _task: task,
        }
    }

    /// Where rules hand acts over.
    pub fn router(&self) -> Arc<dyn Router> {
        Arc::new(Queue(self.sender.clone()))
    }
}

async fn follow(door: Arc<Door>, mut receiver: Receiver<Act>) {
    while let Some(act) = receiver.recv().await {
        let door = Arc::clone(&door);
        // Choices are written to a file, and modes are waited for.
        let done = tokio::task::spawn_blocking(move || {
            log::info!("rule: {act:?}");
            if let Err(why) = perform(&door, act) {
                log::warn!("rule: {why}");
            }
        });
        if done.await.is_err() {
            return;
        }
    }
}

/// Why an act was not done.
enum NotDone {
    Group(String),
    Member(String),
    Mode(String),
    Address(String),
    Refused(Cause),
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "there is no group {name:?}"),
            Self::Member(name) => write!(f, "{name:?} cannot be chosen"),
            Self::Mode(name) => write!(f, "there is no mode {name:?}"),
            Self::Address(text) => write!(f, "{text:?} is no address"),
            Self::Refused(cause) => cause.fmt(f),
        }
    }
}

/// Does it.
fn perform(door: &Door, act: Act) -> Result<(), NotDone> {
    match act {
        Act::SelectProxy { group, proxy } => {
            let routing = door.tunnel.routing();
            let Some(found) = routing.outbounds.get(&group) else {
                return Err(NotDone::Group(group));
            };
            match door.select(found, &proxy) {
                true => Ok(()),
                false => Err(NotDone::Member(proxy)),
            }
        }
        Act::SetMode(name) => {
            let Ok(mode) = name.parse() else {
                return Err(NotDone::Mode(name));
            };
            let patch = Patch {
                mode: Some(mode),
                ..Patch::default()
            };
            door.patch(patch).map_err(NotDone::Refused)
        }
        Act::CloseConnections { device, host } => {
            let address: Option<IpAddr> = match device.as_str() {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|_| NotDone::Address(text.to_owned()))?,
                ),
            };
            for connection in door.tunnel.connections().snapshot() {
                if concerns(&connection, address, &host) {
                    connection.close();
                }
            }
            Ok(())
        }
    }
}

/// Whether a connection is of `device` and to `host`, as far as they are named.
fn concerns(connection: &Connection, device: Option<IpAddr>, host: &str) -> bool {
    let metadata = &connection.metadata;
    let source = metadata.source.ip().to_canonical();
    let is_destination = || {
        let mut names = [&metadata.host, &metadata.sniffed_host]
            .into_iter()
            .flatten();
        let address = connection.remote.get().copied().or(metadata.destination_ip);
        names.any(|name| name.eq_ignore_ascii_case(host))
            || host.parse().is_ok_and(|host: IpAddr| address == Some(host))
    };
    device.is_none_or(|device| device.to_canonical() == source)
        && (host.is_empty() || is_destination())
}
