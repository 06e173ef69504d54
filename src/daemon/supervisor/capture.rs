//! Capture in the life of an instance: taken last, given up first, brought up to date in between.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Instance;
use crate::config::Config;
use crate::daemon::Failure;
use crate::daemon::kernel::{self, Kernel};
use crate::daemon::workers::BEAT;
use crate::dns::current::Current;
use crate::netfilter::apply;
use crate::netfilter::options::Mode;
use crate::netfilter::routing::Keeper;
use crate::outbound::{IpVersion, Purpose, Resolve};
use crate::platform::clock;
use crate::platform::route::Network;
use crate::prefix::Prefix;
use crate::tunnel::Tunnel;

/// How often the addresses of proxy servers are looked up, and how soon after a failure.
const SERVERS_EVERY: Duration = Duration::from_secs(600);
const SERVERS_AGAIN: Duration = Duration::from_secs(5);

/// What is up while traffic is captured.
pub(super) struct Captured {
    keeper: Keeper,
    network: watch::Receiver<Arc<Network>>,
    renewal: JoinHandle<()>,
    servers: JoinHandle<()>,
    pub(super) tproxy: bool,
    _place: UnixListener,
}

impl Instance {
    /// Takes the LAN's traffic.
    pub(super) async fn capture(
        &mut self,
        place: UnixListener,
        tproxy: bool,
    ) -> Result<(), Failure> {
        let options = self.config.transparent.clone();
        let ports = kernel::ports(&self.config.inbound, tproxy);
        if !tproxy {
            log::warn!(
                "the kernel has no tproxy (package kmod-nft-tproxy): TCP is redirected, UDP is not covered"
            );
        }
        let redirect = options.mode == Mode::Redirect;
        self.listeners.open_captured(
            ports,
            tproxy,
            redirect,
            options.dns_hijack && self.config.dns.enable,
        )?;
        let (keeper, network) = Keeper::start(&options).await?;
        for range in self.fake_ranges() {
            if let Some(route) = keeper.overlapping_route(range).await? {
                keeper.stop().await?;
                return Err(format!(
                    "dns.fake-ip-range {range} overlaps the route {route}: choose another range"
                )
                .into());
            }
        }
        let mut facts = kernel::facts(
            &self.config,
            Some(&self.tunnel.routing()),
            &network.borrow(),
        );
        facts.blocked = self.tunnel.blocked().macs(clock::now());
        if let Err(error) = self.kernel.start(&options, ports, &facts) {
            keeper.stop().await?;
            return Err(error.into());
        }
        let renewal = self.renew_forever();
        let servers = follow_servers(
            Arc::clone(&self.tunnel),
            Arc::clone(&self.dns),
            Arc::clone(&self.kernel),
        );
        let servers = tokio::spawn(servers.boxed());
        self.captured = Some(Captured {
            keeper,
            network,
            renewal,
            servers,
            tproxy,
            _place: place,
        });
        Ok(())
    }

    fn fake_ranges(&self) -> Vec<Prefix> {
        kernel::facts(&self.config, None, &Network::default()).fake_ip
    }

    /// Renews the rules from the first loop, while every loop turns.
    fn renew_forever(&self) -> JoinHandle<()> {
        let (kernel, mut pulse) = (Arc::clone(&self.kernel), self.workers.pulse());
        let renewal = async move {
            let mut ticks = interval(BEAT);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick is at once, and the rules were put in force a moment ago.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                if pulse.all_turned() {
                    kernel.renew();
                } else {
                    log::error!("a loop hangs: capture is left to expire");
                }
            }
        };
        match self.workers.first() {
            Some(first) => first.spawn(renewal.boxed()),
            None => tokio::spawn(renewal.boxed()),
        }
    }

    /// Brings the rules up to the network and the decisions of the moment.
    pub(super) fn refresh_kernel(&self) {
        let Some(captured) = &self.captured else {
            return;
        };
        let mut facts = kernel::facts(
            &self.config,
            Some(&self.tunnel.routing()),
            &captured.network.borrow(),
        );
        facts.blocked = self.tunnel.blocked().macs(clock::now());
        let ports = kernel::ports(&self.config.inbound, captured.tproxy);
        if let Err(error) = self.kernel.apply(&self.config.transparent, ports, &facts) {
            log::error!("capture rules: {error}");
        }
    }

    /// Brings capture from the old options to the present ones.
    pub(super) async fn follow_transparent(&mut self, old: &Config) {
        let same = old.transparent == self.config.transparent
            && kernel::ports(&old.inbound, true) == kernel::ports(&self.config.inbound, true)
            && old.dns.enable == self.config.dns.enable;
        if same {
            self.refresh_kernel();
            return;
        }
        self.release_capture().await;
        if self.config.transparent.enable {
            let again = async {
                let place = kernel::only_instance()?;
                let tproxy = apply::has_tproxy()?;
                apply::hold(
                    &self.config.transparent,
                    &kernel::facts(&self.config, None, &Network::default()),
                )?;
                self.capture(place, tproxy).await
            };
            if let Err(error) = again.await {
                log::error!("capture: {error}");
            }
        } else if let Err(error) = apply::release() {
            log::error!("capture: {error}");
        }
    }

    pub(super) async fn release_capture(&mut self) {
        if let Some(captured) = self.captured.take() {
            captured.renewal.abort();
            captured.servers.abort();
            self.kernel.stop();
            if let Err(error) = captured.keeper.stop().await {
                log::error!("policy routing: {error}");
            }
            self.listeners.close_captured().await;
        }
    }
}

/// Keeps policy routing in place; done when the network has changed.
pub(super) async fn watch_kernel(captured: &mut Option<Captured>) {
    match captured {
        None => std::future::pending().await,
        Some(Captured {
            keeper, network, ..
        }) => {
            tokio::select! {
                () = keeper.run() => std::future::pending().await,
                changed = network.changed() => if changed.is_err() {
                    std::future::pending().await
                },
            }
        }
    }
}

/// Tells the kernel where the proxies' servers are, again and again.
async fn follow_servers(tunnel: Arc<Tunnel>, dns: Arc<Current>, kernel: Arc<Kernel>) {
    let mut before = Vec::new();
    loop {
        let hosts: Vec<Box<str>> = tunnel
            .routing()
            .outbounds
            .proxy_servers()
            .map(Into::into)
            .collect();
        let (mut addresses, mut missed) = (HashSet::new(), false);
        for host in hosts {
            match dns
                .resolve(&host, IpVersion::Dual, Purpose::ProxyServer)
                .await
            {
                Ok(found) => addresses.extend(found),
                Err(_) => missed = true,
            }
        }
        let mut addresses: Vec<IpAddr> = addresses.into_iter().collect();
        addresses.sort_unstable();
        if addresses != before {
            kernel.set_proxy_servers(&addresses);
            before = addresses;
        }
        tokio::time::sleep(if missed { SERVERS_AGAIN } else { SERVERS_EVERY }).await;
    }
}
