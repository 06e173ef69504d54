//! Kernel switches under `/proc/sys`.

use std::fs;
use std::io;
use std::path::Path;

/// The number behind `name` (`net/ipv4/ip_forward`); `None` where the kernel has no such
/// switch, or one that is not a small number.
#[must_use]
pub fn read(name: &str) -> Option<u8> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

/// Sets it.
///
/// # Errors
/// What the kernel says; a jail may show `/proc/sys` read-only.
pub fn write(name: &str, value: u8) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name), value.to_string())
}
