//! `/connections`: the live flows, once or at intervals, and their end.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::Interval;

use crate::calendar::rfc3339;
use crate::controllers::http::json::Json;
use crate::controllers::http::route::Feed;
use crate::controllers::http::{Request, Response};
use crate::controllers::{Cause, Context};
use crate::metadata::Metadata;
use crate::outbound::BoxFuture;
use crate::platform::clock;
use crate::tunnel::connections::Connection;

/// The interval of the feed when the client names none.
const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval: a client that asks for more often gets this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How old a snapshot may be and still serve another reader of the feed.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(90);

/// Every live flow, once.
pub(super) fn list(context: &Context, _: &Request<'_>) -> Response {
    Response::json(all(context, 0))
}

/// Ends every flow.
pub(super) fn close_all(context: &Context, _: &Request<'_>) -> Response {
    context.control.tunnel().connections().close_all();
    Response::no_content()
}

/// Ends one flow; an unknown id is no error, for it may have ended by itself.
pub(super) fn close(context: &Context, request: &Request<'_>) -> Response {
    if let Some(id) = context.clash.connection_ids.parse(request.parameter(0)) {
        context.control.tunnel().connections().close(id);
    }
    Response::no_content()
}

/// Opens the feed: a snapshot at once, then one each `interval` ms.
pub(super) fn open(
    context: &Arc<Context>,
    request: &Request<'_>,
) -> Result<Box<dyn Feed>, Response> {
    let interval = match request
        .query
        .get("interval")
        .filter(|text| !text.is_empty())
    {
        Some(text) => Duration::from_millis(text.parse().map_err(|_| Response::body_invalid())?),
        None => INTERVAL,
    };
    // All readers of one interval tick together, so that one snapshot serves them all.
    let interval = interval.clamp(INTERVAL_MIN, Duration::from_secs(3600));
    let phase = context.clash.snapshot.born.elapsed_in(interval);
    let start = tokio::time::Instant::now() + (interval - phase);
    let mut ticks = tokio::time::interval_at(start, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    context.clash.snapshot.table().readers += 1;
    Ok(Box::new(Watch {
        context: Arc::clone(context),
        ticks,
        first: true,
        made: false,
    }))
}

struct Watch {
    context: Arc<Context>,
    ticks: Interval,
    first: bool,
    /// The text of now is this reader's making: it sees to its end.
    made: bool,
}

impl Feed for Watch {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async {
            if self.made {
                tokio::time::sleep(SNAPSHOT_AGE_MAX).await;
                self.made = false;
                self.context.clash.snapshot.forget();
            }
            if !std::mem::replace(&mut self.first, false) {
                self.ticks.tick().await;
            }
            let (text, made) = self.context.clash.snapshot.take(&self.context);
            self.made = made;
            Some(text)
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.context.clash.snapshot.table();
        table.readers -= 1;
        table.latest = None;
    }
}

/// When the first reader could have come: the origin of all ticks.
struct Birth(Instant);

impl Birth {
    /// How far the present is into a period of `interval`.
    fn elapsed_in(&self, interval: Duration) -> Duration {
        let elapsed = clock::now().duration_since(self.0).as_millis();
        let phase = elapsed % interval.as_millis().max(1);
        Duration::from_millis(u64::try_from(phase).unwrap_or(0))
    }
}

/// Table: the text that the readers of the feed share, kept only while there are several, and only for as
/// long as it serves them.
pub(super) struct Snapshot {
    born: Birth,
    shared: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    readers: usize,
    latest: Option<(Instant, Bytes)>,
    /// How long the last text was: the next will hardly be longer.
    bytes: usize,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            born: Birth(clock::now()),
            shared: Mutex::default(),
        }
    }
}

impl Snapshot {
    /// The latest text, or a new one when that is too old; and whether it is new and shared.
    fn take(&self, context: &Context) -> (Bytes, bool) {
        let now = clock::now();
        let mut table = self.table();
        if let Some((made, text)) = &table.latest
            && now.duration_since(*made) < SNAPSHOT_AGE_MAX
        {
            return (text.clone(), false);
        }
        table.latest = None;
        let text = all(context, table.bytes + table.bytes / 16).finish();
        table.bytes = text.len();
        let (text, shared) = (Bytes::from(text), table.readers > 1);
        table.latest = shared.then(|| (now, text.clone()));
        (text, shared)
    }

    /// Lets go of a text that is too old to serve anybody.
    fn forget(&self) {
        let now = clock::now();
        let mut table = self.table();
        table
            .latest
            .take_if(|(made, _)| now.duration_since(*made) >= SNAPSHOT_AGE_MAX);
    }

    fn table(&self) -> MutexGuard<'_, Latest> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The envelope of clash-api.md 1.11, with room for `bytes` from the first.
fn all(context: &Context, bytes: usize) -> Json {
    let control = &context.control;
    let connections = control.tunnel().connections();
    let (up, down) = connections.totals();
    let offset = clock::local_offset(clock::unix_time());
    let mut json = Json::with_capacity(bytes);
    json.open_object();
    json.key("downloadTotal")
        .plain(down)
        .key("uploadTotal")
        .plain(up);
    json.key("connections").open_array();
    for connection in connections.snapshot() {
        write_connection(
            &mut json,
            &connection,
            &context.clash.connection_ids,
            offset,
        );
    }
    json.close_array();
    json.key("memory").plain(control.memory()).close_object();
    json
}

fn write_connection(json: &mut Json, connection: &Connection, ids: &Ids, offset: i32) {
    let (rule, payload) = match &connection.rule {
        Some((rule, payload)) => (*rule, &**payload),
        None => ("", ""),
    };
    json.open_object();
    json.key("id").quoted(ids.format(connection.id));
    json.key("metadata");
    write_metadata(json, &connection.metadata, connection.remote.get());
    json.key("upload").plain(connection.upload.get());
    json.key("download").plain(connection.download.get());
    json.key("start").quoted(rfc3339(connection.start, offset));
    json.key("chains").strings(&connection.chain);
    json.key("rule")
        .string(rule)
        .key("rulePayload")
        .string(payload);
    json.close_object();
}

/// Members without a source here are what mihomo has for a forwarded flow: no geography.
fn write_metadata(json: &mut Json, metadata: &Metadata, remote: Option<&IpAddr>) {
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
    let address =
        |ip: Option<IpAddr>| ip.map_or_else(String::new, |ip| ip.to_canonical().to_string());
    json.open_object();
    json.key("network").string(metadata.network.as_str());
    json.key("type").string(metadata.inbound_type.as_str());
    json.key("sourceIP")
        .quoted(metadata.source.ip().to_canonical());
    json.key("destinationIP")
        .string(&address(metadata.destination_ip));
    json.key("sourceGeoIP")
        .plain("null")
        .key("destinationGeoIP")
        .plain("null");
    json.key("sourceIPASN")
        .string("")
        .key("destinationIPASN")
        .string("");
    json.key("sourcePort").quoted(metadata.source.port());
    json.key("destinationPort")
        .quoted(metadata.destination_port);
    json.key("inboundIP")
        .quoted(metadata.inbound_address.ip().to_canonical());
    json.key("inboundPort")
        .quoted(metadata.inbound_address.port());
    json.key("inboundName").string(&metadata.inbound);
    json.key("inboundUser")
        .string(metadata.inbound_user.as_deref().unwrap_or_default());
    json.key("host").string(&text(&metadata.host));
    json.key("dnsMode").string(metadata.dns_mode.as_str());
    let process = metadata.process.as_deref();
    json.key("uid")
        .plain(process.map_or(0, |process| process.uid));
    json.key("process")
        .string(process.map_or("", |process| process.name()));
    json.key("processPath")
        .string(process.map_or("", |process| &process.path));
    json.key("specialProxy")
        .string("")
        .key("specialRules")
        .string("");
    json.key("remoteDestination")
        .string(&remote.map_or_else(String::new, IpAddr::to_string));
    json.key("dscp").plain(metadata.dscp);
    json.key("sniffHost").string(&text(&metadata.sniffed_host));
    json.close_object();
}

/// Connection ids as UUIDs (RFC 9562, version 8): 74 bits drawn per process, then the id in 48. The
/// random part keeps an id that a dashboard remembers from naming a flow of a later process.
pub(super) struct Ids {
    process: u128,
}

/// The bits of a UUID that hold the id; no process sees 2^48 flows.
const ID_MASK: u128 = (1 << 48) - 1;

/// The bits that version and variant hold.
const FIXED_MASK: u128 = 0xf << 76 | 0b11 << 62;

impl Ids {
    /// Draws the process's part.
    pub(super) fn random() -> Result<Self, Cause> {
        let mut bytes = [0; 16];
        let generator = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&generator, &mut bytes)
            .map_err(|_| "no random numbers from the kernel")?;
        Ok(Self::of(u128::from_be_bytes(bytes)))
    }

    fn of(random: u128) -> Self {
        let process = random & !FIXED_MASK & !ID_MASK;
        Self {
            process: process | 0x8 << 76 | 0b10 << 62,
        }
    }

    fn format(&self, id: u64) -> String {
        let uuid = self.process | (u128::from(id) & ID_MASK);
        let (a, b, c) = (uuid >> 96, uuid >> 80 & 0xffff, uuid >> 64 & 0xffff);
        let (d, e) = (uuid >> 48 & 0xffff, uuid & ID_MASK);
        format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }

    fn parse(&self, text: &str) -> Option<u64> {
        let (prefix, id) = text.rsplit_once('-')?;
        let id = u64::from_str_radix(id, 16).ok()?;
        // The rest, and that the id had its twelve plain digits, is told by writing it again.
        let known = self.format(id);
        (known.rsplit_once('-')?.0 == prefix && known == text).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_that_read_back_in_their_process_only() {
        let ids = Ids::of(u128::MAX);
        let text = ids.format(0x1234);
        assert_eq!(text, "ffffffff-ffff-8fff-bfff-000000001234");
        assert_eq!(ids.parse(&text), Some(0x1234));
        assert_eq!(Ids::of(0).parse(&text), None);
        for bad in ["", "-", "1234", "ffffffff-ffff-8fff-bfff-00000000+234"] {
            assert_eq!(ids.parse(bad), None, "{bad}");
        }
        assert_eq!(ids.parse(&text.to_uppercase()), None);
    }
}
