//! Why proxies and groups make no registry.

use std::fmt;

use crate::outbound::http::HttpError;
use crate::outbound::shadowsocks::ShadowsocksError;
use crate::outbound::socks5::Socks5Error;
use crate::outbound::transport::TransportError;
use crate::outbound::vmess::VmessError;

/// Why proxies and groups do not fit together. The name is the proxy's or group's at fault.
#[derive(Debug)]
pub enum RegistryError {
    /// The name is taken, by another or by a built-in.
    DuplicateName(Box<str>),
    /// The group `group` lists `member`, which is neither proxy nor group.
    UnknownMember {
        /// The group.
        group: Box<str>,
        /// What it lists.
        member: Box<str>,
    },
    /// The group is a member of itself, directly or through others.
    GroupLoop(Box<str>),
    /// The `dialer-proxy` of `proxy` is neither proxy nor group.
    UnknownDialer {
        /// The proxy.
        proxy: Box<str>,
        /// Its `dialer-proxy`.
        dialer: Box<str>,
    },
    /// The proxy's `dialer-proxy` leads back to it.
    DialerLoop(Box<str>),
    /// An option of the protocol is wrong.
    Protocol {
        /// The proxy.
        proxy: Box<str>,
        /// What is wrong.
        error: ProtocolError,
    },
}

/// What is wrong with a protocol's own options.
#[derive(Debug)]
pub enum ProtocolError {
    /// `type: http`.
    Http(HttpError),
    /// `type: socks5`.
    Socks5(Socks5Error),
    /// `type: ss`.
    Shadowsocks(ShadowsocksError),
    /// TLS or `network` of a protocol that has them.
    Transport(TransportError),
    /// `type: vmess` and `type: vless`.
    Vmess(VmessError),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Socks5(error) => error.fmt(f),
            Self::Shadowsocks(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Vmess(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateName(name) => write!(f, "the name {name} is taken"),
            Self::UnknownMember { group, member } => {
                write!(f, "group {group}: no proxy or group is named {member}")
            }
            Self::GroupLoop(name) => write!(f, "group {name} contains itself"),
            Self::UnknownDialer { proxy, dialer } => {
                write!(
                    f,
                    "proxy {proxy}: dialer-proxy {dialer} is no proxy or group"
                )
            }
            Self::DialerLoop(name) => write!(f, "proxy {name}: dialer-proxy leads back to it"),
            Self::Protocol { proxy, error } => write!(f, "proxy {proxy}: {error}"),
        }
    }
}

impl std::error::Error for RegistryError {}
