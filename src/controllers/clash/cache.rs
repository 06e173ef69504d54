//! `POST /cache/fakeip/flush` and `POST /cache/dns/flush`.

use crate::controllers::Context;
use crate::controllers::http::{Request, Response};

/// Forgets every fake address.
pub(super) fn flush_fake_ip(context: &Context, _: &Request<'_>) -> Response {
    match context.control.flush_fake_ip() {
        Ok(()) => Response::no_content(),
        Err(cause) => Response::error(400, &cause.to_string()),
    }
}

/// Empties the answer caches.
pub(super) fn flush_dns(context: &Context, _: &Request<'_>) -> Response {
    context.control.flush_dns();
    Response::no_content()
}
