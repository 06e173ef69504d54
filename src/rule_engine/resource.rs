//! Resources: what actions of rules share, a server with its connections (emqx-api.md 4.10).
//!
//! A resource is made whether its server lives or not; its tasks try again by themselves, and end with
//! it. Its configuration is kept and shown as it was asked for, defaults filled in.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::definition::{BadRule, Ids};
use super::down::Down;
use super::feed::Feed;
use super::outside::Outside;
use super::resource_definition::{Plan, ResourceDefinition};
use super::webhook::Hook;
use super::{FORWARD_WAITING_MAX, FORWARD_WAITING_MAX_BYTES, RESOURCES_MAX};
use crate::mqtt::client::{self, Event, Outbox, Patience, Server};

/// A resource as the API shows it.
pub struct ResourceReport {
    /// As it was asked for.
    pub definition: ResourceDefinition,
    /// Whether its server answers.
    pub alive: bool,
}

/// A running resource.
pub(super) enum Link {
    /// There is no world to reach.
    Nowhere,
    Hook(Arc<Hook>),
    Broker {
        outbox: Arc<Outbox>,
        mountpoint: Box<str>,
    },
}

pub(super) struct Resource {
    pub definition: ResourceDefinition,
    pub link: Link,
    down: Arc<Down>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.down.end();
        match &self.link {
            // It says good-bye by itself.
            Link::Broker { outbox, .. } => outbox.end(),
            _ => self.tasks.iter().for_each(JoinHandle::abort),
        }
    }
}

/// Connections that a web hook may have at a time, whatever its `pool_size` asks for.
const POOL_MAX: usize = 2;

/// After the first failure of a connection to a broker.
const RECONNECT_FIRST: Duration = Duration::from_secs(1);

impl Resource {
    /// Starts it, as its plan says. One whose files are gone is down until it is started anew.
    pub(super) fn start(
        definition: ResourceDefinition,
        plan: Result<Plan, BadRule>,
        outside: Option<&Arc<Outside>>,
        feed: &Arc<Feed>,
        down: Arc<Down>,
    ) -> Self {
        let nowhere = (Link::Nowhere, Vec::new());
        let (link, tasks) = match outside {
            None => nowhere,
            Some(outside) => match plan {
                Ok(plan) => plan.start(outside, feed, &down),
                Err(why) => {
                    log::error!("{}: {why}", definition.id);
                    down.raise(&why.to_string());
                    nowhere
                }
            },
        };
        Self {
            definition,
            link,
            down,
            tasks,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        match &self.link {
            Link::Nowhere => false,
            Link::Hook(hook) => hook.is_alive(),
            Link::Broker { outbox, .. } => outbox.report().connected,
        }
    }
}

impl Plan {
    /// Starts the tasks.
    fn start(
        self,
        outside: &Arc<Outside>,
        feed: &Arc<Feed>,
        down: &Arc<Down>,
    ) -> (Link, Vec<JoinHandle<()>>) {
        match self {
            Self::Hook(target) => {
                let hook = Hook::new(*target, Arc::clone(down));
                let serve = |_| {
                    let serving = Arc::clone(&hook).serve(Arc::clone(outside), Arc::clone(feed));
                    outside.runtime.spawn(serving.boxed())
                };
                let tasks = (0..POOL_MAX).map(serve).collect();
                (Link::Hook(hook), tasks)
            }
            Self::Bridge(bridge) => {
                let outbox = Outbox::new(FORWARD_WAITING_MAX, FORWARD_WAITING_MAX_BYTES);
                let server = Server {
                    endpoint: bridge.endpoint,
                    tls: bridge.tls,
                    proxy: None,
                    way: Arc::clone(&outside.way),
                };
                let patience = Patience {
                    first: RECONNECT_FIRST.min(bridge.last),
                    last: bridge.last,
                };
                let alarm = Arc::clone(down);
                let show = move |event: Event<'_>| match event {
                    Event::Connected { .. } => alarm.lower(),
                    Event::Closed(why) => alarm.raise(&why.to_string()),
                    _ => {}
                };
                let (options, waiting) = (bridge.options, Arc::clone(&outbox));
                let task = client::run(options, server, patience, waiting, Box::new(show));
                let tasks = vec![outside.runtime.spawn(task.boxed())];
                let mountpoint = bridge.mountpoint;
                (Link::Broker { outbox, mountpoint }, tasks)
            }
        }
    }
}

/// The resources, on the broker's thread.
#[derive(Default)]
pub(super) struct Resources(Vec<Resource>);

impl Resources {
    pub(super) fn find(&self, id: &str) -> Option<&Resource> {
        self.0.iter().find(|one| *one.definition.id == *id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Resource> {
        self.0.iter()
    }

    pub(super) fn add(&mut self, resource: Resource) -> Result<(), BadRule> {
        if self.0.len() >= RESOURCES_MAX {
            return Err(BadRule::TooMany);
        }
        if self.find(&resource.definition.id).is_some() {
            return Err(BadRule::Exists);
        }
        self.0.push(resource);
        Ok(())
    }

    /// Puts another in the place of the one with this id, which ends before the other is started.
    pub(super) fn replace(&mut self, id: &str, start: impl FnOnce() -> Resource) {
        if let Some(place) = self.0.iter().position(|one| *one.definition.id == *id) {
            drop(self.0.remove(place));
            self.0.insert(place, start());
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.0.retain(|one| *one.definition.id != *id);
    }
}

/// A trial has an id that no resource has.
struct Trial;

impl Ids for Trial {
    fn resource_kind(&self, _: &str) -> Option<&'static str> {
        None
    }

    fn digits(&mut self) -> u32 {
        0
    }

    fn stamp(&mut self) -> u64 {
        0
    }
}

/// How long a trial may take.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// Tries a resource without keeping it: whether its server lives. Blocks, on a thread of its own.
///
/// # Errors
/// [`BadRule`], or [`BadRule::Dead`] with what is known of why.
pub fn try_resource(
    asked: &Map<String, Value>,
    outside: &Arc<Outside>,
    feed: &Arc<Feed>,
) -> Result<(), BadRule> {
    let definition = ResourceDefinition::read(asked, None, &mut Trial)?;
    let plan = definition.plan(feed.node(), &|name| outside.file(name).ok())?;
    if let Plan::Hook(target) = &plan
        && !outside.admits(&target.url.endpoint)
    {
        let place = &target.url.endpoint;
        let why = format!("{place} is not in rule-engine.webhook-allow");
        return Err(BadRule::Dead(why.into()));
    }
    let resource = Resource::start(definition, Ok(plan), Some(outside), feed, Down::mute());
    let step = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    while waited < TRIAL_TIME_MAX {
        if resource.is_alive() {
            return Ok(());
        }
        std::thread::sleep(step);
        waited += step;
    }
    let why = match &resource.link {
        Link::Broker { outbox, .. } => outbox.report().error,
        _ => None,
    };
    Err(BadRule::Dead(why.unwrap_or_else(|| "no connection".into())))
}
