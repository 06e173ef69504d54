//! `/traffic`: the bytes of the last second, and since start.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Interval;

use super::ticks;
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::route::Feed;
use crate::controllers::http::{Request, Response};
use crate::outbound::BoxFuture;

struct Traffic {
    context: Arc<Context>,
    ticks: Interval,
    /// Totals at the last tick: up, down.
    before: (u64, u64),
}

/// Opens the feed.
pub(super) fn open(context: &Arc<Context>, _: &Request<'_>) -> Result<Box<dyn Feed>, Response> {
    Ok(Box::new(Traffic {
        before: context.control.tunnel().connections().totals(),
        context: Arc::clone(context),
        ticks: ticks::every(ticks::SECOND),
    }))
}

impl Feed for Traffic {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async {
            self.ticks.tick().await;
            let (up, down) = self.context.control.tunnel().connections().totals();
            let (up_before, down_before) = std::mem::replace(&mut self.before, (up, down));
            let mut json = Json::new();
            json.open_object();
            json.key("up").plain(up.saturating_sub(up_before));
            json.key("down").plain(down.saturating_sub(down_before));
            json.key("upTotal").plain(up).key("downTotal").plain(down);
            json.close_object();
            Some(json.finish().into())
        })
    }
}
