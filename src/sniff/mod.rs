//! Sniffers read the name a client is about to speak to from its first bytes. Pure functions:
//! `&[u8]` in, [`Sniffed`] out; the tunnel owns buffers and time.

pub mod http;
pub mod quic;
pub mod tls;

use crate::metadata::{Host, Network};
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

impl From<Host> for Sniffed {
    /// An address literal names nothing: the destination is known already.
    fn from(host: Host) -> Self {
        match host {
            Host::Name(name) => Self::Host(name),
            Host::Ip(_) => Self::Nothing,
        }
    }
}

/// What the sniffers that are on for a port make of a flow's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// One of them read this name (as [`Sniffed::Host`]).
    Host {
        /// The name.
        name: Box<str>,
        /// Whether that protocol's names replace the destination.
        override_destination: bool,
    },
    /// None of them will read one.
    Nothing,
    /// One of them waits for more bytes.
    NeedMore,
}

impl Reading {
    fn new(sniffed: Sniffed, options: &ProtocolOptions) -> Self {
        match sniffed {
            Sniffed::Host(name) => Self::Host {
                name,
                override_destination: options.override_destination,
            },
            Sniffed::Nothing => Self::Nothing,
            Sniffed::NeedMore => Self::NeedMore,
        }
    }
}

/// Reads a name from the first bytes of a TCP stream to `port`: all bytes from the first on, at
/// most [`TCP_BYTES_MAX`] of which count.
#[must_use]
pub fn tcp(stream: &[u8], port: u16, options: &Options) -> Reading {
    // TLS begins with a byte that no HTTP method has, so at most one of them wants more.
    let mut reading = Reading::Nothing;
    if let Some(on) = options.tls.as_ref().filter(|on| on.covers(port)) {
        reading = Reading::new(tls::server_name(stream), on);
    }
    if let Some(on) = options.http.as_ref().filter(|on| on.covers(port)) {
        match Reading::new(http::host(stream), on) {
            Reading::Nothing => {}
            http => reading = http,
        }
    }
    reading
}

/// After so many bytes [`tcp`] never answers [`Reading::NeedMore`].
pub const TCP_BYTES_MAX: usize = tls::HELLO_BYTES_MAX;

/// Reads a name from a client's next datagram to `port`; `initial` is the state of that client
/// and destination, new for the first datagram.
pub fn udp(initial: &mut quic::Initial, datagram: &[u8], port: u16, options: &Options) -> Reading {
    match options.quic.as_ref().filter(|on| on.covers(port)) {
        Some(on) => Reading::new(initial.datagram(datagram), on),
        None => Reading::Nothing,
    }
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

impl ProtocolOptions {
    fn covers(&self, port: u16) -> bool {
        let within = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
        self.ports.is_empty() || self.ports.iter().any(within)
    }
}

impl Options {
    /// Whether some sniffer reads flows to `port`: if not, nobody need wait for their bytes.
    #[must_use]
    pub fn covers(&self, network: Network, port: u16) -> bool {
        let on = |sniffer: &Option<ProtocolOptions>| {
            sniffer.as_ref().is_some_and(|sniffer| sniffer.covers(port))
        };
        let on = match network {
            Network::Tcp => on(&self.tls) || on(&self.http),
            Network::Udp => on(&self.quic),
        };
        self.enable && on
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            enable: true,
            tls: Some(ProtocolOptions {
                ports: vec![(443, 443), (8000, 8999)],
                override_destination: true,
            }),
            http: Some(ProtocolOptions {
                ports: vec![(80, 80), (8080, 8080)],
                override_destination: false,
            }),
            ..Options::default()
        }
    }

    fn host(name: &str, override_destination: bool) -> Reading {
        Reading::Host {
            name: name.into(),
            override_destination,
        }
    }

    #[test]
    fn each_protocol_is_read_on_its_own_ports_with_its_own_override() {
        let hello = tls::tests::rustls_hello("a.org");
        let request = b"GET / HTTP/1.1\r\nHost: b.org\r\n\r\n";
        let options = options();
        assert_eq!(tcp(&hello, 443, &options), host("a.org", true));
        assert_eq!(tcp(request, 443, &options), Reading::Nothing);
        assert_eq!(tcp(request, 80, &options), host("b.org", false));
        assert_eq!(tcp(&hello, 80, &options), Reading::Nothing);
        assert_eq!(tcp(&hello, 8080, &options), host("a.org", true));
        assert_eq!(tcp(request, 8080, &options), host("b.org", false));
        assert_eq!(tcp(b"GE", 8080, &options), Reading::NeedMore);
        assert_eq!(tcp(&hello[..9], 8080, &options), Reading::NeedMore);
        assert_eq!(tcp(b"", 22, &options), Reading::Nothing);
    }

    #[test]
    fn ports_without_a_sniffer_are_not_covered() {
        let mut options = options();
        assert!(options.covers(Network::Tcp, 8500));
        assert!(!options.covers(Network::Tcp, 22));
        assert!(!options.covers(Network::Udp, 443));
        options.enable = false;
        assert!(!options.covers(Network::Tcp, 443));
    }
}
