//! The broker's listeners (emqx-api.md 2.7).

use std::net::{IpAddr, Ipv6Addr};

use super::reply::{Outcome, answer, ask, data};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::broker::{Broker, Listener};

/// `GET /listeners`.
pub fn list(context: &Context, _: &Request<'_>) -> Response {
    let node = context.emqx.node.clone();
    let listed = ask(context, move |broker, _| {
        data(|json| {
            json.open_array().open_object();
            json.key("node").string(&node).key("listeners");
            write(json, broker);
            json.close_object().close_array();
        })
    });
    answer(context, listed)
}

/// `GET /nodes/{node}/listeners`.
pub fn list_here(context: &Context, _: &Request<'_>) -> Response {
    answer(context, of_node(context))
}

fn of_node(context: &Context) -> Outcome {
    ask(context, |broker, _| data(|json| write(json, broker)))
}

fn write(json: &mut Json, broker: &Broker) {
    json.open_array();
    for (number, listener) in broker.listeners().iter().enumerate() {
        if !listener.open {
            continue;
        }
        let is_on = |one: &&crate::mqtt::session::Session| {
            one.link.is_some() && usize::from(one.listener) == number
        };
        let current = broker.sessions().filter(is_on).count();
        json.open_object();
        json.key("protocol").string(&protocol(listener));
        let listen = listener.options.listen;
        match listen.ip() {
            // Every address of both families: the port says all.
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => json.key("listen_on").quoted(listen.port()),
            _ => json.key("listen_on").quoted(listen),
        };
        json.key("identifier").string(&identifier(listener));
        json.key("acceptors").plain(1);
        json.key("max_conns")
            .plain(listener.options.connections_max);
        json.key("current_conns").plain(current);
        json.key("shutdown_count");
        // An empty list of pairs is a list, not an object.
        if listener.ended.is_empty() {
            json.open_array().close_array();
        } else {
            json.open_object();
            for (cause, count) in &listener.ended {
                json.key(cause).plain(count);
            }
            json.close_object();
        }
        json.close_object();
    }
    json.close_array();
}

fn kind(listener: &Listener) -> &'static str {
    match (listener.options.websocket, listener.options.tls.is_some()) {
        (false, false) => "tcp",
        (false, true) => "ssl",
        (true, false) => "ws",
        (true, true) => "wss",
    }
}

/// `mqtt:tcp:NAME`.
fn identifier(listener: &Listener) -> String {
    format!("mqtt:{}:{}", kind(listener), listener.options.name)
}

/// `mqtt:tcp`, `mqtt:ssl`, `mqtt:ws:PORT` or `mqtt:wss:PORT`.
fn protocol(listener: &Listener) -> String {
    let options = &listener.options;
    match options.websocket {
        false => format!("mqtt:{}", kind(listener)),
        true => format!("mqtt:{}:{}", kind(listener), options.listen.port()),
    }
}
