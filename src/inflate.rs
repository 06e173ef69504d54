//! Decompression of DEFLATE (RFC 1951), up to a size that the caller names, and the checksum that goes with it.

/// Codes of literals and lengths, and of distances.
const LITERALS: usize = 288;
const DISTANCES: usize = 32;

/// The longest code.
const BITS_MAX: usize = 15;

/// Base and extra bits of the length codes from 257 (3.2.5).
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The order in which the lengths of the code length code stand (3.2.7).
const ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// A canonical Huffman code: how many codes have each length, and the symbols in their order.
struct Code {
    counts: [u16; BITS_MAX + 1],
    symbols: Vec<u16>,
}

impl Code {
    /// `None`: more codes than there is room for.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0_u16; BITS_MAX + 1];
        for length in lengths {
            *counts.get_mut(usize::from(*length))? += 1;
        }
        counts[0] = 0;
        let mut room = 1_i32;
        for count in counts.iter().skip(1) {
            room = (room << 1) - i32::from(*count);
            if room < 0 {
                return None;
            }
        }
        let mut symbols: Vec<u16> = (0..u16::try_from(lengths.len()).ok()?).collect();
        let length = |symbol: &u16| lengths.get(usize::from(*symbol)).copied().unwrap_or(0);
        symbols.retain(|symbol| length(symbol) > 0);
        symbols.sort_by_key(length);
        Some(Self { counts, symbols })
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    bit: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u16> {
        let byte = self.bytes.get(self.at)?;
        let bit = byte >> self.bit & 1;
        self.bit += 1;
        if self.bit == 8 {
            self.bit = 0;
            self.at += 1;
        }
        Some(bit.into())
    }

    /// An integer of `count` bits, at most 16, the lowest first.
    fn number(&mut self, count: u8) -> Option<u16> {
        let mut value = 0;
        for i in 0..count {
            value |= self.bit()? << i;
        }
        Some(value)
    }

    fn symbol(&mut self, code: &Code) -> Option<u16> {
        let (mut value, mut first, mut index) = (0_i32, 0_i32, 0_i32);
        for count in code.counts.iter().skip(1) {
            value |= i32::from(self.bit()?);
            let count = i32::from(*count);
            if value - first < count {
                let at = usize::try_from(index + value - first).ok()?;
                return code.symbols.get(at).copied();
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        None
    }
}

/// CRC-32 of IEEE 802.3, without a table: for what is short or rare.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32_after(0, bytes)
}

/// [`crc32`] of what had `before`, and of `bytes` behind it.
#[must_use]
pub fn crc32_after(before: u32, bytes: &[u8]) -> u32 {
    let shift = |crc: u32| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc))
    })
}

/// What stands behind the header of gzip (RFC 1952 section 2.3). `None`: it is none.
#[must_use]
pub fn gzip_body(bytes: &[u8]) -> Option<&[u8]> {
    let (head, mut rest) = bytes.split_at_checked(10)?;
    let [0x1f, 0x8b, 8, flags, ..] = head else {
        return None;
    };
    if flags & 4 != 0 {
        let length = u16::from_le_bytes(rest.get(..2)?.try_into().ok()?);
        rest = rest.get(2 + usize::from(length)..)?;
    }
    // A name and a comment, each ended by a zero.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end + 1..)?;
        }
    }
    match flags & 2 {
        0 => Some(rest),
        _ => rest.get(2..),
    }
}

/// How far back a distance reaches.
const WINDOW: usize = 32 * 1024;

/// What has been made: its end, which distances still reach, is here, the rest has gone.
struct Output<'s> {
    bytes: Vec<u8>,
    /// Bytes that may still come.
    room: usize,
    sink: &'s mut dyn FnMut(&[u8]) -> bool,
}

impl Output<'_> {
    /// Lets go what no distance reaches. `None`: more than there may be, or nobody wants it.
    fn settle(&mut self) -> Option<()> {
        match self.bytes.len() {
            length if length > self.room => None,
            length if length >= 2 * WINDOW => self.pass(length - WINDOW),
            _ => Some(()),
        }
    }

    fn pass(&mut self, count: usize) -> Option<()> {
        (self.sink)(self.bytes.get(..count)?).then_some(())?;
        self.bytes.drain(..count);
        self.room -= count;
        Some(())
    }
}

/// What was compressed, at most `max` bytes, and the number of bytes that it took. `None`: not
/// DEFLATE, cut off, or more than that.
#[must_use]
pub fn inflate(bytes: &[u8], max: usize) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let taken = inflate_through(bytes, max, &mut |piece| {
        out.extend_from_slice(piece);
        true
    })?;
    Some((out, taken))
}

/// As [`inflate`], piece by piece to a `sink` that may refuse: it takes memory for two windows alone.
pub fn inflate_through(
    bytes: &[u8],
    max: usize,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> Option<usize> {
    let mut bits = Bits {
        bytes,
        at: 0,
        bit: 0,
    };
    let mut out = Output {
        bytes: Vec::new(),
        room: max,
        sink,
    };
    loop {
        let last = bits.bit()? == 1;
        match bits.number(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => {
                let (literals, distances) = fixed()?;
                block(&mut bits, &literals, &distances, &mut out)?;
            }
            2 => {
                let (literals, distances) = dynamic(&mut bits)?;
                block(&mut bits, &literals, &distances, &mut out)?;
            }
            _ => return None,
        }
        if last {
            out.pass(out.bytes.len())?;
            return Some(bits.at + usize::from(bits.bit > 0));
        }
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Output<'_>) -> Option<()> {
    bits.at += usize::from(bits.bit > 0);
    bits.bit = 0;
    let head = bits.bytes.get(bits.at..bits.at + 4)?;
    let (length, check) = head.split_at_checked(2)?;
    let length = u16::from_le_bytes(length.try_into().ok()?);
    if u16::from_le_bytes(check.try_into().ok()?) != !length {
        return None;
    }
    let from = bits.at + 4;
    bits.at = from + usize::from(length);
    out.bytes.extend_from_slice(bits.bytes.get(from..bits.at)?);
    out.settle()
}

/// The codes of section 3.2.6.
fn fixed() -> Option<(Code, Code)> {
    let mut lengths = [8_u8; LITERALS];
    lengths.get_mut(144..256)?.fill(9);
    lengths.get_mut(256..280)?.fill(7);
    Some((Code::new(&lengths)?, Code::new(&[5; 30])?))
}

/// The codes that stand before a block (3.2.7).
fn dynamic(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let literals = usize::from(bits.number(5)?) + 257;
    let distances = usize::from(bits.number(5)?) + 1;
    let count = usize::from(bits.number(4)?) + 4;
    let mut lengths = [0_u8; 19];
    for at in ORDER.iter().take(count) {
        *lengths.get_mut(*at)? = u8::try_from(bits.number(3)?).ok()?;
    }
    let code = Code::new(&lengths)?;
    let mut lengths = Vec::with_capacity(LITERALS + DISTANCES);
    while lengths.len() < literals + distances {
        let symbol = bits.symbol(&code)?;
        let (length, times) = match symbol {
            0..=15 => (u8::try_from(symbol).ok()?, 1),
            16 => (*lengths.last()?, 3 + bits.number(2)?),
            17 => (0, 3 + bits.number(3)?),
            _ => (0, 11 + bits.number(7)?),
        };
        lengths.extend((0..times).map(|_| length));
    }
    let (literals, distances) = lengths.split_at_checked(literals)?;
    (literals.len() <= 286 && distances.len() <= 30).then_some(())?;
    Some((Code::new(literals)?, Code::new(distances)?))
}

fn block(
    bits: &mut Bits<'_>,
    literals: &Code,
    distances: &Code,
    out: &mut Output<'_>,
) -> Option<()> {
    loop {
        let symbol = bits.symbol(literals)?;
        let Some(index) = usize::from(symbol).checked_sub(257) else {
            match u8::try_from(symbol) {
                Ok(byte) => out.bytes.push(byte),
                Err(_) => return out.settle(),
            }
            out.settle()?;
            continue;
        };
        let (base, extra) = LENGTHS.get(index)?;
        let length = usize::from(base + bits.number(*extra)?);
        let symbol = bits.symbol(distances)?;
        let distance = match symbol {
            0..4 => usize::from(symbol) + 1,
            4..30 => {
                let extra = u8::try_from(symbol / 2 - 1).ok()?;
                let base = usize::from(2 + symbol % 2) << extra;
                base + usize::from(bits.number(extra)?) + 1
            }
            _ => return None,
        };
        let from = out.bytes.len().checked_sub(distance)?;
        for at in from..from + length {
            out.bytes.push(*out.bytes.get(at)?);
        }
        out.settle()?;
    }
}
