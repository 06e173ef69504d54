//! Which packet ids of a session came already (SIP022 section 3.2.5, after RFC 6479).

/// How far behind the highest id a packet may arrive.
const WIDTH: u64 = 1024;

const WORDS: usize = 1024 / 64;

/// A set of the last `WIDTH` ids.
#[derive(Default)]
pub struct Window {
    /// One more than the highest id; 0 before the first.
    next: u64,
    /// A bit for each id, at the id modulo `WIDTH`.
    seen: [u64; WORDS],
}

impl Window {
    /// Enters `id`; `false` when it is there already or too old to be known.
    pub fn accept(&mut self, id: u64) -> bool {
        if id >= self.next {
            // Clears the bits of the ids that the window moves over, once round at most.
            let moved = (id - self.next).min(WIDTH - 1);
            for passed in id - moved..=id {
                self.write(passed, false);
            }
            // An id of all ones would leave no next one; no session lives that long.
            let Some(next) = id.checked_add(1) else {
                return false;
            };
            self.next = next;
        } else if self.next - id > WIDTH || self.read(id) {
            return false;
        }
        self.write(id, true);
        true
    }

    fn read(&self, id: u64) -> bool {
        let (index, bit) = place(id);
        self.seen.get(index).is_some_and(|word| word & bit != 0)
    }

    fn write(&mut self, id: u64, present: bool) {
        let (index, bit) = place(id);
        if let Some(word) = self.seen.get_mut(index) {
            *word = if present { *word | bit } else { *word & !bit };
        }
    }
}

fn place(id: u64) -> (usize, u64) {
    let slot = id % WIDTH;
    (
        usize::try_from(slot / 64).unwrap_or_default(),
        1 << (slot % 64),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn late_packets_are_taken_once_and_old_ones_never() {
        let mut window = Window::default();
        assert!(window.accept(0) && !window.accept(0));
        assert!(window.accept(2000) && window.accept(1000));
        assert!(!window.accept(1000) && !window.accept(976));
        assert!(window.accept(977));
        assert!(!window.accept(u64::MAX));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(
            ids in proptest::collection::vec(prop_oneof![0u64..3000, 0u64..20_000], 0..400)
        ) {
            let (mut window, mut seen, mut highest) = (Window::default(), HashSet::new(), 0);
            for id in ids {
                let fresh = id + WIDTH > highest && seen.insert(id);
                highest = highest.max(id);
                prop_assert_eq!(window.accept(id), fresh, "{}", id);
            }
        }
    }
}
