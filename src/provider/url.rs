//! Addresses of downloads: `http://` and `https://`, as far as fetching a file needs RFC 3986.

use std::fmt::Write as _;

use crate::metadata::{Endpoint, Host};

/// Where a download is.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Url {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The server.
    pub endpoint: Endpoint,
    /// As the `Host` field has it.
    authority: Box<str>,
    /// Path and query.
    target: Box<str>,
}

impl Url {
    /// Reads an address; the fragment is dropped. `None`: another scheme, a user before the host, no
    /// usable host, or bytes that no address has.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        let endpoint = match Endpoint::parse(authority) {
            Some(endpoint) => endpoint,
            None => Endpoint {
                host: Host::parse(authority)?,
                port: if tls { 443 } else { 80 },
            },
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(Self {
            tls,
            endpoint,
            authority: authority.into(),
            target: format!("{slash}{target}").into(),
        })
    }

    /// Where a `Location` seen here leads (RFC 3986 section 5, without `..`).
    #[must_use]
    pub fn join(&self, location: &str) -> Option<Self> {
        let scheme = if self.tls { "https" } else { "http" };
        if location.contains("://") {
            // Never from an encrypted address to one that anybody on the way can change.
            return Self::parse(location).filter(|next| next.tls || !self.tls);
        }
        if let Some(other) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{other}"));
        }
        if location.starts_with('/') {
            return Self::parse(&format!("{scheme}://{}{location}", self.authority));
        }
        let (folder, _) = self.target.split('?').next()?.rsplit_once('/')?;
        Self::parse(&format!("{scheme}://{}{folder}/{location}", self.authority))
    }

    /// Whether both have the same scheme, host and port.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.tls == other.tls && self.endpoint == other.endpoint
    }

    /// The head of a request with a body of so many bytes, for what is at `path` below this address.
    /// Bytes that a target may not have are escaped, so none of them ends the line. The fields are the
    /// caller's to check.
    #[must_use]
    pub fn request_with_body(
        &self,
        method: &str,
        path: &str,
        fields: &[(Box<str>, Box<str>)],
        length: usize,
    ) -> String {
        let mut text = format!("{method} ");
        match path.strip_prefix('/').unwrap_or(path) {
            "" => text.push_str(&self.target),
            below => {
                text.push_str(self.target.trim_end_matches('/'));
                if !below.starts_with('?') {
                    text.push('/');
                }
                for byte in below.bytes() {
                    match byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte) {
                        true => text.push(char::from(byte)),
                        // Writing to a String cannot fail.
                        false => {
                            let _ = write!(text, "%{byte:02X}");
                        }
                    }
                }
            }
        }
        let _ = write!(text, " HTTP/1.1\r\nhost: {}\r\n", self.authority);
        for (name, value) in fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if length > 0 || matches!(method, "POST" | "PUT") {
            let _ = write!(text, "content-length: {length}\r\n");
        }
        text.push_str("\r\n");
        text
    }

    /// The request for it.
    #[must_use]
    pub fn request(
        &self,
        agent: &str,
        fields: &[(Box<str>, Box<str>)],
        etag: Option<&str>,
    ) -> String {
        let mut text = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\nConnection: close\r\n",
            self.target, self.authority
        );
        let own = |name: &str| {
            fields
                .iter()
                .any(|(field, _)| field.eq_ignore_ascii_case(name))
        };
        // Writing to a String cannot fail.
        if !own("user-agent") {
            let _ = write!(text, "User-Agent: {agent}\r\n");
        }
        for (name, value) in fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if let Some(etag) = etag {
            let _ = write!(text, "If-None-Match: {etag}\r\n");
        }
        text.push_str("\r\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let url = Url::parse("HTTPS://a.org/x/y?z=1#f").unwrap();
        assert_eq!(
            (url.tls, url.endpoint.to_string()),
            (true, "a.org:443".into())
        );
        assert!(
            url.request("me", &[], Some("\"e\""))
                .starts_with("GET /x/y?z=1 HTTP/1.1\r\nHost: a.org\r\n")
        );
        let url = Url::parse("http://[::1]:8080").unwrap();
        assert_eq!(
            (&*url.target, url.endpoint.to_string()),
            ("/", "[::1]:8080".into())
        );
        for bad in [
            "ftp://a/",
            "http://",
            "http://u:p@a/",
            "a.org",
            "http://a b/",
            "http://a/\r\nX: y",
        ] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn requests_with_bodies_stay_one_line_whatever_the_path() {
        let url = Url::parse("http://a.org:81/hook/").unwrap();
        let first = |path: &str| {
            let head = url.request_with_body("POST", path, &[("x".into(), "y".into())], 3);
            assert!(
                head.ends_with(" HTTP/1.1\r\nhost: a.org:81\r\nx: y\r\ncontent-length: 3\r\n\r\n")
            );
            head.split(" HTTP/").next().unwrap().to_owned()
        };
        assert_eq!(first(""), "POST /hook/");
        assert_eq!(first("/a/b?c=d"), "POST /hook/a/b?c=d");
        assert_eq!(first("?c=%20"), "POST /hook?c=%20");
        assert_eq!(
            first("a b\r\nx: \u{e9}#"),
            "POST /hook/a%20b%0D%0Ax:%20%C3%A9%23"
        );
        let get = url.request_with_body("GET", "", &[], 0);
        assert_eq!(get, "GET /hook/ HTTP/1.1\r\nhost: a.org:81\r\n\r\n");
    }

    #[test]
    fn redirects_lead_on_but_never_out_of_tls() {
        let url = Url::parse("https://a.org/x/y?q").unwrap();
        for (location, want) in [
            ("/z", Some("https://a.org/z")),
            ("z?w", Some("https://a.org/x/z?w")),
            ("//b.org/z", Some("https://b.org/z")),
            ("https://b.org", Some("https://b.org/")),
            ("http://a.org/z", None),
        ] {
            assert_eq!(url.join(location), want.and_then(Url::parse), "{location}");
        }
    }
}
