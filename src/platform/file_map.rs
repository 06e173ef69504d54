//! A file in memory without a copy of it: pages come when they are read, and go when memory is short.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};

use nix::libc;

/// A file, mapped for reading. To be held for a short time only: whoever cuts the file short
/// meanwhile has the kernel kill us for reading behind its new end.
pub struct FileMap {
    start: NonNull<c_void>,
    length: usize,
}

impl FileMap {
    /// Maps the whole file.
    ///
    /// # Errors
    /// What the kernel says; the file is empty, or larger than the address space.
    pub fn of(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice; nothing of ours lies there.
        let start =
            unsafe { libc::mmap(null_mut(), length, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is ours, readable and this long, and lives as long as `self`. Writes of
        // others to the file would show: its readers take nothing of it for granted twice.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: mapped in `of` with this length, and nobody has a reference into it any more.
        let _ = unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_as_it_is_and_an_empty_one_is_refused() {
        let executable = std::env::current_exe().unwrap();
        let map = FileMap::of(&File::open(&executable).unwrap()).unwrap();
        assert!(map.bytes().starts_with(b"\x7fELF"));
        assert_eq!(map.bytes(), std::fs::read(executable).unwrap());
        assert!(FileMap::of(&File::open("/dev/null").unwrap()).is_err());
    }
}
