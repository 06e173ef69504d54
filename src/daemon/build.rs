//! From a configuration to parts. Opens no socket; what it refuses, a reload survives.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use super::Failure;
use super::offload::Offload;
use super::state::Selected;
use crate::config::{Config, FindProcess};
use crate::dns::domain_set::DomainSet;
use crate::dns::fake_ip::FakeIp;
use crate::dns::hosts::Hosts;
use crate::dns::mapping::ReverseMapping;
use crate::dns::options::{EnhancedMode, Options as DnsOptions};
use crate::dns::resolver::Resolver;
use crate::dns::server::{Parts, Policy, Server};
use crate::dns::upstream::egress::{Outbounds, Sockets};
use crate::metadata::Metadata;
use crate::outbound::dial::Environment;
use crate::outbound::inward::{Entrance, Inward};
use crate::outbound::provided::ProviderNodes;
use crate::outbound::reach::Reach;
use crate::outbound::registry::Registry;
use crate::outbound::{Outbound, Resolve};
use crate::platform::socket::Egress;
use crate::rule_engine::{DnsWatch, Feed};
use crate::rules::Rules;
use crate::sniff;
use crate::tunnel::Tunnel;
use crate::tunnel::routing::{Routing, Sniffer, Step};

/// Where the fake-ip table is kept, in the working directory.
const FAKE_IP_FILE: &str = "fakeip.log";

/// DNS tables that outlive a configuration.
#[derive(Default)]
pub struct DnsTables {
    /// The fake addresses given out.
    pub fake_ip: Option<Arc<FakeIp>>,
    /// The real answers given out.
    pub mapping: Arc<ReverseMapping>,
}

/// What the DNS server is tied to.
pub struct DnsTies<'a> {
    /// The working directory.
    pub directory: &'a Path,
    /// The mark of our own sockets.
    pub own_mark: u32,
    /// The tunnel, once it is there: for `#proxy`.
    pub tunnel: &'a Arc<OnceLock<Weak<Tunnel>>>,
    /// The daemon's say.
    pub offload: &'a Arc<Offload>,
    /// Who wants to know of answers.
    pub feed: &'a Arc<Feed>,
}

/// Proxies and rules of the moment, for nameservers that are reached by them.
struct ByTunnel(Arc<OnceLock<Weak<Tunnel>>>);

impl Outbounds for ByTunnel {
    fn named(&self, name: &str) -> Option<Arc<dyn Outbound>> {
        let tunnel = self.0.get().and_then(Weak::upgrade)?;
        tunnel.routing().outbounds.get(name).cloned()
    }

    fn by_rules(&self, flow: &Metadata) -> Option<Arc<dyn Outbound>> {
        let tunnel = self.0.get().and_then(Weak::upgrade)?;
        match tunnel.routing().decide(flow, 0, false)? {
            Step::Done(decision) => Some(decision.node),
            Step::Resolve(_) => None,
        }
    }
}

/// The DNS server of a configuration over the tables of the one before.
///
/// # Errors
/// A pattern or a range that does not fit, or the fake-ip file.
pub fn dns_server(
    config: &Config,
    tables: &mut DnsTables,
    ties: &DnsTies<'_>,
) -> Result<Arc<Server>, Failure> {
    let options = &config.dns;
    let hosts = hosts(options)?;
    if options.enable && options.mode == EnhancedMode::FakeIp {
        let kept = tables
            .fake_ip
            .as_ref()
            .is_some_and(|pool| pool.has_ranges(options.fake_ip_range, options.fake_ip_range6));
        if !kept {
            let pool = FakeIp::new(options.fake_ip_range, options.fake_ip_range6)?;
            if options.store_fake_ip {
                std::fs::create_dir_all(ties.directory)?;
                pool.remember_in(&ties.directory.join(FAKE_IP_FILE))?;
            }
            tables.fake_ip = Some(Arc::new(pool));
        }
    }
    let sockets = Sockets {
        egress: Egress {
            interface: config.general.interface_name.clone(),
            mark: ties.own_mark | config.general.routing_mark,
            fast_open: false,
        },
        outbounds: Arc::new(ByTunnel(Arc::clone(ties.tunnel))),
    };
    let parts = Parts {
        resolver: Resolver::new(options, hosts.clone(), Arc::new(sockets))?,
        hosts,
        fake_ip: tables.fake_ip.clone(),
        mapping: Arc::clone(&tables.mapping),
        policy: config
            .transparent
            .enable
            .then(|| Arc::clone(ties.offload) as Arc<dyn Policy>),
        watch: Some(Arc::new(DnsWatch(Arc::clone(ties.feed)))),
    };
    Ok(Arc::new(Server::new(options, parts)?))
}

/// The tables that come before every answer, if there are any.
fn hosts(options: &DnsOptions) -> Result<Option<Arc<Hosts>>, Failure> {
    let table: &[_] = if options.use_hosts {
        &options.hosts
    } else {
        &[]
    };
    let system = options.use_system_hosts.then(|| "/etc/hosts".into());
    let leases: &[_] = if options.enable {
        &options.lease_files
    } else {
        &[]
    };
    if !options.use_hosts && system.is_none() && leases.is_empty() {
        return Ok(None);
    }
    let hosts = Hosts::new(table, system)?.with_leases(leases, &options.local_domain);
    Ok(Some(Arc::new(hosts)))
}

/// Proxies and groups of a configuration, with the choices of before and with what tests had found; and the
/// way to `entrance`.
///
/// # Errors
/// What does not fit together.
pub fn registry(
    config: &Config,
    nodes: &[ProviderNodes],
    resolver: Arc<dyn Resolve>,
    own_mark: u32,
    selected: &Selected,
    before: Option<&Registry>,
    entrance: &Arc<Entrance>,
) -> Result<Arc<Registry>, Failure> {
    let environment = Environment {
        resolver,
        own_mark,
        routing_mark: config.general.routing_mark,
        interface: config.general.interface_name.clone(),
        ipv6: config.general.ipv6,
        reach: Arc::new(Reach::new(&config.inbound.lan_reachable_ips)),
    };
    let mut registry = Registry::build(
        &config.proxies,
        nodes,
        &config.groups,
        &environment,
        selected,
        before,
    )?;
    if let Some(tag) = config.xray_tag()
        && !registry.insert(Arc::new(Inward::new(tag, entrance)))
    {
        return Err(format!("xray-api.tag: a provider has a node of the name {tag}").into());
    }
    Ok(Arc::new(registry))
}

/// The sniffer with its lists compiled.
///
/// # Errors
/// A pattern that is none.
pub fn sniffer(options: &sniff::Options) -> Result<Arc<Sniffer>, Failure> {
    let set = |list: &[Box<str>]| DomainSet::new(list.iter().map(|pattern| &**pattern));
    Ok(Arc::new(Sniffer {
        force_domain: set(&options.force_domain)?,
        skip_domain: set(&options.skip_domain)?,
        options: options.clone(),
    }))
}

/// Everything that decides. Takes the parsed rules out of `config`: they are large and not needed again.
///
/// # Errors
/// What does not fit together.
pub fn routing(
    config: &mut Config,
    nodes: &[ProviderNodes],
    resolver: Arc<dyn Resolve>,
    own_mark: u32,
    selected: &Selected,
    before: Option<&Registry>,
    entrance: &Arc<Entrance>,
) -> Result<Routing, Failure> {
    Ok(Routing {
        outbounds: registry(
            config, nodes, resolver, own_mark, selected, before, entrance,
        )?,
        rules: Arc::new(Rules::compile(std::mem::take(&mut config.rules))),
        added: None,
        mode: config.general.mode,
        sniffer: sniffer(&config.sniffer)?,
        find_process: config.general.find_process != FindProcess::Off,
        tally: Arc::default(),
    })
}
