//! MaxMind DB, version 2 of the format: the addresses of some countries or autonomous systems,
//! by one walk of the tree (<https://maxmind.github.io/MaxMind-DB/>).
//!
//! Known by the `database_type` of their metadata: MaxMind's own records (`country.iso_code`,
//! `autonomous_system_number`), `sing-geoip` (a code), MetaCubeX's `Meta-geoip0` (a code or several),
//! ipinfo's (`asn`: `AS13335`).
//!
//! Rules never look into the file: what is in use is a small part of it as a rule, a table answers
//! faster, and offload must know all addresses of a country at once. Pure; whatever the bytes are, a
//! walk takes no more steps than the tree has nodes.

use std::cell::Cell;

use crate::rules::set::AddressSetBuilder;

/// What stands before the metadata, and within how many of the last bytes.
const MARK: &[u8] = b"\xab\xcd\xefMaxMind.com";
const METADATA_MAX: usize = 128 * 1024;

/// Zeros between the tree and the data.
const GAP: usize = 16;

/// Items of data that may be looked at for each node: MaxMind's longest record has some sixty.
const ITEMS_PER_NODE: usize = 256;

/// A code, where its addresses go, and how many prefixes they were.
pub type Wanted<'a> = (&'a str, AddressSetBuilder, usize);

/// A database; parts of its bytes.
struct Database<'a> {
    tree: &'a [u8],
    data: Data<'a>,
    nodes: usize,
    /// Bits of one of the two pointers of a node.
    width: usize,
    /// Whether the tree begins with the 128 bits of IPv6.
    v6: bool,
    layout: Layout,
}

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `country.iso_code`.
    Country,
    /// A code, or a list of codes.
    Codes,
    /// `autonomous_system_number`, or ipinfo's `asn`.
    System,
}

/// Collects the addresses whose record has one of the wanted codes (in lower case; of autonomous
/// systems the number), and counts the prefixes. `None`: it is no such database, or a broken one.
pub fn collect(bytes: &[u8], wanted: &mut [Wanted<'_>]) -> Option<()> {
    let budget = Cell::new(METADATA_MAX);
    let database = Database::open(bytes, &budget)?;
    budget.set(database.nodes.saturating_mul(ITEMS_PER_NODE));
    let v4_root = database.v4_root()?;
    if let Some(root) = v4_root {
        database.walk(root, 32, None, wanted)?;
    }
    if database.v6 {
        // The IPv4 addresses stand below ::/96, and are met again below their other notations.
        database.walk(Child::Node(0), 128, v4_root, wanted)?;
    }
    Some(())
}

/// Where a pointer of a node leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Child {
    Node(usize),
    /// Offset in the data.
    Record(usize),
    Nothing,
}

impl<'a> Database<'a> {
    fn open(bytes: &'a [u8], budget: &'a Cell<usize>) -> Option<Self> {
        let data = |bytes| Data { bytes, budget };
        let tail_at = bytes.len().saturating_sub(METADATA_MAX);
        let tail = bytes.get(tail_at..)?;
        let mark = tail
            .windows(MARK.len())
            .rposition(|window| window == MARK)?;
        let metadata = data(tail.get(mark + MARK.len()..)?);
        let number = |key: &str| {
            let at = metadata.field(0, key)?;
            usize::try_from(metadata.number(at)?).ok()
        };
        let (nodes, width) = (number("node_count")?, number("record_size")?);
        if !matches!(width, 24 | 28 | 32) || number("binary_format_major_version") != Some(2) {
            return None;
        }
        let kind = metadata.text(metadata.field(0, "database_type")?)?;
        let layout = match kind {
            "sing-geoip" | "Meta-geoip0" => Layout::Codes,
            _ if kind.to_ascii_lowercase().contains("asn") => Layout::System,
            _ => Layout::Country,
        };
        let tree_length = nodes.checked_mul(width)?.checked_div(4)?;
        let data_end = tail_at + mark;
        Some(Self {
            tree: bytes.get(..tree_length)?,
            data: data(bytes.get(tree_length.checked_add(GAP)?..data_end)?),
            nodes,
            width,
            v6: number("ip_version")? == 6,
            layout,
        })
    }

    /// Where the IPv4 addresses begin; none when there are none.
    fn v4_root(&self) -> Option<Option<Child>> {
        let mut at = Child::Node(0);
        for _ in 0..if self.v6 { 96 } else { 0 } {
            match at {
                Child::Node(node) => at = self.child(node, false)?,
                Child::Nothing => return Some(None),
                Child::Record(_) => break,
            }
        }
        Some(Some(at))
    }

    fn child(&self, node: usize, right: bool) -> Option<Child> {
        let bytes = self.width / 4;
        let node = self.tree.get(node * bytes..(node + 1) * bytes)?;
        let value = match (node, right) {
            (&[a, b, c, _, _, _], false) | (&[_, _, _, a, b, c], true) => [0, a, b, c],
            (&[a, b, c, top, _, _, _], false) => [top >> 4, a, b, c],
            (&[_, _, _, top, a, b, c], true) => [top & 0xf, a, b, c],
            (&[a, b, c, d, _, _, _, _], false) | (&[_, _, _, _, a, b, c, d], true) => [a, b, c, d],
            _ => return None,
        };
        let value = usize::try_from(u32::from_be_bytes(value)).ok()?;
        match value.checked_sub(self.nodes) {
            None => Some(Child::Node(value)),
            Some(0) => Some(Child::Nothing),
            Some(behind) => Some(Child::Record(behind.checked_sub(GAP)?)),
        }
    }

    /// Goes through every address below `root`, which has `length` bits, but not into `except`.
    fn walk(
        &self,
        root: Child,
        length: u32,
        except: Option<Child>,
        wanted: &mut [Wanted<'_>],
    ) -> Option<()> {
        // In a tree each node is met once.
        let mut left = self.nodes;
        let mut found = (usize::MAX, Vec::new());
        let mut waiting = vec![(root, 0u128, 0u32)];
        while let Some((at, start, depth)) = waiting.pop() {
            match at {
                Child::Nothing => {}
                Child::Node(_) if Some(at) == except => {}
                Child::Node(node) => {
                    left = left.checked_sub(1)?;
                    let below = length.checked_sub(depth + 1)?;
                    let (zero, one) = (self.child(node, false)?, self.child(node, true)?);
                    waiting.push((one, start | 1 << below, depth + 1));
                    waiting.push((zero, start, depth + 1));
                }
                Child::Record(record) => {
                    // Neighbours share their record often.
                    if found.0 != record {
                        found = (record, self.matching(record, wanted)?);
                    }
                    let last = start
                        | 1u128
                            .checked_shl(length - depth)
                            .map_or(u128::MAX, |n| n - 1);
                    for index in &found.1 {
                        if let Some((_, addresses, count)) = wanted.get_mut(*index) {
                            addresses.push_range(start, last, length == 32);
                            *count += 1;
                        }
                    }
                }
            }
        }
        Some(())
    }

    /// Which of the wanted codes a record has.
    fn matching(&self, record: usize, wanted: &[Wanted<'_>]) -> Option<Vec<usize>> {
        let data = self.data;
        data.item(record)?;
        let mut codes: Vec<usize> = Vec::new();
        let mut has = |code: &str| {
            let same = |(_, (name, ..)): &(usize, &Wanted<'_>)| name.eq_ignore_ascii_case(code);
            let places = wanted.iter().enumerate().filter(same);
            codes.extend(places.map(|(index, _)| index));
        };
        match self.layout {
            Layout::Country => {
                let code = data
                    .field(record, "country")
                    .and_then(|at| data.field(at, "iso_code"));
                if let Some(code) = code {
                    has(data.text(code)?);
                }
            }
            Layout::Codes => match data.item(record)? {
                (Kind::Array, count, mut at) => {
                    for _ in 0..count {
                        has(data.text(at)?);
                        at = data.skip(at)?;
                    }
                }
                _ => has(data.text(record)?),
            },
            Layout::System => {
                if let Some(at) = data.field(record, "autonomous_system_number") {
                    has(&data.number(at)?.to_string());
                } else if let Some(at) = data.field(record, "asn") {
                    let text = data.text(at)?;
                    has(text.strip_prefix("AS").unwrap_or(text));
                }
            }
        }
        Some(codes)
    }
}

/// The data section, or the metadata: items that name their kind and size.
#[derive(Clone, Copy)]
struct Data<'a> {
    bytes: &'a [u8],
    /// Items that may still be looked at, lest a small file take long.
    budget: &'a Cell<usize>,
}

/// As far as we tell kinds apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pointer,
    Text,
    Number,
    Map,
    Array,
    /// Bytes, floating point, boolean, and what else may come.
    Other,
}

impl<'a> Data<'a> {
    /// Kind, size and the place behind the head of the item at `at`; of a pointer the size is where
    /// it leads.
    fn head(self, at: usize) -> Option<(Kind, usize, usize)> {
        self.budget.set(self.budget.get().checked_sub(1)?);
        let mut rest = self.bytes.get(at..)?.iter().map(|byte| usize::from(*byte));
        let control = rest.next()?;
        let mut number = |bytes: usize| rest.by_ref().take(bytes).fold(0, |sum, b| sum << 8 | b);
        let kind = match control >> 5 {
            1 => {
                // Two bits of size, three of the value's top.
                let (size, top) = (control >> 3 & 3, control & 7);
                let (bytes, base) = match size {
                    0 => (1, top << 8),
                    1 => (2, (top << 16) + 2048),
                    2 => (3, (top << 24) + 526_336),
                    _ => (4, 0),
                };
                let to = base.checked_add(number(bytes))?;
                return Some((Kind::Pointer, to, at + 1 + bytes));
            }
            0 => match number(1) {
                1..=3 => Kind::Number,
                4 => Kind::Array,
                _ => Kind::Other,
            },
            2 => Kind::Text,
            5 | 6 => Kind::Number,
            7 => Kind::Map,
            _ => Kind::Other,
        };
        let extended = usize::from(control >> 5 == 0);
        let (bytes, base) = match control & 31 {
            29 => (1, 29),
            30 => (2, 285),
            31 => (3, 65_821),
            size => (0, size),
        };
        let size = base + number(bytes);
        // A boolean has its value where others have their size.
        let boolean = extended == 1 && self.bytes.get(at + 1) == Some(&7);
        let size = if boolean { 0 } else { size };
        Some((kind, size, at + 1 + extended + bytes))
    }

    /// As [`Data::head`], of the item that a pointer leads to. A pointer never leads to another.
    fn item(self, at: usize) -> Option<(Kind, usize, usize)> {
        match self.head(at)? {
            (Kind::Pointer, to, _) => self.head(to).filter(|(kind, ..)| *kind != Kind::Pointer),
            item => Some(item),
        }
    }

    /// The place behind the item at `at`.
    fn skip(self, at: usize) -> Option<usize> {
        let (mut at, mut left) = (at, 1usize);
        while left > 0 {
            left -= 1;
            let (kind, size, behind) = self.head(at)?;
            at = match kind {
                Kind::Pointer => behind,
                Kind::Map => {
                    left = left.checked_add(size.checked_mul(2)?)?;
                    behind
                }
                Kind::Array => {
                    left = left.checked_add(size)?;
                    behind
                }
                Kind::Text | Kind::Number | Kind::Other => behind.checked_add(size)?,
            };
        }
        Some(at)
    }

    /// The value of `key` in the map at `at`.
    fn field(self, at: usize, key: &str) -> Option<usize> {
        let (Kind::Map, count, mut at) = self.item(at)? else {
            return None;
        };
        for _ in 0..count {
            let value = self.skip(at)?;
            if self.text(at)? == key {
                return Some(value);
            }
            at = self.skip(value)?;
        }
        None
    }

    fn text(self, at: usize) -> Option<&'a str> {
        let (Kind::Text, size, at) = self.item(at)? else {
            return None;
        };
        let text = self.bytes.get(at..at.checked_add(size)?)?;
        str::from_utf8(text).ok()
    }

    fn number(self, at: usize) -> Option<u64> {
        let (Kind::Number, size @ 0..=8, at) = self.item(at)? else {
            return None;
        };
        let bytes = self.bytes.get(at..at + size)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }
}
