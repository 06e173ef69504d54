//! Publishing, and subscribing of clients, from outside (emqx-api.md 2.6). Rules of access bind clients
//! only, so none is asked here.

use crate::encoding::BASE64;
use serde_json::Value;

use super::reply::{Failure, Outcome, answer, ask, body, data, done, items};
use crate::controllers::Context;
use crate::controllers::http::json::Json;
use crate::controllers::http::{Request, Response};
use crate::mqtt::broker::NotSubscribed;
use crate::mqtt::codec::property::id;
use crate::mqtt::codec::{PropertyWriter, Qos};
use crate::mqtt::hook::Publication;
use crate::mqtt::topic::{self, Wanted};

/// Bytes of a body with payloads.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What a batch may hold.
const ITEMS_MAX: usize = 1000;

/// `POST /mqtt/publish`.
pub fn publish(context: &Context, request: &Request<'_>) -> Response {
    answer(
        context,
        object(request).and_then(|item| publish_one(context, &item)),
    )
}

/// `POST /mqtt/publish_batch`: each for itself.
pub fn publish_batch(context: &Context, request: &Request<'_>) -> Response {
    let done = batch(request, |json, item| {
        json.key("topic")
            .string(topics_of(item).unwrap_or_default());
        publish_one(context, item)
    });
    answer(context, done)
}

/// `POST /mqtt/subscribe`.
pub fn subscribe(context: &Context, request: &Request<'_>) -> Response {
    answer(
        context,
        object(request).and_then(|item| subscribe_one(context, &item)),
    )
}

/// `POST /mqtt/subscribe_batch`.
pub fn subscribe_batch(context: &Context, request: &Request<'_>) -> Response {
    let done = batch(request, |json, item| {
        write_subject(json, item);
        subscribe_one(context, item)
    });
    answer(context, done)
}

/// `POST /mqtt/unsubscribe`.
pub fn unsubscribe(context: &Context, request: &Request<'_>) -> Response {
    answer(
        context,
        object(request).and_then(|item| unsubscribe_one(context, &item)),
    )
}

/// `POST /mqtt/unsubscribe_batch`.
pub fn unsubscribe_batch(context: &Context, request: &Request<'_>) -> Response {
    let done = batch(request, |json, item| {
        write_subject(json, item);
        unsubscribe_one(context, item)
    });
    answer(context, done)
}

fn write_subject(json: &mut Json, item: &Value) {
    json.key("clientid")
        .string(text(item, "clientid").unwrap_or_default());
    json.key("topic")
        .string(topics_of(item).unwrap_or_default());
}

fn object(request: &Request<'_>) -> Result<Value, Failure> {
    let item = body(request)?;
    match item.is_object() {
        true => Ok(item),
        false => Err(Failure::bad_params()),
    }
}

/// Does `act` for each item; what it says of the item stands beside its code.
fn batch(request: &Request<'_>, act: impl Fn(&mut Json, &Value) -> Outcome) -> Outcome {
    let items = items(request, ITEMS_MAX)?;
    Ok(data(|json| {
        json.open_array();
        for item in &items {
            json.open_object();
            match act(json, item) {
                Ok(_) => {
                    json.key("code").plain(0);
                }
                Err(failure) => failure.write(json),
            }
            json.close_object();
        }
        json.close_array();
    }))
}

fn text<'v>(item: &'v Value, name: &str) -> Option<&'v str> {
    item.get(name)?.as_str()
}

/// `topic`, else `topics`; either may name several, between commas.
fn topics_of(item: &Value) -> Option<&str> {
    let filled = |name| text(item, name).filter(|text| !text.is_empty());
    filled("topic").or_else(|| filled("topics"))
}

fn bad_topic() -> Failure {
    Failure::new(Failure::BAD_TOPIC, "bad_topic")
}

/// Those topics that `fit`; the others are left out without a word, as EMQX does.
fn topics(item: &Value, fit: impl Fn(&str) -> bool) -> Result<Vec<String>, Failure> {
    let named = topics_of(item).ok_or_else(bad_topic)?;
    let fitting: Vec<String> = named
        .split(',')
        .map(str::trim)
        .filter(|topic| fit(topic))
        .map(str::to_owned)
        .collect();
    match fitting.is_empty() {
        true => Err(bad_topic()),
        false => Ok(fitting),
    }
}

fn qos(item: &Value) -> Option<Qos> {
    match item.get("qos") {
        None | Some(Value::Null) => Some(Qos::AtMostOnce),
        Some(value) => Qos::from_bits(u8::try_from(value.as_u64()?).ok()?),
    }
}

fn publish_one(context: &Context, item: &Value) -> Outcome {
    let topics = topics(item, topic::is_name)?;
    let qos = qos(item).ok_or_else(Failure::bad_params)?;
    let retain = match item.get("retain") {
        None | Some(Value::Null) => false,
        Some(value) => value.as_bool().ok_or_else(Failure::bad_params)?,
    };
    let payload = payload(item)?;
    let client_id = match item.get("clientid") {
        None | Some(Value::Null) => "",
        Some(value) => value
            .as_str()
            .ok_or_else(|| Failure::new(Failure::BAD_PARAMETER, "bad clientid: must be string"))?,
    };
    let client_id: Box<str> = client_id.into();
    let properties = properties(item)?;
    let published = ask(context, move |broker, now| {
        let mut all = true;
        for topic in topics {
            let publication = Publication {
                topic: topic.into(),
                payload: payload.clone(),
                properties: properties.clone(),
                qos,
                retain,
                client_id: client_id.clone(),
            };
            all &= broker.publish_for(now, &publication).is_some();
        }
        all
    })?;
    match published {
        true => Ok(done()),
        false => Err(Failure::bad_params()),
    }
}

fn payload(item: &Value) -> Result<Box<[u8]>, Failure> {
    let text = match item.get("payload") {
        None | Some(Value::Null) => return Ok(Box::default()),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if self::text(item, "encoding") == Some("base64") {
        let decoded = BASE64.decode(text.as_bytes());
        return decoded.map(Into::into).map_err(|_| Failure::bad_params());
    }
    Ok(text.into_bytes().into())
}

/// `properties` of MQTT 5, and `user_properties` beside it.
fn properties(item: &Value) -> Result<PropertyWriter, Failure> {
    let mut writer = PropertyWriter::default();
    if let Some(given) = item.get("properties") {
        let members = given.as_object().ok_or_else(Failure::bad_params)?;
        for (name, value) in members {
            let number = || value.as_u64().and_then(|number| u32::try_from(number).ok());
            let written = match name.as_str() {
                "payload_format_indicator" => match number() {
                    Some(format @ (0 | 1)) => {
                        writer.byte(id::PAYLOAD_FORMAT, u8::from(format == 1));
                        Some(())
                    }
                    _ => None,
                },
                "message_expiry_interval" => {
                    number().map(|seconds| writer.u32(id::MESSAGE_EXPIRY, seconds))
                }
                "response_topic" => value
                    .as_str()
                    .filter(|topic| topic::is_name(topic))
                    .map(|topic| writer.text(id::RESPONSE_TOPIC, topic)),
                "correlation_data" => value
                    .as_str()
                    .map(|data| writer.binary(id::CORRELATION_DATA, data.as_bytes())),
                "content_type" => value
                    .as_str()
                    .map(|kind| writer.text(id::CONTENT_TYPE, kind)),
                // A server adds them for its subscribers; nobody publishes with one.
                "subscription_identifier" => number().map(drop),
                "user_properties" => pairs(&mut writer, value),
                _ => None,
            };
            written.ok_or_else(Failure::bad_params)?;
        }
    }
    if let Some(value) = item.get("user_properties") {
        pairs(&mut writer, value).ok_or_else(Failure::bad_params)?;
    }
    Ok(writer)
}

fn pairs(writer: &mut PropertyWriter, value: &Value) -> Option<()> {
    for (name, value) in value.as_object()? {
        writer.pair(name, value.as_str()?);
    }
    Some(())
}

fn clientid(item: &Value) -> Result<String, Failure> {
    let bad = || Failure::new(Failure::BAD_PARAMETER, "bad clientid: must be string");
    text(item, "clientid").map(str::to_owned).ok_or_else(bad)
}

fn failed(why: NotSubscribed) -> Failure {
    match why {
        NotSubscribed::NoSession => Failure::new(Failure::NO_CLIENT, "channel_not_found"),
        NotSubscribed::BadFilter => bad_topic(),
        NotSubscribed::Full => Failure::new(Failure::UNKNOWN, "too many subscriptions"),
    }
}

fn subscribe_one(context: &Context, item: &Value) -> Outcome {
    let filters = topics(item, |topic| Wanted::parse(topic).is_some())?;
    let qos = qos(item).ok_or_else(|| Failure::new(Failure::BAD_QOS, "bad_qos"))?;
    let clientid = clientid(item)?;
    ask(context, move |broker, now| {
        for filter in &filters {
            broker
                .subscribe_for(now, &clientid, filter, qos)
                .map_err(failed)?;
        }
        Ok(done())
    })?
}

fn unsubscribe_one(context: &Context, item: &Value) -> Outcome {
    let filter = text(item, "topic").ok_or_else(bad_topic)?.to_owned();
    let clientid = clientid(item)?;
    ask(context, move |broker, now| {
        let done_so = broker.unsubscribe_for(now, &clientid, &filter);
        done_so.map(|_| done()).map_err(failed)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn topics_are_split_and_the_wrong_ones_left_out() {
        let check = |text: &str| topics(&item(text), topic::is_name).ok();
        assert_eq!(check(r#"{"topic":"a"}"#), Some(vec!["a".to_owned()]));
        let two = Some(vec!["a".to_owned(), "c".to_owned()]);
        assert_eq!(check(r#"{"topics":"a,b/#,c"}"#), two);
        assert_eq!(check(r#"{"topic":"a,c","topics":"x"}"#), two);
        for bad in [
            r#"{"topic":"+"}"#,
            r#"{"topic":""}"#,
            "{}",
            r#"{"topic":1}"#,
        ] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }

    #[test]
    fn payloads_are_text_json_or_base64() {
        let check = |text: &str| payload(&item(text)).ok().map(<[u8]>::into_vec);
        assert_eq!(check(r#"{"payload":"hi"}"#), Some(b"hi".to_vec()));
        assert_eq!(check("{}"), Some(Vec::new()));
        assert_eq!(check(r#"{"payload":{"a":1}}"#), Some(b"{\"a\":1}".to_vec()));
        let base64 = r#"{"payload":"AAH/","encoding":"base64"}"#;
        assert_eq!(check(base64), Some(vec![0, 1, 255]));
        assert_eq!(check(r#"{"payload":"?","encoding":"base64"}"#), None);
    }

    #[test]
    fn properties_that_are_none_are_refused() {
        assert!(
            properties(&item(
                r#"{"properties":{"content_type":"x","user_properties":{"a":"b"}}}"#
            ))
            .is_ok()
        );
        for bad in [
            r#"{"properties":{"colour":"x"}}"#,
            r#"{"properties":{"message_expiry_interval":"x"}}"#,
            r#"{"properties":[]}"#,
            r#"{"user_properties":{"a":1}}"#,
        ] {
            assert!(properties(&item(bad)).is_err(), "{bad}");
        }
    }
}
