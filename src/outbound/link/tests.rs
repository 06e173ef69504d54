//! Links as their programs write them.

use crate::encoding::BASE64;
use proptest::prelude::*;

use super::*;

const ID: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";

fn name_and_server(link: &str) -> (String, String) {
    let proxy = parse(link).unwrap();
    let server = match &proxy.protocol {
        Protocol::Shadowsocks(o) => &o.server,
        Protocol::Trojan(o) => &o.server,
        Protocol::Vless(o) => &o.server,
        Protocol::Vmess(o) => &o.server,
        Protocol::Socks5(o) => &o.server,
        Protocol::Http(o) => &o.server,
        Protocol::Direct | Protocol::Reject => panic!("{link}"),
    };
    (
        proxy.name.to_string(),
        format!("{} {}", server.host, server.port),
    )
}

fn ss(link: &str) -> (String, String) {
    match parse(link).unwrap().protocol {
        Protocol::Shadowsocks(o) => (o.cipher.to_string(), o.password.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The first two are SIP002's examples, the third is the older form of its own page.
#[test]
fn shadowsocks_links_come_in_three_forms() {
    let first = "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1";
    assert_eq!(ss(first), ("aes-128-gcm".into(), "test".into()));
    assert_eq!(
        name_and_server(first),
        ("Example1".into(), "192.168.100.1 8888".into())
    );
    let key = "YctPZ6U7xPPcU%2Bgp3u%2B0tx%2FtRizJN9K8y%2BuKlW2qjlI%3D";
    let second = format!("ss://2022-blake3-aes-256-gcm:{key}@192.168.100.1:8888/#Example3");
    assert_eq!(
        ss(&second).1,
        "YctPZ6U7xPPcU+gp3u+0tx/tRizJN9K8y+uKlW2qjlI="
    );
    let old = format!(
        "ss://{}#x%20y",
        BASE64.encode(b"aes-256-gcm:pa/s@s@[2001:db8::1]:1")
    );
    assert_eq!(ss(&old), ("aes-256-gcm".into(), "pa/s@s".into()));
    assert_eq!(
        name_and_server(&old),
        ("x y".into(), "2001:db8::1 1".into())
    );
    assert!(parse("ss://cmM0LW1kNTpwYXNz@h.test:1").is_err());
}

#[test]
fn shadowsocks_links_may_have_a_plugin() {
    let with = |plugin: &str| {
        let link = format!("ss://YWVzLTEyOC1nY206dGVzdA@h.test:1/?plugin={plugin}");
        match parse(&link)?.protocol {
            Protocol::Shadowsocks(options) => Ok(options.plugin),
            other => panic!("{other:?}"),
        }
    };
    let (disguise, host) = (Disguise::Tls, "a.b".into());
    let obfs = PluginOptions::Obfs { disguise, host };
    let link = "obfs-local%3Bobfs%3Dtls%3Bobfs-host%3Da.b";
    assert_eq!(with(link), Ok(Some(obfs)));
    let link = "v2ray-plugin%3Btls%3Bhost%3Da.b%3Bpath%3D%2Fp%3Bmux%3D0";
    let Ok(Some(PluginOptions::V2ray {
        tls,
        websocket,
        mux,
    })) = with(link)
    else {
        panic!("{link}");
    };
    assert_eq!((tls.is_some(), &*websocket.path, mux), (true, "/p", false));
    let refused = LinkError::NotImplemented("its plugin");
    assert_eq!(with("kcptun"), Err(refused));
}

#[test]
fn trojan_links_are_tls_whatever_they_say() {
    let link = "trojan://p%40ss@h.test:8443?sni=front.test&allowInsecure=1&alpn=h2%2Chttp%2F1.1&type=ws&path=%2Fway%3Fed%3D512&host=cdn.test#T";
    let Protocol::Trojan(options) = parse(link).unwrap().protocol else {
        panic!("{link}");
    };
    assert_eq!(&*options.password, "p@ss");
    assert_eq!(options.tls.server_name.as_deref(), Some("front.test"));
    assert!(options.tls.skip_verify);
    assert_eq!(options.tls.alpn, ["h2".into(), "http/1.1".into()]);
    let NetworkOptions::WebSocket(socket) = options.network else {
        panic!("{link}");
    };
    assert_eq!((&*socket.path, socket.early_data_max), ("/way", 512));
    assert_eq!(socket.headers, [("Host".into(), "cdn.test".into())]);
    assert_eq!(name_and_server("trojan://p@h.test").1, "h.test 443");
}

#[test]
fn vless_links_have_tls_only_when_they_ask() {
    let plain = format!("vless://{ID}@[2001:db8::1]:80?encryption=none&type=tcp#V");
    let Protocol::Vless(options) = parse(&plain).unwrap().protocol else {
        panic!("{plain}");
    };
    assert!(options.tls.is_none() && options.network == NetworkOptions::Tcp);
    let tls = format!("vless://{ID}@h.test:443?security=tls&sni=a.test&type=httpupgrade&path=x");
    let Protocol::Vless(options) = parse(&tls).unwrap().protocol else {
        panic!("{tls}");
    };
    assert_eq!(options.tls.unwrap().server_name.as_deref(), Some("a.test"));
    assert!(
        matches!(options.network, NetworkOptions::WebSocket(o) if o.upgrade_only && &*o.path == "/x")
    );
}

#[test]
fn links_name_a_service_or_a_path_of_http_2() {
    let network = |rest: &str| match parse(&format!("vless://{ID}@h.test:443?{rest}")) {
        Ok(ProxyOptions {
            protocol: Protocol::Vless(options),
            ..
        }) => Ok(options.network),
        Ok(_) => panic!("{rest}"),
        Err(error) => Err(error),
    };
    let grpc = network("type=grpc&serviceName=way&mode=gun");
    assert_eq!(grpc, Ok(NetworkOptions::Grpc("way".into())));
    let http_2 = network("type=http&path=way&host=a.test,b.test");
    let want = NetworkOptions::Http2 {
        host: Some("a.test".into()),
        path: "/way".into(),
    };
    assert_eq!(http_2, Ok(want));
    assert!(network("type=grpc&serviceName=a%20b").is_err());
}

#[test]
fn vmess_links_are_json_or_like_the_others() {
    let json = format!(
        r#"{{"v":"2","ps":"Näme","add":"h.test","port":443,"id":"{ID}","aid":"0","scy":"auto","net":"ws","type":"none","host":"cdn.test","path":"/p","tls":"tls","sni":"","alpn":""}}"#
    );
    let link = format!("vmess://{}", BASE64.encode(json.as_bytes()));
    assert_eq!(name_and_server(&link), ("Näme".into(), "h.test 443".into()));
    let Protocol::Vmess(options) = parse(&link).unwrap().protocol else {
        panic!("{link}");
    };
    assert_eq!(
        options.tls.unwrap().server_name.as_deref(),
        Some("cdn.test")
    );
    let old = json.replace(r#""aid":"0""#, r#""aid":64"#);
    let old = format!("vmess://{}", BASE64.encode(old.as_bytes()));
    assert_eq!(
        parse(&old).unwrap_err(),
        LinkError::NotImplemented("alterId")
    );
    let url = format!("vmess://{ID}@h.test:1?encryption=zero");
    assert!(
        matches!(parse(&url).unwrap().protocol, Protocol::Vmess(o) if o.security == VmessSecurity::Zero)
    );
}

#[test]
fn plain_proxies_have_links_too() {
    let Protocol::Socks5(options) = parse("socks5://u:p%3A@h.test#s").unwrap().protocol else {
        panic!();
    };
    let credentials = options.credentials.unwrap();
    assert_eq!(
        (&*credentials.username, &*credentials.password),
        ("u", "p:")
    );
    assert_eq!(options.server.port, 1080);
    let Protocol::Socks5(options) = parse("socks://dTpw@h.test:1").unwrap().protocol else {
        panic!();
    };
    assert_eq!(&*options.credentials.unwrap().password, "p");
    let Protocol::Http(options) = parse("https://h.test?sni=a.test").unwrap().protocol else {
        panic!();
    };
    assert_eq!((options.server.port, options.tls.is_some()), (443, true));
    assert!(!parse("http://h.test").unwrap().udp);
    assert_eq!(name_and_server("http://h.test").0, "h.test:80");
}

#[test]
fn what_is_no_link_is_refused_without_being_quoted() {
    for (link, error) in [
        ("", LinkError::Scheme),
        ("ftp://h.test", LinkError::Scheme),
        ("ss://!!!", LinkError::Encoding),
        ("trojan://h.test:1", LinkError::Part("password")),
        ("trojan://p@:1", LinkError::Part("server")),
        ("trojan://p@h.test:x", LinkError::Part("port")),
        ("trojan://p@h.test:0", LinkError::Part("port")),
        (
            "vless://not-an-id-but-far-too-long-for-one@h.test:1",
            LinkError::Part("user id"),
        ),
        ("vmess://e30", LinkError::Part("user id")),
        (
            "trojan://p@h.test?type=ws&host=a%0d%0ab",
            LinkError::Part("path or host"),
        ),
    ] {
        assert_eq!(parse(link).unwrap_err(), error, "{link}");
    }
    assert_eq!(
        parse(&"x".repeat(LINK_BYTES_MAX + 1)).unwrap_err(),
        LinkError::TooLong
    );
}

proptest! {
    #[test]
    fn random_links_never_panic(scheme in 0usize..6, rest in "\\PC{0,80}") {
        let scheme = ["ss", "vmess", "vless", "trojan", "socks5", "https"][scheme];
        let _proxy = parse(&format!("{scheme}://{rest}"));
        let _proxy = parse(&format!("{scheme}://{}", BASE64.encode(rest.as_bytes())));
    }
}
