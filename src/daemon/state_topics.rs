//! Publishes the router's state on its own broker (`rule-engine.state`), each interval; what is kept by
//! the broker only when it is other than before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::control::Door;
use crate::controllers::Control as _;
use crate::metadata::Mac;
use crate::mqtt::hook::Publication;
use crate::outbound::Outbound as _;
use crate::platform::neighbours::Neighbours;
use crate::rule_engine::options::StateOptions;
use crate::rule_engine::state::{discover_device, discover_group, discover_router, level, message};

/// Devices that are shown; further ones are not.
const DEVICES_MAX: usize = 256;

/// What the broker keeps of ours: hashes would do, but the texts are small and few.
type Kept = HashMap<Box<str>, Box<[u8]>>;

/// Publishes for ever.
pub async fn publish_forever(
    door: Arc<Door>,
    devices: Option<Arc<Neighbours>>,
    options: StateOptions,
) {
    let mut kept = Kept::new();
    let mut known: HashMap<Mac, bool> = HashMap::new();
    let mut before = door.tunnel.connections().totals();
    loop {
        let totals = door.tunnel.connections().totals();
        let mut all = vec![status(&door), traffic(before, totals, options.interval)];
        before = totals;
        all.extend(groups(&door, &options));
        if let Some(devices) = &devices {
            all.extend(present(&door, devices, &mut known, &options));
        }
        if options.home_assistant {
            all.extend(discover_router(door.rules.feed().node()));
        }
        all.retain(|one| !one.retain || kept.get(&one.topic) != Some(&one.payload));
        let copies: Vec<_> = all
            .iter()
            .filter(|one| one.retain)
            .map(|one| (one.topic.clone(), one.payload.clone()))
            .collect();
        let told = door.rules.broker().tell(move |broker, now| {
            for one in &all {
                broker.publish_for(now, one);
            }
        });
        // What a busy broker did not take is published the next time.
        if told {
            kept.extend(copies);
        }
        tokio::time::sleep(options.interval).await;
    }
}

fn status(door: &Door) -> Publication {
    let payload = json!({
        "node": door.rules.feed().node(),
        "version": env!("CARGO_PKG_VERSION"),
        "mode": door.general().mode.as_str(),
        "connections": door.tunnel.connections().len(),
        // In steps, so that the broker need not keep another every time.
        "memory_mb": door.memory() >> 20,
    });
    message("status", &payload, true)
}

fn traffic(before: (u64, u64), now: (u64, u64), interval: Duration) -> Publication {
    let seconds = interval.as_secs().max(1);
    let payload = json!({
        "up": now.0.saturating_sub(before.0) / seconds,
        "down": now.1.saturating_sub(before.1) / seconds,
        "up_total": now.0,
        "down_total": now.1,
    });
    message("traffic", &payload, false)
}

fn groups(door: &Door, options: &StateOptions) -> Vec<Publication> {
    let routing = door.tunnel.routing();
    let mut all = Vec::new();
    for (index, group) in routing.outbounds.groups().iter().enumerate() {
        let members: Vec<&str> = group
            .member_list()
            .iter()
            .map(|one| &**one.outbound.name())
            .collect();
        let now = group.selected(None).map(|one| Arc::clone(one.name()));
        let tested = now.as_ref().and_then(|name| routing.outbounds.health(name));
        let delay = tested.and_then(|health| health.view().history.last().map(|last| last.delay));
        let payload = json!({
            "now": now.as_deref(),
            "all": members,
            "delay": delay,
        });
        all.push(message(
            &format!("proxies/{}", level(group.name())),
            &payload,
            true,
        ));
        if options.home_assistant {
            all.push(discover_group(
                door.rules.feed().node(),
                index,
                group.name(),
                &members,
            ));
        }
    }
    all
}

fn present(
    door: &Door,
    neighbours: &Neighbours,
    known: &mut HashMap<Mac, bool>,
    options: &StateOptions,
) -> Vec<Publication> {
    let mut all = Vec::new();
    let present = neighbours.present();
    for (mac, addresses) in &present {
        if known.len() >= DEVICES_MAX && !known.contains_key(mac) {
            continue;
        }
        known.insert(*mac, true);
        let name = addresses
            .first()
            .and_then(|ip| door.tunnel.devices().name_of(*ip, Some(*mac)));
        let (mac, node) = (mac.to_string(), door.rules.feed().node());
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if options.home_assistant {
            all.push(discover_device(node, &mac, name.as_deref().unwrap_or(&mac)));
        }
        all.push(device(
            &mac,
            &json!({"present": true, "addresses": list, "name": name}),
        ));
    }
    for (mac, there) in known
        .iter_mut()
        .filter(|(mac, _)| !present.contains_key(*mac))
    {
        if std::mem::take(there) {
            all.push(device(&mac.to_string(), &json!({"present": false})));
        }
    }
    all
}

fn device(mac: &str, payload: &Value) -> Publication {
    message(&format!("devices/{mac}"), payload, true)
}
