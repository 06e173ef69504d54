//! What the configuration says of inbounds (clash-api.md 3.1 and 3.6).

use std::net::IpAddr;
use std::sync::Arc;

use super::server::options::ServerOptions;
use crate::metadata::Endpoint;
use crate::outbound::options::Credentials;
use crate::prefix::Prefix;

/// The port keys and `listeners:`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `port`, 0 is off; so for the four below.
    pub http_port: u16,
    /// `socks-port`.
    pub socks_port: u16,
    /// `mixed-port`.
    pub mixed_port: u16,
    /// `redir-port`.
    pub redir_port: u16,
    /// `tproxy-port`.
    pub tproxy_port: u16,
    /// `allow-lan`: off binds the ports above to 127.0.0.1.
    pub allow_lan: bool,
    /// `bind-address`, `None` for `*`.
    pub bind_address: Option<IpAddr>,
    /// `authentication`: for HTTP, SOCKS and mixed.
    pub authentication: Vec<Credentials>,
    /// `skip-auth-prefixes`.
    pub skip_auth_prefixes: Vec<Prefix>,
    /// `lan-allowed-ips`; empty: all.
    pub lan_allowed_ips: Vec<Prefix>,
    /// `lan-disallowed-ips`.
    pub lan_disallowed_ips: Vec<Prefix>,
    /// `lan-reachable-ips`: networks behind the router that devices of another one may reach by DIRECT.
    pub lan_reachable_ips: Vec<Prefix>,
    /// `listeners:`.
    pub listeners: Vec<ListenerOptions>,
}

/// One entry of `listeners:`.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Unique name, what IN-NAME compares.
    pub name: Box<str>,
    /// `type`.
    pub kind: ListenerKind,
    /// `listen`.
    pub listen: IpAddr,
    /// `port`.
    pub port: u16,
    /// `udp` (socks, mixed, tproxy), or whether `network` of a tunnel has it.
    pub udp: bool,
    /// `users`: `None` takes the global `authentication`, empty means open.
    pub users: Option<Vec<Credentials>>,
    /// `proxy`: everything goes there, without rules.
    pub proxy: Option<Box<str>>,
    /// `target`, of `type: tunnel`.
    pub target: Option<Endpoint>,
    /// What the types of encrypting protocols have besides.
    pub server: Option<Arc<ServerOptions>>,
}

/// The types of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `http`.
    Http,
    /// `socks`.
    Socks,
    /// `mixed`.
    Mixed,
    /// `redir`.
    Redirect,
    /// `tproxy`.
    TProxy,
    /// `tunnel`.
    Tunnel,
    /// `shadowsocks`.
    Shadowsocks,
    /// `vmess`.
    Vmess,
    /// `vless`.
    Vless,
    /// `trojan`.
    Trojan,
}
