//! Capabilities (capabilities(7)): what root may still do.

use std::{fmt, io};

use nix::errno::Errno;
use nix::libc;

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: sets of 64 bits, as two halves.
const VERSION: u32 = 0x2008_0522;

/// The largest number that may be one; the kernel says where its own end.
const NUMBERS: u32 = 64;

/// One capability, by its number in `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// Files of other users.
    DacOverride = 1,
    /// Reading files and folders of other users, `/proc/PID/fd` among them.
    DacReadSearch = 2,
    /// Ports below 1024.
    NetBindService = 10,
    /// Netlink, marks, transparent sockets, switches of the network.
    NetAdmin = 12,
    /// Raw sockets.
    NetRaw = 13,
    /// Looking into other processes.
    SysPtrace = 19,
}

impl Capability {
    /// Its bit in a set.
    #[must_use]
    pub fn bit(self) -> u64 {
        1 << (self as u32)
    }
}

/// A set as people write it.
pub(super) struct Names(pub(super) u64);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            (Capability::DacOverride, "dac_override"),
            (Capability::DacReadSearch, "dac_read_search"),
            (Capability::NetBindService, "net_bind_service"),
            (Capability::NetAdmin, "net_admin"),
            (Capability::NetRaw, "net_raw"),
            (Capability::SysPtrace, "sys_ptrace"),
        ];
        let mut kept = known.iter().filter(|(each, _)| self.0 & each.bit() != 0);
        if self.0 == 0 {
            return f.write_str(" none");
        }
        kept.try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

/// `__user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// One half of each set: `__user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all but `wanted` of what the calling thread has, and of what programs that it runs may get.
/// Answers with what is left.
pub(super) fn keep(wanted: &[Capability]) -> io::Result<u64> {
    let wanted = wanted.iter().fold(0, |all, each| all | each.bit());
    let mut halves = get()?;
    // From the bounding set only he may take who has CAP_SETPCAP; who has not, has nothing to take either.
    for number in (0..NUMBERS).filter(|number| wanted >> number & 1 == 0) {
        // SAFETY: takes one capability from the bounding set of the calling thread; no pointer is passed.
        let dropped =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if dropped != 0 {
            break;
        }
    }
    let mut left = 0;
    for (index, half) in halves.iter_mut().enumerate() {
        let mask = u32::try_from(wanted >> (32 * index) & u64::from(u32::MAX)).unwrap_or(0);
        half.permitted &= mask;
        half.effective = half.permitted;
        half.inheritable &= mask;
        left |= u64::from(half.permitted) << (32 * index);
    }
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    // SAFETY: both pointers are to live locals of the layout that version 3 has: a header, and two halves.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    Errno::result(done)?;
    Ok(left)
}

fn get() -> io::Result<[Half; 2]> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut halves = [Half::default(); 2];
    // SAFETY: both pointers are to live locals of the layout that version 3 has: a header, and two halves.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    Errno::result(done)?;
    Ok(halves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_gone_for_this_thread() {
        let left = std::thread::spawn(|| keep(&[Capability::NetAdmin]).unwrap());
        let left = left.join().unwrap();
        assert_eq!(left & !Capability::NetAdmin.bit(), 0);
        let again = std::thread::spawn(|| {
            keep(&[]).unwrap();
            keep(&[Capability::NetAdmin]).unwrap()
        });
        assert_eq!(again.join().unwrap(), 0);
        assert_eq!(
            Names(left | 1 << 13).to_string().split(' ').next_back(),
            Some("net_raw")
        );
        assert_eq!(Names(0).to_string(), " none");
    }
}
