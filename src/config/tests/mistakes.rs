//! Every kind of mistake, by its whole message; `^` and `§` mark the place ([`wrong`]).

use super::{good, warnings, wrong};
use crate::config::BUILTIN_NAMES;
use crate::netfilter::options::Mark;
use crate::rules::RuleLine;

#[test]
fn yaml_mistakes() {
    wrong(
        "a: [1\nb^: 2\n",
        "a[0]: not valid YAML: illegal placement of ':' indicator",
    );
    wrong(
        "port: 1\n^port: 2\n",
        "port: this key stands twice in the same mapping",
    );
    wrong(
        "dns:\n  a: 1\n  b: 2\n  ^a: 3\n",
        "dns.a: this key stands twice in the same mapping",
    );
    wrong("a: ^!!binary AAAA\n", "a: tag `binary` is not supported");
    wrong(
        "a: &a [^*a]\n",
        "a[0]: alias inside the value that it names",
    );
    wrong(
        "a: ^*b\n",
        "a: not valid YAML: while parsing node, found unknown anchor",
    );
    wrong(
        "^[a]: 1\n",
        "expected a plain key, found a list or a mapping",
    );
    wrong("^just text", "expected a mapping, found a single value");
    wrong("^- a\n", "expected a mapping, found a list");
}

#[test]
fn general_mistakes() {
    wrong(
        "mode: ^fast",
        "mode: expected rule, global or direct, found `fast`",
    );
    wrong("log-level: ^[x]", "log-level: expected text, found a list");
    wrong(
        "log-level: ^loud",
        "log-level: expected silent, error, warning, info or debug, found `loud`",
    );
    wrong(
        "routing-mark: ^-1",
        "routing-mark: expected a number (0 to 4294967295), found `-1`",
    );
    wrong(
        "interface-name: ^much-too-long-name",
        "interface-name: expected an interface name (at most 15 characters), found `much-too-long-name`",
    );
    wrong(
        "profile: ^yes",
        "profile: expected a mapping, found a single value",
    );
}

#[test]
fn inbound_mistakes() {
    wrong(
        "mixed-port: ^70000",
        "mixed-port: expected a port (0 to 65535), found `70000`",
    );
    wrong(
        "bind-address: ^lan",
        "bind-address: expected * or an IP address, found `lan`",
    );
    wrong(
        "lan-allowed-ips: [^1.2.3.0/33]",
        "lan-allowed-ips[0]: `1.2.3.0/33` is no address prefix: not a prefix length",
    );
    wrong(
        "authentication: [^hunter2]",
        "authentication[0]: expected user:password",
    );
    let listener =
        |keys: &str| format!("listeners:\n- {{name: a, type: socks, port: 1}}\n- §{{{keys}}}\n");
    wrong(
        &listener("type: http, port: 1"),
        "listeners[1].name: required key is missing",
    );
    wrong(
        &listener("name: ^a, type: http, port: 2"),
        "listeners[1].name: the name `a` is taken already",
    );
    wrong(
        &listener("name: b, type: ^ftp, port: 2"),
        "listeners[1].type: unknown listener type `ftp`",
    );
    wrong(
        &listener("name: b, type: ^tun"),
        "listeners[1].type: not implemented yet: tun",
    );
    wrong(
        &listener("name: b, type: http, port: ^0"),
        "listeners[1].port: expected a port (1 to 65535), found `0`",
    );
    wrong(
        &listener("name: b, type: http, port: 2, proxy: ^P"),
        "listeners[1].proxy: no proxy or group is named `P`",
    );
    wrong(
        &listener("name: b, type: http, port: 2, users: ^{username: u}"),
        "listeners[1].users.password: required key is missing",
    );
}

#[test]
fn controller_mistakes() {
    wrong(
        "external-controller: ^9090",
        "external-controller: expected an address and port (127.0.0.1:9090), found `9090`",
    );
    let open = "other machines could reach the controller without a secret: set secret, or listen on 127.0.0.1";
    for listen in ["0.0.0.0:9090", ":9090", "'[::]:9090'", "192.168.1.1:9090"] {
        wrong(
            &format!("external-controller: ^{listen}\nsecret: ''"),
            &format!("external-controller: {open}"),
        );
        good(&format!("external-controller: {listen}\nsecret: x"));
        wrong(
            &format!("external-controller-tls: ^{listen}\ntls: {{certificate: a, private-key: b}}"),
            &format!("external-controller-tls: {open}"),
        );
    }
    for listen in ["127.0.0.1:9090", "localhost:9090", "'[::1]:9090'"] {
        good(&format!("external-controller: {listen}"));
        wrong(
            &format!("external-controller-tls: ^{listen}\ntls: {{certificate: a}}"),
            "external-controller-tls: TLS needs tls.certificate and tls.private-key: PEM files, or PEM text",
        );
    }
}

#[test]
fn secrets_have_a_name_and_a_scope() {
    let entry = |scope: &str| {
        format!("external-controller: :9090\nsecrets: [{{name: tv, secret: s, scope: {scope}}}]")
    };
    for scope in ["read", "operate", "configure", "admin"] {
        good(&entry(scope));
    }
    wrong(
        &entry("^root"),
        "secrets[0].scope: expected read, operate, configure or admin, found `root`",
    );
    wrong(
        "secrets: [{name: ^'a b', secret: s, scope: read}]",
        "secrets[0].name: expected a name (letters, digits, - and _), found `a b`",
    );
    wrong(
        "secrets: [^{name: a, scope: read}]",
        "secrets[0].secret: required key is missing",
    );
}

#[test]
fn origin_mistakes() {
    for origin in [
        "'null'",
        "https://*.*.example",
        "example.org",
        "https://example.org/",
    ] {
        let found = origin.trim_matches('\'');
        wrong(
            &format!("external-controller-cors: {{allow-origins: [^{origin}]}}"),
            &format!(
                "external-controller-cors.allow-origins[0]: expected an origin (https://example.org), with at most one *, found `{found}`"
            ),
        );
    }
    for origin in ["'*'", "https://*.example.org:8443", "http://[fd00::1]"] {
        good(&format!(
            "external-controller-cors: {{allow-origins: ['{}']}}",
            origin.trim_matches('\'')
        ));
    }
}

#[test]
fn proxy_mistakes() {
    let proxy = |keys: &str| format!("proxies:\n- {{name: a, type: direct}}\n- §{{{keys}}}\n");
    wrong(
        &proxy("type: direct"),
        "proxies[1].name: required key is missing",
    );
    wrong(
        &proxy("name: b"),
        "proxies[1].type: required key is missing",
    );
    wrong(
        &proxy("name: ^a, type: direct"),
        "proxies[1].name: the name `a` is taken already",
    );
    wrong(
        &proxy("name: ^DIRECT, type: direct"),
        "proxies[1].name: `DIRECT` is a built-in name",
    );
    wrong(
        &proxy("name: b, type: ^magic"),
        "proxies[1].type: unknown proxy type `magic`",
    );
    wrong(
        &proxy("name: b, type: ^tuic"),
        "proxies[1].type: not implemented yet: tuic",
    );
    wrong(
        &proxy("name: b, type: http, port: 1"),
        "proxies[1].server: required key is missing",
    );
    wrong(
        &proxy("name: b, type: http, server: x"),
        "proxies[1].port: required key is missing",
    );
    wrong(
        &proxy("name: b, type: http, server: ^'a b', port: 1"),
        "proxies[1].server: expected a host name or an IP address, found `a b`",
    );
    wrong(
        &proxy("name: b, type: http, server: x, port: ^65536"),
        "proxies[1].port: expected a port (1 to 65535), found `65536`",
    );
    wrong(
        &proxy("name: b, type: direct, ip-version: ^5"),
        "proxies[1].ip-version: expected dual, ipv4, ipv6, ipv4-prefer or ipv6-prefer, found `5`",
    );
    wrong(
        &proxy("name: b, type: direct, udp: ^maybe"),
        "proxies[1].udp: expected true or false, found `maybe`",
    );
    wrong(
        &proxy("name: b, type: direct, dialer-proxy: ^c"),
        "proxies[1].dialer-proxy: no proxy or group is named `c`",
    );
    wrong(
        &proxy("name: b, type: direct, dialer-proxy: ^b"),
        "proxies[1].dialer-proxy: leads back to itself: b → b",
    );
    wrong(
        &proxy("name: b, type: direct, dialer-proxy: ^GLOBAL"),
        "proxies[1].dialer-proxy: leads back to itself: b → GLOBAL → b",
    );
    wrong(
        &proxy("name: b, type: http, server: x, port: 1, headers: {A: ^\"x\\r\\ny\"}"),
        "proxies[1].headers.A: expected a header field in printable characters, found `x\\r\\ny`",
    );
    wrong(
        &proxy("name: b, type: http, server: x, port: 1, fingerprint: ^0011"),
        "proxies[1].fingerprint: expected the SHA-256 of a certificate (64 hexadecimal digits), found `0011`",
    );
}

#[test]
fn shadowsocks_mistakes() {
    let proxy =
        |keys: &str| format!("proxies: [§{{name: a, type: ss, server: x, port: 1, {keys}}}]");
    let short = "MDEyMzQ1Njc4OWFiY2RlZg==";
    let long = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    wrong(
        &proxy("password: p"),
        "proxies[0].cipher: required key is missing",
    );
    wrong(
        &proxy("cipher: aes-128-gcm"),
        "proxies[0].password: required key is missing",
    );
    wrong(
        &proxy("cipher: ^rot13, password: p"),
        "proxies[0].cipher: unknown cipher `rot13`",
    );
    wrong(
        &proxy("cipher: aes-128-gcm, password: p, plugin: ^restls, plugin-opts: {host: a}"),
        "proxies[0].plugin: not implemented yet: restls",
    );
    wrong(
        &proxy("cipher: 2022-blake3-aes-128-gcm, password: ^hunter2"),
        "proxies[0].password: password is not base64, as this cipher wants it",
    );
    let cipher =
        |cipher: &str, keys: &str| proxy(&format!("cipher: {cipher}, password: ^'{keys}'"));
    good(&cipher(
        "2022-blake3-aes-128-gcm",
        &format!("{short}:{short}"),
    ));
    good(&cipher(
        "2022-blake3-aes-256-gcm",
        &format!("{long}:{long}"),
    ));
    good(&cipher("2022-BLAKE3-chacha20-poly1305", long));
    good(&cipher("chacha20-ietf-poly1305", "anything"));
    wrong(
        &cipher("2022-blake3-aes-256-gcm", &format!("{long}:{short}")),
        "proxies[0].password: password is not a base64 key of 32 bytes",
    );
    wrong(
        &cipher("2022-blake3-chacha20-poly1305", &format!("{long}:{long}")),
        "proxies[0].password: password holds more keys than this cipher takes",
    );
}

#[test]
fn group_mistakes() {
    let groups = |keys: &str| {
        format!("proxy-groups:\n- {{name: g, type: select, proxies: [DIRECT]}}\n- §{keys}\n")
    };
    wrong(
        &groups("{name: ^g, type: select, proxies: [DIRECT]}"),
        "proxy-groups[1].name: the name `g` is taken already",
    );
    wrong(
        &groups("{name: ^PASS, type: select, proxies: [DIRECT]}"),
        "proxy-groups[1].name: `PASS` is a built-in name",
    );
    good(&groups(
        "{name: GLOBAL, type: select, proxies: [g, DIRECT]}",
    ));
    good(&groups("{name: h, type: relay, proxies: [g, g]}"));
    wrong(
        &groups("{name: h, type: ^best, proxies: [g]}"),
        "proxy-groups[1].type: unknown group type `best`",
    );
    wrong(
        &groups("{name: h, type: url-test, proxies: [g], url: ^gstatic.com}"),
        "proxy-groups[1].url: expected an http or https address, found `gstatic.com`",
    );
    wrong(
        &groups("{name: h, type: fallback, proxies: [g], expected-status: ^2xx}"),
        "proxy-groups[1].expected-status: expected statuses such as 200/204-299, found `2xx`",
    );
    wrong(
        &groups("{name: h, type: load-balance, proxies: [g], strategy: ^random}"),
        "proxy-groups[1].strategy: unknown strategy `random`",
    );
    wrong(
        &groups("{name: h, type: select, include-all: true, filter: ^'(?<=a)b'}"),
        "proxy-groups[1].filter: expected a regular expression (look-around only as leading \
         conditions), found `(?<=a)b`",
    );
    wrong(
        &groups("{name: h, type: select}"),
        "proxy-groups[1]: the group has no members: give it proxies",
    );
    wrong(
        &groups("{name: h, type: select, use: [^p]}"),
        "proxy-groups[1].use[0]: no proxy provider is named `p`",
    );
    wrong(
        &groups("{name: h, type: select, proxies: [g, ^x]}"),
        "proxy-groups[1].proxies[1]: no proxy or group is named `x`",
    );
    wrong(
        &groups("{name: h, type: select, Proxies: ^x}"),
        "proxy-groups[1].Proxies: no proxy or group is named `x`",
    );
    wrong(
        &groups("{name: h, type: select, proxies: [g, ^h]}"),
        "proxy-groups[1].proxies[1]: leads back to itself: h → h",
    );
    wrong(
        &groups("{name: h, type: select, proxies: [^GLOBAL]}"),
        "proxy-groups[1].proxies[0]: leads back to itself: h → GLOBAL → h",
    );
    wrong(
        "proxies: [{name: p, type: direct, dialer-proxy: a}]\nproxy-groups:\n\
         - {name: a, type: select, proxies: [b]}\n- {name: b, type: select, proxies: [DIRECT, ^p]}\n",
        "proxy-groups[1].proxies[1]: leads back to itself: p → a → b → p",
    );
}

#[test]
fn rule_mistakes() {
    wrong(
        "rules:\n- MATCH,DIRECT\n- ^DOMAIN,a.b,Proxy\n",
        "rules[1]: no proxy or group is named `Proxy`",
    );
    let unknown = RuleLine::parse("MAGIC,x,DIRECT").expect_err("no such type");
    wrong(
        "rules: [^'MAGIC,x,DIRECT']",
        &format!("rules[0]: {unknown}"),
    );
    wrong(
        "rules: [^'IP-ASN,AS1,DIRECT']",
        "rules[0]: IP-ASN \"AS1\": expected the number of an autonomous system",
    );
    wrong(
        "rules: [^'SUB-RULE,(NETWORK,tcp),gone']",
        "rules[0]: SUB-RULE \"(NETWORK,tcp)\": no list of sub-rules is named \"gone\"",
    );
    wrong(
        "sub-rules:\n  a: ['DOMAIN,x.y,DIRECT', 'SUB-RULE,(NETWORK,tcp),b']\n  \
         b:\n  - ^SUB-RULE,(NETWORK,udp),a\n",
        "sub-rules.b[0]: leads back to itself: a → b → a",
    );
    wrong(
        "sub-rules:\n  a: ['DOMAIN,x.y,DIRECT', ^'MATCH,Proxy']\n",
        "sub-rules.a[1]: no proxy or group is named `Proxy`",
    );
    wrong(
        "sub-rules: {a: ^x}",
        "sub-rules.a: expected a list, found a single value",
    );
    let deep: String = (0..17)
        .map(|i| format!("  l{i}: ['SUB-RULE,(NETWORK,tcp),l{}']\n", i + 1))
        .collect();
    let deep = format!("sub-rules:\n{deep}  l17: []\n").replace(
        "['SUB-RULE,(NETWORK,tcp),l16'",
        "[^'SUB-RULE,(NETWORK,tcp),l16'",
    );
    wrong(
        &deep,
        "sub-rules.l15[0]: too much: lists of sub-rules nested more than 16 deep",
    );
    good(
        "sub-rules: {a: ['SUB-RULE,(NETWORK,tcp),b'], b: ['MATCH,DIRECT']}\nrules: ['SUB-RULE,(DST-PORT,1),a']",
    );
    wrong("rules: [^[a]]", "rules[0]: expected text, found a list");
    wrong(
        "rules: ^MATCH,DIRECT",
        "rules: expected a list, found a single value",
    );
    for name in BUILTIN_NAMES {
        good(&format!("rules: ['MATCH,{name}']"));
    }
}

#[test]
fn rule_provider_mistakes() {
    let providers = |entry: &str| format!("rule-providers:\n  ads: {entry}\n");
    for (entry, message) in [
        (
            "^x",
            "rule-providers.ads: expected a mapping, found a single value",
        ),
        (
            "^{type: inline}",
            "rule-providers.ads.behavior: required key is missing",
        ),
        (
            "{type: inline, behavior: ^names}",
            "rule-providers.ads.behavior: unknown behavior `names`",
        ),
        (
            "{type: ^carrier, behavior: domain}",
            "rule-providers.ads.type: unknown provider type `carrier`",
        ),
        (
            "{type: file, behavior: domain, path: a, format: ^csv}",
            "rule-providers.ads.format: unknown format `csv`",
        ),
        (
            "{type: http, behavior: domain, url: ^'ftp://a.org/'}",
            "rule-providers.ads.url: expected an http or https address",
        ),
        (
            "{type: http, behavior: domain, url: 'https://a.org/', proxy: ^nobody}",
            "rule-providers.ads.proxy: no proxy or group is named `nobody`",
        ),
        (
            "^{type: file, behavior: domain}",
            "rule-providers.ads.path: required key is missing",
        ),
        (
            "^{type: inline, behavior: domain}",
            "rule-providers.ads.payload: required key is missing",
        ),
    ] {
        wrong(&providers(entry), message);
    }
    let text = providers("{type: inline, behavior: domain, payload: [a.org, 'b c']}");
    assert_eq!(
        warnings(&text),
        ["2:58: rule-providers.ads.payload[1]: `b c` ignored: \
          expected a domain name or wildcard (a.b, *.b, .b, +.b)"]
    );
    wrong(
        "rules: [^'RULE-SET,gone,DIRECT']",
        "rules[0]: RULE-SET \"gone\": no rule provider has this name",
    );
    good(&format!("{text}rules: ['RULE-SET,ads,REJECT']"));
}

#[test]
fn dns_mistakes() {
    let none = "dns is enabled, so at least one nameserver is needed";
    wrong(
        "dns:\n  ^enable: true\n",
        &format!("dns.nameserver: {none}"),
    );
    wrong(
        "dns:\n  enable: true\n  nameserver: ^[]\n",
        &format!("dns.nameserver: {none}"),
    );
    good("dns: {enable: false}");
    wrong(
        "dns: {nameserver: ^['quic://a']}",
        "dns.nameserver: not implemented yet: quic://a",
    );
    wrong(
        "dns: {nameserver: [^'gopher://a']}",
        "dns.nameserver[0]: expected a nameserver (1.1.1.1, tcp://…, tls://…, https://…/dns-query, system, dhcp://eth1, rcode://…), found `gopher://a`",
    );
    wrong(
        "dns: {nameserver: [1.1.1.1], default-nameserver: [^dns.example]}",
        "dns.default-nameserver[0]: expected the IP address of a nameserver, found `dns.example`",
    );
    wrong(
        "dns: {default-nameserver: [^'tls://a.example']}",
        "dns.default-nameserver[0]: expected the IP address of a nameserver, found `tls://a.example`",
    );
}

#[test]
fn policy_and_filter_mistakes() {
    wrong(
        "dns: {respect-rules: ^true, nameserver: [1.1.1.1]}",
        "dns.respect-rules: needs proxy-server-nameserver, which finds the proxies that rules may lead to",
    );
    wrong(
        "dns: {nameserver-policy: {'rule-set:gone': ^1.1.1.1}}",
        "dns.nameserver-policy.rule-set:gone: RULE-SET \"gone\": no rule provider has this name",
    );
    wrong(
        "dns: {nameserver-policy: {'a..b': ^1.1.1.1}}",
        "dns.nameserver-policy.a..b: expected a domain name or wildcard (a.b, *.b, .b, +.b), found `a..b`",
    );
    wrong(
        "dns: {nameserver-policy: {a: ^[]}}",
        "dns.nameserver-policy.a: expected at least one nameserver, found an empty list",
    );
    wrong(
        "dns: {fake-ip-filter-mode: rule, fake-ip-filter: [^'DOMAIN,a,DIRECT']}",
        "dns.fake-ip-filter[0]: expected a rule that ends in fake-ip or real-ip, found `DOMAIN,a,DIRECT`",
    );
    wrong(
        "dns: {default-nameserver: ^[]}",
        "dns.default-nameserver: expected at least one nameserver, found an empty list",
    );
    wrong(
        "dns: {fake-ip-range: ^198.18.0.0/16x}",
        "dns.fake-ip-range: `198.18.0.0/16x` is no address prefix: not a prefix length",
    );
    wrong(
        "dns: {fake-ip-range: ^198.18.0.0/30}",
        "dns.fake-ip-range: the range is too small: at least 8 addresses are needed",
    );
    wrong(
        "dns: {fake-ip-range: ^fd00::/64}",
        "dns.fake-ip-range: expected an IPv4 range (198.18.0.1/16), found `fd00::/64`",
    );
    wrong(
        "dns: {enhanced-mode: ^magic}",
        "dns.enhanced-mode: expected normal, redir-host or fake-ip, found `magic`",
    );
    wrong(
        "dns: {listen: ^53}",
        "dns.listen: expected an address and port (127.0.0.1:9090), found `53`",
    );
    wrong(
        "dns: {fake-ip-filter: [^a..b]}",
        "dns.fake-ip-filter[0]: expected a domain name or wildcard (a.b, *.b, .b, +.b), found `a..b`",
    );
    wrong(
        "dns: {fake-ip-filter-mode: ^often}",
        "dns.fake-ip-filter-mode: expected blacklist, whitelist or rule, found `often`",
    );
    wrong(
        "hosts: {a.b: [1.2.3.4, ^c.d]}",
        "hosts.a.b[1]: expected IP addresses only, as there are several, found `c.d`",
    );
    wrong(
        "hosts: {a.b: ^c}",
        "hosts.a.b: expected IP addresses, or one domain name of at least two labels, found `c`",
    );
}

#[test]
fn sniffer_mistakes() {
    wrong(
        "sniffer: {sniff: {FTP: ^{}}}",
        "sniffer.sniff.FTP: unknown sniffer `FTP`",
    );
    wrong(
        "sniffer: {sniff: {TLS: {ports: [^0x50]}}}",
        "sniffer.sniff.TLS.ports[0]: expected ports (80, 8000-9000), found `0x50`",
    );
    wrong(
        "sniffer: {sniff: {TLS: {ports: [^90-80]}}}",
        "sniffer.sniff.TLS.ports[0]: expected ports (80, 8000-9000), found `90-80`",
    );
    wrong(
        "sniffer: {skip-dst-address: [^lan]}",
        "sniffer.skip-dst-address[0]: `lan` is no address prefix: not an IP address",
    );
}

#[test]
fn transparent_mistakes() {
    let section = |keys: &str| format!("transparent: {{{keys}}}");
    wrong(
        &section("mode: ^tun"),
        "transparent.mode: expected tproxy or redirect, found `tun`",
    );
    wrong(
        &section("fail: ^safe"),
        "transparent.fail: expected open or closed, found `safe`",
    );
    wrong(
        &section("bypass: [^x/8]"),
        "transparent.bypass[0]: `x/8` is no address prefix: not an IP address",
    );
    wrong(
        &section("bypass-source: [10.0.0.1, ^aa:bb]"),
        "transparent.bypass-source[1]: expected an address prefix or a MAC address, found `aa:bb`",
    );
    wrong(
        &section("mark: ^0x0100/0xff"),
        "transparent.mark: the mark has bits outside its mask",
    );
    wrong(
        &section("mark: ^0/0xff"),
        "transparent.mark: expected a mark and mask (0x48000000/0xff000000), found `0/0xff`",
    );
    wrong(
        &section("mark: ^0x1/0x100000000"),
        "transparent.mark: expected a mark and mask (0x48000000/0xff000000), found `0x1/0x100000000`",
    );
    wrong(
        &section("table: ^254"),
        "transparent.table: expected a routing table (1 to 4294967295, not 253 to 255), found `254`",
    );
    wrong(
        &section("rule-priority: ^40000"),
        "transparent.rule-priority: expected a priority (1 to 32765), found `40000`",
    );
    wrong(
        &section("interfaces: [^br/lan]"),
        "transparent.interfaces[0]: expected an interface name (at most 15 characters), found `br/lan`",
    );
    let nothing = "nothing to capture: give interfaces, or router-traffic: true";
    wrong(
        &section("enable: true, interfaces: ^[]"),
        &format!("transparent.interfaces: {nothing}"),
    );
    good(&section(
        "enable: true, interfaces: [], router-traffic: true",
    ));
    wrong(
        &section("enable: true, dns-hijack: ^true"),
        "transparent.dns-hijack: needs dns.enable: true, which answers what is hijacked",
    );
    assert!(!good(&section("enable: true")).transparent.dns_hijack);
    assert_eq!(
        good(&section("mark: 16/0xF0")).transparent.mark,
        Mark {
            value: 16,
            mask: 240
        }
    );
}

#[test]
fn geodata_mistakes() {
    wrong(
        "geox-url: {mmdb: ^ftp://x/y}",
        "geox-url.mmdb: expected an http or https address",
    );
    wrong(
        "geodata-mode: ^dat",
        "geodata-mode: expected true or false, found `dat`",
    );
    let text = "geox-url: {mmbd: 'https://x/y'}";
    let said = "1:12: geox-url.mmbd: unknown key, ignored; did you mean mmdb?";
    assert_eq!(warnings(text), [said]);
}

#[test]
fn categories_know_where_they_are_asked_for_first() {
    let config = good(
        "rules: ['GEOIP,lan,DIRECT', 'GEOSITE,a,DIRECT', 'AND,((GEOIP,CN),(GEOSITE,A)),DIRECT']\n\
         rule-providers: {p: {type: inline, behavior: classical, payload: ['GEOSITE,b']}}",
    );
    let uses = config.geo_uses.iter();
    let uses: Vec<_> = uses
        .map(|used| format!("{} {}", used.place, used.set.set.name()))
        .collect();
    let want = [
        "2:21: rule-providers.p geosite:b",
        "1:9: rules[0] geoip:lan",
        "1:29: rules[1] geosite:a",
        "1:49: rules[2] geoip:cn",
    ];
    assert_eq!(uses, want);
    // What mihomo fetches them from has an address that we can read.
    assert_eq!(config.geodata.downloads.len(), 4);
}

#[test]
fn proxy_provider_mistakes() {
    let with = |entry: &str| format!("proxy-providers: {{p: {entry}}}");
    good(&with(
        "{type: http, url: 'https://a.example/x', interval: 3600, health-check: {enable: true, url: 'http://a.example/'}}",
    ));
    wrong(
        &with("{type: ^ftp}"),
        "proxy-providers.p.type: unknown provider type `ftp`",
    );
    wrong(
        &with("^{type: http}"),
        "proxy-providers.p.url: required key is missing",
    );
    wrong(
        &with("{type: file, path: a, filter: ^'('}"),
        "proxy-providers.p.filter: expected a regular expression (look-around only as leading conditions), found `(`",
    );
    wrong(
        &with("{type: inline, payload: [{name: a, type: socks5, server: a.example, port: ^0}]}"),
        "proxy-providers.p.payload[0].port: expected a port (1 to 65535), found `0`",
    );
    wrong(
        &with("{type: http, url: 'https://a.example/', proxy: ^P}"),
        "proxy-providers.p.proxy: no proxy or group is named `P`",
    );
    wrong(
        "proxy-groups: [{name: g, type: select, use: [^p]}]",
        "proxy-groups[0].use[0]: no proxy provider is named `p`",
    );
    wrong(
        "proxy-providers: {default: ^{type: file, path: a}}",
        "proxy-providers.default: `default` is a built-in name",
    );
    good(
        "proxy-providers: {p: {type: file, path: a}}\nproxy-groups: [{name: g, type: select, include-all: true}]",
    );
}

#[test]
fn what_others_on_the_way_could_change_is_named() {
    let text = "proxies: [{name: a, type: trojan, server: a.example, port: 443, password: p, skip-cert-verify: true}]";
    let [said] = &warnings(text)[..] else {
        panic!("one warning")
    };
    assert!(
        said.starts_with("1:96: proxies[0].skip-cert-verify: whoever is on the way"),
        "{said}"
    );
    good(&text.replace("true", "false"));
    assert_eq!(
        warnings(&text.replace("true", "false")),
        Vec::<String>::new()
    );
    let text =
        "rule-providers: {ads: {type: http, behavior: domain, url: 'http://lists.example/ads'}}";
    assert_eq!(
        warnings(text),
        [
            "1:59: rule-providers.ads.url: whoever is on the way can send something else; better https"
        ]
    );
    assert_eq!(
        warnings(&text.replace("http:", "https:")),
        Vec::<String>::new()
    );
}

#[test]
fn policy_mistakes() {
    wrong(
        "xray-api:\n  policy: {levels: {a: ^{connIdle: 3}}}\n",
        "xray-api.policy.levels.a: unknown policy level `a`",
    );
    wrong(
        "xray-api: {policy: {levels: {0: {handshake: ^0}}}}\n",
        "xray-api.policy.levels.0.handshake: expected a number of seconds (1 to 600), found `0`",
    );
    wrong(
        "xray-api: {policy: {levels: {0: {bufferSize: ^4KB}}}}\n",
        "xray-api.policy.levels.0.bufferSize: expected a number of kilobytes, found `4KB`",
    );
    wrong(
        "listeners: [{name: a, type: socks, port: 1, users: [{username: a, password: b, level: ^high}]}]\n",
        "listeners[0].users[0].level: expected a number (0 to 4294967295), found `high`",
    );
}

#[test]
fn tunnel_mistakes() {
    let tunnel = |keys: &str| format!("listeners: [{{name: a, type: tunnel, port: 1, {keys}}}]\n");
    wrong(
        "listeners: [^{name: a, type: tunnel, port: 1}]\n",
        "listeners[0].target: required key is missing",
    );
    wrong(
        &tunnel("target: ^example.org"),
        "listeners[0].target: expected a host and a port, found `example.org`",
    );
    wrong(
        &tunnel("target: 'a.b:1', network: [tcp, ^quic]"),
        "listeners[0].network[1]: expected tcp or udp, found `quic`",
    );
    wrong(
        &tunnel("target: 'a.b:1', network: ^[udp]"),
        "listeners[0].network: expected tcp, alone or beside udp, found a list",
    );
    let udp = |keys: &str| good(&tunnel(keys)).inbound.listeners[0].udp;
    assert!(udp("target: 'a.b:1'") && udp("target: 'a.b:1', network: [tcp, udp]"));
    assert!(!udp("target: 'a.b:1', network: [tcp]"));
}

#[test]
fn tag_mistakes() {
    wrong(
        "xray-api: {tag: ^REJECT}\n",
        "xray-api.tag: `REJECT` is a built-in name",
    );
    wrong(
        "xray-api: {tag: a}\nproxies: [{name: ^a, type: direct}]\n",
        "proxies[0].name: the name `a` is taken already",
    );
    wrong(
        "xray-api: {tag: a}\nproxy-groups: [{name: g, type: select, proxies: [^a]}]\n",
        "proxy-groups[0].proxies[0]: no proxy or group is named `a`",
    );
    good(
        "xray-api: {tag: a}\nrules: ['IN-NAME,door,a']\nlisteners: [{name: b, type: socks, port: 1, proxy: a}]\n",
    );
}
