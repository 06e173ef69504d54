//! Subscriptions and routes (emqx-api.md 2.5).

use super::page::{Count, Page};
use super::reply::{Failure, Outcome, answer, ask, data};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Query, Request, Response};
use crate::mqtt::broker::Subscription;
use crate::mqtt::topic;

/// What a request looks for; every filter that is given must fit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filters {
    clientid: Option<String>,
    topic: Option<String>,
    qos: Option<u8>,
    share: Option<String>,
    match_topic: Option<String>,
}

impl Filters {
    fn of(query: Query<'_>) -> Result<Self, Failure> {
        let text = |name| query.get(name).map(String::from);
        let qos = query.get("qos").map(|text| match &*text {
            "0" => Ok(0),
            "1" => Ok(1),
            "2" => Ok(2),
            other => {
                let message = format!("Can't convert <<\"{other}\">> to integer type");
                Err(Failure::new(Failure::BAD_PARAMETER, message))
            }
        });
        Ok(Self {
            clientid: text("clientid"),
            topic: text("topic"),
            qos: qos.transpose()?,
            share: text("share"),
            match_topic: text("_match_topic"),
        })
    }

    fn fits(&self, one: &Subscription<'_>) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == one.filter)
            && self.qos.is_none_or(|qos| qos == one.qos.bits())
            && self
                .share
                .as_deref()
                .is_none_or(|share| one.group == Some(share))
            && self
                .match_topic
                .as_deref()
                .is_none_or(|filter| topic::matches(filter, &one.filter))
    }
}

/// `GET /subscriptions`, `GET /nodes/{node}/subscriptions`.
pub fn list(context: &Context, request: &Request<'_>) -> Response {
    answer(context, page(context, request))
}

fn page(context: &Context, request: &Request<'_>) -> Outcome {
    let (page, filters) = (Page::of(request.query)?, Filters::of(request.query)?);
    let node = context.emqx.node.clone();
    ask(context, move |broker, _| {
        let count = match filters == Filters::default() {
            true => Count::All(broker.stats().subscriptions.count),
            false => Count::Filtered,
        };
        let wanted = filters.clientid.as_deref();
        let sessions = broker
            .sessions()
            .filter(|one| wanted.is_none_or(|wanted| wanted == &*one.client_id));
        let rows = sessions.flat_map(|session| {
            let own = broker.subscriptions(session);
            own.map(|one| (&*session.client_id, one))
        });
        let rows = rows.filter(|(_, one)| filters.fits(one));
        page.write(count, rows, |json, (clientid, one)| {
            write(json, &node, clientid, &one);
        })
    })?
}

fn write(json: &mut Json, node: &str, clientid: &str, one: &Subscription<'_>) {
    json.open_object().key("node").string(node);
    json.key("clientid").string(clientid);
    match one.group {
        Some(group) => json
            .key("topic")
            .string(&format!("$share/{group}/{}", one.filter)),
        None => json.key("topic").string(&one.filter),
    };
    json.key("qos").plain(one.qos.bits()).close_object();
}

/// `GET /subscriptions/{clientid}`, also beneath a node.
pub fn of_client(context: &Context, request: &Request<'_>) -> Response {
    answer(context, of(context, request.parameter(0)))
}

fn of(context: &Context, clientid: &str) -> Outcome {
    let (clientid, node) = (clientid.to_owned(), context.emqx.node.clone());
    ask(context, move |broker, _| {
        data(|json| {
            json.open_array();
            if let Some(session) = broker.find(&clientid) {
                for one in broker.subscriptions(session) {
                    write(json, &node, &clientid, &one);
                }
            }
            json.close_array();
        })
    })
}

/// `GET /routes`: the filters that somebody subscribes to.
pub fn routes(context: &Context, request: &Request<'_>) -> Response {
    let listed = Page::of(request.query).and_then(|page| {
        let node = context.emqx.node.clone();
        ask(context, move |broker, _| {
            let count = Count::Plain(broker.stats().routes.count);
            page.write(count, broker.routes(), |json, at| {
                write_route(json, &broker.filter(at), &node);
            })
        })?
    });
    answer(context, listed)
}

/// `GET /routes/{topic}`: none or one.
pub fn route(context: &Context, request: &Request<'_>) -> Response {
    let (filter, node) = (request.parameter(0).to_owned(), context.emqx.node.clone());
    let listed = ask(context, move |broker, _| {
        data(|json| {
            json.open_array();
            if broker.has_route(&filter) {
                write_route(json, &filter, &node);
            }
            json.close_array();
        })
    });
    answer(context, listed)
}

fn write_route(json: &mut Json, filter: &str, node: &str) {
    json.open_object().key("topic").string(filter);
    json.key("node").string(node).close_object();
}
