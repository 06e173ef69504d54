//! Bits in an array, with what a succinct trie asks of them: how many ones there are, and where the
//! nth is.

/// Words per counted block: 512 bits, one count each.
const BLOCK: usize = 8;

/// Ones per hint, which says where they begin: the nth is looked for between two of them, in a few
/// blocks however many bits there are.
const STRIDE: u32 = 512;

/// The bits. Word by word, the lowest bit first.
#[derive(Default)]
pub(super) struct Bits {
    words: Box<[u64]>,
    /// Ones before each block, and in all.
    counts: Box<[u32]>,
    /// The block of each `STRIDE`th one.
    hints: Box<[u32]>,
}

impl Bits {
    /// Counts the ones. `None`: more than 32 bits can count.
    pub fn new(words: Vec<u64>) -> Option<Self> {
        let mut counts = Vec::with_capacity(words.len().div_ceil(BLOCK) + 1);
        counts.push(0);
        let (mut ones, mut hinted) = (0u32, 0u32);
        let mut hints = Vec::new();
        for (number, block) in (0u32..).zip(words.chunks(BLOCK)) {
            for word in block {
                ones = ones.checked_add(word.count_ones())?;
            }
            counts.push(ones);
            while hinted < ones {
                hints.push(number);
                hinted = hinted.checked_add(STRIDE)?;
            }
        }
        Some(Self {
            words: words.into(),
            counts: counts.into(),
            hints: hints.into(),
        })
    }

    /// Whether bit `index` is set; `None` behind the end.
    pub fn get(&self, index: usize) -> Option<bool> {
        let word = self.words.get(index / 64)?;
        Some(word >> (index % 64) & 1 == 1)
    }

    /// How many are set.
    pub fn ones(&self) -> usize {
        self.counts.last().map_or(0, |ones| *ones as usize)
    }

    /// Where the `rank`th one is, from 0.
    pub fn select(&self, rank: usize) -> Option<usize> {
        let rank = u32::try_from(rank).ok()?;
        let mut hints = self.hints.iter().skip((rank / STRIDE) as usize);
        let first = *hints.next()? as usize;
        let last = hints
            .next()
            .map_or(self.counts.len(), |last| *last as usize + 1);
        let counts = self.counts.get(first..last)?;
        let block = first
            + counts
                .partition_point(|ones| *ones <= rank)
                .checked_sub(1)?;
        let mut left = rank - self.counts.get(block)?;
        let words = self.words.iter().enumerate().skip(block * BLOCK);
        for (index, word) in words.take(BLOCK) {
            let ones = word.count_ones();
            if left < ones {
                return Some(index * 64 + select_in(*word, left));
            }
            left -= ones;
        }
        None
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.words.len() * 8 + (self.counts.len() + self.hints.len()) * 4
    }

    /// As they are, word by word.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// Where the `rank`th one of a word is that has more.
fn select_in(mut word: u64, mut rank: u32) -> usize {
    let mut at = 0;
    loop {
        let ones = (word & 0xff).count_ones();
        if rank < ones {
            break;
        }
        rank -= ones;
        word >>= 8;
        at += 8;
    }
    for _ in 0..rank {
        word &= word - 1;
    }
    at + word.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn select_finds_every_one(bits in proptest::collection::vec(proptest::bool::weighted(0.4), 0..5000)) {
            let mut words = vec![0; bits.len().div_ceil(64)];
            for index in (0..bits.len()).filter(|index| bits[*index]) {
                words[index / 64] |= 1 << (index % 64);
            }
            let built = Bits::new(words).unwrap();
            let places: Vec<_> = (0..bits.len()).filter(|i| bits[*i]).collect();
            prop_assert_eq!(built.ones(), places.len());
            for (rank, place) in places.iter().enumerate() {
                prop_assert_eq!(built.select(rank), Some(*place));
                prop_assert_eq!(built.get(*place), Some(true));
            }
            prop_assert_eq!(built.select(places.len()), None);
        }
    }
}
