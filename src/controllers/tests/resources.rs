//! Each resource: its shapes and statuses.

use super::*;

#[test]
fn statuses_and_bodies_are_those_of_mihomo() {
    run(async {
        let rig = Rig::new(Options::default());
        rig.check("GET", "/", "", (200, "{\"hello\":\"mihomo\"}\n"))
            .await;
        let version = concat!(
            "{\"meta\":true,\"version\":\"headgate ",
            env!("CARGO_PKG_VERSION")
        );
        rig.check("GET", "/version", "", (200, &format!("{version}\"}}\n")))
            .await;
        rig.check("GET", "/nowhere", "", (404, "404 page not found\n"))
            .await;
        rig.check("POST", "/version", "", (405, "")).await;
        rig.check("GET", "/version/", "", (404, "404 page not found\n"))
            .await;
        rig.check(
            "GET",
            "/proxies/none",
            "",
            (404, &error("Resource not found")),
        )
        .await;
        rig.check("PUT", "/configs", "", (400, &error("Body invalid")))
            .await;
        rig.check("GET", "/logs?level=warn", "", (400, &error("Body invalid")))
            .await;
        rig.check("GET", "/rules/", "", (200, "{\"rules\":[]}\n"))
            .await;
        rig.check("GET", "/providers/rules", "", (200, "{\"providers\":{}}\n"))
            .await;
        rig.check("POST", "/cache/fakeip/flush", "", (204, ""))
            .await;
        rig.check("POST", "/cache/dns/flush", "{}", (204, "")).await;
        assert_eq!(rig.control.calls(), ["flush fake-ip", "flush dns"]);
    });
}

#[test]
fn a_group_is_shown_and_switched() {
    run(async {
        let rig = Rig::new(Options::default());
        let proxies = rig.get("/proxies").await;
        let group = &proxies["proxies"]["Proxy"];
        assert_eq!(group["type"], "Selector");
        assert_eq!(group["now"], "DIRECT");
        assert_eq!(
            group["all"],
            serde_json::json!(["DIRECT", "\u{1f1ed}\u{1f1f0} a/b"])
        );
        let node = "/proxies/%F0%9F%87%AD%F0%9F%87%B0%20a%2Fb";
        let shown = rig.get(node).await;
        assert_eq!(shown["type"], "Shadowsocks");
        assert!(shown.get("all").is_none());
        let choice = "{\"Name\":\"\u{1f1ed}\u{1f1f0} a/b\"}";
        rig.check("PUT", "/proxies/Proxy", choice, (204, "")).await;
        assert_eq!(
            rig.get("/group/Proxy").await["now"],
            "\u{1f1ed}\u{1f1f0} a/b"
        );
        let unknown = error("Selector update error: proxy not exist");
        rig.check("PUT", "/proxies/Proxy", "{\"name\":\"x\"}", (400, &unknown))
            .await;
        rig.check(
            "PUT",
            "/proxies/Proxy",
            "{\"name\":1}",
            (400, &error("Body invalid")),
        )
        .await;
        rig.check(
            "PUT",
            node,
            "{\"name\":\"x\"}",
            (400, &error("Must be a Selector")),
        )
        .await;
        rig.check(
            "DELETE",
            "/proxies/Proxy",
            "",
            (400, &error("Body invalid")),
        )
        .await;
        rig.check(
            "GET",
            "/group/DIRECT",
            "",
            (404, &error("Resource not found")),
        )
        .await;
        assert_eq!(
            rig.get("/group").await["proxies"].as_array().unwrap().len(),
            2
        );
        let providers = rig.get("/providers/proxies").await;
        let default = providers["providers"]["default"]["proxies"]
            .as_array()
            .unwrap();
        let names: Vec<_> = default
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["DIRECT", "\u{1f1ed}\u{1f1f0} a/b", "Proxy"]);
        assert_eq!(providers["providers"]["Proxy"]["vehicleType"], "Compatible");
    });
}

#[test]
fn settings_are_shown_and_patched() {
    run(async {
        let rig = Rig::new(Options::default());
        let general = rig.get("/configs").await;
        assert_eq!(general["mixed-port"], 7890);
        assert_eq!(general["mode"], "rule");
        assert_eq!(
            general["lan-allowed-ips"],
            serde_json::json!(["10.0.0.1/8"])
        );
        let body = "{\"mode\":\"Global\",\"mixed-port\":0,\"bind-address\":\"[::1]\",\"dns\":{}}";
        rig.check("PATCH", "/configs", body, (204, "")).await;
        let patch = Patch {
            mode: Some(Mode::Global),
            mixed_port: Some(0),
            bind_address: Some(BindAddress::One("::1".parse().unwrap())),
            ..Patch::default()
        };
        assert_eq!(rig.control.calls(), [format!("{patch:?}")]);
        for bad in [
            "",
            "[]",
            "{",
            "{\"mode\":\"no\"}",
            "{\"log-level\":\"Info\"}",
            "{\"port\":-1}",
            "{\"ipv6\":\"yes\"}",
            "{\"lan-allowed-ips\":[\"10.0.0.0/33\"]}",
        ] {
            rig.check("PATCH", "/configs", bad, (400, &error("Body invalid")))
                .await;
        }
        assert!(rig.control.calls().is_empty());
    });
}

#[test]
fn a_reload_reads_nothing_outside_the_working_directory() {
    run(async {
        let rig = Rig::new(Options::default());
        let inside = rig.control.directory.join("other.yaml");
        std::fs::write(&inside, "mode: rule").unwrap();
        let outside = std::env::temp_dir().join(format!("{}.outside", std::process::id()));
        std::fs::write(&outside, "secret: x").unwrap();
        let link = rig.control.directory.join("link.yaml");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        let body = |path: &Path| serde_json::json!({"path": path, "payload": ""}).to_string();
        rig.check("PUT", "/configs?force=true", &body(&inside), (204, ""))
            .await;
        let real = inside.canonicalize().unwrap();
        let calls = rig.control.calls();
        assert_eq!(
            calls,
            [format!(
                "File {{ path: {real:?}, text: \"mode: rule\" }} true"
            )]
        );
        rig.check("PUT", "/configs", "{}", (204, "")).await;
        rig.check(
            "PUT",
            "/configs",
            &body(&rig.control.config_file),
            (204, ""),
        )
        .await;
        rig.check("PUT", "/configs", "{\"payload\":\"mode: rule\"}", (204, ""))
            .await;
        assert_eq!(
            rig.control.calls(),
            [
                "Running false",
                "Running false",
                "Payload(\"mode: rule\") false"
            ]
        );
        let bad = "{\"path\":\"\",\"payload\":\"bad\"}";
        rig.check(
            "PUT",
            "/configs",
            bad,
            (400, &error("config.yaml:1:1: bad")),
        )
        .await;
        let relative = error("path is not a absolute path");
        rig.check(
            "PUT",
            "/configs",
            "{\"path\":\"other.yaml\"}",
            (400, &relative),
        )
        .await;
        for path in [
            link.clone(),
            outside.clone(),
            rig.control.directory.join("../../etc/passwd"),
            rig.control.directory.join("missing.yaml"),
            rig.control.directory.clone(),
            PathBuf::from("/proc/self/environ"),
            PathBuf::from("/dev/zero"),
            PathBuf::from("/etc/\0passwd"),
        ] {
            let (status, answer) = rig.ask("PUT", "/configs", &body(&path)).await;
            assert_eq!(status, 400, "{path:?}");
            assert!(!answer.contains("secret: x"));
        }
        assert!(rig.control.calls().is_empty());
        std::fs::remove_file(outside).unwrap();
    });
}

#[test]
fn connections_are_listed_and_closed() {
    run(async {
        let rig = Rig::new(Options::default());
        let empty = rig.get("/connections").await;
        assert_eq!(empty["connections"], serde_json::json!([]));
        let flow = open_flow(&rig);
        rig.control.tunnel.connections().count_upload(&flow, 7);
        let list = rig.get("/connections/").await;
        assert_eq!(
            (&list["uploadTotal"], &list["memory"]),
            (&7.into(), &4_000_000.into())
        );
        let shown = &list["connections"][0];
        assert_eq!(shown["chains"], serde_json::json!(["node", "Proxy"]));
        assert_eq!(shown["rulePayload"], "example.org");
        let metadata = &shown["metadata"];
        assert_eq!(metadata["sourcePort"], "40000");
        assert_eq!(metadata["destinationIP"], "");
        assert_eq!(metadata["inboundIP"], "192.168.1.1");
        assert_eq!(metadata["type"], "TProxy");
        assert!(metadata["sourceGeoIP"].is_null());
        let noop = futures_util::task::noop_waker();
        let id = shown["id"].as_str().unwrap();
        let other = format!("/connections/{}", id.replace("000001", "000002"));
        rig.check("DELETE", &other, "", (204, "")).await;
        assert!(!flow.poll_closed(&noop));
        rig.check("DELETE", &format!("/connections/{id}"), "", (204, ""))
            .await;
        assert!(flow.poll_closed(&noop));
        let second = open_flow(&rig);
        rig.check("DELETE", "/connections", "", (204, "")).await;
        assert!(second.poll_closed(&noop));
    });
}

#[test]
fn dns_queries_are_asked_and_shown() {
    run(async {
        let rig = Rig::new(Options::default());
        let answer = rig.get("/dns/query?name=a.example&type=AAAA").await;
        assert_eq!(answer["Status"], 0);
        assert_eq!(
            answer["Question"],
            serde_json::json!([{"Name": "a.example.", "Qtype": 28, "Qclass": 1}])
        );
        assert_eq!(answer["Answer"][0]["name"], "a.example.");
        assert!(answer.get("Authority").is_none());
        let invalid = error("invalid query type");
        rig.check("GET", "/dns/query?name=a&type=aaaa", "", (400, &invalid))
            .await;
        let failed = error("no upstream answers");
        rig.check("GET", "/dns/query?name=fails.example", "", (500, &failed))
            .await;
    });
}
