//! The resolver, the server and its drivers against name servers of our own on the loopback.

mod hostile;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::fake_ip::FakeIp;
use super::hosts::Hosts;
use super::listener::{serve_tcp, serve_udp};
use super::mapping::{Mapping, ReverseMapping};
use super::message::build::{self, Extras, Transport};
use super::message::record::Answer;
use super::message::{NAME_BYTES_MAX, Query, Question, rcode, types};
use super::options::{
    EnhancedMode, FakeIpFilter, HostsValue, Options, Protocol, Server as NameServer, Upstream, Via,
};
use super::resolver::{Manner, Resolver};
use super::server::{Judgement, Parts, Policy, Server};
use super::upstream::Failure;
use super::upstream::egress::{Outbounds, Sockets};
use crate::metadata::{Endpoint, Metadata};
use crate::outbound::{BoxFuture, Datagrams, IpVersion, Kind, Outbound, Purpose, Resolve, Stream};
use crate::platform::answering_udp::AnsweringUdp;
use crate::platform::clock;
use crate::platform::socket::Egress;

/// What a name server of ours sends on a query: any number of datagrams.
type Behaviour = fn(&Query<'_>, Transport) -> Vec<Vec<u8>>;

struct Upstreams {
    list: Vec<Upstream>,
    asked: Arc<AtomicUsize>,
}

async fn name_servers(behaviours: &[Behaviour]) -> Upstreams {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut list = Vec::new();
    for behaviour in behaviours {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let port = tcp.local_addr().unwrap().port();
        list.push(Upstream::Server(NameServer::new(
            Protocol::Udp,
            "127.0.0.1",
            port,
        )));
        let (behaviour, counter) = (*behaviour, Arc::clone(&asked));
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::Relaxed);
                for reply in behaviour(&Query::parse(&buffer[..length]).unwrap(), Transport::Udp) {
                    udp.send_to(&reply, client).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                for reply in behaviour(
                    &Query::parse(&read_frame(&mut stream).await).unwrap(),
                    Transport::Tcp,
                ) {
                    write_frame(&mut stream, &reply).await;
                }
            }
        });
    }
    Upstreams { list, asked }
}

async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

async fn write_frame(stream: &mut TcpStream, message: &[u8]) {
    stream
        .write_u16(message.len().try_into().unwrap())
        .await
        .unwrap();
    stream.write_all(message).await.unwrap();
}

/// An answer with these addresses of the type asked for.
fn with(query: &Query<'_>, addresses: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    build::start(query, rcode::NOERROR, &mut out);
    for address in addresses {
        let address: IpAddr = address.parse().unwrap();
        if address.is_ipv4() == (query.question.qtype == types::A) {
            build::push_address(&mut out, None, address, 300);
        }
    }
    build::finish(query, Transport::Tcp, &mut out);
    out
}

fn code(query: &Query<'_>, code: u8) -> Vec<u8> {
    let mut out = Vec::new();
    build::start(query, code, &mut out);
    out
}

const GOOD: Behaviour = |query, _| vec![with(query, &["192.0.2.1", "2001:db8::1"])];
const EMPTY: Behaviour = |query, _| vec![with(query, &[])];
const REFUSING: Behaviour = |query, _| vec![code(query, rcode::REFUSED)];
const SILENT: Behaviour = |_, _| Vec::new();

struct NoProxies;

impl Outbounds for NoProxies {
    fn named(&self, _: &str) -> Option<Arc<dyn Outbound>> {
        None
    }

    fn by_rules(&self, _: &Metadata) -> Option<Arc<dyn Outbound>> {
        None
    }
}

fn sockets() -> Arc<Sockets> {
    Arc::new(Sockets {
        egress: Egress::default(),
        outbounds: Arc::new(NoProxies),
    })
}

fn options(nameserver: &[Upstream]) -> Options {
    Options {
        enable: true,
        ipv6: true,
        nameserver: nameserver.to_vec(),
        ..Options::default()
    }
}

fn resolver(servers: &Upstreams) -> Arc<Resolver> {
    Resolver::new(&options(&servers.list), None, sockets()).unwrap()
}

async fn ask(resolver: &Resolver, name: &str, qtype: u16) -> Result<Vec<IpAddr>, Failure> {
    let question = Question::new(name, qtype).unwrap();
    let answer = resolver.query(&question, Manner::default()).await?;
    let addresses = Answer::parse(&answer).unwrap().addresses();
    Ok(addresses.into_iter().map(|(address, _)| address).collect())
}

async fn first(behaviours: &[Behaviour]) -> Result<Vec<IpAddr>, Failure> {
    ask(
        &resolver(&name_servers(behaviours).await),
        "a.example",
        types::A,
    )
    .await
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

#[tokio::test]
async fn the_first_usable_answer_wins() {
    assert_eq!(
        first(&[SILENT, REFUSING, GOOD]).await,
        Ok(ips(&["192.0.2.1"]))
    );
    assert_eq!(first(&[EMPTY, GOOD]).await, Ok(ips(&["192.0.2.1"])));
    assert_eq!(first(&[EMPTY, SILENT]).await, Ok(vec![]));
    assert_eq!(first(&[REFUSING]).await, Err(Failure::Code(rcode::REFUSED)));
}

#[tokio::test]
async fn answers_to_something_else_are_passed_over() {
    let liar: Behaviour = |query, _| {
        let good = with(query, &["192.0.2.1"]);
        let (mut id, mut name, mut itself) = (good.clone(), good.clone(), good.clone());
        (id[0], name[13], itself[2]) = (!id[0], b'z', 1);
        vec![vec![], vec![0; 5], id, name, itself, good]
    };
    assert_eq!(first(&[liar]).await, Ok(ips(&["192.0.2.1"])));
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let long: Behaviour = |query, transport| {
        let mut out = with(query, &["192.0.2.1"; 120]);
        if transport == Transport::Udp {
            out.truncate(100);
            out[2] |= 0x02;
        }
        vec![out]
    };
    assert_eq!(first(&[long]).await.unwrap().len(), 120);
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let lossy: Behaviour = |query, transport| match SEEN.fetch_add(1, Ordering::Relaxed) {
        0 => Vec::new(),
        _ => GOOD(query, transport),
    };
    assert_eq!(first(&[lossy]).await, Ok(ips(&["192.0.2.1"])));
    assert_eq!(SEEN.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn identical_questions_are_asked_once_and_kept() {
    let servers = name_servers(&[GOOD]).await;
    let resolver = resolver(&servers);
    let all = (0..50).map(|_| ask(&resolver, "a.example", types::A));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer, Ok(ips(&["192.0.2.1"])));
    }
    ask(&resolver, "A.example.", types::A).await.unwrap();
    assert_eq!(servers.asked.load(Ordering::Relaxed), 1);
    resolver.flush();
    ask(&resolver, "a.example", types::A).await.unwrap();
    assert_eq!(servers.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_expired_answer_is_given_with_one_second_and_asked_for_anew() {
    let servers = name_servers(&[GOOD]).await;
    let resolver = resolver(&servers);
    ask(&resolver, "a.example", types::A).await.unwrap();
    let question = Question::new("a.example", types::A).unwrap();
    let later = clock::now() + Duration::from_secs(301);
    for _ in 0..3 {
        let mut out = Vec::new();
        assert!(resolver.query_cache(&question, Manner::default(), later, &mut out));
        assert_eq!(Answer::parse(&out).unwrap().addresses()[0].1, 1);
    }
    while servers.asked.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn failures_are_not_kept() {
    static WORKS: AtomicUsize = AtomicUsize::new(0);
    let late: Behaviour = |query, transport| match WORKS.load(Ordering::Relaxed) {
        0 => REFUSING(query, transport),
        _ => GOOD(query, transport),
    };
    let resolver = resolver(&name_servers(&[late]).await);
    assert!(ask(&resolver, "a.example", types::A).await.is_err());
    WORKS.store(1, Ordering::Relaxed);
    assert!(ask(&resolver, "a.example", types::A).await.is_ok());
}

#[tokio::test]
async fn names_resolve_by_hosts_then_upstream_in_the_order_wanted() {
    let servers = name_servers(&[GOOD]).await;
    let table = [(
        "box.lan".into(),
        HostsValue::Addresses(ips(&["fd00::1", "192.0.2.9"])),
    )];
    let hosts = Arc::new(Hosts::new(&table, None).unwrap());
    let resolver = Resolver::new(&options(&servers.list), Some(hosts), sockets()).unwrap();
    for (name, version, want) in [
        ("192.0.2.7", IpVersion::Dual, &["192.0.2.7"][..]),
        ("box.lan", IpVersion::Dual, &["192.0.2.9", "fd00::1"]),
        ("box.lan", IpVersion::V6Only, &["fd00::1"]),
        ("a.example", IpVersion::Dual, &["192.0.2.1", "2001:db8::1"]),
        (
            "a.example",
            IpVersion::PreferV6,
            &["2001:db8::1", "192.0.2.1"],
        ),
        ("a.example", IpVersion::V4Only, &["192.0.2.1"]),
    ] {
        let found = resolver
            .resolve(name, version, Purpose::Rule)
            .await
            .unwrap();
        assert_eq!(found, ips(want), "{name} {version:?}");
    }
    let by_proxy = resolver
        .resolve("box.lan", IpVersion::V4Only, Purpose::ProxyServer)
        .await;
    assert_eq!(by_proxy.unwrap(), ips(&["192.0.2.9"]));
}

#[tokio::test]
async fn a_name_without_addresses_is_not_found() {
    let resolver = resolver(&name_servers(&[EMPTY]).await);
    let found = resolver
        .resolve("a.example", IpVersion::Dual, Purpose::Direct)
        .await;
    assert_eq!(found.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_server_given_by_name_is_found_by_default_nameserver() {
    let bootstrap = name_servers(&[|query, _| {
        let mut buffer = [0; NAME_BYTES_MAX];
        assert_eq!(query.question.name.text(&mut buffer), Some("dns.example"));
        vec![with(query, &["127.0.0.1"])]
    }])
    .await;
    let mut servers = name_servers(&[GOOD]).await;
    if let Upstream::Server(server) = &mut servers.list[0] {
        server.host = "dns.example".into();
    }
    let mut options = options(&servers.list);
    options.default_nameserver = bootstrap.list;
    let resolver = Resolver::new(&options, None, sockets()).unwrap();
    assert_eq!(
        ask(&resolver, "a.example", types::A).await,
        Ok(ips(&["192.0.2.1"]))
    );
}

#[tokio::test]
async fn an_interface_that_is_not_there_fails_at_once() {
    let mut servers = name_servers(&[GOOD]).await;
    if let Upstream::Server(server) = &mut servers.list[0] {
        server.via = Via::Named("no-such-if0".into());
    }
    let failure = ask(&resolver(&servers), "a.example", types::A)
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Io(_)), "{failure:?}");
}

/// A proxy that brings everything to one name server and counts what it brings.
struct Detour {
    name: Arc<str>,
    to: SocketAddr,
    used: AtomicUsize,
}

impl Outbound for Detour {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Socks5
    }

    fn udp(&self) -> bool {
        true
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        assert_eq!(metadata.destination().to_string(), "dns.example:53");
        self.used.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Stream::Tcp(TcpStream::connect(self.to).await?)) })
    }

    fn associate<'a>(&'a self, _: &'a Metadata) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(self.to).await?;
            self.used.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Detoured(socket)) as Box<dyn Datagrams>)
        })
    }
}

struct Detoured(UdpSocket);

impl Datagrams for Detoured {
    fn send_to<'a>(&'a self, payload: &'a [u8], to: &'a Endpoint) -> BoxFuture<'a, io::Result<()>> {
        assert_eq!(to.to_string(), "dns.example:53");
        Box::pin(async move { self.0.send(payload).await.map(|_| ()) })
    }

    fn try_send_to(&self, payload: &[u8], _: &Endpoint) -> io::Result<()> {
        self.0.try_send(payload).map(|_| ())
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        self.0.poll_recv_from(cx, buffer)
    }
}

struct OneProxy(Arc<Detour>);

impl Outbounds for OneProxy {
    fn named(&self, name: &str) -> Option<Arc<dyn Outbound>> {
        (name == "proxy").then(|| Arc::clone(&self.0) as _)
    }

    fn by_rules(&self, _: &Metadata) -> Option<Arc<dyn Outbound>> {
        Some(Arc::clone(&self.0) as _)
    }
}

#[tokio::test]
async fn a_server_behind_a_proxy_is_asked_through_it_by_its_name() {
    let long: Behaviour = |query, transport| {
        let mut out = with(query, &["192.0.2.1"]);
        if transport == Transport::Udp {
            out[2] |= 0x02;
        }
        vec![out]
    };
    let servers = name_servers(&[long]).await;
    let Upstream::Server(server) = &servers.list[0] else {
        unreachable!("name_servers makes servers");
    };
    let detour = Arc::new(Detour {
        name: "proxy".into(),
        to: SocketAddr::from(([127, 0, 0, 1], server.port)),
        used: AtomicUsize::new(0),
    });
    let sockets = Arc::new(Sockets {
        egress: Egress::default(),
        outbounds: Arc::new(OneProxy(Arc::clone(&detour))),
    });
    for (protocol, used) in [(Protocol::Udp, 2), (Protocol::Tcp, 3)] {
        let behind = NameServer {
            via: Via::Named("proxy".into()),
            ..NameServer::new(protocol, "dns.example", 53)
        };
        let options = options(&[Upstream::Server(behind)]);
        let resolver = Resolver::new(&options, None, Arc::clone(&sockets) as _).unwrap();
        assert_eq!(
            ask(&resolver, "a.example", types::A).await,
            Ok(ips(&["192.0.2.1"]))
        );
        assert_eq!(detour.used.load(Ordering::Relaxed), used);
    }
}

#[tokio::test]
async fn a_constant_upstream_answers_with_its_code() {
    let resolver = Resolver::new(
        &options(&[Upstream::Rcode(rcode::NXDOMAIN)]),
        None,
        sockets(),
    )
    .unwrap();
    let question = Question::new("a.example", types::TXT).unwrap();
    let answer = resolver.query(&question, Manner::default()).await.unwrap();
    assert_eq!(Answer::parse(&answer).unwrap().rcode(), rcode::NXDOMAIN);
}

/// `*.direct.example` is direct; notes what it is told.
#[derive(Default)]
struct Noted(Mutex<Vec<Told>>);

type Told = (String, Vec<IpAddr>, u32, bool);

impl Policy for Noted {
    fn judge(&self, name: &str) -> Judgement {
        Judgement {
            direct: name.ends_with(".direct.example"),
            generation: 0,
        }
    }

    fn answered(&self, name: &str, _: IpAddr, addresses: &[IpAddr], ttl: u32, judged: Judgement) {
        let told = (name.into(), addresses.to_vec(), ttl, judged.direct);
        self.0.lock().unwrap().push(told);
    }
}

async fn server(mode: EnhancedMode, behaviour: Behaviour) -> (Arc<Server>, Arc<Noted>) {
    let servers = name_servers(&[behaviour]).await;
    let mut options = options(&servers.list);
    options.mode = mode;
    options.fake_ip_filter = FakeIpFilter::Blacklist(vec!["+.real.example".into()]);
    let table = [
        ("box.lan".into(), HostsValue::Addresses(ips(&["192.0.2.9"]))),
        ("alias.lan".into(), HostsValue::Alias("box.lan".into())),
        (
            "out.lan".into(),
            HostsValue::Alias("www.real.example".into()),
        ),
        ("fake.lan".into(), HostsValue::Alias("www.example".into())),
    ];
    let hosts = Arc::new(Hosts::new(&table, None).unwrap());
    let noted = Arc::new(Noted::default());
    let parts = Parts {
        resolver: Resolver::new(&options, Some(Arc::clone(&hosts)), sockets()).unwrap(),
        hosts: Some(hosts),
        fake_ip: Some(Arc::new(FakeIp::new(options.fake_ip_range, None).unwrap())),
        mapping: Arc::new(ReverseMapping::default()),
        policy: Some(Arc::clone(&noted) as Arc<dyn Policy>),
        watch: None,
    };
    (Arc::new(Server::new(&options, parts).unwrap()), noted)
}

fn query(name: &str, qtype: u16) -> Vec<u8> {
    build::upstream_query(
        &Question::new(name, qtype).unwrap(),
        0x1234,
        Extras::default(),
    )
}

async fn exchange(server: &Server, name: &str, qtype: u16) -> (u8, Vec<IpAddr>, u32) {
    let client = "192.0.2.200:999".parse().unwrap();
    let reply = server
        .answer(&query(name, qtype), client, Transport::Udp)
        .await
        .unwrap();
    let answer = Answer::parse(&reply).unwrap();
    assert_eq!((answer.id(), answer.opt_at().is_some()), (0x1234, true));
    let found = answer.addresses();
    let ttl = found.first().map_or(0, |(_, ttl)| *ttl);
    (
        answer.rcode(),
        found.into_iter().map(|(address, _)| address).collect(),
        ttl,
    )
}

#[tokio::test]
async fn fake_names_have_one_fake_address_and_nothing_else() {
    let (server, noted) = server(EnhancedMode::FakeIp, GOOD).await;
    assert_eq!(
        exchange(&server, "www.example", types::A).await,
        (0, ips(&["198.18.0.4"]), 1)
    );
    assert_eq!(
        exchange(&server, "WWW.Example", types::A).await.1,
        ips(&["198.18.0.4"])
    );
    for qtype in [types::AAAA, types::HTTPS, types::SVCB] {
        assert_eq!(
            exchange(&server, "www.example", qtype).await,
            (0, vec![], 0)
        );
    }
    assert_eq!(
        exchange(&server, "www.example", types::ANY).await.0,
        rcode::NOTIMP
    );
    assert_eq!(
        server.map("198.18.0.4".parse().unwrap()),
        Mapping::Fake("www.example".into())
    );
    assert_eq!(
        server.map("198.18.0.5".parse().unwrap()),
        Mapping::FakeUnknown
    );
    assert!(noted.0.lock().unwrap().is_empty());
    server.flush_fake_ip().unwrap();
    assert_eq!(
        server.map("198.18.0.4".parse().unwrap()),
        Mapping::FakeUnknown
    );
}

#[tokio::test]
async fn filtered_and_direct_names_have_real_addresses_and_are_remembered() {
    let (server, noted) = server(EnhancedMode::FakeIp, GOOD).await;
    let real: IpAddr = "192.0.2.1".parse().unwrap();
    for (name, direct) in [("www.real.example", false), ("www.direct.example", true)] {
        for _ in ["upstream", "cache"] {
            assert_eq!(
                exchange(&server, name, types::A).await,
                (0, vec![real], 300)
            );
            assert_eq!(server.map(real), Mapping::Real(name.into()));
            let told = noted.0.lock().unwrap().pop();
            assert_eq!(told, Some((name.into(), vec![real], 300, direct)));
        }
    }
    assert_eq!(
        exchange(&server, "www.real.example", types::AAAA).await.1,
        ips(&["2001:db8::1"])
    );
    server.flush_cache();
    assert_eq!(server.map(real), Mapping::Nothing);
}

#[tokio::test]
async fn hosts_come_first_and_aliases_lead_on() {
    let (server, _) = server(EnhancedMode::FakeIp, GOOD).await;
    assert_eq!(
        exchange(&server, "box.lan", types::A).await,
        (0, ips(&["192.0.2.9"]), 10)
    );
    assert_eq!(
        exchange(&server, "box.lan", types::AAAA).await,
        (0, vec![], 0)
    );
    assert_eq!(
        exchange(&server, "alias.lan", types::A).await.1,
        ips(&["192.0.2.9"])
    );
    assert_eq!(
        exchange(&server, "fake.lan", types::A).await.1,
        ips(&["198.18.0.4"])
    );
    for _ in ["upstream", "cache"] {
        assert_eq!(
            exchange(&server, "out.lan", types::A).await,
            (0, ips(&["192.0.2.1"]), 10)
        );
    }
    let (_, local, _) = exchange(&server, "localhost", types::A).await;
    assert_eq!(local, ips(&["127.0.0.1"]));
}

#[tokio::test]
async fn without_fake_addresses_everything_is_real() {
    let (redir_host, _) = server(EnhancedMode::RedirHost, GOOD).await;
    assert_eq!(
        exchange(&redir_host, "www.example", types::A).await.1,
        ips(&["192.0.2.1"])
    );
    let mapped = redir_host.map("192.0.2.1".parse().unwrap());
    assert_eq!(mapped, Mapping::Real("www.example".into()));
    let (normal, _) = server(EnhancedMode::Normal, GOOD).await;
    assert_eq!(
        exchange(&normal, "www.example", types::A).await.1,
        ips(&["192.0.2.1"])
    );
    assert_eq!(normal.map("192.0.2.1".parse().unwrap()), Mapping::Nothing);
}

#[tokio::test]
async fn a_failing_upstream_is_a_servfail_with_the_question() {
    let (server, _) = server(EnhancedMode::Normal, REFUSING).await;
    assert_eq!(
        exchange(&server, "www.example", types::A).await.0,
        rcode::SERVFAIL
    );
}

#[tokio::test]
async fn datagrams_are_answered_from_both_paths() {
    let (server, _) = server(EnhancedMode::FakeIp, GOOD).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let place = socket.local_addr().unwrap();
    let socket = AnsweringUdp::new(socket, place).unwrap();
    let _driver = tokio::spawn(serve_udp(server, Arc::new(socket)));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(place).await.unwrap();
    client.send(b"scrap").await.unwrap();
    for (name, want) in [
        ("www.example", "198.18.0.4"),
        ("a.real.example", "192.0.2.1"),
    ] {
        client.send(&query(name, types::A)).await.unwrap();
        let mut buffer = [0; 512];
        let length = client.recv(&mut buffer).await.unwrap();
        let answer = Answer::parse(&buffer[..length]).unwrap();
        assert_eq!(answer.addresses()[0].0.to_string(), want);
    }
}

#[tokio::test]
async fn a_stream_of_questions_is_answered_and_half_closed() {
    let (server, _) = server(EnhancedMode::FakeIp, GOOD).await;
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let place: SocketAddr = listener.local_addr().unwrap();
    let _driver = tokio::spawn(serve_tcp(server, listener));
    let mut client = TcpStream::connect(place).await.unwrap();
    let mut frames = Vec::new();
    for i in 0..40 {
        let query = query(&format!("{i}.real.example"), types::A);
        frames.extend(u16::try_from(query.len()).unwrap().to_be_bytes());
        frames.extend(query);
    }
    client.write_all(&frames).await.unwrap();
    client.shutdown().await.unwrap();
    for _ in 0..40 {
        let reply = read_frame(&mut client).await;
        assert_eq!(Answer::parse(&reply).unwrap().addresses().len(), 1);
    }
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);

    let mut client = TcpStream::connect(place).await.unwrap();
    client.write_all(&[0xff; 3]).await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
}
