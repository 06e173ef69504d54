//! Clients, which are sessions: those without a connection are among them (emqx-api.md 2.4, 3.1).

use serde_json::Value;

use super::filter::{Filters, ZONE, proto_name};
use super::page::{Count, Page};
use super::reply::{Failure, Outcome, answer, ask, data, done};
use crate::calendar::local_datetime;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::acl::Access;
use crate::mqtt::broker::Broker;
use crate::mqtt::session::Session;
use crate::platform::clock;

/// `GET /clients`, `GET /nodes/{node}/clients`.
pub fn list(context: &Context, request: &Request<'_>) -> Response {
    answer(context, page(context, request))
}

fn page(context: &Context, request: &Request<'_>) -> Outcome {
    let (page, filters) = (Page::of(request.query)?, Filters::of(request.query)?);
    let writer = Writer::new(context);
    ask(context, move |broker, _| {
        let count = match filters.is_empty() {
            true => Count::All(broker.stats().sessions.count),
            false => Count::Filtered,
        };
        let rows = broker.sessions().filter(|one| filters.fits(broker, one));
        page.write(count, rows, |json, one| writer.write(json, broker, one))
    })?
}

/// `GET /clients/{clientid}`, also beneath a node: none or one.
pub fn show(context: &Context, request: &Request<'_>) -> Response {
    answer(context, one(context, request.parameter(0)))
}

fn one(context: &Context, clientid: &str) -> Outcome {
    let (clientid, writer) = (clientid.to_owned(), Writer::new(context));
    ask(context, move |broker, _| {
        data(|json| writer.all(json, broker, broker.find(&clientid).into_iter()))
    })
}

/// `GET /clients/username/{username}`, also beneath a node: any number.
pub fn of_user(context: &Context, request: &Request<'_>) -> Response {
    answer(context, named(context, request.parameter(0)))
}

fn named(context: &Context, username: &str) -> Outcome {
    let (username, writer) = (username.to_owned(), Writer::new(context));
    ask(context, move |broker, _| {
        let is_his = |one: &&Session| one.username.as_deref() == Some(&*username);
        data(|json| writer.all(json, broker, broker.sessions().filter(is_his)))
    })
}

/// `DELETE /clients/{clientid}`: ends connection and session; the will is said.
pub fn kick(context: &Context, request: &Request<'_>) -> Response {
    let clientid = request.parameter(0).to_owned();
    let kicked = ask(context, move |broker, now| broker.kick(now, &clientid));
    answer(context, kicked.and_then(found))
}

fn found(found: bool) -> Outcome {
    match found {
        true => Ok(done()),
        false => Err(no_client()),
    }
}

fn no_client() -> Failure {
    Failure::new(Failure::NO_CLIENT, "not_found")
}

/// `GET /clients/{clientid}/acl_cache`.
pub fn decisions(context: &Context, request: &Request<'_>) -> Response {
    let clientid = request.parameter(0).to_owned();
    let listed = ask(context, move |broker, now| {
        let decisions = broker.decisions(now, &clientid).ok_or_else(no_client)?;
        Ok(data(|json| {
            json.open_array();
            for one in &decisions {
                let access = match one.access {
                    Access::Publish => "publish",
                    Access::Subscribe => "subscribe",
                };
                json.open_object().key("access").string(access);
                json.key("topic").string(&one.topic);
                json.key("result")
                    .string(if one.allow { "allow" } else { "deny" });
                json.key("updated_time").plain(broker.unix_ms(one.at));
                json.close_object();
            }
            json.close_array();
        }))
    });
    answer(context, listed.and_then(|listed| listed))
}

/// `DELETE /clients/{clientid}/acl_cache`.
pub fn forget_decisions(context: &Context, request: &Request<'_>) -> Response {
    let clientid = request.parameter(0).to_owned();
    let forgotten = ask(context, move |broker, _| broker.forget_decisions(&clientid));
    answer(context, forgotten.and_then(found))
}

/// `DELETE /acl-cache`, also beneath a node.
pub fn forget_all_decisions(context: &Context, _: &Request<'_>) -> Response {
    answer(context, forget_all(context))
}

fn forget_all(context: &Context) -> Outcome {
    ask(context, |broker, _| broker.forget_all_decisions())?;
    Ok(done())
}

/// `PUT /clients/{clientid}/keepalive`: `{"interval":…}`, seconds.
pub fn keep_alive(context: &Context, request: &Request<'_>) -> Response {
    answer(context, set_keep_alive(context, request))
}

fn set_keep_alive(context: &Context, request: &Request<'_>) -> Outcome {
    let body: Option<Value> = serde_json::from_slice(request.body).ok();
    let given = match request.query.get("interval") {
        Some(text) => Some(text.parse().ok()),
        None => {
            let member = body.as_ref().and_then(|body| body.get("interval"));
            member.map(Value::as_u64)
        }
    };
    let missing = || Failure::new(Failure::MISSING, "params_not_found");
    let interval = given.ok_or_else(missing)?;
    let interval = interval.and_then(|interval| u16::try_from(interval).ok());
    let interval = interval.ok_or_else(|| {
        let message = "keepalive not in range: 0 to 65535";
        Failure::new(Failure::BAD_PARAMETER, message)
    })?;
    let clientid = request.parameter(0).to_owned();
    found(ask(context, move |broker, _| {
        broker.set_keep_alive(&clientid, interval)
    })?)
}

/// Writes clients as rows.
struct Writer {
    node: Box<str>,
    /// Of the local time zone, seconds.
    offset: i32,
}

impl Writer {
    fn new(context: &Context) -> Self {
        Self {
            node: context.emqx.node.clone(),
            offset: clock::local_offset(clock::unix_time()),
        }
    }

    fn all<'a>(
        &self,
        json: &mut Json,
        broker: &Broker,
        sessions: impl Iterator<Item = &'a Session>,
    ) {
        json.open_array();
        for session in sessions {
            self.write(json, broker, session);
        }
        json.close_array();
    }

    fn write(&self, json: &mut Json, broker: &Broker, session: &Session) {
        let limits = broker.limits();
        let time = |time| local_datetime(broker.unix_ms(time), self.offset);
        json.open_object();
        json.key("node").string(&self.node);
        json.key("clientid").string(&session.client_id);
        json.key("username")
            .string(session.username.as_deref().unwrap_or("undefined"));
        json.key("proto_name").string(proto_name(session));
        json.key("proto_ver").plain(session.version.level());
        json.key("ip_address")
            .quoted(session.address.ip().to_canonical());
        json.key("port").plain(session.address.port());
        json.key("is_bridge").plain(session.bridge);
        json.key("connected").plain(session.link.is_some());
        json.key("connected_at").quoted(time(session.connected));
        json.key("created_at").quoted(time(session.created));
        if session.link.is_none() {
            json.key("disconnected_at").quoted(time(session.lost));
        }
        json.key("zone").string(ZONE);
        json.key("keepalive").plain(session.keep_alive);
        json.key("clean_start").plain(session.clean);
        json.key("expiry_interval").plain(session.expiry);
        json.key("subscriptions_cnt")
            .plain(session.subscription_count());
        json.key("max_subscriptions")
            .plain(limits.subscriptions_max);
        json.key("inflight").plain(session.in_flight());
        json.key("max_inflight").plain(session.window());
        json.key("mqueue_len").plain(session.waiting());
        json.key("max_mqueue").plain(limits.queue_max);
        json.key("mqueue_dropped").plain(session.queue_dropped);
        json.key("awaiting_rel").plain(session.awaiting_rel.len());
        json.key("max_awaiting_rel").plain(limits.awaiting_rel_max);
        for (prefix, traffic) in [("recv", &session.received), ("send", &session.sent)] {
            json.key(&format!("{prefix}_oct")).plain(traffic.bytes);
            json.key(&format!("{prefix}_cnt")).plain(traffic.calls);
            json.key(&format!("{prefix}_pkt")).plain(traffic.packets);
            json.key(&format!("{prefix}_msg")).plain(traffic.messages);
        }
        // Erlang's, with what comes nearest: answers to be written, memory, work.
        json.key("mailbox_len").plain(session.control.len());
        json.key("heap_size").plain(session.size());
        json.key("reductions")
            .plain(session.received.packets + session.sent.packets);
        json.close_object();
    }
}
