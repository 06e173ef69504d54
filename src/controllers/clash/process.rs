//! What concerns the process itself: `/restart`, and `/debug/gc`, which is there while the log level was
//! `debug` when the controller started (clash-api.md 1.15).

use crate::controllers::Context;
use crate::controllers::http::{Request, Response};

/// Answers, and then the process runs itself anew.
pub(super) fn restart(_: &Context, _: &Request<'_>) -> Response {
    Response {
        restarts: true,
        ..Response::status_ok()
    }
}

/// Gives free memory back to the kernel.
pub(super) fn collect(context: &Context, _: &Request<'_>) -> Response {
    if !context.control.is_debugged() {
        return Response::no_route();
    }
    context.control.collect();
    Response::empty(200)
}
