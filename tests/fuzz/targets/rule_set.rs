//! Sources of rule sets: text, YAML and mihomo's mrs. In whatever pieces a source arrives, the set
//! that is made of it answers alike. Input: a byte for format, behavior and pieces, the source.
#![no_main]

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use headgate::metadata::{Endpoint, InboundType, Metadata, Network};
use headgate::provider::entries::{self, ReadError};
use headgate::provider::options::Format;
use headgate::rules::geo::Geodata;
use headgate::rules::matcher::Known;
use headgate::rules::set::{Behavior, NamedSet, RuleSetBuilder};
use headgate::rules::{Library, RuleLine, Truth};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const SIZE_MAX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choice = usize::from(input.byte());
    let format = [Format::Yaml, Format::Text, Format::Mrs][choice % 3];
    let behavior = [Behavior::Domain, Behavior::IpCidr, Behavior::Classical][choice / 3 % 3];
    let source = input.rest();
    let whole = answers(source, format, behavior);
    let pieces = BufReader::with_capacity(1 + choice / 9, source);
    let pieces = answers(pieces, format, behavior);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (whole, pieces) => assert_eq!(whole.is_ok(), pieces.is_ok()),
    }
});

fn answers(
    source: impl BufRead,
    format: Format,
    behavior: Behavior,
) -> Result<(usize, usize, Vec<Truth>), ReadError> {
    let read = entries::read(
        source,
        format,
        RuleSetBuilder::new(behavior, &Geodata::default()),
        SIZE_MAX,
    )?;
    let counts = (read.set.entries(), read.skipped);
    let set = Arc::new(NamedSet::new("s", behavior));
    set.replace(Arc::new(read.set));
    let mut library = Library::default();
    library.add_set(set);
    let line = RuleLine::parse_in("RULE-SET,s,p", &library).unwrap();
    let client = "10.0.0.1:1000".parse().unwrap();
    let truths = ["a.org:1", "x.a.org:22", "1.2.3.4:443", "[2001:db8::1]:4"].map(|destination| {
        let to = Endpoint::parse(destination).unwrap();
        let inbound = Arc::from("in");
        let flow = Metadata::new(Network::Tcp, InboundType::TProxy, &inbound, client, to);
        line.matcher().truth(&Known::flow(&flow, true))
    });
    Ok((counts.0, counts.1, truths.to_vec()))
}
