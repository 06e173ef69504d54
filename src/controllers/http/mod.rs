//! What every dialect of the API shares: heads, bodies, routes, permissions, JSON.
//!
//! Pure, all of it: no sockets, no clock. [`super::gate`] owns the connections and calls these.

pub mod access;
pub mod chunked;
pub mod head;
pub mod json;
pub mod lockout;
pub mod route;

use std::borrow::Cow;

use json::Json;
use serde_json::Value;

/// The methods that some route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// `OPTIONS`, for CORS only.
    Options,
    /// Any other token.
    Other,
}

impl Method {
    /// Every method with its name on the wire.
    const NAMES: [(Self, &'static str); 6] = [
        (Self::Get, "GET"),
        (Self::Post, "POST"),
        (Self::Put, "PUT"),
        (Self::Patch, "PATCH"),
        (Self::Delete, "DELETE"),
        (Self::Options, "OPTIONS"),
    ];

    /// The method of that name; names are case-sensitive (RFC 9110 section 9.1).
    #[must_use]
    pub fn parse(name: &str) -> Self {
        let mut names = Self::NAMES.into_iter();
        let found = names.find(|(_, known)| *known == name);
        found.map_or(Self::Other, |(method, _)| method)
    }

    /// Its name on the wire; [`Method::Other`] has none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let mut names = Self::NAMES.into_iter();
        let found = names.find(|(method, _)| *method == self);
        found.map_or("", |(_, name)| name)
    }
}

/// What a handler is asked.
pub struct Request<'a> {
    /// The `{}` segments of the route's pattern, percent-decoded, in order.
    pub parameters: Vec<String>,
    /// The query, undecoded.
    pub query: Query<'a>,
    /// The body, decoded from its transfer coding.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// The `index`th parameter; empty when the route has no such one.
    #[must_use]
    pub fn parameter(&self, index: usize) -> &str {
        self.parameters.get(index).map_or("", String::as_str)
    }

    /// The body as a JSON object. `None`: it is none, or empty.
    #[must_use]
    pub fn object(&self) -> Option<Object> {
        match serde_json::from_slice(self.body) {
            Ok(Value::Object(members)) => Some(Object(members)),
            _ => None,
        }
    }
}

/// A decoded JSON object whose member names match in any case, as Go's decoder has it.
pub struct Object(serde_json::Map<String, Value>);

/// A member has a type that its meaning does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

impl Object {
    /// The member of that name; `null` counts as absent, an exact spelling wins.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        let any_case = || {
            let mut members = self.0.iter();
            members
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        self.0
            .get(name)
            .or_else(any_case)
            .filter(|value| !value.is_null())
    }

    /// A string member.
    ///
    /// # Errors
    /// [`WrongType`] when it is there and no string.
    pub fn string(&self, name: &str) -> Result<Option<&str>, WrongType> {
        self.typed(name, Value::as_str)
    }

    /// A boolean member.
    ///
    /// # Errors
    /// [`WrongType`] when it is there and no boolean.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, WrongType> {
        self.typed(name, Value::as_bool)
    }

    /// A port member, 0 to 65535.
    ///
    /// # Errors
    /// [`WrongType`] when it is there and no such number.
    pub fn port(&self, name: &str) -> Result<Option<u16>, WrongType> {
        self.typed(name, |value| {
            value.as_u64().and_then(|n| u16::try_from(n).ok())
        })
    }

    /// A member that is an array of strings.
    ///
    /// # Errors
    /// [`WrongType`] when it is there and not that.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&str>>, WrongType> {
        self.typed(name, |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WrongType> {
        let taken = self.member(name).map(|value| take(value).ok_or(WrongType));
        taken.transpose()
    }
}

/// The part of a request target after the question mark.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a>(pub &'a str);

impl<'a> Query<'a> {
    /// The first value of that name, decoded (`+` is a space); `None` when it is absent or not
    /// decodable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key != name {
                return None;
            }
            if value.contains('+') {
                return percent_decode(&value.replace('+', " "))
                    .map(|v| Cow::Owned(v.into_owned()));
            }
            percent_decode(value)
        })
    }
}

/// `text` with its `%XX` made bytes. `None`: a `%` without two digits, or bytes that are no UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// What a handler answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// `Content-Type`; none with an empty body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Further header fields, each with its line end. They do not cross to the REST server's threads
    /// and back: for what is answered at the gate.
    pub fields: String,
    /// Whether the process starts anew once this has been sent; likewise at the gate only.
    pub restarts: bool,
}

impl Response {
    /// 204, no body.
    #[must_use]
    pub fn no_content() -> Self {
        Self::empty(204)
    }

    /// A status without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            content_type: "",
            body: Vec::new(),
            fields: String::new(),
            restarts: false,
        }
    }

    /// A body of that type.
    #[must_use]
    pub fn of(content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            content_type,
            body,
            ..Self::empty(200)
        }
    }

    /// 200 with JSON.
    #[must_use]
    pub fn json(json: Json) -> Self {
        Self::of("application/json", json.finish())
    }

    /// 200 `{"status":"ok"}`: what was asked for has been done, or will be at once.
    #[must_use]
    pub fn status_ok() -> Self {
        let mut json = Json::new();
        json.open_object().key("status").string("ok").close_object();
        Self::json(json)
    }

    /// A failure as mihomo reports it: `{"message":"…"}`.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Self {
        let mut json = Json::new();
        json.open_object()
            .key("message")
            .string(message)
            .close_object();
        Self {
            status,
            ..Self::json(json)
        }
    }

    /// 400 `Body invalid`: the body or a parameter cannot be read.
    #[must_use]
    pub fn body_invalid() -> Self {
        Self::error(400, "Body invalid")
    }

    /// 404 `Resource not found`: the route is known, what it names is not.
    #[must_use]
    pub fn resource_not_found() -> Self {
        Self::error(404, "Resource not found")
    }

    /// 404 for a path that no route has: plain text, as mihomo's router answers.
    #[must_use]
    pub fn no_route() -> Self {
        Self {
            status: 404,
            ..Self::of(
                "text/plain; charset=utf-8",
                b"404 page not found\n".to_vec(),
            )
        }
    }
}

impl From<WrongType> for Response {
    fn from(_: WrongType) -> Self {
        Self::body_invalid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_happens_once_and_to_utf8_only() {
        assert_eq!(
            percent_decode("a%2Fb%20%F0%9F%87%AD").as_deref(),
            Some("a/b \u{1f1ed}")
        );
        assert_eq!(percent_decode("%2525").as_deref(), Some("%25"));
        for bad in ["%", "%2", "%zz", "%+1", "%ff", "%c3%28"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn queries_give_the_first_value_of_a_name() {
        let query = Query("level=debug&format=&x&level=info&n=a+b%2B");
        assert_eq!(query.get("level").as_deref(), Some("debug"));
        assert_eq!(query.get("format").as_deref(), Some(""));
        assert_eq!(query.get("x").as_deref(), Some(""));
        assert_eq!(query.get("n").as_deref(), Some("a b+"));
        assert_eq!(query.get("evel"), None);
    }

    #[test]
    fn members_match_in_any_case_and_null_is_absent() {
        let request = Request {
            parameters: Vec::new(),
            query: Query(""),
            body: br#"{"Mode":"Rule","port":65536,"ipv6":null,"allow-lan":1}"#,
        };
        let object = request.object().unwrap();
        assert_eq!(object.string("mode"), Ok(Some("Rule")));
        assert_eq!(object.port("port"), Err(WrongType));
        assert_eq!(object.boolean("ipv6"), Ok(None));
        assert_eq!(object.boolean("allow-lan"), Err(WrongType));
    }

    proptest::proptest! {
        #[test]
        fn decoding_anything_never_panics(text: String) {
            let _ = percent_decode(&text);
            let _ = Query(&text).get("name");
        }
    }
}
