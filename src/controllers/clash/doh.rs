//! `external-doh-server`: DNS over HTTPS for whoever reaches the controller (clash-api.md 1.13, RFC 8484).
//!
//! Its path is the configuration's, so it stands in no table: the gate leads that path here. No secret
//! is asked for: resolvers cannot give one, and DNS has none either. Errors are plain text.

use std::sync::Arc;

use crate::controllers::Context;
use crate::controllers::http::route::{Access, Answer, Route};
use crate::controllers::http::{Method, Request, Response};
use crate::outbound::BoxFuture;

/// The one media type.
const MEDIA_TYPE: &str = "application/dns-message";
/// Longest message that is read, as on a stream.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

const GET: Route = Route {
    method: Method::Get,
    pattern: "",
    access: Access::Open,
    answer: Answer::Later(get),
    guard: None,
    body_bytes_max: 0,
    slow: false,
};

const POST: Route = Route {
    method: Method::Post,
    answer: Answer::Later(post),
    body_bytes_max: MESSAGE_BYTES_MAX,
    ..GET
};

/// The route of the DoH path; `None`: not with this method.
#[must_use]
pub fn route(method: Method) -> Option<&'static Route> {
    match method {
        Method::Get => Some(&GET),
        Method::Post => Some(&POST),
        _ => None,
    }
}

type Later = Result<BoxFuture<'static, Response>, Response>;

fn get(context: &Arc<Context>, request: &Request<'_>) -> Later {
    let message = request.query.get("dns").unwrap_or_default();
    let decoded = crate::encoding::BASE64URL_NOPAD.decode(message.as_bytes());
    Ok(answer(
        context,
        decoded.map_err(|_| failure("dns is not base64url"))?,
    ))
}

fn post(context: &Arc<Context>, request: &Request<'_>) -> Later {
    Ok(answer(context, request.body.to_vec()))
}

fn answer(context: &Arc<Context>, message: Vec<u8>) -> BoxFuture<'static, Response> {
    let Some(answering) = context.control.dns_message(message) else {
        return Box::pin(std::future::ready(failure("DNS section is disabled")));
    };
    Box::pin(async move {
        match answering.await {
            Some(answer) => Response::of(MEDIA_TYPE, answer),
            None => failure("not a DNS query"),
        }
    })
}

fn failure(message: &str) -> Response {
    Response {
        status: 500,
        ..Response::of("text/plain; charset=utf-8", message.into())
    }
}
