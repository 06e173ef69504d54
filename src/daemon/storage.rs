//! What dashboards keep with us (`/storage/{key}`): a small file a key, in a directory of its own.
//!
//! A key becomes a file name by percent-encoding whatever is no letter, digit, `-` or `_`, so that none
//! leads out of the directory, and none differs from another by its case alone where that matters not.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::state;

/// Where the files lie, in the working directory.
const DIRECTORY: &str = "storage";

/// Bytes of a value (clash-api.md 1.16).
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Bytes of all values together: flash is small. When full, new values are refused.
const TOTAL_BYTES_MAX: u64 = 2 << 20;

/// Bytes of a key, encoded three times as long at most: a file name has 255.
const KEY_BYTES_MAX: usize = 64;

/// Keys at a time.
const KEYS_MAX: usize = 64;

/// Why a value is not kept.
#[derive(Debug)]
pub enum StorageError {
    /// The key is empty or too long.
    Key,
    /// There is no room for it.
    Full,
    /// What the file system says.
    Io(io::Error),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => write!(f, "a key has 1 to {KEY_BYTES_MAX} bytes"),
            Self::Full => f.write_str("the storage is full"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StorageError {}

impl From<io::Error> for StorageError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The value of `key`; `None`: there is none.
///
/// # Errors
/// [`StorageError`].
pub fn get(place: &Path, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match fs::File::open(path(place, key)?) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut value = Vec::new();
    let limit = u64::try_from(VALUE_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut value)?;
    Ok(Some(value))
}

/// Keeps `value` under `key`, whole or not at all. An equal value is not written again.
///
/// # Errors
/// [`StorageError`].
pub fn put(place: &Path, key: &str, value: &[u8]) -> Result<(), StorageError> {
    let path = path(place, key)?;
    if get(place, key)?.as_deref() == Some(value) {
        return Ok(());
    }
    let (mut others, mut total) = (0, 0);
    if let Ok(files) = fs::read_dir(place.join(DIRECTORY)) {
        for file in files.flatten().filter(|file| file.path() != path) {
            others += 1;
            total += file.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    let bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
    if others >= KEYS_MAX || total.saturating_add(bytes) > TOTAL_BYTES_MAX {
        return Err(StorageError::Full);
    }
    Ok(state::replace(&path, value)?)
}

/// Forgets `key`; one that is not there is no error.
///
/// # Errors
/// [`StorageError`].
pub fn delete(place: &Path, key: &str) -> Result<(), StorageError> {
    match fs::remove_file(path(place, key)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn path(place: &Path, key: &str) -> Result<PathBuf, StorageError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(StorageError::Key);
    }
    let mut name = String::with_capacity(3 * key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    Ok(place.join(DIRECTORY).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::Place;

    #[test]
    fn values_come_back_until_they_are_forgotten() {
        let Place(place) = &Place::new("storage-values");
        assert!(get(place, "zashboard").unwrap().is_none());
        put(place, "zashboard", b"{}").unwrap();
        put(place, "zashboard", b"{\"a\":1}").unwrap();
        assert_eq!(get(place, "zashboard").unwrap().unwrap(), b"{\"a\":1}");
        delete(place, "zashboard").unwrap();
        delete(place, "zashboard").unwrap();
        assert!(get(place, "zashboard").unwrap().is_none());
    }

    #[test]
    fn no_key_leads_out_of_the_directory() {
        let Place(place) = &Place::new("storage-keys");
        for key in [
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            ".",
            "\0",
            "%2e",
            "\u{1f600}",
        ] {
            put(place, key, b"1").unwrap();
            assert_eq!(get(place, key).unwrap().unwrap(), b"1", "{key:?}");
        }
        let entries = fs::read_dir(place).unwrap();
        assert_eq!(entries.count(), 1);
        assert_eq!(fs::read_dir(place.join(DIRECTORY)).unwrap().count(), 8);
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        assert!(matches!(put(place, &long, b"1"), Err(StorageError::Key)));
        assert!(matches!(get(place, ""), Err(StorageError::Key)));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_old_value_stays() {
        let Place(place) = &Place::new("storage-full");
        let large = vec![b'1'; VALUE_BYTES_MAX];
        put(place, "a", &large).unwrap();
        put(place, "b", b"1").unwrap();
        put(place, "c", &large[2..]).unwrap();
        assert!(matches!(put(place, "b", b"123"), Err(StorageError::Full)));
        assert_eq!(get(place, "b").unwrap().unwrap(), b"1");
        put(place, "a", b"2").unwrap();
        put(place, "b", b"123").unwrap();
    }
}
