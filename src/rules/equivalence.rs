//! Random lists and flows: the compiled list answers what a walk of the lines would, and what is
//! called certain holds for every flow.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::geo::Geodata;
use super::matcher::{Known, Truth};
use super::set::{Behavior, NamedSet, RuleSetBuilder};
use super::{Found, Library, RuleLine, Rules};
use crate::metadata::{DnsMode, InboundType, Mac, Metadata, Network};
use crate::prefix::{bits, from_bits};

/// The obvious version.
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

/// What a tunnel does with a list: resolves at most once, to `answer`.
fn ends_direct(lines: &[RuleLine], mut flow: Metadata, answer: Option<IpAddr>) -> bool {
    let mut found = walk(lines, &flow, 0, true);
    if let Found::NeedIp(i) = found {
        flow.destination_ip = answer;
        found = walk(lines, &flow, i, false);
    }
    match found {
        Found::Rule(i) => &*lines[i].target == "DIRECT",
        Found::Nothing => true,
        Found::NeedIp(_) => panic!("asked twice"),
    }
}

/// Few labels, so that names meet rules.
fn name() -> impl Strategy<Value = String> {
    vec(select(&["a", "b", "ab", "org", "xn--e"]), 1..4).prop_map(|labels| labels.join("."))
}

/// Few addresses, so that prefixes nest and meet flows.
fn address() -> impl Strategy<Value = IpAddr> {
    let byte = || select(&[0u8, 1, 10, 255]);
    prop_oneof![
        3 => [byte(), byte(), byte(), byte()].prop_map(IpAddr::from),
        1 => (byte(), byte()).prop_map(|(a, b)| {
            IpAddr::from([0x2001, 0xdb8, a.into(), 0, 0, 0, 0, b.into()])
        }),
        1 => byte().prop_map(|b| IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, b.into()])),
    ]
}

fn prefix() -> impl Strategy<Value = String> {
    (address(), 0u8..=32, any::<bool>()).prop_map(|(ip, length, whole)| {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        format!("{ip}/{}", if whole { width } else { length * (width / 32) })
    })
}

fn number() -> impl Strategy<Value = u16> {
    select(&[0u16, 1, 22, 53, 63])
}

fn parameters() -> impl Strategy<Value = &'static str> {
    select(&["", ",no-resolve", ",src"])
}

/// `TYPE,payload` and its parameters apart.
fn condition() -> impl Strategy<Value = (String, &'static str)> {
    let plain = |kind: &'static str, payload: BoxedStrategy<String>| {
        payload
            .prop_map(move |payload| (format!("{kind},{payload}"), ""))
            .boxed()
    };
    let addressed = |kind: &'static str| {
        (prefix(), parameters()).prop_map(move |(p, with)| (format!("{kind},{p}"), with))
    };
    let ports = || {
        prop_oneof![
            number().prop_map(|n| n.to_string()),
            (number(), number(), number()).prop_map(|(a, b, c)| format!("{a}-{b}/{c}")),
        ]
        .boxed()
    };
    let word = |words: &'static [&'static str]| select(words).prop_map(String::from).boxed();
    prop_oneof![
        3 => plain("DOMAIN", name().boxed()),
        6 => plain("DOMAIN-SUFFIX", name().boxed()),
        3 => plain("DOMAIN-KEYWORD", word(&["a", "b.o", "org", "zz", "ab", ".", "n-"])),
        1 => plain("DOMAIN-WILDCARD", word(&["*", "a.*", "?.org", "*b*"])),
        1 => plain("DOMAIN-REGEX", word(&["^a", "b$", "^$", "o.g"])),
        6 => addressed("IP-CIDR"),
        1 => addressed("IP-SUFFIX"),
        2 => addressed("SRC-IP-CIDR"),
        1 => addressed("SRC-IP-SUFFIX"),
        1 => plain("SRC-MAC", word(&["00:00:00:00:00:01", "00:00:00:00:00:02"])),
        1 => plain("SRC-PORT", ports()),
        2 => plain("DST-PORT", ports()),
        1 => plain("IN-PORT", ports()),
        1 => plain("DSCP", ports()),
        1 => plain("NETWORK", word(&["tcp", "udp"])),
        1 => plain("IN-TYPE", word(&["TPROXY", "SOCKS", "TUN"])),
        1 => plain("IN-NAME", word(&["lan", "guest"])),
        1 => plain("IN-USER", word(&["u", "v"])),
    ]
    .prop_recursive(3, 8, 3, |inner| {
        (select(&["AND", "OR", "NOT"]), vec(inner, 1..4)).prop_map(|(kind, parts)| {
            let count = if kind == "NOT" { 1 } else { parts.len() };
            let parts: Vec<_> = parts
                .iter()
                .take(count)
                .map(|(part, with)| format!("({part}{with})"))
                .collect();
            (format!("{kind},({})", parts.join(",")), "")
        })
    })
}

/// Up to `most` lines, `direct` of them DIRECT for each that is not.
fn lines(most: usize, direct: u32) -> impl Strategy<Value = Vec<RuleLine>> {
    let target = prop_oneof![direct => Just("DIRECT"), 1 => Just("proxy")];
    let line = prop_oneof![
        30 => (condition(), target.clone())
            .prop_map(|((rule, with), target)| format!("{rule},{target}{with}")),
        1 => target.prop_map(|target| format!("MATCH,{target}")),
    ];
    vec(
        line.prop_map(|line| RuleLine::parse(&line).unwrap()),
        0..=most,
    )
}

fn flow() -> impl Strategy<Value = Metadata> {
    let names = (option::weighted(0.7, name()), option::weighted(0.2, name()));
    let addresses = (option::of(address()), address());
    let numbers = (number(), number(), number(), number());
    let rest = (
        select(&[Network::Tcp, Network::Udp]),
        select(&[InboundType::TProxy, InboundType::Socks4]),
        select(&["lan", "guest"]),
        option::of(select(&["u", "w"])),
        option::of(1u8..4),
    );
    (names, addresses, numbers, rest).prop_map(
        |((host, sniffed), (destination, source), numbers, rest)| Metadata {
            network: rest.0,
            inbound_type: rest.1,
            inbound: Arc::from(rest.2),
            inbound_user: rest.3.map(Arc::from),
            user_level: 0,
            special_proxy: None,
            inbound_address: SocketAddr::new(source, numbers.0),
            source: SocketAddr::new(source, numbers.1),
            source_mac: rest.4.map(|last| Mac([0, 0, 0, 0, 0, last])),
            source_host: None,
            process: None,
            host: host.map(Into::into),
            destination_ip: destination,
            destination_port: numbers.2,
            sniffed_host: sniffed.map(Into::into),
            dns_mode: DnsMode::Normal,
            dscp: u8::try_from(numbers.3).unwrap(),
        },
    )
}

fn is_direct(lines: &[RuleLine]) -> impl Fn(usize) -> bool {
    |i| &*lines[i].target == "DIRECT"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_list_answers_as_a_walk(lines in lines(40, 1), flows in vec(flow(), 8)) {
        let rules = Rules::compile(lines.clone());
        prop_assert_eq!(rules.len(), lines.len());
        for (line, view) in lines.iter().zip(rules.lines()) {
            let shown = (line.kind, &*line.payload, &*line.target);
            prop_assert_eq!(shown, (view.kind, view.payload, &**view.target));
        }
        let needs_mac = lines.iter().any(|line| line.matcher().needs().mac);
        prop_assert_eq!(rules.needs().mac, needs_mac);
        for flow in &flows {
            for from in 0..=lines.len() + 1 {
                for may_resolve in [true, false] {
                    prop_assert_eq!(
                        rules.find(flow, from, may_resolve),
                        walk(&lines, flow, from, may_resolve),
                        "from {} may_resolve {} {:?}", from, may_resolve, flow
                    );
                }
            }
        }
    }

    #[test]
    fn a_certain_name_is_direct_in_every_flow(
        lines in lines(6, 2), names in vec(name(), 6), flows in vec((flow(), option::of(address())), 24)
    ) {
        let rules = Rules::compile(lines.clone());
        for name in names {
            if !rules.certainly_direct(&name, &is_direct(&lines)) {
                continue;
            }
            for (mut flow, answer) in flows.clone() {
                // The sniffer may read the same name, under another one that was asked for.
                let named = if flow.sniffed_host.is_some() {
                    &mut flow.sniffed_host
                } else {
                    &mut flow.host
                };
                *named = Some((*name).into());
                prop_assert!(ends_direct(&lines, flow.clone(), answer), "{} {:?}", name, flow);
            }
        }
    }

    #[test]
    fn a_certain_range_is_direct_in_every_flow(
        lines in lines(6, 2),
        picks in vec((any::<Index>(), any::<u128>()), 6),
        flows in vec(flow(), 16),
        v4 in any::<bool>(),
        names_may_appear in any::<bool>(),
    ) {
        let rules = Rules::compile(lines.clone());
        let ranges = rules.certainly_direct_ranges(v4, names_may_appear, &is_direct(&lines));
        prop_assert!(ranges.is_sorted());
        for (pick, noise) in picks.iter().filter(|_| !ranges.is_empty()) {
            let (first, last) = pick.get(&ranges);
            let (low, high) = (bits(*first).0, bits(*last).0);
            let middle = low + noise % (high - low).max(1);
            for value in [low, middle, high] {
                for mut flow in flows.clone() {
                    flow.destination_ip = Some(from_bits(value, v4));
                    if !names_may_appear {
                        (flow.host, flow.sniffed_host) = (None, None);
                    }
                    prop_assert!(ends_direct(&lines, flow.clone(), None), "{:?}", flow);
                }
            }
        }
    }

    #[test]
    fn a_list_of_sub_rules_decides_as_its_lines_inline(
        condition in condition(), inner in vec((condition(), select(&["DIRECT", "proxy"])), 0..6),
        flows in vec((flow(), option::of(address())), 12),
    ) {
        // A `no-resolve` line of a list meets the address that a line below it had resolved, since
        // the list is walked anew then; inline it has been passed for good.
        let plain = |text: &str| text.replace(",no-resolve", "");
        let (outer, with) = (plain(&condition.0), plain(condition.1));
        let list: Vec<_> = inner
            .iter()
            .map(|((rule, with), target)| format!("{},{target}{}", plain(rule), plain(with)))
            .collect();
        let mut library = Library::default();
        let list = list.iter().map(|line| RuleLine::parse(line).unwrap());
        library.add_list("list", Arc::new(Rules::compile(list)));
        let called = ["SUB-RULE,({},list".replace("{}", &format!("{outer}{with})")), "MATCH,end".into()];
        let called = Rules::compile(called.iter().map(|l| RuleLine::parse_in(l, &library).unwrap()));
        let inline = inner.iter().map(|((rule, inner_with), target)| {
            format!("AND,(({outer}{with}),({}{})),{target}", plain(rule), plain(inner_with))
        });
        let inline: Vec<_> = inline.chain(["MATCH,end".into()]).collect();
        let inline = Rules::compile(inline.iter().map(|l| RuleLine::parse(l).unwrap()));
        let decide = |rules: &Rules, flow: &Metadata, answer| {
            let mut flow = flow.clone();
            let (mut found, mut may_resolve) = (rules.find(&flow, 0, true), true);
            if let Found::NeedIp(i) = found {
                (flow.destination_ip, may_resolve) = (answer, false);
                found = rules.find(&flow, i, false);
            }
            match found {
                Found::Rule(i) => rules.target(i, &flow, may_resolve).map(ToString::to_string),
                _ => None,
            }
        };
        for (flow, answer) in flows {
            prop_assert_eq!(decide(&called, &flow, answer), decide(&inline, &flow, answer));
        }
        for name in ["a", "b.a", "org"] {
            let certain = called.certainly_direct(name, &|i| called.leads_only(i, &|t| t != "proxy"));
            prop_assert!(!certain || inline.certainly_direct(name, &|i| inline.leads_only(i, &|t| t != "proxy")));
        }
    }

    #[test]
    fn a_rule_set_decides_as_its_entries_inline(
        before in vec(condition(), 0..3), entries in vec(condition(), 1..8),
        flows in vec((flow(), option::of(address())), 12), names in vec(name(), 6),
    ) {
        let line = |(rule, with): &(String, &str), target| format!("{rule},{target}{with}");
        let parse = |text: &String| RuleLine::parse(text).unwrap();
        let head: Vec<_> = before.iter().map(|rule| line(rule, "proxy")).collect();
        let set = Arc::new(NamedSet::new("set", Behavior::Classical));
        let mut builder = RuleSetBuilder::new(Behavior::Classical, &Geodata::default());
        for (rule, with) in &entries {
            builder.push(&format!("{rule}{with}")).unwrap();
        }
        set.replace(Arc::new(builder.finish()));
        let mut library = Library::default();
        library.add_set(set);
        let by_set = ["RULE-SET,set,DIRECT", "MATCH,proxy"];
        let by_set = by_set.map(|line| RuleLine::parse_in(line, &library).unwrap());
        let by_set: Vec<_> = head.iter().map(parse).chain(by_set).collect();
        let inline = entries.iter().map(|rule| line(rule, "DIRECT"));
        let inline: Vec<_> = head.iter().cloned().chain(inline).chain(["MATCH,proxy".into()]).collect();
        let inline: Vec<_> = inline.iter().map(parse).collect();
        for (flow, answer) in flows {
            // An entry with `no-resolve` is asked again once another entry had the name resolved.
            let passes = |(rule, with): &(String, &str)| format!("{rule}{with}").contains("no-resolve");
            let known = flow.destination_ip.is_some() || !entries.iter().any(passes);
            let same = || (ends_direct(&by_set, flow.clone(), answer), ends_direct(&inline, flow.clone(), answer));
            let (set, inline) = same();
            prop_assert!(!known || set == inline, "{:?}", flow);
        }
        let (by_set, inline) = (Rules::compile(by_set), (Rules::compile(inline.clone()), inline));
        for name in names {
            let certain = by_set.certainly_direct(&name, &|i| i == head.len());
            prop_assert!(!certain || inline.0.certainly_direct(&name, &is_direct(&inline.1)), "{}", name);
        }
        for (v4, names_may_appear) in [(true, true), (true, false), (false, true), (false, false)] {
            prop_assert_eq!(
                by_set.certainly_direct_ranges(v4, names_may_appear, &|i| i == head.len()),
                inline.0.certainly_direct_ranges(v4, names_may_appear, &is_direct(&inline.1))
            );
        }
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "(?s).{0,60}", kind in any::<Index>()) {
        let _ = RuleLine::parse(&text);
        let row = kind.get(super::RULE_TYPES);
        let _ = RuleLine::parse(&format!("{},{text},p", row.name));
        let _ = RuleLine::parse(&format!("AND,(({},{text})),p", row.name));
    }
}
