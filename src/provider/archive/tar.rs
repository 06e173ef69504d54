//! tar archives (POSIX.1-1988 `ustar`, and what GNU tar, git and pax write of it), piece by piece. Pure.
//!
//! Files and directories alone. What is a link or a device, or has a name that does not fit into a header, is refused.

use std::ops::Range;

use super::{ArchiveError, ENTRIES_MAX, ENTRY_BYTES_MAX, Event, Found, TOTAL_BYTES_MAX, is_plain};

/// Everything comes in blocks of so many bytes.
const BLOCK: usize = 512;

/// Bytes of pax records that are looked at.
const RECORDS_BYTES_MAX: u64 = 4096;

/// What the bytes that come belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Content,
    Records,
    Skipped,
    /// Behind the last entry.
    End,
}

/// An archive on its way.
pub struct Tar {
    part: Part,
    /// Bytes of the part yet to come, and of what fills its last block.
    left: u64,
    padding: u64,
    /// What has come of a header, or of records.
    kept: Vec<u8>,
    entries: u16,
    total: u64,
}

impl Default for Tar {
    fn default() -> Self {
        Self {
            part: Part::Head,
            left: BLOCK as u64,
            padding: 0,
            kept: Vec::new(),
            entries: 0,
            total: 0,
        }
    }
}

impl Tar {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ArchiveError`], and what `found` says.
    pub fn feed(&mut self, mut bytes: &[u8], found: Found<'_>) -> Result<(), ArchiveError> {
        while !bytes.is_empty() && self.part != Part::End {
            let count =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (now, rest) = bytes.split_at(count);
            match self.part {
                Part::Head | Part::Records => self.kept.extend_from_slice(now),
                Part::Content => found(Event::Bytes(now))?,
                Part::Skipped | Part::End => {}
            }
            bytes = rest;
            self.left -= count as u64;
            if self.left == 0 {
                self.turn(found)?;
            }
        }
        Ok(())
    }

    /// Whether the end has come that an archive says of itself.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.part == Part::End
    }

    /// A part is there whole: the next one.
    fn turn(&mut self, found: Found<'_>) -> Result<(), ArchiveError> {
        let kept = std::mem::take(&mut self.kept);
        if self.part == Part::Head {
            return self.begin(&kept, found);
        }
        let renames = |key: &[u8]| kept.windows(key.len()).any(|at| at == key);
        if self.part == Part::Records && (renames(b" path=") || renames(b" size=")) {
            return Err(ArchiveError::Unsupported);
        }
        let padding = std::mem::take(&mut self.padding);
        (self.part, self.left) = match padding {
            0 => (Part::Head, BLOCK as u64),
            _ => (Part::Skipped, padding),
        };
        Ok(())
    }

    /// An entry, by its header.
    fn begin(&mut self, head: &[u8], found: Found<'_>) -> Result<(), ArchiveError> {
        if head.iter().all(|byte| *byte == 0) {
            self.part = Part::End;
            return Ok(());
        }
        let field = |at: Range<usize>| head.get(at).unwrap_or_default();
        let sum = head.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let own = field(148..156).iter().map(|byte| u64::from(*byte));
        // The sum counts itself as spaces.
        if octal(field(148..156)) != Some(sum - own.sum::<u64>() + 8 * 32) {
            return Err(ArchiveError::Malformed);
        }
        let size = octal(field(124..136)).ok_or(ArchiveError::TooLarge)?;
        self.entries += 1;
        self.total += size;
        let too_large = size > ENTRY_BYTES_MAX.into() || self.total > TOTAL_BYTES_MAX;
        if too_large || self.entries > ENTRIES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        let folders = match field(257..263) {
            b"ustar\0" => text(field(345..500))?,
            _ => "",
        };
        let name = text(field(0..100))?;
        let name = match folders {
            "" => name.to_owned(),
            _ => format!("{folders}/{name}"),
        };
        let name = name.strip_prefix("./").unwrap_or(&name);
        self.part = match field(156..157) {
            // Before POSIX a directory was a file with a slash at its end.
            b"5" => Part::Skipped,
            b"0" | b"\0" if name.ends_with('/') => Part::Skipped,
            b"0" | b"\0" if is_plain(name) => {
                found(Event::File(name))?;
                Part::Content
            }
            b"0" | b"\0" | b"1" | b"2" => return Err(ArchiveError::Outside),
            b"g" | b"x" if size <= RECORDS_BYTES_MAX => Part::Records,
            _ => return Err(ArchiveError::Unsupported),
        };
        (self.left, self.padding) = (size, size.wrapping_neg() % BLOCK as u64);
        match size {
            0 => self.turn(found),
            _ => Ok(()),
        }
    }
}

/// Text up to a zero.
fn text(field: &[u8]) -> Result<&str, ArchiveError> {
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    str::from_utf8(field).map_err(|_| ArchiveError::Malformed)
}

/// Octal digits, between spaces and zeros.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut head = vec![0; BLOCK];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        head[148..156].fill(b' ');
        head[156] = kind;
        head[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        head.extend(content);
        head.resize(head.len().next_multiple_of(BLOCK), 0);
        head
    }

    type Files = Vec<(String, Vec<u8>)>;

    fn read(bytes: &[u8], piece: usize) -> Result<(Files, bool), ArchiveError> {
        let (mut tar, mut files) = (Tar::default(), Files::new());
        for piece in bytes.chunks(piece) {
            tar.feed(piece, &mut |event| {
                match event {
                    Event::File(name) => files.push((name.to_owned(), Vec::new())),
                    Event::Bytes(bytes) => files.last_mut().unwrap().1.extend(bytes),
                }
                Ok(())
            })?;
        }
        Ok((files, tar.is_whole()))
    }

    fn end() -> Vec<u8> {
        vec![0; 2 * BLOCK]
    }

    proptest! {
        #[test]
        fn files_come_out_however_the_bytes_arrive(piece in 1_usize..2000, content in prop::collection::vec(any::<u8>(), 0..1500)) {
            let bytes = [
                entry("pax_global_header", b'g', b"52 comment=abc\n"),
                entry("./", b'5', b""),
                entry("ui/", b'0', b""),
                entry("ui/index.html", b'0', &content),
                entry("./ui/a/empty", 0, b""),
                end(),
            ];
            let want = vec![("ui/index.html".to_owned(), content), ("ui/a/empty".to_owned(), vec![])];
            prop_assert_eq!(read(&bytes.concat(), piece).unwrap(), (want, true));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), piece in 1_usize..600) {
            let _ = read(&bytes, piece);
        }
    }

    #[test]
    fn folders_of_long_names_stand_before_them() {
        let mut bytes = entry("index.html", b'0', b"x");
        bytes[345..351].copy_from_slice(b"a/long");
        let sum: u64 = bytes[..BLOCK].iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = bytes[148..156].iter().map(|byte| u64::from(*byte)).sum();
        bytes[148..155].copy_from_slice(format!("{:06o}\0", sum - own + 256).as_bytes());
        let (files, whole) = read(&bytes, 100).unwrap();
        assert_eq!(files, [("a/long/index.html".to_owned(), b"x".to_vec())]);
        assert!(!whole, "it is cut off");
    }

    #[test]
    fn nothing_leads_out_and_nothing_is_a_link() {
        for (name, kind) in [
            ("../x", b'0'),
            ("/etc/passwd", b'0'),
            ("a/../../x", b'0'),
            ("ui//etc/passwd", b'0'),
            (".//x", b'0'),
            ("d/./x", b'0'),
            ("a\\x", b'0'),
            ("", b'0'),
            ("x", b'1'),
            ("x", b'2'),
        ] {
            let read = read(&entry(name, kind, b""), 512);
            assert!(matches!(read, Err(ArchiveError::Outside)), "{name}");
        }
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        for (kind, content) in [
            (b'x', &b"12 path=x/y\n"[..]),
            (b'x', b"12 size=1000\n"),
            (b'x', &[b' '; 5000]),
            (b'L', b"a/long/name"),
            (b'3', b""),
        ] {
            let read = read(&entry("x", kind, content), 512);
            assert!(matches!(read, Err(ArchiveError::Unsupported)), "{kind}");
        }
        let mut bad = entry("x", b'0', b"1");
        bad[0] = b'y';
        assert!(matches!(read(&bad, 512), Err(ArchiveError::Malformed)));
    }

    #[test]
    fn sizes_and_numbers_have_their_limits() {
        let mut large = entry("x", b'0', b"");
        large[124..135].copy_from_slice(b"00077777777");
        large[148..156].fill(b' ');
        let sum: u64 = large.iter().map(|byte| u64::from(*byte)).sum();
        large[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        assert!(matches!(read(&large, 512), Err(ArchiveError::TooLarge)));
        let many = entry("x", b'0', b"").repeat(usize::from(ENTRIES_MAX) + 1);
        assert!(matches!(read(&many, 512), Err(ArchiveError::TooLarge)));
    }
}
