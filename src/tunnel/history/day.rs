//! The bytes of one day by device, rule, node and domain, and the hours in which they moved. Pure.
//!
//! Each dimension is a list of names with a bound. When it is full, the name that moved least makes room:
//! its bytes go to [`OTHER`], so that the sum of a dimension is exact whatever was forgotten.
//!
//! A day is kept as entries one after the other: dimension (1), length of the name (1), name, number of points
//! (1), then for each point its hour (1) and the bytes up and down as base-128 numbers, lowest digits
//! first. The same name may come again; its bytes add up. Decoding allocates no more than the bounds allow.

use std::collections::BTreeMap;

use crate::wire::{Reader, Truncated};

/// What bytes are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Who began the flow: an Ethernet address, else an IP address.
    Device,
    /// The deciding rule, as `Type,payload`.
    Rule,
    /// The outbound that carried it.
    Node,
    /// Where it went: a name, else an address.
    Domain,
}

impl Dimension {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Device, Self::Rule, Self::Node, Self::Domain];

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Rule => "rule",
            Self::Node => "node",
            Self::Domain => "domain",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    /// Names of a day. A household has fewer devices; what else is left out is small.
    fn names_max(self) -> usize {
        match self {
            Self::Device | Self::Domain => 128,
            Self::Rule | Self::Node => 64,
        }
    }
}

/// Bytes from clients and to clients.
pub type Moved = [u64; 2];

/// The name under which stands what has no room of its own.
pub const OTHER: &str = "";

/// The hour of what is only known to belong to the day.
pub const WHOLE_DAY: u8 = 24;

/// Bytes of a name; longer ones are cut.
const NAME_BYTES_MAX: usize = 96;

/// The bytes are no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<Truncated> for Malformed {
    fn from(_: Truncated) -> Self {
        Self
    }
}

/// What one name has moved, by hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(Vec<(u8, Moved)>);

impl Row {
    fn add(&mut self, hour: u8, moved: Moved) {
        match self.0.iter_mut().find(|(known, _)| *known == hour) {
            Some((_, sum)) => *sum = plus(*sum, moved),
            None => {
                self.0.push((hour, moved));
                self.0.sort_unstable_by_key(|(hour, _)| *hour);
            }
        }
    }

    /// The hours in which something moved, in order.
    #[must_use]
    pub fn points(&self) -> &[(u8, Moved)] {
        &self.0
    }

    /// The whole.
    #[must_use]
    pub fn total(&self) -> Moved {
        let points = self.0.iter().map(|(_, moved)| *moved);
        points.fold([0; 2], plus)
    }
}

/// The sum of both.
#[must_use]
pub fn plus(a: Moved, b: Moved) -> Moved {
    let ([a_up, a_down], [b_up, b_down]) = (a, b);
    [a_up.saturating_add(b_up), a_down.saturating_add(b_down)]
}

/// One day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970, local time.
    pub date: u32,
    tables: [BTreeMap<Box<str>, Row>; 4],
}

impl Day {
    /// A day in which nothing has moved yet.
    #[must_use]
    pub fn new(date: u32) -> Self {
        Self {
            date,
            ..Self::default()
        }
    }

    fn table(&mut self, dimension: Dimension) -> &mut BTreeMap<Box<str>, Row> {
        let [device, rule, node, domain] = &mut self.tables;
        match dimension {
            Dimension::Device => device,
            Dimension::Rule => rule,
            Dimension::Node => node,
            Dimension::Domain => domain,
        }
    }

    /// The names of a dimension with what they moved, [`OTHER`] among them.
    pub fn rows(&self, dimension: Dimension) -> impl Iterator<Item = (&str, &Row)> {
        let [device, rule, node, domain] = &self.tables;
        let table = match dimension {
            Dimension::Device => device,
            Dimension::Rule => rule,
            Dimension::Node => node,
            Dimension::Domain => domain,
        };
        table.iter().map(|(name, row)| (&**name, row))
    }

    /// Whether nothing has moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// Enters what moved in an hour.
    pub fn add(&mut self, dimension: Dimension, name: &str, hour: u8, moved: Moved) {
        let mut ends = (0..=name.len().min(NAME_BYTES_MAX)).rev();
        let name = ends.find_map(|end| name.get(..end)).unwrap_or(OTHER);
        let table = self.table(dimension);
        if let Some(row) = table.get_mut(name) {
            return row.add(hour, moved);
        }
        let names = table.len() - usize::from(table.contains_key(OTHER));
        if name != OTHER && names >= dimension.names_max() {
            fold_least(table);
        }
        table.entry(name.into()).or_default().add(hour, moved);
    }

    /// Enters everything of `other`, whatever its date.
    pub fn add_day(&mut self, other: &Self) {
        for dimension in Dimension::ALL {
            for (name, row) in other.rows(dimension) {
                for (hour, moved) in row.points() {
                    self.add(dimension, name, *hour, *moved);
                }
            }
        }
    }

    /// The same without its hours.
    #[must_use]
    pub fn without_hours(mut self) -> Self {
        for row in self.tables.iter_mut().flat_map(BTreeMap::values_mut) {
            row.0 = vec![(WHOLE_DAY, row.total())];
        }
        self
    }

    /// Writes the day in at most `bytes_max`, more of it in [`OTHER`] where it does not fit.
    #[must_use]
    pub fn encode_within(&self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = self.encode();
        let mut smaller = None;
        while bytes.len() > bytes_max {
            let day = smaller.get_or_insert_with(|| self.clone());
            // An eighth of the longest list at a time.
            let Some(longest) = day.tables.iter_mut().max_by_key(|table| table.len()) else {
                break;
            };
            if longest.len() <= 1 {
                break;
            }
            for _ in 0..longest.len().div_ceil(8) {
                fold_least(longest);
            }
            bytes = day.encode();
        }
        bytes
    }

    /// Writes the day.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, table) in (0..).zip(&self.tables) {
            for (name, row) in table {
                // Both are bounded far below 256.
                let length = u8::try_from(name.len()).unwrap_or(0);
                let points = u8::try_from(row.0.len()).unwrap_or(0);
                out.extend([index, length]);
                out.extend_from_slice(name.as_bytes());
                out.push(points);
                for (hour, moved) in &row.0 {
                    out.push(*hour);
                    moved
                        .iter()
                        .for_each(|bytes| write_number(&mut out, *bytes));
                }
            }
        }
        out
    }

    /// Adds what was written.
    ///
    /// # Errors
    /// [`Malformed`]; what stood before the mistake is added.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let dimension = usize::from(reader.u8()?);
            let dimension = *Dimension::ALL.get(dimension).ok_or(Malformed)?;
            let length = usize::from(reader.u8()?);
            let name = str::from_utf8(reader.take(length)?).map_err(|_| Malformed)?;
            for _ in 0..reader.u8()? {
                let hour = reader.u8()?;
                if hour > WHOLE_DAY {
                    return Err(Malformed);
                }
                let moved = [read_number(&mut reader)?, read_number(&mut reader)?];
                self.add(dimension, name, hour, moved);
            }
        }
        Ok(())
    }
}

/// Moves the name with the fewest bytes to [`OTHER`].
fn fold_least(table: &mut BTreeMap<Box<str>, Row>) {
    let bytes = |row: &Row| row.total().into_iter().fold(0, u64::saturating_add);
    let named = table.iter().filter(|(name, _)| &***name != OTHER);
    let least = named.min_by_key(|(_, row)| bytes(row));
    let Some(name) = least.map(|(name, _)| name.clone()) else {
        return;
    };
    if let Some(row) = table.remove(&name) {
        let other = table.entry(OTHER.into()).or_default();
        for (hour, moved) in row.0 {
            other.add(hour, moved);
        }
    }
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn read_number(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let digit = u64::from(byte & 0x7f);
        if digit << shift >> shift != digit {
            return Err(Malformed);
        }
        number |= digit << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(day: &Day, dimension: Dimension) -> Moved {
        let rows = day.rows(dimension).map(|(_, row)| row.total());
        rows.fold([0; 2], plus)
    }

    #[test]
    fn a_full_list_forgets_names_and_no_byte() {
        let mut day = Day::new(1);
        for n in 0..1000_u64 {
            day.add(Dimension::Node, &format!("node {n}"), 3, [n, 1]);
        }
        assert_eq!(sum(&day, Dimension::Node), [499_500, 1000]);
        assert_eq!(day.rows(Dimension::Node).count(), 65);
        let names: Vec<_> = day.rows(Dimension::Node).map(|(name, _)| name).collect();
        assert!(names.contains(&OTHER) && names.contains(&"node 999"));
    }

    #[test]
    fn hours_add_up_to_the_day() {
        let mut day = Day::new(1);
        day.add(Dimension::Rule, "Match", 5, [1, 2]);
        day.add(Dimension::Rule, "Match", 4, [10, 20]);
        day.add(Dimension::Rule, "Match", 5, [100, 200]);
        let (_, row) = day.rows(Dimension::Rule).next().unwrap();
        assert_eq!(row.points(), [(4, [10, 20]), (5, [101, 202])]);
        let day = day.without_hours();
        let (_, row) = day.rows(Dimension::Rule).next().unwrap();
        assert_eq!(row.points(), [(WHOLE_DAY, [111, 222])]);
    }

    #[test]
    fn what_does_not_fit_is_shortened_not_lost() {
        let mut day = Day::new(1);
        for n in 0..128_u64 {
            let name = format!("a-long-name-of-some-host.{n}.example.org");
            for hour in 0..24 {
                day.add(Dimension::Domain, &name, hour, [n << 30, n << 20]);
            }
        }
        let bytes = day.encode_within(4000);
        assert!(bytes.len() <= 4000 && bytes.len() > 3000, "{}", bytes.len());
        let mut back = Day::new(1);
        back.decode(&bytes).unwrap();
        assert_eq!(sum(&back, Dimension::Domain), sum(&day, Dimension::Domain));
        let name = "a-long-name-of-some-host.127.example.org";
        assert!(back.rows(Dimension::Domain).any(|(known, _)| known == name));
    }

    #[test]
    fn malformed_days_are_refused() {
        let refused = |bytes: &[u8]| Day::new(0).decode(bytes) == Err(Malformed);
        assert!(refused(b"\x04\0\0"), "no such dimension");
        assert!(refused(b"\0\x01\xff\0"), "not UTF-8");
        assert!(refused(b"\0\x01a\x01\x19\0\0"), "no such hour");
        assert!(refused(b"\0\x01a\x01\x01\0"), "cut");
        let long = [b"\0\x01a\x01\x01".as_slice(), &[0xff; 10]].concat();
        assert!(refused(&long), "no such number");
    }

    proptest! {
        #[test]
        fn a_day_reads_back(
            moves in proptest::collection::vec((0..4_usize, "[a-c\u{e9}]{0,60}", 0..24_u8, any::<u64>(), 0..300_u64), 0..300)
        ) {
            let mut day = Day::new(7);
            for (dimension, name, hour, up, down) in &moves {
                day.add(Dimension::ALL[*dimension], name, *hour, [*up, *down]);
            }
            let mut back = Day::new(7);
            prop_assert_eq!(back.decode(&day.encode()), Ok(()));
            prop_assert_eq!(back, day);
        }

        #[test]
        fn no_bytes_panic_or_grow(bytes: Vec<u8>) {
            let mut day = Day::new(0);
            let _maybe = day.decode(&bytes);
            prop_assert!(day.rows(Dimension::Domain).count() <= 129);
        }
    }
}
