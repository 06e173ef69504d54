//! Where providers keep their copies: below the working directory, replaced whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// A provider's path inside `directory`. `None`: it leads out of it.
#[must_use]
pub fn inside(directory: &Path, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(directory).unwrap_or(path);
    let stays = below
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    stays.then(|| directory.join(below))
}

/// When the file was last written, since 1970.
///
/// # Errors
/// There is no such file.
pub fn written(path: &Path) -> io::Result<Duration> {
    let modified = fs::metadata(path)?.modified()?;
    Ok(modified.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Writes a file whole, or not at all.
///
/// # Errors
/// What the file system says; the old file stays then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_working_directory() {
        let inside = |path: &str| inside(Path::new("/etc/hg"), Path::new(path));
        assert_eq!(inside("rules/a"), Some("/etc/hg/rules/a".into()));
        assert_eq!(inside("./a"), Some("/etc/hg/./a".into()));
        assert_eq!(inside("/etc/hg/a"), Some("/etc/hg/a".into()));
        assert_eq!(inside("../a"), None);
        assert_eq!(inside("/etc/passwd"), None);
        assert_eq!(inside("/etc/hg/../passwd"), None);
    }
}
