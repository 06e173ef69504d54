//! `mqtt:` (contract): the broker's listeners, users, rules and bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::controller::socket_address;
use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::management::NODE;
use super::proxies::tls;
use super::section::Section;
use crate::metadata::Endpoint;
use crate::mqtt::acl::{Access, EXACTLY, Rule};
use crate::mqtt::bridge::{BridgeOptions, BridgeTopic, TrustFiles};
use crate::mqtt::codec::{Qos, Version};
use crate::mqtt::options::{
    Flapping, Limits, ListenerOptions, Options, Share, Sync, TlsOptions, User,
};
use crate::mqtt::password::{Secret, Storage};

/// `max-connections` when it is absent.
const CONNECTIONS_MAX: u32 = 1024;

/// `persistence-retained` when it is absent, seconds: a thousand values a minute on two hundred topics
/// then come to less than a megabyte a day.
const RETAINED_AFTER: u32 = 1800;

const DURATION: &str = "a duration (2h, 30m, 90s)";

/// What runs without a file: the loopback's own clients, without a password.
pub(super) fn builtin() -> Options {
    Options {
        enable: true,
        node: NODE.into(),
        listeners: vec![loopback()],
        allow_anonymous: true,
        acl_default: true,
        persistence: true,
        retained_after: RETAINED_AFTER,
        ..Options::default()
    }
}

fn loopback() -> ListenerOptions {
    ListenerOptions {
        name: "tcp".into(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
        websocket: false,
        tls: None,
        connections_max: CONNECTIONS_MAX as usize,
        connection_rate: 0,
    }
}

fn path(text: &str) -> Box<Path> {
    Path::new(text).into()
}

/// Takes `mqtt`; without it there is no broker.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let Some(mqtt) = section.take("mqtt") else {
        return Ok(Options::default());
    };
    let mut section = mqtt.section()?;
    let mut listeners = section.list("listeners", |item| listener(item, warnings))?;
    if listeners.is_empty() {
        listeners.push(loopback());
    }
    let options = Options {
        enable: section.boolean("enable", true)?,
        node: NODE.into(),
        listeners,
        allow_anonymous: section.boolean("allow-anonymous", false)?,
        users: section.list("users", |item| user(item, warnings))?,
        storage: match section.take("password-storage") {
            Some(value) => value.parse(STORAGE, storage)?,
            None => Storage::default(),
        },
        acl: section.list("acl", |item| rule(item, warnings))?,
        acl_default: match section.take("acl-default") {
            Some(value) => value.parse(PERMISSION, permission)?,
            None => true,
        },
        bridges: section.list("bridges", |item| bridge(item, warnings))?,
        response_information: section.text("response-information")?,
        limits: limits(&mut section, warnings)?,
        persistence: section.boolean("persistence", true)?,
        sync: match section.take("persistence-sync") {
            Some(value) => value.parse("strict, batched or never", |text| {
                Some(match text {
                    "strict" => Sync::Strict,
                    "batched" => Sync::Batched,
                    "never" => Sync::Never,
                    _ => return None,
                })
            })?,
            None => Sync::default(),
        },
        retained_after: match section.take("persistence-retained") {
            Some(value) => value.parse(DURATION, duration)?,
            None => RETAINED_AFTER,
        },
    };
    section.finish(warnings);
    Ok(options)
}

fn limits(section: &mut Section<'_>, warnings: &mut Warnings) -> Result<Limits, ConfigError> {
    let absent = Limits::default();
    let mut count = |key, absent: usize, max: u32| match section.take(key) {
        Some(value) => value
            .integer(1..=max, "a number from 1")
            .map(|number| number as usize),
        None => Ok(absent),
    };
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    Ok(Limits {
        inflight_max: short(count("max-inflight", absent.inflight_max.into(), 65_535)?),
        queue_max: count("max-mqueue", absent.queue_max, 10_000_000)?,
        awaiting_rel_max: short(count(
            "max-awaiting-rel",
            absent.awaiting_rel_max.into(),
            65_535,
        )?),
        retained_max: count("max-retained", absent.retained_max, u32::MAX)?,
        delayed_max: count("max-delayed", absent.delayed_max, 1_000_000)?,
        sessions_max: count("max-sessions", absent.sessions_max, u32::MAX)?,
        subscriptions_max: count("max-subscriptions", absent.subscriptions_max, u32::MAX)?,
        retained_bytes_max: match section.take("max-retained-bytes") {
            Some(value) => value.parse("a size up to 256MB (16MB, 64KB)", size)?,
            None => absent.retained_bytes_max,
        },
        queue_bytes_max: match section.take("max-mqueue-bytes") {
            Some(value) => value.parse("a size up to 256MB (4MB, 64KB)", size)?,
            None => absent.queue_bytes_max,
        },
        packet_bytes_max: match section.take("max-packet-size") {
            Some(value) => value.parse("a size up to 256MB (1MB, 64KB)", size)?,
            None => absent.packet_bytes_max,
        },
        message_rate: section.number("max-message-rate", absent.message_rate)?,
        share: match section.take("shared-subscription-strategy") {
            Some(value) => value.parse(STRATEGIES, strategy)?,
            None => absent.share,
        },
        flapping: match section.take("flapping-detect") {
            Some(value) => Some(flapping(&value, warnings)?),
            None => absent.flapping,
        },
        session_expiry: match section.take("session-expiry") {
            Some(value) => value.parse(DURATION, duration)?,
            None => absent.session_expiry,
        },
        keep_alive_max: match section.take("max-keep-alive") {
            Some(value) => value.parse("a duration of up to 18 hours (5m, 90s)", |text| {
                u16::try_from(duration(text)?).ok().filter(|&max| max > 0)
            })?,
            None => absent.keep_alive_max,
        },
        hide_rules: match section.take("acl-deny-reason") {
            Some(value) => value.parse("not-authorized or unspecified", |text| match text {
                "not-authorized" => Some(false),
                "unspecified" => Some(true),
                _ => None,
            })?,
            None => absent.hide_rules,
        },
    })
}

const STRATEGIES: &str = "random, round_robin, sticky, hash_clientid or hash_topic";

fn strategy(text: &str) -> Option<Share> {
    Some(match text {
        // There is one node: whoever is on it.
        "random" | "local" => Share::Random,
        "round_robin" => Share::RoundRobin,
        "sticky" => Share::Sticky,
        "hash" | "hash_clientid" => Share::HashClientId,
        "hash_topic" => Share::HashTopic,
        _ => return None,
    })
}

/// EMQX's policy, `30, 1m, 5m`, where nothing else is said.
fn flapping(value: &Cursor<'_>, warnings: &mut Warnings) -> Result<Flapping, ConfigError> {
    let mut section = value.section()?;
    let mut span = |key, absent| match section.take(key) {
        Some(value) => value.parse(DURATION, |text| duration(text).filter(|&span| span > 0)),
        None => Ok(absent),
    };
    let (window, ban) = (span("window", 60)?, span("ban", 300)?);
    let count = match section.take("count") {
        Some(count) => count.integer(2..=100_000, "a number from 2")?,
        None => 30,
    };
    section.finish(warnings);
    Ok(Flapping { count, window, ban })
}

fn listener(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<ListenerOptions, ConfigError> {
    let mut section = item.section()?;
    let kind = section.take("type");
    let (tls, websocket) = match kind {
        Some(kind) => kind.parse("tcp, tls, ws or wss", |text| {
            Some(match text {
                "tcp" => (false, false),
                "tls" => (true, false),
                "ws" => (false, true),
                "wss" => (true, true),
                _ => return None,
            })
        })?,
        None => (false, false),
    };
    let listener = ListenerOptions {
        name: section.text("name")?.unwrap_or_else(|| "tcp".into()),
        listen: socket_address(&section.require("listen")?)?,
        websocket,
        tls: if tls {
            Some(TlsOptions {
                certificate: path(section.require("certificate")?.text()?),
                private_key: path(section.require("private-key")?.text()?),
                client_ca: section.text("client-ca")?.as_deref().map(path),
            })
        } else {
            None
        },
        connections_max: section.number("max-connections", CONNECTIONS_MAX)? as usize,
        connection_rate: section.number("max-connection-rate", 0)?,
    };
    section.finish(warnings);
    Ok(listener)
}

fn user(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<User, ConfigError> {
    const HASH: &str =
        "pbkdf2-sha256$ROUNDS$SALT$HASH, salt and hash of 32 bytes in base64, or 64 hex digits";
    let mut section = item.section()?;
    let name = section.require("username")?.text()?.into();
    let secret = match section.take("password-hash") {
        Some(hash) => {
            Secret::parse(hash.text()?).ok_or_else(|| hash.fail(Reason::SecretValue(HASH)))?
        }
        None => Secret::Plain(section.require("password")?.text()?.as_bytes().into()),
    };
    let user = User {
        name,
        secret,
        superuser: section.boolean("superuser", false)?,
    };
    section.finish(warnings);
    Ok(user)
}

const STORAGE: &str = "pbkdf2, pbkdf2:ROUNDS or sha256";

fn storage(text: &str) -> Option<Storage> {
    match text {
        "sha256" => Some(Storage::Sha256),
        "pbkdf2" => Some(Storage::default()),
        text => {
            let rounds = text.strip_prefix("pbkdf2:")?.parse().ok()?;
            Some(Storage::Pbkdf2(rounds))
        }
    }
}

const PERMISSION: &str = "allow or deny";

fn permission(text: &str) -> Option<bool> {
    match text {
        "allow" => Some(true),
        "deny" => Some(false),
        _ => None,
    }
}

fn rule(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<Rule, ConfigError> {
    let mut section = item.section()?;
    let rule = Rule {
        allow: section
            .require("permission")?
            .parse(PERMISSION, permission)?,
        username: section.text("username")?,
        client_id: section.text("client-id")?,
        from: section
            .take("address")
            .map(|value| value.prefix())
            .transpose()?,
        access: match section.take("action") {
            Some(value) => value.parse("publish, subscribe or all", |text| match text {
                "publish" => Some(Some(Access::Publish)),
                "subscribe" => Some(Some(Access::Subscribe)),
                "all" => Some(None),
                _ => None,
            })?,
            None => None,
        },
        topics: section.list("topics", |item| {
            item.parse("a topic filter", |text| {
                let filter = text.strip_prefix(EXACTLY).unwrap_or(text);
                crate::mqtt::topic::is_filter(filter).then(|| text.into())
            })
        })?,
    };
    section.finish(warnings);
    Ok(rule)
}

/// A certificate and its key stand together.
fn trust(section: &mut Section<'_>) -> Result<TrustFiles, ConfigError> {
    let certificate = section.text("certificate")?;
    let identity = match certificate {
        Some(certificate) => {
            let key = section.require("private-key")?;
            Some((path(&certificate), path(key.text()?)))
        }
        None => {
            if section.take("private-key").is_some() {
                section.require("certificate")?;
            }
            None
        }
    };
    Ok(TrustFiles {
        ca: section.text("ca")?.as_deref().map(path),
        identity,
    })
}

fn bridge(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<BridgeOptions, ConfigError> {
    let mut section = item.section()?;
    let bridge = BridgeOptions {
        name: section
            .require("name")?
            .parse("a name of letters, digits, - and _", |text| {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                let good = !text.is_empty() && text.len() <= 64 && text.bytes().all(plain);
                good.then(|| text.into())
            })?,
        server: section
            .require("server")?
            .parse("host:port of a broker", Endpoint::parse)?,
        tls: tls(&mut section)?,
        trust: trust(&mut section)?,
        proxy: section.text("proxy")?,
        version: match section.take("version") {
            Some(value) => value.parse("5, 3.1.1 or 3.1", |text| {
                Some(match text {
                    "5" | "5.0" => Version::V5,
                    "3.1.1" => Version::V4,
                    "3.1" => Version::V3,
                    _ => return None,
                })
            })?,
            None => Version::V5,
        },
        client_id: section.text("client-id")?,
        username: section.text("username")?,
        password: section.text("password")?,
        clean: section.boolean("clean", false)?,
        keep_alive: match section.take("keep-alive") {
            Some(value) => value.parse("a duration of up to 18 hours (5m, 90s)", |text| {
                u16::try_from(duration(text)?).ok()
            })?,
            None => 60,
        },
        topics: section.list("topics", |item| bridge_topic(item, warnings))?,
    };
    section.finish(warnings);
    Ok(bridge)
}

fn bridge_topic(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<BridgeTopic, ConfigError> {
    let mut section = item.section()?;
    let prefix = |section: &mut Section<'_>, key| {
        let taken = section.take(key);
        let prefix = taken.map(|value| {
            value.parse("the beginning of a topic, without wildcards", |text| {
                crate::mqtt::topic::is_name(text).then(|| Box::from(text))
            })
        });
        prefix.transpose().map(Option::unwrap_or_default)
    };
    let (out, inward) = section
        .require("direction")?
        .parse("out, in or both", |text| {
            Some(match text {
                "out" => (true, false),
                "in" => (false, true),
                "both" => (true, true),
                _ => return None,
            })
        })?;
    let topic = BridgeTopic {
        filter: section.require("filter")?.parse("a topic filter", |text| {
            crate::mqtt::topic::is_filter(text).then(|| text.into())
        })?,
        out,
        inward,
        qos: match section.take("qos") {
            Some(value) => value.parse("0, 1 or 2", |text| Qos::from_bits(text.parse().ok()?))?,
            None => Qos::AtLeastOnce,
        },
        local_prefix: prefix(&mut section, "local-prefix")?,
        remote_prefix: prefix(&mut section, "remote-prefix")?,
    };
    section.finish(warnings);
    Ok(topic)
}

/// Bytes, with `KB` and `MB` as powers of 1024.
fn size(text: &str) -> Option<usize> {
    let (digits, unit) = split_unit(text)?;
    let unit: usize = match unit {
        "" | "B" => 1,
        "KB" | "K" => 1024,
        "MB" | "M" => 1024 * 1024,
        _ => return None,
    };
    let bytes = digits.parse::<usize>().ok()?.checked_mul(unit)?;
    (1..=crate::mqtt::codec::REMAINING_MAX)
        .contains(&bytes)
        .then_some(bytes)
}

/// Seconds; a bare number is seconds too.
pub(super) fn duration(text: &str) -> Option<u32> {
    let (digits, unit) = split_unit(text)?;
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(unit)
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let split = text.split_at_checked(end.unwrap_or(text.len()))?;
    (!split.0.is_empty()).then_some(split)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(mqtt: &str) -> Result<Options, String> {
        let text = format!("mqtt:\n  {}\n", mqtt.replace('\n', "\n  "));
        match Config::parse(&text) {
            Ok((config, _)) => Ok(config.mqtt),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_contract_s_example_is_read_and_absent_means_no_broker() {
        assert!(!Config::parse("mode: rule").unwrap().0.mqtt.enable);
        let options = parse(
            "listeners:\n  - {name: lan, type: tcp, listen: 192.168.1.1:1883, max-connections: 9}\n\
             max-packet-size: 64KB\nsession-expiry: 2h\nmax-inflight: 7\n\
             users: [{username: ann, password: x}]\n\
             acl: [{permission: deny, action: publish, topics: [\"a/%u/#\"]}]\nacl-default: deny",
        )
        .unwrap();
        assert!(options.enable && !options.allow_anonymous && !options.acl_default);
        assert_eq!(options.listeners[0].connections_max, 9);
        assert_eq!(options.limits.packet_bytes_max, 65_536);
        assert_eq!(options.limits.session_expiry, 7200);
        assert_eq!(options.limits.inflight_max, 7);
        assert_eq!(options.acl[0].access, Some(Access::Publish));
    }

    #[test]
    fn mistakes_are_told_and_secrets_are_not() {
        for (text, part) in [
            ("listeners: [{listen: x}]", "mqtt.listeners[0].listen"),
            (
                "listeners: [{type: wss, listen: \":8084\"}]",
                "mqtt.listeners[0].certificate",
            ),
            ("max-packet-size: 300MB", "mqtt.max-packet-size"),
            ("session-expiry: 2 weeks", "mqtt.session-expiry"),
            (
                "acl: [{permission: deny, topics: [\"a#\"]}]",
                "mqtt.acl[0].topics[0]",
            ),
            ("users: [{username: a}]", "mqtt.users[0].password"),
            ("max-keep-alive: 1d", "mqtt.max-keep-alive"),
            (
                "bridges: [{name: a/b, server: \"x:1\"}]",
                "mqtt.bridges[0].name",
            ),
            ("bridges: [{name: a, server: x}]", "mqtt.bridges[0].server"),
            (
                "bridges: [{name: a, server: \"x:1\", topics: [{filter: \"#\"}]}]",
                "mqtt.bridges[0].topics[0].direction",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = parse("users: [{username: a, password-hash: geheim}]").unwrap_err();
        assert!(!error.contains("geheim"), "{error}");
    }
}
