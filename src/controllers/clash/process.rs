//! What concerns the process itself: `/restart`, `/upgrade`, and `/debug/gc`, which is there while the log level was
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

/// Never: a program that replaces itself when a page asks for it is one that a page can replace
/// (users.md S8). The words tell what does it.
pub(super) fn upgrade(_: &Context, _: &Request<'_>) -> Response {
    Response::error(500, "headgate is upgraded by the system's package manager")
}

/// The same of the dashboard's files.
pub(super) fn upgrade_ui(_: &Context, _: &Request<'_>) -> Response {
    Response::error(
        500,
        "external-ui is the administrator's directory: replace its files there",
    )
}

/// Gives free memory back to the kernel.
pub(super) fn collect(context: &Context, _: &Request<'_>) -> Response {
    if !context.control.is_debugged() {
        return Response::no_route();
    }
    context.control.collect();
    Response::empty(200)
}
