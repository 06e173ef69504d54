//! Where providers keep their copies: below the working directory, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of an entity tag that is worth keeping, and of the file that keeps it.
const ETAG_MAX: usize = 1024;
const ETAG_FILE_MAX: u64 = 2048;

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

/// Says that the file is as good as if it had been written at `time`, since 1970.
///
/// # Errors
/// What the file system says.
pub fn touch(path: &Path, time: Duration) -> io::Result<()> {
    let file = OpenOptions::new().append(true).open(path)?;
    file.set_modified(UNIX_EPOCH + time)
}

/// A file on its way: beside the one that it is to replace, and gone if it does not.
pub struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Begins the file that is to replace `path`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let path = with_suffix(path, ".new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path)?;
        Ok(Self { path, file })
    }

    /// Appends.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// What was written so far, to be read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Puts it in the place of `path`.
    ///
    /// # Errors
    /// What the file system says; the old file stays then.
    pub fn commit(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a commit there is none any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// What the server called the copy at `path` when it came from `address`.
#[must_use]
pub fn etag(path: &Path, address: &str) -> Option<Box<str>> {
    let mut text = String::new();
    let file = File::open(with_suffix(path, ".etag")).ok()?;
    file.take(ETAG_FILE_MAX).read_to_string(&mut text).ok()?;
    let (from, etag) = text.split_once('\n')?;
    (from == address).then(|| etag.into())
}

/// Remembers what the server at `address` calls the copy at `path`.
///
/// # Errors
/// What the file system says; the next download is a whole one then.
pub fn remember_etag(path: &Path, address: &str, etag: Option<&str>) -> io::Result<()> {
    let path = with_suffix(path, ".etag");
    match etag.filter(|etag| etag.len() <= ETAG_MAX) {
        Some(etag) => fs::write(path, format!("{address}\n{etag}")),
        None if path.exists() => fs::remove_file(path),
        None => Ok(()),
    }
}

/// `path` with `suffix` behind its last name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
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
