//! Resources: what actions of rules share, a server with its connections (emqx-api.md 4.10).
//!
//! A resource is made whether its server lives or not; its tasks try again by themselves, and end with
//! it. Its configuration is kept and shown as it was asked for, defaults filled in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::definition::{BadRule, Ids, fill_in};
use super::down::Down;
use super::feed::Feed;
use super::outside::Outside;
use super::resource_types::resource_type;
use super::webhook::{Hook, Target};
use super::{FORWARD_WAITING_MAX, FORWARD_WAITING_MAX_BYTES, RESOURCES_MAX};
use crate::metadata::{Endpoint, Host};
use crate::mqtt::client::{self, Event, Options, Outbox, Patience, Server};
use crate::mqtt::codec::Version;
use crate::mqtt::topic;
use crate::outbound::options::TlsOptions;
use crate::outbound::tls::TlsClient;
use crate::provider::url::Url;

/// A resource as it was asked for.
#[derive(Clone)]
pub struct ResourceDefinition {
    /// `resource:` and eight digits, or the creator's choice.
    pub id: Box<str>,
    /// Its type.
    pub kind: &'static str,
    /// Its parameters, defaults filled in. May hold a password.
    pub config: Map<String, Value>,
    /// Any text.
    pub description: Box<str>,
}

/// A resource as the API shows it.
pub struct ResourceReport {
    /// As it was asked for.
    pub definition: ResourceDefinition,
    /// Whether its server answers.
    pub alive: bool,
}

impl ResourceDefinition {
    /// Reads what a client asks for, or what was kept. `before`: the one that it changes.
    ///
    /// # Errors
    /// [`BadRule`].
    pub fn read(
        asked: &Map<String, Value>,
        before: Option<&Self>,
        ids: &mut dyn Ids,
    ) -> Result<Self, BadRule> {
        let wrong = |name: &str| BadRule::Wrong(name.into());
        let text = |name: &str| match asked.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(&**text)),
            Some(_) => Err(wrong(name)),
        };
        let kind = match before {
            Some(before) => before.kind,
            None => text("type")?.ok_or(BadRule::Missing("type"))?,
        };
        let found = resource_type(kind).ok_or_else(|| BadRule::ResourceType(kind.into()))?;
        let config = match (asked.get("config"), before) {
            (Some(Value::Object(config)), _) => config.clone(),
            (Some(_), _) => return Err(wrong("config")),
            (None, Some(before)) => before.config.clone(),
            (None, None) => Map::new(),
        };
        let description = text("description")?.or(before.map(|one| &*one.description));
        let definition = Self {
            id: match (before, text("id")?) {
                (Some(before), _) => before.id.clone(),
                (None, Some(id)) if !id.is_empty() && id.len() <= 256 => id.into(),
                (None, Some(_)) => return Err(wrong("id")),
                (None, None) => format!("resource:{:08x}", ids.digits()).into(),
            },
            kind: found.name,
            config: fill_in(found.params, config, "config")?,
            description: description.unwrap_or_default().into(),
        };
        // What can never work is refused now.
        definition.plan("node")?;
        Ok(definition)
    }

    /// As it is kept, and shown.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": *self.id,
            "type": self.kind,
            "config": self.config,
            "description": *self.description,
        })
    }

    fn text(&self, name: &str) -> &str {
        let value = self.config.get(name).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        match self.config.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.as_str(), "true" | "on"),
            _ => false,
        }
    }

    fn duration(&self, name: &'static str) -> Result<Duration, BadRule> {
        duration(self.text(name)).ok_or_else(|| BadRule::Wrong(format!("config.{name}").into()))
    }

    fn tls(&self, host: &str) -> Result<TlsClient, BadRule> {
        let name = self.text("server_name_indication");
        let options = TlsOptions {
            server_name: (!name.is_empty()).then(|| name.into()),
            skip_verify: !self.flag("verify"),
            ..TlsOptions::default()
        };
        TlsClient::new(&options, host)
            .map_err(|_| BadRule::Wrong("config.server_name_indication".into()))
    }

    /// The servers and how they are spoken to, as the configuration says.
    fn plan(&self, node: &str) -> Result<Plan, BadRule> {
        match self.kind {
            "web_hook" => self.web_hook().map(|target| Plan::Hook(Box::new(target))),
            _ => self
                .bridge(node)
                .map(|bridge| Plan::Bridge(Box::new(bridge))),
        }
    }

    fn web_hook(&self) -> Result<Target, BadRule> {
        let url = Url::parse(self.text("url")).ok_or(BadRule::Wrong("config.url".into()))?;
        let host = url.endpoint.host.to_string();
        super::forward::fields(self.config.get("headers"))
            .ok_or(BadRule::Wrong("config.headers".into()))?;
        Ok(Target {
            tls: url.tls.then(|| self.tls(&host)).transpose()?,
            url,
            connect_timeout: self.duration("connect_timeout")?,
            request_timeout: self.duration("request_timeout")?,
        })
    }

    fn bridge(&self, node: &str) -> Result<Bridge, BadRule> {
        let wrong = |name: &str| BadRule::Wrong(format!("config.{name}").into());
        let address = self.text("address");
        let endpoint = match Endpoint::parse(address) {
            Some(endpoint) => endpoint,
            None => Endpoint {
                host: Host::parse(address).ok_or(wrong("address"))?,
                port: if self.flag("ssl") { 8883 } else { 1883 },
            },
        };
        let mountpoint = self.text("mountpoint").replace("${node}", node);
        if !mountpoint.is_empty() && !topic::is_name(&mountpoint) {
            return Err(wrong("mountpoint"));
        }
        let mut client_id = self.text("clientid").replace("${node}", node);
        if self.flag("append") {
            // Unlike from run to run, so that two routers with one name do not throw each other out.
            client_id += &format!("_{}", self.id.trim_start_matches("resource:"));
        }
        let version = match self.text("proto_ver") {
            "mqttv3" => Version::V3,
            "mqttv5" => Version::V5,
            _ => Version::V4,
        };
        let some = |name| Some(self.text(name)).filter(|text| !text.is_empty());
        let keep_alive = self.duration("keepalive")?.as_secs();
        let patience = self.duration("retry_interval")?.as_millis();
        let options = Options {
            version,
            bridge: self.flag("bridge_mode"),
            keep_alive: u16::try_from(keep_alive).map_err(|_| wrong("keepalive"))?,
            username: some("username").map(Into::into),
            password: some("password").map(|password| password.as_bytes().into()),
            answer_time_max: u64::try_from(patience)
                .map_err(|_| wrong("retry_interval"))?
                .max(1000),
            ..Options::new(&client_id)
        };
        let host = endpoint.host.to_string();
        Ok(Bridge {
            tls: self.flag("ssl").then(|| self.tls(&host)).transpose()?,
            endpoint,
            options,
            last: self.duration("reconnect_interval")?,
            mountpoint: mountpoint.into(),
        })
    }
}

enum Plan {
    Hook(Box<Target>),
    Bridge(Box<Bridge>),
}

struct Bridge {
    endpoint: Endpoint,
    tls: Option<TlsClient>,
    options: Options,
    /// The longest wait between two tries.
    last: Duration,
    mountpoint: Box<str>,
}

/// `5s`, `1m`, `2h`, `500ms`; up to a day.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..)? {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let ms = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (ms <= 86_400_000).then(|| Duration::from_millis(ms))
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
    pub(super) fn start(
        definition: ResourceDefinition,
        outside: Option<&Arc<Outside>>,
        feed: &Arc<Feed>,
        down: Arc<Down>,
    ) -> Result<Self, BadRule> {
        let plan = definition.plan(feed.node())?;
        let Some(outside) = outside else {
            let (link, tasks) = (Link::Nowhere, Vec::new());
            return Ok(Self {
                definition,
                link,
                down,
                tasks,
            });
        };
        let (link, tasks) = match plan {
            Plan::Hook(target) => {
                let hook = Hook::new(*target, Arc::clone(&down));
                let serve = |_| {
                    let serving = Arc::clone(&hook).serve(Arc::clone(outside), Arc::clone(feed));
                    outside.runtime.spawn(serving)
                };
                let tasks = (0..POOL_MAX).map(serve).collect();
                (Link::Hook(hook), tasks)
            }
            Plan::Bridge(bridge) => {
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
                let alarm = Arc::clone(&down);
                let show = move |event: Event<'_>| match event {
                    Event::Connected { .. } => alarm.lower(),
                    Event::Closed(why) => alarm.raise(&why.to_string()),
                    _ => {}
                };
                let (options, waiting) = (bridge.options, Arc::clone(&outbox));
                let task = client::run(options, server, patience, waiting, Box::new(show));
                let tasks = vec![outside.runtime.spawn(task)];
                let mountpoint = bridge.mountpoint;
                (Link::Broker { outbox, mountpoint }, tasks)
            }
        };
        Ok(Self {
            definition,
            link,
            down,
            tasks,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        match &self.link {
            Link::Nowhere => false,
            Link::Hook(hook) => hook.is_alive(),
            Link::Broker { outbox, .. } => outbox.report().connected,
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
    pub(super) fn replace(
        &mut self,
        id: &str,
        start: impl FnOnce() -> Result<Resource, BadRule>,
    ) -> Result<(), BadRule> {
        if let Some(place) = self.0.iter().position(|one| *one.definition.id == *id) {
            drop(self.0.remove(place));
            self.0.insert(place, start()?);
        }
        Ok(())
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
    if let Plan::Hook(target) = definition.plan(feed.node())?
        && !outside.admits(&target.url.endpoint)
    {
        let place = &target.url.endpoint;
        let why = format!("{place} is not in rule-engine.webhook-allow");
        return Err(BadRule::Dead(why.into()));
    }
    let resource = Resource::start(definition, Some(outside), feed, Down::mute())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Ids for Fixed {
        fn digits(&mut self) -> u32 {
            0xb12d_3e44
        }

        fn stamp(&mut self) -> u64 {
            1
        }

        fn resource_kind(&self, _: &str) -> Option<&'static str> {
            None
        }
    }

    fn read(asked: &Value) -> Result<ResourceDefinition, String> {
        let asked = asked.as_object().unwrap();
        ResourceDefinition::read(asked, None, &mut Fixed).map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_documents_web_hook_is_taken_as_it_is() {
        let asked = json!({
            "type": "web_hook",
            "config": {
                "url": "http://127.0.0.1:9910",
                "headers": {"token": "axfw34y235wrq234t4ersgw4t"},
                "method": "POST"
            },
            "description": "web hook resource-1"
        });
        let made = read(&asked).unwrap().to_json();
        assert_eq!(made["id"], "resource:b12d3e44");
        assert_eq!(made["config"]["url"], "http://127.0.0.1:9910");
        assert_eq!(made["config"]["request_timeout"], "5s");
    }

    #[test]
    fn what_can_never_work_is_refused() {
        for (asked, why) in [
            (json!({}), "type is missing"),
            (json!({"type": "mysql"}), "Resource Type mysql Not Found"),
            (json!({"type": "web_hook"}), "url is missing"),
            (
                json!({"type": "web_hook", "config": {"url": "ftp://a"}}),
                "config.url is not as it must be",
            ),
            (
                json!({"type": "web_hook", "config": {"url": "http://a", "request_timeout": "5 s"}}),
                "config.request_timeout is not as it must be",
            ),
            (
                json!({"type": "web_hook", "config": {"url": "http://a", "headers": {"x": "a\r\nb"}}}),
                "config.headers is not as it must be",
            ),
            (
                json!({"type": "web_hook", "config": {"url": "http://a", "method": "PATCH"}}),
                "config.method is not as it must be",
            ),
            (
                json!({"type": "bridge_mqtt", "config": {"mountpoint": "a/#"}}),
                "config.mountpoint is not as it must be",
            ),
            (
                json!({"type": "bridge_mqtt", "config": {"address": "a b"}}),
                "config.address is not as it must be",
            ),
        ] {
            let got = read(&asked).map(|_| ()).unwrap_err();
            assert_eq!(got, why, "{asked}");
        }
    }

    #[test]
    fn durations_are_those_of_emqx() {
        for (text, ms) in [
            ("500ms", 500),
            ("5s", 5000),
            ("1m", 60_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)));
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "100000h",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
