//! Who may ask: secret, host, origin.

use super::*;
use crate::controllers::http::route::Access;
use crate::controllers::options::{Scope, Secret, Tls};
use crate::outbound::carrier::Carrier;
use crate::outbound::options::TlsOptions;
use crate::outbound::tls::TlsClient;

#[test]
fn without_the_secret_every_route_is_401() {
    run(async {
        let rig = Rig::new(with_secret());
        for route in crate::controllers::clash::DIALECT.routes {
            let target = route.pattern.replace("{}", "x");
            let answer = rig.ask(route.method.as_str(), &target, "").await;
            assert_eq!(answer, (401, error("Unauthorized")), "{target}");
        }
        assert!(rig.control.calls().is_empty());
        let answer = rig
            .exchange(
                b"GET /version HTTP/1.1\r\nHost: [::1]:9090\r\nAuthorization: Bearer s3cret\r\n\
                  Connection: close\r\nOrigin: http://board.example\r\n\r\n",
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Origin: http://board.example\r\n"));
    });
}

#[test]
fn foreign_hosts_are_refused_and_preflights_need_no_secret() {
    run(async {
        let rig = Rig::new(with_secret());
        let rebound = b"GET /version HTTP/1.1\r\nHost: evil.example:9090\r\n\
            Authorization: Bearer s3cret\r\nConnection: close\r\n\r\n";
        let answer = rig.exchange(rebound).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let preflight = b"OPTIONS /configs HTTP/1.1\r\nHost: router.lan\r\n\
            Origin: http://board.example\r\nAccess-Control-Request-Method: PATCH\r\n\
            Connection: close\r\n\r\n";
        let answer = rig.exchange(preflight).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("Access-Control-Allow-Methods: GET, POST, PUT, PATCH, DELETE"));
    });
}

#[test]
fn handshakes_without_token_or_from_other_sites_fail() {
    run(async {
        let rig = Rig::new(with_secret());
        let upgrade = |target: &str, fields: &str| {
            format!(
                "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
            )
        };
        let good = "/traffic?token=s3cret";
        for (request, want) in [
            (upgrade("/traffic", ""), 401),
            (upgrade("/traffic?token=wrong", ""), 401),
            (upgrade(good, "Origin: http://evil.example\r\n"), 403),
            (upgrade(good, "Origin: null\r\n"), 403),
            (upgrade(good, "").replace("127.0.0.1", "evil.example"), 403),
            (upgrade(good, "").replace("13", "12"), 400),
        ] {
            assert_eq!(
                status(&rig.exchange(request.as_bytes()).await),
                want,
                "{request}"
            );
        }
        let mut stream = rig.connect().await;
        let request = upgrade(good, "Origin: http://board.example\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 129];
        stream.read_exact(&mut head).await.unwrap();
        // The example of RFC 6455 section 1.3.
        let head = std::str::from_utf8(&head).unwrap();
        assert!(
            head.ends_with("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            "{head}"
        );
    });
}

#[test]
fn a_file_in_the_place_of_the_unix_socket_is_left_alone() {
    run(async {
        let rig = Rig::new(Options::default());
        let path = rig.control.directory.join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        let options = Options {
            unix: Some(path.clone()),
            ..Options::default()
        };
        let control = Arc::clone(&rig.control) as Arc<dyn Control>;
        assert!(Gate::start(&options, control).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
    });
}

#[test]
fn the_unix_socket_is_its_owners_and_needs_no_secret() {
    run(async {
        let rig = Rig::new(Options {
            unix: Some("run/api.sock".into()),
            ..with_secret()
        });
        let path = rig.control.directory.join("run/api.sock");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = b"GET /rules HTTP/1.1\r\nHost: anything.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn every_route_asks_for_a_scope_and_a_smaller_one_is_403() {
    run(async {
        let of = |scope: Scope, name: &str| Secret {
            name: name.into(),
            secret: name.into(),
            scope,
        };
        let secrets = Scope::NAMES.map(|(scope, name)| of(scope, name)).to_vec();
        let rig = Rig::new(Options {
            secrets,
            ..Options::default()
        });
        for route in crate::controllers::clash::DIALECT.routes {
            let (Access::Secret(needed) | Access::SecretOrPassword(needed)) = route.access else {
                panic!("{} is open", route.pattern);
            };
            let (method, target) = (route.method.as_str(), route.pattern.replace("{}", "x"));
            for (scope, secret) in Scope::NAMES.into_iter().filter(|(s, _)| *s < needed) {
                let request = format!(
                    "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                     Authorization: Bearer {secret}\r\n\r\n"
                );
                let answer = rig.exchange(request.as_bytes()).await;
                assert_eq!(status(&answer), 403, "{scope:?} {method} {target}");
            }
            // Whoever may look may look only.
            assert!(needed > Scope::Read || method == "GET", "{target}");
        }
        assert!(rig.control.calls().is_empty());
    });
}

#[test]
fn who_guesses_must_wait_and_nobody_else() {
    run(async {
        let rig = Rig::new(with_secret());
        let request = |secret: &str| {
            format!(
                "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Authorization: Bearer {secret}\r\n\r\n"
            )
        };
        let ask = async |secret| status(&rig.exchange(request(secret).as_bytes()).await);
        for _ in 0..9 {
            assert_eq!(ask("wrong").await, 401);
        }
        assert_eq!(ask("s3cret").await, 200, "and all is forgotten");
        for _ in 0..11 {
            assert_eq!(ask("wrong").await, 401);
        }
        let answer = rig.exchange(request("s3cret").as_bytes()).await;
        assert_eq!(status(&answer), 429);
        assert!(
            answer.ends_with(&error("wrong secrets: wait 1 s")),
            "{answer}"
        );
        let request = request("s3cret");
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = other.connect(rig.address()).await.unwrap();
        other.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.unwrap();
        assert_eq!(status(&answer), 200);
    });
}

#[test]
fn tls_serves_the_same_and_a_silent_handshake_ends() {
    run(async {
        let tls = |certificate: &str| Options {
            tls: Some(Tls {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                certificate: certificate.into(),
                private_key: include_str!("../../../tests/fixtures/tls/key.pem").into(),
            }),
            ..with_secret()
        };
        let certificate = include_str!("../../../tests/fixtures/tls/certificate.pem");
        let rig = Rig::new(tls(certificate));
        let address = rig.gate.tls_address().unwrap();
        let trusted = TlsOptions {
            skip_verify: true,
            ..TlsOptions::default()
        };
        let client = TlsClient::new(&trusted, "localhost").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = client.handshake(Carrier::Tcp(stream)).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\
            Connection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // The end of the connection need not be announced in TLS.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.ends_with("{\"hello\":\"mihomo\"}\n"), "{answer}");
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);

        let control = Arc::clone(&rig.control) as Arc<dyn Control>;
        let file = rig.control.directory.join("not.pem");
        std::fs::write(&file, "seeded-content").unwrap();
        let refused = Gate::start(&tls("not.pem"), control).err().unwrap();
        let text = refused.to_string();
        assert!(text.contains("no PEM certificate"), "{text}");
        assert!(!text.contains("seeded-content"));
    });
}
