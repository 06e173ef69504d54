//! What the configuration says of servers (mihomo's `listeners:` of these types, and more users).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::metadata::Endpoint;
use crate::outbound::options::Credentials;

/// A server's own keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Protocol and users.
    pub protocol: ServerProtocolOptions,
    /// `certificate` and `private-key`: TLS when present.
    pub tls: Option<ServerTls>,
    /// `reality-config`: TLS of another site, instead of a certificate, when present.
    pub reality: Option<RealityServer>,
    /// `ws-path`: WebSocket, or HTTPUpgrade, at this path when present.
    pub ws_path: Option<Box<str>>,
    /// `grpc-service-name`: gRPC ("gun") of this service when present, beside WebSocket.
    pub grpc_service: Option<Box<str>>,
    /// `fallback` and `fallbacks`: who answers those that do not authenticate.
    pub fallbacks: Vec<Fallback>,
}

/// Who answers some of those that do not authenticate. A condition that is absent always holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// `dest`.
    pub to: SocketAddr,
    /// `name`: what TLS was asked for.
    pub name: Option<Box<str>>,
    /// `alpn`: the protocol that TLS chose.
    pub alpn: Option<Box<str>>,
    /// `path`: what the request asks for.
    pub path: Option<Box<str>>,
    /// `xver`: the version of the PROXY protocol's header that goes first; 0: none.
    pub proxy_version: u8,
}

impl ServerOptions {
    /// Whether the other differs in nothing but who its users are.
    #[must_use]
    pub fn same_but_users(&self, other: &Self) -> bool {
        let without = |options: &Self| {
            let mut options = options.clone();
            if let Some(users) = options.protocol.users_mut() {
                users.clear();
            }
            options
        };
        without(self) == without(other)
    }
}

/// Protocol and users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerProtocolOptions {
    /// `type: shadowsocks`.
    Shadowsocks(ShadowsocksServer),
    /// `type: vmess`.
    Vmess(Vec<Credentials>),
    /// `type: vless`.
    Vless(Vec<Credentials>),
    /// `type: trojan`.
    Trojan(Vec<Credentials>),
}

impl ServerProtocolOptions {
    /// Who may log in, with a `uuid` or a `password` each; `None` where one password is everybody's.
    #[must_use]
    pub fn users(&self) -> Option<&[Credentials]> {
        match self {
            Self::Shadowsocks(options) => options.users.as_deref(),
            Self::Vmess(users) | Self::Vless(users) | Self::Trojan(users) => Some(users),
        }
    }

    /// The same, to be changed.
    pub fn users_mut(&mut self) -> Option<&mut Vec<Credentials>> {
        match self {
            Self::Shadowsocks(options) => options.users.as_mut(),
            Self::Vmess(users) | Self::Vless(users) | Self::Trojan(users) => Some(users),
        }
    }
}

/// Keys of `type: shadowsocks`.
#[derive(Clone, PartialEq, Eq)]
pub struct ShadowsocksServer {
    /// `cipher`.
    pub cipher: Box<str>,
    /// `password`: the only user's, or with `users` of the 2022 edition the server's.
    pub password: Box<str>,
    /// `users`; absent where `password` is everybody's.
    pub users: Option<Vec<Credentials>>,
}

impl fmt::Debug for ShadowsocksServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowsocksServer")
            .field("cipher", &self.cipher)
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

/// `reality-config`.
#[derive(Clone, PartialEq, Eq)]
pub struct RealityServer {
    /// `dest`: the site that everybody else sees.
    pub site: Endpoint,
    /// `private-key`; never shown.
    pub private_key: [u8; 32],
    /// `short-id`, zeros behind; never shown.
    pub short_ids: Vec<[u8; 8]>,
    /// `server-names`: what a client of ours may ask the site for.
    pub server_names: Vec<Box<str>>,
    /// `max-time-difference`: how far a client's clock may be off; zero: any.
    pub time_difference_max: Duration,
}

impl fmt::Debug for RealityServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealityServer")
            .field("site", &self.site)
            .field("server_names", &self.server_names)
            .finish_non_exhaustive()
    }
}

/// Certificate chain and key: PEM files, or PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// `certificate`.
    pub certificate: Box<str>,
    /// `private-key`; never shown.
    pub private_key: Box<str>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(..)")
    }
}
