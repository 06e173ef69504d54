//! Reads the entries of a rule set, line by line (clash-api.md 3.11); nothing of the text is kept.
//!
//! As in mihomo, an entry that cannot be read is passed over; how many there were is told, with the
//! first of them. What ends the reading is a source that breaks off or has no list at all.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Read};

use super::mrs;
use super::options::Format;
use super::proxy::NoNodes;
use crate::rules::set::{EntryError, RuleSet, RuleSetBuilder};

/// Bytes of a line; longer ones are passed over. A name has 253, a rule with expressions a few more.
const LINE_MAX: u64 = 4096;

/// Bytes of a source where the configuration sets no `size-limit`.
const SOURCE_MAX: u64 = 64 * 1024 * 1024;

/// A set and what was passed over on the way.
pub struct Entries {
    /// The set.
    pub set: RuleSet,
    /// How many entries were not readable.
    pub skipped: usize,
    /// The first of them: its line, and what is wrong with it.
    pub first_skipped: Option<(usize, SkipReason)>,
}

/// Why an entry was passed over.
#[derive(Debug)]
pub enum SkipReason {
    /// The line is too long or not UTF-8.
    Line,
    /// The set does not take it.
    Entry(EntryError),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line => f.write_str("too long, or not UTF-8"),
            Self::Entry(why) => why.fmt(f),
        }
    }
}

/// Why a source is no set.
#[derive(Debug)]
pub enum ReadError {
    /// It broke off.
    Io(io::Error),
    /// It is larger than allowed.
    TooLarge(u64),
    /// YAML without `payload:` or `rules:`.
    NoPayload,
    /// Not an mrs file, or one of another version.
    NotMrs,
    /// An mrs file that takes too much memory to unpack.
    Window,
    /// An mrs file for another behavior.
    OtherBehavior,
    /// Not a database of the kind that it should be, or a broken one.
    NotGeodata,
    /// It has lines, and none of them is an entry.
    NothingUsable,
    /// No list of proxies, or one without a usable one.
    NoNodes(NoNodes),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::TooLarge(most) => write!(f, "larger than {most} bytes"),
            Self::NoPayload => f.write_str("no payload: in it"),
            Self::NotMrs => f.write_str("not an mrs file"),
            Self::Window => f.write_str("unpacking it takes too much memory"),
            Self::OtherBehavior => f.write_str("an mrs file of another behavior"),
            Self::NotGeodata => f.write_str("not a database of this kind, or a broken one"),
            Self::NothingUsable => f.write_str("no entry in it can be used"),
            Self::NoNodes(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a whole source of at most `size_limit` bytes (0: `SOURCE_MAX`) into a set.
///
/// # Errors
/// [`ReadError`].
pub fn read(
    source: impl BufRead,
    format: Format,
    mut builder: RuleSetBuilder,
    size_limit: u64,
) -> Result<Entries, ReadError> {
    let most = size_max(size_limit);
    if format == Format::Mrs {
        return Ok(Entries {
            set: mrs::read(source, builder.behavior(), most)?,
            skipped: 0,
            first_skipped: None,
        });
    }
    let mut source = source.take(most.saturating_add(1));
    let (mut skipped, mut first_skipped, mut taken) = (0, None, 0usize);
    let mut listed = format == Format::Text;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if source
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)?
            == 0
        {
            break;
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_MAX;
        if !whole {
            skip_line(&mut source)?;
        }
        let text = if whole {
            str::from_utf8(&line).ok()
        } else {
            None
        };
        let entry = match (text, format) {
            (None, _) => Err(SkipReason::Line),
            (Some(text), Format::Text) => Ok(text_entry(text)),
            (Some(text), Format::Yaml) if listed => Ok(yaml_entry(text)),
            (Some(text), Format::Yaml | Format::Mrs) => {
                listed = is_header(text);
                Ok(None)
            }
        };
        let pushed = match entry {
            Ok(None) => continue,
            Ok(Some(entry)) => builder.push(&entry).map_err(SkipReason::Entry),
            Err(why) => Err(why),
        };
        match pushed {
            Ok(()) => taken += 1,
            Err(why) => {
                skipped += 1;
                first_skipped = first_skipped.or(Some((number, why)));
            }
        }
    }
    if source.limit() == 0 {
        return Err(ReadError::TooLarge(most));
    }
    if !listed {
        return Err(ReadError::NoPayload);
    }
    if taken == 0 && skipped > 0 {
        return Err(ReadError::NothingUsable);
    }
    Ok(Entries {
        set: builder.finish(),
        skipped,
        first_skipped,
    })
}

/// Bytes that a source may have under this `size-limit`.
#[must_use]
pub fn size_max(size_limit: u64) -> u64 {
    if size_limit == 0 {
        SOURCE_MAX
    } else {
        size_limit
    }
}

fn skip_line(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = source.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        source.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn text_entry(line: &str) -> Option<Cow<'_, str>> {
    let line = line.trim();
    let comment = line.starts_with('#') || line.starts_with("//");
    (!line.is_empty() && !comment).then_some(Cow::Borrowed(line))
}

fn is_header(line: &str) -> bool {
    let line = line.trim_end();
    ["payload:", "rules:"].iter().any(|key| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    })
}

/// The scalar behind `- `.
fn yaml_entry(line: &str) -> Option<Cow<'_, str>> {
    let item = line.trim().strip_prefix('-')?;
    if !item.starts_with([' ', '\t']) {
        return None;
    }
    let item = item.trim();
    let entry = if let Some(quoted) = item.strip_prefix('\'') {
        // A quote inside stands twice.
        let mut text = Cow::Borrowed("");
        let mut rest = quoted;
        loop {
            let (before, behind) = rest.split_once('\'')?;
            text += before;
            match behind.strip_prefix('\'') {
                Some(more) => {
                    text += "'";
                    rest = more;
                }
                None => break text,
            }
        }
    } else if let Some(quoted) = item.strip_prefix('"') {
        // JSON's escapes are those of YAML that anybody writes.
        let end = quoted.rfind('"')?;
        Cow::Owned(serde_json::from_str(item.get(..end + 2)?).ok()?)
    } else {
        let end = item.find(" #").unwrap_or(item.len());
        Cow::Borrowed(item.get(..end)?.trim_end())
    };
    (!entry.is_empty() && !item.starts_with('#')).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geo::Geodata;
    use crate::rules::set::Behavior;
    use proptest::prelude::*;

    fn builder(behavior: Behavior) -> RuleSetBuilder {
        RuleSetBuilder::new(behavior, &Geodata::default())
    }

    #[track_caller]
    fn check(format: Format, behavior: Behavior, text: &str, entries: usize, skipped: usize) {
        let read = read(text.as_bytes(), format, builder(behavior), 0).unwrap();
        assert_eq!(
            (read.set.entries(), read.skipped),
            (entries, skipped),
            "{text}"
        );
    }

    #[test]
    fn yaml_is_a_list_under_a_header_read_by_lines() {
        let text = "# made by hand\npayload:\n  # more\n  - '+.a.org'\n  - \"b.org\"\n- c.org # why\n\n  - 'a..b'\n  what: ever\n";
        check(Format::Yaml, Behavior::Domain, text, 3, 1);
        let text =
            "rules:\r\n  - DOMAIN,a.org\r\n  - IP-CIDR,1.0.0.0/8,no-resolve\r\n  - MATCH\r\n";
        check(Format::Yaml, Behavior::Classical, text, 2, 1);
        check(Format::Yaml, Behavior::IpCidr, "payload: []\n", 0, 0);
    }

    #[test]
    fn text_is_an_entry_a_line() {
        let text = "# a\n// b\n\n1.0.0.0/8\n  2001:db8::/32  \n9.9.9.9\nx\n";
        check(Format::Text, Behavior::IpCidr, text, 3, 1);
        check(Format::Text, Behavior::Domain, "", 0, 0);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let read = |text: &str, limit| {
            read(
                text.as_bytes(),
                Format::Yaml,
                builder(Behavior::Domain),
                limit,
            )
            .map(|_| ())
        };
        assert!(matches!(read("- a.org\n", 0), Err(ReadError::NoPayload)));
        assert!(matches!(read("<html>", 0), Err(ReadError::NoPayload)));
        assert!(matches!(
            read("payload:\n- a b\n", 0),
            Err(ReadError::NothingUsable)
        ));
        assert!(matches!(
            read("payload:\n- a.org\n", 10),
            Err(ReadError::TooLarge(10))
        ));
    }

    #[test]
    fn a_line_too_long_is_one_entry_passed_over() {
        let long = format!("{}\na.org\n{}", "x".repeat(9000), "y".repeat(5000));
        check(Format::Text, Behavior::Domain, &long, 1, 2);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(payload:\n)?(- ?['\"]?[a.,\\\\'\"#-]{0,8}\n){0,6}") {
            for format in [Format::Yaml, Format::Text] {
                for behavior in [Behavior::Domain, Behavior::IpCidr, Behavior::Classical] {
                    let _ = read(bytes.as_slice(), format, builder(behavior), 0);
                    let _ = read(text.as_bytes(), format, builder(behavior), 0);
                }
            }
        }
    }
}
