//! `expected-status`: which HTTP statuses a delay test takes for a good answer (clash-api.md 3.9).
//!
//! Pure. `204`, `200/302`, `400-503`, mixed with `/` (or `,`); empty and `*` are every status.

use std::fmt;
use std::str::FromStr;

/// More ranges than this mean nothing; the text is refused.
const RANGES_MAX: usize = 28;

/// A set of statuses; the empty list is every status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRanges(Vec<(u16, u16)>);

/// The text is no list of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStatusRanges;

impl fmt::Display for NotStatusRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a list of HTTP statuses such as 200/204-299")
    }
}

impl std::error::Error for NotStatusRanges {}

impl StatusRanges {
    /// Whether `status` is among them.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        let within = |&(first, last): &(u16, u16)| (first..=last).contains(&status);
        self.0.is_empty() || self.0.iter().any(within)
    }
}

impl FromStr for StatusRanges {
    type Err = NotStatusRanges;

    fn from_str(text: &str) -> Result<Self, NotStatusRanges> {
        let text = text.trim();
        if text.is_empty() || text == "*" {
            return Ok(Self::default());
        }
        let mut ranges = Vec::new();
        for part in text.split(['/', ',']) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| NotStatusRanges);
            let (first, last) = (number(first)?, number(last)?);
            if ranges.len() == RANGES_MAX {
                return Err(NotStatusRanges);
            }
            // Written the wrong way round it is the same range, as mihomo has it.
            ranges.push((first.min(last), first.max(last)));
        }
        Ok(Self(ranges))
    }
}

impl fmt::Display for StatusRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("*");
        }
        for (index, (first, last)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "/" };
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> StatusRanges {
        text.parse().unwrap()
    }

    #[test]
    fn statuses_are_taken_by_number_and_by_range() {
        let mixed = ranges("200/302/400-503");
        for (status, want) in [
            (200, true),
            (201, false),
            (302, true),
            (450, true),
            (504, false),
        ] {
            assert_eq!(mixed.contain(status), want, "{status}");
        }
        assert_eq!(mixed.to_string(), "200/302/400-503");
        assert!(ranges("299-204").contain(204));
    }

    #[test]
    fn nothing_and_a_star_are_every_status() {
        assert!(ranges("").contain(599) && ranges(" * ").contain(100));
        assert_eq!(ranges("").to_string(), "*");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["2xx", "200/", "-", "1-2-3", "70000", &"1/".repeat(40)] {
            assert_eq!(text.parse::<StatusRanges>(), Err(NotStatusRanges), "{text}");
        }
    }
}
