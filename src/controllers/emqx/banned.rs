//! Who must stay out (emqx-api.md 2.10).

use serde_json::Value;

use super::page::{Count, Page};
use super::reply::{Failure, Outcome, answer, ask, body, data, done};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::banned::{Ban, Who};

/// How long a ban lasts that names no end, seconds.
const LASTS: u64 = 300;

const AS: [&str; 3] = ["clientid", "username", "peerhost"];

/// `GET /banned`.
pub fn list(context: &Context, request: &Request<'_>) -> Response {
    let listed = Page::of(request.query).and_then(|page| {
        ask(context, move |broker, now| {
            let time = broker.unix_ms(now) / 1000;
            let bans = broker.bans();
            let rows = bans.iter().filter(|(_, ban)| ban.until > time);
            page.write(Count::Plain(bans.len()), rows, |json, (who, ban)| {
                write(json, who, ban);
            })
        })?
    });
    answer(context, listed)
}

fn write(json: &mut Json, who: &Who, ban: &Ban) {
    let [clientid, username, peerhost] = AS;
    json.open_object();
    match who {
        Who::ClientId(id) => json.key("who").string(id).key("as").string(clientid),
        Who::Username(name) => json.key("who").string(name).key("as").string(username),
        Who::Address(ip) => json.key("who").quoted(ip).key("as").string(peerhost),
    };
    json.key("by").string(&ban.by);
    json.key("reason")
        .string(ban.reason.as_deref().unwrap_or("undefined"));
    json.key("at").plain(ban.at);
    match ban.until {
        u64::MAX => json.key("until").string("infinity"),
        until => json.key("until").plain(until),
    };
    json.close_object();
}

fn who(kind: &str, text: &str) -> Result<Who, Failure> {
    let [clientid, username, peerhost] = AS;
    let bad = |message: &str| Failure::new(Failure::BAD_PARAMETER, message);
    if text.is_empty() {
        return Err(bad("value of 'who' must not be empty"));
    }
    if kind == clientid {
        Ok(Who::ClientId(text.into()))
    } else if kind == username {
        Ok(Who::Username(text.into()))
    } else if kind == peerhost {
        let address = text
            .parse()
            .map_err(|_| bad("value of 'who' must be an IP address"))?;
        Ok(Who::Address(address))
    } else {
        Err(bad(
            "value of 'as' must be one of: ['clientid', 'username', 'peerhost']",
        ))
    }
}

/// `POST /banned`.
pub fn add(context: &Context, request: &Request<'_>) -> Response {
    answer(context, add_one(context, request))
}

fn add_one(context: &Context, request: &Request<'_>) -> Outcome {
    let item = body(request)?;
    let text = |name| item.get(name).and_then(Value::as_str);
    let (Some(subject), Some(kind)) = (text("who"), text("as")) else {
        let message = "missing mandatory params: ['who', 'as']";
        return Err(Failure::new(Failure::MISSING, message));
    };
    let who = who(kind, subject)?;
    let time = |name: &str| match item.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(Failure::bad_params),
    };
    let (at, until) = (time("at")?, time("until")?);
    let (by, reason) = (text("by").unwrap_or("user"), text("reason").map(Into::into));
    let by: Box<str> = by.into();
    let shown = ask(context, move |broker, now| {
        let at = at.unwrap_or_else(|| broker.unix_ms(now) / 1000);
        let until = until.unwrap_or_else(|| at.saturating_add(LASTS));
        let ban = Ban {
            by,
            reason,
            at,
            until,
        };
        let banned = broker.ban(now, &who, ban.clone());
        banned.then(|| data(|json| write(json, &who, &ban)))
    })?;
    shown.ok_or_else(|| Failure::new(Failure::UNKNOWN, "too many bans"))
}

/// `DELETE /banned/{as}/{who}`: whether there is one or not.
pub fn remove(context: &Context, request: &Request<'_>) -> Response {
    let removed = who(request.parameter(0), request.parameter(1)).and_then(|who| {
        ask(context, move |broker, _| broker.lift_ban(&who))?;
        Ok(done())
    });
    answer(context, removed)
}
