//! Resources as they are asked for and kept: JSON in EMQX's form, checked (emqx-api.md 4.10). What they
//! are to do follows from that ([`Plan`]); `resource` does it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::definition::{BadRule, Ids, fill_in};
use super::resource_types::resource_type;
use super::webhook::Target;
use crate::metadata::{Endpoint, Host};
use crate::mqtt::client::Options;
use crate::mqtt::codec::Version;
use crate::mqtt::topic;
use crate::outbound::options::TlsOptions;
use crate::outbound::tls::{TlsClient, Trust, cipher_suites};
use crate::provider::url::Url;

/// What reads a file that a resource names; none: it may not be read.
pub type File<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

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
        Ok(Self {
            id: match (before, text("id")?) {
                (Some(before), _) => before.id.clone(),
                (None, Some(id)) if !id.is_empty() && id.len() <= 256 => id.into(),
                (None, Some(_)) => return Err(wrong("id")),
                (None, None) => format!("resource:{:08x}", ids.digits()).into(),
            },
            kind: found.name,
            config: fill_in(found.params, config, "config")?,
            description: description.unwrap_or_default().into(),
        })
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

    /// A certificate or key: PEM as it stands, or in an object beside its name as EMQX has it, or the name
    /// of a file.
    fn pem(&self, name: &str, file: &File<'_>) -> Result<Option<Box<[u8]>>, BadRule> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let text = match self.config.get(name) {
            Some(Value::Object(both)) => text(both.get("file"))
                .filter(|content| !content.is_empty())
                .or_else(|| text(both.get("filename"))),
            value => text(value),
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let content = match text.trim_start().starts_with("-----BEGIN") {
            true => Some(text.into_bytes()),
            false => file(&text),
        };
        let wrong = || BadRule::Wrong(format!("config.{name}").into());
        content.map(|bytes| Some(bytes.into())).ok_or_else(wrong)
    }

    fn tls(&self, host: &str, file: &File<'_>) -> Result<TlsClient, BadRule> {
        let name = self.text("server_name_indication");
        let options = TlsOptions {
            server_name: (!name.is_empty()).then(|| name.into()),
            skip_verify: !self.flag("verify"),
            suites: cipher_suites(self.text("ciphers")),
            ..TlsOptions::default()
        };
        let wrong = |name: &str| BadRule::Wrong(format!("config.{name}").into());
        if options.suites.is_empty() && !self.text("ciphers").is_empty() {
            return Err(wrong(
                "ciphers, none of which is spoken (AEAD over ECDHE is),",
            ));
        }
        let client = TlsClient::new(&options, host);
        let client = client.map_err(|_| wrong("server_name_indication"))?;
        let identity = match (self.pem("certfile", file)?, self.pem("keyfile", file)?) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("keyfile")),
            (None, Some(_)) => return Err(wrong("certfile")),
        };
        let roots = self.pem("cacertfile", file)?;
        client
            .trusting(Trust { roots, identity })
            .map_err(|_| wrong("cacertfile, certfile or keyfile"))
    }

    /// The servers and how they are spoken to, as the configuration says; with the files that it names.
    ///
    /// # Errors
    /// [`BadRule`]: it can never work, or not with these files.
    pub(super) fn plan(&self, node: &str, file: &File<'_>) -> Result<Plan, BadRule> {
        match self.kind {
            "web_hook" => self
                .web_hook(file)
                .map(|target| Plan::Hook(Box::new(target))),
            _ => self
                .bridge(node, file)
                .map(|bridge| Plan::Bridge(Box::new(bridge))),
        }
    }

    fn web_hook(&self, file: &File<'_>) -> Result<Target, BadRule> {
        let url = Url::parse(self.text("url")).ok_or(BadRule::Wrong("config.url".into()))?;
        let host = url.endpoint.host.to_string();
        super::forward::fields(self.config.get("headers"))
            .ok_or(BadRule::Wrong("config.headers".into()))?;
        Ok(Target {
            tls: url.tls.then(|| self.tls(&host, file)).transpose()?,
            url,
            connect_timeout: self.duration("connect_timeout")?,
            request_timeout: self.duration("request_timeout")?,
        })
    }

    fn bridge(&self, node: &str, file: &File<'_>) -> Result<Bridge, BadRule> {
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
            tls: (self.flag("ssl").then(|| self.tls(&host, file))).transpose()?,
            endpoint,
            options,
            last: self.duration("reconnect_interval")?,
            mountpoint: mountpoint.into(),
        })
    }
}

/// What a resource is to do.
pub(super) enum Plan {
    /// Requests.
    Hook(Box<Target>),
    /// Messages.
    Bridge(Box<Bridge>),
}

/// A foreign broker, as the configuration says.
pub(super) struct Bridge {
    pub endpoint: Endpoint,
    pub tls: Option<TlsClient>,
    pub options: Options,
    /// The longest wait between two tries.
    pub last: Duration,
    pub mountpoint: Box<str>,
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
        let file = |name: &str| (name == "odd.pem").then(|| b"no PEM".to_vec());
        let read = ResourceDefinition::read(asked, None, &mut Fixed);
        let read = read.and_then(|made| made.plan("node", &file).map(|_| made));
        read.map_err(|bad| bad.to_string())
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
            (
                json!({"type": "web_hook", "config": {"url": "https://a", "cacertfile": "/etc/shadow"}}),
                "config.cacertfile is not as it must be",
            ),
            (
                json!({"type": "web_hook", "config": {"url": "https://a", "cacertfile": {"filename": "ca.pem", "file": "-----BEGIN"}}}),
                "config.cacertfile, certfile or keyfile is not as it must be",
            ),
            (
                json!({"type": "bridge_mqtt", "config": {"ssl": true, "ciphers": "DES-CBC3-SHA,AES256-SHA"}}),
                "config.ciphers, none of which is spoken (AEAD over ECDHE is), is not as it must be",
            ),
            (
                json!({"type": "bridge_mqtt", "config": {"ssl": true, "certfile": "odd.pem"}}),
                "config.keyfile is not as it must be",
            ),
            (
                json!({"type": "bridge_mqtt", "config": {"ssl": true, "certfile": "odd.pem", "keyfile": "odd.pem"}}),
                "config.cacertfile, certfile or keyfile is not as it must be",
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
