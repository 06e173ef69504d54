//! The API from outside: real bytes to a gate on 127.0.0.1, a small tunnel behind it.

mod delays;
mod doh;
mod feeds;
mod limits;
mod pages;
mod permission;
mod process;
mod resources;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;

use super::change::{Change, ChangeError};
use super::gate::Gate;
use super::options::Options;
use super::{
    BindAddress, Cause, Control, DnsAnswer, DnsQueryError, DnsRecord, General, Patch, ReloadSource,
};
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::mqtt::remote::Remote;
use crate::outbound::registry::Registry;
use crate::outbound::{BoxFuture, Datagrams, Kind, Outbound, Stream};
use crate::platform::logger::{self, Level, Logger};
use crate::provider::proxy::ProxyProvider;
use crate::rules::Rules;
use crate::tunnel::Tunnel;
use crate::tunnel::names::{NoDevices, NoNames};
use crate::tunnel::routing::{Mode, Routing};

struct TestOutbound {
    name: Arc<str>,
    kind: Kind,
    members: Vec<Arc<dyn Outbound>>,
    chosen: Mutex<usize>,
}

impl TestOutbound {
    fn shared(name: &str, kind: Kind, members: Vec<Arc<dyn Outbound>>) -> Arc<dyn Outbound> {
        Arc::new(Self {
            name: name.into(),
            kind,
            members,
            chosen: Mutex::new(0),
        })
    }
}

impl Outbound for TestOutbound {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn udp(&self) -> bool {
        true
    }

    fn connect<'a>(&'a self, _: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async { Ok(Stream::Closed) })
    }

    fn associate<'a>(&'a self, _: &'a Metadata) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn selected(&self, _: Option<&Metadata>) -> Option<Arc<dyn Outbound>> {
        self.members.get(*self.chosen.lock().unwrap()).cloned()
    }

    fn members(&self) -> Vec<Arc<str>> {
        self.members.iter().map(|m| Arc::clone(m.name())).collect()
    }

    fn select(&self, member: &str) -> bool {
        let found = self.members.iter().position(|m| &**m.name() == member);
        found
            .map(|index| *self.chosen.lock().unwrap() = index)
            .is_some()
    }
}

pub(super) struct TestControl {
    tunnel: Arc<Tunnel>,
    directory: PathBuf,
    config_file: PathBuf,
    calls: Mutex<Vec<String>>,
    /// Queries for `waits.example` are answered once this is dropped.
    dns_answers: Mutex<Option<mpsc::Sender<()>>>,
    dns_wait: Mutex<mpsc::Receiver<()>>,
    safe_paths: Vec<PathBuf>,
    stored: Mutex<HashMap<String, Vec<u8>>>,
    broker: Remote,
}

impl TestControl {
    pub(super) fn new(outbounds: Registry, directory: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            tunnel: Tunnel::new(
                Routing {
                    rules: Arc::new(Rules::compile(Vec::new())),
                    outbounds: Arc::new(outbounds),
                    mode: Mode::Rule,
                    added: None,
                    sniffer: Arc::default(),
                    find_process: true,
                    tally: Arc::default(),
                },
                Arc::new(NoNames),
                Arc::new(NoDevices),
            ),
            config_file: directory.join("config.yaml"),
            directory,
            calls: Mutex::default(),
            broker: Remote::default(),
            dns_answers: Mutex::new(Some(sender)),
            dns_wait: Mutex::new(receiver),
            safe_paths: Vec::new(),
            stored: Mutex::default(),
        }
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Control for TestControl {
    fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    fn logger(&self) -> &'static Logger {
        logger::install(Level::Silent)
    }

    fn memory(&self) -> u64 {
        4_000_000
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn config_file(&self) -> &Path {
        &self.config_file
    }

    fn general(&self) -> General {
        General {
            mixed_port: 7890,
            bind_address: "*".into(),
            lan_allowed_ips: vec!["10.0.0.1/8".parse().unwrap()],
            ..General::default()
        }
    }

    fn inbounds(&self) -> Arc<crate::inbound::options::Options> {
        Arc::new(crate::inbound::options::Options {
            mixed_port: 7890,
            ..Default::default()
        })
    }

    fn look_at_proxies(&self, look: super::Look) -> Result<(), Cause> {
        look(&[]);
        Ok(())
    }

    fn change(&self, _: Change) -> Result<(), ChangeError> {
        Err(ChangeError::NoUsers)
    }

    fn patch(&self, patch: Patch) -> Result<(), Cause> {
        self.note(format!("{patch:?}"));
        Ok(())
    }

    fn reload(&self, source: ReloadSource, force: bool) -> Result<(), Cause> {
        if source == ReloadSource::Payload("bad".to_owned()) {
            return Err("config.yaml:1:1: bad".into());
        }
        self.note(format!("{source:?} {force}"));
        Ok(())
    }

    fn select(&self, group: &Arc<dyn Outbound>, member: &str) -> bool {
        group.select(member)
    }

    fn unpin(&self, group: &Arc<dyn Outbound>) -> bool {
        group.unpin()
    }

    fn dns_message(&self, message: Vec<u8>) -> Option<BoxFuture<'static, Option<Vec<u8>>>> {
        let answer = (message != b"off").then(|| message.iter().rev().copied().collect());
        Some(Box::pin(std::future::ready(answer)))
    }

    fn dns_query(&self, name: &str, kind: u16) -> Result<DnsAnswer, DnsQueryError> {
        if name == "fails.example" {
            return Err(DnsQueryError::Failed("no upstream answers".into()));
        }
        if name == "waits.example" {
            assert!(self.dns_wait.lock().unwrap().recv().is_err());
        }
        Ok(DnsAnswer {
            recursion_available: true,
            answer: vec![DnsRecord {
                name: name.into(),
                kind,
                ttl: 60,
                data: "192.0.2.1".into(),
            }],
            ..DnsAnswer::default()
        })
    }

    fn flush_fake_ip(&self) -> Result<(), Cause> {
        self.note("flush fake-ip".to_owned());
        Ok(())
    }

    fn flush_dns(&self) {
        self.note("flush dns".to_owned());
    }

    fn refresh_nodes(&self, provider: &Arc<ProxyProvider>) -> Result<(), Cause> {
        self.note(format!("refresh {}", provider.name()));
        Ok(())
    }

    fn safe_paths(&self) -> &[PathBuf] {
        &self.safe_paths
    }

    fn update_geo(&self) -> Result<(), Cause> {
        self.note("update geo".to_owned());
        Ok(())
    }

    fn restart(&self) {
        self.note("restart".to_owned());
    }

    fn collect(&self) {
        self.note("collect".to_owned());
    }

    fn broker(&self) -> &Remote {
        &self.broker
    }

    fn is_debugged(&self) -> bool {
        true
    }

    fn stored(&self, key: &str) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.stored.lock().unwrap().get(key).cloned())
    }

    fn store(&self, key: &str, value: &[u8]) -> Result<(), Cause> {
        let mut stored = self.stored.lock().unwrap();
        stored.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn forget_stored(&self, key: &str) -> Result<(), Cause> {
        self.stored.lock().unwrap().remove(key);
        Ok(())
    }
}

fn outbounds() -> Registry {
    let mut registry = Registry::default();
    let direct = TestOutbound::shared("DIRECT", Kind::Direct, Vec::new());
    let pass = TestOutbound::shared("PASS", Kind::Pass, Vec::new());
    let node = TestOutbound::shared("\u{1f1ed}\u{1f1f0} a/b", Kind::Shadowsocks, Vec::new());
    let members = vec![Arc::clone(&direct), Arc::clone(&node)];
    let group = TestOutbound::shared("Proxy", Kind::Selector, members.clone());
    let global = TestOutbound::shared("GLOBAL", Kind::Selector, members);
    for outbound in [direct, pass, node, group, global] {
        assert!(registry.insert(outbound));
    }
    registry
}

/// A gate with its control, and a directory that goes with it.
struct Rig {
    gate: Gate,
    control: Arc<TestControl>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.control.directory);
    }
}

impl Rig {
    fn new(options: Options) -> Self {
        Self::over(outbounds(), options)
    }

    fn over(outbounds: Registry, options: Options) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("headgate-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        std::fs::create_dir(&directory).unwrap();
        let safe = directory.join("../").join(format!("{name}-safe"));
        let mut control = TestControl::new(outbounds, directory);
        control.safe_paths = vec![safe];
        let control = Arc::new(control);
        let options = Options {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..options
        };
        let gate = Gate::start(&options, Arc::clone(&control) as Arc<dyn Control>).unwrap();
        Self { gate, control }
    }

    fn address(&self) -> SocketAddr {
        self.gate.address().unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Everything that comes back for `bytes` on a connection that the gate must end.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is what a refused client may see.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Status and body of one request.
    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.exchange(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (status(head), body.to_owned())
    }

    async fn get(&self, target: &str) -> Value {
        let (status, body) = self.ask("GET", target, "").await;
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn check(&self, method: &str, target: &str, body: &str, want: (u16, &str)) {
        let (status, body) = self.ask(method, target, body).await;
        assert_eq!((status, &*body), want, "{method} {target}");
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let test = async {
        tokio::time::timeout(Duration::from_secs(30), test)
            .await
            .unwrap()
    };
    runtime.block_on(test);
}

fn error(message: &str) -> String {
    format!("{{\"message\":\"{message}\"}}\n")
}

fn open_flow(rig: &Rig) -> Arc<crate::tunnel::connections::Connection> {
    let mut metadata = Metadata::new(
        Network::Tcp,
        InboundType::TProxy,
        &"DEFAULT-TPROXY".into(),
        "192.168.1.5:40000".parse().unwrap(),
        Endpoint::parse("example.org:443").unwrap(),
    );
    metadata.inbound_address = "[::ffff:192.168.1.1]:7893".parse().unwrap();
    let connections = rig.control.tunnel.connections();
    let rule = Some(("DomainSuffix", "example.org".into()));
    let chain = vec!["node".into(), "Proxy".into()];
    connections.open(metadata, chain, rule, Duration::new(1_795_305_599, 5))
}

fn with_secret() -> Options {
    Options {
        secret: "s3cret".into(),
        allow_origins: vec!["http://board.example".into()],
        ..Options::default()
    }
}
