//! SRC-PORT, DST-PORT, IN-PORT and DSCP lines: stretches of numbers, each with its first line.

use super::super::intervals::paint;
use super::super::port::Ranges;

/// The table of one field.
#[derive(Default)]
pub(super) struct Numbers {
    /// Where a stretch starts, and the first line that holds it.
    stretches: Box<[(u16, Option<u32>)]>,
    /// Every line, ascending: for searches that start behind a stretch's first line.
    lines: Box<[(u32, Box<Ranges>)]>,
}

impl Numbers {
    /// Builds from lines in ascending order and their ranges.
    pub fn build(lines: Vec<(u32, Box<Ranges>)>) -> Self {
        let claims: Vec<_> = lines
            .iter()
            .flat_map(|(line, ranges)| {
                let claim = |&(first, last): &(u16, u16)| (first.into(), last.into(), *line);
                ranges.iter().map(claim)
            })
            .collect();
        let stretches = paint(&claims).into_iter().filter_map(|(start, line)| {
            // The stretch that starts behind 65535 holds no number.
            Some((u16::try_from(start).ok()?, line))
        });
        Self {
            stretches: stretches.collect(),
            lines: lines.into(),
        }
    }

    /// The first line at or after `from` that holds `number`.
    pub fn find(&self, number: u16, from: u32) -> Option<u32> {
        let behind = self
            .stretches
            .partition_point(|(start, _)| *start <= number);
        let (_, first) = self.stretches.get(behind.checked_sub(1)?)?;
        let first = (*first)?;
        if first >= from {
            return Some(first);
        }
        let skipped = self.lines.partition_point(|(line, _)| *line < from);
        let holds = |ranges: &Ranges| ranges.iter().any(|(a, b)| (*a..=*b).contains(&number));
        let mut rest = self.lines.iter().skip(skipped);
        rest.find(|(_, ranges)| holds(ranges))
            .map(|(line, _)| *line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_walk(
            list in prop::collection::vec(
                prop::collection::vec((any::<u16>(), any::<u16>()), 1..3), 0..12
            ),
            numbers in prop::collection::vec(any::<u16>(), 20),
            from in 0u32..12,
        ) {
            let list: Vec<(u32, Box<Ranges>)> = (0..).zip(list.into_iter().map(|ranges| {
                ranges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect()
            })).collect();
            let table = Numbers::build(list.clone());
            for number in numbers.into_iter().chain([0, u16::MAX]) {
                let want = list
                    .iter()
                    .find(|(line, ranges)| {
                        *line >= from && ranges.iter().any(|(a, b)| (*a..=*b).contains(&number))
                    })
                    .map(|(line, _)| *line);
                prop_assert_eq!(table.find(number, from), want);
            }
        }
    }
}
