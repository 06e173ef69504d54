//! Compression to DEFLATE (RFC 1951): one block with the fixed codes, matches found by a small table.
//! It aims at small code, not at the smallest output.

/// The bits of a stream, the lowest of a byte first.
#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    /// `count` bits, at most 16, the lowest first.
    fn number(&mut self, value: u32, count: u32) {
        self.held |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.extend(self.held.to_le_bytes().first());
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// A Huffman code: the highest bit first.
    fn code(&mut self, code: u32, count: u32) {
        self.number(code.reverse_bits() >> (32 - count), count);
    }

    /// A literal or length (3.2.6).
    fn literal(&mut self, symbol: u32) {
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 + symbol - 144, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    /// A repetition; length from 3 to 258, distance from 1 to 32768 (3.2.5).
    fn repeat(&mut self, length: u32, distance: u32) {
        let (symbol, extra) = match length {
            258 => (285, 0),
            3..11 => (254 + length, 0),
            _ => {
                let extra = (length - 3).ilog2() - 2;
                (257 + 4 * extra + ((length - 3) >> extra), extra)
            }
        };
        self.literal(symbol);
        self.number((length - 3) & ((1 << extra) - 1), extra);
        let from = distance - 1;
        let extra = if from < 4 { 0 } else { from.ilog2() - 1 };
        self.code(2 * extra + (from >> extra), 5);
        self.number(from & ((1 << extra) - 1), extra);
    }
}

const WINDOW: usize = 32 * 1024;
const SLOTS: usize = 1024;
const LENGTH_MAX: usize = 258;

/// Compresses.
pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    // The last block, with fixed codes.
    bits.number(0b011, 3);
    // Where each hash of three bytes was seen last, from 1.
    let mut seen = vec![0_usize; SLOTS];
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let mut length = 0;
        let mut distance = 0;
        if let Some([a, b, c]) = rest.first_chunk() {
            let hash = u32::from_be_bytes([0, *a, *b, *c]).wrapping_mul(0x9e37_79b1) >> 22;
            let slot = seen
                .get_mut(hash as usize)
                .map(|slot| std::mem::replace(slot, at + 1));
            if let Some(before) = slot.and_then(|slot| slot.checked_sub(1)) {
                distance = at - before;
                let earlier = bytes.get(before..).unwrap_or_default();
                let pairs = rest.iter().zip(earlier).take(LENGTH_MAX);
                length = pairs.take_while(|(a, b)| a == b).count();
            }
        }
        if length >= 3 && distance <= WINDOW {
            let size = |n: usize| u32::try_from(n).unwrap_or_default();
            bits.repeat(size(length), size(distance));
            at += length;
        } else {
            bits.literal(rest.first().copied().unwrap_or_default().into());
            at += 1;
        }
    }
    bits.literal(256);
    bits.number(0, 7);
    bits.out
}
