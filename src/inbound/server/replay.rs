//! Which openings a server has seen: a recorded one that comes again is refused.
//!
//! Table: two generations of exact keys, so that nothing is forgotten before its time and memory is
//! bounded. Only what authenticated is entered, so strangers cannot fill it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Keys of one generation (32 bytes each); a full one is turned before its time.
const KEYS_MAX: usize = 32 * 1024;

/// Remembers keys for at least `seconds`.
pub struct Replay {
    seconds: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
    turned: u64,
}

impl Replay {
    /// Remembers for at least `seconds`; 0: until room is needed.
    #[must_use]
    pub fn new(seconds: u64) -> Self {
        Self {
            seconds,
            state: Mutex::default(),
        }
    }

    /// Enters a key of at most 32 bytes at `now` (seconds); `false` when it is known.
    pub fn enter(&self, key: &[u8], now: u64) -> bool {
        let mut padded = [0; 32];
        padded
            .iter_mut()
            .zip(key)
            .for_each(|(to, byte)| *to = *byte);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = self.seconds > 0 && now.saturating_sub(state.turned) >= self.seconds;
        if due || state.young.len() >= KEYS_MAX {
            let long_ago = self.seconds > 0 && now.saturating_sub(state.turned) >= 2 * self.seconds;
            state.old = std::mem::take(&mut state.young);
            if long_ago {
                state.old = HashSet::new();
            }
            state.turned = now;
        }
        !state.old.contains(&padded) && state.young.insert(padded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_for_its_time_and_forgotten_after_twice_that() {
        let replay = Replay::new(60);
        assert!(replay.enter(b"a", 1000) && !replay.enter(b"a", 1059));
        assert!(replay.enter(b"b", 1059));
        assert!(!replay.enter(b"a", 1060) && !replay.enter(b"b", 1118));
        assert!(replay.enter(b"a", 1121));
        assert!(replay.enter(b"a", 2000));
    }

    #[test]
    fn memory_is_bounded() {
        let replay = Replay::new(0);
        for number in 0..3 * KEYS_MAX {
            assert!(replay.enter(&number.to_be_bytes(), 0));
        }
        let state = replay.state.lock().unwrap();
        assert!(state.young.len() + state.old.len() <= 2 * KEYS_MAX);
    }
}
