//! The broker as a node of a cluster of one (emqx-api.md 2.1).

use super::ROUTES;
use super::reply::{Failure, Outcome, answer, ask, data};
use crate::calendar::local_datetime;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Method, Request, Response};
use crate::mqtt::EMQX_VERSION;
use crate::mqtt::broker::uptime as words;
use crate::platform::clock;
use crate::platform::load::load;

const RUNNING: &str = "Running";

/// `GET /status`: two lines for a probe.
pub fn status(context: &Context, _: &Request<'_>) -> Response {
    let node = context.emqx.node.clone();
    let text = format!("Node {node} is started\nemqx is running");
    Response::of("text/plain", text.into_bytes())
}

/// `GET /`: what there is to ask.
pub fn routes(context: &Context, _: &Request<'_>) -> Response {
    let listed = data(|json| {
        json.open_array();
        for route in ROUTES {
            let pattern = route.pattern.trim_end_matches('/');
            let path = pattern.replace("{}", ":name");
            let method = route.method.as_str();
            json.open_object();
            json.key("name").string(&name(route.method, pattern));
            json.key("method").string(method);
            json.key("path").string(&path);
            json.key("descr").string(&format!("{method} {path}"));
            json.close_object();
        }
        json.close_array();
    });
    answer(context, Ok(listed))
}

/// A word for a route: `get_nodes_clients`.
fn name(method: Method, pattern: &str) -> String {
    let mut name = method.as_str().to_ascii_lowercase();
    for word in pattern
        .split('/')
        .filter(|word| !word.is_empty() && *word != "{}")
    {
        name.push('_');
        name.push_str(word);
    }
    name
}

/// `GET /brokers`.
pub fn brokers(context: &Context, _: &Request<'_>) -> Response {
    let listed = data(|json| {
        json.open_array();
        write_broker(json, context);
        json.close_array();
    });
    answer(context, Ok(listed))
}

/// `GET /brokers/{node}`.
pub fn broker(context: &Context, _: &Request<'_>) -> Response {
    answer(context, Ok(data(|json| write_broker(json, context))))
}

fn write_broker(json: &mut Json, context: &Context) {
    let now = clock::unix_time();
    let milliseconds = u64::try_from(now.as_millis()).unwrap_or_default();
    json.open_object();
    write_identity(json, context);
    json.key("sysdescr").string("headgate");
    json.key("datetime")
        .quoted(local_datetime(milliseconds, clock::local_offset(now)));
    json.close_object();
}

fn write_identity(json: &mut Json, context: &Context) {
    let uptime = clock::now().saturating_duration_since(context.emqx.began);
    json.key("node").string(&context.emqx.node);
    json.key("node_status").string(RUNNING);
    json.key("version").string(EMQX_VERSION);
    json.key("uptime").string(&words(uptime.as_secs()));
    // Erlang's release, for want of one our own.
    json.key("otp_release")
        .string(concat!("headgate/", env!("CARGO_PKG_VERSION")));
}

/// `GET /nodes`.
pub fn nodes(context: &Context, _: &Request<'_>) -> Response {
    let listed = connections(context).map(|connections| {
        data(|json| {
            json.open_array();
            write_node(json, context, connections, readable);
            json.close_array();
        })
    });
    answer(context, listed)
}

/// `GET /nodes/{node}`: the memory in bytes.
pub fn node(context: &Context, _: &Request<'_>) -> Response {
    answer(context, one(context))
}

fn one(context: &Context) -> Outcome {
    let connections = connections(context)?;
    Ok(data(|json| {
        write_node(json, context, connections, |json, bytes| {
            json.plain(bytes);
        });
    }))
}

fn connections(context: &Context) -> Result<usize, Failure> {
    ask(context, |broker, _| broker.stats().connections.count)
}

fn write_node(
    json: &mut Json,
    context: &Context,
    connections: usize,
    write_bytes: fn(&mut Json, u64),
) {
    let load = load();
    json.open_object();
    write_identity(json, context);
    for (name, average) in ["load1", "load5", "load15"].iter().zip(load.averages) {
        json.key(name).quoted(format_args!("{average:.2}"));
    }
    json.key("memory_total");
    write_bytes(json, load.memory);
    json.key("memory_used");
    write_bytes(json, load.memory.saturating_sub(load.memory_available));
    json.key("process_available").plain(load.threads_max);
    json.key("process_used").plain(load.threads);
    let descriptors = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    json.key("max_fds")
        .plain(descriptors.map_or(0, |(soft, _)| soft));
    json.key("connections").plain(connections);
    json.key("live_connections").plain(connections);
    json.close_object();
}

/// Bytes as EMQX prints them in lists: `96.75M`.
fn readable(json: &mut Json, bytes: u64) {
    const UNITS: [(u64, char); 3] = [(30, 'G'), (20, 'M'), (10, 'K')];
    for (shift, unit) in UNITS {
        let size = 1u64 << shift;
        if bytes > size {
            let hundredths = bytes / size * 100 + bytes % size * 100 / size;
            json.quoted(format_args!(
                "{}.{:02}{unit}",
                hundredths / 100,
                hundredths % 100
            ));
            return;
        }
    }
    json.plain(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_two_decimals_and_a_unit() {
        let check = |bytes| {
            let mut json = Json::new();
            readable(&mut json, bytes);
            String::from_utf8(json.finish()).unwrap()
        };
        assert_eq!(check(1024), "1024\n");
        assert_eq!(check(1536), "\"1.50K\"\n");
        assert_eq!(check(96 * 1024 * 1024 + 768 * 1024), "\"96.75M\"\n");
        assert_eq!(check(24_000_000_000), "\"22.35G\"\n");
    }

    #[test]
    fn routes_have_names() {
        assert_eq!(name(Method::Get, "/nodes/{}/clients"), "get_nodes_clients");
    }
}
