//! What concerns the process itself: `/restart`, `/upgrade`, `/upgrade/ui`, and `/debug/gc`, which is there while
//! the log level was `debug` when the controller started (clash-api.md 1.15).

use crate::controllers::Context;
use crate::controllers::http::{Request, Response};

/// Answers, and then the process runs itself anew.
pub(super) fn restart(_: &Context, _: &Request<'_>) -> Response {
    Response {
        restarts: true,
        ..Response::status_ok()
    }
}

/// Puts the program of `upgrade` in this one's place and restarts.
pub(super) fn upgrade(context: &Context, request: &Request<'_>) -> Response {
    match context.control.replace_program() {
        Ok(()) => restart(context, request),
        Err(cause) => Response::error(500, &cause.to_string()),
    }
}

/// Puts the pages of `external-ui-url` in the dashboard's place.
pub(super) fn upgrade_ui(context: &Context, _: &Request<'_>) -> Response {
    match context.control.replace_pages() {
        Ok(()) => Response::status_ok(),
        Err(cause) => Response::error(500, &cause.to_string()),
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
