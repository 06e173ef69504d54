//! `POST /configs/geo` and `POST /upgrade/geo`: the databases of the running configuration anew.

use crate::controllers::Context;
use crate::controllers::http::{Request, Response};

/// Fetches those databases that some rule uses; nothing to do where none does.
pub(super) fn update(context: &Context, _: &Request<'_>) -> Response {
    match context.control.update_geo() {
        Ok(()) => Response::no_content(),
        Err(cause) => Response::error(500, &cause.to_string()),
    }
}
