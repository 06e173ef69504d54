//! The three firewall marks that share the mask of `transparent.mark`.
//!
//! All of them are set and compared under the mask only, so the bits of mwan3, pbr and fw4
//! pass through untouched.

use super::options::{Mark, Options};

/// What a mark of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Which bits are ours.
    pub mask: u32,
    /// On packets and tracked connections: goes to the daemon.
    pub captured: u32,
    /// On the daemon's own sockets: never captured.
    pub own: u32,
    /// On tracked connections: decided to go on directly, `fail: closed` lets it pass.
    pub direct: u32,
}

impl Marks {
    /// The marks of a configuration; `None` when the mask has fewer than two bits, the
    /// value is outside it, or one of the three would be zero, which is every packet's mark.
    #[must_use]
    pub fn new(mark: Mark) -> Option<Self> {
        let lowest = mark.mask & mark.mask.wrapping_neg();
        let rest = mark.mask ^ lowest;
        let second = rest & rest.wrapping_neg();
        let (own, direct) = (mark.value ^ lowest, mark.value ^ second);
        let usable = second != 0 && mark.value & !mark.mask == 0;
        (usable && mark.value != 0 && own != 0 && direct != 0).then_some(Self {
            mask: mark.mask,
            captured: mark.value,
            own,
            direct,
        })
    }
}

/// The mark for every socket that the daemon opens itself, to upstreams and back to clients;
/// 0 (no mark) when the configured mark has no room for it.
#[must_use]
pub fn own_mark(options: &Options) -> u32 {
    Marks::new(options.mark).map_or(0, |marks| marks.own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_mark_gives_three_values_in_the_top_byte() {
        let marks = Marks::new(Options::default().mark).unwrap();
        assert_eq!(
            (marks.captured, marks.own, marks.direct),
            (0x4800_0000, 0x4900_0000, 0x4a00_0000)
        );
    }

    #[test]
    fn a_mask_without_room_for_three_marks_is_refused() {
        for (value, mask) in [
            (1, 1),
            (0, 0xff),
            (1, 0xff),
            (2, 0xff),
            (0x300, 0xff),
            (1, 0),
        ] {
            assert_eq!(
                Marks::new(Mark { value, mask }),
                None,
                "{value:#x}/{mask:#x}"
            );
        }
        assert!(
            Marks::new(Mark {
                value: 4,
                mask: 0xff
            })
            .is_some()
        );
    }
}
