//! Where files may be written and programs run from (landlock(7)). Reading is free.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::Needs;

/// Rights of `linux/landlock.h`, by their bits.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_SOCK: u64 = 1 << 9;
/// Everything that is made, devices and links included.
const MAKE_ANY: u64 = 0b111_1111 << 6;
/// From versions 2 and 3 on: files that go from folder to folder, and files that are cut.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// Of these a file, which is no folder, can have.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | TRUNCATE;

/// What sockets need, with the private folder that may be around them.
const SOCKETS: u64 = MAKE_SOCK | MAKE_DIR | REMOVE_FILE | REMOVE_DIR;

/// Signals go to nobody outside, from version 6 on.
const SCOPE_SIGNAL: u64 = 1 << 1;

const CREATE_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// `landlock_ruleset_attr`; a kernel of an earlier version is shown less of it.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// Restricts the calling thread, and those that it begins, to `needs`. The kernel's version of landlock.
pub(super) fn restrict(needs: &Needs) -> io::Result<u32> {
    let version = version()?;
    let mut handled = EXECUTE | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_ANY;
    if version >= 2 {
        handled |= REFER;
    }
    if version >= 3 {
        handled |= TRUNCATE;
    }
    let rules = create(version, handled)?;
    let writable = needs.writable.iter().map(|path| (path, handled & !EXECUTE));
    let sockets = needs.sockets.iter().map(|path| (path, SOCKETS));
    let executable = needs.executable.iter().map(|path| (path, EXECUTE));
    for (path, rights) in writable.chain(sockets).chain(executable) {
        allow(&rules, path, rights)?;
    }
    // SAFETY: hands over a descriptor that is open; no pointer is passed.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    Errno::result(done)?;
    Ok(version)
}

fn version() -> io::Result<u32> {
    let none = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag the kernel takes no ruleset, and answers with its version.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0_usize,
            CREATE_VERSION,
        )
    };
    let version = Errno::result(version)?;
    u32::try_from(version).map_err(io::Error::other)
}

fn create(version: u32, files: u64) -> io::Result<OwnedFd> {
    let ruleset = Ruleset {
        files,
        network: 0,
        scoped: if version >= 6 { SCOPE_SIGNAL } else { 0 },
    };
    // A kernel refuses what is longer than it knows, unless the rest is zero.
    let size = size_of::<Ruleset>();
    // SAFETY: the pointer is to a live structure of `size` bytes.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size,
            0_u32,
        )
    };
    let fd = i32::try_from(Errno::result(made)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows `rights` at `path` and beneath; what is not there is passed over.
fn allow(rules: &OwnedFd, path: &Path, rights: u64) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_PATH).open(path);
    let Ok(place) = opened else {
        return Ok(());
    };
    let rights = if place.metadata()?.is_dir() {
        rights
    } else {
        rights & OF_FILES
    };
    let beneath = Beneath {
        allowed: rights,
        parent: place.as_raw_fd(),
    };
    // SAFETY: the pointer is to a live structure of the kind that the number before it names.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const beneath,
            0_u32,
        )
    };
    Errno::result(done)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_written_where_it_is_allowed_and_read_everywhere() {
        if version().is_err() {
            // A kernel without landlock has nothing to show; the daemon says so in its log.
            return;
        }
        let place = std::env::temp_dir().join(format!("headgate-landlock-{}", std::process::id()));
        let (inside, outside) = (place.join("inside"), place.join("outside"));
        fs::create_dir_all(&inside).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("old"), "x").unwrap();
        let needs = Needs {
            writable: vec![inside.clone(), place.join("missing")],
            ..Needs::default()
        };
        let (within, without) = (inside.clone(), outside.clone());
        let done = std::thread::spawn(move || {
            super::super::no_new_privileges().unwrap();
            assert!(restrict(&needs).unwrap() >= 1);
            fs::write(within.join("new.part"), "x").unwrap();
            fs::rename(within.join("new.part"), within.join("new")).unwrap();
            fs::remove_file(within.join("new")).unwrap();
            assert_eq!(fs::read(without.join("old")).unwrap(), b"x");
            let refused = |done: io::Result<()>| {
                assert_eq!(done.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            refused(fs::write(without.join("new"), "x"));
            refused(fs::write(without.join("old"), "x"));
            refused(fs::remove_file(without.join("old")));
            let run = std::process::Command::new("/bin/true").status();
            refused(run.map(|_| ()));
        });
        let ended = done.join();
        fs::remove_dir_all(&place).unwrap();
        ended.unwrap();
    }
}
