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

/// What the allocator holds for one size of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageClass {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Bytes of a page of such blocks.
    pub page_bytes: u64,
    /// Pages in use.
    pub current: u64,
    /// Pages ever taken.
    pub total: u64,
}

/// What the allocator holds, by size of block; blocks too large for a page of a fixed size are not in it.
#[must_use]
pub fn page_classes() -> Vec<PageClass> {
    // SAFETY: without a buffer the allocator makes one, or answers null.
    let text = unsafe { libmimalloc_sys::mi_stats_get_json(0, std::ptr::null_mut()) };
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: a text that ends in zero, which is ours until it is freed below.
    let bytes = unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes();
    let parsed = serde_json::from_slice(bytes);
    // SAFETY: the allocator's own, not used after this.
    unsafe { libmimalloc_sys::mi_free(text.cast()) };
    let parsed: serde_json::Value = parsed.unwrap_or_default();
    let bins = parsed.get("page_bins").and_then(|bins| bins.as_array());
    let class = |bin: &serde_json::Value| {
        // Counted on several threads: for a moment it may be less than nothing.
        let number = |name| u64::try_from(bin.get(name)?.as_i64()?).ok();
        Some(PageClass {
            block_bytes: number("block_size")?,
            page_bytes: number("page_size").filter(|&bytes| bytes > 0)?,
            current: number("current")?,
            total: number("total")?,
        })
    };
    bins.into_iter().flatten().filter_map(class).collect()
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
