//! The life of a running instance: start in stages, serve, change, stop from the edge inwards.
//!
//! Start: build everything (every configuration error shows here), bind, serve, capture last. Stop:
//! capture first, so that a stopped headgate never swallows traffic. In between one task owns what
//! changes; requests of controllers and signals come to it one after the other.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::Failure;
use super::build::{self, DnsTables, DnsTies};
use super::checks::Checks;
use super::command::{self, Command, Loaded};
use super::control::{Door, Request};
use super::kernel::{self, Kernel};
use super::listeners::Listeners;
use super::offload::Offload;
use super::providers::Providers;
use super::state;
use super::workers::{BEAT, Workers};
use crate::config::Config;
use crate::controllers::gate::Gate;
use crate::controllers::{BindAddress, Control, General, Patch, ReloadSource};
use crate::dns::current::Current;
use crate::mqtt;
use crate::netfilter::apply;
use crate::netfilter::marks::own_mark;
use crate::netfilter::options::{Fail, Mode};
use crate::netfilter::routing::Keeper;
use crate::outbound::{IpVersion, Purpose, Resolve};
use crate::platform::logger::{self, Level, Logger};
use crate::platform::neighbours::Neighbours;
use crate::platform::route::Network;
use crate::platform::{clock, memory};
use crate::tunnel::Tunnel;
use crate::tunnel::names::{Devices, NoDevices};
use crate::tunnel::routing::Routing;

/// Requests of controllers that may wait; further ones are refused.
const REQUESTS_MAX: usize = 8;

/// How often the addresses of proxy servers are looked up, and how soon after a failure.
const SERVERS_EVERY: Duration = Duration::from_secs(600);
const SERVERS_AGAIN: Duration = Duration::from_secs(5);

/// How often the fake-ip file is put in order.
const PERSIST_EVERY: Duration = Duration::from_secs(60);

/// When the memory that starting took is given back.
const SETTLED: Duration = Duration::from_secs(5);

/// `headgate run`.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(command: &Command) -> Result<(), Failure> {
    let began = clock::now();
    let mut loaded = command::load(command)?;
    let directory = command.directory();
    let logger = logger::install(level(&loaded.config));
    for warning in &loaded.warnings {
        log::warn!("{}:{warning}", loaded.origin);
    }
    if loaded.config.controller.secret.is_empty()
        && command.file.is_none()
        && loaded.origin.starts_with("built-in")
    {
        let (secret, place) = state::secret(&directory)?;
        loaded.config.controller.secret = secret;
        log::info!(
            "controller at 127.0.0.1:9090; its secret is in {}",
            place.display()
        );
    }
    let (file, _) = command.file();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut instance = Instance::start(loaded, directory, file, logger).await?;
        let ready = format!(
            "headgate ready in {} ms",
            (clock::now() - began).as_millis()
        );
        // Whoever started it waits for this line, at whatever log level.
        if log::log_enabled!(log::Level::Info) {
            log::info!("{ready}");
        } else {
            eprintln!("{ready}");
        }
        instance.serve().await?;
        instance.stop().await;
        Ok(())
    })
}

fn level(config: &Config) -> Level {
    match config.general.log_level {
        log::LevelFilter::Off => Level::Silent,
        log::LevelFilter::Error => Level::Error,
        log::LevelFilter::Warn => Level::Warning,
        log::LevelFilter::Info => Level::Info,
        log::LevelFilter::Debug | log::LevelFilter::Trace => Level::Debug,
    }
}

/// What is up while traffic is captured.
struct Captured {
    keeper: Keeper,
    network: watch::Receiver<Arc<Network>>,
    renewal: JoinHandle<()>,
    servers: JoinHandle<()>,
    tproxy: bool,
    _place: UnixListener,
}

/// A running instance.
struct Instance {
    config: Config,
    directory: PathBuf,
    file: PathBuf,
    logger: &'static Logger,
    workers: Arc<Workers>,
    tunnel: Arc<Tunnel>,
    tunnel_known: Arc<OnceLock<std::sync::Weak<Tunnel>>>,
    dns: Arc<Current>,
    tables: DnsTables,
    kernel: Arc<Kernel>,
    offload: Arc<Offload>,
    listeners: Listeners,
    captured: Option<Captured>,
    providers: Arc<Providers>,
    door: Arc<Door>,
    requests: mpsc::Receiver<Request>,
    gate: Option<Gate>,
    checks: Checks,
    mqtt: Option<mqtt::handle::Handle>,
    _devices: Option<Arc<Neighbours>>,
}

impl Instance {
    async fn start(
        loaded: Loaded,
        directory: PathBuf,
        file: PathBuf,
        logger: &'static Logger,
    ) -> Result<Self, Failure> {
        let mut config = loaded.config;
        settle_offload(&mut config);
        let mark = mark_of(&config);
        let kernel = Arc::new(Kernel::default());
        let tunnel_known = Arc::new(OnceLock::new());
        let offload = Arc::new(Offload::new(Arc::clone(&tunnel_known), Arc::clone(&kernel)));
        let kept = config.general.store_selected.then_some(&directory);
        let selected = kept.map_or_else(Default::default, |place| state::load_selected(place));
        let mut tables = DnsTables::default();
        let ties = DnsTies {
            directory: &directory,
            own_mark: mark,
            tunnel: &tunnel_known,
            offload: &offload,
        };
        let server = build::dns_server(&config, &mut tables, &ties)?;
        let dns = Arc::new(Current::new(server));
        let routing = build::routing(&mut config, dns.clone(), mark, &selected, None)?;
        let loaded = Providers::load(&config, &directory).await?;
        let providers = Arc::new(Providers::new(Arc::clone(&tunnel_known)));
        let workers = Arc::new(Workers::start()?);
        let devices = Neighbours::watch().await.ok().map(Arc::new);
        let tunnel = Tunnel::new(routing, dns.clone(), watched(devices.clone()));
        let _first = tunnel_known.set(Arc::downgrade(&tunnel));
        // From here on downloads have a way.
        providers.replace(loaded);
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let door = Arc::new(Door {
            tunnel: Arc::clone(&tunnel),
            logger,
            directory: directory.clone(),
            file: file.clone(),
            general: Arc::default(),
            dns: Arc::clone(&dns),
            offload: Arc::clone(&offload),
            providers: Arc::clone(&providers),
            requests: sender,
            runtime: tokio::runtime::Handle::current(),
            selected: Arc::new(Mutex::new((selected, config.general.store_selected))),
        });
        let mut instance = Self {
            config,
            directory,
            file,
            logger,
            listeners: Listeners::new(workers.clone(), tunnel.clone(), dns.clone(), mark),
            workers,
            tunnel,
            tunnel_known,
            dns,
            tables,
            kernel,
            offload,
            captured: None,
            providers,
            door,
            requests,
            gate: None,
            checks: Checks::default(),
            mqtt: None,
            _devices: devices,
        };
        instance.open().await?;
        Ok(instance)
    }

    /// Binds and serves, and captures last.
    async fn open(&mut self) -> Result<(), Failure> {
        let place = if self.config.transparent.enable {
            Some(kernel::only_instance()?)
        } else {
            None
        };
        let tproxy = place.is_some() && apply::has_tproxy()?;
        if place.is_some() {
            apply::hold(
                &self.config.transparent,
                &kernel::facts(&self.config, None, &Network::default()),
            )?;
        }
        let failed = self.listeners.follow(&self.config.inbound, place.is_some());
        if let Some((address, error)) = failed.into_iter().next() {
            return Err(format!("{address}: {error}").into());
        }
        let listen = self.config.dns.listen.filter(|_| self.config.dns.enable);
        self.listeners.serve_dns(listen)?;
        self.gate = Some(Gate::start(
            &self.config.controller,
            Arc::clone(&self.door) as Arc<dyn Control>,
        )?);
        if self.config.mqtt.enable {
            let started = mqtt::handle::Handle::start(&self.config.mqtt);
            let started = started.map_err(|(at, error)| format!("{at}: {error}"))?;
            self.mqtt = Some(started);
        }
        if let Some(place) = place {
            self.capture(place, tproxy).await?;
        }
        self.follow_groups();
        self.show_general();
        Ok(())
    }

    /// Takes the LAN's traffic.
    async fn capture(&mut self, place: UnixListener, tproxy: bool) -> Result<(), Failure> {
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
        let facts = kernel::facts(
            &self.config,
            Some(&self.tunnel.routing()),
            &network.borrow(),
        );
        if let Err(error) = self.kernel.start(&options, ports, &facts) {
            keeper.stop().await?;
            return Err(error.into());
        }
        let renewal = self.renew_forever();
        let servers = tokio::spawn(follow_servers(
            Arc::clone(&self.tunnel),
            Arc::clone(&self.dns),
            Arc::clone(&self.kernel),
        ));
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

    fn fake_ranges(&self) -> Vec<crate::prefix::Prefix> {
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
            Some(first) => first.spawn(renewal),
            None => tokio::spawn(renewal),
        }
    }

    /// Serves until told to stop.
    async fn serve(&mut self) -> Result<(), Failure> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        // Not at once: nothing is new yet, and the free pages are those of the start.
        let mut persist = interval_at(Instant::now() + SETTLED, PERSIST_EVERY);
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Reload,
                _ = persist.tick() => Event::Persist,
                Some(request) = self.requests.recv() => Event::Request(request),
                () = watch_kernel(&mut self.captured) => Event::Network,
                () = self.providers.changed() => Event::Sets,
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Reload => {
                    let done = self.reload(ReloadSource::Running, true).await;
                    log_reload(&done);
                    drain(&mut hangup);
                }
                Event::Persist => self.persist(),
                Event::Network => self.refresh_kernel(),
                Event::Sets => {
                    self.offload.forget();
                    self.refresh_kernel();
                }
                Event::Request(Request::Reload(source, force, reply)) => {
                    let done = self.reload(source, force).await;
                    log_reload(&done);
                    let _gone = reply.send(done);
                }
                Event::Request(Request::Patch(patch, reply)) => {
                    let _gone = reply.send(self.patch(*patch));
                }
            }
        }
    }

    fn persist(&self) {
        memory::collect();
        let Some(pool) = self.tables.fake_ip.clone() else {
            return;
        };
        let _task = tokio::task::spawn_blocking(move || {
            if let Err(error) = pool.persist() {
                log::warn!("fake-ip table: {error}");
            }
        });
    }

    /// Brings the rules up to the network and the decisions of the moment.
    fn refresh_kernel(&self) {
        let Some(captured) = &self.captured else {
            return;
        };
        let facts = kernel::facts(
            &self.config,
            Some(&self.tunnel.routing()),
            &captured.network.borrow(),
        );
        let ports = kernel::ports(&self.config.inbound, captured.tproxy);
        if let Err(error) = self.kernel.apply(&self.config.transparent, ports, &facts) {
            log::error!("capture rules: {error}");
        }
    }

    /// Replaces the configuration; the old one stays when the new one is refused.
    async fn reload(&mut self, source: ReloadSource, force: bool) -> Result<(), Failure> {
        let loaded = match source {
            ReloadSource::Running if self.file.exists() => command::parse(
                &command::read_config(&self.file)?,
                self.file.display().to_string(),
            )?,
            ReloadSource::Running => {
                return Err(format!("{}: there is no such file", self.file.display()).into());
            }
            ReloadSource::File { path, text } => command::parse(&text, path.display().to_string())?,
            ReloadSource::Payload(text) => command::parse(&text, "payload".into())?,
        };
        for warning in &loaded.warnings {
            log::warn!("{}:{warning}", loaded.origin);
        }
        let mut config = loaded.config;
        settle_offload(&mut config);
        let mark = mark_of(&config);
        let selected = self.choices();
        let ties = DnsTies {
            directory: &self.directory,
            own_mark: mark,
            tunnel: &self.tunnel_known,
            offload: &self.offload,
        };
        let server = build::dns_server(&config, &mut self.tables, &ties)?;
        let routing = build::routing(
            &mut config,
            Arc::clone(&self.dns) as Arc<dyn Resolve>,
            mark,
            &selected,
            Some(&self.tunnel.routing().outbounds),
        )?;

        let providers = Providers::load(&config, &self.directory).await?;

        // From here on nothing is refused any more.
        let old = std::mem::replace(&mut self.config, config);
        if !force {
            let controllers = old.inbound.clone();
            let listeners = std::mem::take(&mut self.config.inbound.listeners);
            self.config.inbound = controllers;
            self.config.inbound.listeners = listeners;
        }
        self.dns.replace(server);
        self.tunnel.replace_routing(routing);
        self.follow_groups();
        self.providers.replace(providers);
        self.logger.set_level(level(&self.config));
        self.follow_listeners();
        let listen = self.config.dns.listen.filter(|_| self.config.dns.enable);
        if let Err(error) = self.listeners.serve_dns(listen) {
            log::error!("{error}");
        }
        self.follow_mqtt();
        self.follow_transparent(&old).await;
        self.offload.forget();
        self.show_general();
        drop(old);
        memory::collect();
        Ok(())
    }

    /// Choices of the groups, those made since the start included.
    fn choices(&self) -> state::Selected {
        self.door
            .selected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// Tests the groups that are in force.
    fn follow_groups(&mut self) {
        let outbounds = Arc::clone(&self.tunnel.routing().outbounds);
        self.checks
            .follow(outbounds, self.config.general.unified_delay);
    }

    fn follow_listeners(&mut self) {
        for (address, error) in self
            .listeners
            .follow(&self.config.inbound, self.config.transparent.enable)
        {
            log::error!("{address}: {error}");
        }
    }

    /// Starts, changes or stops the broker; what cannot be done leaves it as it is.
    fn follow_mqtt(&mut self) {
        let options = &self.config.mqtt;
        let done = match &mut self.mqtt {
            Some(running) if options.enable => running.follow(options),
            None if options.enable => {
                mqtt::handle::Handle::start(options).map(|started| self.mqtt = Some(started))
            }
            _ => {
                self.mqtt = None;
                Ok(())
            }
        };
        if let Err((at, error)) = done {
            log::error!("mqtt: {at}: {error}");
        }
    }

    /// Brings capture from the old options to the present ones.
    async fn follow_transparent(&mut self, old: &Config) {
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

    async fn release_capture(&mut self) {
        if let Some(captured) = self.captured.take() {
            captured.renewal.abort();
            captured.servers.abort();
            self.kernel.stop();
            if let Err(error) = captured.keeper.stop().await {
                log::error!("policy routing: {error}");
            }
            self.listeners.close_captured();
        }
    }

    /// Changes general settings until the next reload.
    fn patch(&mut self, patch: Patch) -> Result<(), Failure> {
        let mut routing = Routing::clone(&self.tunnel.routing());
        let inbound = &mut self.config.inbound;
        let set = |field: &mut u16, value: Option<u16>| *field = value.unwrap_or(*field);
        set(&mut inbound.http_port, patch.port);
        set(&mut inbound.socks_port, patch.socks_port);
        set(&mut inbound.mixed_port, patch.mixed_port);
        set(&mut inbound.redir_port, patch.redir_port);
        set(&mut inbound.tproxy_port, patch.tproxy_port);
        inbound.allow_lan = patch.allow_lan.unwrap_or(inbound.allow_lan);
        if let Some(address) = patch.bind_address {
            inbound.bind_address = match address {
                BindAddress::All => None,
                BindAddress::One(address) => Some(address),
            };
        }
        if let Some(list) = patch.skip_auth_prefixes {
            inbound.skip_auth_prefixes = list;
        }
        if let Some(list) = patch.lan_allowed_ips {
            inbound.lan_allowed_ips = list;
        }
        if let Some(list) = patch.lan_disallowed_ips {
            inbound.lan_disallowed_ips = list;
        }
        if let Some(mode) = patch.mode {
            routing.mode = mode;
            self.config.general.mode = mode;
        }
        if let Some(level) = patch.log_level {
            self.logger.set_level(level);
        }
        if let Some(sniffing) = patch.sniffing {
            self.config.sniffer.enable = sniffing;
            routing.sniffer = build::sniffer(&self.config.sniffer)?;
        }
        let general = &mut self.config.general;
        general.tcp_concurrent = patch.tcp_concurrent.unwrap_or(general.tcp_concurrent);
        if patch.ipv6.is_some() || patch.interface_name.is_some() {
            general.ipv6 = patch.ipv6.unwrap_or(general.ipv6);
            if let Some(name) = patch.interface_name {
                general.interface_name = Some(name).filter(|name| !name.is_empty());
            }
            let resolver = Arc::clone(&self.dns) as Arc<dyn Resolve>;
            routing.outbounds = build::registry(
                &self.config,
                resolver,
                mark_of(&self.config),
                &self.choices(),
                Some(&routing.outbounds),
            )?;
            settle_offload(&mut self.config);
        }
        let rebuilt = !Arc::ptr_eq(&routing.outbounds, &self.tunnel.routing().outbounds);
        self.tunnel.replace_routing(routing);
        if rebuilt {
            self.follow_groups();
        }
        self.follow_listeners();
        self.offload.forget();
        self.refresh_kernel();
        self.show_general();
        Ok(())
    }

    /// Writes the snapshot that `GET /configs` shows.
    fn show_general(&self) {
        let (inbound, general) = (&self.config.inbound, &self.config.general);
        let shown = General {
            port: self.listeners.port_of("DEFAULT-HTTP"),
            socks_port: self.listeners.port_of("DEFAULT-SOCKS"),
            mixed_port: self.listeners.port_of("DEFAULT-MIXED"),
            redir_port: self.listeners.port_of("DEFAULT-REDIR"),
            tproxy_port: match &self.captured {
                Some(captured) => kernel::ports(inbound, captured.tproxy).tproxy,
                None => self.listeners.port_of("DEFAULT-TPROXY"),
            },
            users: inbound
                .authentication
                .iter()
                .map(|user| user.username.clone())
                .collect(),
            skip_auth_prefixes: inbound.skip_auth_prefixes.clone(),
            lan_allowed_ips: inbound.lan_allowed_ips.clone(),
            lan_disallowed_ips: inbound.lan_disallowed_ips.clone(),
            allow_lan: inbound.allow_lan,
            bind_address: inbound
                .bind_address
                .map_or_else(|| "*".into(), |address| address.to_string().into()),
            mode: general.mode,
            ipv6: general.ipv6,
            unified_delay: general.unified_delay,
            tcp_concurrent: general.tcp_concurrent,
            interface_name: general.interface_name.clone().unwrap_or_default(),
            routing_mark: general.routing_mark,
            sniffing: self.config.sniffer.enable,
            keep_alive_idle: general.keep_alive_idle,
            keep_alive_interval: general.keep_alive_interval,
            disable_keep_alive: general.disable_keep_alive,
        };
        *self
            .door
            .general
            .write()
            .unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// Stops: capture first, the drops of `fail: closed` last.
    async fn stop(&mut self) {
        log::info!("stopping");
        self.release_capture().await;
        self.checks.stop();
        self.gate = None;
        self.mqtt = None;
        self.listeners
            .follow(&crate::inbound::options::Options::default(), false);
        if let Err(error) = self.listeners.serve_dns(None) {
            log::error!("{error}");
        }
        if let Some(pool) = &self.tables.fake_ip
            && let Err(error) = pool.persist()
        {
            log::warn!("fake-ip table: {error}");
        }
        let closed = self.config.transparent.enable && self.config.transparent.fail == Fail::Closed;
        if closed && let Err(error) = apply::release() {
            log::error!("capture: {error}");
        }
    }
}

enum Event {
    Stop,
    Reload,
    Persist,
    Network,
    Sets,
    Request(Request),
}

/// Who asks the neighbour table for devices, where the kernel lets us watch it.
fn watched(devices: Option<Arc<Neighbours>>) -> Arc<dyn Devices> {
    match devices {
        Some(devices) => devices,
        None => Arc::new(NoDevices),
    }
}

/// Keeps policy routing in place; done when the network has changed.
async fn watch_kernel(captured: &mut Option<Captured>) {
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

/// Offload is sound only while DIRECT leaves as a forwarded packet does.
fn settle_offload(config: &mut Config) {
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
fn mark_of(config: &Config) -> u32 {
    if config.transparent.enable {
        own_mark(&config.transparent)
    } else {
        0
    }
}

fn log_reload(done: &Result<(), Failure>) {
    match done {
        Ok(()) => log::info!("configuration reloaded"),
        Err(error) => log::error!("configuration not reloaded: {error}"),
    }
}

/// Signals that came during a reload asked for what it did.
fn drain(signal: &mut Signal) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while signal.poll_recv(&mut context).is_ready() {}
}
