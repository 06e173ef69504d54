//! What the process gives up once it knows what it needs: privileges, system calls, places to write.
//!
//! Done while there is one thread, so that all others inherit it. What is given up does not come back, not
//! by an `exec` of another program either; so a process that became its own successor is confined already,
//! which its environment tells ([`MARK`]). Each part stands for itself: what the kernel lacks is left out and
//! named, and nothing here can keep the daemon from starting.

mod capabilities;
mod landlock;
mod seccomp;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

pub use capabilities::Capability;

/// The environment's word for what an earlier program of this process left writable, one path after the
/// other as in `PATH`.
pub const MARK: &str = "HEADGATE_CONFINED";

/// What remains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Capabilities that stay, where we have them.
    pub capabilities: Vec<Capability>,
    /// Folders in which files may be made, changed and removed; files that may be changed.
    pub writable: Vec<PathBuf>,
    /// Folders in which sockets may be made and removed.
    pub sockets: Vec<PathBuf>,
    /// Folders and files that may be run.
    pub executable: Vec<PathBuf>,
    /// Whether it looks into other processes, which landlock forbids whoever it confines.
    pub other_processes: bool,
}

/// What was given up.
#[derive(Debug)]
pub struct Confined {
    writable: Vec<PathBuf>,
    capabilities: io::Result<u64>,
    no_new_privileges: io::Result<()>,
    seccomp: io::Result<()>,
    landlock: io::Result<u32>,
    before: bool,
}

impl Confined {
    /// Gives up everything but `needs`, for ever. To be called before there is a second thread.
    #[must_use]
    pub fn to(needs: &Needs) -> Self {
        let capabilities = capabilities::keep(&needs.capabilities);
        if let Some(before) = std::env::var_os(MARK) {
            let writable = std::env::split_paths(&before).collect();
            return Self {
                writable,
                capabilities,
                no_new_privileges: Ok(()),
                seccomp: Ok(()),
                landlock: Ok(0),
                before: true,
            };
        }
        let no_new_privileges = no_new_privileges();
        let landlock = match needs.other_processes {
            true => Err(io::Error::other("rules look for programs")),
            false => landlock::restrict(needs),
        };
        // Last: it takes the calls away that the others are made of.
        let seccomp = seccomp::install();
        Self {
            writable: match &landlock {
                Ok(_) => needs
                    .writable
                    .iter()
                    .chain(&needs.sockets)
                    .cloned()
                    .collect(),
                Err(_) => vec!["/".into()],
            },
            capabilities,
            no_new_privileges,
            seccomp,
            landlock,
            before: false,
        }
    }

    /// Whether something may be made at `path`: a file, or a socket where only those may be.
    #[must_use]
    pub fn may_write(&self, path: &Path) -> bool {
        self.writable.iter().any(|place| path.starts_with(place))
    }

    /// Whether a capability remained.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        let kept = self.capabilities.as_ref();
        kept.is_ok_and(|kept| kept & capability.bit() != 0)
    }

    /// What to put into the environment of a successor, if it starts confined.
    #[must_use]
    pub fn mark(&self) -> Option<(&'static OsStr, OsString)> {
        let confined = self.before || self.seccomp.is_ok() || self.landlock.is_ok();
        let places = std::env::join_paths(&self.writable).ok()?;
        confined.then_some((OsStr::new(MARK), places))
    }
}

/// One line for the log.
impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.capabilities {
            Ok(kept) => write!(f, "capabilities:{}", capabilities::Names(*kept))?,
            Err(error) => write!(f, "all capabilities kept ({error})")?,
        }
        if self.before {
            return f.write_str("; the rest as before the restart");
        }
        let part = |f: &mut fmt::Formatter<'_>, name: &str, done: Option<&io::Error>| match done {
            None => write!(f, "; {name}"),
            Some(error) => write!(f, "; no {name} ({error})"),
        };
        part(f, "no_new_privs", self.no_new_privileges.as_ref().err())?;
        part(f, "seccomp", self.seccomp.as_ref().err())?;
        part(f, "landlock", self.landlock.as_ref().err())?;
        match &self.landlock {
            Ok(version) => write!(f, " (version {version})"),
            Err(_) => Ok(()),
        }
    }
}

/// No program that we might run gets more than we have.
fn no_new_privileges() -> io::Result<()> {
    // SAFETY: sets one flag of the calling thread; no pointer is passed.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
