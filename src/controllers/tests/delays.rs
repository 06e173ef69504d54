//! Delay tests over real sockets: a small web server on 127.0.0.1 that DIRECT reaches.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::outbound::dial::Environment;
use crate::outbound::options::{
    DialOptions, GroupKind, GroupOptions, Protocol, ProxyOptions, TestOptions,
};
use crate::outbound::{IpVersion, Purpose, Resolve};

struct NoNames;

impl Resolve for NoNames {
    fn resolve<'a>(
        &'a self,
        _: &'a str,
        _: IpVersion,
        _: Purpose,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
    }
}

/// Answers each request with the status that its path names, after an interim one; `/never` gets none.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HEAD /"), "{head}");
        let status = head.split(['/', ' ']).nth(2).unwrap();
        if status == "never" {
            std::future::pending::<()>().await;
        }
        let answer = format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 {status} x\r\nA: b\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// A rig whose nodes are two DIRECTs and a REJECT, in groups of every kind; the web server's address.
async fn rig() -> (Rig, String, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        let mut clients = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            clients.spawn(serve(stream));
        }
    });
    let proxy = |name: &str, protocol| ProxyOptions {
        mux: None,
        name: name.into(),
        protocol,
        udp: true,
        dial: DialOptions::default(),
    };
    let proxies = [
        proxy("a", Protocol::Direct),
        proxy("b", Protocol::Direct),
        proxy("dead", Protocol::Reject),
    ];
    let group = |name, kind| GroupOptions {
        proxies: vec!["dead".into(), "a".into(), "b".into()],
        test: TestOptions {
            url: format!("{base}/204").into(),
            ..TestOptions::default()
        },
        ..GroupOptions::new(name, kind)
    };
    let groups = [
        group("fast", GroupKind::UrlTest { tolerance: 0 }),
        group("first", GroupKind::Fallback),
        group("pick", GroupKind::Select),
    ];
    let environment = Environment {
        resolver: Arc::new(NoNames),
        own_mark: 0,
        routing_mark: 0,
        interface: None,
        ipv6: true,
        reach: Arc::default(),
    };
    let registry = Registry::build(&proxies, &[], &groups, &environment, &HashMap::new(), None);
    (
        Rig::over(registry.unwrap(), Options::default()),
        base,
        server,
    )
}

#[test]
fn a_delay_is_measured_and_remembered_by_url() {
    run(async {
        let (rig, base, _server) = rig().await;
        let query = |path: &str| format!("timeout=5000&url={base}/{path}");
        let answer = rig.get(&format!("/proxies/a/delay?{}", query("204"))).await;
        assert!(answer["delay"].as_u64().unwrap() >= 1);
        let unexpected = format!("/proxies/a/delay?{}&expected=200/204", query("302"));
        assert!(rig.get(&unexpected).await["delay"].as_u64().unwrap() >= 1);
        let shown = rig.get("/proxies/a").await;
        assert_eq!(shown["alive"], true);
        assert_eq!(shown["history"].as_array().unwrap().len(), 2);
        assert!(
            shown["history"][0]["time"]
                .as_str()
                .unwrap()
                .starts_with("20")
        );
        assert_eq!(shown["extra"][format!("{base}/204")]["alive"], true);
        let odd = &shown["extra"][format!("{base}/302")];
        assert_eq!(
            (&odd["alive"], &odd["history"][0]["delay"]),
            (&json!(false), &json!(0))
        );
    });
}

#[test]
fn what_cannot_be_measured_has_a_status_of_its_own() {
    run(async {
        let (rig, base, _server) = rig().await;
        let failed = error("An error occurred in the delay test");
        let late = error("Timeout");
        let invalid = error("Body invalid");
        for (query, want) in [
            (format!("timeout=50&url={base}/never"), (504, &*late)),
            (format!("timeout=-1&url={base}/204"), (504, &*late)),
            (format!("timeout=5000&url={base}/x"), (503, &*failed)),
            ("timeout=5000&url=ftp://a/".to_owned(), (503, &*failed)),
            ("timeout=5000".to_owned(), (503, &*failed)),
            (format!("url={base}/204"), (400, &*invalid)),
            (format!("timeout=32768&url={base}/204"), (400, &*invalid)),
            (
                format!("timeout=5000&expected=2xx&url={base}/204"),
                (400, &*invalid),
            ),
        ] {
            rig.check("GET", &format!("/proxies/a/delay?{query}"), "", want)
                .await;
        }
        let rejected = format!("/proxies/dead/delay?timeout=5000&url={base}/204");
        rig.check("GET", &rejected, "", (503, &failed)).await;
        assert_eq!(rig.get("/proxies/dead").await["alive"], false);
        let missing = (404, &*error("Resource not found"));
        rig.check("GET", "/proxies/none/delay?timeout=1", "", missing)
            .await;
        rig.check("GET", "/group/a/delay?timeout=1", "", missing)
            .await;
    });
}

#[test]
fn a_group_is_tested_whole_and_chooses_by_it() {
    run(async {
        let (rig, base, _server) = rig().await;
        assert_eq!(rig.get("/proxies/first").await["now"], "dead");
        let tested = rig
            .get(&format!("/group/first/delay?timeout=5000&url={base}/204"))
            .await;
        let names: Vec<_> = tested.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["a", "b"]);
        let shown = rig.get("/group/first").await;
        assert_eq!(
            (&shown["now"], &shown["type"]),
            (&json!("a"), &json!("Fallback"))
        );
        assert_eq!(shown["expectedStatus"], "*");
        let none = error("get delay: all proxies timeout");
        let never = format!("/group/pick/delay?timeout=50&url={base}/never");
        rig.check("GET", &never, "", (504, &none)).await;
        // The URL test has its own URL, whatever is asked for.
        let tested = rig
            .get("/group/fast/delay?timeout=5000&url=http://0.0.0.0/")
            .await;
        assert_eq!(tested.as_object().unwrap().len(), 2);
        assert_ne!(rig.get("/proxies/fast").await["now"], "dead");
    });
}

#[test]
fn a_member_is_pinned_and_unpinned() {
    run(async {
        let (rig, _base, _server) = rig().await;
        rig.check("GET", "/providers/proxies/first/healthcheck", "", (204, ""))
            .await;
        assert_eq!(rig.get("/proxies/first").await["now"], "a");
        for unpin in ["/proxies/first", "/group/first"] {
            rig.check("PUT", "/proxies/first", "{\"name\":\"b\"}", (204, ""))
                .await;
            let shown = rig.get("/proxies/first").await;
            assert_eq!((&shown["now"], &shown["fixed"]), (&json!("b"), &json!("b")));
            rig.check("DELETE", unpin, "", (204, "")).await;
            let shown = rig.get("/proxies/first").await;
            assert_eq!((&shown["now"], &shown["fixed"]), (&json!("a"), &json!("")));
        }
        rig.check("PUT", "/proxies/first", "{\"name\":\"b\"}", (204, ""))
            .await;
        let refused = (400, &*error("Body invalid"));
        rig.check("GET", "/group/first/delay", "", refused).await;
        assert_eq!(
            rig.get("/proxies/first").await["fixed"],
            "",
            "even when refused"
        );
        rig.check("DELETE", "/proxies/pick", "", refused).await;
    });
}

#[test]
fn the_files_own_proxies_are_providers_too() {
    run(async {
        let (rig, base, _server) = rig().await;
        let provider = rig.get("/providers/proxies/fast").await;
        assert_eq!(provider["testUrl"], format!("{base}/204"));
        assert_eq!(provider["proxies"].as_array().unwrap().len(), 3);
        rig.check("PUT", "/providers/proxies/fast", "", (204, ""))
            .await;
        rig.check(
            "GET",
            "/providers/proxies/default/healthcheck",
            "",
            (204, ""),
        )
        .await;
        assert_eq!(rig.get("/providers/proxies/fast/a").await["name"], "a");
        let one = format!("/providers/proxies/fast/a/healthcheck?timeout=5000&url={base}/204");
        assert!(rig.get(&one).await["delay"].as_u64().unwrap() >= 1);
        let missing = (404, &*error("Resource not found"));
        for path in ["a", "a/healthcheck", "fast/DIRECT", "none/a/healthcheck"] {
            rig.check("GET", &format!("/providers/proxies/{path}"), "", missing)
                .await;
        }
    });
}
