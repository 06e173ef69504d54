//! What connections and names were there lately, for queries: two rings of fixed size, made when somebody
//! first asks or when the configuration says so (`rule-engine.history`), and nothing before that.

use std::collections::VecDeque;

use super::event::Datum;

/// One row.
pub type Record = Box<[(&'static str, Datum)]>;

/// Bytes of connections that have ended; some 5000 of them.
pub const FLOWS_MAX_BYTES: usize = 1_400_000;

/// Bytes of answered names; some 4000 of them.
pub const NAMES_MAX_BYTES: usize = 600_000;

/// Rows, the oldest of which go when there are too many.
pub struct Ring {
    rows: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    /// An empty one.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            rows: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Puts a row in.
    pub fn push(&mut self, row: Record) {
        self.bytes += weight(&row);
        self.rows.push_back(row);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= weight(&oldest);
        }
    }

    /// The rows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.rows.iter()
    }
}

/// What a row takes: itself, its place in the ring with the room that the ring keeps, and its texts, each
/// with what an allocation costs.
fn weight(row: &Record) -> usize {
    let texts = row.iter().map(|(_, datum)| match datum {
        Datum::Text(text) => text.len() + 16,
        Datum::Names(names) => names.iter().map(|name| name.len() + 32).sum::<usize>() + 16,
        Datum::Int(_) | Datum::Bool(_) | Datum::Address(_) => 0,
    });
    2 * size_of::<Record>() + 16 + size_of_val(&**row) + texts.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_forgets_its_oldest_and_holds_its_bound() {
        let mut ring = Ring::new(10_000);
        for n in 0..1000 {
            ring.push(Box::new([
                ("n", Datum::Int(n)),
                ("name", Datum::Text("example.org".into())),
            ]));
            assert!(ring.bytes <= 10_000);
        }
        let numbers = ring.iter().map(|row| row[0].1.clone());
        let numbers: Vec<_> = numbers.collect();
        assert_eq!(numbers.last(), Some(&Datum::Int(999)));
        assert!((50..100).contains(&numbers.len()), "{}", numbers.len());
        // What alone is too large is not kept.
        ring.push(Box::new([("name", Datum::Text("x".repeat(20_000).into()))]));
        assert_eq!((ring.iter().count(), ring.bytes), (0, 0));
    }
}
