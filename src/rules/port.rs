//! SRC-PORT, DST-PORT, IN-PORT and DSCP: small numbers in ranges, `80/443/8000-9000`.

use super::PayloadError;
use super::matcher::{Condition, Key, Known, Matcher, Payload, Truth};
use crate::metadata::Metadata;

/// Which number of a flow a rule tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortField {
    /// The client's port.
    Source,
    /// The destination's port.
    Destination,
    /// The port of the listener that took the flow.
    Inbound,
    /// The differentiated services code point; 0 where nothing told it.
    Dscp,
}

impl PortField {
    /// Each of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Source, Self::Destination, Self::Inbound, Self::Dscp];

    /// The number in a flow.
    #[must_use]
    pub fn of(self, metadata: &Metadata) -> u16 {
        match self {
            Self::Source => metadata.source.port(),
            Self::Destination => metadata.destination_port,
            Self::Inbound => metadata.inbound_address.port(),
            Self::Dscp => u16::from(metadata.dscp),
        }
    }
}

/// First and last number of each range, as written.
pub type Ranges = [(u16, u16)];

/// mihomo's limit on the parts of one payload.
const RANGES_MAX: usize = 28;

/// The field has one of these numbers.
#[derive(Debug)]
struct Port {
    field: PortField,
    ranges: Box<Ranges>,
}

impl Matcher for Port {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| {
            let number = self.field.of(metadata);
            let mut ranges = self.ranges.iter();
            ranges.any(|(first, last)| (*first..=*last).contains(&number))
        })
    }

    fn key(&self) -> Key<'_> {
        Key::Number(self.field, &self.ranges)
    }
}

/// Reads `SRC-PORT`.
pub(super) fn source(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    read("SrcPort", PortField::Source, payload, u16::MAX)
}

/// Reads `DST-PORT`.
pub(super) fn destination(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    read("DstPort", PortField::Destination, payload, u16::MAX)
}

/// Reads `IN-PORT`.
pub(super) fn inbound(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    read("InPort", PortField::Inbound, payload, u16::MAX)
}

/// Reads `DSCP`: six bits (RFC 2474).
pub(super) fn dscp(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    read("DSCP", PortField::Dscp, payload, 63)
}

fn read(
    kind: &'static str,
    field: PortField,
    payload: &Payload<'_>,
    most: u16,
) -> Result<Condition, PayloadError> {
    let ranges = parse_ranges(payload.text, most)?;
    Ok(Condition::new(kind, payload.text, Port { field, ranges }))
}

/// Numbers and `a-b`, joined by `/`. As in mihomo, empty parts are passed over and the ends of
/// a range come in either order; a number beyond `most` is refused, where mihomo wraps it.
fn parse_ranges(text: &str, most: u16) -> Result<Box<Ranges>, PayloadError> {
    if text.split('/').count() > RANGES_MAX {
        return Err(PayloadError::TooManyRanges);
    }
    let bad = PayloadError::Range(most);
    let number = |digits: &str| {
        let digits = digits.trim();
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        let value = digits.parse().ok().filter(|value| *value <= most);
        value.filter(|_| plain).ok_or(bad.clone())
    };
    let mut ranges = Vec::new();
    for part in text.split('/').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (number(first)?, number(last)?);
        ranges.push((first.min(last), first.max(last)));
    }
    if ranges.is_empty() {
        return Err(bad);
    }
    Ok(ranges.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::rules::RuleLine;
    use std::sync::Arc;

    #[test]
    fn each_type_tests_its_own_number() {
        let mut flow = Metadata::new(
            Network::Udp,
            InboundType::TProxy,
            &Arc::from("in"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse("a.b:2000").unwrap(),
        );
        flow.inbound_address = "0.0.0.0:3000".parse().unwrap();
        flow.dscp = 40;
        for (kind, number) in [
            ("SRC-PORT", 1000),
            ("DST-PORT", 2000),
            ("IN-PORT", 3000),
            ("DSCP", 40),
        ] {
            for (payload, want) in [
                (format!("{number}"), Truth::Yes),
                (format!("1/{}-{}", number - 1, number + 1), Truth::Yes),
                (format!("{}-{number}", number + 5), Truth::Yes),
                (format!("{}/{}", number - 1, number + 1), Truth::No),
            ] {
                let line = RuleLine::parse(&format!("{kind},{payload},p")).unwrap();
                let truth = line.matcher().truth(&Known::flow(&flow, true));
                assert_eq!(truth, want, "{kind} {payload}");
            }
        }
    }

    #[test]
    fn ranges_are_numbers_within_their_limit() {
        let read = |text: &str| parse_ranges(text, 63);
        assert_eq!(&*read("0 / 7-5 //63").unwrap(), &[(0, 0), (5, 7), (63, 63)]);
        for bad in ["", "/", "64", "1-64", "+1", "1-2-3", "-1", "1-", "a", "*"] {
            assert_eq!(read(bad), Err(PayloadError::Range(63)), "{bad}");
        }
        let many = vec!["1"; 29];
        assert_eq!(read(&many.join("/")), Err(PayloadError::TooManyRanges));
        assert!(read(&many[1..].join("/")).is_ok());
    }
}
