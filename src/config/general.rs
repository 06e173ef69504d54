//! The keys of the file's top level that concern the whole daemon (clash-api.md 3.1).

use log::LevelFilter;

use super::error::{ConfigError, Excerpt, Remark, Warnings};
use super::section::Section;
use crate::tunnel::routing::Mode;

/// What concerns the whole daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct General {
    /// `mode`.
    pub mode: Mode,
    /// `max-connections`: streams that may be in at once; none: by the machine's memory.
    pub max_connections: Option<u32>,
    /// `hardening`: the rights that the configuration does not need are given up at the start.
    pub hardening: bool,
    /// `log-level`: `silent`, `error`, `warning`, `info`, `debug`.
    pub log_level: LevelFilter,
    /// `ipv6`: off resolves no AAAA and refuses to dial IPv6.
    pub ipv6: bool,
    /// `unified-delay`: delay tests time a second request.
    pub unified_delay: bool,
    /// `tcp-concurrent`: dial every address of a host at once.
    pub tcp_concurrent: bool,
    /// `interface-name`: what outgoing sockets bind to.
    pub interface_name: Option<Box<str>>,
    /// `routing-mark` on outgoing sockets; 0: none.
    pub routing_mark: u32,
    /// `disable-keep-alive`.
    pub disable_keep_alive: bool,
    /// `keep-alive-idle`, seconds; 0: the system's.
    pub keep_alive_idle: u32,
    /// `keep-alive-interval`, seconds; 0: the system's.
    pub keep_alive_interval: u32,
    /// `find-process-mode`.
    pub find_process: FindProcess,
    /// `profile.store-selected`: choices in groups survive a restart.
    pub store_selected: bool,
    /// `profile.store-history`: what devices, rules, nodes and domains have moved is kept for 30 days.
    pub store_history: bool,
}

/// `find-process-mode`: when the process behind a connection of the router itself is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FindProcess {
    /// For every connection.
    Always,
    /// When a rule needs it.
    #[default]
    Strict,
    /// Never.
    Off,
}

impl FindProcess {
    /// As the configuration and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Strict => "strict",
            Self::Off => "off",
        }
    }
}

impl Default for General {
    fn default() -> Self {
        Self {
            mode: Mode::Rule,
            max_connections: None,
            hardening: true,
            log_level: LevelFilter::Info,
            ipv6: true,
            unified_delay: false,
            tcp_concurrent: false,
            interface_name: None,
            routing_mark: 0,
            disable_keep_alive: false,
            keep_alive_idle: 0,
            keep_alive_interval: 0,
            find_process: FindProcess::Strict,
            store_selected: true,
            store_history: true,
        }
    }
}

/// Takes the general keys and those of `profile:`. Also tells `profile.store-fake-ip`, which the
/// DNS options hold.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<(General, bool), ConfigError> {
    let absent = General::default();
    let profile = profile(section, warnings)?;
    let general = General {
        mode: match section.take("mode") {
            Some(mode) => mode.parse("rule, global or direct", |text| text.parse().ok())?,
            None => absent.mode,
        },
        max_connections: match section.take("max-connections") {
            Some(count) => Some(count.integer(16..=1 << 20, "a number (16 to 1048576)")?),
            None => None,
        },
        hardening: section.boolean("hardening", absent.hardening)?,
        log_level: match section.take("log-level") {
            Some(level) => level.parse("silent, error, warning, info or debug", log_level)?,
            None => absent.log_level,
        },
        ipv6: section.boolean("ipv6", absent.ipv6)?,
        unified_delay: section.boolean("unified-delay", absent.unified_delay)?,
        tcp_concurrent: section.boolean("tcp-concurrent", absent.tcp_concurrent)?,
        interface_name: interface(section, "interface-name")?,
        routing_mark: section.number("routing-mark", absent.routing_mark)?,
        disable_keep_alive: section.boolean("disable-keep-alive", absent.disable_keep_alive)?,
        keep_alive_idle: section.number("keep-alive-idle", absent.keep_alive_idle)?,
        keep_alive_interval: section.number("keep-alive-interval", absent.keep_alive_interval)?,
        find_process: find_process(section, warnings)?,
        store_selected: profile.selected,
        store_history: profile.history,
    };
    Ok((general, profile.fake_ip))
}

/// `profile:`, what is kept over restarts.
struct Profile {
    selected: bool,
    fake_ip: bool,
    history: bool,
}

fn profile(section: &mut Section<'_>, warnings: &mut Warnings) -> Result<Profile, ConfigError> {
    let mut kept = Profile {
        selected: true,
        fake_ip: false,
        history: true,
    };
    if let Some(profile) = section.take("profile") {
        let mut section = profile.section()?;
        kept.selected = section.boolean("store-selected", kept.selected)?;
        kept.fake_ip = section.boolean("store-fake-ip", kept.fake_ip)?;
        kept.history = section.boolean("store-history", kept.history)?;
        section.finish(warnings);
    }
    Ok(kept)
}

/// The level of a name, in mihomo's words.
fn log_level(text: &str) -> Option<LevelFilter> {
    Some(match text {
        "silent" => LevelFilter::Off,
        "error" => LevelFilter::Error,
        "warning" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        _ => return None,
    })
}

/// The name of a network interface: at most 15 bytes (IFNAMSIZ), no blank and no slash.
pub(super) fn interface(
    section: &mut Section<'_>,
    key: &'static str,
) -> Result<Option<Box<str>>, ConfigError> {
    let value = section.take(key);
    value
        .map(|name| name.parse(INTERFACE_EXPECTED, interface_name))
        .transpose()
}

/// What [`interface_name`] takes.
pub(super) const INTERFACE_EXPECTED: &str = "an interface name (at most 15 characters)";

/// `text` as the name of a network interface.
pub(super) fn interface_name(text: &str) -> Option<Box<str>> {
    let plausible = |b: u8| b.is_ascii_graphic() && b != b'/';
    let fits = text.len() <= 15 && text.bytes().all(plausible) && text != "." && text != "..";
    fits.then(|| text.into())
}

/// `always` would look at the program of every connection, which no router should.
fn find_process(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<FindProcess, ConfigError> {
    let Some(value) = section.take("find-process-mode") else {
        return Ok(FindProcess::default());
    };
    let mode = value.parse("always, strict or off", |text| {
        [FindProcess::Always, FindProcess::Strict, FindProcess::Off]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
    })?;
    if mode == FindProcess::Always {
        let value_shown = Excerpt::of(mode.as_str());
        warnings.note(&value, Remark::ValueNotImplemented(value_shown));
    }
    Ok(mode)
}
