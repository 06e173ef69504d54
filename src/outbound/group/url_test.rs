//! `type: url-test`: the member with the lowest delay (clash-api.md 4.5).
//!
//! mihomo lets the fastest win at once while its first member is the current one, `tolerance` or
//! not; here the tolerance always holds, as it is documented.

use std::sync::{Mutex, PoisonError};

use super::{Choose, Field};
use crate::metadata::Metadata;
use crate::outbound::Kind;
use crate::outbound::health::{NO_DELAY, generation};

/// The fastest member, with some patience.
pub struct UrlTest {
    tolerance: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<usize>,
    pin: Option<usize>,
    /// The results by which `current` was found; newer ones may have changed it.
    seen: usize,
}

impl UrlTest {
    /// Leaves the current member when another is more than `tolerance` milliseconds faster.
    #[must_use]
    pub fn new(tolerance: u16) -> Self {
        Self {
            tolerance,
            state: Mutex::default(),
        }
    }
}

impl Choose for UrlTest {
    fn kind(&self) -> Kind {
        Kind::UrlTest
    }

    fn choose(&self, field: &Field<'_>, _metadata: Option<&Metadata>) -> usize {
        // Read first: a result that comes meanwhile is looked at next time.
        let generation = generation();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = state.current
            && state.seen == generation
        {
            return current;
        }
        let pin = state.pin.filter(|&pin| field.is_alive(pin));
        let index = pin.unwrap_or_else(|| fastest(field, state.current, self.tolerance));
        state.current = Some(index);
        state.seen = generation;
        index
    }

    fn pin(&self, _field: &Field<'_>, index: usize) -> bool {
        self.repin(Some(index));
        true
    }

    fn unpin(&self) -> bool {
        self.repin(None);
        true
    }

    fn pinned(&self) -> Option<usize> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pin
    }
}

impl UrlTest {
    /// Whoever was current for a person's sake has no claim to stay.
    fn repin(&self, pin: Option<usize>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pin = pin;
        state.current = None;
    }
}

/// The current member while it is alive and about as fast as the fastest, else that; members that
/// are alive and untested come before dead ones.
fn fastest(field: &Field<'_>, current: Option<usize>, tolerance: u16) -> usize {
    let score = |index: usize| {
        let member = field.members.get(index);
        let delay = member.map_or(NO_DELAY, |member| member.health.delay(field.url));
        (!field.is_alive(index), delay)
    };
    let indices = 0..field.members.len();
    let Some(best) = indices.min_by_key(|&index| score(index)) else {
        return 0;
    };
    let (_, best_delay) = score(best);
    let stays = |current: &usize| {
        let (dead, delay) = score(*current);
        !dead && delay <= best_delay.saturating_add(tolerance)
    };
    current.filter(stays).unwrap_or(best)
}
