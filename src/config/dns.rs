//! `dns:` and `hosts:` (clash-api.md 3.2 and 3.3).

use std::net::IpAddr;

use super::controller::socket_address;
use super::decode::Cursor;
use super::domain::{PATTERN_EXPECTED, domain_pattern, pattern_or_set};
use super::error::{ConfigError, Excerpt, Ignored, Reason, Warnings};
use super::nameserver;
use super::section::Section;
use crate::dns::options::{EnhancedMode, HostsValue, Options, Upstream};
use crate::metadata::Host;
use crate::prefix::Prefix;

/// Keys of mihomo's that are not served yet.
const OTHER_KEYS: &[&str] = &[
    "ipv6-timeout",
    "prefer-h3",
    "respect-rules",
    "fallback",
    "fallback-filter",
    "fallback-lazy-query",
    "nameserver-policy",
    "proxy-server-nameserver-policy",
    "direct-nameserver-follow-policy",
    "cache-algorithm",
    "listen-routing-mark",
];

/// What Windows asks to see whether it is online: real addresses unless `fake-ip-filter` is given.
const FILTER_ABSENT: [&str; 3] = [
    "dns.msftncsi.com",
    "www.msftncsi.com",
    "www.msftconnecttest.com",
];

/// Addresses that a fake range needs: its first four are not handed out (clash-api.md 4.3), nor is
/// its last.
const RANGE_BITS_MIN: u8 = 3;

/// Most answers that the cache may be asked to hold.
const CACHE_SIZE_MAX: u32 = 1 << 20;

/// Takes `dns` and `hosts` from the top level.
pub(super) fn decode(
    section: &mut Section<'_>,
    store_fake_ip: bool,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let mut options = match section.take("dns") {
        Some(dns) => dns_section(&dns, warnings)?,
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
            if let Some(value) = hosts_value(&value, warnings)? {
                options.hosts.push((pattern, value));
            }
        }
    }
    Ok(options)
}

fn dns_section(dns: &Cursor<'_>, warnings: &mut Warnings) -> Result<Options, ConfigError> {
    let absent = Options::default();
    let mut section = dns.section()?;
    let enable = section.boolean("enable", false)?;
    let listen = section.take("listen");
    let (filter, filter_whitelist) = fake_ip_filter(&mut section, warnings)?;
    let nameserver_at = section.take("nameserver");
    let options = Options {
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
        fake_ip_filter: filter,
        fake_ip_filter_whitelist: filter_whitelist,
        fake_ip_ttl: section.number("fake-ip-ttl", absent.fake_ip_ttl)?,
        store_fake_ip: absent.store_fake_ip,
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
        proxy_server_nameserver: nameservers(&mut section, "proxy-server-nameserver", warnings)?,
        direct_nameserver: nameservers(&mut section, "direct-nameserver", warnings)?,
        cache_size: cache_size(&mut section, absent.cache_size)?,
        hosts: Vec::new(),
    };
    if enable && options.nameserver.is_empty() {
        let Some(list) = nameserver_at else {
            return Err(section.at().missing("nameserver", Reason::NoNameserver));
        };
        return Err(list.fail(Reason::NoNameserver));
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

fn fake_ip_filter(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<(Vec<Box<str>>, bool), ConfigError> {
    let whitelist = match section.take("fake-ip-filter-mode") {
        None => false,
        Some(mode) => match mode.text()? {
            "blacklist" => false,
            "whitelist" => true,
            "rule" => return Err(mode.fail(Reason::NotImplemented(Excerpt::of("rule")))),
            _ => return Err(mode.expected("blacklist or whitelist")),
        },
    };
    let Some(list) = section.take("fake-ip-filter") else {
        return Ok((FILTER_ABSENT.map(Box::from).to_vec(), whitelist));
    };
    let mut filter = Vec::new();
    for item in list.items()? {
        filter.extend(pattern_or_set(&item, warnings)?);
    }
    Ok((filter, whitelist))
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

/// One or several addresses, or one name. `lan` is not served.
fn hosts_value(
    value: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<Option<HostsValue>, ConfigError> {
    const EXPECTED: &str = "IP addresses, or one domain name of at least two labels";
    let name_or_address = |item: &Cursor<'_>| {
        item.parse(EXPECTED, |text| match Host::parse(text)? {
            Host::Name(name) if !name.contains('.') => None,
            host => Some(host),
        })
    };
    if !value.is_list() && value.text()? == "lan" {
        warnings.note(value, Ignored::ValueNotImplemented(Excerpt::of("lan")));
        return Ok(None);
    }
    let mut addresses = Vec::new();
    let list = &value.weak(); // a single value is a list of one
    let single = list.items()?.nth(1).is_none();
    for item in list.items()? {
        match name_or_address(&item)? {
            Host::Ip(ip) => addresses.push(ip),
            Host::Name(name) if single => return Ok(Some(HostsValue::Alias(name))),
            Host::Name(_) => return Err(item.expected("IP addresses only, as there are several")),
        }
    }
    if addresses.is_empty() {
        return Err(value.expected(EXPECTED));
    }
    Ok(Some(HostsValue::Addresses(addresses)))
}
