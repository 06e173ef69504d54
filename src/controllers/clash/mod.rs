//! The Clash API: mihomo's REST dialect, as dashboards speak it (clash-api.md section 1).

mod cache;
mod configs;
mod connections;
mod delay;
mod dns;
mod logs;
mod memory;
mod providers;
mod proxies;
mod rules;
mod ticks;
mod traffic;
mod version;

use super::Cause;
use super::http::Method::{Delete, Get, Patch, Post, Put};
use super::http::route::Access::Secret;
use super::http::route::{Answer, Route};

/// Every route: a new endpoint is its handler and one row here.
pub const ROUTES: &[Route] = &[
    Route::once(Get, "/", Secret, version::hello),
    Route::once(Get, "/version", Secret, version::version),
    Route::new(Get, "/logs", Secret, Answer::Feed(logs::open)),
    Route::new(Get, "/traffic", Secret, Answer::Feed(traffic::open)),
    Route::new(Get, "/memory", Secret, Answer::Feed(memory::open)),
    Route::once(Get, "/configs/", Secret, configs::show),
    Route::once(Put, "/configs/", Secret, configs::reload)
        .body_up_to(configs::PAYLOAD_BYTES_MAX)
        .slow(),
    Route::once(Patch, "/configs/", Secret, configs::patch),
    Route::once(Get, "/proxies/", Secret, proxies::list),
    Route::once(Get, "/proxies/{}", Secret, proxies::show),
    Route::once(Put, "/proxies/{}", Secret, proxies::select),
    Route::once(Delete, "/proxies/{}", Secret, proxies::unpin),
    Route::new(
        Get,
        "/proxies/{}/delay",
        Secret,
        Answer::Later(delay::proxy),
    ),
    Route::once(Get, "/group/", Secret, proxies::groups),
    Route::once(Get, "/group/{}", Secret, proxies::group),
    Route::once(Delete, "/group/{}", Secret, proxies::unpin),
    Route::new(Get, "/group/{}/delay", Secret, Answer::Later(delay::group)),
    Route::once(Get, "/rules/", Secret, rules::list),
    Route::new(
        Get,
        "/connections/",
        Secret,
        Answer::OnceOrFeed(connections::list, connections::open),
    ),
    Route::once(Delete, "/connections/", Secret, connections::close_all),
    Route::once(Delete, "/connections/{}", Secret, connections::close),
    Route::once(Get, "/providers/proxies/", Secret, providers::proxies),
    Route::once(Get, "/providers/proxies/{}", Secret, providers::provider),
    Route::once(Put, "/providers/proxies/{}", Secret, providers::update),
    Route::new(
        Get,
        "/providers/proxies/{}/healthcheck",
        Secret,
        Answer::Later(delay::provider),
    ),
    Route::once(Get, "/providers/proxies/{}/{}", Secret, providers::member),
    Route::new(
        Get,
        "/providers/proxies/{}/{}/healthcheck",
        Secret,
        Answer::Later(delay::provider_member),
    ),
    Route::once(Get, "/providers/rules/", Secret, providers::rules),
    Route::once(Put, "/providers/rules/{}", Secret, providers::refresh).slow(),
    Route::once(Post, "/cache/fakeip/flush", Secret, cache::flush_fake_ip),
    Route::once(Post, "/cache/dns/flush", Secret, cache::flush_dns),
    Route::once(Get, "/dns/query", Secret, dns::query).slow(),
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
