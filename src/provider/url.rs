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
