//! The allocator's habits and the process's memory.

use std::ffi::c_void;
use std::{fs, ptr};

use nix::libc;

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
    let text = unsafe { libmimalloc_sys::mi_stats_get_json(0, ptr::null_mut()) };
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

/// Gives back what was needed once: free pages, and the program's own pages, that start-up or a reload ran
/// through. Most of those are not run again for days; the ones that are come back from the page cache by
/// a soft fault, some hundred in all. The kernel maps sixteen pages around each one touched, so that most
/// of the program would stay mapped, and be the last to go when memory is short.
pub fn settle() {
    collect();
    let (Ok(maps), Ok(program)) = (
        fs::read_to_string("/proc/self/maps"),
        fs::read_link("/proc/self/exe"),
    ) else {
        return;
    };
    for (start, end) in program_pages(&maps, &program.to_string_lossy()) {
        // SAFETY: a private mapping of the program's file that was never writable, so it holds no changed
        // page: each comes back as it was when it is touched.
        let _kept = unsafe {
            libc::madvise(
                ptr::without_provenance_mut::<c_void>(start),
                end - start,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Address ranges of the program's code and of the constants before it, in the form of
/// `/proc/PID/maps`. Constants behind the code are left out: start-up may have relocated them.
fn program_pages(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut pages = Vec::new();
    for line in maps.lines().filter(|line| line.ends_with(program)) {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(access)) = (words.next(), words.next()) else {
            break;
        };
        let Some((start, end)) = range.split_once('-').and_then(|(start, end)| {
            let number = |text| usize::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?))
        }) else {
            break;
        };
        match access {
            "r--p" => pages.push((start, end)),
            "r-xp" => {
                pages.push((start, end));
                return pages;
            }
            _ => break,
        }
    }
    Vec::new()
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
01000000-010bf000 r--p 00000000 fe:00 1 /usr/sbin/headgate
010bf000-014c8000 r-xp 000be000 fe:00 1 /usr/sbin/headgate
014c8000-014cd000 r--p 004c6000 fe:00 1 /usr/sbin/headgate
014cd000-014d1000 rw-p 004ca000 fe:00 1 /usr/sbin/headgate
7fb2e418c000-7fb2e420d000 rw-p 00000000 00:00 0
";

    #[test]
    fn the_code_and_what_is_before_it_is_given_back_and_nothing_that_was_relocated() {
        let pages = program_pages(MAPS, "/usr/sbin/headgate");
        assert_eq!(pages, [(0x100_0000, 0x10b_f000), (0x10b_f000, 0x14c_8000)]);
    }

    #[test]
    fn a_program_of_one_writable_segment_keeps_its_pages() {
        let maps = "00400000-00800000 rwxp 00000000 fe:00 1 /usr/sbin/headgate\n";
        assert!(program_pages(maps, "/usr/sbin/headgate").is_empty());
    }

    #[test]
    fn after_settling_the_program_goes_on() {
        let kept: Vec<u32> = (0..1000).collect();
        settle();
        assert_eq!(kept.iter().sum::<u32>(), 499_500);
    }
}
