//! What the configuration says of proxies and groups (mihomo's keys, clash-api.md 3.7 to 3.9).

use std::sync::Arc;
use std::time::Duration;

use rustls::CipherSuite;

use super::mux::sing::request::Protocol as MuxProtocol;
use super::provided::Wanted;
use super::sessions::Limits;
use super::shadowsocks::obfs::Disguise;
use super::status_ranges::StatusRanges;
use super::{IpVersion, Kind};

/// One entry of `proxies:`.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Unique name.
    pub name: Box<str>,
    /// Protocol and its own keys.
    pub protocol: Protocol,
    /// `udp`: allow UDP through it.
    pub udp: bool,
    /// How its sockets leave the router.
    pub dial: DialOptions,
    /// `smux`, when it is enabled.
    pub mux: Option<MuxOptions>,
}

/// Keys of `smux`: sing-mux inside the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MuxOptions {
    /// `protocol`.
    pub protocol: MuxProtocol,
    /// `max-connections`, `min-streams`, `max-streams`.
    pub limits: Limits,
    /// `padding`.
    pub padding: bool,
    /// `only-tcp`: datagrams go as without it.
    pub only_tcp: bool,
}

/// Keys common to all proxies.
#[derive(Clone, Debug, Default)]
pub struct DialOptions {
    /// `interface-name`; the global one when `None`.
    pub interface: Option<Box<str>>,
    /// `routing-mark`; the global one when 0.
    pub mark: u32,
    /// `ip-version`.
    pub ip_version: IpVersion,
    /// `dialer-proxy`: reach the server through this proxy or group.
    pub dialer_proxy: Option<Box<str>>,
    /// `tfo`.
    pub fast_open: bool,
}

/// `server` and `port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name or address literal, as written.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
}

/// A protocol with its own keys.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// `type: direct`.
    Direct,
    /// `type: reject`.
    Reject,
    /// `type: http`.
    Http(HttpOptions),
    /// `type: socks5`.
    Socks5(Socks5Options),
    /// `type: ss`.
    Shadowsocks(ShadowsocksOptions),
    /// `type: trojan`.
    Trojan(TrojanOptions),
    /// `type: vmess`.
    Vmess(VmessOptions),
    /// `type: vless`.
    Vless(VlessOptions),
}

/// `username` and `password`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: Box<str>,
    /// Password; never shown.
    pub password: Box<str>,
    /// `flow: xtls-rprx-vision`, of VLESS.
    pub vision: bool,
    /// `level`, of a listener's user: the policy that holds for him.
    pub level: u32,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Keys of `type: http`.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The proxy.
    pub server: ServerAddress,
    /// Basic authentication.
    pub credentials: Option<Credentials>,
    /// TLS to the proxy when present.
    pub tls: Option<TlsOptions>,
    /// `headers`: sent with CONNECT.
    pub headers: Vec<(Box<str>, Box<str>)>,
}

/// Keys of `type: socks5`.
#[derive(Clone, Debug)]
pub struct Socks5Options {
    /// The proxy.
    pub server: ServerAddress,
    /// RFC 1929 authentication.
    pub credentials: Option<Credentials>,
    /// TLS to the proxy when present.
    pub tls: Option<TlsOptions>,
}

/// Keys of `type: ss`.
#[derive(Clone)]
pub struct ShadowsocksOptions {
    /// The server.
    pub server: ServerAddress,
    /// `cipher`, checked by `outbound::shadowsocks`.
    pub cipher: Box<str>,
    /// `password`; never shown.
    pub password: Box<str>,
    /// `plugin`, `plugin-opts`.
    pub plugin: Option<PluginOptions>,
}

/// `plugin` of `type: ss` with its `plugin-opts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginOptions {
    /// `obfs`.
    Obfs {
        /// `mode`.
        disguise: Disguise,
        /// `host`: where the stream seems to go.
        host: Box<str>,
    },
    /// `v2ray-plugin` in mode `websocket`.
    V2ray {
        /// TLS when present.
        tls: Option<TlsOptions>,
        /// `path`, `headers`, `host`.
        websocket: WebSocketOptions,
        /// `mux`: whether the server was told to expect frames.
        mux: bool,
    },
}

impl std::fmt::Debug for ShadowsocksOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowsocksOptions")
            .field("server", &self.server)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// Keys of `type: trojan`.
#[derive(Clone)]
pub struct TrojanOptions {
    /// The server.
    pub server: ServerAddress,
    /// `password`; never shown.
    pub password: Box<str>,
    /// TLS, without which there is no Trojan.
    pub tls: TlsOptions,
    /// `network` with its own keys.
    pub network: NetworkOptions,
}

impl std::fmt::Debug for TrojanOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrojanOptions")
            .field("server", &self.server)
            .field("tls", &self.tls)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Keys of `type: vmess`.
#[derive(Clone)]
pub struct VmessOptions {
    /// The server.
    pub server: ServerAddress,
    /// `uuid`; never shown.
    pub id: Box<str>,
    /// `cipher`.
    pub security: VmessSecurity,
    /// `global-padding`.
    pub global_padding: bool,
    /// `authenticated-length`.
    pub authenticated_length: bool,
    /// `packet-encoding`.
    pub packets: PacketEncoding,
    /// TLS when present.
    pub tls: Option<TlsOptions>,
    /// `network` with its own keys.
    pub network: NetworkOptions,
}

impl std::fmt::Debug for VmessOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmessOptions")
            .field("server", &self.server)
            .field("security", &self.security)
            .field("tls", &self.tls)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Keys of `type: vless`.
#[derive(Clone)]
pub struct VlessOptions {
    /// The server.
    pub server: ServerAddress,
    /// `uuid`; never shown.
    pub id: Box<str>,
    /// `packet-encoding`.
    pub packets: PacketEncoding,
    /// `flow`.
    pub flow: VlessFlow,
    /// TLS when present.
    pub tls: Option<TlsOptions>,
    /// `network` with its own keys.
    pub network: NetworkOptions,
}

/// `flow` of VLESS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VlessFlow {
    /// Absent, or empty.
    #[default]
    Plain,
    /// `xtls-rprx-vision`: inner TLS 1.3 goes without the outer one; no datagrams to port 443.
    Vision,
    /// `xtls-rprx-vision-udp443`: the same with datagrams to port 443.
    VisionUdp443,
}

impl VlessFlow {
    /// What the configuration calls it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Plain,
            "xtls-rprx-vision" => Self::Vision,
            "xtls-rprx-vision-udp443" => Self::VisionUdp443,
            _ => return None,
        })
    }
}

impl std::fmt::Debug for VlessOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VlessOptions")
            .field("server", &self.server)
            .field("tls", &self.tls)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// `cipher` of VMess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VmessSecurity {
    /// `auto`: what the CPU does best.
    #[default]
    Auto,
    /// `aes-128-gcm`.
    Aes128Gcm,
    /// `chacha20-poly1305`.
    ChaCha20Poly1305,
    /// `none`: chunks without encryption.
    None,
    /// `zero`: no chunks either.
    Zero,
}

/// `packet-encoding`: how datagrams to several destinations share a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketEncoding {
    /// `none`: a session of mux.cool for each destination; every server knows that.
    #[default]
    Plain,
    /// `xudp`.
    Xudp,
    /// `packetaddr`.
    PacketAddress,
}

/// `network`: what stands between TLS and the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkOptions {
    /// `tcp`: nothing.
    #[default]
    Tcp,
    /// `ws`, `ws-opts`.
    WebSocket(WebSocketOptions),
    /// `h2`, `h2-opts`.
    Http2 {
        /// The first `host`; the name that TLS shows when `None`.
        host: Option<Box<str>>,
        /// `path`, beginning with a slash.
        path: Box<str>,
    },
    /// `grpc`: the `grpc-service-name`, or a whole path.
    Grpc(Box<str>),
}

/// Keys of `ws-opts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// `path`, beginning with a slash.
    pub path: Box<str>,
    /// `headers`, `Host` among them.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// `max-early-data`: how many of the first bytes go with the request.
    pub early_data_max: u32,
    /// `early-data-header-name`: where they go; at the end of the path when it is empty.
    pub early_data_header: Box<str>,
    /// `v2ray-http-upgrade`: bytes follow the upgrade without frames.
    pub upgrade_only: bool,
}

/// How much early data is asked for at most.
pub const EARLY_DATA_MAX: u32 = 8192;

impl WebSocketOptions {
    /// Obeys Xray's way to ask for early data: a parameter `ed=2048` of the path, which is not sent.
    pub fn take_early_data(&mut self) {
        let Some((path, query)) = self.path.split_once('?') else {
            return;
        };
        let most = query.split('&').find_map(|part| part.strip_prefix("ed="));
        let Some(most) = most.and_then(|most| most.parse::<u32>().ok()) else {
            return;
        };
        let others = query.split('&').filter(|part| !part.starts_with("ed="));
        let others = others.collect::<Vec<_>>().join("&");
        let mark = if others.is_empty() { "" } else { "?" };
        self.path = format!("{path}{mark}{others}").into();
        if self.early_data_max == 0 {
            self.early_data_max = most.min(EARLY_DATA_MAX);
            self.early_data_header = "Sec-WebSocket-Protocol".into();
        }
    }
}

/// TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `sni` / `servername`; the server's host when `None`.
    pub server_name: Option<Box<str>>,
    /// `skip-cert-verify`.
    pub skip_verify: bool,
    /// `fingerprint`: SHA-256 of the leaf certificate, replaces the chain check.
    pub fingerprint: Option<[u8; 32]>,
    /// `alpn`.
    pub alpn: Vec<Box<str>>,
    /// `reality-opts`: the server is one of REALITY, and proves itself by its key alone.
    pub reality: Option<RealityOptions>,
    /// The cipher suites that are offered ([`super::tls::cipher_suites`]); empty: all.
    pub suites: Vec<CipherSuite>,
}

/// `reality-opts`.
#[derive(Clone, PartialEq, Eq)]
pub struct RealityOptions {
    /// `public-key`, of the server.
    pub public_key: [u8; 32],
    /// `short-id`, zeros behind; never shown.
    pub short_id: [u8; 8],
}

impl std::fmt::Debug for RealityOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RealityOptions(..)")
    }
}

impl Protocol {
    /// Its TLS, when it has some.
    pub fn tls_mut(&mut self) -> Option<&mut TlsOptions> {
        match self {
            Self::Direct | Self::Reject | Self::Shadowsocks(_) => None,
            Self::Http(options) => options.tls.as_mut(),
            Self::Socks5(options) => options.tls.as_mut(),
            Self::Vmess(options) => options.tls.as_mut(),
            Self::Vless(options) => options.tls.as_mut(),
            Self::Trojan(options) => Some(&mut options.tls),
        }
    }

    /// The server that it needs; none for what leaves by itself.
    #[must_use]
    pub fn server(&self) -> Option<&ServerAddress> {
        Some(match self {
            Self::Direct | Self::Reject => return None,
            Self::Http(options) => &options.server,
            Self::Socks5(options) => &options.server,
            Self::Shadowsocks(options) => &options.server,
            Self::Trojan(options) => &options.server,
            Self::Vmess(options) => &options.server,
            Self::Vless(options) => &options.server,
        })
    }

    /// What an outbound of it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Direct => Kind::Direct,
            Self::Reject => Kind::Reject,
            Self::Http(_) => Kind::Http,
            Self::Socks5(_) => Kind::Socks5,
            Self::Shadowsocks(_) => Kind::Shadowsocks,
            Self::Trojan(_) => Kind::Trojan,
            Self::Vmess(_) => Kind::Vmess,
            Self::Vless(_) => Kind::Vless,
        }
    }
}

/// One entry of `proxy-groups:`.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Unique name.
    pub name: Box<str>,
    /// `type`, with what only that type has.
    pub kind: GroupKind,
    /// Members by name: `proxies`, and what `include-all` brought.
    pub proxies: Vec<Box<str>>,
    /// Members that providers bring, behind those.
    pub wanted: Option<Arc<Wanted>>,
    /// How members are tested.
    pub test: TestOptions,
    /// `disable-udp`.
    pub disable_udp: bool,
    /// `hidden`.
    pub hidden: bool,
    /// `icon`.
    pub icon: Box<str>,
}

impl GroupOptions {
    /// A group of that name and type without members, everything else as when it is not said.
    #[must_use]
    pub fn new(name: &str, kind: GroupKind) -> Self {
        Self {
            name: name.into(),
            kind,
            proxies: Vec::new(),
            wanted: None,
            test: TestOptions::default(),
            disable_udp: false,
            hidden: false,
            icon: "".into(),
        }
    }
}

/// How a group tests its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOptions {
    /// `url`.
    pub url: Box<str>,
    /// `expected-status`.
    pub expected: StatusRanges,
    /// `interval`; zero: no periodic tests.
    pub interval: Duration,
    /// `timeout`.
    pub timeout: Duration,
    /// `lazy`: no periodic tests while the group is not used.
    pub lazy: bool,
    /// `max-failed-times`: failed dials that bring a test forward.
    pub failures_max: u32,
}

/// What is asked when a group says nothing.
pub const TEST_URL: &str = "https://www.gstatic.com/generate_204";

impl Default for TestOptions {
    fn default() -> Self {
        Self {
            url: TEST_URL.into(),
            expected: StatusRanges::default(),
            interval: Duration::ZERO,
            timeout: Duration::from_secs(5),
            lazy: true,
            failures_max: 5,
        }
    }
}

/// The types of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// `select`.
    Select,
    /// `url-test`.
    UrlTest {
        /// `tolerance`, milliseconds.
        tolerance: u16,
    },
    /// `fallback`.
    Fallback,
    /// `load-balance`.
    LoadBalance(Strategy),
    /// `relay`.
    Relay,
}

impl GroupKind {
    /// What the group is as an outbound.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Select => Kind::Selector,
            Self::UrlTest { .. } => Kind::UrlTest,
            Self::Fallback => Kind::Fallback,
            Self::LoadBalance(_) => Kind::LoadBalance,
            Self::Relay => Kind::Relay,
        }
    }
}

/// `strategy` of a balanced group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `consistent-hashing`: flows to one site over one member.
    #[default]
    ConsistentHashing,
    /// `sticky-sessions`: flows of one device to one site over one member.
    StickySessions,
    /// `round-robin`: in turn.
    RoundRobin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, left: &str, most: u32) {
        let mut options = WebSocketOptions {
            path: path.into(),
            ..WebSocketOptions::default()
        };
        options.take_early_data();
        assert_eq!((&*options.path, options.early_data_max), (left, most));
    }

    #[test]
    fn early_data_is_taken_out_of_the_path() {
        check("/p?ed=2048", "/p", 2048);
        check("/p?a=b&ed=99999&c", "/p?a=b&c", EARLY_DATA_MAX);
        check("/p?edge=1", "/p?edge=1", 0);
        check("/p?ed=x", "/p?ed=x", 0);
    }
}
