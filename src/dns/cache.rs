//! Answers by question, for as long as their TTLs allow.
//!
//! One allocation an answer: the message, with its key inside it (the question is part of every
//! message). Bounded in entries and in bytes; `replacement` says what goes first. An entry that
//! expired is still handed out, with TTL 1, while the resolver asks anew in the background (mihomo's
//! `lru` behaviour, RFC 8767). Failures are never kept, so nothing is broken for longer than its
//! cause. No clock: time is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lru::Keyed;
use super::message::record::{Answer, patch_ttls};
use super::message::{HEADER_BYTES, Question};
use super::replacement::{Algorithm, Replacement};

/// Bytes of messages for each entry that `cache-max-size` allows; short answers leave room for
/// long ones.
const BYTES_PER_ENTRY: usize = 512;
/// Longer answers are not worth the room of a dozen others.
const ANSWER_BYTES_MAX: usize = 4096;
/// How long after its end an answer may still be handed out (RFC 8767 section 5 suggests one to
/// three days).
const STALE_TIME_MAX: u32 = 86_400;
/// Time to live of an answer handed out after its end, seconds.
const STALE_TTL: u32 = 1;

/// The key of an answer: which set of servers gave it with which flags, and the question.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// `tag` tells questions apart that are asked of different servers or with other flags.
    #[must_use]
    pub fn new(tag: u8, question: &Question) -> Self {
        let name = question.name.wire();
        let mut key = Vec::with_capacity(1 + name.len() + 4);
        key.push(tag);
        key.extend_from_slice(name);
        key.extend_from_slice(&question.qtype.to_be_bytes());
        key.extend_from_slice(&question.qclass.to_be_bytes());
        Self(key.into())
    }
}

/// Whether an answer from the cache is within its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is.
    Fresh,
    /// It has expired and should be asked for anew.
    Stale,
}

/// The message with the tag between header and question, so that the key is one run of bytes.
struct Entry {
    bytes: Box<[u8]>,
    /// When it came, seconds after the cache's beginning.
    stored: u32,
    /// How long it is good, seconds.
    lifetime: u32,
    key_bytes: u16,
}

impl Keyed for Entry {
    fn key(&self) -> &[u8] {
        let end = HEADER_BYTES + usize::from(self.key_bytes);
        self.bytes.get(HEADER_BYTES..end).unwrap_or_default()
    }
}

/// Table: answers by question.
pub struct Cache {
    state: Mutex<State>,
    epoch: Instant,
    entries_max: usize,
    bytes_max: usize,
}

struct State {
    answers: Replacement<Entry>,
    bytes: usize,
}

impl Cache {
    /// An empty cache of at most `entries_max` answers.
    #[must_use]
    pub fn new(algorithm: Algorithm, entries_max: usize, now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                answers: Replacement::new(algorithm, entries_max),
                bytes: 0,
            }),
            epoch: now,
            entries_max,
            bytes_max: entries_max.saturating_mul(BYTES_PER_ENTRY),
        }
    }

    /// Keeps an answer in normal form ([`super::message::build::normalize`]) if its TTLs allow.
    pub fn insert(&self, key: &Key, answer: &Answer<'_>, now: Instant) {
        let bytes = answer.bytes();
        let (Some(lifetime), Ok(key_bytes)) = (answer.lifetime(), u16::try_from(key.0.len()))
        else {
            return;
        };
        let (Some(head), Some(records)) = (
            bytes.get(..HEADER_BYTES),
            bytes.get(answer.question_end()..),
        ) else {
            return;
        };
        let length = head.len() + key.0.len() + records.len();
        if length > ANSWER_BYTES_MAX || self.entries_max == 0 {
            return;
        }
        let mut kept = Vec::with_capacity(length);
        kept.extend_from_slice(head);
        kept.extend_from_slice(&key.0);
        kept.extend_from_slice(records);
        let entry = Entry {
            bytes: kept.into(),
            stored: self.seconds(now),
            lifetime,
            key_bytes,
        };
        let mut state = self.state();
        state.bytes += length;
        let mut gone = state.answers.put(entry);
        loop {
            state.bytes -= gone.map_or(0, |gone| gone.bytes.len());
            if state.answers.len() <= self.entries_max && state.bytes <= self.bytes_max {
                break;
            }
            gone = state.answers.remove_first();
            if gone.is_none() {
                break;
            }
        }
    }

    /// Puts the answer into `out`, its TTLs reduced by its age.
    pub fn get(&self, key: &Key, now: Instant, out: &mut Vec<u8>) -> Option<Freshness> {
        let mut state = self.state();
        let place = state.answers.find(&key.0)?;
        let entry = state.answers.get(place)?;
        let age = self.seconds(now).saturating_sub(entry.stored);
        let lifetime = entry.lifetime;
        if age > lifetime.saturating_add(STALE_TIME_MAX) {
            state.remove(&key.0);
            return None;
        }
        let (head, rest) = entry.bytes.split_at_checked(HEADER_BYTES)?;
        out.clear();
        out.extend_from_slice(head);
        out.extend_from_slice(rest.get(1..)?);
        state.answers.used(place);
        drop(state);
        let records = HEADER_BYTES + key.0.len() - 1;
        if age < lifetime {
            patch_ttls(out, records, |ttl| ttl.saturating_sub(age));
            Some(Freshness::Fresh)
        } else {
            patch_ttls(out, records, |_| STALE_TTL);
            Some(Freshness::Stale)
        }
    }

    /// Forgets everything.
    pub fn flush(&self) {
        let mut state = self.state();
        state.answers.clear();
        state.bytes = 0;
    }

    /// How many answers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().answers.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn seconds(&self, now: Instant) -> u32 {
        let passed: Duration = now.saturating_duration_since(self.epoch);
        u32::try_from(passed.as_secs()).unwrap_or(u32::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: &[u8]) {
        let place = self.answers.find(key);
        if let Some(entry) = place.and_then(|place| self.answers.remove(place)) {
            self.bytes -= entry.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::build::{
        Extras, Transport, finish, normalize, push_address, start, upstream_query,
    };
    use crate::dns::message::{Query, types};
    use crate::platform::clock;

    fn question(name: &str) -> Question {
        Question::new(name, types::A).unwrap()
    }

    fn answer(name: &str, records: usize, ttl: u32) -> Vec<u8> {
        let query = upstream_query(&question(name), 9, Extras::default());
        let query = Query::parse(&query).unwrap();
        let mut out = Vec::new();
        start(&query, 0, &mut out);
        for _ in 0..records {
            push_address(&mut out, None, "192.0.2.1".parse().unwrap(), ttl);
        }
        finish(&query, Transport::Tcp, &mut out);
        normalize(&Answer::parse(&out).unwrap())
    }

    fn keep(cache: &Cache, name: &str, records: usize, ttl: u32, now: Instant) {
        let bytes = answer(name, records, ttl);
        let key = Key::new(0, &question(name));
        cache.insert(&key, &Answer::parse(&bytes).unwrap(), now);
    }

    fn ttl(cache: &Cache, name: &str, now: Instant) -> Option<(Freshness, u32)> {
        let mut out = Vec::new();
        let freshness = cache.get(&Key::new(0, &question(name)), now, &mut out)?;
        Some((freshness, Answer::parse(&out).unwrap().addresses()[0].1))
    }

    #[test]
    fn ttls_count_down_then_the_stale_answer_has_one_second() {
        let now = clock::now();
        let cache = Cache::new(Algorithm::Lru, 16, now);
        keep(&cache, "a.b", 1, 60, now);
        let after = |seconds| ttl(&cache, "a.b", now + Duration::from_secs(seconds));
        assert_eq!(after(0), Some((Freshness::Fresh, 60)));
        assert_eq!(after(59), Some((Freshness::Fresh, 1)));
        assert_eq!(after(60), Some((Freshness::Stale, 1)));
        assert_eq!(after(90_000), None);
        assert!(cache.is_empty());
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        let now = clock::now();
        let cache = Cache::new(Algorithm::Lru, 16, now);
        keep(&cache, "a.b", 3, 60, now);
        let mut out = Vec::new();
        cache
            .get(&Key::new(0, &question("a.b")), now, &mut out)
            .unwrap();
        assert_eq!(out, answer("a.b", 3, 60));
        assert_eq!(
            cache.get(&Key::new(1, &question("a.b")), now, &mut out),
            None
        );
    }

    #[test]
    fn nothing_without_a_time_to_live_is_kept() {
        let now = clock::now();
        let cache = Cache::new(Algorithm::Lru, 16, now);
        keep(&cache, "a.b", 1, 0, now);
        keep(&cache, "a.b", 0, 0, now);
        keep(&cache, "a.b", 300, 60, now);
        assert!(cache.is_empty());
    }

    #[test]
    fn entries_and_bytes_are_bounded() {
        let now = clock::now();
        for algorithm in [Algorithm::Lru, Algorithm::Arc] {
            let cache = Cache::new(algorithm, 8, now);
            for i in 0..20 {
                keep(&cache, &format!("a{i}.b"), 1, 60, now);
            }
            assert_eq!(cache.len(), 8);
            for i in 0..20 {
                keep(&cache, &format!("b{i}.b"), 200, 60, now);
            }
            assert_eq!(cache.len(), 1);
            assert!(cache.state().bytes <= 8 * BYTES_PER_ENTRY);
            assert!(ttl(&cache, "b19.b", now).is_some());
            // The same again costs nothing.
            let bytes = cache.state().bytes;
            keep(&cache, "b19.b", 200, 60, now);
            assert_eq!((cache.len(), cache.state().bytes), (1, bytes));
            cache.flush();
            assert_eq!((cache.len(), cache.state().bytes), (0, 0));
        }
    }
}
