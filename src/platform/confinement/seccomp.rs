//! System calls that this program never makes, refused by the kernel (seccomp(2)).
//!
//! A list of what is refused, not of what is allowed: a C library or a kernel may bring a new call for an old
//! purpose with any version, and a router must not go dark over it. The filter is a search tree over the
//! numbers of this machine, so a call costs some seven comparisons; where the kernel keeps a map of calls
//! that are always allowed, nothing.

use std::io;

use nix::libc;
use nix::libc::{
    SYS_acct, SYS_add_key, SYS_adjtimex, SYS_bpf, SYS_chroot, SYS_clock_adjtime, SYS_clock_settime,
    SYS_clone, SYS_clone3, SYS_delete_module, SYS_fanotify_init, SYS_finit_module, SYS_fsconfig,
    SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_init_module, SYS_io_uring_enter,
    SYS_io_uring_register, SYS_io_uring_setup, SYS_kcmp, SYS_kexec_load, SYS_keyctl,
    SYS_lookup_dcookie, SYS_mknodat, SYS_mount, SYS_mount_setattr, SYS_move_mount,
    SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_open_tree, SYS_perf_event_open,
    SYS_personality, SYS_pidfd_getfd, SYS_pivot_root, SYS_process_vm_readv, SYS_process_vm_writev,
    SYS_ptrace, SYS_quotactl, SYS_quotactl_fd, SYS_reboot, SYS_request_key, SYS_setdomainname,
    SYS_sethostname, SYS_setns, SYS_settimeofday, SYS_socket, SYS_swapoff, SYS_swapon, SYS_syslog,
    SYS_umount2, SYS_unshare, SYS_userfaultfd, SYS_vhangup, sock_filter, sock_fprog,
};

/// Calls that are refused whatever their arguments: other processes' memory, mounts and name spaces, modules
/// and other kernels, the clock, keys, and the interfaces that most of the kernel's holes were found in.
const REFUSED: &[libc::c_long] = &[
    SYS_acct,
    SYS_add_key,
    SYS_adjtimex,
    SYS_bpf,
    SYS_chroot,
    SYS_clock_adjtime,
    SYS_clock_settime,
    SYS_delete_module,
    SYS_fanotify_init,
    SYS_finit_module,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_init_module,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_io_uring_setup,
    SYS_kcmp,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_lookup_dcookie,
    SYS_mknodat,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_perf_event_open,
    SYS_personality,
    SYS_pidfd_getfd,
    SYS_pivot_root,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_request_key,
    SYS_setdomainname,
    SYS_sethostname,
    SYS_setns,
    SYS_settimeofday,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_umount2,
    SYS_unshare,
    SYS_userfaultfd,
    SYS_vhangup,
];

/// Further ones by the same measure that only some machines have: older names of the calls above, and those of
/// 32 bits that take a time of 64. What the C library does not name goes by the number of the kernel's table.
#[cfg(target_arch = "x86_64")]
const OF_THIS_MACHINE: &[libc::c_long] = &[
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
];
#[cfg(target_arch = "aarch64")]
const OF_THIS_MACHINE: &[libc::c_long] = &[294 /* kexec_file_load */];
#[cfg(target_arch = "arm")]
const OF_THIS_MACHINE: &[libc::c_long] = &[
    libc::SYS_mknod,
    401, /* kexec_file_load */
    404, /* clock_settime64 */
    405, /* clock_adjtime64 */
];
/// `socketcall` would open a socket past [`FAMILIES`]; the C library has a call each.
#[cfg(target_arch = "mips")]
const OF_THIS_MACHINE: &[libc::c_long] = &[
    libc::SYS_mknod,
    libc::SYS_socketcall,
    libc::SYS_stime,
    libc::SYS_umount,
    4404, /* clock_settime64 */
    4405, /* clock_adjtime64 */
];
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "mips"
)))]
const OF_THIS_MACHINE: &[libc::c_long] = &[];

fn refused() -> impl Iterator<Item = libc::c_long> {
    REFUSED.iter().chain(OF_THIS_MACHINE).copied()
}

/// Families of sockets that may be opened: unix, inet, inet6, netlink.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Flags of clone(2) that make name spaces.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// `AUDIT_ARCH_*` of `linux/audit.h`: the machine of the ELF header, its width and its byte order.
const ARCHITECTURE: u32 = machine()
    | if cfg!(target_pointer_width = "64") {
        0x8000_0000
    } else {
        0
    }
    | if cfg!(target_endian = "little") {
        0x4000_0000
    } else {
        0
    };

const fn machine() -> u32 {
    if cfg!(target_arch = "mips") {
        8
    } else if cfg!(target_arch = "arm") {
        40
    } else if cfg!(target_arch = "aarch64") {
        183
    } else if cfg!(target_arch = "x86_64") {
        62
    } else {
        0
    }
}

/// Offsets in `seccomp_data`: the number, the architecture, the lower half of the first argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") {
    16
} else {
    20
};

/// Numbers of x86_64 from here on are those of x32, another name for the same calls.
const X32: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

const fn refuse(errno: i32) -> u32 {
    ERRNO | errno.cast_unsigned()
}

/// What becomes of one call.
#[derive(Clone, Copy)]
enum Verdict {
    Refuse,
    /// By its family.
    Socket,
    /// By its flags.
    Clone,
    /// Says that there is no such call: its flags are in memory, where a filter cannot look, and the C
    /// library takes clone(2) then.
    Absent,
}

/// Installs the filter for the calling thread and those that it begins.
pub(super) fn install() -> io::Result<()> {
    if machine() == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut program = program();
    let program = sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the pointer is to a live program of `len` instructions, which the kernel copies and checks.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn program() -> Vec<sock_filter> {
    let refused = refused().map(|number| (number, Verdict::Refuse));
    let looked_at = [
        (SYS_socket, Verdict::Socket),
        (SYS_clone, Verdict::Clone),
        (SYS_clone3, Verdict::Absent),
    ];
    let mut calls: Vec<(u32, Verdict)> = refused
        .chain(looked_at)
        .filter_map(|(number, verdict)| Some((u32::try_from(number).ok()?, verdict)))
        .collect();
    calls.sort_unstable_by_key(|(number, _)| *number);
    let mut program = vec![
        step(LOAD, ARCH),
        branch(JUMP_IF_EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, refuse(libc::EPERM)),
        step(LOAD, NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(branch(JUMP_IF_AT_LEAST, X32, 0, 1));
        program.push(step(RETURN, refuse(libc::ENOSYS)));
    }
    program.extend(search(&calls));
    program
}

/// A tree over `calls`, which are in order; every way through it ends in a return.
fn search(calls: &[(u32, Verdict)]) -> Vec<sock_filter> {
    if calls.len() <= LEAF {
        let mut leaf = Vec::new();
        for (number, verdict) in calls {
            let judged = judge(*verdict);
            leaf.push(branch(JUMP_IF_EQUAL, *number, 0, distance(&judged)));
            leaf.extend(judged);
        }
        leaf.push(step(RETURN, ALLOW));
        return leaf;
    }
    let (left, right) = calls.split_at(calls.len() / 2);
    let least = right.first().map_or(0, |(number, _)| *number);
    let left = search(left);
    let mut tree = vec![branch(JUMP_IF_AT_LEAST, least, distance(&left), 0)];
    tree.extend(left);
    tree.extend(search(right));
    tree
}

/// Calls that are compared one after the other: a branch more would cost what it saves.
const LEAF: usize = 3;

/// Jumps are of one byte: half of all calls is less than that, which a test holds.
fn distance(over: &[sock_filter]) -> u8 {
    u8::try_from(over.len()).unwrap_or(u8::MAX)
}

fn judge(verdict: Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Refuse => vec![step(RETURN, refuse(libc::EPERM))],
        Verdict::Absent => vec![step(RETURN, refuse(libc::ENOSYS))],
        Verdict::Clone => vec![
            step(LOAD, FIRST_ARGUMENT),
            branch(JUMP_IF_ANY, NAMESPACES, 0, 1),
            step(RETURN, refuse(libc::EPERM)),
            step(RETURN, ALLOW),
        ],
        Verdict::Socket => {
            let mut judged = vec![step(LOAD, FIRST_ARGUMENT)];
            for family in FAMILIES {
                judged.push(branch(JUMP_IF_EQUAL, family.cast_unsigned(), 0, 1));
                judged.push(step(RETURN, ALLOW));
            }
            judged.push(step(RETURN, refuse(libc::EAFNOSUPPORT)));
            judged
        }
    }
}

fn step(code: u16, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call: the instructions of bpf(4) that it is made of, one after the other.
    fn verdict(program: &[sock_filter], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        for _ in 0..40 {
            let step = &program[at];
            at += 1;
            let taken = match step.code {
                LOAD => {
                    value = match step.k {
                        NUMBER => number,
                        ARCH => architecture,
                        FIRST_ARGUMENT => argument,
                        other => panic!("load of {other}"),
                    };
                    continue;
                }
                RETURN => return step.k,
                JUMP_IF_EQUAL => value == step.k,
                JUMP_IF_AT_LEAST => value >= step.k,
                JUMP_IF_ANY => value & step.k != 0,
                other => panic!("instruction {other}"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
        panic!("too many instructions for one call");
    }

    #[test]
    fn every_call_is_judged_as_the_list_says() {
        let program = program();
        assert!(program.len() < 256, "jumps are of one byte");
        let number = |call: libc::c_long| u32::try_from(call).unwrap();
        let special = [SYS_socket, SYS_clone, SYS_clone3];
        for call in 0..6000 {
            let refused = refused().any(|refused| number(refused) == call);
            if special.iter().any(|each| number(*each) == call) {
                continue;
            }
            let want = if refused { refuse(libc::EPERM) } else { ALLOW };
            assert_eq!(verdict(&program, ARCHITECTURE, call, 0), want, "{call}");
        }
        let socket = |family| verdict(&program, ARCHITECTURE, number(SYS_socket), family);
        assert_eq!(socket(libc::AF_INET6.cast_unsigned()), ALLOW);
        assert_eq!(
            socket(libc::AF_PACKET.cast_unsigned()),
            refuse(libc::EAFNOSUPPORT)
        );
        let clone = |flags| verdict(&program, ARCHITECTURE, number(SYS_clone), flags);
        assert_eq!(clone(libc::CLONE_VM.cast_unsigned()), ALLOW);
        assert_eq!(
            clone(libc::CLONE_NEWUSER.cast_unsigned()),
            refuse(libc::EPERM)
        );
        let clone3 = verdict(&program, ARCHITECTURE, number(SYS_clone3), 0);
        assert_eq!(clone3, refuse(libc::ENOSYS));
        assert_eq!(verdict(&program, 1, 0, 0), refuse(libc::EPERM));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(
                verdict(&program, ARCHITECTURE, X32, 0),
                refuse(libc::ENOSYS)
            );
        }
    }

    #[test]
    fn the_kernel_takes_the_filter_and_refuses() {
        let refused = std::thread::spawn(|| {
            super::super::no_new_privileges().unwrap();
            install().unwrap();
            // A thread begins, a file and a socket open, and no name space is made.
            std::thread::spawn(|| {}).join().unwrap();
            std::fs::read("/proc/self/status").unwrap();
            std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            // SAFETY: no pointer is passed; the call is refused.
            let done = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
            (done, io::Error::last_os_error().raw_os_error())
        });
        assert_eq!(refused.join().unwrap(), (-1, Some(libc::EPERM)));
    }
}
