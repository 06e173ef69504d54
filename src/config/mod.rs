//! The configuration: one YAML file in mihomo's words, decoded and checked whole before anything
//! starts (contract; clash-api.md section 3).
//!
//! [`Config::parse`] is pure: text in, the sum of every module's options out, or the first mistake
//! with its line, column and key path. Keys without effect become warnings. No file is read here,
//! no name resolved, no secret made; `daemon` does that.
//!
//! Promises, tested on random text: never a panic; memory bounded whatever the text says (the
//! limits are in `yaml`); a configuration that is returned has no unknown or looping target.

mod controller;
mod decode;
mod dns;
mod dns_names;
mod domain;
mod error;
mod general;
mod geodata;
mod groups;
mod inbound;
mod management;
mod mqtt;
mod nameserver;
mod nearest;
mod plugin;
mod proxies;
mod proxy_providers;
mod rule_engine;
mod rule_providers;
mod rules;
mod scalar;
mod section;
mod server;
mod sniffer;
mod subscription;
#[cfg(test)]
mod tests;
mod transparent;
mod transport;
mod validate;
mod xray;
mod yaml;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::controllers::options::Options as ControllerOptions;
use crate::controllers::xray::options::Options as XrayOptions;
use crate::dns::options::Options as DnsOptions;
use crate::inbound::options::{ListenerOptions, Options as InboundOptions};
use crate::mqtt::options::Options as MqttOptions;
use crate::netfilter::options::Options as TransparentOptions;
use crate::outbound::options::{GroupOptions, ProxyOptions};
use crate::provider::options::{GeodataOptions, RuleProviderOptions};
use crate::provider::proxy::ProxyProviderOptions;
use crate::rule_engine::options::Options as RuleEngineOptions;
use crate::rules::geo::Geodata;
use crate::rules::{Library, RuleLine, Rules};
use crate::sniff::Options as SnifferOptions;

use decode::Cursor;
use error::Warnings;
use geodata::GeoUses;
use section::Section;
use yaml::Tree;

pub use error::{ConfigError, Excerpt, Reason, Remark, Warning};
pub use general::{FindProcess, General};
pub use geodata::{GeoUse, Place};
pub use validate::BUILTIN_NAMES;

/// Keys of the top level that mihomo or the contract knows and headgate does not serve yet.
const OTHER_KEYS: &[&str] = &[
    "tun",
    "tunnels",
    "ntp",
    "iptables",
    "experimental",
    "external-controller-pipe",
    "external-controller-routing-mark",
    "inbound-tfo",
    "inbound-mptcp",
    "global-client-fingerprint",
    "global-ua",
    "etag-support",
    "ss-config",
    "vmess-config",
    "tuic-server",
    "clash-for-android",
];

/// Everything that the file says.
#[derive(Clone)]
pub struct Config {
    /// What concerns the whole daemon.
    pub general: General,
    /// The port keys and `listeners:`.
    pub inbound: InboundOptions,
    /// `dns:` and `hosts:`.
    pub dns: DnsOptions,
    /// `sniffer:`.
    pub sniffer: SnifferOptions,
    /// `proxies:`, in the order of the file.
    pub proxies: Vec<ProxyOptions>,
    /// `proxy-groups:`, in the order of the file.
    pub groups: Vec<GroupOptions>,
    /// `rules:`; every target is a proxy, a group, one of [`BUILTIN_NAMES`] or a list of `sub-rules:`.
    pub rules: Vec<RuleLine>,
    /// `proxy-providers:`, in the order of the file.
    pub proxy_providers: Vec<ProxyProviderOptions>,
    /// `rule-providers:`, in the order of the file; the rules hold on to their sets.
    pub rule_providers: Vec<RuleProviderOptions>,
    /// `geodata-mode`, `geox-url` and their like.
    pub geodata: GeodataOptions,
    /// The categories of geodata in use; rules and rule providers hold on to them, and providers may
    /// ask for more.
    pub geo_categories: Geodata,
    /// Where the file asks for them.
    pub geo_uses: Vec<GeoUse>,
    /// `sub-rules:` by name, in the order of the file, with targets as those of the rules.
    pub sub_rules: Vec<(Box<str>, Arc<Rules>)>,
    /// `transparent:`.
    pub transparent: TransparentOptions,
    /// `external-controller*` and `secret`.
    pub controller: ControllerOptions,
    /// `mqtt:`.
    pub mqtt: MqttOptions,
    /// `rule-engine:`.
    pub rule_engine: RuleEngineOptions,
    /// `xray-api:`; none: it is off.
    pub xray: Option<XrayOptions>,
}

impl Config {
    /// The name of the outbound that leads to the Xray API, where there is one.
    #[must_use]
    pub fn xray_tag(&self) -> Option<&str> {
        self.xray.as_ref()?.tag.as_deref()
    }

    /// Decodes and checks a file's text. JSON is YAML too.
    ///
    /// # Errors
    /// The first mistake, in the order in which the sections are read.
    pub fn parse(text: &str) -> Result<(Self, Vec<Warning>), ConfigError> {
        let tree = Tree::parse(text)?;
        let root = Cursor::root(&tree);
        let mut warnings = Warnings::default();
        let mut section = root.section()?;
        let (mut config, mut groups) = Self::decode(&mut section, &mut warnings)?;
        section.not_implemented(OTHER_KEYS, &mut warnings);
        section.finish(&mut warnings);
        groups::settle_providers(&mut groups, &config.proxy_providers);
        // Once as it is written, so that errors are told where they stand, and once as it is meant.
        config.groups = groups.iter().map(|group| group.options.clone()).collect();
        validate::check(&config, &root)?;
        if groups::settle(&mut groups, &config.proxies) {
            config.groups = groups.into_iter().map(|group| group.options).collect();
            validate::check(&config, &root)?;
        }
        Ok((config, warnings.into_list()))
    }

    /// The line of each of `rules:`, from 1. `None`: the text is no configuration.
    #[must_use]
    pub fn lines_of_rules(text: &str) -> Option<Vec<u32>> {
        let tree = Tree::parse(text).ok()?;
        let root = Cursor::root(&tree);
        let rules = root.section().ok()?.take("rules")?;
        let lines = rules.items().ok()?.map(|item| item.position().0);
        Some(lines.collect())
    }

    /// Decodes one entry of `proxies:`, alone. What has no effect in it is passed over.
    ///
    /// # Errors
    /// The first mistake.
    pub fn proxy(text: &str) -> Result<ProxyOptions, ConfigError> {
        let tree = Tree::parse(text)?;
        proxies::decode(&Cursor::root(&tree), &mut Warnings::default())
    }

    /// Decodes one entry of `listeners:`, alone. What has no effect in it is passed over.
    ///
    /// # Errors
    /// The first mistake.
    pub fn listener(text: &str) -> Result<ListenerOptions, ConfigError> {
        let tree = Tree::parse(text)?;
        inbound::listener(&Cursor::root(&tree), &mut Warnings::default())
    }

    /// What runs when there is no file (contract): a mixed proxy, the Clash controller, the
    /// MQTT broker, its management and the Xray API on the loopback, everything DIRECT. Secrets are still missing: the
    /// caller must make them before it listens.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            general: General::default(),
            inbound: InboundOptions {
                mixed_port: 7890,
                ..InboundOptions::default()
            },
            dns: DnsOptions::default(),
            sniffer: SnifferOptions::default(),
            proxies: Vec::new(),
            groups: Vec::new(),
            rules: RuleLine::parse("MATCH,DIRECT").into_iter().collect(),
            proxy_providers: Vec::new(),
            rule_providers: Vec::new(),
            geodata: GeodataOptions::default(),
            geo_categories: Geodata::default(),
            geo_uses: Vec::new(),
            sub_rules: Vec::new(),
            transparent: TransparentOptions::default(),
            controller: ControllerOptions {
                listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))),
                management: management::builtin(),
                ..ControllerOptions::default()
            },
            mqtt: mqtt::builtin(),
            rule_engine: RuleEngineOptions::default(),
            xray: Some(xray::builtin()),
        }
    }

    /// The configuration without its groups, and those as they are written.
    fn decode(
        section: &mut Section<'_>,
        warnings: &mut Warnings,
    ) -> Result<(Self, Vec<groups::Group>), ConfigError> {
        let (general, store_fake_ip) = general::decode(section, warnings)?;
        let inbound = inbound::decode(section, warnings)?;
        // What lists of names and rules may refer to comes first.
        let geodata = geodata::decode(section, warnings)?;
        let mut uses = GeoUses::default();
        let rule_providers = rule_providers::decode(section, &mut uses, warnings)?;
        let mut library = Library::new(uses.geodata());
        for provider in &rule_providers {
            library.add_set(Arc::clone(&provider.set));
        }
        let mut sets = dns_names::Sets {
            library: &library,
            uses: &mut uses,
        };
        let dns = dns::decode(section, store_fake_ip, &mut sets, warnings)?;
        let groups = section.list("proxy-groups", |item| groups::decode(item, warnings))?;
        let (sniffer, proxies) = (
            sniffer::decode(section, warnings)?,
            section.list("proxies", |item| proxies::decode(item, warnings))?,
        );
        let rules::Decoded { rules, lists } = rules::decode(section, library, &mut uses)?;
        let mut mqtt = mqtt::decode(section, warnings)?;
        let management = management::decode(section, mqtt.storage, warnings)?;
        mqtt.node.clone_from(&management.node);
        let rule_engine = rule_engine::decode(section, warnings)?;
        let config = Self {
            general,
            inbound,
            sniffer,
            proxies,
            groups: Vec::new(),
            rules,
            proxy_providers: proxy_providers::decode(section, warnings)?,
            rule_providers,
            geodata,
            geo_categories: uses.geodata().clone(),
            geo_uses: uses.into_list(),
            sub_rules: lists,
            transparent: transparent::decode(section, dns.enable, warnings)?,
            controller: ControllerOptions {
                management,
                ..controller::decode(section, warnings)?
            },
            mqtt,
            rule_engine,
            xray: xray::decode(section, warnings)?,
            dns,
        };
        Ok((config, groups))
    }
}
