//! The allocator's habits and the process's memory.

use std::fs;

/// `mi_option_purge_delay` of the bundled mimalloc; the crate exports no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has freed memory given back to the kernel at once. mimalloc's default waits for a call that an
/// idle daemon never makes: 16.8 MB stayed after a burst, 1.7 MB with this (crates.md 3.9).
pub fn return_at_once() {
    // SAFETY: sets one integer option of the allocator; called first thing in `main`, before any
    // other thread exists.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

/// Gives free pages back to the kernel, after a reload has dropped the old state.
pub fn collect() {
    // SAFETY: collects the calling thread's heap; safe at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Resident memory of the process, bytes; 0 where `/proc` is not mounted.
#[must_use]
pub fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    // SAFETY: reads one configuration value.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * u64::try_from(page).unwrap_or(4096)
}
