//! Actions that hand rows to other servers: `data_to_webserver` and `data_to_mqtt_broker`.
//!
//! Both only put something into a bounded queue, so a server that is gone never slows a publisher.

use std::sync::Arc;

use serde_json::{Map as Json, Value as JsonValue};

use super::RENDERED_MAX_BYTES;
use super::action::{Doing, NAME_MAX_BYTES};
use super::definition::BadRule;
use super::resource::Link;
use super::webhook::{Job, Tally};
use crate::mqtt::client::Outgoing;
use crate::mqtt::codec::PropertyWriter;
use crate::mqtt::topic;
use crate::sql::{Map, Template, Value, write_json};

/// Fields of a request that its body and connection decide.
const OWN_FIELDS: &[&str] = &["host", "content-length", "transfer-encoding", "connection"];

/// Fields that name who asks: as the rule's owner wrote them, never as an event says (users.md S27).
const CREDENTIALS: &[&str] = &["authorization", "cookie", "proxy-authorization"];

/// Fields of one request.
const FIELDS_MAX: usize = 32;

/// `data_to_webserver`.
pub(super) struct WebServer {
    resource: Box<str>,
    method: Option<&'static str>,
    path: Template,
    fields: Vec<(Box<str>, Template)>,
    body: Template,
    pub tally: Arc<Tally>,
}

/// `data_to_mqtt_broker`.
pub(super) struct Forward {
    resource: Box<str>,
    topic: Option<Template>,
    payload: Template,
}

fn text<'a>(params: &'a Json<String, JsonValue>, name: &str) -> &'a str {
    let value = params.get(name).and_then(JsonValue::as_str);
    value.unwrap_or_default()
}

/// The fields of a JSON object, names in lower case as EMQX writes them. `None`: such that no request
/// may have.
pub(super) fn fields(object: Option<&JsonValue>) -> Option<Vec<(Box<str>, Box<str>)>> {
    let Some(object) = object else {
        return Some(Vec::new());
    };
    let object = object.as_object().filter(|all| all.len() <= FIELDS_MAX)?;
    let field = |(name, value): (&String, &JsonValue)| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!#$%&'*+^`|~".contains(&byte);
        let good = !name.is_empty() && name.bytes().all(token);
        let value = match value {
            JsonValue::String(text) => text.clone(),
            JsonValue::Number(number) => number.to_string(),
            _ => return None,
        };
        (good && !OWN_FIELDS.contains(&&*name) && is_field_value(&value))
            .then(|| (name.into(), value.into()))
    };
    object.iter().map(field).collect()
}

/// Without what would end the field.
fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != 0x7f)
}

impl WebServer {
    pub(super) fn new(params: &Json<String, JsonValue>) -> Result<Self, BadRule> {
        let fields = fields(params.get("headers"));
        let chosen = |(name, value): &(Box<str>, Box<str>)| {
            CREDENTIALS.contains(&&**name) && value.contains("${")
        };
        let fields = fields.filter(|all| !all.iter().any(chosen));
        let fields = fields.ok_or(BadRule::Wrong("params.headers".into()))?;
        let body = match text(params, "body") {
            "" => text(params, "payload_tmpl"),
            body => body,
        };
        Ok(Self {
            resource: text(params, "$resource").into(),
            method: method(text(params, "method")),
            path: Template::new(text(params, "path")),
            fields: fields
                .into_iter()
                .map(|(name, value)| (name, Template::new(&value)))
                .collect(),
            body: Template::new(body),
            tally: Arc::default(),
        })
    }

    /// Hands a request over; how it ends is counted when it does.
    pub(super) fn hand_over(
        &self,
        row: &Map<'_>,
        doing: &Doing<'_>,
        action: &str,
        has_fallbacks: bool,
    ) -> Option<()> {
        let resource = doing.around.resources.find(&self.resource)?;
        let Link::Hook(hook) = &resource.link else {
            return None;
        };
        let config = &resource.definition.config;
        let method = self.method.or_else(|| method(text(config, "method")))?;
        let has_body = matches!(method, "POST" | "PUT");
        let mut all = fields(config.get("headers"))?;
        for (name, template) in &self.fields {
            let value = String::from_utf8(template.render(row, NAME_MAX_BYTES).ok()?).ok()?;
            if !is_field_value(&value) {
                return None;
            }
            all.retain(|(known, _)| known != name);
            all.push((name.clone(), value.into()));
        }
        if has_body && !all.iter().any(|(name, _)| **name == *"content-type") {
            all.push(("content-type".into(), "application/json".into()));
        }
        let path = match self.path.is_empty() {
            true => String::new(),
            false => String::from_utf8(self.path.render(row, NAME_MAX_BYTES).ok()?).ok()?,
        };
        let body = match has_body {
            true => self.body.render(row, RENDERED_MAX_BYTES).ok()?,
            false => Vec::new(),
        };
        let job = Job {
            method,
            path: path.into(),
            fields: all,
            body: body.into(),
            tally: Arc::clone(&self.tally),
            fallback: has_fallbacks.then(|| {
                let mut text = Vec::new();
                write_json(&Value::map(row.clone()), &mut text);
                (action.into(), text.into())
            }),
        };
        hook.push(job).then_some(())
    }
}

fn method(name: &str) -> Option<&'static str> {
    ["POST", "PUT", "GET", "DELETE"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
}

impl Forward {
    pub(super) fn new(params: &Json<String, JsonValue>) -> Self {
        let topic = text(params, "forward_topic");
        Self {
            resource: text(params, "$resource").into(),
            topic: (!topic.is_empty()).then(|| Template::new(topic)),
            payload: Template::new(text(params, "payload_tmpl")),
        }
    }

    /// Puts the message into the broker's queue.
    pub(super) fn hand_over(&self, row: &Map<'_>, doing: &Doing<'_>) -> Option<()> {
        let resource = doing.around.resources.find(&self.resource)?;
        let Link::Broker { outbox, mountpoint } = &resource.link else {
            return None;
        };
        let own = match &self.topic {
            Some(template) => String::from_utf8(template.render(row, NAME_MAX_BYTES).ok()?).ok()?,
            None => doing.around.topic.to_owned(),
        };
        let name = match (&**mountpoint, &*own) {
            ("", own) => own.to_owned(),
            (mount, own) if mount.ends_with('/') => format!("{mount}{own}"),
            (mount, own) => format!("{mount}/{own}"),
        };
        if own.is_empty() || !topic::is_name(&name) {
            return None;
        }
        let message = Outgoing {
            topic: name.into(),
            payload: self.payload.render(row, RENDERED_MAX_BYTES).ok()?.into(),
            qos: doing.around.qos,
            retain: doing.around.retain,
            properties: PropertyWriter::default(),
        };
        outbox.push(message).then_some(())
    }
}
