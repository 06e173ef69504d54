//! How many streams may be in at once, and who makes room when there are no seats left.
//!
//! Every listener asks for [`Admission::room`] for what it has accepted before it accepts more, and holds a
//! [`Seat`] for as long as a connection lives. At the limit (`max-connections`), or when the machine runs short of
//! memory, the connections that were silent longest are cut, and those that are not dialled after as long. Where
//! there are none, the device that holds more than half of the seats gives up its own; and where there is none such, accepting pauses: the
//! kernel keeps further clients waiting, and drops them when its queue is full too. A device that opens
//! connections without end can so take neither the memory of the router nor the seats of the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::connections::{Connection, Connections};
use super::preparing::{Preparing, Turn};
use crate::metadata::Network;
use crate::platform::counter::Counter;
use crate::platform::{clock, room};

/// Memory that stands behind each connection where the configuration does not say how many there may be:
/// two sockets of the kernel's, our task, and the buffers of those that just now move something.
const BYTES_EACH: u64 = 32 * 1024;

/// The least and the most that is derived from the machine's memory.
const DERIVED: (u64, u64) = (256, 16_384);

/// Descriptors that are left for everything else: controllers, broker, files, netlink.
const DESCRIPTORS_APART: usize = 2048;

/// The least of these that must remain when descriptors cannot be had.
const DESCRIPTORS_APART_MIN: usize = 256;

/// Seconds of silence after which a stream may be cut to make room.
const IDLE_SECONDS: u32 = 10;

/// The same for a UDP session that was answered, and for one that never was.
const IDLE_UDP_SECONDS: u32 = 10;
const UNANSWERED_SECONDS: u32 = 2;

/// UDP sessions: the most, and the least that a small `max-connections` leaves.
const SESSIONS: (usize, usize) = (128, 8192);

/// One scan of the table cuts this part of the streams, so that a flood does not pay one for each of its own.
const BATCH_PART: usize = 64;

/// The same of UDP sessions, which are scanned once a second at most.
const SESSIONS_PART: usize = 8;

/// However short memory is, this part of the limit may always be in: the LAN stays online.
const ALWAYS_PART: usize = 16;

/// Memory is short when less than this part of it is left, within these bounds.
const SHORT_PART: u64 = 16;
const SHORT: (u64, u64) = (2 << 20, 16 << 20);

/// Memory is looked at once a second, and for every so many that come in: a flood takes less between two looks
/// than what is left when memory is called short.
const LOOK_EVERY: usize = 32;

/// How soon the table may be scanned again: after somebody was cut, and when nobody could be.
const SOON: Duration = Duration::from_millis(1);
const LATER: Duration = Duration::from_millis(50);

/// Seconds between two lines of the log on the same matter.
const SAY_EVERY: u32 = 60;

/// The seats.
pub struct Admission {
    connections: Arc<Connections>,
    preparing: Preparing,
    limit: AtomicUsize,
    taken: AtomicUsize,
    /// When memory was looked at, in seconds of the coarse clock, how many came since, and what was seen.
    looked: AtomicU32,
    since: AtomicUsize,
    short: AtomicBool,
    said: AtomicU32,
    /// The earliest time of the next scan for streams, and the second of the last one for sessions.
    scan_at: Mutex<Option<Instant>>,
    swept: AtomicU32,
    cut: Counter,
    pauses: Counter,
    unseated: Counter,
}

/// One connection's seat, given up when it is dropped.
pub struct Seat(Arc<Admission>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose room for UDP sessions is used up.
pub(super) enum Lacking {
    /// Everybody's.
    OfAll,
    /// This device's half.
    OfDevice(IpAddr),
}

/// What [`Admission`] has done so far, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Streams that may be in.
    pub limit: usize,
    /// Streams that are.
    pub taken: usize,
    /// Flows that were cut to make room.
    pub cut: u64,
    /// How often an accept loop had to wait.
    pub pauses: u64,
    /// UDP sessions that were not begun for want of room.
    pub unseated: u64,
}

impl Admission {
    /// As many seats as the machine has memory for.
    #[must_use]
    pub fn new(connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Self {
            connections,
            preparing: Preparing::default(),
            limit: AtomicUsize::new(derived(room::memory())),
            taken: AtomicUsize::new(0),
            looked: AtomicU32::new(0),
            since: AtomicUsize::new(0),
            short: AtomicBool::new(false),
            said: AtomicU32::new(0),
            scan_at: Mutex::default(),
            swept: AtomicU32::new(0),
            cut: Counter::default(),
            pauses: Counter::default(),
            unseated: Counter::default(),
        })
    }

    /// Sets the limit to `wanted`, or by the machine's memory, as far as there are descriptors.
    pub fn limit(&self, wanted: Option<u32>) {
        let had = room::raise_descriptors(descriptors_wanted(wanted));
        let wanted = streams_wanted(wanted);
        let limit = limit_by(wanted, usize::try_from(had).unwrap_or(usize::MAX));
        let before = self.limit.swap(limit, Ordering::Relaxed);
        if limit < wanted && limit != before {
            log::warn!(
                "max-connections: {limit} instead of {wanted}: only {had} files may be open"
            );
        }
    }

    /// Takes a seat; whether there is one, [`Self::room`] has said.
    pub fn seat(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }

    /// Has a stream from `source` known that is in and not yet among the connections.
    pub fn prepare(&self, source: IpAddr) -> Turn<'_> {
        self.preparing.begin(source, clock::coarse())
    }

    /// One `part`th of the streams that may be in, at least one.
    #[must_use]
    pub fn part(&self, part: usize) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        limit.checked_div(part).unwrap_or(limit).max(1)
    }

    /// How long whoever comes may take to say who he is, where a policy says so.
    #[must_use]
    pub fn handshake_time(&self) -> Option<Duration> {
        let policy = self.connections.policy()?;
        Some(policy.level(0).handshake)
    }

    /// Waits until one more stream may come in.
    pub async fn room(&self) {
        let mut waited = false;
        while let Err(again) = self.make_room(clock::coarse()) {
            if !std::mem::replace(&mut waited, true) {
                self.pauses.add(1);
            }
            sleep(again).await;
        }
    }

    /// Whether so many are in that nobody should be kept for nothing.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.limit.load(Ordering::Relaxed) / 2
    }

    /// How many UDP sessions may live beside one more.
    #[must_use]
    pub fn sessions_max(&self) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        sessions_of(match self.is_short() {
            true => limit / ALWAYS_PART,
            false => limit,
        })
    }

    /// Makes room for UDP sessions, whose newest was just refused: those that nobody ever answered go
    /// first, then those that are silent longest.
    pub(super) fn make_session_room(&self, lacking: &Lacking) {
        self.unseated.add(1);
        self.cut_sessions(lacking, clock::coarse());
        let most = self.sessions_max();
        self.say(&|| match lacking {
            Lacking::OfAll => format!("{most} UDP sessions: new ones are dropped"),
            Lacking::OfDevice(device) => {
                format!("half of {most} UDP sessions are of {device}: its new ones are dropped")
            }
        });
    }

    /// At most once a second, by the coarse clock.
    fn cut_sessions(&self, lacking: &Lacking, now: u32) {
        if self.swept.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let most = sessions_of(self.limit.load(Ordering::Relaxed));
        let count = (most / SESSIONS_PART).max(1);
        let silent = |connection: &Connection| now.saturating_sub(connection.last_active());
        let cut = self.connections.close_first(count, &|connection| {
            let answered = connection.download.get() > 0;
            let needed = if answered {
                IDLE_UDP_SECONDS
            } else {
                UNANSWERED_SECONDS
            };
            let metadata = &connection.metadata;
            let concerned = match lacking {
                Lacking::OfAll => true,
                Lacking::OfDevice(device) => metadata.source.ip() == *device,
            };
            let may = concerned && metadata.network == Network::Udp && silent(connection) >= needed;
            may.then(|| (answered, connection.last_active()))
        });
        self.note_cut(cut);
    }

    /// Something could not be opened for want of descriptors or memory: those that are silent go.
    pub fn exhausted(&self) {
        let batch = (self.taken.load(Ordering::Relaxed) / BATCH_PART).max(1);
        self.cut_idle(batch, clock::coarse());
    }

    /// What was done so far.
    #[must_use]
    pub fn admitted(&self) -> Admitted {
        Admitted {
            limit: self.limit.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            cut: self.cut.get(),
            pauses: self.pauses.get(),
            unseated: self.unseated.get(),
        }
    }

    /// Whether a stream may come in now; if not, how soon to look again.
    fn make_room(&self, seconds: u32) -> Result<(), Duration> {
        let limit = self.limit.load(Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        let always = limit / ALWAYS_PART;
        let full = taken >= limit;
        if !full && (taken <= always || !self.is_short()) {
            return Ok(());
        }
        let mut scan_at = self.scan_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if let Some(early) = scan_at.and_then(|at| at.checked_duration_since(now)) {
            return Err(early);
        }
        let batch = (taken / BATCH_PART).max(1);
        let cut = match self.cut_idle(batch, seconds) {
            0 => self.cut_heaviest(batch),
            cut => cut,
        };
        let again = if cut > 0 { SOON } else { LATER };
        *scan_at = now.checked_add(again);
        drop(scan_at);
        self.say(&|| {
            let why = if full {
                "max-connections is reached"
            } else {
                "memory is short"
            };
            let what = if cut > 0 {
                "connections that are silent, or of the device with the most, are cut"
            } else {
                "new ones wait"
            };
            format!("{why} with {taken} connections: {what}")
        });
        Err(again)
    }

    fn cut_idle(&self, count: usize, now: u32) -> usize {
        let cut = self.connections.close_first(count, &|connection| {
            let silent = now.saturating_sub(connection.last_active());
            let may = connection.metadata.network == Network::Tcp && silent >= IDLE_SECONDS;
            may.then(|| (false, connection.last_active()))
        });
        let old = |_, since| now.saturating_sub(since) >= IDLE_SECONDS;
        let cut = cut + self.preparing.cut(count - cut, &old);
        self.note_cut(cut);
        cut
    }

    /// Cuts streams of the device that has more than half of the seats; this machine's own programs, among
    /// which may be a proxy for many, are none.
    fn cut_heaviest(&self, count: usize) -> usize {
        let Some(device) = self.heaviest() else {
            return 0;
        };
        let cut = self.connections.close_first(count, &|connection| {
            let metadata = &connection.metadata;
            let may = metadata.network == Network::Tcp && metadata.source.ip() == device;
            may.then(|| (false, connection.last_active()))
        });
        let of_device = |source, _| source == device;
        let cut = cut + self.preparing.cut(count - cut, &of_device);
        self.note_cut(cut);
        cut
    }

    /// The device that holds more than half of the seats, by its streams that are entered and those that
    /// are not yet; of those whose origin nobody knows (handshakes) it has none.
    fn heaviest(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        let mut all = 0;
        let mut count = |device| {
            all += 1;
            *counts.entry(device).or_default() += 1;
        };
        self.connections.for_each(&mut |connection| {
            if connection.metadata.network == Network::Tcp {
                count(connection.metadata.source.ip());
            }
        });
        self.preparing.for_each(&mut count);
        let half = all.max(self.taken.load(Ordering::Relaxed)) / 2;
        counts.retain(|address, count| *count > half && !address.is_loopback());
        counts.into_keys().next()
    }

    fn note_cut(&self, count: usize) {
        self.cut.add(u64::try_from(count).unwrap_or(0));
    }

    /// Whether memory is too short for one more.
    fn is_short(&self) -> bool {
        let now = clock::coarse();
        let many = self.since.fetch_add(1, Ordering::Relaxed) >= LOOK_EVERY;
        if self.looked.swap(now, Ordering::Relaxed) != now || many {
            self.since.store(0, Ordering::Relaxed);
            let floor = (room::memory() / SHORT_PART).clamp(SHORT.0, SHORT.1);
            let short = room::memory_left() < floor;
            self.short.store(short, Ordering::Relaxed);
        }
        self.short.load(Ordering::Relaxed)
    }

    fn say(&self, line: &dyn Fn() -> String) {
        // The first second is one too.
        let now = clock::coarse().saturating_add(SAY_EVERY);
        let said = self.said.load(Ordering::Relaxed);
        if now >= said.saturating_add(SAY_EVERY) {
            self.said.store(now, Ordering::Relaxed);
            log::warn!("{}", line());
        }
    }
}

fn derived(memory: u64) -> usize {
    let count = (memory / BYTES_EACH).clamp(DERIVED.0, DERIVED.1);
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn sessions_of(limit: usize) -> usize {
    (limit / 2).clamp(SESSIONS.0, SESSIONS.1)
}

/// How many descriptors `max-connections` takes.
#[must_use]
pub fn descriptors_wanted(wanted: Option<u32>) -> u64 {
    u64::try_from(descriptors_for(streams_wanted(wanted))).unwrap_or(u64::MAX)
}

fn streams_wanted(wanted: Option<u32>) -> usize {
    wanted.map_or_else(
        || derived(room::memory()),
        |wanted| usize::try_from(wanted).unwrap_or(usize::MAX).max(1),
    )
}

/// A stream has two descriptors, a UDP session one.
fn descriptors_for(limit: usize) -> usize {
    let streams = limit.saturating_mul(2).saturating_add(sessions_of(limit));
    streams.saturating_add(DESCRIPTORS_APART)
}

/// How many of `wanted` streams `descriptors` suffice for.
fn limit_by(wanted: usize, descriptors: usize) -> usize {
    if descriptors_for(wanted) <= descriptors {
        return wanted;
    }
    let apart = DESCRIPTORS_APART.min(descriptors / 4);
    let left = descriptors.saturating_sub(apart.max(DESCRIPTORS_APART_MIN));
    (left / 5 * 2).clamp(16, wanted.max(16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata};

    fn admission(limit: usize) -> Arc<Admission> {
        let admission = Admission::new(Arc::default());
        admission.limit.store(limit, Ordering::Relaxed);
        admission
    }

    fn open(admission: &Admission, network: Network, source: &str) -> Arc<Connection> {
        let destination = Endpoint::parse("example.org:443").unwrap();
        let source = source.parse().unwrap();
        let name = "in".into();
        let metadata = Metadata::new(network, InboundType::Socks5, &name, source, destination);
        let chain = vec!["DIRECT".into()];
        let connections = &admission.connections;
        connections.open(metadata, chain, None, Duration::ZERO)
    }

    fn is_cut(connection: &Connection) -> bool {
        connection.poll_closed(std::task::Waker::noop())
    }

    #[test]
    fn the_default_follows_the_memory() {
        assert_eq!(derived(32 << 20), 1024);
        assert_eq!(derived(64 << 20), 2048);
        assert_eq!(derived(256 << 20), 8192);
        assert_eq!(derived(4 << 20), 256);
        assert_eq!(derived(u64::MAX), 16_384);
    }

    #[test]
    fn descriptors_bound_the_streams() {
        assert_eq!(limit_by(2048, 1 << 20), 2048);
        for descriptors in [64, 1024, 4096, 40_000] {
            let limit = limit_by(16_384, descriptors);
            assert!(limit >= 16);
            let needed = 2 * limit + limit / 2 + DESCRIPTORS_APART_MIN;
            assert!(needed <= descriptors || limit == 16, "{limit}");
        }
    }

    #[test]
    fn the_silent_longest_makes_room_and_busy_ones_stay() {
        let admission = admission(4);
        let seats: Vec<_> = (0..4).map(|_| admission.seat()).collect();
        let flow = |port: u16, active| {
            let source = format!("192.168.1.{port}:4000");
            let flow = open(&admission, Network::Tcp, &source);
            flow.set_last_active(active);
            flow
        };
        let now = 1000;
        let (old, older, busy) = (flow(1, 900), flow(2, 800), flow(3, now));
        assert_eq!(admission.cut_idle(1, now), 1);
        assert!(is_cut(&older) && !is_cut(&old) && !is_cut(&busy));
        assert_eq!(admission.cut_idle(9, now), 1);
        assert!(is_cut(&old) && !is_cut(&busy));
        assert_eq!(admission.cut_idle(9, now), 0);
        drop(seats);
        assert_eq!(admission.make_room(1000), Ok(()));
        assert_eq!(
            (admission.admitted().taken, admission.admitted().cut),
            (0, 2)
        );
    }

    #[test]
    fn who_holds_more_than_half_gives_up_his_own() {
        let admission = admission(3);
        let _seats: Vec<_> = (0..3).map(|_| admission.seat()).collect();
        let flows = ["192.168.1.1:1", "192.168.1.1:2", "192.168.1.2:1"].map(|source| {
            let flow = open(&admission, Network::Tcp, source);
            flow.set_last_active(1000);
            flow
        });
        assert_eq!(admission.make_room(1000), Err(SOON));
        assert_eq!(flows.iter().filter(|flow| is_cut(flow)).count(), 1);
        assert!(!is_cut(&flows[2]));
    }

    #[test]
    fn what_a_device_has_under_way_counts_against_it_and_goes() {
        let admission = admission(4);
        let _seats: Vec<_> = (0..4).map(|_| admission.seat()).collect();
        let other = open(&admission, Network::Tcp, "192.168.1.2:1");
        other.set_last_active(1000);
        let flood = "192.168.1.1".parse().unwrap();
        let turns: Vec<_> = (0..3)
            .map(|_| admission.preparing.begin(flood, 1000))
            .collect();
        assert_eq!(admission.make_room(1000), Err(SOON));
        assert!(!is_cut(&other));
        assert_eq!(admission.preparing.cut(9, &|source, _| source == flood), 2);
        drop(turns);
        // Of three seats nobody knows whose they are.
        *admission.scan_at.lock().unwrap() = None;
        assert_eq!(admission.make_room(1000), Err(LATER));
        assert!(!is_cut(&other));
    }

    #[test]
    fn who_dials_for_long_makes_room() {
        let admission = admission(2);
        let _seats: Vec<_> = (0..2).map(|_| admission.seat()).collect();
        let device = "192.168.1.1".parse().unwrap();
        let _old = admission.preparing.begin(device, 1000 - IDLE_SECONDS);
        let _new = admission.preparing.begin(device, 1000);
        assert_eq!(admission.cut_idle(9, 1000), 1);
        assert_eq!(admission.cut_idle(9, 1000), 0);
    }

    #[test]
    fn where_nobody_can_be_cut_the_newest_waits() {
        let admission = admission(2);
        let seats: Vec<_> = (0..2).map(|_| admission.seat()).collect();
        for source in ["127.0.0.1:1", "127.0.0.1:2", "192.168.1.1:1"] {
            open(&admission, Network::Tcp, source).set_last_active(1000);
        }
        assert_eq!(admission.make_room(1000), Err(LATER));
        drop(seats);
        assert_eq!(admission.make_room(1000), Ok(()));
    }

    #[test]
    fn udp_that_nobody_answered_goes_first() {
        let admission = admission(2);
        let now = 1000;
        let flows: Vec<_> = (1..=SESSIONS.0 / SESSIONS_PART + 1)
            .map(|port| {
                let source = format!("192.168.1.1:{port}");
                let flow = open(&admission, Network::Udp, &source);
                flow.set_last_active(now - UNANSWERED_SECONDS);
                flow
            })
            .collect();
        let stream = open(&admission, Network::Tcp, "192.168.1.1:3");
        admission.connections.count_download(&flows[0], 1);
        flows[0].set_last_active(0);
        admission.cut_sessions(&Lacking::OfDevice("192.168.1.2".parse().unwrap()), now - 1);
        assert!(!flows.iter().any(|flow| is_cut(flow)));
        admission.cut_sessions(&Lacking::OfAll, now);
        assert!(!is_cut(&flows[0]) && flows[1..].iter().all(|flow| is_cut(flow)));
        // Not twice in a second.
        admission.cut_sessions(&Lacking::OfAll, now);
        assert!(!is_cut(&flows[0]));
        admission.cut_sessions(&Lacking::OfAll, now + 1);
        assert!(is_cut(&flows[0]) && !is_cut(&stream));
    }
}
