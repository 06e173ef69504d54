//! The rhythm of feeds that tell the state at intervals.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// A tick each `period`, the first one `period` from now; a tick that nobody was there for is skipped,
/// not made up for.
pub(super) fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The period of `/traffic` and `/memory`.
pub(super) const SECOND: Duration = Duration::from_secs(1);
