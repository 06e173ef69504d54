//! Sniffers read the name a client is about to speak to from its first bytes. Pure functions:
//! `&[u8]` in, [`Sniffed`] out; the tunnel owns buffers and time.

pub mod http;
pub mod quic;
pub mod tls;

use crate::prefix::Prefix;

/// What the first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// The name, lower case, without trailing dot; never an address literal.
    Host(Box<str>),
    /// Not this protocol, or no name in it.
    Nothing,
    /// This protocol so far; more bytes will tell.
    NeedMore,
}

/// `sniffer:` of the configuration (clash-api.md 3.4).
#[derive(Clone, Debug)]
pub struct Options {
    /// `enable`.
    pub enable: bool,
    /// `sniff.TLS`, when that sniffer is on.
    pub tls: Option<ProtocolOptions>,
    /// `sniff.HTTP`.
    pub http: Option<ProtocolOptions>,
    /// `sniff.QUIC`.
    pub quic: Option<ProtocolOptions>,
    /// `force-dns-mapping`.
    pub force_dns_mapping: bool,
    /// `parse-pure-ip`.
    pub parse_pure_ip: bool,
    /// `force-domain`: sniff although a host is known (domain wildcards).
    pub force_domain: Vec<Box<str>>,
    /// `skip-domain`: names to discard (domain wildcards).
    pub skip_domain: Vec<Box<str>>,
    /// `skip-src-address`.
    pub skip_source: Vec<Prefix>,
    /// `skip-dst-address`.
    pub skip_destination: Vec<Prefix>,
}

/// One sniffer's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolOptions {
    /// Inclusive port ranges; empty: every port.
    pub ports: Vec<(u16, u16)>,
    /// Replace the destination by the name (the global `override-destination` when not set).
    pub override_destination: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enable: false,
            tls: None,
            http: None,
            quic: None,
            force_dns_mapping: true,
            parse_pure_ip: true,
            force_domain: Vec::new(),
            skip_domain: Vec::new(),
            skip_source: Vec::new(),
            skip_destination: Vec::new(),
        }
    }
}
