//! The file that keeps the fake addresses over restarts.
//!
//! Append only: a header that names the ranges, then one record for each name that was given an
//! address, in order. A record is written before its address is answered, without fsync: what was
//! answered survives the death of the process (the page cache does), and after a power cut at most
//! what the kernel had not yet written is gone. Each record has a checksum; reading ends at the
//! first that fails, and the file is cut there. It is written anew, and renamed into place, when
//! more than half of it is about names that have lost their address.
//!
//! ```text
//! header:  "hgfakeip" version(1) length4(1) network4(4) length6(1) network6(16) crc32(4)
//! record:  length of name(1) slot(4) name crc32(4)
//! ```
//! All integers big-endian; without an IPv6 range its length is 255.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::inflate::crc32;
use crate::prefix::{Prefix, bits};

const MAGIC: &[u8; 8] = b"hgfakeip";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 35;
/// Dead records that are not worth a rewrite of the file (and of flash).
const DEAD_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a record besides the name.
const RECORD_OVERHEAD: usize = 9;

/// The first bytes of the file for these ranges.
pub(super) type Header = [u8; HEADER_BYTES];

pub(super) fn header(v4: Prefix, v6: Option<Prefix>) -> Header {
    let mut header = [0; HEADER_BYTES];
    let network = |prefix: Prefix| bits(prefix.network()).0.to_be_bytes();
    let [.., a, b, c, d] = network(v4);
    let fields = MAGIC
        .iter()
        .copied()
        .chain([VERSION, v4.length(), a, b, c, d])
        .chain([v6.map_or(u8::MAX, |v6| v6.length())])
        .chain(v6.map_or([0; 16], network));
    for (place, byte) in header.iter_mut().zip(fields) {
        *place = byte;
    }
    if let Some((fields, checksum)) = header.split_last_chunk_mut() {
        *checksum = crc32(fields).to_be_bytes();
    }
    header
}

/// Appends a record to `out`; names above 255 bytes do not occur.
pub(super) fn push_record(out: &mut Vec<u8>, slot: u32, name: &str) {
    let start = out.len();
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&slot.to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    let checksum = crc32(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_be_bytes());
}

/// The bytes of a name's record.
pub(super) fn record_bytes(name: &str) -> u64 {
    (name.len() + RECORD_OVERHEAD) as u64
}

/// The open file.
pub(super) struct Log {
    path: PathBuf,
    header: Header,
    file: File,
    length: u64,
    /// A write failed: the file no longer tells all and must be written anew.
    broken: bool,
    /// Records since the rewrite that is under way began, if one is.
    since: Option<Vec<u8>>,
}

impl Log {
    /// Opens or makes the file and tells `each` its records in order. A file for other ranges, or
    /// one that is no such file, is emptied.
    pub(super) fn open(
        path: &Path,
        header: Header,
        each: impl FnMut(u32, &str),
    ) -> io::Result<Self> {
        let mut file = options().truncate(false).open(path)?;
        let length = read(&mut file, &header, each)?;
        let mut log = Self {
            path: path.to_owned(),
            header,
            file,
            length,
            broken: false,
            since: None,
        };
        if length == 0 {
            log.clear()?;
        } else {
            log.cut()?;
        }
        Ok(log)
    }

    /// Appends the record of one name. A failure (a full disk) leaves the file as it was; it is
    /// mended by the next rewrite.
    pub(super) fn append(&mut self, slot: u32, name: &str) -> io::Result<()> {
        let mut record = Vec::with_capacity(name.len() + RECORD_OVERHEAD);
        push_record(&mut record, slot, name);
        if let Some(since) = &mut self.since {
            since.extend_from_slice(&record);
        }
        if self.broken {
            return Ok(());
        }
        match self.file.write_all(&record) {
            Ok(()) => {
                self.length += record.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.broken = true;
                // A torn record would hide everything after it.
                self.cut()?;
                Err(error)
            }
        }
    }

    /// Empties the file.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.since = None;
        self.cut()?;
        self.file.write_all(&self.header)?;
        self.length = self.header.len() as u64;
        self.broken = false;
        Ok(())
    }

    /// Begins a rewrite if one is worth it; `live` is what the records of all names would take.
    /// Gives the header to begin the new file with, and its place.
    pub(super) fn begin_rewrite(&mut self, live: u64) -> Option<(Vec<u8>, PathBuf)> {
        let dead = self.length.saturating_sub(live + self.header.len() as u64);
        let wasteful = dead > live && dead > DEAD_BYTES_MAX;
        if self.since.is_some() || !(self.broken || wasteful) {
            return None;
        }
        self.since = Some(Vec::new());
        let mut place = self.path.clone().into_os_string();
        place.push(".new");
        Some((self.header.to_vec(), place.into()))
    }

    /// Puts a file of `length` bytes, written by [`write_aside`], into force, with what was
    /// appended meanwhile. A flush in between makes it void.
    pub(super) fn end_rewrite(
        &mut self,
        written: io::Result<(File, u64)>,
        place: &Path,
    ) -> io::Result<()> {
        let since = self.since.take();
        let (mut file, length) = match written {
            Ok(written) => written,
            Err(error) => {
                // Half a file would take the room that was missing.
                let _ = std::fs::remove_file(place);
                return Err(error);
            }
        };
        let Some(since) = since else {
            return std::fs::remove_file(place);
        };
        file.write_all(&since)?;
        std::fs::rename(place, &self.path)?;
        self.file = file;
        self.length = length + since.len() as u64;
        self.broken = false;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        Ok(())
    }
}

/// Writes and syncs a new file, so that the rename never uncovers an empty one.
pub(super) fn write_aside(place: &Path, bytes: &[u8]) -> io::Result<(File, u64)> {
    let mut file = options().truncate(true).open(place)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok((file, bytes.len() as u64))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Which names a household asks for is nobody else's business.
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// Reads records up to the first that is torn or wrong; gives the length of what is good, 0 when
/// not even the header is.
fn read(file: &mut File, header: &Header, mut each: impl FnMut(u32, &str)) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut found = [0; HEADER_BYTES];
    match reader.read_exact(&mut found) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    if found != *header {
        return Ok(0);
    }
    let mut good = HEADER_BYTES as u64;
    let mut record = Vec::with_capacity(RECORD_OVERHEAD + 255);
    loop {
        record.clear();
        record.resize(5, 0);
        let mut next = |record: &mut Vec<u8>, from: usize| match record.get_mut(from..) {
            Some(place) => reader.read_exact(place),
            None => Ok(()),
        };
        if next(&mut record, 0).is_err() {
            return Ok(good);
        }
        let &[length, a, b, c, d] = record.as_slice() else {
            return Ok(good);
        };
        record.resize(RECORD_OVERHEAD + usize::from(length), 0);
        if next(&mut record, 5).is_err() {
            return Ok(good);
        }
        let Some((fields, checksum)) = record.split_last_chunk() else {
            return Ok(good);
        };
        let name = fields.get(5..).map(std::str::from_utf8);
        let (Some(Ok(name)), true) = (name, crc32(fields).to_be_bytes() == *checksum) else {
            return Ok(good);
        };
        each(u32::from_be_bytes([a, b, c, d]), name);
        good += record.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_well_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
