//! What is known of one connection: facts only, in the field's own words.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Network {
    /// `tcp` or `udp`, as the Clash API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where a connection wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A domain name, lower case, without a trailing dot.
    Name(Box<str>),
    /// An address; IPv4-mapped IPv6 is IPv4 here.
    Ip(IpAddr),
}

impl Host {
    /// Takes a name or an address literal (IPv6 with or without brackets) as a client sends it.
    /// `None`: an empty label, longer than 253 bytes, or with bytes that no host name has.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Self::Ip(ip.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // A final dot makes no name of an address; resolvers and browsers read it so too.
        if let Ok(ip) = name.parse::<Ipv4Addr>() {
            return Some(Self::Ip(ip.into()));
        }
        let plausible = |b: u8| {
            b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b':' | b'@' | b'[' | b']' | b'"')
        };
        let gap = name.split('.').any(str::is_empty);
        if gap || name.len() > 253 || !name.bytes().all(plausible) {
            return None;
        }
        Some(Self::Name(name.to_ascii_lowercase().into()))
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address.
    pub host: Host,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// `host:port` with IPv6 in brackets. `None` as [`Host::parse`], or a port that is no port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        if host.contains(':') && !host.starts_with('[') {
            return None;
        }
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            host: Host::parse(host)?,
            port: port.parse().ok()?,
        })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().into(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
        }
    }
}

/// How the host name of a connection became known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsMode {
    /// The client named it, or nobody did.
    #[default]
    Normal,
    /// The destination was one of our fake addresses.
    FakeIp,
    /// Our DNS had answered that name with the destination address.
    RedirHost,
    /// The `hosts` table.
    Hosts,
}

impl DnsMode {
    /// As the Clash API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::FakeIp => "fake-ip",
            Self::RedirHost => "redir-host",
            Self::Hosts => "hosts",
        }
    }
}

/// What kind of inbound took the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboundType {
    /// Plain HTTP forwarding.
    Http,
    /// HTTP CONNECT.
    Https,
    /// SOCKS4 and 4a.
    Socks4,
    /// SOCKS5.
    Socks5,
    /// NAT redirect.
    Redir,
    /// Transparent proxy.
    TProxy,
    /// Shadowsocks.
    Shadowsocks,
    /// VMess.
    Vmess,
    /// VLESS.
    Vless,
    /// Trojan.
    Trojan,
    /// A port that leads to one target.
    Tunnel,
    /// The daemon's own (downloads, health checks).
    Inner,
}

impl InboundType {
    /// As the Clash API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Socks4 => "Socks4",
            Self::Socks5 => "Socks5",
            Self::Redir => "Redir",
            Self::TProxy => "TProxy",
            Self::Shadowsocks => "ShadowSocks",
            Self::Vmess => "Vmess",
            Self::Vless => "Vless",
            Self::Trojan => "Trojan",
            Self::Tunnel => "Tunnel",
            Self::Inner => "Inner",
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = NotMac;

    /// Six hexadecimal bytes joined by `:` or `-`.
    fn from_str(text: &str) -> Result<Self, NotMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or(NotMac)?, 16).map_err(|_| NotMac)?;
        }
        if parts.next().is_some() {
            Err(NotMac)
        } else {
            Ok(Self(bytes))
        }
    }
}

/// The text is no Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMac;

impl fmt::Display for NotMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A program of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Whom its socket belongs to.
    pub uid: u32,
    /// Its executable; empty when it cannot be found.
    pub path: Box<str>,
}

impl Process {
    /// The executable without its directory.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Everything that rules and controllers may ask about one connection.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// TCP or UDP.
    pub network: Network,
    /// Kind of the inbound that took it.
    pub inbound_type: InboundType,
    /// Name of the listener, `DEFAULT-TPROXY` and the like.
    pub inbound: Arc<str>,
    /// Who logged in at the inbound.
    pub inbound_user: Option<Arc<str>>,
    /// His policy level; 0 for everybody else.
    pub user_level: u32,
    /// The listener's `proxy`: goes there without asking mode or rules.
    pub special_proxy: Option<Arc<str>>,
    /// The listener's own address and port.
    pub inbound_address: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// The client's Ethernet address; looked up only when a rule asks for it.
    pub source_mac: Option<Mac>,
    /// The device's name as DHCP knows it; looked up only when a rule asks for it.
    pub source_host: Option<Box<str>>,
    /// The program of this machine that connects; looked up only when a rule asks for it.
    pub process: Option<Arc<Process>>,
    /// The name asked for: by the client, by a fake address, by DNS mapping, or sniffed when
    /// the sniffer overrides.
    pub host: Option<Box<str>>,
    /// The destination address, when the client gave one or rules had it resolved.
    pub destination_ip: Option<IpAddr>,
    /// The destination port.
    pub destination_port: u16,
    /// The name that the sniffer read; rules prefer it to `host`.
    pub sniffed_host: Option<Box<str>>,
    /// How `host` became known.
    pub dns_mode: DnsMode,
    /// Differentiated services code point; known for transparent UDP only, else 0.
    pub dscp: u8,
}

impl Metadata {
    /// A connection from `source` to `destination`, accepted by the listener `inbound`.
    #[must_use]
    pub fn new(
        network: Network,
        inbound_type: InboundType,
        inbound: &Arc<str>,
        source: SocketAddr,
        destination: Endpoint,
    ) -> Self {
        let (host, destination_ip) = match destination.host {
            Host::Name(name) => (Some(name), None),
            Host::Ip(ip) => (None, Some(ip)),
        };
        Self {
            network,
            inbound_type,
            inbound: Arc::clone(inbound),
            inbound_user: None,
            user_level: 0,
            special_proxy: None,
            inbound_address: SocketAddr::from(([0, 0, 0, 0], 0)),
            source,
            source_mac: None,
            source_host: None,
            process: None,
            host,
            destination_ip,
            destination_port: destination.port,
            sniffed_host: None,
            dns_mode: DnsMode::Normal,
            dscp: 0,
        }
    }

    /// The name that domain rules compare: the sniffed one if any, else the asked one.
    #[must_use]
    pub fn rule_host(&self) -> Option<&str> {
        self.sniffed_host.as_deref().or(self.host.as_deref())
    }

    /// What a proxy is asked for: the name whenever one is known, else the address.
    #[must_use]
    pub fn destination(&self) -> Endpoint {
        let host = match (&self.host, self.destination_ip) {
            (Some(name), _) => Host::Name(name.clone()),
            (None, Some(ip)) => Host::Ip(ip),
            (None, None) => Host::Name("".into()),
        };
        Endpoint {
            host,
            port: self.destination_port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_without_the_final_dot() {
        assert_eq!(
            Host::parse("WWW.Example.ORG."),
            Some(Host::Name("www.example.org".into()))
        );
        assert_eq!(
            Host::parse("[::FFFF:1.2.3.4]"),
            Some(Host::Ip("1.2.3.4".parse().unwrap()))
        );
        assert_eq!(
            Host::parse("192.0.2.1."),
            Some(Host::Ip("192.0.2.1".parse().unwrap()))
        );
        for bad in [
            "",
            ".",
            "..",
            "a..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a:b",
            "\u{e9}.org",
        ] {
            assert_eq!(Host::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn endpoints_need_brackets_around_ipv6() {
        assert_eq!(Endpoint::parse("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(Endpoint::parse("a.b:65535").unwrap().port, 65535);
        for bad in ["a", "a:", "a:65536", "::1:80", ":80", "a:+1"] {
            assert_eq!(Endpoint::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn mac_addresses_in_both_spellings() {
        assert_eq!(
            "AA-bb-00-11-22-33".parse::<Mac>().unwrap().to_string(),
            "aa:bb:00:11:22:33"
        );
        for bad in [
            "",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:ff:00",
            "aa:bb:cc:dd:ee:+f",
            "a:b:c:d:e:f",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(NotMac), "{bad}");
        }
    }
}
