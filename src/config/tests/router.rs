//! A file as mihomo users write it, read whole.

use std::net::IpAddr;

use log::LevelFilter;

use super::{ROUTER, good, warnings};
use crate::config::{Config, FindProcess};
use crate::dns::names::Item;
use crate::dns::options::{
    EnhancedMode, FakeIpFilter, HostsValue, Protocol as Dns, Server, Upstream, Via,
};
use crate::dns::replacement::Algorithm;
use crate::inbound::options::ListenerKind;
use crate::metadata::Mac;
use crate::netfilter::options::{Fail, Mark};
use crate::outbound::IpVersion;
use crate::outbound::options::{Protocol, ProxyOptions};
use crate::tunnel::routing::Mode;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_router_file_is_read_whole_general_and_inbound() {
    let config = good(ROUTER);
    let general = &config.general;
    assert_eq!(general.mode, Mode::Rule);
    assert_eq!(general.log_level, LevelFilter::Warn);
    assert!(general.ipv6 && general.unified_delay && general.tcp_concurrent);
    assert_eq!(general.find_process, FindProcess::Off);
    assert_eq!(general.keep_alive_interval, 15);
    assert_eq!(general.routing_mark, 26);
    let inbound = &config.inbound;
    assert_eq!((inbound.mixed_port, inbound.tproxy_port), (7890, 7895));
    assert!(inbound.allow_lan && inbound.bind_address.is_none());
    assert_eq!(&*inbound.authentication[0].password, "pass:word");
    assert_eq!(inbound.skip_auth_prefixes[1].to_string(), "::1/128");
    let [guests, door] = inbound.listeners.as_slice() else {
        panic!("two listeners");
    };
    assert_eq!((guests.kind, guests.port), (ListenerKind::Mixed, 7900));
    assert_eq!(guests.proxy.as_deref(), Some("PROXY"));
    assert!(guests.users.as_ref().is_some_and(Vec::is_empty));
    assert_eq!(door.listen, ip("0.0.0.0"));
    assert!(!door.udp && door.users.is_none());
    let controller = &config.controller;
    assert_eq!(controller.listen, "192.168.1.1:9090".parse().ok());
    assert_eq!(&*controller.secret, "0123");
    assert_eq!(
        controller.allow_origins,
        ["https://board.example.net".into()]
    );
    assert!(!controller.allow_private_network);
}

#[test]
fn a_router_file_is_read_whole_dns_and_sniffer() {
    let config = good(ROUTER);
    let dns = &config.dns;
    assert!(dns.enable && dns.ipv6 && dns.store_fake_ip);
    assert_eq!(dns.listen, "[::]:1053".parse().ok());
    assert_eq!(dns.mode, EnhancedMode::FakeIp);
    let FakeIpFilter::Blacklist(filter) = &dns.fake_ip_filter else {
        panic!("a blacklist");
    };
    let patterns: Vec<&str> = filter.iter().map(pattern).collect();
    assert_eq!(patterns, ["*.lan", "+.local", "a set"]);
    assert_eq!(dns.fallback.len(), 1);
    assert!(dns.policy.len() == 1 && dns.fallback_filter.home.is_some());
    assert_eq!(
        dns.fake_ip_range6.map(|range| range.to_string()).as_deref(),
        Some("fdfe:dcba:9876::/64")
    );
    let https = Dns::Https("/dns-query".into());
    let by_proxy = Server {
        via: Via::Named("PROXY".into()),
        ..Server::new(Dns::Udp, "resolver.example.net", 53)
    };
    assert_eq!(
        dns.nameserver,
        [
            Upstream::Server(Server::new(https, "doh.example.net", 443)),
            Upstream::Server(by_proxy),
            Upstream::Server(Server::new(Dns::Tcp, "192.0.2.54", 5353)),
            Upstream::System,
        ]
    );
    let tcp = Server::new(Dns::Tcp, "2001:db8::53", 5353);
    assert_eq!(dns.default_nameserver[1], Upstream::Server(tcp));
    assert_eq!(
        dns.hosts[1],
        (
            "*.nas.lan".into(),
            HostsValue::Addresses(vec![ip("192.168.1.5"), ip("fd00::5")])
        )
    );
    assert_eq!(dns.hosts[2].1, HostsValue::Alias("new.example.com".into()));
    let sniffer = &config.sniffer;
    let http = sniffer.http.as_ref().unwrap();
    assert_eq!(http.ports, [(80, 80), (8080, 8880)]);
    assert!(http.override_destination);
    assert!(!sniffer.tls.as_ref().unwrap().override_destination);
    assert!(sniffer.quic.as_ref().unwrap().ports.is_empty());
    assert_eq!(sniffer.skip_domain, ["mijia.cloud.example".into()]);
}

#[test]
fn a_router_file_is_read_whole_proxies_and_rules() {
    let config = good(ROUTER);
    let [tokyo, osaka, office, web, lan2] = config.proxies.as_slice() else {
        panic!("five proxies");
    };
    let shadowsocks = |proxy: &ProxyOptions| match &proxy.protocol {
        Protocol::Shadowsocks(options) => options.clone(),
        other => panic!("{other:?}"),
    };
    assert!(tokyo.udp);
    assert_eq!(shadowsocks(tokyo).server.port, 8388);
    assert_eq!(&*shadowsocks(tokyo).cipher, "2022-blake3-aes-128-gcm");
    // What is written beats what is merged.
    assert_eq!(shadowsocks(osaka).server.port, 8389);
    assert_eq!(osaka.dial.dialer_proxy.as_deref(), Some("Office"));
    let Protocol::Socks5(socks) = &office.protocol else {
        panic!("socks5");
    };
    assert_eq!(&*socks.credentials.as_ref().unwrap().password, "0123");
    assert!(socks.tls.as_ref().unwrap().skip_verify);
    assert_eq!(office.dial.interface.as_deref(), Some("wan2"));
    let Protocol::Http(http) = &web.protocol else {
        panic!("http");
    };
    let tls = http.tls.as_ref().unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("front.example.net"));
    assert_eq!(tls.fingerprint.unwrap()[..3], [0x00, 0x11, 0x22]);
    assert_eq!(http.headers, [("X-Team".into(), "blue".into())]);
    assert_eq!(web.dial.ip_version, IpVersion::PreferV4);
    assert!(lan2.udp);
    assert_eq!(config.groups[0].proxies.len(), 5);
    assert_eq!(config.groups[1].proxies, ["PROXY".into()]);
    assert!(config.groups[1].hidden);
    let targets: Vec<&str> = config.rules.iter().map(|rule| &*rule.target).collect();
    assert_eq!(
        targets,
        ["PROXY", "Video", "DIRECT", "REJECT-DROP", "PROXY"]
    );
    let transparent = &config.transparent;
    assert!(transparent.enable && transparent.dns_hijack && transparent.offload);
    assert_eq!(transparent.fail, Fail::Closed);
    assert_eq!(transparent.bypass_source.len(), 2);
    assert_eq!(
        transparent.bypass_source_mac,
        [Mac([2, 0, 0, 0xaa, 0xbb, 0xcc])]
    );
    assert_eq!(
        transparent.mark,
        Mark {
            value: 0x4800_0000,
            mask: 0xff00_0000
        }
    );
}

#[test]
fn groups_bring_in_and_leave_out_members() {
    let members = |keys: &str| {
        let text = format!(
            "proxies:\n\
             - {{name: US 1, type: direct}}\n\
             - {{name: HK 2, type: socks5, server: a.example, port: 1}}\n\
             - {{name: HK 1, type: direct}}\n\
             proxy-groups: [{{name: g, type: select, {keys}}}]"
        );
        let (config, _) = Config::parse(&text).unwrap();
        config.groups[0].proxies.join(", ")
    };
    assert_eq!(members("include-all: true"), "HK 1, HK 2, US 1");
    let listed = "include-all-proxies: true, proxies: [US 1, DIRECT]";
    assert_eq!(members(listed), "US 1, DIRECT, HK 1, HK 2");
    assert_eq!(members("include-all: true, filter: 'US`1$'"), "US 1, HK 1");
    assert_eq!(members("include-all: true, exclude-filter: 1"), "HK 2");
    let excluded = "proxies: [HK 2, US 1, REJECT], exclude-type: 'socks5|reject'";
    assert_eq!(members(excluded), "US 1");
    let ahead = "include-all: true, filter: '^(?!.*US)(?=.*2)'";
    assert_eq!(members(ahead), "HK 2");
}

#[test]
fn an_included_proxy_may_not_lead_back_to_its_group() {
    let text = "proxies: [{name: p, type: direct, dialer-proxy: a}]\n\
                proxy-groups: [{name: a, type: fallback, include-all: true, proxies: [DIRECT]}]";
    let error = Config::parse(text).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("leads back to itself: p → a → p")
    );
}

fn pattern(item: &Item) -> &str {
    match item {
        Item::Pattern(pattern) => pattern,
        Item::Set(_) => "a set",
    }
}

#[test]
fn policies_and_filters_are_read() {
    let config = good(
        "rule-providers: {ads: {type: inline, behavior: domain, payload: [a.b]}}
dns:
  enable: true
  nameserver: [1.1.1.1, 'tls://1.1.1.1#PROXY']
  respect-rules: true
  proxy-server-nameserver: [1.0.0.1]
  nameserver-policy: {'RULE-SET:ads, ads': 9.9.9.9, '+.a,b.c': [system, 'tcp://8.8.8.8#RULES']}
  fallback: [8.8.4.4]
  fallback-filter: {geoip: false, ipcidr: [240.0.0.0/4], domain: [+.x.y]}
  fallback-lazy-query: true
  direct-nameserver: [9.9.9.9]
  direct-nameserver-follow-policy: true
  ipv6-timeout: 300
  cache-algorithm: arc
  cache-max-size: 100
  fake-ip-filter-mode: rule
  fake-ip-filter: ['RULE-SET,ads,real-ip', 'MATCH,fake-ip']
proxies: [{name: PROXY, type: socks5, server: 192.0.2.1, port: 1}]
",
    );
    let dns = &config.dns;
    assert_eq!((dns.cache_algorithm, dns.cache_size), (Algorithm::Arc, 100));
    let vias = |servers: &[Upstream]| -> Vec<Option<Via>> {
        let via = |upstream: &Upstream| match upstream {
            Upstream::Server(server) => Some(server.via.clone()),
            _ => None,
        };
        servers.iter().map(via).collect()
    };
    let named = Via::Named("PROXY".into());
    assert_eq!(vias(&dns.nameserver), [Some(Via::Rules), Some(named)]);
    assert_eq!(vias(&dns.fallback), [Some(Via::Rules)]);
    for servers in [&dns.proxy_server_nameserver, &dns.direct_nameserver] {
        assert_eq!(vias(servers), [Some(Via::Direct)]);
    }
    let [sets, names] = dns.policy.as_slice() else {
        panic!("two entries");
    };
    assert_eq!(
        sets.names.iter().map(pattern).collect::<Vec<_>>(),
        ["a set"; 2]
    );
    assert_eq!(
        names.names.iter().map(pattern).collect::<Vec<_>>(),
        ["+.a", "b.c"]
    );
    assert_eq!(vias(&names.servers), [None, Some(Via::Rules)]);
    let filter = &dns.fallback_filter;
    assert!(filter.lazy && filter.home.is_none() && filter.refused.len() == 1);
    assert_eq!(pattern(&filter.names[0]), "+.x.y");
    assert!(dns.direct_follows_policy && dns.ipv6_timeout.as_millis() == 300);
    let FakeIpFilter::Rules(rules) = &dns.fake_ip_filter else {
        panic!("rules");
    };
    assert_eq!(
        rules.iter().map(|rule| rule.real).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn nameservers_have_their_parameters() {
    let text = "dns: {nameserver: ['tls://[2001:db8::1]#%E6%97%A5&ecs=192.0.2.0/24&disable-ipv6=true\
        &disable-qtype-65=true&skip-cert-verify=true&ecs-override=true', 'https://a.example:444#RULES&h3=true', \
        'http://192.0.2.1/q?x=1', 'dhcp://eth1', 'dhcp://system']}";
    let first = Server {
        via: Via::Named("日".into()),
        skip_verify: true,
        subnet: Some("192.0.2.0/24".parse().unwrap()),
        disabled: vec![28, 65],
        ..Server::new(Dns::Tls, "2001:db8::1", 853)
    };
    let second = Server {
        via: Via::Rules,
        ..Server::new(Dns::Https("/dns-query".into()), "a.example", 444)
    };
    let plain = Server::new(Dns::Http("/q?x=1".into()), "192.0.2.1", 80);
    assert_eq!(
        good(text).dns.nameserver,
        [
            Upstream::Server(first),
            Upstream::Server(second),
            Upstream::Server(plain),
            Upstream::Dhcp("eth1".into()),
            Upstream::System,
        ]
    );
    assert_eq!(
        warnings(text),
        ["1:150: dns.nameserver[1]: not implemented yet, ignored: h3=true"]
    );
    for bad in [
        "tls://a#ecs=x",
        "https://",
        "tls://",
        "dhcp://",
        "dhcp://much-too-long-name",
        "https://u:p@a/q",
    ] {
        assert!(
            Config::parse(&format!("dns: {{nameserver: ['{bad}']}}")).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn what_has_no_effect_is_reported_once_with_its_place() {
    assert_eq!(
        warnings(ROUTER),
        [
            "14:28: global-client-fingerprint: not implemented yet, ignored",
            "30:3: tun: not implemented yet, ignored",
            "42:38: sniffer.skip-domain[1]: not implemented yet, ignored: geosite:private",
            "78:1: shared: unknown key, ignored",
            "99:23: proxies[2].skip_cert_verify: whoever is on the way can pretend to be the server; fingerprint names its certificate",
        ]
    );
    assert_eq!(
        warnings("mixed-prot: 1\ndns:\n  lisen: :53\nzzzzz: 1\nmqtt: {nonsense: 1}\n"),
        [
            "1:1: mixed-prot: unknown key, ignored; did you mean mixed-port?",
            "3:3: dns.lisen: unknown key, ignored; did you mean listen?",
            "4:1: zzzzz: unknown key, ignored",
            "5:8: mqtt.nonsense: unknown key, ignored",
        ]
    );
    let listed = "{name: a, type: direct, x: 1}, {name: b, type: direct, x: 1}";
    assert_eq!(
        warnings(&format!("proxies: [{listed}]")),
        ["1:35: proxies[0].x: unknown key, ignored"]
    );
    assert_eq!(
        warnings("find-process-mode: always"),
        ["1:20: find-process-mode: not implemented yet, ignored: always"]
    );
}
