//! Policy routing of captured packets, and the watch over it.
//!
//! A captured packet carries our mark; one rule per family sends it to our table, where the
//! only route says that every address is the router's own, so that it reaches the socket
//! which tproxy chose. Other programs remove that: netifd deletes all foreign rules when it
//! starts and takes `lo` down, which takes the route with it. The [`Keeper`] hears of every
//! change and puts back what is missing; it does not ask what the change was.
//!
//! The same watch tells the daemon when addresses or default routes have changed.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::watch;
use tokio::time::{Interval, interval, sleep};

use super::options::Options;
use super::switches;
use crate::platform::route::{Changes, MarkRule, Network, OwnKind, OwnRoute, RouteError, Routes};
use crate::prefix::Prefix;

/// Changes come in flocks (an interface goes down with its addresses and routes): the first
/// is answered when the flock has passed, well within the second that is promised.
const FLOCK: Duration = Duration::from_millis(200);
/// When to look without a reason: a kernel switch has no word of its own when it changes.
const ROUND: Duration = Duration::from_secs(30);
/// When to try again what failed, such as a route while `lo` is down.
const AGAIN: Duration = Duration::from_secs(1);

/// Uplinks remembered; a PPPoE line comes back as a new interface each time. When full, the
/// oldest is forgotten.
const UPLINKS_MAX: usize = 64;

/// Keeps rules, routes and switches as they must be.
pub struct Keeper {
    routes: Routes,
    changes: Changes,
    rules: Vec<MarkRule>,
    table: u32,
    interfaces: Vec<Box<str>>,
    /// Interfaces that have or had a default route, the oldest first.
    uplinks: Vec<u32>,
    network: watch::Sender<Arc<Network>>,
    /// When to look without a change.
    round: Interval,
    /// A change was heard of and not yet looked at.
    pending: bool,
    complained: bool,
}

impl Keeper {
    /// Puts rules, routes and switches in place, and removes those of an earlier instance
    /// that differ. The receiver holds the network as it is, then each change. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says. A family that the kernel does not have is none.
    pub async fn start(
        options: &Options,
    ) -> Result<(Self, watch::Receiver<Arc<Network>>), RouteError> {
        let (routes, changes) = Routes::open()?;
        let network = Arc::new(routes.network(&[]).await?);
        let uplinks = network.uplinks.clone();
        let (network, receiver) = watch::channel(network);
        let keeper = Self {
            routes,
            changes,
            rules: rules(options),
            table: options.table,
            interfaces: options.interfaces.clone(),
            uplinks,
            network,
            round: interval(ROUND),
            pending: true,
            complained: false,
        };
        keeper.adopt().await?;
        keeper.put_in_place(true).await?;
        Ok((keeper, receiver))
    }

    /// Changes to another configuration.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn reload(&mut self, options: &Options) -> Result<(), RouteError> {
        self.rules = rules(options);
        self.table = options.table;
        self.interfaces.clone_from(&options.interfaces);
        self.put_in_place(true).await?;
        self.adopt().await
    }

    /// A route of somebody else that shares addresses with a fake-ip range: traffic for it
    /// would be swallowed.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn overlapping_route(&self, range: Prefix) -> Result<Option<Prefix>, RouteError> {
        self.routes.overlapping(range).await
    }

    /// Watches until it is dropped, which is safe at any point: run again, it goes on where
    /// it was.
    pub async fn run(&mut self) {
        loop {
            if !self.pending {
                tokio::select! {
                    there = self.changes.changed() => if !there {
                        return log::error!("rtnetlink is gone; routes are not watched");
                    },
                    _ = self.round.tick() => {}
                }
                self.pending = true;
            }
            sleep(FLOCK).await;
            self.changes.drain();
            match self.look().await {
                Ok(()) => self.complained = false,
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        log::error!("policy routing is not in place, trying on: {error}");
                    }
                    self.round.reset_after(AGAIN);
                }
            }
            self.pending = false;
        }
    }

    /// Takes rules, routes and notes away and puts the switches back.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn stop(self) -> Result<(), RouteError> {
        remove_all(&self.routes, &self.rules).await
    }

    async fn look(&mut self) -> Result<(), RouteError> {
        let network = Arc::new(self.routes.network(&self.uplinks).await?);
        self.remember_uplinks(&network);
        self.network.send_if_modified(|before| {
            let changed = *before != network;
            *before = Arc::clone(&network);
            changed
        });
        self.put_in_place(false).await
    }

    /// An interface that has had a default route stays an uplink: while a WAN line is down its
    /// network is no network of ours, and the rules need not change twice for it.
    fn remember_uplinks(&mut self, network: &Network) {
        for uplink in &network.uplinks {
            if !self.uplinks.contains(uplink) {
                if self.uplinks.len() >= UPLINKS_MAX {
                    self.uplinks.remove(0);
                }
                self.uplinks.push(*uplink);
            }
        }
    }

    /// Removes what an earlier configuration or instance left and this one does not want.
    /// Notes stay: they know the switches' first values.
    async fn adopt(&self) -> Result<(), RouteError> {
        self.routes.remove_rules(&self.rules, &[]).await?;
        let wanted = self.local_routes();
        for route in self.routes.ours().await? {
            if matches!(route.kind, OwnKind::LocalDefault { .. }) && !wanted.contains(&route) {
                self.routes.remove(route).await?;
            }
        }
        Ok(())
    }

    fn local_routes(&self) -> Vec<OwnRoute> {
        let table = self.table;
        let families = self.rules.iter().map(|rule| rule.v4);
        families
            .map(|v4| OwnRoute {
                table,
                kind: OwnKind::LocalDefault { v4 },
            })
            .collect()
    }

    async fn put_in_place(&self, first: bool) -> Result<(), RouteError> {
        let mut missing = Ok(());
        for (rule, route) in self.rules.iter().zip(self.local_routes()) {
            let family = if rule.v4 { "IPv4" } else { "IPv6" };
            for (what, added) in [
                ("ip rule", self.routes.add_rule(*rule).await),
                ("local route", self.routes.add(route).await),
            ] {
                match added {
                    Ok(true) if !first => {
                        log::warn!("the {family} {what} was removed by another program; put back");
                    }
                    Ok(_) => {}
                    // EACCES: disable_ipv6 is set on the loopback device.
                    Err(RouteError::Refused(
                        Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EACCES,
                    )) if !rule.v4 => {
                        if first {
                            log::warn!("this kernel does no IPv6: it is not captured");
                        }
                    }
                    // The other rules and routes are put in place all the same.
                    Err(error) => missing = Err(error),
                }
            }
        }
        missing?;
        switches::hold(&self.routes, self.table, &self.interfaces).await
    }
}

/// Removes what a dead instance left of rules and routes, and puts the switches back. Must be
/// called inside a tokio runtime.
///
/// # Errors
/// What the kernel says.
pub async fn cleanup(options: &Options) -> Result<(), RouteError> {
    let (routes, _changes) = Routes::open()?;
    remove_all(&routes, &rules(options)).await
}

async fn remove_all(routes: &Routes, rules: &[MarkRule]) -> Result<(), RouteError> {
    switches::restore(routes).await?;
    routes.remove_rules(&[], rules).await?;
    for route in routes.ours().await? {
        routes.remove(route).await?;
    }
    Ok(())
}

/// One rule per family that is captured; DNS is captured in both whatever the options say.
fn rules(options: &Options) -> Vec<MarkRule> {
    let families = [(true, options.ipv4), (false, options.ipv6)];
    families
        .into_iter()
        .filter(|(_, on)| *on || options.dns_hijack)
        .map(|(v4, _)| MarkRule {
            v4,
            mark: options.mark.value,
            mask: options.mark.mask,
            table: options.table,
            priority: options.rule_priority,
        })
        .collect()
}
