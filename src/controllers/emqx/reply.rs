//! The envelope: `{"code":…,"data":…,"meta":…}` (emqx-api.md 1.3, 1.4).

use serde_json::Value;

use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::Time;
use crate::mqtt::broker::Broker;
use crate::mqtt::remote::Unavailable;

/// Bytes of data of one answer; a page that is larger is refused.
pub const DATA_BYTES_MAX: usize = 3 << 20;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// EMQX's code.
    code: u16,
    /// In the body.
    message: String,
}

impl Failure {
    /// 101: the broker cannot be asked.
    pub const RPC: u16 = 101;
    /// 102: anything else.
    pub const UNKNOWN: u16 = 102;
    /// 105: no such user.
    pub const NO_USER: u16 = 105;
    /// 107: a parameter is missing.
    pub const MISSING: u16 = 107;
    /// 108: a parameter is wrong.
    pub const BAD_PARAMETER: u16 = 108;
    /// 109: the body is no JSON.
    pub const NOT_JSON: u16 = 109;
    /// 112: no such client.
    pub const NO_CLIENT: u16 = 112;
    /// 115: no topic, or a wrong one.
    pub const BAD_TOPIC: u16 = 115;
    /// 116: no such quality of service.
    pub const BAD_QOS: u16 = 116;
    /// 500, in JSON and as status.
    pub const INTERNAL: u16 = 500;
    /// 404, in JSON and as status.
    pub const NOT_FOUND: u16 = 404;

    /// A failure with its message.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// 108 `bad_params`.
    pub fn bad_params() -> Self {
        Self::new(Self::BAD_PARAMETER, "bad_params")
    }

    /// The HTTP status of the seed.
    fn status(&self) -> u16 {
        match self.code {
            Self::RPC => 503,
            Self::UNKNOWN | Self::INTERNAL => 500,
            Self::NO_USER | Self::NO_CLIENT | Self::NOT_FOUND => 404,
            _ => 400,
        }
    }

    /// Writes the members of a failure.
    pub fn write(&self, json: &mut Json) {
        json.key("code").plain(self.code);
        json.key("message").string(&self.message);
    }

    fn response(&self, context: &Context) -> Response {
        let mut json = Json::new();
        json.open_object();
        self.write(&mut json);
        json.close_object();
        let status = match context.emqx.emqx_status {
            // What is no route stays one.
            true if self.code != Self::NOT_FOUND => 200,
            _ => self.status(),
        };
        Response {
            status,
            ..Response::json(json)
        }
    }
}

impl From<Unavailable> for Failure {
    fn from(unavailable: Unavailable) -> Self {
        Self::new(Self::RPC, unavailable.to_string())
    }
}

/// What a handler answers.
pub type Outcome = Result<Json, Failure>;

/// The response for an outcome.
pub fn answer(context: &Context, outcome: Outcome) -> Response {
    match outcome {
        Ok(json) => Response::json(json),
        Err(failure) => failure.response(context),
    }
}

/// `{"code":0}`.
pub fn done() -> Json {
    let mut json = Json::new();
    json.open_object().key("code").plain(0).close_object();
    json
}

/// `{"code":0,"data":…}`; `write` appends one value.
pub fn data(write: impl FnOnce(&mut Json)) -> Json {
    let mut json = Json::new();
    json.open_object().key("code").plain(0).key("data");
    write(&mut json);
    json.close_object();
    json
}

/// Runs `call` on the broker's thread.
pub fn ask<T: Send + 'static>(
    context: &Context,
    call: impl FnOnce(&mut Broker, Time) -> T + Send + 'static,
) -> Result<T, Failure> {
    Ok(context.control.broker().ask(call)?)
}

/// The body as JSON.
///
/// # Errors
/// 109: it is none.
pub fn body(request: &Request<'_>) -> Result<Value, Failure> {
    serde_json::from_slice(request.body)
        .map_err(|_| Failure::new(Failure::NOT_JSON, "the body is not JSON"))
}

/// The items of a batch: an array, or one object alone; at most `items_max`.
///
/// # Errors
/// 108, 109.
pub fn items(request: &Request<'_>, items_max: usize) -> Result<Vec<Value>, Failure> {
    let items = match body(request)? {
        Value::Array(items) => items,
        one @ Value::Object(_) => vec![one],
        _ => return Err(Failure::bad_params()),
    };
    if items.len() > items_max {
        let message = format!("more than {items_max} items");
        return Err(Failure::new(Failure::BAD_PARAMETER, message));
    }
    Ok(items)
}

/// Takes the node's name, the first parameter, off a request.
///
/// # Errors
/// 404: it is not this node's, and there is no other.
pub fn local(context: &Context, request: &mut Request<'_>) -> Result<(), Response> {
    if *context.emqx.node == *request.parameter(0) {
        request.parameters.remove(0);
        Ok(())
    } else {
        Err(Failure::new(Failure::NOT_FOUND, "Not found.").response(context))
    }
}

/// What the gate answers in place of a route. 401 is EMQX's own text: its clients look for the challenge.
pub fn refuse(status: u16, message: &str) -> Response {
    if status == 401 {
        return Response {
            status,
            fields: "WWW-Authenticate: Basic Realm=\"minirest-server\"\r\n".to_owned(),
            ..Response::of("text/plain", b"UNAUTHORIZED".to_vec())
        };
    }
    let mut json = Json::new();
    let code = match status {
        400 => Failure::NOT_JSON,
        status => status,
    };
    let message = match status {
        404 => "Not found.",
        405 => "Method not allowed.",
        _ => message,
    };
    json.open_object();
    Failure::new(code, message).write(&mut json);
    json.close_object();
    Response {
        status,
        ..Response::json(json)
    }
}
