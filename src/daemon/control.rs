//! What controllers may ask of the instance. Reads are answered from snapshots; what changes something is
//! a request to the supervisor's task, waited for with a deadline.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::Failure;
use super::history::Keeper;
use super::offload::Offload;
use super::providers::Providers;
use super::state::{self, Selected};
use super::storage;
use super::upgrade::{self, Upgrades};
use super::workers::Workers;
use crate::controllers::change::{Change, ChangeError};
use crate::controllers::{
    Cause, Control, DnsAnswer, DnsQueryError, DnsRecord, General, Look, Patch, ReloadSource,
};
use crate::dns::current::Current;
use crate::dns::message::build::Transport;
use crate::dns::message::record::{Answer, Section};
use crate::dns::message::text;
use crate::dns::message::{Question, flags};
use crate::dns::resolver::Manner;
use crate::inbound::options::Options as InboundOptions;
use crate::mqtt::remote::Remote;
use crate::outbound::{BoxFuture, Outbound};
use crate::platform::logger::Logger;
use crate::platform::memory;
use crate::platform::reply::{Missing, Reply, reply};
use crate::provider::pages::Place;
use crate::provider::proxy::ProxyProvider;
use crate::provider::rule::RuleProvider;
use crate::rule_engine::Desk;
use crate::rule_engine::tables::Tables;
use crate::tunnel::Tunnel;
use crate::tunnel::history::day::Day;

/// How long a controller waits for the supervisor, and for a name.
const PATIENCE: Duration = Duration::from_secs(20);
const DNS_PATIENCE: Duration = Duration::from_secs(6);

/// How long it waits for a download: somewhat longer than that may take.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(65);

/// The same for a replacement: a download, two trials of the new program, their checksums.
const REPLACEMENT_PATIENCE: Duration = Duration::from_secs(120);

/// What the supervisor is asked to do; each is answered once it is done.
pub enum Request {
    /// Load a configuration.
    Reload(ReloadSource, bool, Reply<Result<(), Failure>>),
    /// Change general settings.
    Patch(Box<Patch>, Reply<Result<(), Failure>>),
    /// Build proxies and groups over the nodes that providers have now.
    Nodes(Reply<Result<(), Failure>>),
    /// Change listeners, users or proxies.
    Change(Box<Change>, Reply<Result<(), ChangeError>>),
    /// Show the proxies.
    Look(Look, Reply<Result<(), Failure>>),
    /// Stop, and run anew.
    Restart,
}

/// The door that controllers get.
pub struct Door {
    pub tunnel: Arc<Tunnel>,
    pub logger: &'static Logger,
    pub directory: PathBuf,
    pub file: PathBuf,
    /// Snapshot, written by the supervisor.
    pub general: Arc<RwLock<General>>,
    /// Snapshot, written by the supervisor.
    pub inbounds: RwLock<Arc<InboundOptions>>,
    pub dns: Arc<Current>,
    pub offload: Arc<Offload>,
    pub providers: Arc<Providers>,
    pub history: Arc<Keeper>,
    pub upgrades: Arc<Upgrades>,
    pub rules: Arc<Desk>,
    pub requests: mpsc::Sender<Request>,
    pub runtime: tokio::runtime::Handle,
    /// Table: the choices, and whether they are kept (`store-selected`).
    pub selected: Arc<Mutex<(Selected, bool)>>,
    pub workers: Arc<Workers>,
    /// `SAFE_PATHS` of the environment.
    pub safe_paths: Vec<PathBuf>,
    /// Whether the log level was `debug` at the start.
    pub debugged: bool,
}

impl Door {
    /// Boxed: the runtime's part of a task is then compiled once, not for each kind.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task.boxed());
    }

    fn ask<E: From<Cause>>(
        &self,
        request: impl FnOnce(Reply<Result<(), E>>) -> Request,
    ) -> Result<(), E> {
        let (sender, answer) = reply();
        let refused = |why: &str| E::from(Cause::from(why));
        self.requests
            .try_send(request(sender))
            .map_err(|_| refused("too many changes at once"))?;
        match answer.wait(PATIENCE) {
            Ok(done) => done,
            Err(Missing::Late) => Err(refused("the change takes long; it goes on")),
            Err(Missing::Gone) => Err(refused("the daemon is stopping")),
        }
    }
}

impl Door {
    /// Waits for the replacement of something by what is downloaded; one at a time, so that what was checked
    /// is what takes its place.
    fn replace(&self, work: BoxFuture<'static, Result<(), Failure>>) -> Result<(), Cause> {
        let turn = self.upgrades.turn();
        let turn = turn.ok_or("another upgrade is under way")?;
        let (sender, answer) = reply();
        self.spawn(async move {
            let done = work.await;
            drop(turn);
            if let Err(Err(error)) = sender.send(done) {
                log::error!("upgrade: {error}");
            }
        });
        match answer.wait(REPLACEMENT_PATIENCE) {
            Ok(done) => done,
            Err(_) => Err("the download takes long; it goes on".into()),
        }
    }
}

impl Control for Door {
    fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    fn logger(&self) -> &'static Logger {
        self.logger
    }

    fn memory(&self) -> u64 {
        memory::resident()
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn config_file(&self) -> &Path {
        &self.file
    }

    fn general(&self) -> General {
        self.general
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn inbounds(&self) -> Arc<InboundOptions> {
        Arc::clone(&self.inbounds.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn look_at_proxies(&self, look: Look) -> Result<(), Cause> {
        self.ask(|reply| Request::Look(look, reply))
    }

    fn change(&self, change: Change) -> Result<(), ChangeError> {
        self.ask(|reply| Request::Change(Box::new(change), reply))
    }

    fn patch(&self, patch: Patch) -> Result<(), Cause> {
        self.ask(|reply| Request::Patch(Box::new(patch), reply))
    }

    fn reload(&self, source: ReloadSource, force: bool) -> Result<(), Cause> {
        self.ask(|reply| Request::Reload(source, force, reply))
    }

    fn select(&self, group: &Arc<dyn Outbound>, member: &str) -> bool {
        if !group.select(member) {
            return false;
        }
        self.rules.feed().switched(group.name(), member);
        // What DNS told the kernel was decided by the choice of before.
        self.offload.forget();
        let mut selected = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        let (choices, kept) = &mut *selected;
        choices.insert((&**group.name()).into(), member.into());
        if *kept && let Err(error) = state::store_selected(&self.directory, choices) {
            log::warn!("the choice in {} is not kept: {error}", group.name());
        }
        true
    }

    fn unpin(&self, group: &Arc<dyn Outbound>) -> bool {
        if !group.unpin() {
            return false;
        }
        let mut selected = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        let (choices, kept) = &mut *selected;
        let known = choices.remove(&**group.name()).is_some();
        if *kept
            && known
            && let Err(error) = state::store_selected(&self.directory, choices)
        {
            log::warn!("the choice in {} is not forgotten: {error}", group.name());
        }
        true
    }

    fn switch_rules(&self, wanted: &[(usize, bool)]) {
        let routing = self.tunnel.routing();
        for (rule, off) in wanted
            .iter()
            .filter(|(rule, _)| *rule < routing.rule_count())
        {
            routing.tally.switch(*rule, *off);
        }
        // What the kernel was told stood on the rules of before.
        self.providers.tell_changed();
    }

    fn place_of_rule(&self, index: usize) -> Option<String> {
        let line = self.providers.line_of_rule(&self.file, index)?;
        let name = self.file.file_name()?.to_string_lossy();
        Some(format!("{name}:{line}"))
    }

    fn offloads(&self) -> bool {
        self.general().offload
    }

    fn rule_providers(&self) -> Arc<[Arc<RuleProvider>]> {
        self.providers.list()
    }

    fn proxy_providers(&self) -> Arc<[Arc<ProxyProvider>]> {
        self.providers.proxies()
    }

    fn refresh_nodes(&self, provider: &Arc<ProxyProvider>) -> Result<(), Cause> {
        let (sender, answer) = reply();
        let (providers, provider) = (Arc::clone(&self.providers), Arc::clone(provider));
        self.spawn(async move {
            let _gone = sender.send(providers.refresh_nodes(provider).await);
        });
        let new = answer
            .wait(DOWNLOAD_PATIENCE)
            .map_err(|_| "the download takes long; it goes on")??;
        match new {
            true => self.ask(Request::Nodes),
            false => Ok(()),
        }
    }

    fn refresh_provider(&self, provider: &Arc<RuleProvider>) -> Result<(), Cause> {
        let (sender, answer) = reply();
        let (providers, provider) = (Arc::clone(&self.providers), Arc::clone(provider));
        self.spawn(async move {
            let _gone = sender.send(providers.refresh(provider).await);
        });
        match answer.wait(PATIENCE) {
            Ok(done) => Ok(done?),
            Err(_) => Err("the download takes long; it goes on".into()),
        }
    }

    fn dns_query(&self, name: &str, kind: u16) -> Result<DnsAnswer, DnsQueryError> {
        let server = self.dns.server();
        let question =
            Question::new(name, kind).ok_or(DnsQueryError::Failed("not a domain name".into()))?;
        let (sender, answer) = reply();
        self.spawn(async move {
            let outcome = server.resolver().query(&question, Manner::default()).await;
            let _gone = sender.send(outcome);
        });
        let bytes = answer
            .wait(DNS_PATIENCE)
            .map_err(|_| DnsQueryError::Failed("no answer in time".into()))?
            .map_err(|failure| DnsQueryError::Failed(failure.to_string().into()))?;
        let answer = Answer::parse(&bytes)
            .map_err(|_| DnsQueryError::Failed("the answer is malformed".into()))?;
        Ok(view(&answer))
    }

    fn dns_message(&self, message: Vec<u8>) -> Option<BoxFuture<'static, Option<Vec<u8>>>> {
        let server = self.dns.server();
        server.is_enabled().then(|| {
            let answering = async move {
                let nobody = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
                server.answer(&message, nobody, Transport::Tcp).await
            };
            Box::pin(answering) as BoxFuture<'static, _>
        })
    }

    fn flush_fake_ip(&self) -> Result<(), Cause> {
        self.dns.server().flush_fake_ip().map_err(Into::into)
    }

    fn flush_dns(&self) {
        self.dns.server().flush_cache();
    }

    fn past_days(&self, from: u32, to: u32) -> Vec<Day> {
        self.history.days(from, to)
    }

    fn safe_paths(&self) -> &[PathBuf] {
        &self.safe_paths
    }

    fn update_geo(&self) -> Result<(), Cause> {
        let (sender, answer) = reply();
        let providers = Arc::clone(&self.providers);
        self.spawn(async move {
            let _gone = sender.send(providers.refresh_geodata().await);
        });
        match answer.wait(PATIENCE) {
            Ok(done) => Ok(done?),
            Err(_) => Err("the download takes long; it goes on".into()),
        }
    }

    fn replace_pages(&self) -> Result<(), Cause> {
        let source = self
            .upgrades
            .sources()
            .pages
            .ok_or("external-ui-url is not set")?;
        let way = self.providers.way();
        self.replace(Box::pin(async move {
            upgrade::fetch_pages(source, &*way, Place::Any).await
        }))
    }

    fn replace_program(&self) -> Result<(), Cause> {
        let source = self.upgrades.sources().program;
        let source = source.ok_or("upgrade is not set: the system's packages do it")?;
        let way = self.providers.way();
        let own = self.upgrades.program().to_owned();
        let mut check: Vec<PathBuf> = vec!["check".into(), "-d".into(), self.directory.clone()];
        if self.file.exists() {
            check.extend(["-f".into(), self.file.clone()]);
        }
        self.replace(Box::pin(async move {
            upgrade::replace_program(source, &*way, own, check).await
        }))
    }

    fn restart(&self) {
        if self.requests.try_send(Request::Restart).is_err() {
            log::error!("too many changes at once: not restarted");
        }
    }

    fn collect(&self) {
        memory::collect();
        for runtime in self.workers.handles().iter().chain([&self.runtime]) {
            runtime.spawn(async { memory::collect() }.boxed());
        }
    }

    fn rules(&self) -> Option<&Desk> {
        Some(&self.rules)
    }

    fn tables(&self) -> Option<&dyn Tables> {
        Some(self)
    }

    fn broker(&self) -> &Remote {
        self.rules.broker()
    }

    fn is_debugged(&self) -> bool {
        self.debugged
    }

    fn stored(&self, key: &str) -> Result<Option<Vec<u8>>, Cause> {
        Ok(storage::get(&self.directory, key)?)
    }

    fn store(&self, key: &str, value: &[u8]) -> Result<(), Cause> {
        Ok(storage::put(&self.directory, key, value)?)
    }

    fn forget_stored(&self, key: &str) -> Result<(), Cause> {
        Ok(storage::delete(&self.directory, key)?)
    }
}

/// `SAFE_PATHS` of the environment: absolute directories, separated by colons.
pub fn safe_paths() -> Vec<PathBuf> {
    let list = std::env::var_os("SAFE_PATHS").unwrap_or_default();
    let paths = std::env::split_paths(&list);
    paths.filter(|path| path.is_absolute()).collect()
}

/// A DNS message as the controllers show it.
fn view(answer: &Answer<'_>) -> DnsAnswer {
    let has = |flag: u16| answer.flags() & flag != 0;
    let mut shown = DnsAnswer {
        status: answer.rcode().into(),
        truncated: has(flags::TRUNCATED),
        recursion_desired: has(flags::RECURSION_DESIRED),
        recursion_available: has(flags::RECURSION_AVAILABLE),
        authentic: has(flags::AUTHENTIC_DATA),
        checking_disabled: has(flags::CHECKING_DISABLED),
        ..DnsAnswer::default()
    };
    for record in text::records(answer).unwrap_or_default() {
        let section = match record.section {
            Section::Answer => &mut shown.answer,
            Section::Authority => &mut shown.authority,
            Section::Additional => &mut shown.additional,
        };
        section.push(DnsRecord {
            name: record.name.into(),
            kind: record.rtype,
            ttl: record.ttl,
            data: record.data.into(),
        });
    }
    shown
}
