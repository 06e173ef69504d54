//! `…/delay` and `…/healthcheck`: tests of outbounds on demand (clash-api.md 1.8, "Delay test").
//!
//! The answers wait on the runtime, not on a thread: dashboards ask for all nodes at once, and dead
//! ones take their whole time-out. `outbound::probe` bounds how many are tested at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::providers;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::outbound::group::Member;
use crate::outbound::probe::{Probe, ProbeError};
use crate::outbound::registry::Registry;
use crate::outbound::{BoxFuture, Kind};
use crate::platform::blocking::blocking;

/// An answer that will come, or one that need not wait.
type Later = Result<BoxFuture<'static, Response>, Response>;

/// Milliseconds that a test of a single outbound may be given, as in mihomo.
const SINGLE_MAX: i32 = 32_767;

/// Milliseconds that a test of a group is given at most; mihomo takes any time, and nobody waits
/// so long.
const GROUP_MAX: i32 = 60_000;

/// Tests one outbound; a group by its present choice.
pub(super) fn proxy(context: &Arc<Context>, request: &Request<'_>) -> Later {
    let outbounds = outbounds(context);
    let member = outbounds.member(request.parameter(0)).cloned();
    single(context, request, outbounds, member)
}

/// Tests one member of a provider.
pub(super) fn provider_member(context: &Arc<Context>, request: &Request<'_>) -> Later {
    let outbounds = outbounds(context);
    let member = providers::find_member(&outbounds, request).cloned();
    single(context, request, outbounds, member)
}

/// Tests every member of a group. A URL test uses its own URL; groups that choose themselves lose a
/// person's choice first, as in mihomo even when the query is then refused.
pub(super) fn group(context: &Arc<Context>, request: &Request<'_>) -> Later {
    let outbounds = outbounds(context);
    let found = outbounds.get(request.parameter(0)).cloned();
    let Some(group) = found.filter(|found| found.kind().is_group()) else {
        return Err(Response::resource_not_found());
    };
    let unpinning = {
        let (context, group) = (Arc::clone(context), Arc::clone(&group));
        // The forgotten choice may be written to flash.
        blocking(move || context.control.unpin(&group))
    };
    let probe = query(context, request, GROUP_MAX, i32::MAX);
    Ok(Box::pin(async move {
        // It ends with the runtime at the latest, and so does this. A refusal waits for it too: the
        // next request must find the choice forgotten.
        let _ = unpinning.await;
        let mut probe = match probe {
            Ok(probe) => probe,
            Err(refusal) => return refusal,
        };
        if group.kind() == Kind::UrlTest
            && let Some(testing) = group.testing()
        {
            probe.url = testing.url;
            probe.expected = testing.expected.parse().unwrap_or_default();
        }
        let members = group.members();
        let tests = members
            .iter()
            .filter_map(|name| outbounds.member(name))
            .map(|member| probe.test(member));
        let delays = join_all(tests).await;
        let mut json = Json::new();
        json.open_object();
        let mut any = false;
        for (name, delay) in members.iter().zip(delays) {
            if let Ok(delay) = delay {
                json.key(name).plain(delay);
                any = true;
            }
        }
        json.close_object();
        if any {
            Response::json(json)
        } else {
            Response::error(504, "get delay: all proxies timeout")
        }
    }))
}

/// Tests every member of a provider by the provider's own URL; 204 when all is done.
pub(super) fn provider(context: &Arc<Context>, request: &Request<'_>) -> Later {
    let outbounds = outbounds(context);
    let name = request.parameter(0);
    if !providers::is_provider(&outbounds, name) {
        return Err(Response::resource_not_found());
    }
    let provider = outbounds.provider(name).map(|provider| &provider.group);
    let Some(group) = provider.or_else(|| outbounds.group(name)).cloned() else {
        // `default` and the group of everything have no URL of their own.
        return Err(Response::no_content());
    };
    let unified = context.control.general().unified_delay;
    Ok(Box::pin(async move {
        group.test(unified).await;
        drop(outbounds);
        Response::no_content()
    }))
}

fn outbounds(context: &Context) -> Arc<Registry> {
    Arc::clone(&context.control.tunnel().routing().outbounds)
}

fn single(
    context: &Context,
    request: &Request<'_>,
    outbounds: Arc<Registry>,
    member: Option<Member>,
) -> Later {
    let member = member.ok_or_else(Response::resource_not_found)?;
    let probe = query(context, request, SINGLE_MAX, SINGLE_MAX)?;
    Ok(Box::pin(async move {
        let tested = probe.test(&member).await;
        // Until now: a reload must not take the outbounds that this one dials through.
        drop(outbounds);
        match tested {
            Ok(delay) => {
                let mut json = Json::new();
                json.open_object().key("delay").plain(delay).close_object();
                Response::json(json)
            }
            Err(ProbeError::TimedOut) => Response::error(504, "Timeout"),
            Err(_) => Response::error(503, "An error occurred in the delay test"),
        }
    }))
}

/// What the query asks for; a `timeout` beyond `refused_above` milliseconds is none, one beyond
/// `timeout_max` is cut.
fn query(
    context: &Context,
    request: &Request<'_>,
    timeout_max: i32,
    refused_above: i32,
) -> Result<Probe, Response> {
    let text = |name| request.query.get(name).unwrap_or_default();
    let timeout = text("timeout").parse::<i32>().ok();
    let timeout = timeout.filter(|timeout| *timeout <= refused_above);
    let (Some(timeout), Ok(expected)) = (timeout, text("expected").parse()) else {
        return Err(Response::body_invalid());
    };
    // A negative time is over at once.
    let timeout = u64::try_from(timeout.min(timeout_max)).unwrap_or(0);
    Ok(Probe {
        url: text("url").into(),
        expected,
        timeout: Duration::from_millis(timeout),
        unified: context.control.general().unified_delay,
    })
}
