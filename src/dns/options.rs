//! What the configuration says of DNS (clash-api.md 3.2 and 3.3).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::names::Item;
use super::replacement::Algorithm;
use crate::prefix::Prefix;
use crate::rules::Matcher;

/// `dns:` and `hosts:`.
#[derive(Clone, Debug)]
pub struct Options {
    /// `enable`.
    pub enable: bool,
    /// `listen`: UDP and TCP.
    pub listen: Option<SocketAddr>,
    /// `ipv6`: off answers AAAA empty.
    pub ipv6: bool,
    /// `enhanced-mode`.
    pub mode: EnhancedMode,
    /// `fake-ip-range`.
    pub fake_ip_range: Prefix,
    /// `fake-ip-range6`; none: AAAA of fake names is answered empty.
    pub fake_ip_range6: Option<Prefix>,
    /// `fake-ip-filter`, by its mode.
    pub fake_ip_filter: FakeIpFilter,
    /// `fake-ip-ttl`, seconds.
    pub fake_ip_ttl: u32,
    /// `profile.store-fake-ip`.
    pub store_fake_ip: bool,
    /// `use-hosts`.
    pub use_hosts: bool,
    /// `use-system-hosts`.
    pub use_system_hosts: bool,
    /// `default-nameserver`: resolves the names of other servers; address literals only.
    pub default_nameserver: Vec<Upstream>,
    /// `nameserver`.
    pub nameserver: Vec<Upstream>,
    /// `nameserver-policy`, in file order.
    pub policy: Vec<PolicyEntry>,
    /// `fallback`.
    pub fallback: Vec<Upstream>,
    /// `fallback-filter`, `fallback-lazy-query`.
    pub fallback_filter: FallbackOptions,
    /// `proxy-server-nameserver`.
    pub proxy_server_nameserver: Vec<Upstream>,
    /// `proxy-server-nameserver-policy`.
    pub proxy_server_policy: Vec<PolicyEntry>,
    /// `direct-nameserver`.
    pub direct_nameserver: Vec<Upstream>,
    /// `direct-nameserver-follow-policy`.
    pub direct_follows_policy: bool,
    /// `rebind-protection`: names outside these (`rebind-allow`) have no local addresses; `None`: off.
    pub rebind: Option<Vec<Item>>,
    /// `lease-files`: DHCP leases (dnsmasq's file) and hosts files whose names are of this network.
    pub lease_files: Vec<PathBuf>,
    /// `local-domain`: the domain of those names.
    pub local_domain: Box<str>,
    /// `ipv6-timeout`: how long addresses of IPv4 wait for those of IPv6.
    pub ipv6_timeout: Duration,
    /// `cache-algorithm`: what leaves a full cache.
    pub cache_algorithm: Algorithm,
    /// `cache-max-size`, answers.
    pub cache_size: usize,
    /// `hosts:` in file order: domain wildcard to its value.
    pub hosts: Vec<(Box<str>, HostsValue)>,
}

/// `enhanced-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnhancedMode {
    /// Plain resolver.
    Normal,
    /// Real addresses, remembered for reverse mapping.
    RedirHost,
    /// Fake addresses.
    FakeIp,
}

/// `fake-ip-filter` and `fake-ip-filter-mode`.
#[derive(Clone, Debug)]
pub enum FakeIpFilter {
    /// These names have real addresses.
    Blacklist(Vec<Item>),
    /// Only these names have fake addresses.
    Whitelist(Vec<Item>),
    /// The first condition that holds decides; where none does the address is fake.
    Rules(Vec<FilterRule>),
}

/// A line of `fake-ip-filter` in mode `rule`.
#[derive(Clone, Debug)]
pub struct FilterRule {
    /// What it asks of the name.
    pub matcher: Arc<dyn Matcher>,
    /// `real-ip`, else `fake-ip`.
    pub real: bool,
}

/// An entry of `nameserver-policy`.
#[derive(Clone, Debug)]
pub struct PolicyEntry {
    /// Whom it is for.
    pub names: Vec<Item>,
    /// Who is asked.
    pub servers: Vec<Upstream>,
}

/// When the fallback's answer counts.
#[derive(Clone, Debug, Default)]
pub struct FallbackOptions {
    /// `domain` and `geosite`: only the fallback is asked for these.
    pub names: Vec<Item>,
    /// `ipcidr`: such addresses of the main servers are not believed.
    pub refused: Vec<Prefix>,
    /// `geoip`: nor are those that this does not match.
    pub home: Option<Arc<dyn Matcher>>,
    /// Ask it only when it is needed, not at once.
    pub lazy: bool,
}

/// One nameserver address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// A server with an address.
    Server(Server),
    /// `system`: the servers of the system's resolver file.
    System,
    /// `dhcp://interface`: the servers that DHCP names on that interface.
    Dhcp(Box<str>),
    /// `rcode://name`: a constant answer.
    Rcode(u8),
}

/// A nameserver and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What it speaks.
    pub protocol: Protocol,
    /// Address literal or name (resolved by `default-nameserver`).
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Which way it is reached.
    pub via: Via,
    /// `skip-cert-verify`: any certificate will do.
    pub skip_verify: bool,
    /// `ecs`: the client subnet told (RFC 7871).
    pub subnet: Option<Prefix>,
    /// `disable-ipv4`, `disable-ipv6`, `disable-qtype-N`: record types that it is not asked for.
    pub disabled: Vec<u16>,
}

impl Server {
    /// A server asked directly, without parameters.
    #[must_use]
    pub fn new(protocol: Protocol, host: &str, port: u16) -> Self {
        Self {
            protocol,
            host: host.into(),
            port,
            via: Via::Direct,
            skip_verify: false,
            subnet: None,
            disabled: Vec::new(),
        }
    }
}

/// As it is written, for the log; without parameters.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path) = match &self.protocol {
            Protocol::Udp => ("udp", ""),
            Protocol::Tcp => ("tcp", ""),
            Protocol::Tls => ("tls", ""),
            Protocol::Https(path) => ("https", &**path),
            Protocol::Http(path) => ("http", &**path),
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}{path}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}{path}", self.host, self.port)
        }
    }
}

/// What a nameserver speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams; truncated answers are asked for again over TCP.
    Udp,
    /// RFC 7766.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484), with its path and query.
    Https(Box<str>),
    /// The same without TLS, for servers in one's own network.
    Http(Box<str>),
}

/// `#` behind a nameserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Nothing: past the rules.
    Direct,
    /// `#name`: a proxy or group, else the interface of that name.
    Named(Box<str>),
    /// `#RULES`, or nothing under `respect-rules`: as the rules say.
    Rules,
}

/// A value of `hosts:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostsValue {
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Another name, lower case.
    Alias(Box<str>),
    /// `lan`: the addresses of this machine's interfaces.
    Lan,
}

impl Default for Options {
    fn default() -> Self {
        let upstream = |host| Upstream::Server(Server::new(Protocol::Udp, host, 53));
        Self {
            enable: false,
            listen: None,
            ipv6: false,
            mode: EnhancedMode::RedirHost,
            fake_ip_range: Prefix::new(IpAddr::from([198, 18, 0, 1]), 16),
            fake_ip_range6: None,
            fake_ip_filter: FakeIpFilter::Blacklist(Vec::new()),
            fake_ip_ttl: 1,
            store_fake_ip: false,
            use_hosts: true,
            use_system_hosts: true,
            default_nameserver: ["114.114.114.114", "223.5.5.5", "8.8.8.8", "1.0.0.1"]
                .map(upstream)
                .to_vec(),
            nameserver: Vec::new(),
            policy: Vec::new(),
            fallback: Vec::new(),
            fallback_filter: FallbackOptions::default(),
            proxy_server_nameserver: Vec::new(),
            proxy_server_policy: Vec::new(),
            direct_nameserver: Vec::new(),
            direct_follows_policy: false,
            rebind: None,
            lease_files: ["/tmp/dhcp.leases", "/tmp/hosts/odhcpd"]
                .map(PathBuf::from)
                .into(),
            local_domain: "lan".into(),
            ipv6_timeout: Duration::from_millis(100),
            cache_algorithm: Algorithm::Lru,
            cache_size: 4096,
            hosts: Vec::new(),
        }
    }
}
