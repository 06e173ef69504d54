//! `type: load-balance`: flows are spread over the members that are alive (clash-api.md 4.5).
//!
//! `consistent-hashing` sends flows to one site over one member, by "A Fast, Minimal Memory,
//! Consistent Hash Algorithm" (Lamping and Veach, 2014); `sticky-sessions` also tells devices apart
//! and remembers; `round-robin` takes turns. Keys are hashed with a seed drawn once a process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Choose, Field};
use crate::metadata::Metadata;
use crate::outbound::Kind;
use crate::outbound::options::Strategy;
use crate::platform::clock;

/// Other members tried when the hashed one is dead, before the first that is alive.
const RETRIES: u64 = 5;

/// Sticky sessions remembered in a group; beyond it the one that ends first is forgotten.
const SESSIONS_MAX: usize = 1000;

/// How long a session is remembered after its last flow.
const SESSION: Duration = Duration::from_secs(600);

/// The seed of every hash here: which key leads where changes with a restart, not with a reload.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A way of spreading flows. Clash's tools cannot pin a member; Xray's force any balancer.
pub struct LoadBalance {
    way: Way,
    /// The member that was forced, alive or not; [`NOBODY`] for none.
    pin: AtomicUsize,
}

const NOBODY: usize = usize::MAX;

enum Way {
    Hashed,
    /// Table: key to member, until when.
    Sticky(Mutex<HashMap<u64, (usize, Instant)>>),
    /// Counter: whose turn it is.
    Turns(AtomicUsize),
}

impl LoadBalance {
    /// Spreads by `strategy`.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self {
            way: match strategy {
                Strategy::ConsistentHashing => Way::Hashed,
                Strategy::StickySessions => Way::Sticky(Mutex::default()),
                Strategy::RoundRobin => Way::Turns(AtomicUsize::new(0)),
            },
            pin: AtomicUsize::new(NOBODY),
        }
    }
}

impl Choose for LoadBalance {
    fn kind(&self) -> Kind {
        Kind::LoadBalance
    }

    fn choose(&self, field: &Field<'_>, metadata: Option<&Metadata>) -> usize {
        if let Some(pin) = self.pinned() {
            return pin;
        }
        match &self.way {
            Way::Hashed => hashed(field, site_key(metadata)),
            Way::Sticky(sessions) => match metadata {
                Some(metadata) => sticky(field, sessions, metadata, clock::now()),
                None => field.first_alive().unwrap_or(0),
            },
            Way::Turns(turn) => take_turn(field, turn, metadata.is_some()),
        }
    }

    fn pin(&self, _field: &Field<'_>, index: usize) -> bool {
        self.pin.store(index, Ordering::Relaxed);
        true
    }

    fn unpin(&self) -> bool {
        self.pin.swap(NOBODY, Ordering::Relaxed) != NOBODY
    }

    fn pinned(&self) -> Option<usize> {
        Some(self.pin.load(Ordering::Relaxed)).filter(|pin| *pin != NOBODY)
    }
}

fn take_turn(field: &Field<'_>, turn: &AtomicUsize, counts: bool) -> usize {
    let count = field.members.len().max(1);
    let start = turn.load(Ordering::Relaxed);
    let order = (0..count).map(|step| start.wrapping_add(step) % count);
    let found = order.clone().find(|&index| field.is_alive(index));
    // Two flows at once may share a turn; that is as fair in the long run.
    if counts && let Some(index) = found {
        turn.store((index + 1) % count, Ordering::Relaxed);
    }
    found.unwrap_or(0)
}

fn hashed(field: &Field<'_>, key: u64) -> usize {
    let tries = (0..RETRIES).map(|retry| jump(key.wrapping_add(retry), field.members.len()));
    let mut alive = tries.filter(|&index| field.is_alive(index));
    alive.next().or_else(|| field.first_alive()).unwrap_or(0)
}

fn sticky(
    field: &Field<'_>,
    sessions: &Mutex<HashMap<u64, (usize, Instant)>>,
    metadata: &Metadata,
    now: Instant,
) -> usize {
    let key = SEED.hash_one((metadata.source.ip(), site_key(Some(metadata))));
    let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let known = sessions.get(&key).filter(|(_, until)| *until > now);
    let index = match known {
        Some(&(index, _)) if field.is_alive(index) => index,
        _ => hashed(field, key),
    };
    if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&key) {
        sessions.retain(|_, (_, until)| *until > now);
        let first = sessions.iter().min_by_key(|(_, (_, until))| *until);
        if let Some(first) = first
            .map(|(key, _)| *key)
            .filter(|_| sessions.len() >= SESSIONS_MAX)
        {
            sessions.remove(&first);
        }
    }
    sessions.insert(key, (index, now + SESSION));
    index
}

/// The key of a flow's site: its registrable domain, else its address.
fn site_key(metadata: Option<&Metadata>) -> u64 {
    match metadata.map(|metadata| (&metadata.host, metadata.destination_ip)) {
        Some((Some(host), _)) => SEED.hash_one(registrable(host)),
        Some((None, Some(address))) => SEED.hash_one(address),
        _ => SEED.hash_one(None::<IpAddr>),
    }
}

/// The domain that somebody registered, nearly: the last two labels, or three where a country's
/// registry keeps short names of its own (`co.uk`, `com.cn`). The list of public suffixes would cost
/// a hundred kilobytes, and a flow that is grouped too coarsely still arrives.
fn registrable(host: &str) -> &str {
    let mut dots = host.rmatch_indices('.').map(|(at, _)| at);
    let (Some(last), Some(second)) = (dots.next(), dots.next()) else {
        return host;
    };
    let country = host.len() - last - 1 == 2;
    let registry = matches!(
        host.get(second + 1..last),
        Some("ac" | "co" | "com" | "edu" | "gov" | "mil" | "ne" | "net" | "or" | "org")
    );
    let start = if country && registry {
        dots.next()
    } else {
        Some(second)
    };
    start.map_or(host, |at| host.get(at + 1..).unwrap_or(host))
}

/// Which of `count` buckets `key` falls into; one more bucket moves only its share of the keys.
fn jump(mut key: u64, count: usize) -> usize {
    let (mut bucket, mut next) = (0, 0);
    while next < count {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // (bucket + 1) * 2^31 / ((key >> 33) + 1), in integers.
        let stretched = (u64::try_from(bucket).unwrap_or(u64::MAX).saturating_add(1)) << 31;
        next = usize::try_from(stretched / ((key >> 33) + 1)).unwrap_or(usize::MAX);
    }
    bucket
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::outbound::group::Member;
    use crate::outbound::health::Outcome;
    use crate::outbound::reject::Reject;

    fn members(count: usize) -> Vec<Member> {
        let member = |index: usize| Member {
            outbound: Arc::new(Reject::new(index.to_string().into(), Kind::Reject)),
            health: Arc::default(),
        };
        (0..count).map(member).collect()
    }

    fn kill(members: &[Member], index: usize) {
        let health = &members[index].health;
        health.record("u", Outcome::Nothing, Duration::ZERO, clock::now());
    }

    fn field(members: &[Member]) -> Field<'_> {
        Field { members, url: "u" }
    }

    fn flow(source: &str, to: &str) -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &Arc::from("x"),
            source.parse().unwrap(),
            Endpoint::parse(to).unwrap(),
        )
    }

    #[test]
    fn a_forced_member_takes_every_flow_until_it_is_let_go() {
        let members = members(3);
        let balance = LoadBalance::new(Strategy::RoundRobin);
        let flow = flow("1.1.1.1:1", "a.example:80");
        let next = || balance.choose(&field(&members), Some(&flow));
        assert!(!balance.unpin());
        assert!(balance.pin(&field(&members), 2));
        kill(&members, 2);
        assert_eq!([next(), next()], [2, 2]);
        assert!(balance.unpin());
        assert_eq!([next(), next(), next()], [0, 1, 0]);
    }

    #[test]
    fn members_take_turns_and_the_dead_are_skipped() {
        let members = members(3);
        let balance = LoadBalance::new(Strategy::RoundRobin);
        let flow = flow("1.1.1.1:1", "a.example:80");
        let next = || balance.choose(&field(&members), Some(&flow));
        assert_eq!([next(), next(), next(), next()], [0, 1, 2, 0]);
        assert_eq!(
            balance.choose(&field(&members), None),
            1,
            "looking takes no turn"
        );
        kill(&members, 1);
        assert_eq!([next(), next(), next()], [2, 0, 2]);
    }

    #[test]
    fn a_site_keeps_its_member_and_others_spread() {
        let members = members(4);
        let balance = LoadBalance::new(Strategy::ConsistentHashing);
        let to = |host: &str| balance.choose(&field(&members), Some(&flow("1.1.1.1:1", host)));
        assert_eq!(to("www.a.example:80"), to("img.a.example:443"));
        let used: std::collections::HashSet<_> = (0..200)
            .map(|n| to(&format!("site{n}.example:80")))
            .collect();
        assert_eq!(used.len(), 4);
        let before = to("a.example:80");
        kill(&members, before);
        assert_ne!(to("a.example:80"), before);
    }

    #[test]
    fn a_session_stays_where_it_was_until_that_dies_or_time_passes() {
        let members = members(4);
        let sessions = Mutex::default();
        let now = clock::now();
        let go = |source: &str, now| {
            sticky(
                &field(&members),
                &sessions,
                &flow(source, "a.example:80"),
                now,
            )
        };
        let first = go("1.1.1.1:1", now);
        kill(&members, first);
        let second = go("1.1.1.1:2", now);
        assert_ne!(second, first);
        let alive = Outcome::Answer {
            delay: 1,
            expected: true,
        };
        members[first]
            .health
            .record("u", alive, Duration::ZERO, now);
        assert_eq!(go("1.1.1.1:3", now + SESSION / 2), second, "remembered");
        assert_eq!(go("1.1.1.1:4", now + SESSION * 2), first, "hashed anew");
    }

    #[test]
    fn sessions_are_bounded() {
        let members = members(2);
        let sessions = Mutex::default();
        let now = clock::now();
        for n in 0..2 * u32::try_from(SESSIONS_MAX).unwrap() {
            let source = format!("{}:1", std::net::Ipv4Addr::from(n));
            sticky(
                &field(&members),
                &sessions,
                &flow(&source, "a.example:80"),
                now,
            );
        }
        assert_eq!(sessions.lock().unwrap().len(), SESSIONS_MAX);
    }

    #[test]
    fn one_more_member_moves_only_its_share() {
        let moved = (0..10_000).filter(|&key| jump(key * 7919, 9) != jump(key * 7919, 10));
        let moved = moved.count();
        assert!((500..1500).contains(&moved), "{moved} of 10000");
        assert!((0..10_000).all(|key| jump(key, 3) < 3 && jump(key, 1) == 0));
    }

    #[test]
    fn domains_are_cut_to_what_was_registered() {
        for (host, want) in [
            ("a.b.example.com", "example.com"),
            ("www.bbc.co.uk", "bbc.co.uk"),
            ("co.uk", "co.uk"),
            ("a.com.cn", "a.com.cn"),
            ("x.github.io", "github.io"),
            ("router", "router"),
        ] {
            assert_eq!(registrable(host), want);
        }
    }
}
