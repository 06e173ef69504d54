//! The last message of each topic that was published to be kept.
//!
//! Ordered by topic, so that the filters of practice (`home/#`) read one range, and a replay can
//! stop anywhere and go on later without holding anything but the last topic.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::rc::Rc;

use super::Time;
use super::message::Message;
use super::topic;

/// Orders messages by topic.
struct ByTopic(Rc<Message>);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}
impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic() == other.0.topic()
    }
}
impl Eq for ByTopic {}
impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

/// The retained messages.
#[derive(Default)]
pub struct Retained {
    messages: BTreeSet<ByTopic>,
    bytes: usize,
}

impl Retained {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps a message, or with an empty payload forgets its topic. Whether the topic had one before;
    /// `None`: there are `max` already, or they would be more than `bytes_max`, and what was there stays.
    pub fn keep(&mut self, message: &Rc<Message>, max: usize, bytes_max: usize) -> Option<bool> {
        if message.payload().is_empty() {
            return Some(self.remove(message.topic()));
        }
        let known = self.get(message.topic()).map(|known| known.size());
        let bytes = self.bytes - known.unwrap_or(0) + message.size();
        if bytes > bytes_max || (self.len() >= max && known.is_none()) {
            return None;
        }
        self.bytes = bytes;
        self.messages.replace(ByTopic(Rc::clone(message)));
        Some(known.is_some())
    }

    /// The message on a topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Rc<Message>> {
        self.messages.get(topic).map(|ByTopic(message)| message)
    }

    /// Forgets a topic; whether it had a message.
    pub fn remove(&mut self, topic: &str) -> bool {
        let gone = self.messages.take(topic);
        self.bytes -= gone.as_ref().map_or(0, |ByTopic(gone)| gone.size());
        gone.is_some()
    }

    /// The topics, in order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().map(|ByTopic(message)| message.topic())
    }

    /// Forgets those that have expired.
    pub fn sweep(&mut self, now: Time) {
        let bytes = &mut self.bytes;
        self.messages.retain(|ByTopic(message)| {
            let stays = message.expires > now;
            *bytes -= if stays { 0 } else { message.size() };
            stays
        });
    }

    /// The next message on a topic that `filter` matches, after the topic `after`.
    #[must_use]
    pub fn next(&self, filter: &str, after: Option<&str>) -> Option<Rc<Message>> {
        let prefix = fixed_prefix(filter);
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        self.messages
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|ByTopic(message)| message.topic().starts_with(prefix))
            .find(|ByTopic(message)| topic::matches(filter, message.topic()))
            .map(|ByTopic(message)| Rc::clone(message))
    }
}

/// What every topic that the filter matches begins with: `a/#` matches `a` too.
fn fixed_prefix(filter: &str) -> &str {
    let wild = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = filter.get(..wild).unwrap_or_default();
    match filter.get(wild..) {
        Some("#") => prefix.strip_suffix('/').unwrap_or(prefix),
        _ => prefix,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::NEVER;
    use super::super::codec::{Properties, Qos};
    use super::*;

    fn message(topic: &str, payload: &[u8]) -> Rc<Message> {
        let flags = (Qos::AtMostOnce, true);
        Rc::new(Message::new(0, topic, Properties::default(), payload, flags, 0).unwrap())
    }

    fn all(retained: &Retained, filter: &str) -> Vec<String> {
        let mut topics: Vec<String> = Vec::new();
        while let Some(next) = retained.next(filter, topics.last().map(String::as_str)) {
            topics.push(next.topic().to_owned());
        }
        topics
    }

    #[test]
    fn an_empty_payload_forgets_and_a_full_store_keeps_what_it_has() {
        let mut retained = Retained::default();
        let mut keep = |topic, payload: &[u8]| retained.keep(&message(topic, payload), 1, 1 << 20);
        assert_eq!(keep("a", b"1"), Some(false));
        assert_eq!(keep("a", b"2"), Some(true));
        assert_eq!((keep("b", b"1"), keep("b", b"")), (None, Some(false)));
        assert_eq!(retained.next("a", None).unwrap().payload(), b"2");
        assert_eq!(retained.keep(&message("a", b""), 1, 1 << 20), Some(true));
        assert!(retained.is_empty());
        retained.sweep(NEVER - 1);
    }

    #[test]
    fn bytes_have_an_end_too_and_come_back() {
        let (mut retained, one) = (Retained::default(), message("a", &[1; 100]).size());
        let max = one + one / 2;
        assert!(retained.keep(&message("a", &[1; 100]), 9, max).is_some());
        assert!(retained.keep(&message("b", &[1; 100]), 9, max).is_none());
        assert!(retained.keep(&message("a", &[1; 1000]), 9, max).is_none());
        assert_eq!(retained.get("a").unwrap().payload(), [1; 100]);
        assert!(retained.keep(&message("a", b"1"), 9, max).is_some());
        retained.remove("a");
        assert_eq!(retained.bytes, 0);
        assert!(retained.keep(&message("b", &[1; 100]), 9, max).is_some());
        retained.sweep(NEVER);
        assert_eq!((retained.bytes, retained.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn a_replay_shows_what_matches_each_once(
            topics in proptest::collection::btree_set("[ab$/]{1,5}", 0..20),
            filter in "([ab+]/){0,3}[ab+#]"
        ) {
            let mut retained = Retained::default();
            for topic in &topics {
                retained.keep(&message(topic, b"x"), 100, 1 << 20);
            }
            let want: Vec<_> = topics
                .iter()
                .filter(|topic| topic::matches(&filter, topic))
                .cloned()
                .collect();
            prop_assert_eq!(all(&retained, &filter), want);
        }
    }
}
