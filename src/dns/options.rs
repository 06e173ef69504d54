//! What the configuration says of DNS (clash-api.md 3.2 and 3.3).

use std::net::{IpAddr, SocketAddr};

use crate::prefix::Prefix;

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
    /// `fake-ip-filter`: domain wildcards.
    pub fake_ip_filter: Vec<Box<str>>,
    /// `fake-ip-filter-mode`: `false` blacklist, `true` whitelist.
    pub fake_ip_filter_whitelist: bool,
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
    /// `proxy-server-nameserver`.
    pub proxy_server_nameserver: Vec<Upstream>,
    /// `direct-nameserver`.
    pub direct_nameserver: Vec<Upstream>,
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

/// One nameserver address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// `1.1.1.1`, `udp://`; truncated answers are asked again over TCP.
    Udp(Server),
    /// `tcp://`.
    Tcp(Server),
    /// `system`: the servers of `/etc/resolv.conf`.
    System,
    /// `rcode://name`: a constant answer.
    Rcode(u8),
}

/// Host and port of a nameserver, with the proxy or interface to reach it by (`#name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address literal or name (resolved by `default-nameserver`).
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// `#name`: proxy, group or interface; sent directly when `None`.
    pub via: Option<Box<str>>,
}

/// A value of `hosts:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostsValue {
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Another name, lower case.
    Alias(Box<str>),
}

impl Default for Options {
    fn default() -> Self {
        let upstream = |host: &str| {
            Upstream::Udp(Server {
                host: host.into(),
                port: 53,
                via: None,
            })
        };
        Self {
            enable: false,
            listen: None,
            ipv6: false,
            mode: EnhancedMode::RedirHost,
            fake_ip_range: Prefix::new(IpAddr::from([198, 18, 0, 1]), 16),
            fake_ip_range6: None,
            fake_ip_filter: Vec::new(),
            fake_ip_filter_whitelist: false,
            fake_ip_ttl: 1,
            store_fake_ip: false,
            use_hosts: true,
            use_system_hosts: true,
            default_nameserver: ["114.114.114.114", "223.5.5.5", "8.8.8.8", "1.0.0.1"]
                .map(upstream)
                .to_vec(),
            nameserver: Vec::new(),
            proxy_server_nameserver: Vec::new(),
            direct_nameserver: Vec::new(),
            cache_size: 4096,
            hosts: Vec::new(),
        }
    }
}
