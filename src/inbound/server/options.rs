//! What the configuration says of servers (mihomo's `listeners:` of these types, and more users).

use std::fmt;
use std::net::SocketAddr;

/// A server's own keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Protocol and users.
    pub protocol: ServerProtocolOptions,
    /// `certificate` and `private-key`: TLS when present.
    pub tls: Option<ServerTls>,
    /// `ws-path`: WebSocket, or HTTPUpgrade, at this path when present.
    pub ws_path: Option<Box<str>>,
    /// `fallback`: who answers those that do not authenticate.
    pub fallback: Option<SocketAddr>,
}

/// Protocol and users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerProtocolOptions {
    /// `type: shadowsocks`.
    Shadowsocks(ShadowsocksServer),
    /// `type: vmess`.
    Vmess(Vec<User>),
    /// `type: vless`.
    Vless(Vec<User>),
    /// `type: trojan`.
    Trojan(Vec<User>),
}

/// Keys of `type: shadowsocks`.
#[derive(Clone, PartialEq, Eq)]
pub struct ShadowsocksServer {
    /// `cipher`.
    pub cipher: Box<str>,
    /// `password`: the only user's, or with `users` of the 2022 edition the server's.
    pub password: Box<str>,
    /// `users`.
    pub users: Vec<User>,
}

impl fmt::Debug for ShadowsocksServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowsocksServer")
            .field("cipher", &self.cipher)
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

/// One entry of `users:`.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// `username`: what IN-USER compares.
    pub name: Box<str>,
    /// `password` or `uuid`; never shown.
    pub secret: Box<str>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
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
