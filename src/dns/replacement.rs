//! What leaves a full cache: the entry that was not used for the longest time (LRU), or what ARC says
//! (N. Megiddo, D. Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003).
//!
//! ARC keeps apart what was used once and what was used again, and remembers by a hash what left of
//! each. A miss that is remembered tells which of the two was cut too short, and shifts the border. So
//! a run of names that nobody asks for twice does not drive out those that are asked for all day.
//!
//! Not a cache: how much is too much is its owner's to say.

use std::hash::{BuildHasher, RandomState};

use super::lru::{Keyed, Lru};

/// `cache-algorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Least recently used first.
    #[default]
    Lru,
    /// Adaptive.
    Arc,
}

/// Entries, with the order in which they leave.
pub(super) struct Replacement<T> {
    /// Used once, for ARC; else all.
    recent: Lru<T>,
    /// `None`: LRU.
    adaptive: Option<Box<Adaptive<T>>>,
}

/// What ARC has besides. The paper's names are in brackets.
struct Adaptive<T> {
    /// Used again (T2).
    frequent: Lru<T>,
    /// What left `recent` (B1) and `frequent` (B2).
    left: [Lru<Ghost>; 2],
    /// How many entries `recent` is meant to have (p).
    target: usize,
    /// Entries in all (c).
    most: usize,
    /// Where the last value was entered; it is not the one to leave for itself.
    came_to_frequent: bool,
    hasher: RandomState,
}

/// The hash of a key that left. Keys that share one share a memory, and nothing else.
struct Ghost([u8; 8]);

impl Keyed for Ghost {
    fn key(&self) -> &[u8] {
        &self.0
    }
}

/// Where an entry is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    frequent: bool,
    slot: u32,
}

impl<T: Keyed> Replacement<T> {
    /// Nothing yet; `most` entries are what its owner will allow.
    pub(super) fn new(algorithm: Algorithm, most: usize) -> Self {
        let adaptive = || Adaptive {
            frequent: Lru::new(),
            left: [Lru::new(), Lru::new()],
            target: 0,
            most,
            came_to_frequent: false,
            hasher: RandomState::new(),
        };
        Self {
            recent: Lru::new(),
            adaptive: (algorithm == Algorithm::Arc).then(|| Box::new(adaptive())),
        }
    }

    pub(super) fn len(&self) -> usize {
        let frequent = self.adaptive.as_ref().map_or(0, |arc| arc.frequent.len());
        self.recent.len() + frequent
    }

    pub(super) fn clear(&mut self) {
        self.recent.clear();
        if let Some(arc) = &mut self.adaptive {
            arc.frequent.clear();
            arc.left.iter_mut().for_each(Lru::clear);
            arc.target = 0;
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Place> {
        if let Some(slot) = self.recent.find(key) {
            return Some(Place {
                frequent: false,
                slot,
            });
        }
        let slot = self.adaptive.as_ref()?.frequent.find(key)?;
        Some(Place {
            frequent: true,
            slot,
        })
    }

    pub(super) fn get(&self, place: Place) -> Option<&T> {
        match &self.adaptive {
            Some(arc) if place.frequent => arc.frequent.get(place.slot),
            _ => self.recent.get(place.slot),
        }
    }

    /// Says that the entry was used; its place is another one then.
    pub(super) fn used(&mut self, place: Place) {
        match &mut self.adaptive {
            None => self.recent.touch(place.slot),
            Some(arc) if place.frequent => arc.frequent.touch(place.slot),
            Some(arc) => {
                if let Some(value) = self.recent.remove(place.slot) {
                    arc.frequent.insert(value);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        match &mut self.adaptive {
            Some(arc) if place.frequent => arc.frequent.remove(place.slot),
            _ => self.recent.remove(place.slot),
        }
    }

    /// Enters a value; gives back the one that it takes the place of.
    pub(super) fn put(&mut self, value: T) -> Option<T> {
        if let Some(place) = self.find(value.key()) {
            let slots = match &mut self.adaptive {
                Some(arc) if place.frequent => &mut arc.frequent,
                _ => &mut self.recent,
            };
            slots.touch(place.slot);
            return slots
                .get_mut(place.slot)
                .map(|old| std::mem::replace(old, value));
        }
        let slots = match &mut self.adaptive {
            Some(arc) => {
                arc.came_to_frequent = arc.learn(value.key());
                if arc.came_to_frequent {
                    &mut arc.frequent
                } else {
                    &mut self.recent
                }
            }
            None => &mut self.recent,
        };
        slots.insert(value);
        None
    }

    /// Takes out what is to leave first.
    pub(super) fn remove_first(&mut self) -> Option<T> {
        let Some(arc) = &mut self.adaptive else {
            return self.recent.remove_oldest();
        };
        let (mut recent, mut frequent) = (self.recent.len(), arc.frequent.len());
        let came_to = if arc.came_to_frequent {
            &mut frequent
        } else {
            &mut recent
        };
        *came_to = came_to.saturating_sub(1);
        let of_recent = match (recent, frequent) {
            (0, 0) => !arc.came_to_frequent,
            (_, 0) => true,
            _ => recent > arc.target,
        };
        let gone = if of_recent {
            self.recent.remove_oldest()
        } else {
            arc.frequent.remove_oldest()
        }?;
        arc.remember(gone.key(), of_recent);
        Some(gone)
    }
}

impl<T: Keyed> Adaptive<T> {
    /// A key that was missed: whether it left not long ago. Shifts the border towards where it was.
    fn learn(&mut self, key: &[u8]) -> bool {
        let ghost = self.ghost(key);
        let [recent, frequent] = &mut self.left;
        let (ours, theirs) = (recent.len(), frequent.len());
        if let Some(slot) = recent.find(&ghost) {
            recent.remove(slot);
            let step = (theirs / ours.max(1)).max(1);
            self.target = (self.target + step).min(self.most);
            return true;
        }
        if let Some(slot) = frequent.find(&ghost) {
            frequent.remove(slot);
            let step = (ours / theirs.max(1)).max(1);
            self.target = self.target.saturating_sub(step);
            return true;
        }
        false
    }

    /// As many hashes as entries, of both together.
    fn remember(&mut self, key: &[u8], of_recent: bool) {
        let ghost = Ghost(self.ghost(key));
        let most = self.most;
        let [recent, frequent] = &mut self.left;
        let (side, other) = if of_recent {
            (recent, frequent)
        } else {
            (frequent, recent)
        };
        if side.find(ghost.key()).is_none() {
            side.insert(ghost);
        }
        if side.len() + other.len() > most {
            let fuller = if side.len() > other.len() {
                side
            } else {
                other
            };
            fuller.remove_oldest();
        }
    }

    fn ghost(&self, key: &[u8]) -> [u8; 8] {
        self.hasher.hash_one(key).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 8;

    fn ask(cache: &mut Replacement<String>, name: &str) -> bool {
        ask_of(cache, name, MOST)
    }

    /// Uses a name as a cache of `most` does; whether it was there.
    fn ask_of(cache: &mut Replacement<String>, name: &str, most: usize) -> bool {
        if let Some(place) = cache.find(name.as_bytes()) {
            cache.used(place);
            return true;
        }
        assert_eq!(cache.put(name.to_owned()), None);
        while cache.len() > most {
            cache.remove_first().unwrap();
        }
        false
    }

    /// How often the names of every day are found while others are asked for once each.
    fn found(algorithm: Algorithm) -> usize {
        let mut cache = Replacement::new(algorithm, MOST);
        let mut found = 0;
        for round in 0..50 {
            for daily in ["a", "b", "c", "d"] {
                found += usize::from(ask(&mut cache, daily));
            }
            for once in 0..12 {
                ask(&mut cache, &format!("{round}.{once}"));
            }
        }
        found
    }

    #[test]
    fn arc_keeps_what_is_used_again_where_lru_loses_it() {
        assert_eq!(found(Algorithm::Lru), 0);
        assert!(found(Algorithm::Arc) > 150, "{}", found(Algorithm::Arc));
    }

    #[test]
    fn arc_gives_way_to_what_is_new_when_the_old_is_not_used() {
        let mut cache = Replacement::new(Algorithm::Arc, MOST);
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"].repeat(3) {
            ask(&mut cache, name);
        }
        // New names in turn, too many for what `recent` has at first.
        let news = ["1", "2", "3", "4", "5", "6"];
        let mut found = 0;
        for name in news.repeat(20) {
            found += usize::from(ask(&mut cache, name));
        }
        assert!(found > 60, "{found}");
    }

    #[test]
    fn a_value_takes_the_place_of_its_like() {
        for algorithm in [Algorithm::Lru, Algorithm::Arc] {
            let mut cache = Replacement::new(algorithm, MOST);
            ask(&mut cache, "a");
            ask(&mut cache, "a");
            assert_eq!(cache.put("a".to_owned()), Some("a".to_owned()));
            assert_eq!(cache.len(), 1);
            let place = cache.find(b"a").unwrap();
            assert_eq!(cache.remove(place), Some("a".to_owned()));
            assert_eq!(cache.len(), 0);
        }
    }

    proptest! {
        #[test]
        fn never_more_than_allowed_and_what_was_just_used_is_there(
            arc in any::<bool>(),
            most in 1..=MOST,
            names in proptest::collection::vec(0u8..24, 0..300),
        ) {
            let algorithm = if arc { Algorithm::Arc } else { Algorithm::Lru };
            let mut cache = Replacement::new(algorithm, most);
            for name in names {
                let name = name.to_string();
                ask_of(&mut cache, &name, most);
                prop_assert!(cache.len() <= most);
                prop_assert!(cache.find(name.as_bytes()).is_some());
                if let Some(arc) = &cache.adaptive {
                    prop_assert!(arc.left.iter().map(Lru::len).sum::<usize>() <= most);
                    prop_assert!(arc.target <= most);
                }
            }
        }
    }
}
