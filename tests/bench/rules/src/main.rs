//! One measurement: `rules names|nets|both|lines COUNT`. Makes COUNT entries, loads them as headgate does
//! (a text file of a rule provider, or plain lines for `lines`), and prints a row of the table.
//!
//! `both` is the bar of the project: COUNT suffixes, and a tenth as many prefixes.

use std::io::{BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headgate::metadata::{Endpoint, InboundType, Metadata, Network};
use headgate::platform::memory;
use headgate::provider::entries;
use headgate::provider::options::Format;
use headgate::rules::geo::Geodata;
use headgate::rules::set::{Behavior, NamedSet, RuleSetBuilder};
use headgate::rules::{Found, Library, RuleLine, Rules, RulesBuilder};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Flows that are decided; half of them are in the set.
const FLOWS: usize = 20_000;

/// How often each is.
const TURNS: usize = 20;

fn main() {
    memory::return_at_once();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, count] = arguments.as_slice() else {
        eprintln!("usage: rules names|nets|both|lines COUNT");
        std::process::exit(2);
    };
    let count: usize = count.parse().expect("a number");
    let (names, nets) = match kind.as_str() {
        "nets" => (0, count),
        "both" => (count, count / 10),
        _ => (count, 0),
    };
    // Sources lie in files, as those of providers do.
    let place = std::env::temp_dir().join(format!("headgate-bench-rules-{}", std::process::id()));
    let files = [("names", names), ("nets", nets)].map(|(what, count)| {
        let path = place.with_extension(what);
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
        for number in 0..count {
            let entry = match what {
                "names" => format!("+.{}", name(number)),
                _ => net(number),
            };
            writeln!(file, "{entry}").expect("room");
        }
        path
    });
    let flows = flows(names, nets);
    memory::collect();
    let before = resident();
    let began = cpu_time();
    let rules = if kind == "lines" {
        plain(&files[0])
    } else {
        sets(&files, names, nets)
    };
    let load = cpu_time() - began;
    memory::collect();
    let added = resident().saturating_sub(before);
    for file in files {
        std::fs::remove_file(file).expect("our file");
    }
    let mut times = Vec::new();
    let mut hits = 0;
    for flow in &flows {
        let began = Instant::now();
        for _ in 0..TURNS {
            let found = std::hint::black_box(&rules).find(std::hint::black_box(flow), 0, false);
            hits += usize::from(matches!(found, Found::Rule(rule) if rule + 1 < rules.len()));
        }
        times.push(began.elapsed().as_nanos() / TURNS as u128);
    }
    times.sort_unstable();
    let entries = names + nets;
    println!(
        "| {kind} {count} | {:.0} | {:.0} k/s | {} KiB | {:.1} B | {} ns | {} ns | {} |",
        load.as_secs_f64() * 1e3,
        entries as f64 / load.as_secs_f64() / 1e3,
        added / 1024,
        added as f64 / entries as f64,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        hits / TURNS * 100 / flows.len(),
    );
}

fn sets(files: &[std::path::PathBuf; 2], names: usize, nets: usize) -> Rules {
    let mut library = Library::default();
    let mut lines = Vec::new();
    let all = [(Behavior::Domain, names), (Behavior::IpCidr, nets)];
    for ((behavior, count), file) in all.into_iter().zip(files) {
        if count == 0 {
            continue;
        }
        let name = format!("{behavior:?}");
        let builder = RuleSetBuilder::new(behavior, &Geodata::default());
        let source = BufReader::new(std::fs::File::open(file).expect("our file"));
        let read = entries::read(source, Format::Text, builder, 0).expect("entries");
        assert_eq!((read.set.entries(), read.skipped), (count, 0));
        let set = Arc::new(NamedSet::new(&name, behavior));
        set.replace(Arc::new(read.set));
        library.add_set(set);
        lines.push(format!("RULE-SET,{name},A"));
    }
    lines.push("MATCH,Z".into());
    let lines = lines
        .iter()
        .map(|line| RuleLine::parse_in(line, &library).expect("a rule"));
    Rules::compile(lines)
}

fn plain(file: &std::path::Path) -> Rules {
    let mut builder = RulesBuilder::default();
    let text = std::fs::read_to_string(file).expect("our file");
    for line in text.lines() {
        let rule = format!("DOMAIN-SUFFIX,{},A", line.trim_start_matches("+."));
        builder
            .push(&RuleLine::parse(&rule).expect("a rule"))
            .expect("room");
    }
    builder
        .push(&RuleLine::parse("MATCH,Z").expect("a rule"))
        .expect("room");
    builder.finish()
}

/// A mixing of bits, so that entries are spread and the same in every run (splitmix64).
fn mixed(number: usize) -> u64 {
    let mut x = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Names as blocklists have them: some words, a number, few top-level domains.
fn name(number: usize) -> String {
    const WORDS: [&str; 16] = [
        "ads", "track", "pixel", "cdn", "media", "click", "stat", "metric", "shop", "news", "game",
        "play", "cloud", "data", "mail", "app",
    ];
    const TOPS: [&str; 8] = ["com", "net", "org", "ru", "de", "co.uk", "io", "xyz"];
    let bits = mixed(number);
    let word = |shift: u32| WORDS[(bits >> shift) as usize % WORDS.len()];
    let top = TOPS[(bits >> 40) as usize % TOPS.len()];
    format!("{}{}{number:x}.{top}", word(0), word(8))
}

/// IPv4 prefixes of 16 to 24 bits, and a quarter IPv6 of 32 to 48.
fn net(number: usize) -> String {
    let bits = mixed(number ^ 0x5555_0000);
    if number % 4 == 3 {
        let [a, b, c, _, ..] = bits.to_be_bytes();
        return format!("2a{a:02x}:{b:02x}{c:02x}:{:x}::/48", (bits >> 8) as u16);
    }
    let [a, b, c, ..] = bits.to_be_bytes();
    let length = 16 + bits % 9;
    format!("{}.{b}.{c}.0/{length}", a % 223 + 1)
}

fn flows(names: usize, nets: usize) -> Vec<Metadata> {
    let inbound = Arc::from("lan");
    let one = |number: usize| {
        let pick = mixed(number * 7) as usize;
        let to = match (names, nets) {
            (0, _) => format!("{}.{}.1.1:443", pick % 223 + 1, pick >> 8 & 255),
            // Half of the names are in the set, at some depth, and half are not.
            _ if number % 2 == 0 => format!("www.{}:443", name(pick % names)),
            _ => format!("www.{}:443", name(names + pick % 1_000_000)),
        };
        let mut flow = Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &inbound,
            "192.168.1.2:50000".parse().expect("an address"),
            Endpoint::parse(&to).expect("a destination"),
        );
        if names > 0 && nets > 0 {
            let bytes = mixed(pick).to_be_bytes();
            flow.destination_ip = Some([bytes[0], bytes[1], bytes[2], bytes[3]].into());
        }
        flow
    };
    (0..FLOWS).map(one).collect()
}

/// How long this thread has been on a CPU. Loading is done by one thread, and others have the machine too.
fn cpu_time() -> Duration {
    // The kernel adds up when a thread leaves its CPU.
    std::thread::sleep(Duration::from_millis(1));
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    let first = statistics.split_whitespace().next().expect("a number");
    Duration::from_nanos(first.parse().expect("a number"))
}

/// Proportional set size, bytes.
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("procfs");
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .expect("a line");
    let kib: usize = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib * 1024
}
