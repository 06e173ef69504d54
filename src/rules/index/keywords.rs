//! DOMAIN-KEYWORD lines: one automaton for all of them, or a loop where that is cheaper.

use aho_corasick::Anchored;
use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;

/// Up to this many keywords a loop over them is as fast as the automaton, and smaller.
const LOOP_MAX: usize = 4;

/// The table: lines in ascending order; pattern `i` of the automaton is that of `lines[i]`.
pub(super) struct Keywords {
    lines: Box<[u32]>,
    search: Search,
}

enum Search {
    Loop(Box<[Box<str>]>),
    // Not the crate's own choice among three kinds: each kind brings its code.
    Automaton(Box<NFA>),
}

impl Keywords {
    /// Builds from lines in ascending order and their texts.
    pub fn build(keywords: Vec<(u32, Box<str>)>) -> Self {
        let (lines, texts): (Vec<u32>, Vec<Box<str>>) = keywords.into_iter().unzip();
        let automaton = (texts.len() > LOOP_MAX).then(|| {
            NFA::builder()
                .prefilter(false)
                .build(texts.iter().map(|text| text.as_bytes()))
        });
        let search = match automaton {
            Some(Ok(automaton)) => Search::Automaton(Box::new(automaton)),
            // Too much text for the automaton's 31-bit states: slower, but the same answer.
            Some(Err(_)) | None => Search::Loop(texts.into()),
        };
        Self {
            lines: lines.into(),
            search,
        }
    }

    /// The first line at or after `from` whose text is in `host`.
    pub fn find(&self, host: &str, from: u32) -> Option<u32> {
        match &self.search {
            Search::Loop(texts) => {
                let mut keywords = self.lines.iter().zip(texts);
                keywords
                    .find(|(line, text)| **line >= from && host.contains(&***text))
                    .map(|(line, _)| *line)
            }
            Search::Automaton(automaton) => {
                let mut state = automaton.start_state(Anchored::No).ok()?;
                let mut first = None;
                for byte in host.bytes() {
                    state = automaton.next_state(Anchored::No, state, byte);
                    if !automaton.is_match(state) {
                        continue;
                    }
                    let found = (0..automaton.match_len(state))
                        .filter_map(|n| {
                            let pattern = automaton.match_pattern(state, n).as_usize();
                            self.lines.get(pattern).copied()
                        })
                        .filter(|line| *line >= from)
                        .min();
                    first = first.into_iter().chain(found).min();
                }
                first
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_and_automaton_give_the_first_line() {
        let words = ["cdef", "bc", "bc", "abc", "zz", "d"];
        let build = |n: usize| {
            Keywords::build(
                (10..)
                    .zip(words.iter().take(n).map(|w| (*w).into()))
                    .collect(),
            )
        };
        assert!(matches!(build(3).search, Search::Loop(_)));
        assert!(matches!(build(6).search, Search::Automaton(_)));
        assert_eq!(build(0).find("a", 0), None);
        for (host, from, want) in [
            ("abcdef", 0, Some(10)),
            ("abcdef", 11, Some(11)),
            ("abcdef", 12, Some(12)),
            ("xbcx", 0, Some(11)),
            ("", 0, None),
        ] {
            assert_eq!(build(3).find(host, from), want, "{host} {from}");
            assert_eq!(build(6).find(host, from), want, "{host} {from}");
        }
        assert_eq!(build(6).find("abcdef", 13), Some(13));
        assert_eq!(build(6).find("abcdef", 14), Some(15));
        assert_eq!(build(6).find("abcdef", 16), None);
    }
}
