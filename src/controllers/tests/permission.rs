//! Who may ask: secret, host, origin.

use super::*;

#[test]
fn without_the_secret_every_route_is_401() {
    run(async {
        let rig = Rig::new(with_secret());
        for route in crate::controllers::clash::ROUTES {
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
