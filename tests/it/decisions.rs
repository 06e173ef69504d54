//! The corpus of decisions (tests/fixtures/rules/decisions.txt): which rule decides each connection,
//! by the documentation of mihomo.

use std::net::IpAddr;
use std::sync::Arc;

use headgate::metadata::{Endpoint, Host, InboundType, Metadata, Network, Process};
use headgate::rules::geo::Geodata;
use headgate::rules::set::{Behavior, NamedSet, RuleSetBuilder};
use headgate::rules::{Found, Library, RuleLine, Rules};

const CORPUS: &str = include_str!("../fixtures/rules/decisions.txt");

/// One configuration on its way.
#[derive(Default)]
struct Block {
    library: Library,
    lines: Vec<RuleLine>,
}

#[test]
fn every_connection_of_the_corpus_is_decided_as_documented() {
    let (mut block, mut rules) = (Block::default(), Rules::compile([]));
    let (mut cases, mut wrong) = (0, Vec::new());
    for (number, line) in (1..).zip(CORPUS.lines()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "##" => block = Block::default(),
            "set" => block.set(rest),
            "geo" => block.category(rest),
            "list" => block.list(rest),
            "rule" => {
                let line = RuleLine::parse_in(rest, &block.library).unwrap();
                block.lines.push(line);
                rules = Rules::compile(block.lines.clone());
            }
            "case" => {
                cases += 1;
                let (asked, want) = rest.split_once(" => ").unwrap();
                let got = decide(&rules, asked);
                if got != want {
                    wrong.push(format!("line {number}: {asked}: {got}, not {want}"));
                }
            }
            _ => assert!(word.is_empty() || word == "#", "line {number}"),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 300, "{cases}");
}

impl Block {
    fn set(&mut self, text: &str) {
        let mut words = text.split(' ');
        let name = words.next().unwrap();
        let behavior = match words.next().unwrap() {
            "domain" => Behavior::Domain,
            "ipcidr" => Behavior::IpCidr,
            _ => Behavior::Classical,
        };
        let set = Arc::new(NamedSet::new(name, behavior));
        fill(&set, self.library.geodata(), words);
        self.library.add_set(set);
    }

    fn category(&mut self, text: &str) {
        let mut words = text.split(' ');
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let geodata = self.library.geodata();
        let set = match kind {
            "site" => geodata.site(name),
            "country" => geodata.country(name),
            _ => geodata.autonomous_system(name.parse().unwrap()),
        };
        fill(&set, geodata, words);
    }

    fn list(&mut self, text: &str) {
        let (name, lines) = text.split_once(' ').unwrap();
        let lines = lines.split(' ');
        let parse = |line| RuleLine::parse_in(line, &self.library).unwrap();
        let list = Rules::compile(lines.map(parse).collect::<Vec<_>>());
        self.library.add_list(name, Arc::new(list));
    }
}

fn fill<'a>(set: &NamedSet, geodata: &Geodata, entries: impl Iterator<Item = &'a str>) {
    let mut builder = RuleSetBuilder::new(set.behavior(), geodata);
    for entry in entries {
        if entry == "-" {
            return;
        }
        builder.push(entry).unwrap();
    }
    set.replace(Arc::new(builder.finish()));
}

/// As the tunnel decides: a name is looked up where a rule needs it, once.
fn decide(rules: &Rules, asked: &str) -> String {
    let (mut flow, address) = flow(asked);
    let (mut from, mut may_resolve) = (0, true);
    loop {
        match rules.find(&flow, from, may_resolve) {
            Found::NeedIp(rule) => {
                assert!(may_resolve, "asked twice");
                (from, may_resolve) = (rule, false);
                flow.destination_ip = address;
            }
            Found::Nothing => return "none".into(),
            Found::Rule(rule) => {
                let target = rules.target(rule, &flow, may_resolve).unwrap();
                let asks = if may_resolve { "" } else { " asks" };
                return format!("{rule} {target}{asks}");
            }
        }
    }
}

fn flow(text: &str) -> (Metadata, Option<IpAddr>) {
    let mut words = text.split(' ');
    let host = words.next().unwrap();
    let to = Endpoint::parse(host).unwrap_or_else(|| Endpoint {
        host: Host::parse(host).unwrap(),
        port: 443,
    });
    let mut inbound_type = InboundType::TProxy;
    let (mut network, mut name, mut source) = (Network::Tcp, "in", "192.0.2.1:50000".to_owned());
    let (mut address, mut program, mut uid) = (None, None, 1);
    let (mut inport, mut dscp) = (0, 0);
    let (mut user, mut mac, mut device, mut sniffed) = (None, None, None, None);
    for (fact, value) in words.map(|word| word.split_once('=').unwrap()) {
        match fact {
            "net" => network = Network::Udp,
            "src" if value.parse::<std::net::SocketAddr>().is_ok() => source = value.into(),
            "src" => source = format!("{value}:50000"),
            "ip" => address = Some(value.parse().unwrap()),
            "in" => inbound_type = inbound(value),
            "name" => name = value,
            "inport" => inport = value.parse().unwrap(),
            "dscp" => dscp = value.parse().unwrap(),
            "user" => user = Some(Arc::from(value)),
            "mac" => mac = Some(value.parse().unwrap()),
            "device" => device = Some(value.into()),
            "sniffed" => sniffed = Some(value.into()),
            "program" => program = Some(value),
            "uid" => uid = value.parse().unwrap(),
            other => panic!("{other}"),
        }
    }
    let mut flow = Metadata::new(
        network,
        inbound_type,
        &Arc::from(name),
        source.parse().unwrap(),
        to,
    );
    flow.inbound_address.set_port(inport);
    flow.inbound_user = user;
    flow.source_mac = mac;
    flow.source_host = device;
    flow.sniffed_host = sniffed;
    flow.dscp = dscp;
    flow.process = program.map(|path| {
        Arc::new(Process {
            uid,
            path: path.into(),
        })
    });
    (flow, address)
}

fn inbound(name: &str) -> InboundType {
    let all = [
        InboundType::Http,
        InboundType::Https,
        InboundType::Socks4,
        InboundType::Socks5,
        InboundType::Redir,
        InboundType::TProxy,
    ];
    all.into_iter().find(|kind| kind.as_str() == name).unwrap()
}
