//! The Clash API: mihomo's REST dialect, as dashboards speak it (clash-api.md section 1).

mod cache;
mod configs;
mod connections;
mod delay;
mod devices;
mod dns;
pub(super) mod doh;
mod explain;
mod geo;
mod heap;
mod history;
mod logs;
mod memory;
mod metrics;
mod process;
mod providers;
mod proxies;
mod rules;
mod storage;
mod ticks;
mod traffic;
mod version;

use super::Cause;
use super::http::Method::{Delete, Get, Patch, Post, Put};
use super::http::Response;
use super::http::route::{Access, Answer, Dialect, Route};
use super::options::Scope;

/// mihomo's own API.
pub const DIALECT: Dialect = Dialect {
    prefixes: &[""],
    routes: ROUTES,
    refuse,
};

fn refuse(status: u16, message: &str) -> Response {
    match status {
        400 => Response::body_invalid(),
        404 => Response::no_route(),
        405 => Response::empty(405),
        _ => Response::error(status, message),
    }
}

/// Every route: a new endpoint is its handler and one row here.
const ROUTES: &[Route] = &[
    Route::look("/", version::hello),
    Route::look("/version", version::version),
    Route::new(Get, "/logs", Access::READ, Answer::Feed(logs::open)),
    Route::new(Get, "/traffic", Access::READ, Answer::Feed(traffic::open)),
    Route::new(Get, "/memory", Access::READ, Answer::Feed(memory::open)),
    Route::look("/configs/", configs::show),
    Route::once(Put, "/configs/", Access::CONFIGURE, configs::reload)
        .body_up_to(configs::PAYLOAD_BYTES_MAX)
        .slow(),
    Route::once(Patch, "/configs/", Access::CONFIGURE, configs::patch),
    Route::once(Post, "/configs/geo", Access::OPERATE, geo::update).slow(),
    Route::once(Post, "/upgrade/geo", Access::OPERATE, geo::update).slow(),
    Route::new(
        Post,
        "/restart/",
        Access::ADMIN,
        Answer::Now(process::restart),
    ),
    Route::look("/proxies/", proxies::list),
    Route::look("/proxies/{}", proxies::show),
    Route::once(Put, "/proxies/{}", Access::OPERATE, proxies::select),
    Route::once(Delete, "/proxies/{}", Access::OPERATE, proxies::unpin),
    Route::new(
        Get,
        "/proxies/{}/delay",
        Access::OPERATE,
        Answer::Later(delay::proxy),
    ),
    Route::look("/group/", proxies::groups),
    Route::look("/group/{}", proxies::group),
    Route::once(Delete, "/group/{}", Access::OPERATE, proxies::unpin),
    Route::new(
        Get,
        "/group/{}/delay",
        Access::OPERATE,
        Answer::Later(delay::group),
    ),
    Route::look("/rules/", rules::list),
    Route::once(Patch, "/rules/disable", Access::OPERATE, rules::disable),
    Route::look("/explain", explain::explain),
    Route::new(
        Get,
        "/connections/",
        Access::READ,
        Answer::OnceOrFeed(connections::list, connections::open),
    ),
    Route::once(
        Delete,
        "/connections/",
        Access::OPERATE,
        connections::close_all,
    ),
    Route::once(
        Delete,
        "/connections/{}",
        Access::OPERATE,
        connections::close,
    ),
    Route::look("/providers/proxies/", providers::proxies),
    Route::look("/providers/proxies/{}", providers::provider),
    Route::once(
        Put,
        "/providers/proxies/{}",
        Access::OPERATE,
        providers::update,
    )
    .slow(),
    Route::new(
        Get,
        "/providers/proxies/{}/healthcheck",
        Access::OPERATE,
        Answer::Later(delay::provider),
    ),
    Route::look("/providers/proxies/{}/{}", providers::member),
    Route::new(
        Get,
        "/providers/proxies/{}/{}/healthcheck",
        Access::OPERATE,
        Answer::Later(delay::provider_member),
    ),
    Route::look("/providers/rules/", providers::rules),
    Route::once(
        Put,
        "/providers/rules/{}",
        Access::OPERATE,
        providers::refresh,
    )
    .slow(),
    Route::once(
        Post,
        "/cache/fakeip/flush",
        Access::OPERATE,
        cache::flush_fake_ip,
    ),
    Route::once(Post, "/cache/dns/flush", Access::OPERATE, cache::flush_dns),
    Route::once(Get, "/dns/query", Access::READ, dns::query).slow(),
    Route::once(Get, "/storage/{}", Access::READ, storage::get),
    Route::once(Put, "/storage/{}", Access::OPERATE, storage::put)
        .body_up_to(storage::VALUE_BYTES_MAX),
    Route::once(Delete, "/storage/{}", Access::OPERATE, storage::delete),
    Route::once(Get, "/devices", Access::READ, devices::list),
    Route::once(Get, "/history", Access::READ, history::show),
    Route::once(Post, "/upgrade/", Access::ADMIN, process::upgrade).slow(),
    Route::once(Post, "/upgrade/ui", Access::ADMIN, process::upgrade_ui).slow(),
    Route::new(
        Get,
        "/metrics",
        Access::SecretOrPassword(Scope::Read),
        Answer::Now(metrics::show),
    ),
    Route::new(
        Get,
        "/debug/pprof/",
        Access::SecretOrPassword(Scope::Admin),
        Answer::Now(heap::index),
    ),
    Route::new(
        Get,
        "/debug/pprof/heap",
        Access::SecretOrPassword(Scope::Admin),
        Answer::Now(heap::heap),
    ),
    Route::new(
        Get,
        "/debug/pprof/allocs",
        Access::SecretOrPassword(Scope::Admin),
        Answer::Now(heap::allocs),
    ),
    Route::once(
        Put,
        "/debug/gc",
        Access::SecretOrPassword(Scope::Admin),
        process::collect,
    ),
];

/// What requests of this dialect share.
pub struct Shared {
    connection_ids: connections::Ids,
    snapshot: connections::Snapshot,
}

impl Shared {
    /// Draws the random part of this process's connection ids.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn new() -> Result<Self, Cause> {
        Ok(Self {
            connection_ids: connections::Ids::random()?,
            snapshot: connections::Snapshot::default(),
        })
    }
}
