//! What rules do with their rows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map as Json, Value as JsonValue};

use super::definition::{ActionDefinition, BadRule};
use super::forward::{Forward, WebServer};
use super::resource_definition::duration;
use super::rule::Around;
use super::{Act, BLOCK_MAX, RENDERED_MAX_BYTES};
use crate::mqtt::codec::{PropertyWriter, Qos};
use crate::mqtt::hook::Publication;
use crate::mqtt::topic;
use crate::sql::{Map, Template, Value, write_json};

use super::counters::Bucket;

/// Bytes of a topic or a name that a template may make.
pub(super) const NAME_MAX_BYTES: usize = 1024;

/// An action of a rule, ready to be done.
pub struct Action {
    /// Unique; also who publishes what it republishes.
    pub id: Box<str>,
    kind: Kind,
    /// Done when it fails.
    pub(super) fallbacks: Vec<Self>,
    /// How often it was tried.
    pub(super) taken: u64,
    /// How often it was done.
    pub(super) success: u64,
    /// How often not.
    pub(super) failed: u64,
}

enum Kind {
    Inspect,
    DoNothing,
    Republish(Republish),
    CloseConnections {
        device: Template,
        host: Template,
    },
    SelectProxy {
        group: Template,
        proxy: Template,
    },
    SetMode(Template),
    BlockDevice {
        device: Template,
        duration: Template,
    },
    WakeOnLan(Template),
    RunHealthcheck(Template),
    WebServer(WebServer),
    Forward(Forward),
}

struct Republish {
    topic: Template,
    payload: Template,
    /// `None`: as the event.
    qos: Option<Choice>,
    retain: Choice,
}

/// A number that is known, or a place in the row.
enum Choice {
    Known(u8),
    Place(Template),
}

/// What an action may use beside its row.
pub(super) struct Doing<'a> {
    pub around: &'a Around<'a>,
    pub publishing: &'a mut Bucket,
    pub acting: &'a mut Bucket,
    pub out: &'a mut Vec<Publication>,
    /// Set when a bucket was empty.
    pub cut: &'a mut bool,
}

/// Makes an action of what was asked for.
///
/// # Errors
/// Parameters that it cannot have.
pub(super) fn build(definition: &ActionDefinition) -> Result<Action, BadRule> {
    let params = &definition.params;
    let template = |name: &str| {
        let text = params.get(name).and_then(JsonValue::as_str);
        Template::new(text.unwrap_or_default())
    };
    let kind = match definition.name {
        "inspect" => Kind::Inspect,
        "republish" => Kind::Republish(republish(params)?),
        "close_connections" => Kind::CloseConnections {
            device: template("device"),
            host: template("host"),
        },
        "select_proxy" => Kind::SelectProxy {
            group: template("group"),
            proxy: template("proxy"),
        },
        "set_mode" => Kind::SetMode(template("mode")),
        "block_device" => Kind::BlockDevice {
            device: template("device"),
            duration: template("duration"),
        },
        "wake_on_lan" => Kind::WakeOnLan(template("mac")),
        "run_healthcheck" => Kind::RunHealthcheck(template("group")),
        "data_to_webserver" => Kind::WebServer(WebServer::new(params)?),
        "data_to_mqtt_broker" => Kind::Forward(Forward::new(params)),
        _ => Kind::DoNothing,
    };
    let fallbacks = definition.fallbacks.iter().map(build);
    Ok(Action {
        id: definition.id.clone(),
        kind,
        fallbacks: fallbacks.collect::<Result<_, _>>()?,
        taken: 0,
        success: 0,
        failed: 0,
    })
}

fn republish(params: &Json<String, JsonValue>) -> Result<Republish, BadRule> {
    let wrong = |name: &str| BadRule::Wrong(format!("params.{name}").into());
    let text = |name: &str| {
        params
            .get(name)
            .and_then(JsonValue::as_str)
            .unwrap_or_default()
    };
    let target = text("target_topic");
    // A wildcard outside of places can never be published to.
    let fixed: String = without_places(target);
    if target.is_empty() || fixed.contains(['+', '#']) {
        return Err(wrong("target_topic"));
    }
    Ok(Republish {
        topic: Template::new(target),
        payload: Template::new(text("payload_tmpl")),
        qos: match params.get("target_qos").and_then(number) {
            Some(-1) => None,
            _ => Some(choice(params.get("target_qos"), 2).ok_or(wrong("target_qos"))?),
        },
        retain: choice(params.get("target_retain"), 1).ok_or(wrong("target_retain"))?,
    })
}

fn without_places(template: &str) -> String {
    let mut parts = template.split("${");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('}').map_or(part, |(_, after)| after)
    })
}

fn number(value: &JsonValue) -> Option<i64> {
    let text = || value.as_str().and_then(|text| text.parse().ok());
    let flag = || value.as_bool().map(i64::from);
    value.as_i64().or_else(text).or_else(flag)
}

/// A number up to `max`, as number, text or boolean, or a template of one place.
fn choice(value: Option<&JsonValue>, max: u8) -> Option<Choice> {
    let value = value?;
    if let Some(number) = number(value) {
        let number = u8::try_from(number).ok().filter(|number| *number <= max);
        return number.map(Choice::Known);
    }
    match value.as_str()? {
        "true" if max == 1 => Some(Choice::Known(1)),
        "false" if max == 1 => Some(Choice::Known(0)),
        text => text
            .starts_with("${")
            .then(|| Choice::Place(Template::new(text))),
    }
}

impl Choice {
    fn of(&self, row: &Map<'_>) -> Option<u8> {
        match self {
            Self::Known(number) => Some(*number),
            Self::Place(template) => match template.value(row)? {
                Value::Int(number) => u8::try_from(number).ok(),
                Value::Bool(flag) => Some(flag.into()),
                Value::Text(text) => str::from_utf8(text.bytes()).ok()?.parse().ok(),
                _ => None,
            },
        }
    }
}

impl Action {
    /// How often it was done, and how often not.
    pub(super) fn ended(&self) -> (u64, u64) {
        match &self.kind {
            Kind::WebServer(server) => {
                let tally = &server.tally;
                (tally.success.get(), self.failed + tally.failed.get())
            }
            _ => (self.success, self.failed),
        }
    }

    /// Takes counters over from the action that this one follows.
    pub(super) fn inherit(&mut self, before: &Self) {
        (self.taken, self.success, self.failed) = (before.taken, before.success, before.failed);
        if let (Kind::WebServer(now), Kind::WebServer(before)) = (&mut self.kind, &before.kind) {
            now.tally = Arc::clone(&before.tally);
        }
    }

    /// Sets its counters and those of its fallbacks to zero.
    pub(super) fn reset(&mut self) {
        (self.taken, self.success, self.failed) = (0, 0, 0);
        if let Kind::WebServer(server) = &mut self.kind {
            server.tally = Arc::default();
        }
        self.fallbacks.iter_mut().for_each(Self::reset);
    }

    /// The action of an id, among this one and its fallbacks.
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Self> {
        if *self.id == *id {
            return Some(self);
        }
        self.fallbacks.iter_mut().find_map(|one| one.find(id))
    }

    /// Does it, or its fallbacks; whether it was done itself.
    pub(super) fn perform(&mut self, row: &Map<'_>, doing: &mut Doing<'_>) -> bool {
        self.taken += 1;
        let done = self.try_it(row, doing).is_some();
        if done {
            // A request is counted when it is answered.
            self.success += u64::from(!matches!(self.kind, Kind::WebServer(_)));
        } else {
            self.failed += 1;
            for fallback in &mut self.fallbacks {
                fallback.perform(row, doing);
            }
        }
        done
    }

    fn try_it(&self, row: &Map<'_>, doing: &mut Doing<'_>) -> Option<()> {
        let act = match &self.kind {
            Kind::DoNothing => return Some(()),
            Kind::Inspect => {
                let mut text = Vec::new();
                write_json(&Value::map(row.clone()), &mut text);
                text.truncate(INSPECTED_MAX_BYTES);
                log::info!("{}: {}", self.id, String::from_utf8_lossy(&text));
                return Some(());
            }
            Kind::Republish(republish) => return self.republish(republish, row, doing),
            Kind::WebServer(server) => {
                return server.hand_over(row, doing, &self.id, !self.fallbacks.is_empty());
            }
            Kind::Forward(forward) => return forward.hand_over(row, doing),
            Kind::CloseConnections { device, host } => Act::CloseConnections {
                device: optional(device, row)?,
                host: optional(host, row)?,
            },
            Kind::SelectProxy { group, proxy } => Act::SelectProxy {
                group: name(group, row)?,
                proxy: name(proxy, row)?,
            },
            Kind::SetMode(mode) => Act::SetMode(name(mode, row)?),
            Kind::BlockDevice { device, duration } => Act::BlockDevice {
                device: name(device, row)?,
                duration: block_time(&name(duration, row)?)?,
            },
            Kind::WakeOnLan(mac) => Act::WakeOnLan(name(mac, row)?),
            Kind::RunHealthcheck(group) => Act::RunHealthcheck(name(group, row)?),
        };
        // Nothing named would mean every connection.
        if matches!(&act, Act::CloseConnections { device, host } if device.is_empty() && host.is_empty())
        {
            return None;
        }
        if !doing.acting.take(doing.around.now) {
            *doing.cut = true;
            return None;
        }
        doing.around.router.act(act).then_some(())
    }

    fn republish(&self, republish: &Republish, row: &Map<'_>, doing: &mut Doing<'_>) -> Option<()> {
        // What this very action published does not go round.
        if *doing.around.publisher == *self.id {
            return None;
        }
        let topic = String::from_utf8(republish.topic.render(row, NAME_MAX_BYTES).ok()?).ok()?;
        if !topic::is_name(&topic) {
            return None;
        }
        let qos = match &republish.qos {
            None => doing.around.qos,
            Some(choice) => Qos::from_bits(choice.of(row)?)?,
        };
        let retain = republish.retain.of(row)? == 1;
        let room = doing.around.packet_max.min(RENDERED_MAX_BYTES);
        let payload = republish.payload.render(row, room).ok()?;
        if !doing.publishing.take(doing.around.now) {
            *doing.cut = true;
            return None;
        }
        doing.out.push(Publication {
            topic: topic.into(),
            payload: payload.into(),
            properties: PropertyWriter::default(),
            qos,
            retain,
            client_id: self.id.clone(),
        });
        Some(())
    }
}

/// `30m`, `2h`, or seconds without a unit.
fn block_time(text: &str) -> Option<Duration> {
    let seconds = || text.parse().ok().map(Duration::from_secs);
    duration(text)
        .or_else(seconds)
        .filter(|time| *time <= BLOCK_MAX)
}

/// Bytes of an inspected row in the log.
const INSPECTED_MAX_BYTES: usize = 2048;

/// A name that must be there.
fn name(template: &Template, row: &Map<'_>) -> Option<String> {
    let bytes = template.render(row, NAME_MAX_BYTES).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && text != "undefined").then_some(text)
}

/// A name, or none where none is asked for. An empty template is nothing here, not the whole row.
fn optional(template: &Template, row: &Map<'_>) -> Option<String> {
    if template.is_empty() {
        return Some(String::new());
    }
    name(template, row)
}
