//! Which clients a request looks for (emqx-api.md 2.4): every filter that is given must fit.

use std::net::IpAddr;

use super::reply::Failure;
use crate::controllers::http::Query;
use crate::mqtt::broker::Broker;
use crate::mqtt::session::Session;

/// The zone that every client is in; EMQX's other one is for a listener of its own.
pub const ZONE: &str = "external";

/// The filters of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filters {
    clientid: Option<String>,
    username: Option<String>,
    zone: Option<String>,
    ip_address: Option<IpAddr>,
    conn_state: Option<String>,
    clean_start: Option<bool>,
    proto_name: Option<String>,
    proto_ver: Option<u8>,
    like_clientid: Option<String>,
    like_username: Option<String>,
    /// Seconds since 1970: from, to.
    created_at: (Option<u64>, Option<u64>),
    connected_at: (Option<u64>, Option<u64>),
    mqueue_len: (Option<u64>, Option<u64>),
    mqueue_dropped: (Option<u64>, Option<u64>),
}

impl Filters {
    /// Those in the query.
    ///
    /// # Errors
    /// 108: a value of another type than its filter's.
    pub fn of(query: Query<'_>) -> Result<Self, Failure> {
        let text = |name| query.get(name).map(String::from);
        let range = |name: &str| {
            let gte = parsed(query, &format!("_gte_{name}"), "integer")?;
            let lte = parsed(query, &format!("_lte_{name}"), "integer")?;
            Ok::<_, Failure>((gte, lte))
        };
        Ok(Self {
            clientid: text("clientid"),
            username: text("username"),
            zone: text("zone"),
            ip_address: parsed(query, "ip_address", "ip_address")?,
            conn_state: text("conn_state"),
            clean_start: parsed(query, "clean_start", "boolean")?,
            proto_name: text("proto_name"),
            proto_ver: parsed(query, "proto_ver", "integer")?,
            like_clientid: text("_like_clientid"),
            like_username: text("_like_username"),
            created_at: range("created_at")?,
            connected_at: range("connected_at")?,
            mqueue_len: range("mqueue_len")?,
            mqueue_dropped: range("mqueue_dropped")?,
        })
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a session fits.
    pub fn fits(&self, broker: &Broker, session: &Session) -> bool {
        let username = session.username.as_deref();
        let equal = |want: &Option<String>, is: Option<&str>| {
            want.as_deref().is_none_or(|want| is == Some(want))
        };
        // An exact filter on the same field makes the other one needless.
        let like = |want: &Option<String>, exact: &Option<String>, is: Option<&str>| {
            want.as_deref()
                .is_none_or(|want| exact.is_some() || is.is_some_and(|is| is.contains(want)))
        };
        let clientid = Some(&*session.client_id);
        let seconds = |time| broker.unix_ms(time) / 1000;
        equal(&self.clientid, clientid)
            && equal(&self.username, username)
            && like(&self.like_clientid, &self.clientid, clientid)
            && like(&self.like_username, &self.username, username)
            && equal(&self.zone, Some(ZONE))
            && equal(&self.conn_state, Some(conn_state(session)))
            && equal(&self.proto_name, Some(proto_name(session)))
            && self
                .ip_address
                .is_none_or(|ip| ip == session.address.ip().to_canonical())
            && self.clean_start.is_none_or(|clean| clean == session.clean)
            && self
                .proto_ver
                .is_none_or(|version| version == session.version.level())
            && within(self.created_at, || seconds(session.created))
            && within(self.connected_at, || seconds(session.connected))
            && within(self.mqueue_len, || session.waiting() as u64)
            && within(self.mqueue_dropped, || session.queue_dropped)
    }
}

/// `MQTT`, or what 3.1 called itself.
pub fn proto_name(session: &Session) -> &'static str {
    match session.version.level() {
        3 => "MQIsdp",
        _ => "MQTT",
    }
}

fn conn_state(session: &Session) -> &'static str {
    match session.link {
        Some(_) => "connected",
        None => "disconnected",
    }
}

fn within((gte, lte): (Option<u64>, Option<u64>), is: impl Fn() -> u64) -> bool {
    gte.is_none_or(|gte| is() >= gte) && lte.is_none_or(|lte| is() <= lte)
}

fn parsed<T: std::str::FromStr>(
    query: Query<'_>,
    name: &str,
    kind: &str,
) -> Result<Option<T>, Failure> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let message = format!("Can't convert <<\"{text}\">> to {kind} type");
        Failure::new(Failure::BAD_PARAMETER, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_filters() {
        assert!(
            Filters::of(Query("_page=1&_limit=2&foo=bar"))
                .unwrap()
                .is_empty()
        );
        assert!(!Filters::of(Query("username=ann")).unwrap().is_empty());
    }

    #[test]
    fn values_of_another_type_are_named() {
        for query in [
            "proto_ver=x",
            "clean_start=1",
            "_gte_created_at=a",
            "ip_address=1.2.3",
        ] {
            assert!(Filters::of(Query(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn ranges_have_two_ends() {
        assert!(within((None, None), || 5));
        assert!(within((Some(5), Some(5)), || 5));
        assert!(!within((Some(6), None), || 5));
        assert!(!within((None, Some(4)), || 5));
    }
}
