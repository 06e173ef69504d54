//! Connections of ours that end at this machine: what comes back in by one of them is a loop.
//!
//! A proxy whose server is the router itself (`server: 127.0.0.1, port: 7890`) would hand each flow back
//! to us for ever. A connection whose two ends have one address is noted here when it is made; the
//! inbound that gets a flow from such an address refuses it. That flow is handed on only after its
//! client has spoken, so the note is always there first.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Notes kept; a flow comes back within milliseconds, so the oldest are of no use.
const NOTES_MAX: usize = 256;

/// How long a note counts: another program may get the port afterwards.
const LIFETIME: Duration = Duration::from_secs(10);

/// Table: of the process, as its sockets are.
static NOTES: Mutex<VecDeque<(SocketAddr, Instant)>> = Mutex::new(VecDeque::new());

/// Whether there was ever a note: nearly always not, and then nobody takes the lock.
static ANY: AtomicBool = AtomicBool::new(false);

fn notes() -> MutexGuard<'static, VecDeque<(SocketAddr, Instant)>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a connection from `local` to `peer`, made at `now`, if it ends at this machine.
pub fn note(local: SocketAddr, peer: SocketAddr, now: Instant) {
    if local.ip() != peer.ip() {
        return;
    }
    let mut notes = notes();
    if notes.len() >= NOTES_MAX {
        notes.pop_front();
    }
    notes.push_back((local, now));
    ANY.store(true, Ordering::Release);
}

/// Whether a flow from `source` comes from ourselves.
#[must_use]
pub fn is_ours(source: SocketAddr, now: Instant) -> bool {
    ANY.load(Ordering::Acquire)
        && notes()
            .iter()
            .any(|(local, made)| *local == source && now.duration_since(*made) < LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;

    #[test]
    fn only_fresh_connections_to_this_machine_are_ours() {
        let now = clock::now();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        note(at("127.0.0.9:40001"), at("127.0.0.9:7890"), now);
        note(at("192.0.2.1:40002"), at("192.0.2.2:443"), now);
        assert!(is_ours(at("127.0.0.9:40001"), now));
        assert!(!is_ours(at("127.0.0.9:40001"), now + LIFETIME));
        assert!(!is_ours(at("127.0.0.9:40003"), now));
        assert!(!is_ours(at("192.0.2.1:40002"), now));
    }
}
