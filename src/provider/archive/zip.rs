//! ZIP archives (PKWARE APPNOTE 6.3), as dashboards are published: found by their central directory, entries
//! stored or deflated. No encryption, no parts, no ZIP64: none of those has them.
//!
//! An entry's name is only ever a path below where it is unpacked. What the archive says of sizes is held
//! against limits before anything is read, and against what comes out.

use std::io::{Read, Seek, SeekFrom};

use super::{ArchiveError, ENTRIES_MAX, ENTRY_BYTES_MAX, TOTAL_BYTES_MAX, is_plain};
use crate::inflate::{crc32, inflate};
use crate::wire::{Reader, Truncated};

/// Bytes of the directory that lists the entries.
const DIRECTORY_BYTES_MAX: u32 = 1 << 20;

/// Bytes of the record at the end, without and with the longest comment.
const END_BYTES: usize = 22;
const END_BYTES_MAX: u64 = 22 + 65_535;

/// Bytes of a local header before its names.
const LOCAL_BYTES: usize = 30;

/// One file of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it belongs: a relative path of plain names.
    pub name: Box<str>,
    deflated: bool,
    crc: u32,
    packed_bytes: u32,
    bytes: u32,
    offset: u32,
}

fn u16_le(reader: &mut Reader<'_>) -> Result<u16, Truncated> {
    reader.array().map(u16::from_le_bytes)
}

fn u32_le(reader: &mut Reader<'_>) -> Result<u32, Truncated> {
    reader.array().map(u32::from_le_bytes)
}

/// The files of an archive; its directories are not told.
///
/// # Errors
/// [`ArchiveError`].
pub fn entries(archive: &mut (impl Read + Seek)) -> Result<Vec<Entry>, ArchiveError> {
    let length = archive.seek(SeekFrom::End(0))?;
    let tail = length.min(END_BYTES_MAX);
    archive.seek(SeekFrom::Start(length - tail))?;
    let mut end = Vec::new();
    archive.take(tail).read_to_end(&mut end)?;
    let at = end
        .windows(END_BYTES)
        .rposition(|at| at.starts_with(b"PK\x05\x06"));
    let end = at
        .and_then(|at| end.get(at + 4..))
        .ok_or(ArchiveError::Malformed)?;
    let mut reader = Reader::new(end);
    let (disk, first_disk) = (u16_le(&mut reader)?, u16_le(&mut reader)?);
    let (here, count) = (u16_le(&mut reader)?, u16_le(&mut reader)?);
    let (bytes, offset) = (u32_le(&mut reader)?, u32_le(&mut reader)?);
    if (disk, first_disk, here) != (0, 0, count) || offset == u32::MAX {
        return Err(ArchiveError::Unsupported);
    }
    if count > ENTRIES_MAX || bytes > DIRECTORY_BYTES_MAX {
        return Err(ArchiveError::TooLarge);
    }
    archive.seek(SeekFrom::Start(offset.into()))?;
    let mut directory = Vec::new();
    archive.take(bytes.into()).read_to_end(&mut directory)?;
    let mut reader = Reader::new(&directory);
    let mut found = Vec::new();
    let mut total = 0;
    for _ in 0..count {
        if let Some(entry) = entry(&mut reader)? {
            total += u64::from(entry.bytes);
            found.push(entry);
        }
    }
    match total > TOTAL_BYTES_MAX {
        true => Err(ArchiveError::TooLarge),
        false => Ok(found),
    }
}

/// The next entry of the directory (4.3.12); `None`: it is a directory itself.
fn entry(reader: &mut Reader<'_>) -> Result<Option<Entry>, ArchiveError> {
    if reader.take(4)? != b"PK\x01\x02" {
        return Err(ArchiveError::Malformed);
    }
    let maker = u16_le(reader)? >> 8;
    let (_needed, flags, method) = (u16_le(reader)?, u16_le(reader)?, u16_le(reader)?);
    let _time = u32_le(reader)?;
    let (crc, packed_bytes, bytes) = (u32_le(reader)?, u32_le(reader)?, u32_le(reader)?);
    let (name, extra, comment) = (u16_le(reader)?, u16_le(reader)?, u16_le(reader)?);
    let (_disk, _internal) = (u16_le(reader)?, u16_le(reader)?);
    let (attributes, offset) = (u32_le(reader)?, u32_le(reader)?);
    let name = str::from_utf8(reader.take(name.into())?).map_err(|_| ArchiveError::Malformed)?;
    reader.take(usize::from(extra) + usize::from(comment))?;
    if name.ends_with('/') {
        return Ok(None);
    }
    // 3: made on Unix, where the upper half are the bits of the file's mode.
    let link = maker == 3 && attributes >> 28 == 0o12;
    if link || !is_plain(name) {
        return Err(ArchiveError::Outside);
    }
    if flags & 1 != 0 || !matches!(method, 0 | 8) || bytes == u32::MAX {
        return Err(ArchiveError::Unsupported);
    }
    if bytes.max(packed_bytes) > ENTRY_BYTES_MAX {
        return Err(ArchiveError::TooLarge);
    }
    Ok(Some(Entry {
        name: name.into(),
        deflated: method == 8,
        crc,
        packed_bytes,
        bytes,
        offset,
    }))
}

/// The content of an entry.
///
/// # Errors
/// [`ArchiveError`].
pub fn content(archive: &mut (impl Read + Seek), entry: &Entry) -> Result<Vec<u8>, ArchiveError> {
    let mut head = [0; LOCAL_BYTES];
    archive.seek(SeekFrom::Start(entry.offset.into()))?;
    archive.read_exact(&mut head)?;
    let mut reader = Reader::new(&head);
    if reader.take(4)? != b"PK\x03\x04" {
        return Err(ArchiveError::Malformed);
    }
    // Its sizes stand in the directory; here they may be missing.
    reader.take(22)?;
    let (name, extra) = (u16_le(&mut reader)?, u16_le(&mut reader)?);
    archive.seek(SeekFrom::Current(i64::from(name) + i64::from(extra)))?;
    let mut packed = Vec::new();
    archive
        .take(entry.packed_bytes.into())
        .read_to_end(&mut packed)?;
    let bytes = usize::try_from(entry.bytes).map_err(|_| ArchiveError::TooLarge)?;
    let content = match entry.deflated {
        true => inflate(&packed, bytes).map(|(content, _)| content),
        false => Some(packed),
    };
    let sound = |content: &Vec<u8>| content.len() == bytes && crc32(content) == entry.crc;
    content.filter(sound).ok_or(ArchiveError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// An archive of stored entries, with the mode of each.
    fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, content, mode) in files {
            let offset = u32::try_from(out.len()).unwrap();
            let length = u32::try_from(content.len()).unwrap().to_le_bytes();
            let name_length = u16::try_from(name.len()).unwrap().to_le_bytes();
            let common = [
                &[0_u8; 8][..],
                &crc32(content).to_le_bytes(),
                &length,
                &length,
                &name_length,
                &[0; 2],
            ]
            .concat();
            out.extend([b"PK\x03\x04\x14\0", &common[..], name.as_bytes(), content].concat());
            directory.extend(
                [
                    b"PK\x01\x02\x14\x03\x14\0",
                    &common[..],
                    &[0; 6],
                    &(mode << 16).to_le_bytes(),
                    &offset.to_le_bytes(),
                    name.as_bytes(),
                ]
                .concat(),
            );
        }
        let count = u16::try_from(files.len()).unwrap().to_le_bytes();
        let (bytes, offset) = (directory.len(), out.len());
        let number = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        out.extend(&directory);
        out.extend(
            [
                b"PK\x05\x06\0\0\0\0",
                &count[..],
                &count,
                &number(bytes),
                &number(offset),
                b"\x03\0end",
            ]
            .concat(),
        );
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let mut archive = Cursor::new(bytes);
        let found = entries(&mut archive)?;
        let found = found
            .iter()
            .map(|entry| Ok((entry.name.to_string(), content(&mut archive, entry)?)));
        found.collect()
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        let bytes = archive(&[
            ("ui/", b"", 0o040_755),
            ("ui/index.html", b"<p>", 0o100_644),
            ("ui/a/b.js", b"1", 0),
        ]);
        let want = [
            ("ui/index.html".to_owned(), b"<p>".to_vec()),
            ("ui/a/b.js".to_owned(), b"1".to_vec()),
        ];
        assert_eq!(read(&bytes).unwrap(), want);
    }

    #[test]
    fn deflated_entries_come_out() {
        // Made by Python's zipfile of sixty times `a`.
        let hex = "504b03041400000008000000210029bd981f060000003c00000001000000784b4c241f0000\
                   504b010214031400000008000000210029bd981f060000003c0000000100000000000000000000008001000000\
                   0078504b050600000000010001002f000000250000000000";
        let bytes = crate::encoding::HEX.decode(hex.as_bytes()).unwrap();
        assert_eq!(read(&bytes).unwrap(), [("x".to_owned(), vec![b'a'; 60])]);
    }

    #[test]
    fn nothing_leads_out() {
        for name in [
            "../x",
            "/etc/passwd",
            "a/../../x",
            "a\\..\\x",
            "..",
            "a\0b",
            "./x/../y",
            "ui//etc/passwd",
            "d/./x",
            "",
        ] {
            let bytes = archive(&[(name, b"1", 0o100_644)]);
            assert!(matches!(read(&bytes), Err(ArchiveError::Outside)), "{name}");
        }
        let link = archive(&[("x", b"/etc/passwd", 0o120_777)]);
        assert!(matches!(read(&link), Err(ArchiveError::Outside)));
    }

    #[test]
    fn damage_and_promises_are_noticed() {
        let good = archive(&[("x", b"hello", 0)]);
        let at = good.windows(5).position(|at| at == b"hello").unwrap();
        let mut bad = good.clone();
        bad[at] = b'j';
        assert!(
            matches!(read(&bad), Err(ArchiveError::Malformed)),
            "its checksum is wrong"
        );
        assert!(matches!(
            read(&good[..good.len() - 10]),
            Err(ArchiveError::Malformed)
        ));
        assert!(matches!(read(b"<html>"), Err(ArchiveError::Malformed)));
        let mut large = good.clone();
        let at = good.windows(4).position(|at| at == b"PK\x01\x02").unwrap();
        large[at + 24..at + 28].copy_from_slice(&(ENTRY_BYTES_MAX + 1).to_le_bytes());
        assert!(matches!(read(&large), Err(ArchiveError::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>, at: usize, with: u8) {
            let _any = read(&bytes);
            bytes = archive(&[("index.html", b"<p>", 0), ("b", b"", 0)]);
            let at = at % bytes.len();
            bytes[at] = with;
            let _any = read(&bytes);
        }
    }
}
