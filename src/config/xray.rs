//! `xray-api:` (contract): where the Xray gRPC API listens, and what it serves.
//!
//! Xray's protocol knows no authentication, so other machines reach it with a secret only.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::controller::socket_address;
use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::section::Section;
use super::validate::BUILTIN_NAMES;
use crate::controllers::xray::Service;
use crate::controllers::xray::options::Options;
use crate::tunnel::policy::{Level, Policy};
use crate::tunnel::quota::Limits;

/// What runs without a file, and when neither `listen` nor `tag` says otherwise.
pub(super) fn builtin() -> Options {
    Options {
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 10085))),
        tag: None,
        services: Service::ALL.iter().map(|&(_, service)| service).collect(),
        secret: "".into(),
        persist: false,
        quotas: Limits::default(),
        rates: Limits::default(),
        policy: None,
    }
}

/// Takes `xray-api`; without it there is no such API.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Option<Options>, ConfigError> {
    let Some(at) = section.take("xray-api") else {
        return Ok(None);
    };
    let mut section = at.section()?;
    let mut options = builtin();
    options.secret = section.text("secret")?.unwrap_or_default();
    if let Some(tag) = section.take("tag") {
        let name = tag.text()?;
        if BUILTIN_NAMES.contains(&name) {
            return Err(tag.fail(Reason::BuiltinName(Excerpt::of(name))));
        }
        // As in Xray: it is reached by that way alone then, unless told otherwise.
        (options.tag, options.listen) = (Some(name.into()), None);
    }
    if let Some(listen) = section.take("listen") {
        let address = socket_address(&listen)?;
        if options.secret.is_empty() && !address.ip().to_canonical().is_loopback() {
            return Err(listen.fail(Reason::OpenController));
        }
        options.listen = Some(address);
    }
    options.persist = section.boolean("persist", false)?;
    if let Some(quotas) = section.take("quotas") {
        options.quotas = limits(&quotas, "bytes a month (500MB, 20GB)", size)?;
    }
    if let Some(rates) = section.take("rates") {
        let some = |text: &str| size(text).filter(|bytes| *bytes > 0);
        options.rates = limits(&rates, "bytes a second (512KB, 10MB)", some)?;
    }
    if let Some(at) = section.take("policy") {
        options.policy = Some(policy(&at, warnings)?);
    }
    let named = section.list("services", |item| item.parse(SERVICES, service))?;
    if !named.is_empty() {
        options.services.retain(|service| named.contains(service));
    }
    section.finish(warnings);
    Ok(Some(options))
}

/// `policy`: what is not written is as Xray's documentation has it.
fn policy(at: &Cursor<'_>, warnings: &mut Warnings) -> Result<Policy, ConfigError> {
    let mut section = at.section()?;
    let mut policy = Policy::default();
    if let Some(levels) = section.take("levels") {
        for (number, at) in levels.entries()? {
            let unknown = |_| at.fail(Reason::Unknown("policy level", Excerpt::of(number)));
            let number = number.parse().map_err(unknown)?;
            policy.levels.insert(number, level(&at, warnings)?);
        }
    }
    if let Some(at) = section.take("system") {
        let mut section = at.section()?;
        let mut flag = |key| section.boolean(key, false);
        policy.inbounds = [flag("statsInboundUplink")?, flag("statsInboundDownlink")?];
        policy.outbounds = [flag("statsOutboundUplink")?, flag("statsOutboundDownlink")?];
        section.finish(warnings);
    }
    section.finish(warnings);
    Ok(policy)
}

/// One of `levels`.
fn level(at: &Cursor<'_>, warnings: &mut Warnings) -> Result<Level, ConfigError> {
    let mut section = at.section()?;
    let mut level = Level::default();
    // A client must have some time, and a flow.
    if let Some(seconds) = section.take("handshake") {
        let seconds = seconds.integer(1..=600, "a number of seconds (1 to 600)")?;
        level.handshake = Duration::from_secs(seconds.into());
    }
    if let Some(seconds) = section.take("connIdle") {
        level.idle = seconds.integer(1..=u32::MAX, "a number of seconds, from 1")?;
    }
    level.uplink_only = section.number("uplinkOnly", level.uplink_only)?;
    level.downlink_only = section.number("downlinkOnly", level.downlink_only)?;
    if let Some(size) = section.take("bufferSize") {
        level.buffer = size.parse("a number of kilobytes", buffer)?;
    }
    let mut flag = |key| section.boolean(key, false);
    level.counts = [flag("statsUserUplink")?, flag("statsUserDownlink")?];
    level.online = flag("statsUserOnline")?;
    section.finish(warnings);
    Ok(level)
}

/// What of `bufferSize` is a limit here; none of Xray's buffers is smaller than 8 KB, not even for 0.
fn buffer(text: &str) -> Option<u8> {
    match text.parse::<i64>().ok()? {
        0 => Some(8),
        kilobytes => Some(u8::try_from(kilobytes).unwrap_or(0)),
    }
}

/// Bytes of users by name; `*`: everybody else.
fn limits(
    at: &Cursor<'_>,
    expected: &'static str,
    size: fn(&str) -> Option<u64>,
) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    for (user, bytes) in at.entries()? {
        let bytes = bytes.parse(expected, size)?;
        match user {
            "*" => limits.others = Some(bytes),
            user => {
                limits.named.insert(user.into(), bytes);
            }
        }
    }
    Ok(limits)
}

/// Bytes, with `KB` to `TB` as powers of 1024.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

const SERVICES: &str = "HandlerService, LoggerService, ObservatoryService, RoutingService, StatsService or ReflectionService";

/// In any case, as Xray takes it.
fn service(text: &str) -> Option<Service> {
    let named = Service::ALL.iter();
    let mut named = named.filter(|(name, _)| name.eq_ignore_ascii_case(text));
    named.next().map(|&(_, service)| service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policy(text: &str) -> Option<Policy> {
        let text = format!("xray-api: {{{text}}}\n");
        let (config, warnings) = Config::parse(&text).unwrap();
        assert!(warnings.is_empty());
        config.xray.unwrap().policy
    }

    #[test]
    fn with_a_tag_it_listens_only_where_it_is_told_to() {
        let xray = |text: &str| {
            Config::parse(&format!("xray-api: {{{text}}}\n"))
                .unwrap()
                .0
                .xray
        };
        let listen = |text| xray(text).unwrap().listen.map(|address| address.port());
        assert_eq!(listen("persist: false"), Some(10085));
        assert_eq!(listen("tag: api"), None);
        assert_eq!(listen("tag: api, listen: '127.0.0.1:9'"), Some(9));
    }

    #[test]
    fn what_a_policy_does_not_say_is_as_xrays() {
        assert_eq!(policy(""), None);
        assert_eq!(policy("policy: {levels: {}}"), Some(Policy::default()));
        let levels = "levels: {0: {handshake: 9, uplinkOnly: 0}, 4294967295: {connIdle: 1, statsUserDownlink: true, statsUserOnline: true}}";
        let system = "system: {statsInboundUplink: true, statsOutboundDownlink: true}";
        let hasty = Level {
            handshake: Duration::from_secs(9),
            uplink_only: 0,
            ..Level::default()
        };
        let counted = Level {
            idle: 1,
            counts: [false, true],
            online: true,
            ..Level::default()
        };
        let want = Policy {
            levels: [(0, hasty), (u32::MAX, counted)].into(),
            inbounds: [true, false],
            outbounds: [false, true],
        };
        assert_eq!(
            policy(&format!("policy: {{{levels}, {system}}}")),
            Some(want)
        );
    }

    #[test]
    fn a_buffer_is_a_limit_where_it_is_smaller_than_ours() {
        let buffer = |size: &str| {
            let policy = policy(&format!(
                "policy: {{levels: {{0: {{bufferSize: {size}}}}}}}"
            ));
            policy.unwrap().level(0).buffer
        };
        assert_eq!(
            ["0", "4", "255", "256", "-1"].map(buffer),
            [8, 4, 255, 0, 0]
        );
    }
}
