//! The broker's listeners (emqx-api.md 2.7).

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
        match listen.ip().is_unspecified() {
            true => json.key("listen_on").quoted(listen.port()),
            false => json.key("listen_on").quoted(listen),
        };
        json.key("identifier").string(&listener.options.name);
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

fn protocol(listener: &Listener) -> String {
    let options = &listener.options;
    let port = options.listen.port();
    match (options.websocket, options.tls.is_some()) {
        (false, false) => "mqtt:tcp".to_owned(),
        (false, true) => "mqtt:ssl".to_owned(),
        (true, false) => format!("mqtt:ws:{port}"),
        (true, true) => format!("mqtt:wss:{port}"),
    }
}
