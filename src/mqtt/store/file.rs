//! The log's file: appended to, synced, and rewritten beside itself when it has grown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::frame::HEADER;

/// The log is rewritten when it has so many times the bytes of its last rewriting, and this many more.
const GROWTH: u64 = 2;
const GROWTH_BYTES: u64 = 256 * 1024;

/// The file's name in the daemon's directory.
const NAME: &str = "mqtt.log";

/// The open log.
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_at_start: u64,
}

impl Log {
    /// Opens the log of a directory, or begins one. Returns its frames; call [`Log::keep`] when it is
    /// known how many of their bytes are whole.
    ///
    /// # Errors
    /// What the system says; also of a file that is no log of this version.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<u8>)> {
        fs::create_dir_all(directory)?;
        let path = directory.join(NAME);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        let mut contents = Vec::new();
        file.read_to_end(&mut contents)?;
        let frames = match contents.strip_prefix(HEADER) {
            Some(frames) => frames.to_vec(),
            // Not even the header was written whole.
            None if HEADER.starts_with(&contents) => {
                file.set_len(0)?;
                file.write_all(HEADER)?;
                Vec::new()
            }
            None => return Err(io::ErrorKind::InvalidData.into()),
        };
        let bytes = HEADER.len() as u64;
        let log = Self {
            path,
            file,
            bytes,
            bytes_at_start: bytes,
        };
        Ok((log, frames))
    }

    /// Cuts off what is behind `valid` bytes of frames.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&mut self, valid: usize) -> io::Result<()> {
        self.bytes = (HEADER.len() + valid) as u64;
        self.file.set_len(self.bytes)
    }

    /// Appends frames.
    ///
    /// # Errors
    /// What the system says; the log may be torn, and is to be rewritten.
    pub fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        self.file.write_all(frames)?;
        self.bytes += frames.len() as u64;
        Ok(())
    }

    /// Waits until what was appended is on the medium.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The file, to be synced elsewhere.
    ///
    /// # Errors
    /// What the system says.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Whether it should be rewritten.
    #[must_use]
    pub fn has_grown(&self) -> bool {
        self.bytes > self.bytes_at_start.saturating_mul(GROWTH) + GROWTH_BYTES
    }

    /// Begins anew with `frames`; the old log counts until the new one is whole on the medium.
    ///
    /// # Errors
    /// What the system says; the old log stays.
    pub fn rewrite(&mut self, frames: &[u8]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        file.write_all(HEADER)?;
        file.write_all(frames)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.bytes = (HEADER.len() + frames.len()) as u64;
        self.bytes_at_start = self.bytes;
        Ok(())
    }
}
