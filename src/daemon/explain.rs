//! `headgate explain HOST[:PORT] [ip=] [network=] [src=]`: asks the running instance, and prints its
//! answer for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::Failure;
use super::client::{self, Request};
use super::command::{self, Command, say};
use crate::metadata::Endpoint;

/// Carries the command out.
///
/// # Errors
/// Nobody answers, or refuses.
pub fn run(command: &Command) -> Result<(), Failure> {
    let mut words = command.words.iter();
    let what = words.next().ok_or("explain: which host? HOST[:PORT]")?;
    let mut query = match Endpoint::parse(what) {
        Some(to) => format!("host={}&port={}", encoded(&to.host.to_string()), to.port),
        None => format!("host={}", encoded(what)),
    };
    for word in words {
        let (name, value) = word.split_once('=').ok_or("explain: expected name=value")?;
        if !matches!(name, "ip" | "port" | "network" | "src") {
            return Err("explain: expected ip=, port=, network= or src=".into());
        }
        let _ = write!(query, "&{name}={}", encoded(value));
    }
    let answer: Value = serde_json::from_slice(&ask(command, &query)?)?;
    say(told(&answer).trim_end());
    Ok(())
}

/// The body of the answer of the controller that the configuration names.
fn ask(command: &Command, query: &str) -> Result<Vec<u8>, Failure> {
    let loaded = command::load(command)?;
    let request = Request {
        method: "GET".into(),
        path: format!("/explain?{query}"),
        ..Request::default()
    };
    let mut body = Vec::new();
    let controller = &loaded.config.controller;
    client::ask(controller, &command.directory(), &request, &mut body)?;
    Ok(body)
}

/// What cannot stand in a query as it is.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_:".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The answer, a line a fact.
fn told(answer: &Value) -> String {
    let get = |path: &str| answer.pointer(path).map(text).unwrap_or_default();
    let mut lines = String::new();
    let (host, ip) = (get("/flow/host"), get("/flow/destinationIP"));
    let _ = writeln!(
        lines,
        "{} {} -> {host} {ip} port {}",
        get("/flow/network"),
        get("/flow/source"),
        get("/flow/destinationPort")
    );
    for (name, path) in [
        ("device", "/flow/sourceMAC"),
        ("device", "/flow/sourceHost"),
    ] {
        let value = get(path);
        if !value.is_empty() {
            let _ = writeln!(lines, "{name}: {value}");
        }
    }
    let _ = writeln!(
        lines,
        "name known by: {}; mode: {}",
        get("/flow/dnsMode"),
        get("/flow/mode")
    );
    let rules = answer.get("rules").and_then(Value::as_array);
    for rule in rules.into_iter().flatten() {
        let get = |key: &str| rule.get(key).map(text).unwrap_or_default();
        let (place, kind, payload) = (get("place"), get("type"), get("payload"));
        let _ = writeln!(
            lines,
            "  {place} {kind}({payload}) -> {}: {}",
            get("proxy"),
            get("answer")
        );
    }
    let inner = answer
        .pointer("/decision/subRules")
        .and_then(Value::as_array);
    for rule in inner.into_iter().flatten() {
        let get = |key: &str| rule.get(key).map(text).unwrap_or_default();
        let _ = writeln!(
            lines,
            "    inside: {}({}) -> {}",
            get("type"),
            get("payload"),
            get("proxy")
        );
    }
    let refused = get("/decision/refused");
    let chain = answer.pointer("/decision/chains").and_then(Value::as_array);
    if let Some(chain) = chain {
        let names: Vec<String> = chain.iter().map(text).collect();
        let _ = writeln!(lines, "goes: {}", names.join(" < "));
    } else {
        let _ = writeln!(lines, "refused: {refused}");
    }
    let _ = writeln!(lines, "kernel: {}", get("/kernel/verdict"));
    lines
}
