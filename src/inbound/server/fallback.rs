//! Who answers those that do not authenticate, and what he is told of them.
//!
//! Pure. As Xray chooses (proxy-protocols.md 5.1): of the entries whose conditions hold, by the name that TLS
//! was asked for, then by the protocol that it chose, then by the path of the request. The header is the
//! PROXY protocol's, version 1 or 2 (haproxy's proxy-protocol.txt).

use std::net::SocketAddr;

use super::options::Fallback;

/// What is known of a client besides his bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    /// The name that he asked TLS for.
    pub(super) name: &'a str,
    /// The protocol that TLS chose.
    pub(super) alpn: &'a str,
    /// His first bytes.
    pub(super) read: &'a [u8],
}

/// Who answers; `None`: nobody.
pub(super) fn choose<'f>(fallbacks: &'f [Fallback], seen: &Seen<'_>) -> Option<&'f Fallback> {
    let path = path(seen.read);
    let holds = |wanted: &Option<Box<str>>, is: &str| {
        wanted
            .as_deref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(is))
    };
    let fits = |entry: &&Fallback| {
        let paths = entry.path.as_deref().is_none_or(|wanted| path == wanted);
        holds(&entry.name, seen.name) && holds(&entry.alpn, seen.alpn) && paths
    };
    let rank = |entry: &&Fallback| {
        let Fallback {
            name, alpn, path, ..
        } = entry;
        (name.is_some(), alpn.is_some(), path.is_some())
    };
    fallbacks.iter().filter(fits).max_by_key(rank)
}

/// The path that a request of HTTP/1.1 asks for, without its query; empty for other bytes.
fn path(read: &[u8]) -> &str {
    let mut words = read.splitn(3, |&byte| byte == b' ');
    let (Some(method), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
        return "";
    };
    if !method.iter().all(u8::is_ascii_uppercase) {
        return "";
    }
    let path = target.split(|&byte| byte == b'?').next();
    path.and_then(|path| str::from_utf8(path).ok())
        .unwrap_or("")
}

/// How version 2 begins, with version and the command PROXY.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21";

/// The header of that `version` for a connection of `source` to `to`; empty for version 0.
pub(super) fn proxy_header(version: u8, source: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (source_ip, to_ip) = (source.ip().to_canonical(), to.ip().to_canonical());
    // One family for both, or the older one in the words of the newer.
    let v4 = source_ip.is_ipv4() && to_ip.is_ipv4();
    let octets = |ip: std::net::IpAddr| match (ip, v4) {
        (std::net::IpAddr::V4(ip), true) => ip.octets().to_vec(),
        (std::net::IpAddr::V4(ip), false) => ip.to_ipv6_mapped().octets().to_vec(),
        (std::net::IpAddr::V6(ip), _) => ip.octets().to_vec(),
    };
    match version {
        0 => Vec::new(),
        1 if source_ip.is_ipv4() != to_ip.is_ipv4() => b"PROXY UNKNOWN\r\n".to_vec(),
        1 => {
            let family = if v4 { "TCP4" } else { "TCP6" };
            let (from, at) = (source.port(), to.port());
            format!("PROXY {family} {source_ip} {to_ip} {from} {at}\r\n").into_bytes()
        }
        _ => {
            let (source_ip, to_ip) = (octets(source_ip), octets(to_ip));
            let family = if v4 { 0x11 } else { 0x21 };
            let length: u8 = if v4 { 12 } else { 36 };
            let ports = [source.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            [SIGNATURE, &[family, 0, length], &source_ip, &to_ip, &ports].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(port: u16, name: &str, alpn: &str, path: &str) -> Fallback {
        let set = |text: &str| (!text.is_empty()).then(|| text.into());
        Fallback {
            to: ([127, 0, 0, 1], port).into(),
            name: set(name),
            alpn: set(alpn),
            path: set(path),
            proxy_version: 0,
        }
    }

    #[test]
    fn the_closest_entry_answers_by_name_then_protocol_then_path() {
        let list = [
            entry(1, "", "", ""),
            entry(2, "", "", "/ws"),
            entry(3, "", "h2", ""),
            entry(4, "a.test", "", ""),
            entry(5, "a.test", "http/1.1", "/ws"),
        ];
        let chosen = |name, alpn, read: &[u8]| {
            let seen = Seen { name, alpn, read };
            choose(&list, &seen).unwrap().to.port()
        };
        assert_eq!(chosen("", "", b"GET / HTTP/1.1\r\n"), 1);
        assert_eq!(chosen("", "", b"GET /ws?ed=2048 HTTP/1.1\r\n"), 2);
        assert_eq!(chosen("", "", b"GET /ws"), 1);
        assert_eq!(chosen("", "", b"\x16\x03\x01 /ws x"), 1);
        assert_eq!(chosen("", "h2", b"PRI * HTTP/2.0\r\n"), 3);
        assert_eq!(chosen("A.test", "h2", b"GET /ws HTTP/1.1\r\n"), 4);
        assert_eq!(chosen("a.test", "http/1.1", b"GET /ws HTTP/1.1\r\n"), 5);
        assert_eq!(choose(&list[1..2], &Seen::default()), None);
    }

    /// The forms are the document's.
    #[test]
    fn the_header_says_who_came_from_where() {
        let v4 = (
            "192.0.2.1:56324".parse().unwrap(),
            "192.0.2.2:443".parse().unwrap(),
        );
        let v6 = (
            "[2001:db8::1]:1".parse().unwrap(),
            "[2001:db8::2]:2".parse().unwrap(),
        );
        let header = |version, (source, to)| proxy_header(version, source, to);
        assert_eq!(header(0, v4), b"");
        assert_eq!(
            header(1, v4),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
        );
        assert_eq!(header(1, v6), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
        assert_eq!(header(1, (v4.0, v6.1)), b"PROXY UNKNOWN\r\n");
        let want =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x01\xbb";
        assert_eq!(header(2, v4), want);
        assert_eq!(header(2, v6).len(), 16 + 36);
        assert_eq!(
            header(2, (v4.0, v6.1))[13..28],
            *b"\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff"
        );
    }
}
