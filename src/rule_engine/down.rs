//! The alarm of a resource whose server does not answer: `resource/TYPE/ID/down` (emqx-api.md 4.10).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::feed::Feed;

/// Whether it stands. Shared by the tasks of a resource and the broker's thread, which ends it with the
/// resource: what a task finds out after that is of no interest.
pub(super) struct Down {
    /// None: nobody is told.
    feed: Option<Arc<Feed>>,
    kind: &'static str,
    id: Box<str>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Lowered,
    Raised,
    Ended,
}

impl Down {
    pub(super) fn new(feed: &Arc<Feed>, kind: &'static str, id: &str) -> Arc<Self> {
        Arc::new(Self {
            feed: Some(Arc::clone(feed)),
            kind,
            id: id.into(),
            state: Mutex::new(State::Lowered),
        })
    }

    /// Of a resource that is only tried.
    pub(super) fn mute() -> Arc<Self> {
        Arc::new(Self {
            feed: None,
            kind: "",
            id: Box::default(),
            state: Mutex::new(State::Ended),
        })
    }

    /// The server does not answer.
    pub(super) fn raise(&self, why: &str) {
        let mut state = self.lock();
        if *state == State::Lowered {
            *state = State::Raised;
            self.tell(Some(why));
        }
    }

    /// It does.
    pub(super) fn lower(&self) {
        self.leave(State::Lowered);
    }

    /// There is no such resource any more.
    pub(super) fn end(&self) {
        self.leave(State::Ended);
    }

    fn leave(&self, next: State) {
        let mut state = self.lock();
        if *state == State::Ended {
            return;
        }
        if std::mem::replace(&mut *state, next) == State::Raised {
            self.tell(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the lock held, so that the broker hears of both in their order.
    fn tell(&self, why: Option<&str>) {
        if let Some(feed) = &self.feed {
            let details = json!({"resource": *self.id, "type": self.kind, "reason": why});
            let message = why.map(|_| "the server of a resource does not answer".to_owned());
            let name = format!("resource/{}/{}/down", self.kind, self.id);
            feed.alarm(name, message, details);
        }
    }
}
