//! The rule lines as text for the APIs and for the name table, in as few bytes as will do.
//!
//! Lines stand one behind the other: the number of the line's shape, the payload's length (both
//! in base 128, one byte each as a rule), the payload. A shape is what many lines share (type,
//! parameters, target) and is kept once. The place of every sixteenth line is noted.

use std::collections::HashMap;
use std::sync::Arc;

/// Every how many lines a place is noted: a look-up steps over half of them on the average.
const STEP: usize = 16;

/// What a line needs of the list to be decided, besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Always matches.
    Always,
    /// The name alone decides.
    Name,
    /// The destination address alone decides; the payload is a prefix.
    Destination,
    /// Something else decides: source, ports.
    Other,
    /// The matcher must be asked.
    Ask,
}

/// What many lines share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub kind: &'static str,
    pub target: Arc<str>,
    pub class: Class,
}

/// One line, as the APIs show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleView<'a> {
    /// Type name as the Clash API shows it (`DomainSuffix`).
    pub kind: &'static str,
    /// Payload as the Clash API shows it.
    pub payload: &'a str,
    /// The proxy, group or built-in that it sends to.
    pub target: &'a Arc<str>,
}

/// A line in the store.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    pub shape: usize,
    pub payload: &'a [u8],
}

/// The store. Nothing in it changes once the list is compiled.
#[derive(Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    places: Vec<u32>,
    count: usize,
    /// Each shape, and the first line that has it.
    shapes: Vec<(Shape, usize)>,
}

/// The store would outgrow its 32-bit places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Lines {
    pub fn len(&self) -> usize {
        self.count
    }

    /// The shapes with the first line of each, in the order of these.
    pub fn shapes(&self) -> &[(Shape, usize)] {
        &self.shapes
    }

    pub fn shape(&self, record: Record<'_>) -> Option<&Shape> {
        self.shapes.get(record.shape).map(|(shape, _)| shape)
    }

    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        if index >= self.count {
            return None;
        }
        let place = usize::try_from(*self.places.get(index / STEP)?).ok()?;
        let mut bytes = self.bytes.get(place..)?;
        for _ in 0..index % STEP {
            take_record(&mut bytes)?;
        }
        take_record(&mut bytes)
    }

    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let mut bytes = self.bytes.as_slice();
        std::iter::from_fn(move || take_record(&mut bytes))
    }

    pub fn view<'a>(&'a self, record: Record<'a>) -> Option<RuleView<'a>> {
        let shape = self.shape(record)?;
        Some(RuleView {
            kind: shape.kind,
            // Only whole strings were put in.
            payload: str::from_utf8(record.payload).unwrap_or_default(),
            target: &shape.target,
        })
    }
}

fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    let shape = take_number(bytes)?;
    let length = take_number(bytes)?;
    let (payload, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Record { shape, payload })
}

/// Least significant seven bits first; the top bit says that more follow.
fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

fn put_number(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits are left")]
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Fills a store.
#[derive(Default)]
pub(crate) struct LinesBuilder {
    lines: Lines,
    numbers: HashMap<Shape, usize>,
    targets: HashMap<Box<str>, Arc<str>>,
}

impl LinesBuilder {
    pub fn len(&self) -> usize {
        self.lines.count
    }

    pub fn push(
        &mut self,
        kind: &'static str,
        class: Class,
        payload: &str,
        target: &str,
    ) -> Result<(), Full> {
        let place = u32::try_from(self.lines.bytes.len()).map_err(|_| Full)?;
        let target = match self.targets.get(target) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = target.into();
                self.targets.insert(target.into(), Arc::clone(&new));
                new
            }
        };
        let shape = Shape {
            kind,
            target,
            class,
        };
        let lines = &mut self.lines;
        let number = *self.numbers.entry(shape).or_insert_with_key(|shape| {
            lines.shapes.push((shape.clone(), lines.count));
            lines.shapes.len() - 1
        });
        if lines.count.is_multiple_of(STEP) {
            lines.places.push(place);
        }
        put_number(&mut lines.bytes, number);
        put_number(&mut lines.bytes, payload.len());
        lines.bytes.extend_from_slice(payload.as_bytes());
        lines.count += 1;
        Ok(())
    }

    pub fn finish(mut self) -> Lines {
        self.lines.bytes.shrink_to_fit();
        self.lines.places.shrink_to_fit();
        self.lines.shapes.shrink_to_fit();
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_by_number_and_in_order() {
        let mut builder = LinesBuilder::default();
        let payload = |i: usize| "x".repeat(i * 7 % 300);
        let target = |i: usize| format!("proxy {}", i % 150);
        for i in 0..1000 {
            let kind = if i % 3 == 0 { "Domain" } else { "DomainSuffix" };
            builder
                .push(kind, Class::Name, &payload(i), &target(i))
                .unwrap();
        }
        let lines = builder.finish();
        assert_eq!((lines.len(), lines.iter().count()), (1000, 1000));
        for (i, record) in lines.iter().enumerate() {
            let view = lines.view(record).unwrap();
            assert_eq!(view, lines.view(lines.get(i).unwrap()).unwrap());
            assert_eq!((view.payload, &**view.target), (&*payload(i), &*target(i)));
            assert_eq!(view.kind == "Domain", i % 3 == 0);
        }
        assert!(lines.get(1000).is_none());
        for (shape, first) in lines.shapes() {
            let kind_and_target = |i| lines.view(lines.get(i).unwrap()).unwrap();
            assert_eq!(kind_and_target(*first).kind, shape.kind);
            assert!((0..*first).all(|i| {
                let view = kind_and_target(i);
                (view.kind, view.target) != (shape.kind, &shape.target)
            }));
        }
    }
}
