//! From one configuration to the next: everything is built and may be refused first, then nothing is.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::{Instance, level};
use crate::config::Config;
use crate::controllers::options::{Application, Management};
use crate::controllers::{Control, ReloadSource, xray};
use crate::daemon::build::{self, DnsTies};
use crate::daemon::command::{self, LoadError, Loaded};
use crate::daemon::providers::Providers;
use crate::daemon::{Failure, applications, state};
use crate::mqtt;
use crate::netfilter::marks::own_mark;
use crate::outbound::Resolve;
use crate::outbound::registry::Registry;
use crate::platform::memory;
use crate::tunnel::routing::Routing;

impl Instance {
    /// Replaces the configuration; the old one stays when the new one is refused.
    pub(super) async fn reload(
        &mut self,
        source: ReloadSource,
        force: bool,
    ) -> Result<(), Failure> {
        let loaded = self.read_source(source)?;
        for warning in &loaded.warnings {
            log::warn!("{}:{warning}", loaded.origin);
        }
        let mut config = loaded.config;
        let taken = self.xray.overlay.taken_groups(&config);
        self.xray.overlay.apply(&mut config);
        settle(&mut config, &self.directory)?;
        let mark = mark_of(&config);
        let selected = self.choices();
        let ties = DnsTies {
            directory: &self.directory,
            own_mark: mark,
            tunnel: &self.tunnel_known,
            offload: &self.offload,
            feed: self.door.rules.feed(),
        };
        let server = build::dns_server(&config, &mut self.tables, &ties)?;
        let providers = Providers::load(&config, &self.directory, &loaded.origin).await?;
        self.hardened.follow(&config);
        let mut routing = build::routing(
            &mut config,
            &providers.nodes(),
            Arc::clone(&self.dns) as Arc<dyn Resolve>,
            mark,
            &selected,
            Some(&self.tunnel.routing().outbounds),
            &self.xray.entrance,
        )?;

        // From here on nothing is refused any more.
        let geodata = &config.geo_categories;
        let added = self.xray.overlay.settle(&taken, &routing.rules, geodata);
        routing.replace_added(added);
        let old = std::mem::replace(&mut self.config, config);
        if !force {
            let controllers = old.inbound.clone();
            let listeners = std::mem::take(&mut self.config.inbound.listeners);
            self.config.inbound = controllers;
            self.config.inbound.listeners = listeners;
        }
        self.dns.replace(server);
        self.tunnel.replace_routing(routing);
        let most = self.config.general.max_connections;
        self.tunnel.admission().limit(most);
        self.follow_groups();
        self.providers.replace(providers);
        self.logger.set_level(level(&self.config));
        self.door
            .history
            .follow(&self.tunnel, self.config.general.store_history);
        self.follow_listeners().await;
        let listen = self.config.dns.listen.filter(|_| self.config.dns.enable);
        if let Err(error) = self.listeners.serve_dns(listen).await {
            log::error!("{error}");
        }
        self.door.rules.follow(&self.config.rule_engine);
        self.follow_mqtt();
        if let Err(error) = self.serve_xray().await {
            log::error!("{error}");
        }
        self.follow_transparent(&old).await;
        self.offload.forget();
        self.show_general();
        drop(old);
        memory::settle();
        Ok(())
    }

    fn read_source(&self, source: ReloadSource) -> Result<Loaded, Failure> {
        Ok(match source {
            ReloadSource::Running => {
                let text = command::read_config(&self.file)
                    .map_err(|error| LoadError::Unreadable(self.file.clone(), error))?;
                command::parse(&text, self.file.display().to_string())?
            }
            ReloadSource::File { path, text } => command::parse(&text, path.display().to_string())?,
            ReloadSource::Payload(text) => command::parse(&text, "payload".into())?,
        })
    }

    /// Builds proxies and groups anew, over the providers' nodes of the moment.
    pub(super) fn rebuild_outbounds(&mut self) -> Result<(), Failure> {
        self.xray.overlay.balance(&mut self.config);
        let mut routing = Routing::clone(&self.tunnel.routing());
        routing.outbounds = self.outbounds()?;
        self.tunnel.replace_routing(routing);
        self.follow_groups();
        self.offload.forget();
        self.refresh_kernel();
        Ok(())
    }

    /// The proxies and groups of the configuration and of its providers.
    pub(super) fn outbounds(&self) -> Result<Arc<Registry>, Failure> {
        let providers = self.providers.proxies();
        let nodes: Vec<_> = providers.iter().map(|known| known.nodes()).collect();
        build::registry(
            &self.config,
            &nodes,
            Arc::clone(&self.dns) as Arc<dyn Resolve>,
            mark_of(&self.config),
            &self.choices(),
            Some(&self.tunnel.routing().outbounds),
            &self.xray.entrance,
        )
    }

    /// Choices of the groups, those made since the start included.
    pub(super) fn choices(&self) -> state::Selected {
        self.door
            .selected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// Tests the groups that are in force.
    pub(super) fn follow_groups(&mut self) {
        let outbounds = Arc::clone(&self.tunnel.routing().outbounds);
        self.checks
            .follow(outbounds, self.config.general.unified_delay);
    }

    pub(super) async fn follow_listeners(&mut self) {
        for (address, error) in self
            .listeners
            .follow(&self.config.inbound, self.config.transparent.enable)
            .await
        {
            log::error!("{address}: {error}");
        }
    }

    /// Serves the Xray API as the configuration says, and keeps its counters while it does.
    pub(super) async fn serve_xray(&mut self) -> Result<(), Failure> {
        let options = self.config.xray.as_ref();
        self.tunnel.connections().keep_ledger(options.is_some());
        let quotas = options.map(|options| options.quotas.clone());
        self.tunnel.quotas().limit(quotas.unwrap_or_default());
        let rates = options.map(|options| options.rates.clone());
        self.tunnel.pacing().limit(rates.unwrap_or_default());
        let policy = options.and_then(|options| options.policy.clone());
        self.tunnel.connections().follow_policy(policy);
        if let (Some(running), Some(options)) = (&self.xray.server, options)
            && running.follows(options)
        {
            return Ok(());
        }
        // The new one may want the same port.
        if let Some(running) = self.xray.server.take() {
            running.close().await;
        }
        if let Some(options) = options {
            let control = Arc::clone(&self.door) as Arc<dyn Control>;
            let entrance = &self.xray.entrance;
            let started = xray::server::Server::start(options, control, entrance);
            let failed = |error| format!("xray-api: {error}");
            self.xray.server = Some(started.map_err(failed)?);
        }
        Ok(())
    }

    /// Starts, changes or stops the broker; what cannot be done leaves it as it is.
    fn follow_mqtt(&mut self) {
        let options = &self.config.mqtt;
        let done = match &mut self.mqtt {
            Some((running, acts)) if options.enable => {
                acts.publish(&self.door, self.config.rule_engine.state);
                running.follow(options)
            }
            None if options.enable => {
                mqtt::handle::Handle::start(options, self.door.rules.broker(), &self.directory).map(
                    |started| match self.install_rules() {
                        Ok(acts) => self.mqtt = Some((started, acts)),
                        Err(error) => log::error!("rules: {error}"),
                    },
                )
            }
            _ => {
                self.mqtt = None;
                Ok(())
            }
        };
        if let Err((at, error)) = done {
            log::error!("mqtt: {at}: {error}");
        }
        if self.mqtt.is_some() {
            self.bridges.follow(&self.config.mqtt);
        } else {
            self.bridges.stop();
        }
    }
}

/// Completes a configuration with what follows from it, and with what it leaves to us.
///
/// # Errors
/// A secret cannot be made.
pub(super) fn settle(config: &mut Config, directory: &Path) -> Result<(), Failure> {
    settle_offload(config);
    name_application(&mut config.controller.management, directory)
}

/// Offload is sound only while DIRECT leaves as a forwarded packet does.
pub(super) fn settle_offload(config: &mut Config) {
    let apart = config.general.interface_name.is_some() || config.general.routing_mark != 0;
    if config.transparent.offload && apart {
        if config.transparent.enable {
            log::info!(
                "offload is off: interface-name or routing-mark sends DIRECT another way than forwarding"
            );
        }
        config.transparent.offload = false;
    }
}

/// The mark of our own sockets; none where nothing is captured, since it takes a capability.
pub(super) fn mark_of(config: &Config) -> u32 {
    if config.transparent.enable {
        own_mark(&config.transparent)
    } else {
        0
    }
}

pub(super) fn log_reload(done: &Result<(), Failure>) {
    match done {
        Ok(()) => log::info!("configuration reloaded"),
        Err(error) => log::error!("configuration not reloaded: {error}"),
    }
}

/// The application that may ask when none is configured: EMQX's, with a secret of its own.
fn name_application(management: &mut Management, directory: &Path) -> Result<(), Failure> {
    if management.enable && management.applications.is_empty() {
        let (secret, place) = state::secret(directory, state::MANAGEMENT)?;
        let id = "admin".into();
        let hashed = false;
        management
            .applications
            .push(Application { id, secret, hashed });
        log::info!(
            "management API: application admin; its secret is in {}",
            place.display()
        );
    }
    if management.enable {
        applications::join(directory, &mut management.applications)?;
    }
    Ok(())
}
