//! The pages of a dashboard, from the archive that its makers publish to the directory that is shown.
//!
//! Unpacked beside the old ones and put in their place at once: whatever goes wrong before, the old ones stay.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::zip::{self, Entry, ZipError};

/// Why the pages are as they were.
#[derive(Debug)]
pub enum PagesError {
    /// The archive.
    Zip(ZipError),
    /// There is no `index.html` in it.
    NoIndex,
    /// What the file system says.
    Io(io::Error),
}

impl fmt::Display for PagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zip(error) => error.fmt(f),
            Self::NoIndex => f.write_str("the archive has no index.html"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PagesError {}

impl From<ZipError> for PagesError {
    fn from(error: ZipError) -> Self {
        Self::Zip(error)
    }
}

impl From<io::Error> for PagesError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Puts the pages of `archive` in the place of `directory`.
///
/// # Errors
/// [`PagesError`]; the old pages are there then.
pub fn replace(directory: &Path, archive: &mut File) -> Result<(), PagesError> {
    let entries = zip::entries(archive)?;
    let top = common_top(&entries);
    let inside = |name: &str| name.get(top..).unwrap_or_default().to_owned();
    if !entries
        .iter()
        .any(|entry| inside(&entry.name) == "index.html")
    {
        return Err(PagesError::NoIndex);
    }
    let (new, old) = (beside(directory, "new"), beside(directory, "old"));
    for leftover in [&new, &old] {
        remove(leftover)?;
    }
    let unpacked = entries.iter().try_for_each(|entry| {
        let path = new.join(inside(&entry.name));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, zip::content(archive, entry)?)?;
        Ok::<_, PagesError>(())
    });
    let placed = unpacked.and_then(|()| Ok(exchange(directory, &new, &old)?));
    if placed.is_err() {
        // The reason is told; what is left is removed the next time too.
        let _gone = remove(&new);
    }
    placed
}

fn exchange(directory: &Path, new: &Path, old: &Path) -> io::Result<()> {
    match fs::rename(directory, old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Err(error) = fs::rename(new, directory) {
        let _back = fs::rename(old, directory);
        return Err(error);
    }
    remove(old)
}

/// Bytes of the directory that all entries lie in, its slash included; 0: there is none such.
fn common_top(entries: &[Entry]) -> usize {
    let top = |entry: &Entry| {
        entry
            .name
            .find('/')
            .and_then(|end| entry.name.get(..=end).map(String::from))
    };
    let Some(first) = entries.first().and_then(top) else {
        return 0;
    };
    match entries.iter().all(|entry| entry.name.starts_with(&first)) {
        true => first.len(),
        false => 0,
    }
}

/// A hidden directory beside `directory`, on the same file system.
fn beside(directory: &Path, what: &str) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{name}.{what}"))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
