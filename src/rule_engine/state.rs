//! The router's state as MQTT topics, Home Assistant's discovery of them, and commands by topic.
//!
//! Pure: from what there is to messages, and from a topic to an act. Who looks at the router and
//! publishes is the daemon's; commands come through the broker's own access rules, like any message.
//!
//! | Topic | Kept | Payload |
//! |---|---|---|
//! | `headgate/status` | yes | mode, version, node, memory, connections |
//! | `headgate/traffic` | no | bytes a second and in all |
//! | `headgate/proxies/GROUP` | yes | the choice, the members, its delay |
//! | `headgate/devices/MAC` | yes | addresses, name, whether it is there |
//! | `headgate/mode/set` | | `rule`, `global`, `direct` |
//! | `headgate/proxies/GROUP/set` | | a member |
//!
//! In a topic `/`, `+`, `#` and `%` of a name are escaped as in an address (`%2F`).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Act;
use crate::mqtt::codec::{PropertyWriter, Qos};
use crate::mqtt::hook::Publication;

/// Where everything stands.
const PREFIX: &str = "headgate/";

/// Who publishes the state.
const PUBLISHER: &str = "headgate";

/// A name as one level of a topic.
#[must_use]
pub fn level(name: &str) -> String {
    let mut level = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' | '+' | '#' | '%' | '\0' => {
                // Writing to a String cannot fail.
                let _ = write!(level, "%{:02X}", u32::from(c));
            }
            _ => level.push(c),
        }
    }
    level
}

/// The name behind a level.
fn name(level: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(level.len());
    let mut rest = level.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

/// A message of the state.
#[must_use]
pub fn message(topic: &str, payload: &Value, retain: bool) -> Publication {
    Publication {
        topic: format!("{PREFIX}{topic}").into(),
        payload: match payload {
            Value::Null => Box::default(),
            _ => payload.to_string().into_bytes().into(),
        },
        properties: PropertyWriter::default(),
        qos: Qos::AtMostOnce,
        retain,
        client_id: PUBLISHER.into(),
    }
}

/// What a message asks the router to do. `None`: it is no command.
#[must_use]
pub fn command(topic: &str, payload: &[u8]) -> Option<Act> {
    let target = topic.strip_prefix(PREFIX)?.strip_suffix("/set")?;
    let wanted = || {
        String::from_utf8(payload.to_vec())
            .ok()
            .filter(|text| text.len() <= 1024)
    };
    if target == "mode" {
        return Some(Act::SetMode(wanted()?));
    }
    let group = target.strip_prefix("proxies/")?;
    if group.contains('/') {
        return None;
    }
    Some(Act::SelectProxy {
        group: name(group)?,
        proxy: wanted()?,
    })
}

/// A message by which Home Assistant finds something. `kind`: its component; `id`: unique in this node.
fn discovery(node: &str, kind: &str, id: &str, mut config: Value) -> Publication {
    let plain = |text: &str| -> String {
        let part = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        text.chars().map(part).collect()
    };
    let unique = format!("headgate_{}_{id}", plain(node));
    if let Value::Object(members) = &mut config {
        members.insert("unique_id".to_owned(), json!(unique));
        members.insert(
            "device".to_owned(),
            json!({"identifiers": [format!("headgate_{}", plain(node))], "name": node, "manufacturer": "headgate"}),
        );
    }
    Publication {
        topic: format!("homeassistant/{kind}/{unique}/config").into(),
        ..message("", &config, true)
    }
}

/// The sensors and the mode, for Home Assistant.
#[must_use]
pub fn discover_router(node: &str) -> Vec<Publication> {
    let rate = |name: &str, key: &str| {
        json!({
            "name": name,
            "state_topic": "headgate/traffic",
            "value_template": format!("{{{{ value_json.{key} }}}}"),
            "unit_of_measurement": "B/s",
            "device_class": "data_rate",
            "state_class": "measurement",
        })
    };
    let mode = json!({
        "name": "Mode",
        "state_topic": "headgate/status",
        "value_template": "{{ value_json.mode }}",
        "command_topic": "headgate/mode/set",
        "options": ["rule", "global", "direct"],
    });
    let connections = json!({
        "name": "Connections",
        "state_topic": "headgate/status",
        "value_template": "{{ value_json.connections }}",
        "state_class": "measurement",
    });
    vec![
        discovery(node, "sensor", "up", rate("Upload", "up")),
        discovery(node, "sensor", "down", rate("Download", "down")),
        discovery(node, "sensor", "connections", connections),
        discovery(node, "select", "mode", mode),
    ]
}

/// A group, for Home Assistant. `index`: which one it is.
#[must_use]
pub fn discover_group(node: &str, index: usize, group: &str, members: &[&str]) -> Publication {
    let topic = format!("headgate/proxies/{}", level(group));
    let config = json!({
        "name": group,
        "state_topic": topic,
        "value_template": "{{ value_json.now }}",
        "command_topic": format!("{topic}/set"),
        "options": members,
    });
    discovery(node, "select", &format!("group_{index}"), config)
}

/// A device, for Home Assistant.
#[must_use]
pub fn discover_device(node: &str, mac: &str, name: &str) -> Publication {
    let config = json!({
        "name": name,
        "state_topic": format!("headgate/devices/{mac}"),
        "value_template": "{{ 'home' if value_json.present else 'not_home' }}",
        "source_type": "router",
    });
    discovery(node, "device_tracker", &mac.replace(':', ""), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_level_and_come_back() {
        for (text, want) in [
            ("Pick", "Pick"),
            ("a/b+c#d%e", "a%2Fb%2Bc%23d%25e"),
            ("🇯🇵 日本", "🇯🇵 日本"),
        ] {
            assert_eq!(level(text), want);
            assert_eq!(name(want).as_deref(), Some(text));
        }
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn commands_are_two_and_nothing_else() {
        let select = |group: &str, proxy: &str| {
            Some(Act::SelectProxy {
                group: group.into(),
                proxy: proxy.into(),
            })
        };
        for (topic, payload, want) in [
            (
                "headgate/proxies/Pick/set",
                "DIRECT",
                select("Pick", "DIRECT"),
            ),
            ("headgate/proxies/a%2Fb/set", "x", select("a/b", "x")),
            (
                "headgate/mode/set",
                "global",
                Some(Act::SetMode("global".into())),
            ),
            ("headgate/mode", "global", None),
            ("headgate/proxies/a/b/set", "x", None),
            ("headgate/proxies/set", "x", None),
            ("other/mode/set", "x", None),
        ] {
            assert_eq!(command(topic, payload.as_bytes()), want, "{topic}");
        }
        assert_eq!(command("headgate/mode/set", b"\xff"), None);
    }

    #[test]
    fn home_assistant_gets_what_it_needs() {
        let found = discover_group("gate@10.0.0.1", 2, "a/b", &["x", "DIRECT"]);
        assert_eq!(
            &*found.topic,
            "homeassistant/select/headgate_gate_10_0_0_1_group_2/config"
        );
        let config: Value = serde_json::from_slice(&found.payload).unwrap();
        assert_eq!(config["command_topic"], "headgate/proxies/a%2Fb/set");
        assert_eq!(config["options"], json!(["x", "DIRECT"]));
        assert!(found.retain);
        assert_eq!(discover_router("n").len(), 4);
    }
}
