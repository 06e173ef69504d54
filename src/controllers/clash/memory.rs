//! `/memory`: resident bytes of the process, each second.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Interval;

use super::ticks;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::route::Feed;
use crate::controllers::http::{Request, Response};
use crate::outbound::BoxFuture;

struct Memory {
    context: Arc<Context>,
    ticks: Interval,
    /// mihomo's first document says 0, which makes dashboards begin their graph at the bottom.
    first: bool,
}

/// Opens the feed.
pub(super) fn open(context: &Arc<Context>, _: &Request<'_>) -> Result<Box<dyn Feed>, Response> {
    Ok(Box::new(Memory {
        context: Arc::clone(context),
        ticks: ticks::every(ticks::SECOND),
        first: true,
    }))
}

impl Feed for Memory {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async {
            self.ticks.tick().await;
            let in_use = if std::mem::replace(&mut self.first, false) {
                0
            } else {
                self.context.control.memory()
            };
            let mut json = Json::new();
            json.open_object().key("inuse").plain(in_use);
            json.key("oslimit").plain(0).close_object();
            Some(json.finish().into())
        })
    }
}
