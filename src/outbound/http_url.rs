//! `http:` and `https:` addresses, as far as a request needs them (RFC 3986 section 3).
//!
//! Pure. No user information, no fragments kept, no normalisation: what is asked for is what was
//! written.

use crate::metadata::{Endpoint, Host};

/// Longest address taken, in bytes; a server's own limit is usually 8 KiB for the whole head.
const BYTES_MAX: usize = 2048;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// Host and port to connect to.
    pub endpoint: Endpoint,
    /// What the `Host` field says: the port only when it is written.
    pub authority: Box<str>,
    /// Path and query, at least `/`.
    pub target: Box<str>,
}

impl HttpUrl {
    /// Parses `text`. `None`: another scheme, user information, no host, bytes that no address has,
    /// or longer than 2048 bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return None;
        }
        let standard = if tls { 443 } else { 80 };
        let endpoint = match Endpoint::parse(authority) {
            Some(endpoint) => endpoint,
            None => Endpoint {
                host: Host::parse(authority.strip_suffix(':').unwrap_or(authority))?,
                port: standard,
            },
        };
        let target = match path.strip_prefix('?') {
            Some(_) => format!("/{path}").into(),
            None if path.is_empty() => "/".into(),
            None => path.into(),
        };
        Some(Self {
            tls,
            endpoint,
            authority: authority.into(),
            target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<(bool, &str, &str, &str)>) {
        let got = HttpUrl::parse(text);
        let got = got.map(|url| (url.tls, url.endpoint.to_string(), url.authority, url.target));
        let want = want.map(|(tls, to, authority, target)| {
            (tls, to.to_owned(), authority.into(), target.into())
        });
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn addresses_are_taken_apart() {
        let url = "https://www.gstatic.com/generate_204";
        let name = "www.gstatic.com";
        check(
            url,
            Some((true, "www.gstatic.com:443", name, "/generate_204")),
        );
        check(
            "HTTP://A.b?q=/1#x",
            Some((false, "a.b:80", "A.b", "/?q=/1")),
        );
        check(
            "http://[::1]:81/",
            Some((false, "[::1]:81", "[::1]:81", "/")),
        );
        check("http://[::1]", Some((false, "[::1]:80", "[::1]", "/")));
        check(
            "http://1.2.3.4:8080",
            Some((false, "1.2.3.4:8080", "1.2.3.4:8080", "/")),
        );
    }

    #[test]
    fn what_is_no_web_address_is_refused() {
        for text in [
            "",
            "http://",
            "http:///path",
            "ftp://a/",
            "a.example/",
            "http://user@a/",
            "http://a b/",
            "http://a\r\nX: y/",
            "http://a:99999/",
            "http://a:x/",
            "https://é/",
        ] {
            check(text, None);
        }
        check(&format!("http://a/{}", "x".repeat(BYTES_MAX)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text: String) {
            let _ = HttpUrl::parse(&text);
        }
    }
}
