//! The configuration as a whole: what a file means ([`router`] has a full one), every kind of mistake
//! with its place ([`mistakes`]), and what must not hurt ([`hostile`]).

mod hostile;
mod mistakes;
mod router;

use std::net::SocketAddr;

use super::*;
use crate::outbound::options::Protocol;

const ROUTER: &str = include_str!("../../../tests/fixtures/config/router.yaml");

#[track_caller]
fn good(text: &str) -> Config {
    match Config::parse(&text.replace(['^', '§'], "")) {
        Ok((config, _)) => config,
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

/// Checks the message and its path, and that it points at the `^` in the text, or at the `§` when
/// there is none.
#[track_caller]
fn wrong(marked: &str, message: &str) {
    let text = marked.replace(['^', '§'], "");
    let marked = if marked.contains('^') {
        marked.replace('§', "")
    } else {
        marked.replace('§', "^")
    };
    let before = marked.split_once('^').expect("a mark").0;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    match Config::parse(&text) {
        Ok(_) => panic!("accepted; expected {message}"),
        Err(error) => assert_eq!(error.to_string(), format!("{line}:{column}: {message}")),
    }
}

#[test]
fn an_empty_file_has_mihomos_defaults() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "{}",
        "dns:\nproxies: ~\nrules: null\nsecret: ''\n",
    ] {
        let config = good(text);
        assert!(config.general.store_selected && config.general.ipv6);
        assert!(config.general.store_history);
        assert!(!config.dns.enable && config.rules.is_empty());
        assert!(config.controller.listen.is_none());
    }
}

#[test]
fn the_builtin_configuration_is_the_contracts() {
    let config = Config::builtin();
    assert_eq!(config.inbound.mixed_port, 7890);
    assert!(!config.inbound.allow_lan);
    let listen: SocketAddr = "127.0.0.1:9090".parse().unwrap();
    assert_eq!(config.controller.listen, Some(listen));
    assert_eq!(&*config.rules[0].target, "DIRECT");
    assert!(!config.transparent.enable && !config.dns.enable);
}

#[test]
fn json_is_yaml_too() {
    let config = good(
        "{\"mixed-port\": 7890, \"ipv6\": false,\n\t\"rules\": [\"MATCH,DIRECT\"],\n\
         \"proxies\": [{\"name\": \"\\u4e2d\\/\\\"\", \"type\": \"direct\", \"udp\": null}]}",
    );
    assert_eq!(config.inbound.mixed_port, 7890);
    assert!(!config.general.ipv6);
    assert_eq!(&*config.proxies[0].name, "中/\"");
}

#[test]
fn merge_keys_take_maps_and_lists_and_the_nearest_wins() {
    let config = good(
        "a: &a {type: socks5, server: a.example, port: 1}\n\
         b: &b {<<: *a, port: 2, username: b}\n\
         proxies:\n\
         - {name: one, <<: [*b, *a]}\n\
         - {name: two, <<: [*a, *b]}\n\
         - {port: 3, name: three, <<: *b}\n\
         - &four {name: four, type: direct}\n",
    );
    let ports: Vec<u16> = config
        .proxies
        .iter()
        .filter_map(|proxy| match &proxy.protocol {
            Protocol::Socks5(socks) => Some(socks.server.port),
            _ => None,
        })
        .collect();
    assert_eq!(ports, [2, 1, 3]);
    wrong(
        "a: &a {x: 1}\nb: {<<: *a, ^<<: *a}\n",
        "b.<<: this key stands twice in the same mapping",
    );
    wrong(
        "b: {<<: ^1}\n",
        "b.1: expected a mapping, or a list of mappings, to merge",
    );
}

#[test]
fn on_and_off_are_booleans_only_where_one_is_asked_for() {
    let config = good("allow-lan: ON\nipv6: no\nsecret: on\nproxies: [{name: off, type: direct}]");
    assert!(config.inbound.allow_lan && !config.general.ipv6);
    assert_eq!(&*config.controller.secret, "on");
    assert_eq!(&*config.proxies[0].name, "off");
    // Strict in the file's own sections, as mihomo is.
    wrong(
        "ipv6: ^'true'",
        "ipv6: expected true or false, found `true`",
    );
    wrong("ipv6: ^1", "ipv6: expected true or false, found `1`");
    wrong(
        "port: ^'80'",
        "port: expected a port (0 to 65535), found `80`",
    );
    wrong(
        "authentication: ^a:b",
        "authentication: expected a list, found a single value",
    );
}

#[test]
fn only_the_first_document_counts() {
    assert_eq!(good("port: 1\n---\nport: 2\n").inbound.http_port, 1);
    assert_eq!(good("\u{feff}port: 1\n").inbound.http_port, 1);
}

#[test]
fn the_old_form_of_the_sniffer_counts_only_alone() {
    let old = "enable: true, sniffing: [tls, http], port-whitelist: [443, '80']";
    let sniffer = good(&format!("sniffer: {{{old}}}")).sniffer;
    assert_eq!(sniffer.tls.unwrap().ports, [(443, 443), (80, 80)]);
    assert!(sniffer.http.is_some() && sniffer.quic.is_none());
    let sniffer = good(&format!("sniffer: {{{old}, sniff: {{QUIC: {{}}}}}}")).sniffer;
    assert!(sniffer.tls.is_none() && sniffer.quic.is_some());
}

#[test]
fn flows_of_a_proxy_share_connections_when_they_are_to() {
    use crate::outbound::mux::sing::request::Protocol as Mux;
    use crate::outbound::options::NetworkOptions;
    let config = good(
        "proxies:
- {name: a, type: vless, server: h, port: 1, uuid: x, network: grpc, smux: {enabled: true, protocol: yamux, max-connections: 4, min-streams: 2, padding: true, statistic: true}}
- {name: b, type: vmess, server: h, port: 1, uuid: x, network: h2, h2-opts: {host: [a.test, b.test], path: /p}, smux: {enabled: false}}
- {name: c, type: vless, server: h, port: 1, uuid: x, network: grpc, grpc-opts: {grpc-service-name: s}, smux: {enabled: 'true', only-tcp: true}}
",
    );
    let mux: Vec<_> = config.proxies.iter().map(|proxy| proxy.mux).collect();
    let first = mux[0].unwrap();
    assert_eq!((first.protocol, first.padding), (Mux::Yamux, true));
    assert_eq!(
        (first.limits.sessions_max, first.limits.streams_min),
        (4, 2)
    );
    assert!(mux[1].is_none());
    assert!(mux[2].is_some_and(|mux| mux.only_tcp && mux.protocol == Mux::H2mux));
    let networks: Vec<_> = config
        .proxies
        .iter()
        .map(|proxy| match &proxy.protocol {
            Protocol::Vless(options) => (options.network.clone(), options.tls.is_some()),
            Protocol::Vmess(options) => (options.network.clone(), options.tls.is_some()),
            _ => panic!("another protocol"),
        })
        .collect();
    let host = Some("a.test".into());
    let http_2 = NetworkOptions::Http2 {
        host,
        path: "/p".into(),
    };
    // VMess over HTTP/2 has TLS even so.
    assert_eq!(
        networks[0],
        (NetworkOptions::Grpc("GunService".into()), false)
    );
    assert_eq!(networks[1], (http_2, true));
    assert_eq!(networks[2], (NetworkOptions::Grpc("s".into()), false));
    let proxy = |keys: &str| {
        format!("proxies:\n- {{name: a, type: vless, server: h, port: 1, uuid: x, {keys}}}\n")
    };
    wrong(
        &proxy("smux: {enabled: true, protocol: ^quic}"),
        "proxies[0].smux.protocol: expected smux, yamux or h2mux, found `quic`",
    );
    wrong(
        &proxy("network: grpc, grpc-opts: {grpc-service-name: ^'a b'}"),
        "proxies[0].grpc-opts.grpc-service-name: expected the name of a gRPC service, found `a b`",
    );
}
