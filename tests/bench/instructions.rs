//! The hot paths, one at a time, for a counter of instructions: `instructions CASE TIMES`.
//!
//! Counts say what times cannot on a shared machine: whether a change made a path longer. Only what
//! [`counted_turns`] calls counts; `tests/bench/instructions` has callgrind do that, and compares it with
//! `instructions.baseline`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use headgate::config::Config;
use headgate::dns::fake_ip::FakeIp;
use headgate::dns::mapping::ReverseMapping;
use headgate::dns::message::build::{Extras, Transport, upstream_query};
use headgate::dns::message::{Question, types};
use headgate::dns::options::EnhancedMode;
use headgate::dns::resolver::Resolver;
use headgate::dns::server::{Now, Parts, Server};
use headgate::dns::upstream::egress::{Outbounds, Sockets};
use headgate::metadata::{Endpoint, InboundType, Metadata, Network};
use headgate::mqtt::broker::{Admitted, Broker};
use headgate::mqtt::codec::{Framed, Packet, PropertyWriter, Qos, Version, decode, frame};
use headgate::mqtt::hook::Publication;
use headgate::mqtt::options::Options;
use headgate::mqtt::topic::tree::{Subscriber, Tree};
use headgate::outbound::Outbound;
use headgate::outbound::scratch::Scratch;
use headgate::outbound::shadowsocks::method::Secret;
use headgate::outbound::shadowsocks::tcp::{Request, Sealer};
use headgate::platform::socket::Egress;
use headgate::rules::{Found, Rules};
use headgate::sql::{Input, Program, Template};
use tokio::runtime::Builder;

mod message;
use message::{Message, Still};

/// Different inputs of each case, which take turns.
const INPUTS: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, case, times] = arguments.as_slice() else {
        println!("{}", CASES.map(|(name, _)| name).join(" "));
        return;
    };
    let times = times.parse().expect("a number");
    let (_, run) = CASES.iter().find(|(name, _)| name == case).expect("a case");
    run(times);
}

type Case = (&'static str, fn(usize));

const CASES: [Case; 7] = [
    ("rule-decision", decide),
    ("dns-fake-answer", fake_answer),
    ("dns-cached-answer", cached_answer),
    ("mqtt-routing", route),
    ("mqtt-fan-out", fan_out),
    ("sql-rule", select),
    ("aead-chunk", seal),
];

/// What is counted, by its name.
#[inline(never)]
fn counted_turns(times: usize, once: &mut dyn FnMut(usize)) {
    (0..times).for_each(once);
}

/// A rule of 1,200 for a name or an address.
fn decide(times: usize) {
    let mut text =
        "proxies: [{name: P, type: socks5, server: 192.0.2.1, port: 1}]\nrules:\n".to_owned();
    for number in 0..1000 {
        text.push_str(&format!("  - DOMAIN-SUFFIX,n{number}.example,P\n"));
    }
    for number in 0..200 {
        text.push_str(&format!("  - IP-CIDR,10.{number}.0.0/16,P,no-resolve\n"));
    }
    text.push_str("  - MATCH,DIRECT\n");
    let rules = Rules::compile(Config::parse(&text).unwrap().0.rules);
    let flows: Vec<Metadata> = (0..INPUTS)
        .map(|number| {
            let to = match number % 3 {
                0 => format!("www.n{}.example:443", number * 3),
                1 => format!("elsewhere{number}.test:443"),
                _ => format!("10.{number}.1.1:443"),
            };
            let source = "192.168.1.2:40000".parse().unwrap();
            Metadata::new(
                Network::Tcp,
                InboundType::TProxy,
                &"in".into(),
                source,
                Endpoint::parse(&to).unwrap(),
            )
        })
        .collect();
    counted_turns(times, &mut |turn| {
        let found = black_box(&rules).find(black_box(&flows[turn % INPUTS]), 0, false);
        assert!(matches!(black_box(found), Found::Rule(_)));
    });
}

struct NoOutbounds;

impl Outbounds for NoOutbounds {
    fn named(&self, _: &str) -> Option<Arc<dyn Outbound>> {
        None
    }

    fn by_rules(&self, _: &Metadata) -> Option<Arc<dyn Outbound>> {
        None
    }
}

fn server(text: &str) -> Server {
    let options = Config::parse(text).unwrap().0.dns;
    let sockets = Sockets {
        egress: Egress::default(),
        outbounds: Arc::new(NoOutbounds),
    };
    let fakes = FakeIp::new(options.fake_ip_range, options.fake_ip_range6).unwrap();
    let parts = Parts {
        resolver: Resolver::new(&options, None, Arc::new(sockets)).unwrap(),
        hosts: None,
        fake_ip: (options.mode == EnhancedMode::FakeIp).then(|| Arc::new(fakes)),
        mapping: Arc::new(ReverseMapping::default()),
        policy: None,
        watch: None,
    };
    Server::new(&options, parts).unwrap()
}

/// Names that have their fake addresses already.
fn fake_answer(times: usize) {
    let server = server(
        "dns: {enable: true, enhanced-mode: fake-ip, nameserver: [192.0.2.53], fake-ip-filter: ['+.lan', 'time.*.com']}\n",
    );
    let mut out = Vec::new();
    for query in queries() {
        server.answer_now(&query, CLIENT, Transport::Udp, &mut out);
    }
    ask(&server, times);
}

/// Names that a server has answered.
fn cached_answer(times: usize) {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = upstream.local_addr().unwrap();
    let server = server(&format!(
        "dns: {{enable: true, enhanced-mode: redir-host, nameserver: ['{place}']}}\n"
    ));
    let answering = std::thread::spawn(move || {
        let mut query = [0; 512];
        for _ in 0..INPUTS {
            let (length, client) = upstream.recv_from(&mut query).unwrap();
            let name = query[12..length].iter().position(|byte| *byte == 0);
            let mut answer = query[..12 + name.unwrap() + 5].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x07");
            upstream.send_to(&answer, client).unwrap();
        }
    });
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for query in queries() {
        let answer = runtime.block_on(server.answer_later(&query, CLIENT, Transport::Udp));
        assert!(answer.unwrap().len() > query.len());
    }
    answering.join().unwrap();
    ask(&server, times);
}

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2)), 5353);

fn queries() -> impl Iterator<Item = Vec<u8>> {
    (0..INPUTS).map(|number| {
        let question = Question::new(&format!("host{number}.example.org"), types::A).unwrap();
        upstream_query(&question, number as u16, Extras::default())
    })
}

fn ask(server: &Server, times: usize) {
    let queries: Vec<Vec<u8>> = queries().collect();
    let mut out = Vec::new();
    counted_turns(times, &mut |turn| {
        out.clear();
        let query = black_box(&queries[turn % INPUTS]);
        let now = server.answer_now(query, CLIENT, Transport::Udp, &mut out);
        assert_eq!(now, Now::Replied);
        black_box(&out);
    });
}

/// A topic among 1,000 subscriptions, some of them with wildcards.
fn route(times: usize) {
    let mut tree = Tree::default();
    for number in 0..1000_u32 {
        let filter = match number % 10 {
            0 => format!("home/+/sensor{number}"),
            1 => format!("home/room{}/#", number % 50),
            _ => format!("home/room{}/sensor{number}", number % 50),
        };
        tree.insert(
            &filter,
            None,
            Subscriber {
                session: number,
                ..Subscriber::default()
            },
        );
    }
    let topics: Vec<String> = (0..INPUTS)
        .map(|number| format!("home/room{}/sensor{number}", number % 50))
        .collect();
    let mut found = 0;
    counted_turns(times, &mut |turn| {
        tree.matching(black_box(&topics[turn % INPUTS]), &mut |_| found += 1);
    });
    assert!(found > 0);
}

/// A message to 100 clients, written for each.
fn fan_out(times: usize) {
    let options = Options {
        acl_default: true,
        ..Options::default()
    };
    let mut broker = Broker::new(&options);
    let tell = |broker: &mut Broker, id: Option<u32>, bytes: &[u8]| {
        let Ok(Framed::Whole(whole)) = frame(bytes, 1024) else {
            unreachable!("a whole packet");
        };
        match decode(whole, Version::V4).unwrap() {
            Packet::Connect(connect) => {
                let who = Admitted {
                    username: None,
                    superuser: false,
                    address: SocketAddr::from(([192, 0, 2, 1], 1)),
                    listener: 0,
                };
                broker.connect(0, 1, &connect, who).ok()
            }
            packet => {
                broker.receive(0, id.unwrap(), &packet);
                id
            }
        }
    };
    let clients: Vec<u32> = (0..100_u8)
        .map(|number| {
            let mut connect = b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02".to_vec();
            connect.extend(format!("{number:02}").bytes());
            let id = tell(&mut broker, None, &connect);
            tell(&mut broker, id, b"\x82\x08\0\x01\0\x03t/#\0").unwrap()
        })
        .collect();
    let message = Publication {
        topic: "t/42/x".into(),
        payload: br#"{"temp":35,"hum":20.5}"#.as_slice().into(),
        properties: PropertyWriter::default(),
        qos: Qos::AtMostOnce,
        retain: false,
        client_id: "bench".into(),
    };
    let (mut out, mut written) = (Vec::new(), 0);
    counted_turns(times, &mut |turn| {
        broker.publish_for(turn as u64, black_box(&message));
        broker.effects().clear();
        for client in &clients {
            broker.transmit(turn as u64, *client, &mut out, 4096);
            written += out.len();
            out.clear();
        }
    });
    assert!(written > 100 * 30 * times);
}

/// A chunk of 16 KB of a Shadowsocks stream.
fn seal(times: usize) {
    let secret = Secret::new("aes-128-gcm", "password").unwrap();
    let request = Request {
        salt: &[9; 32][..secret.salt_length()],
        target: &[1, 192, 0, 2, 3, 0, 80],
        unix_time: 0,
        padding: 1,
        payload: b"",
    };
    let payload = vec![7; 0x3fff];
    let mut out = Scratch::large();
    let (mut sealer, _) = Sealer::begin(&secret, &request, &mut out).unwrap();
    counted_turns(times, &mut |_| {
        out.consume(out.data().len());
        let sealed = sealer.seal(black_box(&payload), &mut out).unwrap();
        assert_eq!(sealed, payload.len());
    });
}

/// A field of JSON, a comparison, a template.
fn select(times: usize) {
    let program =
        Program::parse(r#"SELECT payload.temp AS t, clientid FROM "t/#" WHERE t > 30"#).unwrap();
    let template = Template::new("{\"v\":${t}}");
    let still = Still::default();
    counted_turns(times, &mut |_| {
        let input = Input {
            event: black_box(&Message(r#"{"temp":35,"hum":20.5}"#)),
            surroundings: &still,
            rule: "rule:1",
        };
        for row in program.run(input).unwrap() {
            black_box(template.render(&row, 1024).unwrap());
        }
    });
}
