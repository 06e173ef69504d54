//! `GET /devices` (headgate's own): who is in the network, under which addresses, how fast, and how much it
//! has moved today and in the last 30 days.

use std::net::{IpAddr, Ipv4Addr};

use super::history::{days, sums, write_moved};
use crate::calendar::rfc3339;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::metadata::{Mac, Metadata};
use crate::platform::clock;
use crate::tunnel::history::Moment;
use crate::tunnel::history::day::{Dimension, OTHER};
use crate::tunnel::history::devices::Device;

/// Days that the sums are of.
const DAYS: u32 = 30;

/// Those that moved something since the start, and those that the history knows.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    let tunnel = context.control.tunnel();
    let Some(history) = tunnel.connections().settle() else {
        return Response::error(404, "profile.store-history is off");
    };
    let at = Moment::now();
    let days = days(
        context,
        &history,
        &at,
        at.date.saturating_sub(DAYS - 1),
        at.date,
    );
    let mut month = sums(Dimension::Device, &days);
    let today = days.iter().find(|day| day.date == at.date);
    let today = today.map_or_else(Default::default, |day| {
        sums(Dimension::Device, std::slice::from_ref(day))
    });
    let live = history.devices();
    for device in &live {
        month.entry(&device.key).or_default();
    }
    let other = month.remove(OTHER).unwrap_or_default();
    let flows = tunnel.connections().snapshot();
    let mut json = Json::new();
    json.open_object().key("days").plain(DAYS);
    json.key("devices").open_array();
    for (key, moved) in month {
        let device = live.iter().find(|device| *device.key == *key);
        json.open_object();
        write_identity(&mut json, context, key, device);
        let own = flows.iter().filter(|flow| is_of(&flow.metadata, key));
        json.key("connections").plain(own.count());
        write_moved(&mut json, moved);
        json.key("today").open_object();
        write_moved(&mut json, today.get(key).copied().unwrap_or_default());
        json.close_object();
        let [up, down] = device.map_or([0; 2], |device| device.rate);
        json.key("uploadRate").plain(up);
        json.key("downloadRate").plain(down);
        json.close_object();
    }
    json.close_array().key("other").open_object();
    write_moved(&mut json, other);
    json.close_object().close_object();
    Response::json(json)
}

/// Who it is: MAC, name, addresses, when it was last seen. What is not known is empty or null.
fn write_identity(json: &mut Json, context: &Context, key: &str, device: Option<&Device>) {
    let (mac, address) = (key.parse::<Mac>().ok(), key.parse::<IpAddr>().ok());
    let addresses: Vec<IpAddr> = match device {
        Some(device) => device.addresses.clone(),
        None => address.into_iter().collect(),
    };
    let named = addresses.last().copied();
    let named = named.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let name = context.control.tunnel().device_name(named, mac);
    json.key("id").string(key);
    json.key("mac").string(if mac.is_some() { key } else { "" });
    json.key("name").string(name.as_deref().unwrap_or_default());
    json.key("addresses").open_array();
    for address in &addresses {
        json.quoted(address);
    }
    json.close_array().key("lastSeen");
    match device {
        Some(device) => json.quoted(rfc3339(device.seen, clock::local_offset(device.seen))),
        None => json.plain("null"),
    };
}

/// Whether a flow is of the device that the history knows by `key`.
fn is_of(metadata: &Metadata, key: &str) -> bool {
    match metadata.source_mac {
        Some(mac) => key.parse() == Ok(mac),
        None => key.parse() == Ok(metadata.source.ip().to_canonical()),
    }
}
