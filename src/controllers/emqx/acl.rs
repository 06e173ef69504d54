//! Rules added while the broker runs, a row each (emqx-api.md 2.3).

use serde_json::Value;

use super::page::{Count, Page};
use super::reply::{Outcome, answer, ask, data, done};
use super::users::{by_login, items};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::acl::{Access, Row};
use crate::mqtt::topic;

/// `GET /emqx_acl`.
pub fn list(context: &Context, request: &Request<'_>) -> Response {
    let listed = Page::of(request.query).and_then(|page| {
        ask(context, move |broker, _| {
            let acl = broker.acl();
            page.write(Count::Plain(acl.row_count()), acl.rows(), |json, row| {
                write(json, row.0, row.1);
            })
        })?
    });
    answer(context, listed)
}

fn write(json: &mut Json, login: &str, row: &Row) {
    let action = match row.access {
        Some(Access::Publish) => "pub",
        Some(Access::Subscribe) => "sub",
        None => "pubsub",
    };
    json.open_object().key("login").string(login);
    json.key("topic").string(&row.topic);
    json.key("action").string(action);
    json.key("allow").plain(row.allow).close_object();
}

/// `GET /emqx_acl/{login}`: an object, or an array when there are several.
pub fn show(context: &Context, request: &Request<'_>) -> Response {
    let login = request.parameter(0).to_owned();
    let shown = ask(context, move |broker, _| {
        data(|json| match broker.acl().rows_of(&login) {
            [] => {
                json.open_object().close_object();
            }
            [one] => write(json, &login, one),
            several => {
                json.open_array();
                for row in several {
                    write(json, &login, row);
                }
                json.close_array();
            }
        })
    });
    answer(context, shown)
}

/// The row that an item describes, or the name of the member that is wrong.
fn row(item: &Value) -> Result<(&str, Row), &'static str> {
    let text = |name: &'static str| {
        let text = item.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).ok_or(name)
    };
    let login = text("login")?;
    let topic = text("topic")?;
    if !topic::is_filter(topic) {
        return Err("topic");
    }
    let access = match text("action")? {
        "pub" => Some(Access::Publish),
        "sub" => Some(Access::Subscribe),
        "pubsub" => None,
        _ => return Err("action"),
    };
    let allow = item.get("allow").and_then(Value::as_bool).ok_or("allow")?;
    let topic = topic.into();
    Ok((
        login,
        Row {
            topic,
            access,
            allow,
        },
    ))
}

/// `POST /emqx_acl`: each item for itself.
pub fn add(context: &Context, request: &Request<'_>) -> Response {
    answer(context, add_all(context, request))
}

fn add_all(context: &Context, request: &Request<'_>) -> Outcome {
    let mut results = Vec::new();
    for item in &items(request)? {
        let name = item.get("login").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        let result = match row(item) {
            Err(wrong) => format!("{{error,{wrong}}}"),
            Ok((login, row)) => {
                let login = login.to_owned();
                match ask(context, move |broker, now| broker.add_row(now, &login, row))? {
                    true => "ok".to_owned(),
                    false => "{error,full}".to_owned(),
                }
            }
        };
        results.push((name, result));
    }
    Ok(by_login(&results))
}

/// `DELETE /emqx_acl/{login}/{topic}`: every row of both, whether there is one or not.
pub fn remove(context: &Context, request: &Request<'_>) -> Response {
    let (login, topic) = (
        request.parameter(0).to_owned(),
        request.parameter(1).to_owned(),
    );
    let removed = ask(context, move |broker, now| {
        broker.remove_row(now, &login, &topic)
    });
    answer(context, removed.map(|_| done()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_member_is_named() {
        let check = |text: &str| {
            let item: Value = serde_json::from_str(text).unwrap();
            row(&item).map(|(login, _)| login.to_owned())
        };
        let right = r#"{"login":"u","topic":"t/#","action":"pubsub","allow":true}"#;
        assert_eq!(check(right), Ok("u".to_owned()));
        for (from, to, wrong) in [
            ("\"u\"", "1", "login"),
            ("t/#", "t/#/x", "topic"),
            ("pubsub", "all", "action"),
            ("true", "1", "allow"),
        ] {
            assert_eq!(check(&right.replace(from, to)), Err(wrong));
        }
    }
}
