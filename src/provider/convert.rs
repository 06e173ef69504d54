//! `headgate convert-ruleset`: a rule set from one format to the other, as mihomo's command of that
//! name does. YAML and text become mrs, mrs becomes text.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::entries::{self, ReadError};
use super::mrs;
use super::options::Format;
use crate::rules::geo::Geodata;
use crate::rules::set::{Behavior, RuleSet, RuleSetBuilder};

/// What was made of a set.
pub struct Converted {
    /// Entries in it.
    pub entries: usize,
    /// Entries that were passed over.
    pub skipped: usize,
}

/// Reads `source` and writes it to `target` in the other format.
///
/// # Errors
/// [`ReadError`]; [`Behavior::Classical`] has no mrs form.
pub fn convert(
    source: File,
    target: File,
    behavior: Behavior,
    format: Format,
) -> Result<Converted, ReadError> {
    let builder = RuleSetBuilder::new(behavior, &Geodata::default());
    let read = entries::read(BufReader::new(source), format, builder, 0)?;
    let mut target = BufWriter::new(target);
    match format {
        Format::Mrs => write_text(&read.set, &mut target)?,
        Format::Yaml | Format::Text => {
            let body = mrs::write(&read.set).ok_or(ReadError::OtherBehavior)?;
            target.write_all(&compress_to_vec(body.as_slice(), CompressionLevel::Fastest))?;
        }
    }
    target.flush()?;
    Ok(Converted {
        entries: read.set.entries(),
        skipped: read.skipped,
    })
}

/// An entry a line.
fn write_text(set: &RuleSet, target: &mut dyn Write) -> io::Result<()> {
    if let Some(names) = set.names() {
        for pattern in names.patterns() {
            writeln!(target, "{pattern}")?;
        }
    }
    for prefix in set.addresses().into_iter().flat_map(|set| set.prefixes()) {
        writeln!(target, "{prefix}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::{Prefix, from_bits};
    use proptest::prelude::*;

    /// Through mrs and back; in order, each once.
    fn round_trip(behavior: Behavior, lines: &[String]) -> Vec<String> {
        let mut builder = RuleSetBuilder::new(behavior, &Geodata::default());
        for line in lines {
            builder.push(line).unwrap();
        }
        let body = mrs::write(&builder.finish()).unwrap();
        let frame = compress_to_vec(body.as_slice(), CompressionLevel::Fastest);
        let set = mrs::read(frame.as_slice(), behavior, 1 << 20).unwrap();
        let mut text = Vec::new();
        write_text(&set, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn every_kind_of_pattern_comes_back() {
        let lines = ["*.b.org", "+.a.org", ".c.org", "d.org", "x.*.org"].map(str::to_owned);
        assert_eq!(round_trip(Behavior::Domain, &lines), lines);
        let lines = ["10.0.0.0/8", "2001:db8::/32", "9.9.9.9/32"].map(str::to_owned);
        assert_eq!(round_trip(Behavior::IpCidr, &lines), lines);
    }

    proptest! {
        #[test]
        fn names_come_back(names in proptest::collection::btree_set("(\\+\\.|\\.)?[ab]{1,2}(\\.[ab-]{1,2}){1,2}", 1..12)) {
            let names: Vec<String> = names.into_iter().collect();
            // What a wider pattern says already may be left out or not: both sets must say the same.
            let again = round_trip(Behavior::Domain, &names);
            prop_assert_eq!(round_trip(Behavior::Domain, &again), again);
        }

        #[test]
        fn ranges_are_the_fewest_prefixes(prefixes in proptest::collection::vec((any::<u128>(), 0u8..=128, any::<bool>()), 1..10)) {
            let lines: Vec<String> = prefixes
                .iter()
                .map(|(bits, length, v4)| match v4 {
                    true => Prefix::new(from_bits(bits >> 96, true), length / 4).to_string(),
                    false => Prefix::new(from_bits(*bits, false), *length).to_string(),
                })
                .collect();
            let again = round_trip(Behavior::IpCidr, &lines);
            prop_assert!(again.len() <= lines.len());
            prop_assert_eq!(round_trip(Behavior::IpCidr, &again), again);
        }
    }
}
