//! What the configuration says of the rules (`rule-engine:`).

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::metadata::{Endpoint, Host};
use crate::prefix::Prefix;

/// `rule-engine:`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `webhook-allow`: where web hooks may go; nowhere else.
    pub webhook_allow: Vec<Allowed>,
    /// `state`: the router's state as MQTT topics; none: it is not published.
    pub state: Option<StateOptions>,
}

/// `rule-engine.state:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// `interval`.
    pub interval: Duration,
    /// `home-assistant`: discovery messages too.
    pub home_assistant: bool,
    /// `commands`: whether messages to `headgate/…/set` act on the router.
    pub commands: bool,
}

/// One entry of `webhook-allow`: `hooks.example.org`, `*.example.org`, `192.0.2.0/24`, `127.0.0.1`, each
/// also with `:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    hosts: Hosts,
    /// `None`: any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Name(Box<str>),
    /// The names below it, not it itself.
    Below(Box<str>),
    Net(Prefix),
}

/// The text is no entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAllowed;

impl FromStr for Allowed {
    type Err = NotAllowed;

    fn from_str(text: &str) -> Result<Self, NotAllowed> {
        let whole = |hosts| Ok(Self { hosts, port: None });
        if let Ok(net) = text.parse() {
            return whole(Hosts::Net(net));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return whole(Hosts::Net(single(ip)));
        }
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (host, port) = match Endpoint::parse(rest) {
            Some(endpoint) => (endpoint.host, Some(endpoint.port)),
            None => (Host::parse(rest).ok_or(NotAllowed)?, None),
        };
        let hosts = match (host, below) {
            (Host::Name(name), true) => Hosts::Below(name),
            (Host::Name(name), false) => Hosts::Name(name),
            (Host::Ip(ip), false) => Hosts::Net(single(ip)),
            (Host::Ip(_), true) => return Err(NotAllowed),
        };
        Ok(Self { hosts, port })
    }
}

fn single(ip: IpAddr) -> Prefix {
    Prefix::new(ip, if ip.is_ipv4() { 32 } else { 128 })
}

impl Allowed {
    /// Whether it names this destination.
    #[must_use]
    pub fn names(&self, to: &Endpoint) -> bool {
        let host = match (&self.hosts, &to.host) {
            (Hosts::Name(own), Host::Name(name)) => own == name,
            (Hosts::Below(own), Host::Name(name)) => name
                .strip_suffix(&**own)
                .is_some_and(|rest| rest.ends_with('.')),
            (Hosts::Net(net), Host::Ip(ip)) => net.contains(ip.to_canonical()),
            _ => false,
        };
        host && self.port.is_none_or(|port| port == to.port)
    }

    /// Whether it has this address among its networks: what a name must not lead to otherwise.
    #[must_use]
    pub fn covers(&self, ip: IpAddr, port: u16) -> bool {
        let host = Host::Ip(ip.to_canonical());
        matches!(self.hosts, Hosts::Net(_)) && self.names(&Endpoint { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_hosts_networks_and_ports() {
        for (entry, to, want) in [
            ("a.org", "a.org:80", true),
            ("a.org", "b.a.org:80", false),
            ("*.a.org", "b.a.org:80", true),
            ("*.a.org", "a.org:80", false),
            ("*.a.org", "ba.org:80", false),
            ("a.org:443", "a.org:80", false),
            ("a.org:443", "a.org:443", true),
            ("192.0.2.0/24", "192.0.2.7:1", true),
            ("192.0.2.0/24", "192.0.3.7:1", false),
            ("192.0.2.0/24", "a.org:1", false),
            ("127.0.0.1:9910", "127.0.0.1:9910", true),
            ("127.0.0.1:9910", "127.0.0.1:9911", false),
            ("::1", "[::1]:5", true),
        ] {
            let parsed: Allowed = entry.parse().unwrap();
            let to = Endpoint::parse(to).unwrap();
            assert_eq!(parsed.names(&to), want, "{entry} {to}");
        }
        for bad in [
            "",
            "*.",
            "*.192.0.2.1",
            "a b",
            "a.org:99999",
            "192.0.2.0/40",
        ] {
            assert_eq!(bad.parse::<Allowed>(), Err(NotAllowed), "{bad}");
        }
    }
}
