//! What waits for a foreign broker, and how the connection to it is.
//!
//! Filled from any thread without waiting, so a broker that is gone slows nobody: when it is full the
//! oldest message goes, and is counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::machine::Outgoing;

/// How a connection is and what became of the messages, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the broker has let us in.
    pub connected: bool,
    /// Why the last connection ended, or none came about.
    pub error: Option<Box<str>>,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that the broker has.
    pub sent: u64,
    /// Messages that it refused.
    pub refused: u64,
    /// Messages that were given up because too many waited.
    pub dropped: u64,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    report: Report,
    ending: bool,
}

/// Messages on their way out. Table: shared by who publishes and the client's task.
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Something came in, or it is to end.
    pub(super) changed: Notify,
    messages_max: usize,
    bytes_max: usize,
}

impl Outbox {
    /// An empty one that holds so many messages and so many bytes of them.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            messages_max,
            bytes_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in, at the cost of the oldest. `false`: it alone is too large.
    pub fn push(&self, message: Outgoing) -> bool {
        let weight = message.weight();
        let mut inner = self.lock();
        if weight > self.bytes_max {
            inner.report.dropped += 1;
            return false;
        }
        while inner.waiting.len() >= self.messages_max || inner.bytes + weight > self.bytes_max {
            let Some(oldest) = inner.waiting.pop_front() else {
                break;
            };
            inner.bytes -= oldest.weight();
            inner.report.dropped += 1;
        }
        inner.bytes += weight;
        inner.waiting.push_back(message);
        drop(inner);
        self.changed.notify_one();
        true
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            waiting: inner.waiting.len(),
            ..inner.report.clone()
        }
    }

    /// Has the client say good-bye and end.
    pub fn end(&self) {
        self.lock().ending = true;
        self.changed.notify_one();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.lock().ending
    }

    pub(super) fn take(&self) -> Option<Outgoing> {
        let mut inner = self.lock();
        let oldest = inner.waiting.pop_front()?;
        inner.bytes -= oldest.weight();
        Some(oldest)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.lock().report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::{PropertyWriter, Qos};

    fn message(topic: &str, bytes: usize) -> Outgoing {
        Outgoing {
            topic: topic.into(),
            payload: vec![0; bytes].into(),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: PropertyWriter::default(),
        }
    }

    #[test]
    fn a_full_outbox_gives_up_its_oldest() {
        let outbox = Outbox::new(2, 100);
        for topic in ["a", "b", "c"] {
            assert!(outbox.push(message(topic, 10)));
        }
        assert_eq!((outbox.report().waiting, outbox.report().dropped), (2, 1));
        // By bytes too, and what alone is too large does not push the others out.
        assert!(outbox.push(message("d", 80)));
        assert!(!outbox.push(message("e", 100)));
        assert_eq!((outbox.report().waiting, outbox.report().dropped), (2, 3));
        let topics = std::iter::from_fn(|| outbox.take()).map(|one| one.topic);
        assert_eq!(topics.collect::<Vec<_>>(), ["c".into(), "d".into()]);
        assert_eq!(outbox.lock().bytes, 0);
    }
}
