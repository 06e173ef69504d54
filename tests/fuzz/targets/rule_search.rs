//! The compiled rules answer as a walk of the list does, and what they call certain is.
//! Input: 28 bytes of a flow, its host, its sniffed host, then the list, a line each.
#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use headgate::metadata::{Host, InboundType, Mac, Metadata, Network};
use headgate::prefix::bits;
use headgate::rules::matcher::Known;
use headgate::rules::{Found, RuleLine, Rules, Truth};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flow = flow(&mut input);
    let Ok(text) = str::from_utf8(input.rest()) else {
        return;
    };
    let lines: Vec<RuleLine> = text
        .split('\n')
        .filter_map(|line| RuleLine::parse(line).ok())
        .take(40)
        .collect();
    let rules = Rules::compile(lines.clone());
    assert_eq!(rules.len(), lines.len());
    for from in 0..=lines.len() + 1 {
        for may_resolve in [true, false] {
            let found = rules.find(&flow, from, may_resolve);
            assert_eq!(found, walk(&lines, &flow, from, may_resolve), "from {from}");
        }
    }
    let is_direct = |i: usize| &*lines[i].target == "DIRECT";
    if let Some(host) = flow.rule_host()
        && rules.certainly_direct(host, &is_direct)
    {
        assert!(ends_direct(&lines, &flow), "{host} is called direct");
    }
    if let Some(ip) = flow.destination_ip {
        let named = flow.rule_host().is_some();
        let ranges = rules.certainly_direct_ranges(ip.is_ipv4(), named, &is_direct);
        let value = bits(ip).0;
        if ranges
            .iter()
            .any(|(low, high)| (bits(*low).0..=bits(*high).0).contains(&value))
        {
            assert!(ends_direct(&lines, &flow), "{ip} is called direct");
        }
    }
});

fn walk(lines: &[RuleLine], flow: &Metadata, from: usize, may_resolve: bool) -> Found {
    let known = Known::flow(flow, may_resolve);
    for (i, line) in lines.iter().enumerate().skip(from) {
        match line.matcher().truth(&known) {
            Truth::Yes => return Found::Rule(i),
            Truth::Unknown => return Found::NeedIp(i),
            Truth::No => {}
        }
    }
    Found::Nothing
}

fn ends_direct(lines: &[RuleLine], flow: &Metadata) -> bool {
    let mut found = walk(lines, flow, 0, true);
    if let Found::NeedIp(from) = found {
        found = walk(lines, flow, from, false);
    }
    match found {
        Found::Rule(i) => &*lines[i].target == "DIRECT",
        Found::Nothing => true,
        Found::NeedIp(_) => panic!("asked twice"),
    }
}

fn flow(input: &mut Input<'_>) -> Metadata {
    let flags = input.byte();
    let mut address = |v6: bool| -> IpAddr {
        let [a, b, c, d] = input.array();
        if v6 {
            IpAddr::from([0x2001, 0xdb8, a.into(), b.into(), 0, 0, c.into(), d.into()])
        } else {
            IpAddr::from([a, b, c, d])
        }
    };
    let (source, destination) = (address(flags & 1 != 0), address(flags & 2 != 0));
    let mut port = || u16::from_be_bytes(input.array());
    let (source_port, port, own_port) = (port(), port(), port());
    let mac = Mac(input.array());
    let [dscp, kind] = input.array();
    input.take(5); // in reserve: seeds keep their meaning
    let mut host = || {
        let text = str::from_utf8(input.chunk()).ok()?;
        match Host::parse(text)? {
            Host::Name(name) => Some(name),
            Host::Ip(_) => None,
        }
    };
    let (host, sniffed_host) = (host(), host());
    Metadata {
        network: if flags & 4 != 0 {
            Network::Udp
        } else {
            Network::Tcp
        },
        inbound_type: if kind & 1 != 0 {
            InboundType::Socks5
        } else {
            InboundType::TProxy
        },
        inbound: Arc::from("lan"),
        inbound_user: (kind & 2 != 0).then(|| Arc::from("u")),
        user_level: 0,
        special_proxy: None,
        inbound_address: SocketAddr::new(source, own_port),
        source: SocketAddr::new(source, source_port),
        source_mac: (flags & 8 != 0).then_some(mac),
        source_host: None,
        process: None,
        destination_ip: (flags & 16 != 0).then_some(destination),
        destination_port: port,
        host,
        sniffed_host: sniffed_host.filter(|_| flags & 32 != 0),
        dns_mode: headgate::metadata::DnsMode::Normal,
        dscp: dscp & 63,
    }
}
