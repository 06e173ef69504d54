//! The capture rules of a running instance, and the commands that look at them from outside.

use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Failure;
use super::command::say;
use crate::config::Config;
use crate::inbound::options::Options as InboundOptions;
use crate::netfilter::apply::{self, Capture, CaptureError};
use crate::netfilter::options::Options;
use crate::netfilter::routing;
use crate::netfilter::ruleset::{Facts, Ports, Ruleset};
use crate::platform::route::Network;
use crate::prefix::{self, Prefix};
use crate::tunnel::routing::Routing;

/// Where captured traffic arrives when `tproxy-port` and `redir-port` say nothing.
const TPROXY_PORT: u16 = 7893;
const REDIRECT_PORT: u16 = 7892;

/// Where redirected DNS arrives on a kernel without tproxy.
const DNS_PORT: u16 = 7894;

/// More ranges than this are not worth a set; the rest goes through the daemon.
const DIRECT_RANGES_MAX: usize = 4096;

/// Table: the rules in force, if any.
#[derive(Default)]
pub struct Kernel {
    capture: Mutex<Option<Capture>>,
    offloads: AtomicBool,
}

impl Kernel {
    /// Puts the rules in force.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing is left behind.
    pub fn start(
        &self,
        options: &Options,
        ports: Ports,
        facts: &Facts,
    ) -> Result<(), CaptureError> {
        let capture = Capture::start(options, ports, facts)?;
        *self.capture() = Some(capture);
        self.offloads.store(options.offload, Ordering::Relaxed);
        log::info!("ruleset applied");
        Ok(())
    }

    /// Replaces the rules where they differ from those in force.
    ///
    /// # Errors
    /// [`CaptureError`]; the old rules stay.
    pub fn apply(
        &self,
        options: &Options,
        ports: Ports,
        facts: &Facts,
    ) -> Result<(), CaptureError> {
        if let Some(capture) = &mut *self.capture() {
            self.offloads.store(options.offload, Ordering::Relaxed);
            if capture.apply(options, ports, facts)? {
                log::info!("ruleset applied");
            }
        }
        Ok(())
    }

    /// Keeps the rules in force for three more seconds.
    pub fn renew(&self) {
        if let Some(capture) = &mut *self.capture()
            && let Err(error) = capture.renew()
        {
            log::error!("capture rules: {error}");
        }
    }

    /// Whether DIRECT traffic may stay in the kernel.
    pub fn offloads(&self) -> bool {
        self.offloads.load(Ordering::Relaxed)
    }

    /// Exempts addresses from capture for a time; whether they were taken.
    pub fn add_direct(&self, addresses: &[(IpAddr, Duration)]) -> bool {
        let Some(capture) = &mut *self.capture() else {
            return false;
        };
        capture.add_direct(addresses).unwrap_or_else(|error| {
            log::warn!("offload: {error}");
            false
        })
    }

    /// Captures addresses again.
    pub fn remove_direct(&self, addresses: &[IpAddr]) {
        if let Some(capture) = &mut *self.capture()
            && let Err(error) = capture.remove_direct(addresses)
        {
            log::warn!("offload: {error}");
        }
    }

    /// Captures all addresses again that were exempt for a time.
    pub fn flush_direct(&self) {
        if let Some(capture) = &mut *self.capture()
            && let Err(error) = capture.flush_direct()
        {
            log::warn!("offload: {error}");
        }
    }

    /// Leaves flows to these addresses alone: they are the proxies' servers.
    pub fn set_proxy_servers(&self, addresses: &[IpAddr]) {
        if let Some(capture) = &mut *self.capture()
            && let Err(error) = capture.set_proxy_servers(addresses)
        {
            log::warn!("proxy servers: {error}");
        }
    }

    /// Takes the rules out of force.
    pub fn stop(&self) {
        self.offloads.store(false, Ordering::Relaxed);
        let capture = self.capture().take();
        if let Some(capture) = capture
            && let Err(error) = capture.stop()
        {
            log::error!("capture rules: {error}");
        }
    }

    fn capture(&self) -> MutexGuard<'_, Option<Capture>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where captured traffic arrives.
pub fn ports(inbound: &InboundOptions, tproxy: bool) -> Ports {
    let or = |port, default| if port == 0 { default } else { port };
    let main = or(inbound.tproxy_port, TPROXY_PORT);
    Ports {
        tproxy: main,
        redirect: or(inbound.redir_port, REDIRECT_PORT),
        dns: if tproxy { main } else { DNS_PORT },
    }
}

/// What the rules depend on besides the options: fake ranges, the network as it is, and the ranges that
/// every rule sends DIRECT.
pub fn facts(config: &Config, routing: Option<&Routing>, network: &Network) -> Facts {
    let mut fake_ip = Vec::new();
    if config.dns.enable && config.dns.mode == crate::dns::options::EnhancedMode::FakeIp {
        fake_ip.push(config.dns.fake_ip_range);
        fake_ip.extend(config.dns.fake_ip_range6);
    }
    let direct = match routing {
        Some(routing) if config.transparent.offload => direct_ranges(config, routing),
        _ => Vec::new(),
    };
    Facts {
        fake_ip,
        connected: network.connected.clone(),
        direct,
        blocked: Vec::new(),
    }
}

fn direct_ranges(config: &Config, routing: &Routing) -> Vec<Prefix> {
    // A flow to an address may still get a name: from DNS mapping, or from the sniffer.
    let names_may_appear = config.sniffer.enable || config.dns.enable;
    let mut prefixes = Vec::new();
    for v4 in [true, false] {
        for (first, last) in routing.certainly_direct_ranges(v4, names_may_appear) {
            prefixes.extend(prefix::cover(first, last));
            if prefixes.len() > DIRECT_RANGES_MAX {
                prefixes.truncate(DIRECT_RANGES_MAX);
                return prefixes;
            }
        }
    }
    prefixes
}

/// Holds the place of the one instance that may capture in this network. An abstract socket: it
/// belongs to the network namespace and goes with the process, however that ends.
///
/// # Errors
/// Another instance holds it.
pub fn only_instance() -> Result<UnixListener, Failure> {
    let name = SocketAddr::from_abstract_name("headgate/capture")?;
    UnixListener::bind_addr(&name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another instance of headgate captures traffic in this network".into()
        }
        _ => error.into(),
    })
}

/// `headgate ruleset`: prints what `run` would apply.
///
/// # Errors
/// The mark has no room for ours.
pub fn print_ruleset(config: &Config) -> Result<(), Failure> {
    let tproxy = apply::has_tproxy().unwrap_or(true);
    let ports = ports(&config.inbound, tproxy);
    let facts = facts(config, None, &Network::default());
    let ruleset =
        Ruleset::new(&config.transparent, ports, &facts, tproxy).ok_or(CaptureError::Mark)?;
    say(ruleset.to_string().trim_end());
    Ok(())
}

/// `headgate cleanup`: removes what a dead instance left.
///
/// # Errors
/// An instance is running, or the kernel refuses.
pub fn cleanup() -> Result<(), Failure> {
    let _place = only_instance()?;
    let options = Options::default();
    apply::cleanup(&options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(routing::cleanup(&options))?;
    Ok(())
}
