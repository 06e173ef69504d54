//! The pages of a dashboard, from the archive that its makers publish to the directory that is shown.
//!
//! Unpacked beside the old ones and put in their place at once: whatever goes wrong before, the old ones stay, and
//! where the power goes between the two renamings that takes, [`recover`] puts them back.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::archive::{self, ArchiveError, Event};

/// Where pages may be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the place of whatever is there.
    Any,
    /// Where nothing is.
    Empty,
}

/// Why the pages are as they were.
#[derive(Debug)]
pub enum PagesError {
    /// The archive.
    Archive(ArchiveError),
    /// There is no `index.html` in it.
    NoIndex,
    /// What the file system says.
    Io(io::Error),
}

impl fmt::Display for PagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(error) => error.fmt(f),
            Self::NoIndex => f.write_str("the archive has no index.html"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PagesError {}

impl From<ArchiveError> for PagesError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<io::Error> for PagesError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether there are no pages in `directory`: nothing at all.
#[must_use]
pub fn are_missing(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Puts back the pages that a crash left aside while others took their place.
///
/// # Errors
/// What the file system says.
pub fn recover(directory: &Path) -> io::Result<()> {
    let old = beside(directory, "old");
    match are_missing(directory) && old.exists() {
        true => fs::rename(old, directory),
        false => Ok(()),
    }
}

/// Puts the pages of `archive` in `directory`.
///
/// # Errors
/// [`PagesError`]; what was there is there then.
pub fn put(directory: &Path, archive: &mut File, place: Place) -> Result<(), PagesError> {
    recover(directory)?;
    let mut names = Vec::new();
    archive::walk(archive, false, &mut |event| {
        if let Event::File(name) = event {
            names.push(Box::from(name));
        }
        Ok(())
    })?;
    let top = common_top(&names);
    if !names.iter().any(|name| inside(name, top) == "index.html") {
        return Err(PagesError::NoIndex);
    }
    let new = beside(directory, "new");
    remove(&new)?;
    let unpacked = unpack(archive, top, &new);
    let placed = unpacked.and_then(|()| Ok(exchange(directory, &new, place)?));
    if placed.is_err() {
        // The reason is told; what is left is removed the next time too.
        let _gone = remove(&new);
    }
    placed
}

fn unpack(archive: &mut File, top: usize, new: &Path) -> Result<(), PagesError> {
    let mut file = None;
    archive::walk(archive, true, &mut |event| match event {
        Event::File(name) => {
            let path = new.join(inside(name, top));
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            file = Some(File::create(path)?);
            Ok(())
        }
        Event::Bytes(bytes) => file.as_mut().map_or(Ok(()), |file| file.write_all(bytes)),
    })?;
    Ok(())
}

fn exchange(directory: &Path, new: &Path, place: Place) -> io::Result<()> {
    // The kernel takes the place of an empty directory, and of no other.
    if place == Place::Empty {
        return fs::rename(new, directory);
    }
    let old = beside(directory, "old");
    remove(&old)?;
    match fs::rename(directory, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Err(error) = fs::rename(new, directory) {
        let _back = fs::rename(old, directory);
        return Err(error);
    }
    // The new ones are in their place: what cannot be removed now is removed the next time.
    let _gone = remove(&old);
    Ok(())
}

/// What is left of a name without the directory that all have.
fn inside(name: &str, top: usize) -> &str {
    name.get(top..).unwrap_or_default()
}

/// Bytes of the directory that all names lie in, its slash included; 0: there is none such.
fn common_top(names: &[Box<str>]) -> usize {
    let first = names.first().and_then(|name| name.get(..=name.find('/')?));
    let first = first.unwrap_or_default();
    match names.iter().all(|name| name.starts_with(first)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_between_two_names_is_found_again() {
        let place = std::env::temp_dir().join(format!("headgate-pages-{}", std::process::id()));
        let pages = place.join("ui");
        fs::create_dir_all(place.join(".ui.old")).unwrap();
        fs::write(place.join(".ui.old/index.html"), "old").unwrap();
        assert!(are_missing(&pages));
        recover(&pages).unwrap();
        assert!(!are_missing(&pages));
        assert_eq!(fs::read(pages.join("index.html")).unwrap(), b"old");
        // Where both are there the new ones stay.
        fs::create_dir_all(place.join(".ui.old")).unwrap();
        recover(&pages).unwrap();
        assert_eq!(fs::read(pages.join("index.html")).unwrap(), b"old");
        // What is to fill a gap takes nobody's place.
        let new = place.join(".ui.new");
        fs::create_dir(&new).unwrap();
        assert!(exchange(&pages, &new, Place::Empty).is_err());
        assert_eq!(fs::read(pages.join("index.html")).unwrap(), b"old");
        exchange(&pages, &new, Place::Any).unwrap();
        assert!(are_missing(&pages));
        fs::remove_dir_all(place).unwrap();
    }
}
