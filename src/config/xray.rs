//! `xray-api:` (contract): where the Xray gRPC API listens, and what it serves.
//!
//! Xray's protocol knows no authentication, so other machines reach it with a secret only.

use std::net::{Ipv4Addr, SocketAddr};

use super::controller::socket_address;
use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::section::Section;
use crate::controllers::xray::Service;
use crate::controllers::xray::options::Options;
use crate::tunnel::quota::Limits;

/// What runs without a file, and when `listen` is absent.
pub(super) fn builtin() -> Options {
    Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 10085)),
        services: Service::ALL.iter().map(|&(_, service)| service).collect(),
        secret: "".into(),
        persist: false,
        quotas: Limits::default(),
        rates: Limits::default(),
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
    if let Some(listen) = section.take("listen") {
        options.listen = socket_address(&listen)?;
        if options.secret.is_empty() && !options.listen.ip().to_canonical().is_loopback() {
            return Err(listen.fail(Reason::OpenController));
        }
    }
    options.persist = section.boolean("persist", false)?;
    if let Some(quotas) = section.take("quotas") {
        options.quotas = limits(&quotas, "bytes a month (500MB, 20GB)", size)?;
    }
    if let Some(rates) = section.take("rates") {
        let some = |text: &str| size(text).filter(|bytes| *bytes > 0);
        options.rates = limits(&rates, "bytes a second (512KB, 10MB)", some)?;
    }
    let named = section.list("services", |item| item.parse(SERVICES, service))?;
    if !named.is_empty() {
        options.services.retain(|service| named.contains(service));
    }
    section.finish(warnings);
    Ok(Some(options))
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
