//! The one place that reads a clock; everything else is told the time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::libc;

/// The monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// What [`coarse`] tells.
static COARSE: AtomicU32 = AtomicU32::new(0);

/// Brings the coarse clock up to now; the loops that flows live on do so twice a second.
pub fn beat() {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let seconds = (now() - *BEGAN.get_or_init(now)).as_secs();
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    COARSE.store(seconds, Ordering::Relaxed);
}

/// Seconds since the start, of a clock that costs nothing to read and goes in steps of half a second.
#[must_use]
pub fn coarse() -> u32 {
    COARSE.load(Ordering::Relaxed)
}

/// The wall clock since 1970; zero on a machine whose clock stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds that local time is ahead of UTC at `time`; 0 where no time zone is set.
#[must_use]
#[expect(unsafe_code, reason = "std knows no time zones")]
pub fn local_offset(time: Duration) -> i32 {
    // Not by the name of its type, whose width musl has changed.
    let Ok(seconds) = time.as_secs().try_into() else {
        return 0;
    };
    // SAFETY: `tm` is plain integers and a pointer that may be null, so all zeroes is a value of it.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals; localtime_r locks what it shares with other threads,
    // and nothing in this process changes the environment that it reads.
    let done = unsafe { libc::localtime_r(&raw const seconds, &raw mut broken_down) };
    if done.is_null() {
        return 0;
    }
    i32::try_from(broken_down.tm_gmtoff).unwrap_or(0)
}

/// Hour, minute and second of `time` (since 1970), `offset` seconds ahead of UTC.
#[must_use]
pub fn time_of_day(time: Duration, offset: i32) -> (u64, u64, u64) {
    let seconds = time.as_secs().saturating_add_signed(offset.into()) % 86_400;
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}
