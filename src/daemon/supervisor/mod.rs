//! The life of a running instance: start in stages, serve, change, stop from the edge inwards.
//!
//! Start: build everything (every configuration error shows here), bind, serve, capture last. Stop:
//! capture first, so that a stopped headgate never swallows traffic. In between one task owns what
//! changes; requests of controllers and signals come to it one after the other. `capture`, `reload` and
//! `patch` are its larger acts.

mod capture;
mod changes;
mod kept;
mod patch;
mod reload;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::Failure;
use super::acts::Acts;
use super::build::{self, DnsTables, DnsTies};
use super::checks::Checks;
use super::command::{self, Command, Loaded};
use super::control::{self, Door, Request};
use super::hardening::Hardened;
use super::history::Keeper;
use super::kernel::{self, Kernel};
use super::listeners::Listeners;
use super::offload::Offload;
use super::overlay::Overlay;
use super::providers::Providers;
use super::restart::{End, Program};
use super::state;
use super::upgrade::{self, Sources, Upgrades};
use super::workers::Workers;
use crate::config::Config;
use crate::controllers::gate::{Gate, StartError};
use crate::controllers::{self, Control, ReloadSource, xray};
use crate::dns::current::Current;
use crate::mqtt;
use crate::netfilter::apply::{self, CaptureError};
use crate::netfilter::options::Fail;
use crate::outbound::inward::Entrance;
use crate::platform::blocking::blocking;
use crate::platform::leases::Leases;
use crate::platform::logger::{self, Level, Logger};
use crate::platform::neighbours::Neighbours;
use crate::platform::route::Network;
use crate::platform::{clock, memory};
use crate::rule_engine::tables::Tables;
use crate::rule_engine::{Desk, Outside, Watch};
use crate::tunnel::Tunnel;
use crate::tunnel::names::{Devices, Lan};
use crate::tunnel::routing::Routing;
use capture::{Captured, watch_kernel};
use kept::{SETTLE_EVERY, SILENCE_EVERY};
use reload::{log_reload, mark_of, settle};

/// Requests of controllers that may wait; further ones are refused.
const REQUESTS_MAX: usize = 8;

/// How often the fake-ip file is put in order.
const PERSIST_EVERY: Duration = Duration::from_secs(60);

/// How many times that the history is written: a crash loses what came in between, five minutes at most.
const HISTORY_EVERY: u32 = 4;

/// When the memory that starting took is given back.
const SETTLED: Duration = Duration::from_secs(5);

/// `headgate run`.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(command: &Command) -> Result<(), Failure> {
    let began = clock::now();
    let program = Program::current()?;
    if upgrade::was_in_vain(program.path())? {
        eprintln!("headgate: the new program did not become ready: the old one is back");
        return Err(program.run(None).into());
    }
    let mut loaded = command::load(command)?;
    let directory = command.directory();
    let hardened = Arc::new(Hardened::start(&loaded.config, &directory));
    let logger = logger::install(level(&loaded.config));
    for warning in &loaded.warnings {
        log::warn!("{}:{warning}", loaded.origin);
    }
    if loaded.config.controller.secret.is_empty()
        && command.file.is_none()
        && loaded.origin.starts_with("built-in")
    {
        let (secret, place) = state::secret(&directory, state::CONTROLLER)?;
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
    let end = runtime.block_on(async {
        let mut instance =
            Instance::start(loaded, directory, file, logger, Arc::clone(&hardened)).await?;
        hardened.tell();
        upgrade::has_proven_itself(program.path());
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
        let end = instance.serve().await?;
        instance.stop().await;
        Ok::<_, Failure>(end)
    })?;
    match end {
        End::Stop => Ok(()),
        End::Restart => Err(program.run(hardened.confined()).into()),
    }
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

/// A running instance.
struct Instance {
    config: Config,
    directory: PathBuf,
    file: PathBuf,
    logger: &'static Logger,
    hardened: Arc<Hardened>,
    workers: Arc<Workers>,
    tunnel: Arc<Tunnel>,
    tunnel_known: Arc<OnceLock<Weak<Tunnel>>>,
    dns: Arc<Current>,
    tables: DnsTables,
    kernel: Arc<Kernel>,
    offload: Arc<Offload>,
    listeners: Listeners,
    captured: Option<Captured>,
    providers: Arc<Providers>,
    /// How often what changes all the time was written.
    persisted: u32,
    door: Arc<Door>,
    requests: mpsc::Receiver<Request>,
    /// The controller, and what fetches its dashboard's pages where there are none.
    gate: Option<(Gate, JoinSet<()>)>,
    /// What the gate was opened with: a reload through it leaves it as it is.
    gate_options: controllers::options::Options,
    checks: Checks,
    /// The broker, and what its rules do to the router.
    mqtt: Option<(mqtt::handle::Handle, Acts)>,
    bridges: mqtt::bridge::Bridges,
    xray: Xray,
    devices: Option<Arc<Neighbours>>,
}

impl Instance {
    async fn start(
        loaded: Loaded,
        directory: PathBuf,
        file: PathBuf,
        logger: &'static Logger,
        hardened: Arc<Hardened>,
    ) -> Result<Self, Failure> {
        let mut config = loaded.config;
        settle(&mut config, &directory)?;
        let mark = mark_of(&config);
        let kernel = Arc::new(Kernel::default());
        let tunnel_known = Arc::new(OnceLock::new());
        let offload = Arc::new(Offload::new(Arc::clone(&tunnel_known), Arc::clone(&kernel)));
        let selected = kept_choices(&config, &directory);
        let rules = desk(&directory, &config.controller.management.node);
        let (tables, dns) = resolving(&config, &directory, mark, &tunnel_known, &offload, &rules)?;
        let loaded = Providers::load(&config, &directory, &loaded.origin).await?;
        let (nodes, resolver, way) = (loaded.nodes(), dns.clone(), Arc::default());
        let routing = build::routing(&mut config, &nodes, resolver, mark, &selected, None, &way)?;
        let providers = Arc::new(Providers::new(Arc::clone(&tunnel_known)));
        let workers = Arc::new(Workers::start()?);
        let (tunnel, devices) = watched_tunnel(routing, dns.clone(), &config, &rules).await;
        tunnel.admission().limit(config.general.max_connections);
        // From here on downloads have a way.
        let _first = tunnel_known.set(Arc::downgrade(&tunnel));
        providers.replace(loaded);
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let door = Arc::new(Door {
            rules,
            tunnel: Arc::clone(&tunnel),
            logger,
            directory: directory.clone(),
            file: file.clone(),
            general: Arc::default(),
            inbounds: RwLock::default(),
            dns: Arc::clone(&dns),
            offload: Arc::clone(&offload),
            providers: Arc::clone(&providers),
            history: Arc::new(Keeper::new(&directory)),
            upgrades: Arc::new(Upgrades::new()?),
            requests: sender,
            runtime: tokio::runtime::Handle::current(),
            selected: Arc::new(Mutex::new((selected, config.general.store_selected))),
            workers: Arc::clone(&workers),
            safe_paths: control::safe_paths(),
            debugged: config.general.log_level >= log::LevelFilter::Debug,
        });
        let mut instance = Self {
            bridges: mqtt::bridge::Bridges::new(door.rules.broker(), providers.way()),
            config,
            listeners: Listeners::new(&workers, &tunnel, &dns, mark, &directory),
            directory,
            file,
            logger,
            hardened,
            workers,
            tunnel,
            tunnel_known,
            dns,
            tables,
            kernel,
            offload,
            captured: None,
            providers,
            persisted: 0,
            door,
            requests,
            gate: None,
            gate_options: controllers::options::Options::default(),
            checks: Checks::default(),
            mqtt: None,
            xray: Xray::behind(way),
            devices,
        };
        instance.open().await?;
        Ok(instance)
    }

    /// Recalls what was kept, binds and serves, and captures last.
    async fn open(&mut self) -> Result<(), Failure> {
        self.recall();
        let (place, tproxy) = self.place_of_capture()?;
        if place.is_some() {
            apply::hold(
                &self.config.transparent,
                &kernel::facts(&self.config, None, &Network::default()),
            )?;
        }
        let inbound = &self.config.inbound;
        for (address, error) in self.listeners.follow(inbound, place.is_some()).await {
            let failed = format!("{address}: {error}");
            // What was added while an earlier instance ran keeps nobody from starting.
            match self.xray.overlay.listens_at(inbound, address) {
                true => log::error!("{failed}"),
                false => return Err(failed.into()),
            }
        }
        let listen = self.config.dns.listen.filter(|_| self.config.dns.enable);
        self.listeners.serve_dns(listen).await?;
        self.door
            .history
            .follow(&self.tunnel, self.config.general.store_history);
        self.open_gate(self.config.controller.clone())?;
        if self.config.mqtt.enable {
            let started = mqtt::handle::Handle::start(
                &self.config.mqtt,
                self.door.rules.broker(),
                &self.directory,
            );
            let started = started.map_err(|(at, error)| format!("{at}: {error}"))?;
            self.mqtt = Some((started, self.install_rules()?));
            self.bridges.follow(&self.config.mqtt);
        }
        self.serve_xray().await?;
        if let Some(place) = place {
            self.capture(place, tproxy).await?;
        }
        self.follow_groups();
        self.show_general();
        Ok(())
    }

    /// The sole right to capture, and whether the kernel has tproxy. `None` where capture is not asked for, or
    /// the kernel lacks what it needs: everything else is of use without.
    fn place_of_capture(&self) -> Result<(Option<UnixListener>, bool), Failure> {
        if !self.config.transparent.enable {
            return Ok((None, false));
        }
        let place = kernel::only_instance()?;
        match apply::has_tproxy() {
            Ok(tproxy) => Ok((Some(place), tproxy)),
            Err(error @ CaptureError::Missing(_)) => {
                log::error!("{error}. Nothing is captured until then; the rest runs");
                Ok((None, false))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a broker that has just begun its rules.
    fn install_rules(&self) -> Result<Acts, Failure> {
        let mut acts = Acts::start(&self.door, self.devices.clone());
        let kept = state::load_rules(&self.directory);
        let way = self.providers.way();
        let places = std::iter::once(&self.directory).chain(&self.door.safe_paths);
        let outside = Outside::new(
            tokio::runtime::Handle::current(),
            way,
            Arc::downgrade(&self.door) as Weak<dyn Tables>,
            places.cloned().collect(),
            &self.config.rule_engine,
        );
        self.door.rules.install(kept, acts.router(), &outside)?;
        self.door.rules.follow(&self.config.rule_engine);
        acts.publish(&self.door, self.config.rule_engine.state);
        Ok(acts)
    }

    /// Serves until told to stop.
    async fn serve(&mut self) -> Result<End, Failure> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        // Not at once: nothing is new yet, and the pages to give back are those of the start.
        let mut persist = interval_at(Instant::now() + SETTLED, PERSIST_EVERY);
        let mut settle = interval_at(Instant::now() + SETTLE_EVERY, SETTLE_EVERY);
        let mut silence = interval(SILENCE_EVERY);
        silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                // Those of one moment come as one. One that comes during a reload asks for another:
                // the file may have changed after it was read.
                _ = hangup.recv() => Event::Reload,
                _ = persist.tick() => Event::Persist,
                _ = settle.tick(), if self.tunnel.quotas().is_needed() => Event::Settle,
                _ = silence.tick(), if self.tunnel.connections().policy().is_some() => Event::Silence,
                Some(request) = self.requests.recv() => Event::Request(request),
                () = watch_kernel(&mut self.captured) => Event::Network,
                () = self.providers.changed() => Event::Sets,
                () = self.providers.nodes_changed() => Event::Nodes,
            };
            match event {
                Event::Stop => return Ok(End::Stop),
                Event::Request(Request::Restart) => return Ok(End::Restart),
                Event::Reload => {
                    let done = self.reload(ReloadSource::Running, true).await;
                    log_reload(&done);
                    if done.is_ok() {
                        self.follow_gate().await;
                    }
                }
                Event::Persist => self.persist(),
                Event::Settle => self.settle_quotas(),
                Event::Silence => self.tunnel.connections().cut_silent(clock::coarse()),
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
                Event::Nodes => log_reload(&self.rebuild_outbounds()),
                Event::Request(Request::Nodes(reply)) => {
                    let _gone = reply.send(self.rebuild_outbounds());
                }
                Event::Request(Request::Change(change, reply)) => {
                    let _gone = reply.send(self.change(*change).await);
                }
                Event::Request(Request::Look(look, reply)) => {
                    look(&self.config.proxies);
                    let _gone = reply.send(Ok(()));
                }
                Event::Request(Request::Patch(patch, reply)) => {
                    let _gone = reply.send(self.patch(*patch).await);
                }
            }
        }
    }

    fn open_gate(&mut self, options: controllers::options::Options) -> Result<(), StartError> {
        let sources = Sources::new(&options, &self.directory);
        sources.recover();
        self.door.upgrades.come_from(sources);
        let control = Arc::clone(&self.door) as Arc<dyn Control>;
        let gate = Gate::start(&options, control)?;
        let (upgrades, way) = (Arc::clone(&self.door.upgrades), self.providers.way());
        let mut pages = JoinSet::new();
        pages.spawn(upgrade::fetch_missing_pages(upgrades, way));
        self.gate = Some((gate, pages));
        self.gate_options = options;
        Ok(())
    }

    /// Brings the controller to what the file says now; what cannot be opened leaves the old one.
    async fn follow_gate(&mut self) {
        if self.gate_options == self.config.controller {
            return;
        }
        // The new one may want the same ports.
        if let Some((gate, _pages)) = self.gate.take() {
            gate.close().await;
        }
        if let Err(error) = self.open_gate(self.config.controller.clone()) {
            log::error!("{error}");
            if let Err(error) = self.open_gate(self.gate_options.clone()) {
                log::error!("{error}");
            }
        }
    }

    fn persist(&mut self) {
        memory::settle();
        self.keep();
        self.persisted = self.persisted.wrapping_add(1);
        if self.persisted.is_multiple_of(HISTORY_EVERY) {
            let (history, tunnel) = (Arc::clone(&self.door.history), Arc::clone(&self.tunnel));
            let _task = blocking(move || history.flush(&tunnel));
        }
        let Some(pool) = self.tables.fake_ip.clone() else {
            return;
        };
        let _task = blocking(move || {
            if let Err(error) = pool.persist() {
                log::warn!("fake-ip table: {error}");
            }
        });
    }

    /// Stops: capture first, the drops of `fail: closed` last.
    async fn stop(&mut self) {
        log::info!("stopping");
        self.release_capture().await;
        self.checks.stop();
        self.keep_last();
        self.gate = None;
        self.bridges.stop();
        self.mqtt = None;
        self.xray.server = None;
        let nothing = crate::inbound::options::Options::default();
        self.listeners.follow(&nothing, false).await;
        if let Err(error) = self.listeners.serve_dns(None).await {
            log::error!("{error}");
        }
        self.door.history.flush(&self.tunnel);
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

/// How controllers reach the SQL rules.
fn desk(directory: &Path, node: &str) -> Arc<Desk> {
    let place = directory.to_owned();
    let keep = move |document: &[u8]| state::store_rules(&place, document);
    Arc::new(Desk::new(Box::new(keep), node))
}

enum Event {
    Stop,
    Reload,
    Persist,
    Settle,
    Silence,
    Network,
    Sets,
    Nodes,
    Request(Request),
}

/// The Xray API, and what was changed by it.
#[derive(Default)]
struct Xray {
    server: Option<xray::server::Server>,
    /// Where it is reached by an outbound.
    entrance: Arc<Entrance>,
    overlay: Overlay,
    /// Whether the overlay was changed since it was written.
    changed: bool,
    /// Ticks since it was written last, and what was.
    ticks: u32,
    written: serde_json::Value,
}

impl Xray {
    fn behind(entrance: Arc<Entrance>) -> Self {
        Self {
            entrance,
            ..Self::default()
        }
    }
}

/// The DNS server of the first configuration, with its tables.
fn resolving(
    config: &Config,
    directory: &Path,
    own_mark: u32,
    tunnel: &Arc<OnceLock<Weak<Tunnel>>>,
    offload: &Arc<Offload>,
    rules: &Desk,
) -> Result<(DnsTables, Arc<Current>), Failure> {
    let mut tables = DnsTables::default();
    let ties = DnsTies {
        directory,
        own_mark,
        tunnel,
        offload,
        feed: rules.feed(),
    };
    let server = build::dns_server(config, &mut tables, &ties)?;
    Ok((tables, Arc::new(Current::new(server))))
}

/// The tunnel over the devices that the kernel knows; the rules see its connections.
async fn watched_tunnel(
    routing: Routing,
    dns: Arc<Current>,
    config: &Config,
    rules: &Desk,
) -> (Arc<Tunnel>, Option<Arc<Neighbours>>) {
    let devices = Neighbours::watch().await.ok().map(Arc::new);
    let tunnel = Tunnel::new(routing, dns, watched(devices.clone(), config));
    let watch = Watch(Arc::clone(rules.feed()));
    tunnel.connections().observe(Box::new(watch));
    (tunnel, devices)
}

/// Who knows the devices: the neighbour table, where the kernel lets us watch it, and the leases.
fn watched(neighbours: Option<Arc<Neighbours>>, config: &Config) -> Arc<dyn Devices> {
    let leases = Leases::new(config.dns.lease_files.clone());
    Arc::new(Lan { neighbours, leases })
}

/// The choices of an earlier run, where they are kept.
fn kept_choices(config: &Config, directory: &Path) -> state::Selected {
    match config.general.store_selected {
        true => state::load_selected(directory),
        false => state::Selected::default(),
    }
}
