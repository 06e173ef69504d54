//! `transparent:` of the configuration (contract).

use crate::metadata::Mac;
use crate::prefix::Prefix;

/// `transparent:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `enable`.
    pub enable: bool,
    /// `mode`.
    pub mode: Mode,
    /// `interfaces` whose traffic is captured.
    pub interfaces: Vec<Box<str>>,
    /// `ipv4`.
    pub ipv4: bool,
    /// `ipv6`.
    pub ipv6: bool,
    /// `dns-hijack`.
    pub dns_hijack: bool,
    /// `router-traffic`.
    pub router_traffic: bool,
    /// `fail`.
    pub fail: Fail,
    /// `offload`.
    pub offload: bool,
    /// `bypass`: destinations never captured.
    pub bypass: Vec<Prefix>,
    /// `bypass-source` addresses.
    pub bypass_source: Vec<Prefix>,
    /// `bypass-source` devices.
    pub bypass_source_mac: Vec<Mac>,
    /// `mark` and its mask.
    pub mark: Mark,
    /// `table`: routing table.
    pub table: u32,
    /// `rule-priority` of the ip rules.
    pub rule_priority: u32,
}

/// A firewall mark under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The bits, all within `mask`.
    pub value: u32,
    /// Which bits are ours.
    pub mask: u32,
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// TCP and UDP by tproxy.
    TProxy,
    /// TCP by NAT redirect, UDP by tproxy.
    Redirect,
}

/// `fail`: what LAN traffic does when the daemon is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// It goes on directly.
    Open,
    /// It is dropped.
    Closed,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enable: false,
            mode: Mode::TProxy,
            interfaces: vec!["br-lan".into()],
            ipv4: true,
            ipv6: true,
            dns_hijack: true,
            router_traffic: false,
            fail: Fail::Open,
            offload: true,
            bypass: Vec::new(),
            bypass_source: Vec::new(),
            bypass_source_mac: Vec::new(),
            mark: Mark {
                value: 0x4800_0000,
                mask: 0xff00_0000,
            },
            table: 26727,
            rule_priority: 900,
        }
    }
}
