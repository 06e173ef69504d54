//! `GET /metrics` (headgate's own): the state in Prometheus' text format 0.0.4, for those who watch.
//!
//! Read as any other resource; a scraper that knows Basic authentication only may send a secret as its
//! password. As many series as there are nodes that were tested, [`NODES_MAX`] at most.

use std::fmt::Write as _;

use crate::controllers::Context;
use crate::controllers::http::{Request, Response};
use crate::platform::{clock, room};
use crate::tunnel::admission::Admission;

/// Nodes that are told of; further ones are left out.
const NODES_MAX: usize = 500;

/// Everything at once.
pub(super) fn show(context: &Context, _: &Request<'_>) -> Response {
    let control = &context.control;
    let connections = control.tunnel().connections();
    let (up, down) = connections.totals();
    let mut text = Text(String::with_capacity(2048));
    text.family("headgate_build_info", "gauge", "The running version.");
    let version = env!("CARGO_PKG_VERSION");
    text.sample("headgate_build_info", &[("version", version)], 1);
    text.family("process_resident_memory_bytes", "gauge", "Resident memory.");
    text.sample("process_resident_memory_bytes", &[], control.memory());
    let (open, most) = room::descriptors();
    text.family("process_open_fds", "gauge", "Open file descriptors.");
    text.sample("process_open_fds", &[], open);
    text.family("process_max_fds", "gauge", "Descriptors that may be open.");
    text.sample("process_max_fds", &[], most);
    text.family("headgate_time_seconds", "gauge", "The wall clock.");
    let now = clock::unix_time().as_secs();
    text.sample("headgate_time_seconds", &[], now);
    text.family("headgate_connections", "gauge", "Live connections.");
    let count = u64::try_from(connections.len()).unwrap_or(u64::MAX);
    text.sample("headgate_connections", &[], count);
    write_admission(control.tunnel().admission(), &mut text);
    let name = "headgate_traffic_bytes_total";
    text.family(name, "counter", "Bytes relayed since the start.");
    text.sample(name, &[("direction", "up")], up);
    text.sample(name, &[("direction", "down")], down);
    write_nodes(context, &mut text);
    Response::of(
        "text/plain; version=0.0.4; charset=utf-8",
        text.0.into_bytes(),
    )
}

/// How near the limit of connections is, and what was done at it.
fn write_admission(admission: &Admission, text: &mut Text) {
    let seen = admission.admitted();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    for (name, kind, help, value) in [
        (
            "headgate_streams",
            "gauge",
            "Streams that are in.",
            number(seen.taken),
        ),
        (
            "headgate_streams_max",
            "gauge",
            "Streams that may be in.",
            number(seen.limit),
        ),
        (
            "headgate_cut_for_room_total",
            "counter",
            "Flows that were cut to make room.",
            seen.cut,
        ),
        (
            "headgate_accept_pauses_total",
            "counter",
            "How often new streams had to wait.",
            seen.pauses,
        ),
        (
            "headgate_udp_refused_total",
            "counter",
            "UDP sessions that were not begun for want of room.",
            seen.unseated,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
}

/// What tests have found of the nodes that were tested.
fn write_nodes(context: &Context, text: &mut Text) {
    let routing = context.control.tunnel().routing();
    let members = routing.outbounds.members();
    let nodes = members.filter(|member| !member.outbound.kind().is_group());
    let tested = nodes.filter_map(|member| {
        let view = member.health.view();
        let delay = view.history.last()?.delay;
        Some((member.outbound.name(), view.alive, delay))
    });
    let tested: Vec<_> = tested.take(NODES_MAX).collect();
    text.family(
        "headgate_proxy_up",
        "gauge",
        "Whether the last test got an answer.",
    );
    for (name, alive, _) in &tested {
        text.sample("headgate_proxy_up", &[("name", name)], u64::from(*alive));
    }
    let name = "headgate_proxy_delay_milliseconds";
    text.family(name, "gauge", "What the last test that got an answer took.");
    for (proxy, _, delay) in tested.iter().filter(|(_, alive, _)| *alive) {
        text.sample(name, &[("name", proxy)], u64::from(*delay));
    }
}

/// The text in the making.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail; so below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (index, (label, content)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in content.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_label() {
        let mut text = Text(String::new());
        text.sample("m", &[("a", "x\"} 1\nm \\"), ("b", "")], 7);
        text.sample("m", &[], 8);
        assert_eq!(text.0, "m{a=\"x\\\"} 1\\nm \\\\\",b=\"\"} 7\nm 8\n");
    }
}
