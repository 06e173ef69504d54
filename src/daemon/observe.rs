//! What SQL rules want to know of the router that nobody tells by itself: looked at again and again,
//! while some rule wants it, and not at all otherwise.
//!
//! The first look after a rule begins to want something shows nothing; what differs from it later is an
//! event. A device is present while the kernel's neighbour table says so; while a rule wants to know who
//! leaves, addresses that were silent are asked for by an empty datagram to the discard port, so that
//! the kernel looks whether they are still there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crate::metadata::Mac;
use crate::outbound::health;
use crate::platform::interfaces;
use crate::platform::neighbours::Neighbours;
use crate::provider::Provider;
use crate::rule_engine::{Datum, EventKind, Feed};

use super::control::Door;

/// How often anything is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks between two sums of traffic.
const TRAFFIC_LOOKS: u32 = 10;

/// Looks between two questions to the devices that are present.
const ASK_LOOKS: u32 = 30;

/// The discard port (RFC 863).
const DISCARD: u16 = 9;

/// What is looked at here.
const LOOKED_AT: [EventKind; 6] = [
    EventKind::DeviceJoined,
    EventKind::DeviceLeft,
    EventKind::ProxyDelay,
    EventKind::ProviderUpdated,
    EventKind::Traffic,
    EventKind::WanChanged,
];

/// Newest test of each outbound and URL, since 1970.
type Tests = HashMap<(Box<str>, Box<str>), Duration>;

/// What was seen last; `None`: nobody wanted to know.
#[derive(Default)]
struct Seen {
    devices: Option<HashMap<Mac, Box<[IpAddr]>>>,
    tests: Option<(usize, Tests)>,
    providers: Option<HashMap<Box<str>, Option<Duration>>>,
    uplinks: Option<Vec<IpAddr>>,
}

/// Looks for ever.
pub async fn observe(door: Arc<Door>, devices: Option<Arc<Neighbours>>) {
    let feed = Arc::clone(door.rules.feed());
    let mut seen = Seen::default();
    for turn in 0_u32.. {
        if !LOOKED_AT.iter().any(|kind| feed.wants(*kind)) {
            seen = Seen::default();
            feed.wanted_otherwise().await;
        }
        if let Some(devices) = &devices {
            look_at_devices(
                &mut seen,
                &feed,
                &door,
                devices,
                turn.is_multiple_of(ASK_LOOKS),
            );
        }
        look_at_tests(&mut seen, &feed, &door);
        look_at_providers(&mut seen, &feed, &door);
        look_at_uplinks(&mut seen, &feed);
        // The first look, as soon as somebody wants to know, is what later ones are compared with.
        if turn.is_multiple_of(TRAFFIC_LOOKS) || !feed.sums_traffic() {
            feed.sum_traffic(door.tunnel.connections());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn text(value: &str) -> Datum {
    Datum::Text(value.into())
}

fn addresses(list: &[IpAddr]) -> Datum {
    Datum::Names(list.iter().map(|ip| ip.to_string().into()).collect())
}

fn look_at_devices(
    seen: &mut Seen,
    feed: &Arc<Feed>,
    door: &Door,
    neighbours: &Neighbours,
    ask: bool,
) {
    if !feed.wants(EventKind::DeviceJoined) && !feed.wants(EventKind::DeviceLeft) {
        seen.devices = None;
        return;
    }
    let present = neighbours.present();
    if let Some(before) = &seen.devices {
        let gone = before.iter().filter(|(mac, _)| !present.contains_key(mac));
        let fresh = present.iter().filter(|(mac, _)| !before.contains_key(mac));
        let all = fresh
            .map(|one| (EventKind::DeviceJoined, one))
            .chain(gone.map(|one| (EventKind::DeviceLeft, one)));
        for (kind, (mac, list)) in all {
            let first = list.first().copied();
            let name = first.and_then(|ip| door.tunnel.devices().name_of(ip, Some(*mac)));
            let mut data = vec![
                ("device_mac", text(&mac.to_string())),
                ("addresses", addresses(list)),
            ];
            data.extend(first.map(|ip| ("device", Datum::Address(ip))));
            data.extend(name.map(|name| ("device_name", Datum::Text(name))));
            feed.push(kind, data);
        }
    }
    if ask && feed.wants(EventKind::DeviceLeft) {
        ask_devices(present.values().flatten());
    }
    seen.devices = Some(present);
}

/// Has the kernel look for devices. Those of IPv6 are the same ones.
fn ask_devices<'a>(list: impl Iterator<Item = &'a IpAddr>) {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
        return;
    };
    // Never the thread's time: what the kernel cannot queue is asked for the next time.
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    for address in list.filter(|ip| ip.is_ipv4()) {
        let _asked = socket.send_to(&[], (*address, DISCARD));
    }
}

fn look_at_tests(seen: &mut Seen, feed: &Arc<Feed>, door: &Door) {
    if !feed.wants(EventKind::ProxyDelay) {
        seen.tests = None;
        return;
    }
    let generation = health::generation();
    if seen
        .tests
        .as_ref()
        .is_some_and(|(then, _)| *then == generation)
    {
        return;
    }
    let before = seen.tests.take();
    let mut tests = Tests::new();
    for member in door.tunnel.routing().outbounds.members() {
        let name = member.outbound.name();
        for known in member.health.view().urls {
            let Some(last) = known.history.last() else {
                continue;
            };
            let key = ((&**name).into(), known.url.clone());
            let is_new = before
                .as_ref()
                .is_some_and(|(_, tests)| tests.get(&key) != Some(&last.time));
            tests.insert(key, last.time);
            if is_new {
                let data = vec![
                    ("proxy", text(name)),
                    ("url", text(&known.url)),
                    ("delay", Datum::Int(last.delay.into())),
                    ("alive", Datum::Bool(known.alive)),
                ];
                feed.push(EventKind::ProxyDelay, data);
            }
        }
    }
    seen.tests = Some((generation, tests));
}

fn look_at_providers(seen: &mut Seen, feed: &Arc<Feed>, door: &Door) {
    if !feed.wants(EventKind::ProviderUpdated) {
        seen.providers = None;
        return;
    }
    let (rules, proxies) = (door.providers.list(), door.providers.proxies());
    let written = |one: &dyn Provider| Some(one.resource()?.written());
    let rules = rules
        .iter()
        .filter_map(|one| Some(("rule", one.name(), written(&**one)?)));
    let proxies = proxies
        .iter()
        .filter_map(|one| Some(("proxy", one.name(), written(&**one)?)));
    let mut times = HashMap::new();
    for (kind, name, time) in rules.chain(proxies) {
        let key: Box<str> = format!("{kind}:{name}").into();
        let before = seen.providers.as_ref();
        if before.is_some_and(|before| before.get(&key) != Some(&time)) {
            let data = vec![("provider", text(name)), ("type", text(kind))];
            feed.push(EventKind::ProviderUpdated, data);
        }
        times.insert(key, time);
    }
    seen.providers = Some(times);
}

fn look_at_uplinks(seen: &mut Seen, feed: &Arc<Feed>) {
    if !feed.wants(EventKind::WanChanged) {
        seen.uplinks = None;
        return;
    }
    let Ok(list) = interfaces::addresses() else {
        return;
    };
    let mut uplinks: Vec<IpAddr> = list
        .iter()
        .filter(|one| one.uplink)
        .map(|one| one.address)
        .collect();
    uplinks.retain(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    uplinks.sort_unstable();
    uplinks.dedup();
    if seen
        .uplinks
        .as_ref()
        .is_some_and(|before| *before != uplinks)
    {
        let data = vec![
            ("up", Datum::Bool(!uplinks.is_empty())),
            ("addresses", addresses(&uplinks)),
        ];
        feed.push(EventKind::WanChanged, data);
    }
    seen.uplinks = Some(uplinks);
}
