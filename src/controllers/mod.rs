//! The controllers: views over the running state in the dialects that people's tools speak.
//!
//! [`gate`] owns the connections of clients and lets whole, permitted requests through; each
//! dialect is a folder with a route table and a file per resource. Controllers own no state of
//! the program: they read the tunnel, and everything else goes through [`Control`], which the
//! daemon implements.

pub mod change;
pub mod clash;
pub mod emqx;
pub mod gate;
pub mod http;
pub mod options;
#[cfg(test)]
mod tests;
pub mod xray;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use change::{Change, ChangeError};

use crate::inbound::options::Options as InboundOptions;
use crate::mqtt::remote::Remote;
use crate::outbound::options::ProxyOptions;
use crate::outbound::{BoxFuture, Outbound};
use crate::platform::logger::{Level, Logger};
use crate::prefix::Prefix;
use crate::provider::Provider as _;
use crate::provider::proxy::ProxyProvider;
use crate::provider::rule::RuleProvider;
use crate::rule_engine::Desk;
use crate::rule_engine::tables::Tables;
use crate::tunnel::Tunnel;
use crate::tunnel::history::day::Day;
use crate::tunnel::routing::Mode;

/// A cause that is shown to the client as its text; the text holds no secret and no file content.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What reads the proxies where they are kept.
pub type Look = Box<dyn FnOnce(&[ProxyOptions]) + Send>;

/// The door from the controllers to the program, and the only one.
///
/// Every method is called from threads that may block; an implementation that waits for the
/// runtime gives up after some seconds. `tunnel`, `memory` and `logger` are called from tasks of
/// the runtime too and must not wait.
pub trait Control: Send + Sync {
    /// Rules, outbounds and live flows.
    fn tunnel(&self) -> &Tunnel;

    /// The SQL rules.
    fn rules(&self) -> Option<&Desk> {
        None
    }

    /// What queries read.
    fn tables(&self) -> Option<&dyn Tables> {
        None
    }

    /// The MQTT broker.
    fn broker(&self) -> &Remote;

    /// The sink of the log.
    fn logger(&self) -> &'static Logger;

    /// Resident bytes of the process.
    fn memory(&self) -> u64;

    /// The working directory: what the API may name as a file lies in it.
    fn directory(&self) -> &Path;

    /// The file that the running configuration was read from.
    fn config_file(&self) -> &Path;

    /// The running general settings.
    fn general(&self) -> General;

    /// The listeners that were asked for, those that failed included.
    fn inbounds(&self) -> Arc<InboundOptions>;

    /// Shows `look` the proxies of the moment.
    ///
    /// # Errors
    /// They could not be shown; the daemon may be stopping.
    fn look_at_proxies(&self, look: Look) -> Result<(), Cause>;

    /// Changes listeners, users or proxies.
    ///
    /// # Errors
    /// Why not; nothing is changed then.
    fn change(&self, change: Change) -> Result<(), ChangeError>;

    /// Changes general settings until the next reload. A port that cannot be bound is logged, not an
    /// error: the next [`Control::general`] shows it as 0.
    ///
    /// # Errors
    /// What cannot be changed at all; nothing is changed then.
    fn patch(&self, patch: Patch) -> Result<(), Cause>;

    /// Loads a configuration in place of the running one; with `force` the port listeners follow it too.
    ///
    /// # Errors
    /// What is wrong with the new configuration; the old one runs on.
    fn reload(&self, source: ReloadSource, force: bool) -> Result<(), Cause>;

    /// Makes `member` the choice of the selector `group` and remembers it (`store-selected`);
    /// `false`: it is no member.
    fn select(&self, group: &Arc<dyn Outbound>, member: &str) -> bool;

    /// Ends a person's choice in a group that chooses itself, and forgets it; `false`: it is no such
    /// group.
    fn unpin(&self, group: &Arc<dyn Outbound>) -> bool;

    /// The proxy providers, in the order of the file.
    fn proxy_providers(&self) -> Arc<[Arc<ProxyProvider>]> {
        Arc::default()
    }

    /// Has a provider's nodes loaded anew, and put in force; waits for it.
    ///
    /// # Errors
    /// What is wrong with its source; the nodes are as they were.
    fn refresh_nodes(&self, provider: &Arc<ProxyProvider>) -> Result<(), Cause>;

    /// The rule providers, in the order of the file.
    fn rule_providers(&self) -> Arc<[Arc<RuleProvider>]> {
        Arc::default()
    }

    /// Switches rules, by index, off (`true`) and on until the next reload.
    fn switch_rules(&self, wanted: &[(usize, bool)]) {
        let routing = self.tunnel().routing();
        for (rule, off) in wanted
            .iter()
            .filter(|(rule, _)| *rule < routing.rule_count())
        {
            routing.tally.switch(*rule, *off);
        }
    }

    /// Where a rule stands in the configuration: `file:line`.
    fn place_of_rule(&self, _index: usize) -> Option<String> {
        None
    }

    /// Whether the kernel forwards what is certain to be DIRECT.
    fn offloads(&self) -> bool {
        false
    }

    /// Has a provider load its entries anew, now.
    ///
    /// # Errors
    /// What is wrong with its source; its set is as it was.
    fn refresh_provider(&self, provider: &Arc<RuleProvider>) -> Result<(), Cause> {
        let _loaded = provider.load()?;
        Ok(())
    }

    /// Asks the main resolver for records of type `kind`: no `hosts`, no fake addresses.
    ///
    /// # Errors
    /// [`DnsQueryError`]; a negative answer is none.
    fn dns_query(&self, name: &str, kind: u16) -> Result<DnsAnswer, DnsQueryError>;

    /// Answers a DNS message as the listener does; the answer is none where it deserves none. `None`:
    /// DNS is disabled.
    fn dns_message(&self, message: Vec<u8>) -> Option<BoxFuture<'static, Option<Vec<u8>>>>;

    /// Forgets every fake address, on disk too; nothing to do where fake-ip is off.
    ///
    /// # Errors
    /// What the store says.
    fn flush_fake_ip(&self) -> Result<(), Cause>;

    /// Empties the answer caches of all resolvers.
    fn flush_dns(&self);

    /// What is kept of the days `from` to `to` (since 1970, local time), both included, newest first. For
    /// yesterday and today ask the tunnel's history.
    fn past_days(&self, _from: u32, _to: u32) -> Vec<Day> {
        Vec::new()
    }

    /// Directories beside the working directory in which the API may name a file (`SAFE_PATHS`).
    fn safe_paths(&self) -> &[PathBuf];

    /// Fetches the geo databases that the running configuration uses.
    ///
    /// # Errors
    /// What became of one of them; the others are in use.
    fn update_geo(&self) -> Result<(), Cause>;

    /// Puts the newest pages of the dashboard in the place of those that are there.
    ///
    /// # Errors
    /// Why not, or that the configuration names no source of them; the old ones are there then.
    fn replace_pages(&self) -> Result<(), Cause> {
        Err("external-ui-url is not set".into())
    }

    /// Puts another program in the place of this one, to be restarted.
    ///
    /// # Errors
    /// Why not, or that the configuration names none; nothing has changed then.
    fn replace_program(&self) -> Result<(), Cause> {
        Err("upgrade is not set: the system's packages do it".into())
    }

    /// Stops cleanly and runs the program anew with the same arguments. Does not wait.
    fn restart(&self);

    /// Gives free memory of all threads back to the kernel.
    fn collect(&self);

    /// Whether the log level was `debug` when the controller started.
    fn is_debugged(&self) -> bool;

    /// What is kept under `key`.
    ///
    /// # Errors
    /// No such key is possible, or what the file system says; so for the two below.
    fn stored(&self, key: &str) -> Result<Option<Vec<u8>>, Cause>;

    /// Keeps `value` under `key`.
    ///
    /// # Errors
    /// As above, or there is no room.
    fn store(&self, key: &str, value: &[u8]) -> Result<(), Cause>;

    /// Forgets `key`.
    ///
    /// # Errors
    /// As above.
    fn forget_stored(&self, key: &str) -> Result<(), Cause>;
}

/// What `GET /configs` shows (clash-api.md 1.7).
#[derive(Clone, Debug, Default)]
pub struct General {
    /// `port`, as really listening, 0 when not; so for the four below.
    pub port: u16,
    /// `socks-port`.
    pub socks_port: u16,
    /// `redir-port`.
    pub redir_port: u16,
    /// `tproxy-port`.
    pub tproxy_port: u16,
    /// `mixed-port`.
    pub mixed_port: u16,
    /// `authentication`: user names only.
    pub users: Vec<Box<str>>,
    /// `skip-auth-prefixes`.
    pub skip_auth_prefixes: Vec<Prefix>,
    /// `lan-allowed-ips`.
    pub lan_allowed_ips: Vec<Prefix>,
    /// `lan-disallowed-ips`.
    pub lan_disallowed_ips: Vec<Prefix>,
    /// `allow-lan`.
    pub allow_lan: bool,
    /// `bind-address`, `*` for all.
    pub bind_address: Box<str>,
    /// `mode`.
    pub mode: Mode,
    /// `ipv6`.
    pub ipv6: bool,
    /// `unified-delay`.
    pub unified_delay: bool,
    /// `tcp-concurrent`.
    pub tcp_concurrent: bool,
    /// `interface-name`.
    pub interface_name: Box<str>,
    /// `routing-mark`.
    pub routing_mark: u32,
    /// Whether the sniffer is on.
    pub sniffing: bool,
    /// Whether the kernel forwards what is certain to be DIRECT.
    pub offload: bool,
    /// `find-process-mode`.
    pub find_process: &'static str,
    /// `keep-alive-idle`, seconds.
    pub keep_alive_idle: u32,
    /// `keep-alive-interval`, seconds.
    pub keep_alive_interval: u32,
    /// `disable-keep-alive`.
    pub disable_keep_alive: bool,
}

/// What `PATCH /configs` changes: members that are `None` stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// `port`, 0 closes it; so for the four below.
    pub port: Option<u16>,
    /// `socks-port`.
    pub socks_port: Option<u16>,
    /// `redir-port`.
    pub redir_port: Option<u16>,
    /// `tproxy-port`.
    pub tproxy_port: Option<u16>,
    /// `mixed-port`.
    pub mixed_port: Option<u16>,
    /// `allow-lan`.
    pub allow_lan: Option<bool>,
    /// `bind-address`.
    pub bind_address: Option<BindAddress>,
    /// `skip-auth-prefixes`.
    pub skip_auth_prefixes: Option<Vec<Prefix>>,
    /// `lan-allowed-ips`.
    pub lan_allowed_ips: Option<Vec<Prefix>>,
    /// `lan-disallowed-ips`.
    pub lan_disallowed_ips: Option<Vec<Prefix>>,
    /// `mode`.
    pub mode: Option<Mode>,
    /// `log-level`.
    pub log_level: Option<Level>,
    /// `ipv6`.
    pub ipv6: Option<bool>,
    /// `sniffing`.
    pub sniffing: Option<bool>,
    /// `tcp-concurrent`.
    pub tcp_concurrent: Option<bool>,
    /// `interface-name`.
    pub interface_name: Option<Box<str>>,
}

/// `bind-address` as a patch names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// `*`.
    All,
    /// One address.
    One(std::net::IpAddr),
}

/// Where a reload takes its text from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadSource {
    /// The file that the running configuration came from, read anew.
    Running,
    /// A file of the working directory: its real path, and its text as it was when the path was checked.
    File {
        /// For error messages.
        path: PathBuf,
        /// The configuration.
        text: String,
    },
    /// The text that the client sent.
    Payload(String),
}

/// A DNS message as `/dns/query` shows it.
#[derive(Clone, Debug, Default)]
pub struct DnsAnswer {
    /// Response code; a negative answer is an answer.
    pub status: u16,
    /// TC: the answer was cut.
    pub truncated: bool,
    /// RD.
    pub recursion_desired: bool,
    /// RA.
    pub recursion_available: bool,
    /// AD.
    pub authentic: bool,
    /// CD.
    pub checking_disabled: bool,
    /// The answer section.
    pub answer: Vec<DnsRecord>,
    /// The authority section.
    pub authority: Vec<DnsRecord>,
    /// The additional section, without OPT.
    pub additional: Vec<DnsRecord>,
}

/// One record.
#[derive(Clone, Debug)]
pub struct DnsRecord {
    /// Owner, with or without its final dot.
    pub name: Box<str>,
    /// Type.
    pub kind: u16,
    /// Time to live, seconds.
    pub ttl: u32,
    /// The data in presentation form.
    pub data: Box<str>,
}

/// Why `/dns/query` has no answer.
#[derive(Debug)]
pub enum DnsQueryError {
    /// `dns.enable` is off.
    Disabled,
    /// No upstream answered.
    Failed(Cause),
}

/// What handlers get: the program, and the little that the dialects share among requests.
pub struct Context {
    /// The program.
    pub control: Arc<dyn Control>,
    /// The Clash dialect's own.
    pub clash: clash::Shared,
    /// EMQX's.
    pub emqx: emqx::Shared,
}
