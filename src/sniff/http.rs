//! The host that an HTTP/1.x request names (RFC 9112).
//!
//! Any method counts, known or not; a target in absolute form wins over the Host field
//! (section 3.2.2), and CONNECT's target is the name itself. The HTTP/2 preface is not HTTP/1
//! and names nothing. Bytes are read in order: more of them never change an answer other than
//! [`Sniffed::NeedMore`]. Beyond [`HEAD_BYTES_MAX`] the answer is [`Sniffed::Nothing`].

use super::Sniffed;
use crate::metadata::Host;

/// How much of a request's head is looked at.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The longest registered method has 17 bytes (UPDATEREDIRECTREF); without a bound a long
/// word of some other protocol would be waited for.
const METHOD_BYTES_MAX: usize = 32;

/// The host in the first bytes of a TCP stream.
#[must_use]
pub fn host(stream: &[u8]) -> Sniffed {
    let seen = stream.get(..HEAD_BYTES_MAX).unwrap_or(stream);
    match head_host(seen) {
        Sniffed::NeedMore if seen.len() == HEAD_BYTES_MAX => Sniffed::Nothing,
        answer => answer,
    }
}

fn head_host(head: &[u8]) -> Sniffed {
    let method = head.iter().take_while(|b| is_token(**b)).count();
    match head.get(method) {
        None if method <= METHOD_BYTES_MAX => return Sniffed::NeedMore,
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&method) => {}
        _ => return Sniffed::Nothing,
    }
    let mut lines = head.split_inclusive(|b| *b == b'\n');
    let first = lines.next().unwrap_or_default();
    if first
        .iter()
        .any(|b| b.is_ascii_control() && !matches!(b, b'\r' | b'\n'))
    {
        return Sniffed::Nothing;
    }
    let Some(first) = complete(first) else {
        return Sniffed::NeedMore;
    };
    let mut parts = first.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Sniffed::Nothing;
    };
    if !version.starts_with(b"HTTP/1.") {
        return Sniffed::Nothing;
    }
    if method == b"CONNECT" {
        return authority(target);
    }
    if let Some(at) = target.windows(3).position(|w| w == b"://") {
        // A scheme has no slash: this one is not part of a query.
        let (scheme, rest) = target.split_at(at);
        if !scheme.contains(&b'/') && !scheme.contains(&b'?') {
            return authority(rest.get(3..).unwrap_or_default());
        }
    }
    field(lines)
}

/// The Host field of the lines behind the request line.
fn field<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Sniffed {
    for line in lines {
        let Some(line) = complete(line) else {
            return Sniffed::NeedMore;
        };
        if line.is_empty() {
            return Sniffed::Nothing;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return Sniffed::Nothing;
        };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"host") {
            return authority(value.get(1..).unwrap_or_default().trim_ascii());
        }
    }
    Sniffed::NeedMore
}

/// A line without its end; `None` while the end has not come.
fn complete(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The name of `host[:port]` with whatever path follows it.
fn authority(bytes: &[u8]) -> Sniffed {
    let end = bytes.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Sniffed::Nothing;
    };
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    };
    Host::parse(host).map_or(Sniffed::Nothing, Sniffed::from)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(request: &str, name: Option<&str>) {
        let want = name.map_or(Sniffed::Nothing, |name| Sniffed::Host(name.into()));
        assert_eq!(host(request.as_bytes()), want, "{request:?}");
    }

    #[test]
    fn the_host_field_names_the_host() {
        check(
            "GET / HTTP/1.1\r\nAccept: */*\r\nhOsT:  Example.ORG:8080 \r\n\r\n",
            Some("example.org"),
        );
        check("POST /x HTTP/1.0\nHost: a.b\n\n", Some("a.b"));
        check("BREW /pot HTTP/1.1\r\nHost: c.d\r\n", Some("c.d"));
        check(
            "GET /?u=http://no.org HTTP/1.1\r\nHost: e.f\r\n",
            Some("e.f"),
        );
    }

    #[test]
    fn an_absolute_target_wins_over_the_host_field() {
        check(
            "GET http://a.org:80/x HTTP/1.1\r\nHost: b.org\r\n\r\n",
            Some("a.org"),
        );
        check("GET http://u:p@a.org HTTP/1.1\r\n", Some("a.org"));
        check("CONNECT a.org:443 HTTP/1.1\r\n", Some("a.org"));
    }

    #[test]
    fn addresses_and_missing_hosts_tell_nothing() {
        check("GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", None);
        check("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", None);
        check("GET / HTTP/1.1\r\nHost:\r\n\r\n", None);
        check(
            "GET / HTTP/1.1\r\nAccept: */*\r\n\r\nHost: body.org\r\n",
            None,
        );
    }

    #[test]
    fn other_protocols_tell_nothing() {
        for text in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "SSH-2.0-OpenSSH_9.6\r\n",
            "EHLO mail.example.org\r\n",
            "\x16\x03\x01",
            " GET",
            "GET\t/ HTTP/1.1\r\n",
            "GET /\0 HTTP/1.1\r\n",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQ",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn an_endless_head_is_given_up_at_the_limit() {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        while head.len() < HEAD_BYTES_MAX {
            head.extend(b"X: y\r\n");
        }
        assert_eq!(host(&head[..HEAD_BYTES_MAX - 1]), Sniffed::NeedMore);
        assert_eq!(host(&head), Sniffed::Nothing);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = host(&bytes);
        }

        #[test]
        fn answers_stay_whatever_follows(
            text in "(GET|PUT|X-Y|CONNECT)[ \t](/|http://a\\.b|\\*)? ?HTTP/(1\\.1|2\\.0)\r?\n(Host: ?[a-z.:0-9]{0,9}\r?\n|A: b\r\n|\r\n|:|\n){0,4}",
        ) {
            let whole = host(text.as_bytes());
            for end in 0..text.len() {
                let part = host(&text.as_bytes()[..end]);
                prop_assert!(part == Sniffed::NeedMore || part == whole);
            }
        }
    }
}
