//! The API from outside: real HTTP/2 to a server on 127.0.0.1, a small tunnel behind it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use super::framing::{MESSAGE_BYTES_MAX, Unframed, framed};
use super::options::Options;
use super::protobuf::{Fields, Message};
use super::server::Server;
use super::{SERVICES, Service};
use crate::controllers::Control;
use crate::controllers::tests::{TestControl, run};
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::dial::Environment;
use crate::outbound::inward::{Entrance, Inward};
use crate::outbound::registry::Registry;
use crate::outbound::{Outbound, Stream};
use crate::tunnel::connections::Connection;
use crate::tunnel::names::NoNames;
use crate::tunnel::policy::{Level, Policy};
use crate::tunnel::quota::Limits;

fn registry() -> Registry {
    let environment = Environment {
        resolver: Arc::new(NoNames),
        own_mark: 0,
        routing_mark: 0,
        interface: None,
        ipv6: true,
        reach: Arc::default(),
    };
    Registry::build(&[], &[], &[], &environment, &HashMap::new(), None).unwrap()
}

struct Rig {
    server: Server,
    control: Arc<TestControl>,
    inward: Inward,
}

/// A call's messages, its code, and the message that goes with it.
type Outcome = (Vec<Vec<u8>>, u16, String);

impl Rig {
    fn new(services: &[Service], secret: &str) -> Self {
        let control = Arc::new(TestControl::new(registry(), PathBuf::new()));
        control.tunnel().connections().keep_ledger(true);
        let options = Options {
            listen: Some(([127, 0, 0, 1], 0).into()),
            tag: Some("api".into()),
            services: services.to_vec(),
            secret: secret.into(),
            persist: false,
            quotas: Limits::default(),
            rates: Limits::default(),
            policy: None,
        };
        let entrance: Arc<Entrance> = Arc::default();
        let server =
            Server::start(&options, Arc::<TestControl>::clone(&control), &entrance).unwrap();
        let inward = Inward::new("api", &entrance);
        Self {
            server,
            control,
            inward,
        }
    }

    fn whole() -> Self {
        let services: Vec<_> = Service::ALL.iter().map(|&(_, service)| service).collect();
        Self::new(&services, "")
    }

    async fn client(&self) -> SendRequest<Bytes> {
        let stream = TcpStream::connect(self.server.address().unwrap())
            .await
            .unwrap();
        let (client, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client.ready().await.unwrap()
    }

    async fn call(&self, path: &str, request: &Message) -> Outcome {
        let body = framed(request.as_bytes());
        exchange(&mut self.client().await, grpc(path), &body).await
    }

    #[track_caller]
    fn flow(&self, source: &str, user: &str) -> Arc<Connection> {
        let mut metadata = Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &"DEFAULT-MIXED".into(),
            source.parse().unwrap(),
            Endpoint::parse("example.org:443").unwrap(),
        );
        metadata.inbound_user = Some(user.into());
        let connections = self.control.tunnel().connections();
        connections.open(
            metadata,
            vec!["DIRECT".into()],
            None,
            Duration::from_secs(9),
        )
    }
}

fn grpc(path: &str) -> http::request::Builder {
    Request::post(format!("http://headgate{path}")).header("content-type", "application/grpc")
}

async fn exchange(
    client: &mut SendRequest<Bytes>,
    request: http::request::Builder,
    body: &[u8],
) -> Outcome {
    let (response, mut stream) = client
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    stream
        .send_data(Bytes::copy_from_slice(body), true)
        .unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let (head, mut body) = response.into_parts();
    let (mut unframed, mut messages) = (Unframed::default(), Vec::new());
    while let Some(bytes) = body.data().await {
        let bytes = bytes.unwrap();
        body.flow_control().release_capacity(bytes.len()).unwrap();
        unframed.push(&bytes);
        while let Some(message) = unframed.take().unwrap() {
            messages.push(message);
        }
    }
    let trailers = body.trailers().await.unwrap().unwrap_or(head.headers);
    let code = text(&trailers, "grpc-status").parse().unwrap();
    (messages, code, text(&trailers, "grpc-message"))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).map(|value| value.to_str().unwrap());
    value.unwrap_or_default().to_owned()
}

fn request(build: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::default();
    build(&mut message);
    message
}

/// Name and value of each `Stat` in field 1, sorted.
fn stats(response: &[u8]) -> Vec<(String, u64)> {
    let mut stats: Vec<_> = Fields::new(response)
        .map(|stat| {
            let (mut name, mut value) = (String::new(), 0);
            for field in stat.unwrap().message().unwrap() {
                let field = field.unwrap();
                match field.number {
                    1 => name = field.text().unwrap().into(),
                    _ => value = field.integer().unwrap(),
                }
            }
            (name, value)
        })
        .collect();
    stats.sort();
    stats
}

const STATS: &str = "/xray.app.stats.command.StatsService";

#[test]
fn a_call_is_answered_under_both_names() {
    run(async {
        let rig = Rig::whole();
        for package in ["xray", "v2ray.core"] {
            let path = format!("/{package}.app.log.command.LoggerService/RestartLogger");
            let done = rig.call(&path, &Message::default()).await;
            assert_eq!(done, (vec![Vec::new()], 0, String::new()));
        }
    });
}

#[test]
fn what_is_not_served_is_named_as_grpc_go_does() {
    run(async {
        let rig = Rig::new(&[Service::Stats], "");
        for (path, message) in [
            (
                "/xray.app.log.command.LoggerService/RestartLogger",
                "unknown service xray.app.log.command.LoggerService",
            ),
            (
                "/xray.app.stats.command.StatsService/Nothing",
                "unknown method Nothing for service xray.app.stats.command.StatsService",
            ),
            ("/x", "malformed method name: \"/x\""),
        ] {
            let done = rig.call(path, &Message::default()).await;
            assert_eq!(done, (Vec::new(), 12, message.to_owned()));
        }
    });
}

#[test]
fn malformed_and_oversized_requests_end_with_a_status() {
    run(async {
        let rig = Rig::whole();
        let mut client = rig.client().await;
        let path = format!("{STATS}/GetStats");
        let length = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes();
        for (body, code) in [
            (framed(&[0x0b]), 13),
            (framed(&[])[..4].to_vec(), 13),
            (Vec::new(), 13),
            ([&[0][..], &length].concat(), 8),
            ([&[1][..], &[0; 4]].concat(), 12),
        ] {
            let (messages, got, _) = exchange(&mut client, grpc(&path), &body).await;
            assert_eq!((messages.len(), got), (0, code), "{body:?}");
        }
    });
}

#[test]
fn nobody_is_served_without_the_secret() {
    run(async {
        let rig = Rig::new(&[Service::Stats], "s3cret");
        let path = format!("{STATS}/GetSysStats");
        let mut client = rig.client().await;
        for (header, code) in [
            ("Bearer s3cret", 0),
            ("Bearer s3cre", 16),
            ("Basic s3cret", 16),
            ("", 16),
        ] {
            let request = grpc(&path).header("authorization", header);
            let done = exchange(&mut client, request, &framed(&[])).await;
            assert_eq!(done.1, code, "{header}");
        }
    });
}

#[test]
fn other_content_is_refused_by_http() {
    run(async {
        let rig = Rig::whole();
        let mut client = rig.client().await;
        let path = format!("http://headgate{STATS}/GetSysStats");
        let request = Request::post(path).header("content-type", "application/json");
        let (response, _) = client
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), 415);
    });
}

#[test]
fn counters_are_read_and_reset_by_name() {
    run(async {
        let rig = Rig::whole();
        let flow = rig.flow("192.168.1.5:40000", "ann@home");
        let connections = rig.control.tunnel().connections();
        connections.count_upload(&flow, 5);
        connections.count_download(&flow, 7);
        let name = "user>>>ann@home>>>traffic>>>uplink";
        let reset = request(|message| {
            message.text(1, name).integer(2, 1);
        });
        for want in [5, 0] {
            let (messages, code, _) = rig.call(&format!("{STATS}/GetStats"), &reset).await;
            assert_eq!(
                (stats(&messages[0]), code),
                (vec![(name.to_owned(), want)], 0)
            );
        }
        let (messages, _, _) = rig
            .call(
                &format!("{STATS}/QueryStats"),
                &request(|message| {
                    message.text(1, "DEFAULT-MIXED>>>traffic");
                }),
            )
            .await;
        let want = [("downlink", 7), ("uplink", 5)];
        let want = want.map(|(way, n)| (format!("inbound>>>DEFAULT-MIXED>>>traffic>>>{way}"), n));
        assert_eq!(stats(&messages[0]), want);
        let missing = request(|message| {
            message.text(1, "user>>>bob>>>traffic>>>uplink");
        });
        for method in ["GetStats", "GetStatsOnline", "GetStatsOnlineIpList"] {
            let (_, code, message) = rig.call(&format!("{STATS}/{method}"), &missing).await;
            assert_eq!(code, 5);
            assert!(message.ends_with("user>>>bob>>>traffic>>>uplink not found."));
        }
    });
}

#[test]
fn patterns_of_sing_box_are_taken_too() {
    run(async {
        let rig = Rig::whole();
        let ask = async |patterns: &[&str], regular: u64| {
            let query = request(|message| {
                for pattern in patterns {
                    message.text(3, pattern);
                }
                message.integer(4, regular);
            });
            let (messages, code, _) = rig.call(&format!("{STATS}/QueryStats"), &query).await;
            (messages.first().map(|message| stats(message).len()), code)
        };
        assert_eq!(ask(&["DIRECT>>>", "REJECT>>>"], 0).await, (Some(4), 0));
        assert_eq!(
            ask(&["^outbound>>>DIRECT>>>.*link$"], 1).await,
            (Some(2), 0)
        );
        assert_eq!(ask(&["("], 1).await, (None, 2));
    });
}

#[test]
fn who_is_online_is_who_has_a_flow() {
    run(async {
        let rig = Rig::whole();
        let _local = rig.flow("127.0.0.1:1", "ann");
        let _flows = [
            rig.flow("192.168.1.5:1", "ann"),
            rig.flow("192.168.1.5:2", "ann"),
            rig.flow("[2001:db8::1]:3", "ann"),
        ];
        let gone = rig.flow("192.168.1.6:1", "bob");
        rig.control.tunnel().connections().remove(gone.id);
        let ask = async |method: &str, message: &Message| {
            let (messages, code, _) = rig.call(&format!("{STATS}/{method}"), message).await;
            assert_eq!(code, 0);
            messages.into_iter().next().unwrap()
        };
        let of = |user: &str| {
            request(|message| {
                message.text(1, &format!("user>>>{user}>>>online"));
            })
        };
        let count = |message: &[u8]| stats(message).into_iter().next().unwrap().1;
        assert_eq!(count(&ask("GetStatsOnline", &of("ann")).await), 2);
        assert_eq!(count(&ask("GetStatsOnline", &of("bob")).await), 0);
        let list = ask("GetStatsOnlineIpList", &of("ann")).await;
        let text = String::from_utf8_lossy(&list);
        assert!(text.contains("192.168.1.5") && text.contains("[2001:db8::1]"));
        let all = ask("GetAllOnlineUsers", &Message::default()).await;
        assert_eq!(
            all,
            request(|message| {
                message.text(1, "user>>>ann>>>online");
            })
            .as_bytes()
        );
        let with_traffic = request(|message| {
            message.integer(1, 1);
        });
        let users = ask("GetUsersStats", &with_traffic).await;
        assert_eq!(Fields::new(&users).count(), 1);
    });
}

#[test]
fn it_is_reached_by_its_outbound_from_this_machine_or_with_the_secret() {
    run(async {
        for (source, secret, served) in [
            ("127.0.0.1:9", "", true),
            ("192.168.1.5:9", "", false),
            ("192.168.1.5:9", "s3cret", true),
        ] {
            let rig = Rig::new(&[Service::Stats], secret);
            let to = Endpoint::parse("192.0.2.1:1").unwrap();
            let from = source.parse().unwrap();
            let flow = Metadata::new(Network::Tcp, InboundType::Tunnel, &"door".into(), from, to);
            let Ok(Stream::Boxed(stream)) = rig.inward.connect(&flow).await else {
                panic!("no way in");
            };
            let Ok((client, connection)) = client::handshake(stream).await else {
                assert!(!served, "{source}");
                continue;
            };
            let connection = tokio::spawn(connection);
            let Ok(mut client) = client.ready().await else {
                assert!(!served, "{source}");
                continue;
            };
            let request = grpc(&format!("{STATS}/GetSysStats"));
            let request = request.header("authorization", format!("Bearer {secret}"));
            if served {
                let done = exchange(&mut client, request, &framed(&[])).await;
                assert_eq!(done.1, 0, "{source}");
            } else {
                let _over = connection.await.unwrap();
            }
        }
    });
}

#[test]
fn a_policy_says_which_counters_there_are() {
    run(async {
        let rig = Rig::whole();
        let _flows = [
            rig.flow("192.168.1.5:1", "ann"),
            rig.flow("192.168.1.6:1", "bob"),
        ];
        let shown = Level {
            counts: [false, true],
            online: true,
            ..Level::default()
        };
        let ask = async |policy: Policy| {
            let connections = rig.control.tunnel().connections();
            connections.follow_policy(Some(policy));
            let any = Message::default();
            let (counters, _, _) = rig.call(&format!("{STATS}/QueryStats"), &any).await;
            let (online, _, _) = rig.call(&format!("{STATS}/GetAllOnlineUsers"), &any).await;
            let name = request(|message| {
                message.text(1, "user>>>ann>>>online");
            });
            let (_, code, _) = rig.call(&format!("{STATS}/GetStatsOnline"), &name).await;
            let names = stats(&counters[0]).into_iter().map(|(name, _)| name);
            let online = Fields::new(&online[0]).count();
            (names.collect::<Vec<_>>().join(" "), online, code)
        };
        assert_eq!(ask(Policy::default()).await, (String::new(), 0, 5));
        let users = Policy {
            levels: [(0, shown)].into(),
            ..Policy::default()
        };
        let want = "user>>>ann>>>traffic>>>downlink user>>>bob>>>traffic>>>downlink";
        assert_eq!(ask(users).await, (want.to_owned(), 2, 0));
        let listeners = Policy {
            levels: [(1, shown)].into(),
            inbounds: [true, false],
            ..Policy::default()
        };
        let want = "inbound>>>DEFAULT-MIXED>>>traffic>>>uplink";
        assert_eq!(ask(listeners).await, (want.to_owned(), 0, 5));
    });
}

#[test]
fn reflection_lists_what_is_on_and_describes_it() {
    run(async {
        let rig = Rig::new(&[Service::Stats, Service::Reflection], "");
        let list = request(|message| {
            message.item(7, b"*");
        });
        let unknown = request(|message| {
            message.text(4, "xray.Nothing");
        });
        let body = [framed(list.as_bytes()), framed(unknown.as_bytes())].concat();
        let path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
        let (messages, code, _) = exchange(&mut rig.client().await, grpc(path), &body).await;
        assert_eq!((messages.len(), code), (2, 0));
        let named = String::from_utf8_lossy(&messages[0]).into_owned();
        for served in SERVICES {
            let on = matches!(served.service, Service::Stats | Service::Reflection);
            assert_eq!(named.contains(served.name), on, "{}", served.name);
        }
        let failure = Fields::new(&messages[1]).last().unwrap().unwrap();
        assert_eq!(failure.number, 7);
    });
}
