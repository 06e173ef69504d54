//! What SQL rules do to the router: taken over from the broker's thread, done one after the other.
//!
//! At most [`WAITING_MAX`] wait; further ones fail at once, and the rule counts that.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::control::Door;
use super::observe::observe;
use super::state_topics::publish_forever;
use crate::controllers::{Cause, Control, Patch};
use crate::platform::blocking::blocking;
use crate::platform::neighbours::Neighbours;
use crate::platform::{clock, wake_on_lan};
use crate::rule_engine::options::StateOptions;
use crate::rule_engine::{Act, Router};
use crate::tunnel::blocked::Device;
use crate::tunnel::connections::Connection;

/// Acts that may wait.
const WAITING_MAX: usize = 32;

/// The task that does them. Dropping it ends it.
pub struct Acts {
    devices: Option<Arc<Neighbours>>,
    state: (Option<StateOptions>, JoinSet<()>),
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
    pub fn start(door: &Arc<Door>, devices: Option<Arc<Neighbours>>) -> Self {
        let (sender, receiver) = channel(WAITING_MAX);
        let mut task = JoinSet::new();
        task.spawn(follow(Arc::clone(door), receiver).boxed());
        task.spawn(observe(Arc::clone(door), devices.clone()).boxed());
        Self {
            devices,
            state: (None, JoinSet::new()),
            sender,
            _task: task,
        }
    }

    /// Publishes the router's state as `options` say from now on.
    pub fn publish(&mut self, door: &Arc<Door>, options: Option<StateOptions>) {
        let (before, task) = &mut self.state;
        if *before == options {
            return;
        }
        *before = options;
        task.abort_all();
        if let Some(options) = options {
            let publishing = publish_forever(Arc::clone(door), self.devices.clone(), options);
            task.spawn(publishing.boxed());
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
        let done = blocking(move || {
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
    Mac(String),
    Io(io::Error),
    Refused(Cause),
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "there is no group {name:?}"),
            Self::Member(name) => write!(f, "{name:?} cannot be chosen"),
            Self::Mode(name) => write!(f, "there is no mode {name:?}"),
            Self::Address(text) => write!(f, "{text:?} is no address"),
            Self::Mac(text) => write!(f, "{text:?} is no Ethernet address"),
            Self::Io(error) => error.fmt(f),
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
        Act::BlockDevice { device, duration } => {
            let found = device.parse();
            let found = found.map_err(|()| NotDone::Address(device))?;
            block(door, found, duration);
            Ok(())
        }
        Act::WakeOnLan(text) => {
            let mac = text.parse();
            let mac = mac.map_err(|_| NotDone::Mac(text))?;
            wake_on_lan::wake(mac).map(drop).map_err(NotDone::Io)
        }
        Act::RunHealthcheck(name) => {
            let routing = door.tunnel.routing();
            let Some(group) = routing.outbounds.group(&name).map(Arc::clone) else {
                return Err(NotDone::Group(name));
            };
            let unified = door.general().unified_delay;
            let testing = async move { group.test(unified).await };
            door.runtime.spawn(testing.boxed());
            Ok(())
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

/// Refuses the device's new flows, closes those that it has, and has the kernel drop what it would take
/// past us; and brings the kernel up to date when the time is over.
fn block(door: &Door, named: Device, duration: Duration) {
    let now = clock::now();
    // By its Ethernet address where that is known: it keeps it when it takes another address.
    let device = match named {
        Device::Address(ip) => door.tunnel.devices().mac_of(ip).map_or(named, Device::Mac),
        Device::Mac(_) => named,
    };
    let blocked = door.tunnel.blocked();
    if device != named {
        blocked.block(named, now, now);
    }
    blocked.block(device, now + duration, now);
    for connection in door.tunnel.connections().snapshot() {
        let source = connection.metadata.source.ip();
        let known = connection.metadata.source_mac;
        let mac = known.or_else(|| door.tunnel.devices().mac_of(source));
        if blocked.covers(source, mac, clock::now) {
            connection.close();
        }
    }
    let providers = Arc::clone(&door.providers);
    providers.tell_changed();
    if !duration.is_zero() {
        let freeing = async move {
            tokio::time::sleep(duration).await;
            providers.tell_changed();
        };
        door.runtime.spawn(freeing.boxed());
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
