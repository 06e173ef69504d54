//! How often a source may be wrong about the secret: after a few times it must wait, longer each
//! time (users.md S6). Pure: the time is an argument.
//!
//! A source is an IPv4 address, or the /64 of an IPv6 address, which one host can have to itself.
//! While it waits its secrets are not even looked at, right ones neither, or guessing in parallel
//! would not be slowed. Requests without a secret are no guesses and count for nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong secrets in a row that cost nothing: a person's, and a dashboard's that asks for everything
/// at once with an old one.
const FREE: u32 = 10;

/// The first wait; each wrong secret doubles it.
const WAIT: Duration = Duration::from_secs(1);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A source that was not wrong for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Sources that are remembered, at most 64 KB in all; when full, the one that was wrong longest ago
/// is forgotten.
const SOURCES_MAX: usize = 400;

/// Table: the sources that were wrong of late.
#[derive(Default)]
pub struct Lockout(HashMap<u64, Entry>);

struct Entry {
    wrong: u32,
    last: Instant,
}

impl Entry {
    fn wait(&self) -> Duration {
        match self.wrong.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => WAIT.saturating_mul(1 << (beyond - 1).min(16)).min(WAIT_MAX),
        }
    }
}

impl Lockout {
    /// How long `source` still has to wait before its secret is looked at; `None`: not at all.
    #[must_use]
    pub fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let entry = self.0.get(&key(source))?;
        let until = entry.last + entry.wait();
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// `source` was wrong `now`.
    pub fn wrong(&mut self, source: IpAddr, now: Instant) {
        let source = key(source);
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&source) {
            self.0
                .retain(|_, entry| now.duration_since(entry.last) < FORGET);
            let oldest = self.0.iter().min_by_key(|(_, entry)| entry.last);
            if self.0.len() >= SOURCES_MAX
                && let Some(oldest) = oldest.map(|(&source, _)| source)
            {
                self.0.remove(&oldest);
            }
        }
        let entry = self.0.entry(source).or_insert(Entry {
            wrong: 0,
            last: now,
        });
        if now.duration_since(entry.last) >= FORGET {
            entry.wrong = 0;
        }
        entry.wrong = entry.wrong.saturating_add(1);
        entry.last = now;
    }

    /// `source` knows a secret.
    pub fn right(&mut self, source: IpAddr) {
        self.0.remove(&key(source));
    }

    /// Whether nobody was wrong of late: the common case, which costs nothing more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// IPv4 in the low half of a number that no global IPv6 prefix is.
fn key(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d]
                .into_iter()
                .fold(0, |key, part| key << 16 | u64::from(part))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn waits_begin_after_some_wrong_secrets_and_double_up_to_a_minute() {
        let (mut lockout, start) = (Lockout::default(), clock::now());
        let source = address("192.168.1.5");
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..FREE + 9 {
            lockout.wrong(source, now);
            let wait = lockout.wait(source, now).unwrap_or_default();
            waits.push(wait.as_secs());
            assert_eq!(lockout.wait(source, now + wait), None);
            now += wait;
        }
        assert!(waits.iter().take(10).all(|&wait| wait == 0));
        assert_eq!(waits.split_off(10), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(lockout.wait(address("192.168.1.6"), now), None);
        lockout.wrong(source, now + FORGET);
        assert_eq!(lockout.wait(source, now + FORGET), None, "long ago");
    }

    #[test]
    fn a_right_secret_ends_it_and_a_host_has_one_v6_network() {
        let (mut lockout, now) = (Lockout::default(), clock::now());
        for last in 0..20_u16 {
            lockout.wrong(address(&format!("2001:db8:1:2::{last:x}")), now);
        }
        assert!(lockout.wait(address("2001:db8:1:2:ffff::1"), now).is_some());
        assert_eq!(lockout.wait(address("2001:db8:1:3::1"), now), None);
        lockout.right(address("2001:db8:1:2::9"));
        assert!(lockout.is_empty());
        lockout.wrong(address("::ffff:10.0.0.1"), now);
        lockout.right(address("10.0.0.1"));
        assert!(lockout.is_empty());
    }

    #[test]
    fn a_hundred_thousand_sources_take_64_kilobytes_at_most() {
        let (mut lockout, start) = (Lockout::default(), clock::now());
        for source in 0..100_000_u32 {
            let now = start + Duration::from_millis(source.into());
            lockout.wrong(IpAddr::from(source.to_be_bytes()), now);
        }
        assert_eq!(lockout.0.len(), SOURCES_MAX);
        let bytes = lockout.0.capacity() * (size_of::<(u64, Entry)>() + 1);
        assert!(bytes <= 64 * 1024, "{bytes}");
    }
}
