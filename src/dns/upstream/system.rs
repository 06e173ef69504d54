//! `system`: the servers that the operating system uses (resolv.conf(5)).
//!
//! On OpenWrt the provider's servers stand in netifd's file, while `/etc/resolv.conf` leads to
//! dnsmasq, which may well ask us: so the former is tried first. Both are read anew for every
//! question that the cache does not answer: they are short, they lie in memory, and so a WAN that
//! comes up late, or changes, needs no notice.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where the servers stand, in order of preference.
const FILES: [&str; 2] = ["/tmp/resolv.conf.d/resolv.conf.auto", "/etc/resolv.conf"];
/// How much of a file is read.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Servers asked at once (the C library takes three).
const SERVERS_MAX: usize = 6;
const PORT: u16 = 53;

/// The system's servers of this moment, ourselves left out.
pub(super) fn servers(own: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for path in FILES {
        let mut text = String::new();
        let file = File::open(path).map(|file| file.take(FILE_BYTES_MAX));
        if file
            .and_then(|mut file| file.read_to_string(&mut text))
            .is_ok()
        {
            found = parse(&text, own);
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}

fn parse(text: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let server = words.next().and_then(address);
        let new = server.filter(|server| !found.contains(server) && !is_own(*server, own));
        found.extend(new);
    }
    found.truncate(SERVERS_MAX);
    found
}

/// An address, with a scope if it is link-local (`fe80::1%eth1`).
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    };
    let address = address.parse::<Ipv6Addr>().ok()?;
    let scope = nix::net::if_::if_nametoindex(interface).ok()?;
    Some(SocketAddrV6::new(address, PORT, 0, scope).into())
}

/// Whether asking `server` would be asking ourselves: one of our listeners, or any address of this
/// machine that we can tell (loopback) when we listen on all of them.
fn is_own(server: SocketAddr, own: &[SocketAddr]) -> bool {
    own.iter().any(|own| {
        own.port() == server.port()
            && (own.ip() == server.ip() || own.ip().is_unspecified() && server.ip().is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_we_are_not_among_them() {
        let text = "# x\nsearch lan\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n\
            nameserver 192.0.2.1\nnameserver fe80::1%lo\nnameserver nonsense\nnameserver\n";
        let shown = |own: &[&str]| -> Vec<String> {
            let own: Vec<SocketAddr> = own.iter().map(|own| own.parse().unwrap()).collect();
            parse(text, &own).iter().map(ToString::to_string).collect()
        };
        let all = ["127.0.0.1:53", "192.0.2.1:53", "[fe80::1%1]:53"];
        assert_eq!(shown(&[]), all);
        assert_eq!(shown(&["127.0.0.1:1053"]), all);
        assert_eq!(shown(&["127.0.0.1:53"]), all[1..]);
        assert_eq!(shown(&["[::]:53"]), all[1..]);
        assert_eq!(shown(&["0.0.0.0:53", "192.0.2.1:53"]), all[2..]);
    }
}
