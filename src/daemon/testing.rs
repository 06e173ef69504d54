//! What the daemon's tests share.

use std::fs;
use std::path::PathBuf;

/// An empty directory of one test's own, gone when this is dropped.
pub struct Place(pub PathBuf);

impl Place {
    /// `name` is nobody else's in this program.
    pub fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("headgate-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place).unwrap();
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
