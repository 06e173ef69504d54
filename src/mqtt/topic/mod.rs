//! Topic names and filters (MQTT 5.0 section 4.7), and the tree of subscriptions.
//!
//! Pure. A name or filter has at most [`LEVELS_MAX`] levels; that bounds every walk here.

pub mod tree;

/// Levels of a topic. More are refused (users.md S23; CVE-2019-11779 was 65,000 slashes).
pub const LEVELS_MAX: usize = 32;

/// Whether `topic` can be published to.
#[must_use]
pub fn is_name(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= usize::from(u16::MAX)
        && !topic.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0))
        && has_few_levels(topic)
}

/// Whether `filter` can be subscribed to; not for those with `$share/` before them.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || !has_few_levels(filter) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0));
        let last = levels.peek().is_none();
        if wild && level != "+" && !(level == "#" && last) {
            return false;
        }
    }
    true
}

fn has_few_levels(topic: &str) -> bool {
    topic.bytes().filter(|&byte| byte == b'/').count() < LEVELS_MAX
}

/// Whether a topic name is matched by a filter. Wildcards at the beginning do not match topics that
/// begin with `$` (4.7.2).
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// A filter as a client writes it: perhaps of a shared subscription (4.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The share's name; that of `$queue/` is `$queue`.
    pub group: Option<&'a str>,
    /// What is matched.
    pub filter: &'a str,
}

/// The name of the group of `$queue/…`, which no `$share/` can have.
const QUEUE: &str = "$queue";

impl<'a> Wanted<'a> {
    /// Takes `$share/group/` or `$queue/` off. `None`: not a filter.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (group, filter) = if let Some(rest) = text.strip_prefix("$share/") {
            let (group, filter) = rest.split_once('/')?;
            if group.is_empty() || group == QUEUE || group.contains(['+', '#']) {
                return None;
            }
            (Some(group), filter)
        } else if let Some(filter) = text.strip_prefix("$queue/") {
            (Some(QUEUE), filter)
        } else {
            (None, text)
        };
        is_filter(filter).then_some(Self { group, filter })
    }

    /// As the client wrote it.
    #[must_use]
    pub fn to_text(self) -> String {
        match self.group {
            None => self.filter.to_owned(),
            Some(QUEUE) => format!("$queue/{}", self.filter),
            Some(group) => format!("$share/{group}/{}", self.filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/x", true),
        ];
        for (filter, topic, want) in cases {
            assert_eq!(matches(filter, topic), want, "{filter} {topic}");
        }
    }

    #[test]
    fn wildcards_stand_alone_and_the_hash_last() {
        for filter in ["#", "+", "a/+/b", "/", "a/#", "+/+/#", "$SYS/#"] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["", "a#", "#/a", "a+/b", "a/b#", "a\0"] {
            assert!(!is_filter(filter), "{filter:?}");
        }
        assert!(!is_name("a/+"));
        assert!(is_name(&"/".repeat(LEVELS_MAX - 1)));
        assert!(!is_name(&"/".repeat(LEVELS_MAX)));
        assert!(!is_filter(&"+/".repeat(LEVELS_MAX)));
    }

    #[test]
    fn shares_have_a_name_without_wildcards_and_a_filter() {
        for text in ["$share/g/a/+", "$queue/a", "a/b"] {
            assert_eq!(Wanted::parse(text).unwrap().to_text(), text);
        }
        for text in [
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            "$share/g#/a",
            "$queue/",
        ] {
            assert_eq!(Wanted::parse(text), None, "{text}");
        }
    }
}
