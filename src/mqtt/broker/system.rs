//! What the broker says of itself: `$SYS/…`, EMQX's topics and those of mosquitto that dashboards
//! read (emqx-api.md 5.5, mosquitto(8) "broker status").
//!
//! Nothing is made while nobody subscribes beneath `$SYS`. Who subscribes gets the values at once, as
//! if they were retained, and new ones every [`EVERY`]; comings, goings and alarms as they happen. No
//! rule and no hook sees them.

use std::rc::Rc;

use serde_json::{Value, json};

use super::Broker;
use crate::calendar::local_datetime;
use crate::mqtt::alarms::{Alarm, Alarms};
use crate::mqtt::codec::{Properties, Qos};
use crate::mqtt::message::Message;
use crate::mqtt::metrics::Metrics;
use crate::mqtt::session::{Delivery, Session, Watch};
use crate::mqtt::topic::tree::SessionId;
use crate::mqtt::topic::{self, matches};
use crate::mqtt::{EMQX_VERSION, NEVER, START, Time};

/// How often values are said anew: mosquitto's `sys_interval`.
const EVERY: Time = 10_000;

/// The first level.
const SYSTEM: &str = "$SYS";

/// Counters whose rate is told, under mosquitto's names, and where they come from.
const LOADS: [(&str, &str); 8] = [
    ("messages/received", "packets.received"),
    ("messages/sent", "packets.sent"),
    ("publish/received", "messages.received"),
    ("publish/sent", "messages.sent"),
    ("publish/dropped", "delivery.dropped"),
    ("bytes/received", "bytes.received"),
    ("bytes/sent", "bytes.sent"),
    ("connections", "client.connected"),
];

/// Rates are averages over about so many minutes.
const MINUTES: [u32; 3] = [1, 5, 15];

/// Totals under mosquitto's names.
const TOTALS: [(&str, &str); 7] = [
    ("messages/received", "packets.received"),
    ("messages/sent", "packets.sent"),
    ("publish/messages/received", "messages.received"),
    ("publish/messages/sent", "messages.sent"),
    ("publish/messages/dropped", "delivery.dropped"),
    ("bytes/received", "bytes.received"),
    ("bytes/sent", "bytes.sent"),
];

/// A counter's rate, per minute.
#[derive(Clone, Copy, Default)]
struct Load {
    count: u64,
    averages: [f64; 3],
}

/// When to speak next, and what rates need.
pub(super) struct System {
    pub due: Time,
    at: Time,
    loads: Vec<Load>,
}

impl Default for System {
    fn default() -> Self {
        Self {
            due: NEVER,
            at: START,
            loads: Vec::new(),
        }
    }
}

impl System {
    /// Takes the counters of now into the averages. What lies between two looks counts as even.
    fn look(&mut self, now: Time, metrics: &Metrics) {
        let minutes = small(now.saturating_sub(self.at)) / 60_000.0;
        if self.loads.is_empty() {
            self.loads = vec![Load::default(); LOADS.len()];
        }
        if minutes <= 0.0 {
            return;
        }
        self.at = now;
        for (load, (_, name)) in self.loads.iter_mut().zip(LOADS) {
            let count = count(metrics, name);
            let rate = small(count.saturating_sub(load.count)) / minutes;
            load.count = count;
            for (average, over) in load.averages.iter_mut().zip(MINUTES) {
                let kept = (-minutes / f64::from(over)).exp();
                *average = *average * kept + rate * (1.0 - kept);
            }
        }
    }
}

/// A number that is small enough to be exact, or near enough.
fn small(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Whether a filter is beneath `$SYS`.
fn is_system(filter: &str) -> bool {
    let beneath = filter.strip_prefix(SYSTEM);
    beneath.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn count(metrics: &Metrics, name: &str) -> u64 {
    let found = metrics.named().find(|(known, _)| *known == name);
    found.map_or(0, |(_, count)| count)
}

/// `1 days, 0 hours, 2 minutes, 3 seconds`, from the largest unit that there is.
#[must_use]
pub fn uptime(seconds: u64) -> String {
    let units = [
        (seconds / 86_400, "days"),
        (seconds / 3600 % 24, "hours"),
        (seconds / 60 % 60, "minutes"),
        (seconds % 60, "seconds"),
    ];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let parts = units.iter().skip(first);
    let parts: Vec<String> = parts
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    parts.join(", ")
}

impl Broker {
    /// Whether somebody listens.
    fn is_watched(&self) -> bool {
        self.tree.find(SYSTEM).is_some()
    }

    /// Every topic with its value.
    fn system_values(&mut self, now: Time) -> Vec<(String, String)> {
        self.system.look(now, &self.metrics);
        let (stats, seconds) = (self.stats, now.saturating_sub(START) / 1000);
        let datetime = local_datetime(self.unix_ms(now), self.zone);
        let mut values: Vec<(String, String)> = Vec::with_capacity(160);
        values.push(("$SYS/brokers".into(), self.node.to_string()));
        let own = format!("$SYS/brokers/{}/", self.node);
        let mut say = |topic: &str, value: String| values.push((format!("{own}{topic}"), value));
        say("version", EMQX_VERSION.into());
        say("sysdescr", "headgate".into());
        say("uptime", uptime(seconds));
        say("datetime", datetime);
        for (name, gauge) in stats.named() {
            say(&format!("stats/{name}.count"), gauge.count.to_string());
            say(&format!("stats/{name}.max"), gauge.max.to_string());
        }
        for (name, count) in self.metrics.named() {
            let name = name.replace('.', "/");
            say(&format!("metrics/{name}"), count.to_string());
        }
        let mut say = |topic: &str, value: String| {
            values.push((format!("$SYS/broker/{topic}"), value));
        };
        say(
            "version",
            concat!("headgate ", env!("CARGO_PKG_VERSION")).into(),
        );
        say("uptime", format!("{seconds} seconds"));
        let (here, all) = (stats.connections.count, stats.sessions.count);
        let away = all.saturating_sub(here);
        for (name, count) in [
            ("clients/total", all),
            ("clients/connected", here),
            ("clients/active", here),
            ("clients/disconnected", away),
            ("clients/inactive", away),
            ("clients/maximum", stats.sessions.max),
            ("subscriptions/count", stats.subscriptions.count),
            ("shared_subscriptions/count", stats.shared.count),
            ("retained messages/count", stats.retained.count),
            ("messages/stored", stats.retained.count),
            ("store/messages/count", stats.retained.count),
        ] {
            say(name, count.to_string());
        }
        for (topic, name) in TOTALS {
            say(topic, count(&self.metrics, name).to_string());
        }
        for (load, (topic, _)) in self.system.loads.iter().zip(LOADS) {
            for (average, minutes) in load.averages.iter().zip(MINUTES) {
                say(
                    &format!("load/{topic}/{minutes}min"),
                    format!("{average:.2}"),
                );
            }
        }
        values
    }

    /// Says all values, if somebody listens still.
    pub(super) fn tell_system(&mut self, now: Time) {
        if !self.is_watched() {
            self.system.due = NEVER;
            return;
        }
        self.system.due = now + EVERY;
        for (topic, value) in self.system_values(now) {
            self.say_system(now, &topic, &value);
        }
    }

    fn say_system(&mut self, now: Time, topic: &str, value: &str) {
        if let Some(message) = system_message(now, topic, value, false) {
            self.route(now, &Rc::new(message));
        }
    }

    /// Begins to say values, where somebody new listens.
    pub(super) fn watch_system(&mut self, now: Time, filter: &str) {
        if is_system(filter) && self.system.due == NEVER {
            self.system.due = now + EVERY;
            self.sooner = true;
        }
    }

    /// Gives a session the values that its new subscription, which has an identifier or 0, asks for.
    pub(super) fn show_system(&mut self, now: Time, id: SessionId, filter: &str, identifier: u32) {
        if !is_system(filter) {
            return;
        }
        let limits = self.limits;
        for (topic, value) in self.system_values(now) {
            if matches(filter, &topic)
                && let Some(message) = system_message(now, &topic, &value, true)
                && let Some(session) = self.session(id)
            {
                let ids = (identifier != 0).then(|| Box::new(vec![identifier]));
                let delivery = Delivery::new(Rc::new(message), ids, Qos::AtMostOnce, true);
                session.push(delivery, &limits, &mut Watch::default());
            }
        }
        self.wake(id);
    }

    /// Tells of a client that came, or that went for a reason.
    pub(super) fn tell_presence(&mut self, now: Time, id: SessionId, gone: Option<&str>) {
        if !self.is_watched() {
            return;
        }
        let Some(session) = self.peek(id) else {
            return;
        };
        let told = self.presence(now, session, gone);
        let event = if gone.is_some() {
            "disconnected"
        } else {
            "connected"
        };
        let topic = format!(
            "$SYS/brokers/{}/clients/{}/{event}",
            self.node, session.client_id
        );
        if topic::is_name(&topic) {
            self.say_system(now, &topic, &told.to_string());
        }
    }

    fn presence(&self, now: Time, session: &Session, gone: Option<&str>) -> Value {
        let mut told = json!({
            "clientid": &*session.client_id,
            "username": session.username.as_deref().unwrap_or("undefined"),
            "ipaddress": session.address.ip().to_string(),
            "proto_name": if session.version.level() == 3 { "MQIsdp" } else { "MQTT" },
            "proto_ver": session.version.level(),
            "connected_at": self.unix_ms(session.connected),
            "ts": self.unix_ms(now),
        });
        let more = match gone {
            Some(reason) => json!({"reason": reason, "disconnected_at": self.unix_ms(now)}),
            None => json!({
                "sockport": self.port(session),
                "keepalive": session.keep_alive,
                "clean_start": session.clean,
                "expiry_interval": session.expiry,
                "connack": 0,
            }),
        };
        if let (Value::Object(told), Value::Object(more)) = (&mut told, more) {
            told.extend(more);
        }
        told
    }

    fn port(&self, session: &Session) -> u16 {
        let listener = self.listeners.get(usize::from(session.listener));
        listener.map_or(0, |listener| listener.options.listen.port())
    }

    /// What is wrong, and was.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Forgets the alarms that are over.
    pub fn forget_alarms(&mut self) {
        self.alarms.forget_past();
    }

    /// Raises an alarm, which stands until [`Broker::lower_alarm`]. `false`: it stands already.
    pub fn raise_alarm(&mut self, now: Time, name: &str, message: &str, details: &Value) -> bool {
        let alarm = Alarm {
            name: name.into(),
            message: message.into(),
            details: details.to_string().into(),
            since: self.unix_ms(now) * 1000,
            until: None,
        };
        let told = told(&alarm);
        let raised = self.alarms.raise(alarm);
        if raised {
            self.tell_alarm(now, "activate", &told);
        }
        raised
    }

    /// Ends an alarm. `false`: it does not stand.
    pub fn lower_alarm(&mut self, now: Time, name: &str) -> bool {
        let time = self.unix_ms(now) * 1000;
        let Some(told) = self.alarms.lower(name, time).map(told) else {
            return false;
        };
        self.tell_alarm(now, "deactivate", &told);
        true
    }

    fn tell_alarm(&mut self, now: Time, event: &str, told: &Value) {
        if self.is_watched() {
            let topic = format!("$SYS/brokers/{}/alarms/{event}", self.node);
            self.say_system(now, &topic, &told.to_string());
        }
    }
}

fn told(alarm: &Alarm) -> Value {
    json!({
        "name": &*alarm.name,
        "message": &*alarm.message,
        "details": serde_json::from_str::<Value>(&alarm.details).unwrap_or_default(),
        "activate_at": alarm.since,
        "deactivate_at": alarm.until.map_or_else(|| "infinity".into(), Value::from),
        "activated": alarm.until.is_none(),
    })
}

fn system_message(now: Time, topic: &str, value: &str, retain: bool) -> Option<Message> {
    let flags = (Qos::AtMostOnce, retain);
    let properties = Properties::default();
    Message::new(
        now,
        topic,
        properties,
        value.as_bytes(),
        flags,
        SessionId::MAX,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_drop_leading_zeros_only() {
        assert_eq!(uptime(0), "0 seconds");
        assert_eq!(uptime(111), "1 minutes, 51 seconds");
        assert_eq!(uptime(86_403), "1 days, 0 hours, 0 minutes, 3 seconds");
    }
}
