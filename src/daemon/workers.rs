//! The loops that flows live on: a thread a core, each with a runtime of its own.
//!
//! A flow stays on the loop that accepted it, so nothing of it is shared or sent between cores; the
//! kernel spreads connections over the loops' listeners. Each loop shows once a second that it still
//! turns; the first of them renews the capture rules when all do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::platform::{clock, memory};

/// More loops than this gain nothing on a router and cost memory each.
const WORKERS_MAX: usize = 4;

/// Flows are small state machines and their polls do not nest deeply.
const STACK_BYTES: usize = 512 * 1024;

/// How often a loop shows that it turns.
pub const BEAT: Duration = Duration::from_secs(1);

/// Half beats between returns of free memory: what a burst of flows took belongs to the loop's own heap,
/// which nobody else can empty.
const COLLECT_BEATS: u32 = 16;

/// The loops.
pub struct Workers {
    handles: Vec<Handle>,
    beats: Arc<[AtomicUsize]>,
}

impl Workers {
    /// Starts a loop a core.
    ///
    /// # Errors
    /// What the kernel says of threads and epoll.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(WORKERS_MAX);
        let beats: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let mut handles = Vec::new();
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let beats = Arc::clone(&beats);
            let run = move || {
                runtime.block_on(async move {
                    let mut ticks = tokio::time::interval(BEAT / 2);
                    for count in 1_u32.. {
                        ticks.tick().await;
                        clock::beat();
                        if count.is_multiple_of(COLLECT_BEATS) {
                            memory::collect();
                        }
                        if let Some(beat) = beats.get(index) {
                            beat.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            };
            thread::Builder::new()
                .name(format!("flows-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(run)?;
        }
        Ok(Self { handles, beats })
    }

    /// The loops' runtimes, at least one.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The first loop, for what needs one only.
    pub fn first(&self) -> Option<&Handle> {
        self.handles.first()
    }

    /// Watches the loops from outside.
    pub fn pulse(&self) -> Pulse {
        Pulse {
            beats: Arc::clone(&self.beats),
            seen: self
                .beats
                .iter()
                .map(|beat| beat.load(Ordering::Relaxed))
                .collect(),
        }
    }
}

/// What was last seen of the loops' beats.
pub struct Pulse {
    beats: Arc<[AtomicUsize]>,
    seen: Vec<usize>,
}

impl Pulse {
    /// Whether every loop has turned since this was last asked.
    pub fn all_turned(&mut self) -> bool {
        let mut all = true;
        for (beat, seen) in self.beats.iter().zip(&mut self.seen) {
            let now = beat.load(Ordering::Relaxed);
            all &= now != *seen;
            *seen = now;
        }
        all
    }
}
