//! `/logs`: log lines as they are written, at a level of the client's choice.

use std::sync::Arc;

use bytes::Bytes;

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::route::Feed;
use crate::controllers::http::{Request, Response};
use crate::outbound::BoxFuture;
use crate::platform::clock;
use crate::platform::logger::{Level, Line, Subscription};

struct Logs {
    lines: Subscription,
    structured: bool,
}

/// Opens the feed; `level` is `info` when absent, `format=structured` gives the longer form.
pub(super) fn open(
    context: &Arc<Context>,
    request: &Request<'_>,
) -> Result<Box<dyn Feed>, Response> {
    let level = request.query.get("level").filter(|level| !level.is_empty());
    let level: Level = match level {
        Some(level) => level.parse().map_err(|_| Response::body_invalid())?,
        None => Level::Info,
    };
    Ok(Box::new(Logs {
        lines: context.control.logger().subscribe(level),
        structured: request.query.get("format").as_deref() == Some("structured"),
    }))
}

impl Feed for Logs {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async {
            let line = self.lines.next().await?;
            let json = if self.structured {
                structured(&line)
            } else {
                plain(&line)
            };
            Some(json.finish().into())
        })
    }
}

fn plain(line: &Line) -> Json {
    let mut json = Json::new();
    json.open_object().key("type").string(line.level.as_str());
    json.key("payload").string(line.message()).close_object();
    json
}

fn structured(line: &Line) -> Json {
    let (hour, minute, second) = clock::time_of_day(line.time, clock::local_offset(line.time));
    let level = match line.level {
        Level::Warning => "warn",
        other => other.as_str(),
    };
    let mut json = Json::new();
    json.open_object();
    json.key("time")
        .quoted(format_args!("{hour:02}:{minute:02}:{second:02}"));
    json.key("level")
        .string(level)
        .key("message")
        .string(line.message());
    json.key("fields").open_array().close_array().close_object();
    json
}
