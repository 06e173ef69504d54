//! What of the Xray API survives a restart (`xray-api.persist`): run-time changes, counters, and what users
//! moved this month. One file in the working directory, `xray.json`, replaced whole, readable by its owner
//! alone, since users' secrets are in it.
//!
//! Lists of lists, short and without names: counters are rewritten every hour. What is none of ours is left
//! out, so a damaged file costs what was in it and nothing else.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::overlay::Overlay;
use super::state;
use crate::controllers::change::{CHANGES_MAX, NewGroup, NewRule};
use crate::outbound::options::Credentials;
use crate::tunnel::Tunnel;
use crate::tunnel::ledger::{Counted, Direction, Name, Party};

const FILE: &str = "xray.json";

/// More than everything that there may be can fill.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What was kept.
#[derive(Default)]
pub struct Kept {
    /// The changes.
    pub overlay: Overlay,
    /// Counters by name: up and down.
    pub counters: Vec<(Name, [u64; 2])>,
    /// The month of the quotas.
    pub month: u32,
    /// What users moved in it.
    pub used: Vec<(Arc<str>, u64)>,
}

/// What an earlier run kept; nothing when there is no such file or it is not ours.
pub fn load(directory: &Path) -> Kept {
    let mut text = Vec::new();
    let path = directory.join(FILE);
    let read =
        fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    if read.is_err() {
        return Kept::default();
    }
    match serde_json::from_slice(&text) {
        Ok(document) => taken(&document),
        Err(error) => {
            log::error!("{}: {error}", path.display());
            Kept::default()
        }
    }
}

/// Keeps a document.
///
/// # Errors
/// What the file system says; the old file stays whole then.
pub fn store(directory: &Path, document: &Value) -> io::Result<()> {
    state::replace(&directory.join(FILE), document.to_string().as_bytes())
}

/// What is to be kept now.
pub fn document(overlay: &Overlay, tunnel: &Tunnel) -> Value {
    let pairs = |list: &[(Box<str>, Box<str>)]| json!(list);
    let users = overlay.users.iter();
    let users =
        users.map(|(of, user)| json!([of, user.username, user.password, user.vision, user.level]));
    let rules = overlay.rules.iter();
    let rules = rules.map(|rule| json!([rule.tag, rule.group, rule.lines]));
    let groups = overlay
        .groups
        .iter()
        .map(|group| json!([group.name, group.selectors, group.strategy, group.fallback]));
    let counted = tunnel.connections().counted(None, false, &|_, _, _| true);
    let counters = counted
        .iter()
        .filter(|counted| counted.bytes > 0)
        .map(|counted| {
            let down = counted.direction == Direction::Download;
            json!([
                letter(counted.name.0),
                &*counted.name.1,
                u8::from(down),
                counted.bytes
            ])
        });
    let (month, used) = tunnel.quotas().usage();
    let used = used.iter().map(|(user, used)| json!([&**user, used]));
    json!({
        "inbounds": pairs(&overlay.inbounds),
        "outbounds": pairs(&overlay.outbounds),
        "users": users.collect::<Vec<_>>(),
        "removed": pairs(&overlay.removed_users),
        "rules": rules.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
        "counters": counters.collect::<Vec<_>>(),
        "month": month,
        "used": used.collect::<Vec<_>>(),
    })
}

/// How the file writes whose a counter is.
fn letter(party: Party) -> &'static str {
    match party {
        Party::Inbound => "i",
        Party::Outbound => "o",
        Party::User => "u",
    }
}

fn party(letter: &str) -> Option<Party> {
    let all = [Party::Inbound, Party::Outbound, Party::User];
    all.into_iter().find(|party| self::letter(*party) == letter)
}

/// The entries of a list that `read` understands.
fn list<T>(document: &Value, key: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let entries = document.get(key).and_then(Value::as_array);
    let entries = entries.into_iter().flatten();
    entries.take(CHANGES_MAX * 8).filter_map(read).collect()
}

fn text(value: &Value, index: usize) -> Option<&str> {
    value.get(index)?.as_str()
}

fn texts(value: &Value, index: usize) -> Vec<Box<str>> {
    let list = value.get(index).and_then(Value::as_array);
    let list = list.into_iter().flatten();
    list.filter_map(|one| one.as_str().map(Box::from)).collect()
}

fn taken(document: &Value) -> Kept {
    let pairs = |key: &str| -> Vec<(Box<str>, Box<str>)> {
        list(document, key, |entry| {
            Some((text(entry, 0)?.into(), text(entry, 1)?.into()))
        })
    };
    let mut kept = Kept {
        overlay: Overlay {
            inbounds: pairs("inbounds"),
            outbounds: pairs("outbounds"),
            users: list(document, "users", |entry| {
                let (username, password) = (text(entry, 1)?.into(), text(entry, 2)?.into());
                let user = Credentials {
                    username,
                    password,
                    vision: entry.get(3).and_then(Value::as_bool) == Some(true),
                    level: number(entry.get(4)),
                };
                Some((text(entry, 0)?.into(), user))
            }),
            removed_users: pairs("removed"),
            rules: list(document, "rules", |entry| {
                Some(NewRule {
                    tag: text(entry, 0)?.into(),
                    group: text(entry, 1).map(Box::from),
                    lines: texts(entry, 2),
                })
            }),
            replaces: false,
            groups: list(document, "groups", |entry| {
                Some(NewGroup {
                    name: text(entry, 0)?.into(),
                    selectors: texts(entry, 1),
                    strategy: text(entry, 2)?.into(),
                    fallback: text(entry, 3)?.into(),
                })
            }),
        },
        month: number(document.get("month")),
        used: list(document, "used", |entry| {
            Some((text(entry, 0)?.into(), entry.get(1)?.as_u64()?))
        }),
        counters: Vec::new(),
    };
    for counted in list(document, "counters", counter) {
        let half = usize::from(counted.direction == Direction::Download);
        let known = kept
            .counters
            .iter()
            .position(|(name, _)| *name == counted.name);
        let index = known.unwrap_or_else(|| {
            kept.counters.push((counted.name.clone(), [0; 2]));
            kept.counters.len() - 1
        });
        if let Some((_, bytes)) = kept.counters.get_mut(index)
            && let Some(bytes) = bytes.get_mut(half)
        {
            *bytes = counted.bytes;
        }
    }
    kept
}

/// 0 where none is.
fn number(value: Option<&Value>) -> u32 {
    let number = value.and_then(Value::as_u64).map(u32::try_from);
    number.and_then(Result::ok).unwrap_or_default()
}

fn counter(entry: &Value) -> Option<Counted> {
    let direction = match entry.get(2)?.as_u64()? {
        0 => Direction::Upload,
        _ => Direction::Download,
    };
    Some(Counted {
        name: (party(text(entry, 0)?)?, text(entry, 1)?.into()),
        direction,
        bytes: entry.get(3)?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::registry::Registry;
    use crate::rules::Rules;
    use crate::tunnel::names::{NoDevices, NoNames};
    use crate::tunnel::routing::{Mode, Routing};

    fn tunnel() -> Arc<Tunnel> {
        let routing = Routing {
            rules: Arc::new(Rules::compile([])),
            outbounds: Arc::new(Registry::default()),
            added: None,
            mode: Mode::Rule,
            sniffer: Arc::default(),
            find_process: false,
            tally: Arc::default(),
        };
        let tunnel = Tunnel::new(routing, Arc::new(NoNames), Arc::new(NoDevices));
        tunnel.connections().keep_ledger(true);
        tunnel
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut overlay = Overlay::default();
        overlay
            .inbounds
            .push(("in".into(), "{\"name\": \"in\"}".into()));
        let ann = Credentials {
            username: "ann".into(),
            password: "secret \" \u{1f600}".into(),
            vision: true,
            level: 7,
        };
        overlay.users.push(("in".into(), ann));
        overlay.removed_users.push(("door".into(), "bob".into()));
        overlay.rules.push(NewRule {
            tag: "r".into(),
            group: Some("g".into()),
            lines: vec!["DOMAIN,a.b,g".into(), "DST-PORT,1,g".into()],
        });
        overlay.groups.push(NewGroup {
            name: "g".into(),
            selectors: vec!["no".into()],
            strategy: "leastping".into(),
            fallback: "DIRECT".into(),
        });
        let first = tunnel();
        let ann: Name = (Party::User, "ann".into());
        first.connections().credit(&[(ann.clone(), [5, 7])]);
        first.quotas().restore(9, &[("ann".into(), 12)], &[]);
        let written = document(&overlay, &first);
        let kept = taken(&serde_json::from_str(&written.to_string()).unwrap());
        assert_eq!(kept.counters, [(ann, [5, 7])]);
        assert_eq!((kept.month, &*kept.used), (9, &[("ann".into(), 12)][..]));
        let second = tunnel();
        second.connections().credit(&kept.counters);
        second.quotas().restore(kept.month, &kept.used, &[]);
        assert_eq!(document(&kept.overlay, &second), written);
    }

    #[test]
    fn what_is_taken_of_any_file_is_kept_and_taken_alike() {
        let values = [
            json!(null),
            json!(7),
            json!(-1),
            json!("x"),
            json!({"a": 1}),
            json!([[]]),
            json!([["a"], 7, {}]),
            json!([["a", 5], ["a", -5], ["a", 1e300]]),
            json!([["a", "b"], ["a", null], [7, "b"]]),
            json!([["a", "b", "c", true], ["a", "b", "c", "d"]]),
            json!([["a", null, ["l", 7]], ["a", "g", "l"]]),
            json!([["a", ["b"], "c", "d"], ["a", "b", "c"]]),
            json!([["u", "a", 0, 5], ["u", "a", 9, u64::MAX], ["o", "a", 0, 0]]),
        ];
        for key in [
            "inbounds",
            "outbounds",
            "users",
            "removed",
            "rules",
            "groups",
            "counters",
            "month",
            "used",
        ] {
            for value in &values {
                let restored = |document: &Value| {
                    let (kept, tunnel) = (taken(document), tunnel());
                    tunnel.connections().credit(&kept.counters);
                    tunnel.quotas().restore(kept.month, &kept.used, &[]);
                    super::document(&kept.overlay, &tunnel)
                };
                let written = restored(&json!({key: value}));
                assert_eq!(restored(&written), written, "{key}: {value}");
            }
        }
    }

    #[test]
    fn rubbish_is_left_out() {
        let document = json!({"users": [1, ["a"], ["a", "b", "c"]], "counters": [["x", "a", 0, 1]],
            "rules": {}, "month": -1, "used": [["a", "b"]]});
        let kept = taken(&document);
        assert_eq!(kept.overlay.users.len(), 1);
        assert!(kept.counters.is_empty() && kept.used.is_empty() && kept.month == 0);
    }
}
