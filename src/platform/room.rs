//! How much room the machine leaves us: memory, by its own size and by our cgroup's (v2), and file
//! descriptors. What cannot be read bounds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::load::{field, load};

/// Bytes of memory that are ours to share: the machine's, or our cgroup's where that is less.
#[must_use]
pub fn memory() -> u64 {
    let machine = match load().memory {
        0 => u64::MAX,
        bytes => bytes,
    };
    cgroup().map_or(machine, |group| machine.min(limit_of(group)))
}

/// Bytes that could still be had without swapping and without the kernel killing somebody.
#[must_use]
pub fn memory_left() -> u64 {
    let machine = match load() {
        load if load.memory == 0 => u64::MAX,
        load => load.memory_available,
    };
    cgroup().map_or(machine, |group| machine.min(left_in(group)))
}

/// Our cgroup's folder, where we are in one of its own.
fn cgroup() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = Path::new("/sys/fs/cgroup").join(path);
        folder.join("memory.max").exists().then_some(folder)
    };
    FOLDER.get_or_init(find).as_deref()
}

/// `memory.max`: a number, or `max` for none.
fn limit_of(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("memory.max"));
    let limit = text.ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(u64::MAX)
}

/// What may still be charged to it. Pages of files that nobody uses count against the limit and are
/// given up before anybody is killed.
fn left_in(group: &Path) -> u64 {
    let limit = limit_of(group);
    if limit == u64::MAX {
        return limit;
    }
    let read = |name| fs::read_to_string(group.join(name)).unwrap_or_default();
    let used = read("memory.current").trim().parse().unwrap_or(0);
    let spare = field(&read("memory.stat"), "inactive_file ");
    limit.saturating_sub(used).saturating_add(spare).min(limit)
}

/// Raises the number of descriptors that we may have open to `wanted`, as far as we may: beyond the hard
/// limit only with `CAP_SYS_RESOURCE`. Answers with how many we may have now.
pub fn raise_descriptors(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    if soft >= wanted {
        return soft;
    }
    if wanted > hard && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return wanted;
    }
    let most = wanted.min(hard);
    match setrlimit(Resource::RLIMIT_NOFILE, most, hard) {
        Ok(()) => most,
        Err(_) => soft,
    }
}

/// Descriptors: how many are open, and how many may be.
#[must_use]
pub fn descriptors() -> (u64, u64) {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    // The one that reads the folder is among them.
    (u64::try_from(open).unwrap_or(0).saturating_sub(1), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_left_what_its_limit_leaves_and_what_its_file_pages_would_give() {
        let group = std::env::temp_dir().join(format!("headgate-room-{}", std::process::id()));
        fs::create_dir_all(&group).unwrap();
        let write = |name: &str, text: &str| fs::write(group.join(name), text).unwrap();
        write("memory.max", "max\n");
        assert_eq!(left_in(&group), u64::MAX);
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\nfile 300\ninactive_file 250\n");
        assert_eq!((limit_of(&group), left_in(&group)), (1000, 350));
        write("memory.current", "1200\n");
        assert_eq!(left_in(&group), 250);
        fs::remove_dir_all(&group).unwrap();
    }

    #[test]
    fn this_machine_has_room() {
        assert!(memory() >= memory_left() && memory_left() > 0);
        let (open, most) = descriptors();
        assert!(open >= 3 && most > open);
        assert_eq!(raise_descriptors(1), most);
    }
}
