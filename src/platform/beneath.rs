//! Files that somebody may name only beneath given directories.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Why a file is not read.
#[derive(Debug)]
pub enum Refused {
    /// The path is not absolute.
    Relative,
    /// It lies elsewhere, or is not there: who asks is not told which.
    Outside,
    /// It cannot be read, is no regular file, or is too large.
    Unreadable(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative => f.write_str("path is not a absolute path"),
            Self::Outside => f.write_str("path is not subpath of home directory or SAFE_PATHS"),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// The real path and the content, of at most `bytes_max`, of a file that lies in one of `directories`,
/// wherever links lead.
///
/// The path is resolved before anything is opened, since opening some devices has effects; the
/// opened file is asked for its path again, so that a link swapped in between leads nowhere.
///
/// # Errors
/// [`Refused`].
pub fn read(
    directories: &[&Path],
    path: &Path,
    bytes_max: u64,
) -> Result<(PathBuf, Vec<u8>), Refused> {
    if !path.is_absolute() {
        return Err(Refused::Relative);
    }
    let directories = directories.iter().map(|known| known.canonicalize());
    let directories: Vec<PathBuf> = directories.filter_map(Result::ok).collect();
    let is_inside = |path: &Path| directories.iter().any(|known| path.starts_with(known));
    let real = path.canonicalize().map_err(|_| Refused::Outside)?;
    if !is_inside(&real) {
        return Err(Refused::Outside);
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(&real)?;
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if !is_inside(&opened) {
        return Err(Refused::Outside);
    }
    Ok((real, content(file, bytes_max)?))
}

fn content(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    if !file.metadata()?.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(wrong(format!("larger than {} KiB", bytes_max / 1024)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere_and_sizes_hold() {
        let place = std::env::temp_dir().join(format!("headgate-beneath-{}", std::process::id()));
        let (inside, outside) = (place.join("in"), place.join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("a"), "text").unwrap();
        std::fs::write(outside.join("b"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.join("b"), inside.join("link")).unwrap();
        let read = |path: &Path, max| read(&[&inside], path, max).map(|(_, content)| content);
        assert_eq!(read(&inside.join("a"), 4).unwrap(), b"text");
        assert!(matches!(
            read(&inside.join("a"), 3),
            Err(Refused::Unreadable(_))
        ));
        assert!(matches!(read(&inside, 9), Err(Refused::Unreadable(_))));
        assert!(matches!(read(Path::new("a"), 9), Err(Refused::Relative)));
        for elsewhere in ["link", "../out/b", "none", "../out/none"] {
            assert!(matches!(
                read(&inside.join(elsewhere), 9),
                Err(Refused::Outside)
            ));
        }
        std::fs::remove_dir_all(&place).unwrap();
    }
}
