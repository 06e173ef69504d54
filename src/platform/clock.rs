//! The one place that reads a clock; everything else is told the time.

use std::time::{Duration, Instant, SystemTime};

/// The monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock since 1970; zero on a machine whose clock stands before that.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
