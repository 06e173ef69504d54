//! Archives, as dashboards are published: `zip`, and `tar` under gzip (RFC 1952).
//!
//! An entry's name is only ever a path below where it is unpacked, there are no links, and what an archive says
//! of sizes is held against the limits here before anything is made of it.

pub mod tar;
pub mod zip;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use crate::inflate::{crc32_after, gzip_body, inflate_through};
use crate::wire::Truncated;
use tar::Tar;

/// Entries of an archive.
const ENTRIES_MAX: u16 = 4096;

/// Bytes of one entry, and of all together: a dashboard has 3 to 15 MB.
const ENTRY_BYTES_MAX: u32 = 8 << 20;
const TOTAL_BYTES_MAX: u64 = 48 << 20;

/// Bytes of a tar archive, its headers included.
const TAR_BYTES_MAX: usize = 56 << 20;

/// Bytes that a packed tar archive may have: it is held in memory.
const PACKED_BYTES_MAX: u64 = 16 << 20;

/// Why an archive is not unpacked.
#[derive(Debug)]
pub enum ArchiveError {
    /// It is none, or is cut off or damaged.
    Malformed,
    /// More, or larger, than a dashboard is.
    TooLarge,
    /// Encrypted, in parts, or packed in another way.
    Unsupported,
    /// An entry that would lie elsewhere, or that is a link.
    Outside,
    /// What the file system says.
    Io(io::Error),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("no whole zip or tgz archive"),
            Self::TooLarge => f.write_str("the archive holds too much"),
            Self::Unsupported => f.write_str("the archive is packed in a way that is not served"),
            Self::Outside => f.write_str("the archive has entries that lead out of it"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ArchiveError {}

impl From<Truncated> for ArchiveError {
    fn from(_: Truncated) -> Self {
        Self::Malformed
    }
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Malformed,
            _ => Self::Io(error),
        }
    }
}

/// What an archive holds, in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file of this name begins.
    File(&'a str),
    /// A piece of it.
    Bytes(&'a [u8]),
}

/// Takes what an archive holds.
pub type Found<'a> = &'a mut dyn FnMut(Event<'_>) -> io::Result<()>;

/// Goes through an archive of either kind, its content left out where a zip archive needs not tell it.
///
/// # Errors
/// [`ArchiveError`], and what `found` says.
pub fn walk(archive: &mut File, content: bool, found: Found<'_>) -> Result<(), ArchiveError> {
    let mut start = [0; 2];
    archive.rewind()?;
    archive.read_exact(&mut start)?;
    if start == [0x1f, 0x8b] {
        return walk_tar(archive, found);
    }
    for entry in &zip::entries(archive)? {
        found(Event::File(&entry.name))?;
        if content {
            found(Event::Bytes(&zip::content(archive, entry)?))?;
        }
    }
    Ok(())
}

fn walk_tar(archive: &mut File, found: Found<'_>) -> Result<(), ArchiveError> {
    archive.rewind()?;
    let mut packed = Vec::new();
    archive.take(PACKED_BYTES_MAX).read_to_end(&mut packed)?;
    let body = gzip_body(&packed).ok_or(ArchiveError::Malformed)?;
    let (mut tar, mut sum, mut done) = (Tar::default(), 0, Ok(()));
    let taken = inflate_through(body, TAR_BYTES_MAX, &mut |piece| {
        sum = crc32_after(sum, piece);
        done = tar.feed(piece, found);
        done.is_ok()
    });
    done?;
    let check = taken.and_then(|taken| body.get(taken..taken + 4));
    match check == Some(&sum.to_le_bytes()) && tar.is_whole() {
        true => Ok(()),
        false => Err(ArchiveError::Malformed),
    }
}

/// Whether a name is a path of plain names, and stays one when its first folder is taken away.
fn is_plain(name: &str) -> bool {
    let mut parts = name.split('/');
    parts.all(|part| !matches!(part, "" | "." | "..")) && !name.contains(['\\', '\0'])
}
