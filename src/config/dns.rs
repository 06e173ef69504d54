//! `dns:` and `hosts:` (clash-api.md 3.2 and 3.3).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::controller::socket_address;
use super::decode::Cursor;
use super::dns_names::{self, Sets};
use super::domain::{PATTERN_EXPECTED, domain_pattern};
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::nameserver;
use super::section::Section;
use crate::dns::options::{EnhancedMode, HostsValue, Options, Upstream, Via};
use crate::dns::replacement::Algorithm;
use crate::metadata::Host;
use crate::prefix::Prefix;

/// Keys of mihomo's that are not served yet.
const OTHER_KEYS: &[&str] = &["prefer-h3", "listen-routing-mark"];

/// Addresses that a fake range needs: its first four are not handed out (clash-api.md 4.3), nor is
/// its last.
const RANGE_BITS_MIN: u8 = 3;

/// Most answers that the cache may be asked to hold.
const CACHE_SIZE_MAX: u32 = 1 << 20;

/// Takes `dns` and `hosts` from the top level.
pub(super) fn decode(
    section: &mut Section<'_>,
    store_fake_ip: bool,
    sets: &mut Sets<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let mut options = match section.take("dns") {
        Some(dns) => dns_section(&dns, sets, warnings)?,
        None => Options::default(),
    };
    options.store_fake_ip = store_fake_ip;
    if let Some(hosts) = section.take("hosts") {
        for (name, value) in hosts.entries()? {
            let Some(pattern) = domain_pattern(name) else {
                return Err(value.fail(Reason::Value {
                    expected: PATTERN_EXPECTED,
                    found: Excerpt::of(name),
                }));
            };
            options.hosts.push((pattern, hosts_value(&value)?));
        }
    }
    Ok(options)
}

fn dns_section(
    dns: &Cursor<'_>,
    sets: &mut Sets<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let absent = Options::default();
    let mut section = dns.section()?;
    let enable = section.boolean("enable", false)?;
    let listen = section.take("listen");
    let nameserver_at = section.take("nameserver");
    let mut options = Options {
        enable,
        listen: listen.map(|at| socket_address(&at)).transpose()?,
        ipv6: section.boolean("ipv6", absent.ipv6)?,
        mode: match section.take("enhanced-mode") {
            Some(mode) => mode.parse("normal, redir-host or fake-ip", enhanced_mode)?,
            None => absent.mode,
        },
        fake_ip_range: fake_range(&mut section, "fake-ip-range", true)?
            .unwrap_or(absent.fake_ip_range),
        fake_ip_range6: fake_range(&mut section, "fake-ip-range6", false)?,
        fake_ip_filter: dns_names::fake_ip_filter(&mut section, sets)?,
        fake_ip_ttl: section.number("fake-ip-ttl", absent.fake_ip_ttl)?,
        use_hosts: section.boolean("use-hosts", absent.use_hosts)?,
        use_system_hosts: section.boolean("use-system-hosts", absent.use_system_hosts)?,
        default_nameserver: match section.take("default-nameserver") {
            Some(list) => default_nameserver(&list, warnings)?,
            None => absent.default_nameserver,
        },
        nameserver: match &nameserver_at {
            Some(list) => nameserver::decode(list, warnings)?,
            None => Vec::new(),
        },
        policy: dns_names::policy(&mut section, "nameserver-policy", sets, warnings)?,
        fallback: nameservers(&mut section, "fallback", warnings)?,
        fallback_filter: dns_names::fallback_filter(&mut section, sets, warnings)?,
        proxy_server_nameserver: nameservers(&mut section, "proxy-server-nameserver", warnings)?,
        proxy_server_policy: dns_names::policy(
            &mut section,
            "proxy-server-nameserver-policy",
            sets,
            warnings,
        )?,
        direct_nameserver: nameservers(&mut section, "direct-nameserver", warnings)?,
        direct_follows_policy: section.boolean("direct-nameserver-follow-policy", false)?,
        ipv6_timeout: ipv6_timeout(&mut section, absent.ipv6_timeout)?,
        cache_algorithm: match section.take("cache-algorithm") {
            Some(at) => at.parse("lru or arc", cache_algorithm)?,
            None => absent.cache_algorithm,
        },
        cache_size: cache_size(&mut section, absent.cache_size)?,
        rebind: dns_names::rebind(&mut section, sets)?,
        ..absent
    };
    local_names(&mut section, &mut options)?;
    if enable && options.nameserver.is_empty() {
        let Some(list) = nameserver_at else {
            return Err(section.at().missing("nameserver", Reason::NoNameserver));
        };
        return Err(list.fail(Reason::NoNameserver));
    }
    if let Some(at) = section.take("respect-rules")
        && at.boolean()?
    {
        if options.proxy_server_nameserver.is_empty() {
            return Err(at.fail(Reason::RulesWithoutServers));
        }
        respect_rules(&mut options);
    }
    section.not_implemented(OTHER_KEYS, warnings);
    section.finish(warnings);
    Ok(options)
}

fn enhanced_mode(text: &str) -> Option<EnhancedMode> {
    match text.to_ascii_lowercase().as_str() {
        "normal" => Some(EnhancedMode::Normal),
        "redir-host" => Some(EnhancedMode::RedirHost),
        "fake-ip" => Some(EnhancedMode::FakeIp),
        _ => None,
    }
}

fn nameservers(
    section: &mut Section<'_>,
    key: &'static str,
    warnings: &mut Warnings,
) -> Result<Vec<Upstream>, ConfigError> {
    match section.take(key) {
        Some(list) => nameserver::decode(&list, warnings),
        None => Ok(Vec::new()),
    }
}

/// The servers that resolve the names of the others cannot have names themselves.
fn default_nameserver(
    list: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<Vec<Upstream>, ConfigError> {
    let servers = nameserver::decode(list, warnings)?;
    for item in list.items()? {
        if let Some(Upstream::Server(server)) = nameserver::upstream(&item, warnings)?
            && server.host.parse::<IpAddr>().is_err()
        {
            return Err(item.expected("the IP address of a nameserver"));
        }
    }
    if servers.is_empty() {
        return Err(list.expected("at least one nameserver"));
    }
    Ok(servers)
}

fn fake_range(
    section: &mut Section<'_>,
    key: &'static str,
    v4: bool,
) -> Result<Option<Prefix>, ConfigError> {
    let Some(at) = section.take(key) else {
        return Ok(None);
    };
    let range = at.prefix()?;
    if range.address().is_ipv4() != v4 {
        return Err(at.expected(if v4 {
            "an IPv4 range (198.18.0.1/16)"
        } else {
            "an IPv6 range (fdfe:dcba:9876::/64)"
        }));
    }
    let width = if v4 { 32 } else { 128 };
    if range.length() > width - RANGE_BITS_MIN {
        return Err(at.fail(Reason::RangeTooSmall));
    }
    Ok(Some(range))
}

/// Reaches the servers that say nothing else as the rules say. Those that find proxies are not among
/// them: a rule may lead to a proxy that is not found yet.
fn respect_rules(options: &mut Options) {
    let policies = options.policy.iter_mut().map(|entry| &mut entry.servers);
    let lists = [&mut options.nameserver, &mut options.fallback];
    for upstream in lists.into_iter().chain(policies).flatten() {
        if let Upstream::Server(server) = upstream
            && server.via == Via::Direct
        {
            server.via = Via::Rules;
        }
    }
}

/// Names of this network's devices.
fn local_names(section: &mut Section<'_>, options: &mut Options) -> Result<(), ConfigError> {
    if let Some(files) = section.take("lease-files") {
        let path = |file: Cursor<'_>| file.parse("an absolute path", absolute);
        options.lease_files = files.items()?.map(path).collect::<Result<_, _>>()?;
    }
    if let Some(domain) = section.take("local-domain") {
        options.local_domain = domain.parse("a domain (lan)", |text| {
            domain_pattern(text).filter(|name| !name.starts_with(['+', '.', '*']))
        })?;
    }
    Ok(())
}

fn absolute(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    path.is_absolute().then_some(path)
}

fn ipv6_timeout(section: &mut Section<'_>, absent: Duration) -> Result<Duration, ConfigError> {
    let Some(value) = section.take("ipv6-timeout") else {
        return Ok(absent);
    };
    let milliseconds = value.integer(0..=60_000, "milliseconds (at most 60000)")?;
    Ok(Duration::from_millis(milliseconds.into()))
}

fn cache_algorithm(text: &str) -> Option<Algorithm> {
    match text.to_ascii_lowercase().as_str() {
        "lru" => Some(Algorithm::Lru),
        "arc" => Some(Algorithm::Arc),
        _ => None,
    }
}

fn cache_size(section: &mut Section<'_>, absent: usize) -> Result<usize, ConfigError> {
    let Some(value) = section.take("cache-max-size") else {
        return Ok(absent);
    };
    let size = value.integer(0..=CACHE_SIZE_MAX, "a number of answers (at most 1048576)")?;
    // As in mihomo, 0 is "not set".
    Ok(usize::try_from(size)
        .ok()
        .filter(|&size| size > 0)
        .unwrap_or(absent))
}

/// One or several addresses, one name, or `lan`.
fn hosts_value(value: &Cursor<'_>) -> Result<HostsValue, ConfigError> {
    const EXPECTED: &str = "IP addresses, or one domain name of at least two labels";
    let name_or_address = |item: &Cursor<'_>| {
        item.parse(EXPECTED, |text| match Host::parse(text)? {
            Host::Name(name) if !name.contains('.') => None,
            host => Some(host),
        })
    };
    if !value.is_list() && value.text()? == "lan" {
        return Ok(HostsValue::Lan);
    }
    let mut addresses = Vec::new();
    let list = &value.weak(); // a single value is a list of one
    let single = list.items()?.nth(1).is_none();
    for item in list.items()? {
        match name_or_address(&item)? {
            Host::Ip(ip) => addresses.push(ip),
            Host::Name(name) if single => return Ok(HostsValue::Alias(name)),
            Host::Name(_) => return Err(item.expected("IP addresses only, as there are several")),
        }
    }
    if addresses.is_empty() {
        return Err(value.expected(EXPECTED));
    }
    Ok(HostsValue::Addresses(addresses))
}
