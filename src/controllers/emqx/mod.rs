//! The HTTP API of EMQX v4: the broker's management as tools of that family speak it (emqx-api.md).
//!
//! Served under `/api/v4` and `/api` alike, to applications that name themselves by Basic
//! authentication. Every answer is JSON with a `code`, 0 for success; failures have the HTTP status of
//! the seed unless `management.status-style` is `emqx`. Lists are filtered and written on the broker's
//! own thread, which shows them without copying, one page at a time.

mod acl;
mod alarms;
mod banned;
mod clients;
mod filter;
mod listeners;
mod metrics;
mod node;
mod page;
mod pubsub;
mod query;
mod reply;
mod resources;
mod rules;
mod subscriptions;
mod types;
mod users;

use std::time::Instant;

use super::http::Method::{self, Delete, Get, Post, Put};
use super::http::route::{Access, Answer, Dialect, Handler, Route};
use super::options::Management;
use crate::mqtt::password::Storage;
use crate::platform::clock;

/// The API proper.
pub const DIALECT: Dialect = Dialect {
    prefixes: &["/api/v4", "/api"],
    routes: ROUTES,
    refuse: reply::refuse,
};

/// Beside it: whether it runs, for anybody.
pub const STATUS: Dialect = Dialect {
    prefixes: &["/status"],
    routes: &[Route::new(
        Get,
        "/",
        Access::Open,
        Answer::Now(node::status),
    )],
    refuse: reply::refuse,
};

const fn route(method: Method, pattern: &'static str, handler: Handler) -> Route {
    Route::once(method, pattern, Access::Application, handler)
}

/// A route of one node: the handler gets what follows the node's name.
const fn at(method: Method, pattern: &'static str, handler: Handler) -> Route {
    route(method, pattern, handler).behind(reply::local)
}

/// Every route with what it is for: a new endpoint is its handler and one row here.
const ROUTES: &[Route] = &[
    route(Get, "/", node::routes),
    route(Get, "/brokers/", node::brokers),
    at(Get, "/brokers/{}/", node::broker),
    route(Get, "/nodes/", node::nodes),
    at(Get, "/nodes/{}/", node::node),
    route(Get, "/auth_user/", users::list),
    route(Get, "/auth_user/{}/", users::show),
    route(Post, "/auth_user/", users::add),
    route(Put, "/auth_user/{}/", users::change),
    route(Delete, "/auth_user/{}/", users::remove),
    route(Get, "/emqx_acl/", acl::list),
    route(Get, "/emqx_acl/{}/", acl::show),
    route(Post, "/emqx_acl/", acl::add),
    route(Delete, "/emqx_acl/{}/{}/", acl::remove),
    route(Get, "/clients/", clients::list),
    route(Get, "/clients/{}/", clients::show),
    route(Delete, "/clients/{}/", clients::kick),
    route(Get, "/clients/username/{}/", clients::of_user),
    route(Get, "/clients/{}/acl_cache/", clients::decisions),
    route(Delete, "/clients/{}/acl_cache/", clients::forget_decisions),
    route(Put, "/clients/{}/keepalive/", clients::keep_alive),
    route(Delete, "/acl-cache/", clients::forget_all_decisions),
    at(Get, "/nodes/{}/clients/", clients::list),
    at(Get, "/nodes/{}/clients/{}/", clients::show),
    at(Get, "/nodes/{}/clients/username/{}/", clients::of_user),
    at(
        Delete,
        "/nodes/{}/acl-cache/",
        clients::forget_all_decisions,
    ),
    route(Get, "/subscriptions/", subscriptions::list),
    route(Get, "/subscriptions/{}/", subscriptions::of_client),
    at(Get, "/nodes/{}/subscriptions/", subscriptions::list),
    at(Get, "/nodes/{}/subscriptions/{}/", subscriptions::of_client),
    route(Get, "/routes/", subscriptions::routes),
    route(Get, "/routes/{}/", subscriptions::route),
    route(Post, "/mqtt/publish/", pubsub::publish).body_up_to(pubsub::BODY_BYTES_MAX),
    route(Post, "/mqtt/publish_batch/", pubsub::publish_batch).body_up_to(pubsub::BODY_BYTES_MAX),
    route(Post, "/mqtt/subscribe/", pubsub::subscribe),
    route(Post, "/mqtt/subscribe_batch/", pubsub::subscribe_batch),
    route(Post, "/mqtt/unsubscribe/", pubsub::unsubscribe),
    route(Post, "/mqtt/unsubscribe_batch/", pubsub::unsubscribe_batch),
    route(Get, "/listeners/", listeners::list),
    at(Get, "/nodes/{}/listeners/", listeners::list_here),
    route(Get, "/metrics/", metrics::metrics),
    at(Get, "/nodes/{}/metrics/", metrics::metrics_here),
    route(Get, "/stats/", metrics::stats),
    at(Get, "/nodes/{}/stats/", metrics::stats_here),
    route(Get, "/banned/", banned::list),
    route(Post, "/banned/", banned::add),
    route(Delete, "/banned/{}/{}/", banned::remove),
    route(Get, "/alarms/", alarms::list),
    route(Get, "/alarms/activated/", alarms::list_active),
    route(Get, "/alarms/deactivated/", alarms::list_past),
    route(Post, "/alarms/deactivated/", alarms::deactivate),
    route(Delete, "/alarms/deactivated/", alarms::forget),
    at(Get, "/nodes/{}/alarms/", alarms::all_here),
    at(Get, "/nodes/{}/alarms/activated/", alarms::active_here),
    at(Get, "/nodes/{}/alarms/deactivated/", alarms::past_here),
    at(Delete, "/nodes/{}/alarms/deactivated/", alarms::forget),
    route(Get, "/rules/", rules::list),
    route(Post, "/rules/", rules::create).body_up_to(rules::BODY_BYTES_MAX),
    route(Get, "/rules/{}/", rules::show),
    route(Put, "/rules/{}/", rules::update).body_up_to(rules::BODY_BYTES_MAX),
    route(Delete, "/rules/{}/", rules::delete),
    route(Put, "/rules/{}/reset_metrics/", rules::reset),
    route(Get, "/rule_events/", types::events),
    route(Get, "/actions/", types::actions),
    route(Get, "/actions/{}/", types::action),
    route(Get, "/resource_types/", resources::types),
    route(Get, "/resource_types/{}/", resources::one_type),
    route(Get, "/resource_types/{}/resources/", resources::of_type),
    route(Get, "/resources/", resources::list),
    route(Post, "/resources/", resources::create).body_up_to(rules::BODY_BYTES_MAX),
    route(Get, "/resources/{}/", resources::show),
    route(Put, "/resources/{}/", resources::update).body_up_to(rules::BODY_BYTES_MAX),
    route(Post, "/resources/{}/", resources::restart),
    route(Delete, "/resources/{}/", resources::delete),
    route(Get, "/resource_status/{}/", resources::status),
    route(Get, "/query/", query::tables),
    route(Post, "/query/", query::query),
];

/// What requests of this dialect share.
pub struct Shared {
    began: Instant,
    node: Box<str>,
    emqx_status: bool,
    storage: Storage,
}

impl Shared {
    /// As configured.
    #[must_use]
    pub fn new(options: &Management) -> Self {
        Self {
            began: clock::now(),
            node: options.node.clone(),
            emqx_status: options.emqx_status,
            storage: options.storage,
        }
    }
}
