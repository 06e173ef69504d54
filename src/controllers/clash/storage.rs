//! `/storage/{key}`: JSON that dashboards keep with us, each under a key of its own.

use serde_json::Value;

use crate::controllers::http::{Request, Response};
use crate::controllers::{Cause, Context};

/// Bytes of a value.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;

/// The value as it was sent; `null` when there is none.
pub(super) fn get(context: &Context, request: &Request<'_>) -> Response {
    match context.control.stored(request.parameter(0)) {
        Ok(value) => {
            let value = value.unwrap_or_else(|| b"null\n".to_vec());
            Response::of("application/json", value)
        }
        Err(cause) => failed(&cause),
    }
}

/// Keeps the body.
pub(super) fn put(context: &Context, request: &Request<'_>) -> Response {
    if serde_json::from_slice::<Value>(request.body).is_err() {
        return Response::body_invalid();
    }
    let kept = context.control.store(request.parameter(0), request.body);
    kept.map_or_else(|cause| failed(&cause), |()| Response::no_content())
}

/// Forgets it.
pub(super) fn delete(context: &Context, request: &Request<'_>) -> Response {
    let forgotten = context.control.forget_stored(request.parameter(0));
    forgotten.map_or_else(|cause| failed(&cause), |()| Response::no_content())
}

fn failed(cause: &Cause) -> Response {
    Response::error(400, &cause.to_string())
}
