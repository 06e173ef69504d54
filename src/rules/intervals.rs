//! Sets of numbers as sorted intervals, exact to the ends of 128 bits, and the painting of a
//! line of numbers in the order of rules.

/// Disjoint inclusive intervals in ascending order; those that touch are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(u128, u128)>);

/// The greatest address of a family, as an integer.
pub(super) fn last_address(v4: bool) -> u128 {
    if v4 { u128::from(u32::MAX) } else { u128::MAX }
}

impl Intervals {
    /// The empty set.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every address of a family.
    #[must_use]
    pub fn all(v4: bool) -> Self {
        Self::one(0, last_address(v4))
    }

    /// From `first` to `last`, both inside; empty when they are the wrong way round.
    #[must_use]
    pub fn one(first: u128, last: u128) -> Self {
        Self(if first <= last {
            vec![(first, last)]
        } else {
            Vec::new()
        })
    }

    /// The union of intervals in any order.
    #[must_use]
    pub fn of(mut all: Vec<(u128, u128)>) -> Self {
        all.sort_unstable();
        let mut sum = Self::none();
        for (first, last) in all {
            sum.push(first, last);
        }
        sum
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().copied()
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of(self.iter().chain(other.iter()).collect())
    }

    /// Adds an interval that starts at none of the earlier ones' left.
    pub(super) fn push(&mut self, first: u128, last: u128) {
        match self.0.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => self.0.push((first, last)),
        }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&a), Some(&b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            if a.1 < b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both)
    }

    /// Every address of the family that is not inside.
    #[must_use]
    pub fn complement(&self, v4: bool) -> Self {
        let mut gaps = Vec::new();
        let mut next = Some(0);
        for (first, last) in self.iter() {
            if let Some(start) = next.filter(|start| *start < first) {
                gaps.push((start, first - 1));
            }
            next = last.checked_add(1);
        }
        if let Some(start) = next.filter(|start| *start <= last_address(v4)) {
            gaps.push((start, last_address(v4)));
        }
        Self(gaps)
    }
}

/// Paints `claims` one after the other; what is painted keeps its first colour. Answers, for the
/// numbers from 0 up, where each stretch begins and its colour, `None` where no claim reaches.
///
/// Costs O(n log n): `skip` leads past what is painted already (a union-find with path halving).
pub(super) fn paint<T: Copy>(claims: &[(u128, u128, T)]) -> Vec<(u128, Option<T>)> {
    let mut starts = vec![0];
    for (first, last, _) in claims {
        starts.push(*first);
        starts.extend(last.checked_add(1));
    }
    starts.sort_unstable();
    starts.dedup();
    let mut stretches: Vec<(u128, Option<T>)> = starts.iter().map(|start| (*start, None)).collect();
    let mut skip: Vec<usize> = (0..=stretches.len()).collect();
    for (first, last, colour) in claims {
        let mut i = unpainted(&mut skip, starts.partition_point(|start| start < first));
        while let Some((_, free)) = stretches.get_mut(i).filter(|(start, _)| start <= last) {
            *free = Some(*colour);
            if let Some(next) = skip.get_mut(i) {
                *next = i + 1;
            }
            i = unpainted(&mut skip, i + 1);
        }
    }
    stretches
}

/// The first stretch at or after `i` that is not painted; one past the end when there is none.
fn unpainted(skip: &mut [usize], mut i: usize) -> usize {
    loop {
        let Some(&next) = skip.get(i).filter(|next| **next != i) else {
            return i;
        };
        let beyond = skip.get(next).copied().unwrap_or(next);
        if let Some(slot) = skip.get_mut(i) {
            *slot = beyond;
        }
        i = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_the_line_are_exact() {
        let top = Intervals::one(u128::MAX, u128::MAX);
        assert_eq!(top.complement(false), Intervals::one(0, u128::MAX - 1));
        assert_eq!(top.complement(false).union(&top), Intervals::all(false));
        assert_eq!(Intervals::all(false).complement(false), Intervals::none());
        assert_eq!(Intervals::none().complement(true), Intervals::all(true));
        assert_eq!(Intervals::one(2, 1), Intervals::none());
    }

    fn set() -> impl Strategy<Value = Intervals> {
        let pairs = prop::collection::vec((0u128..40, 0u128..6), 0..6);
        pairs.prop_map(|pairs| {
            pairs
                .into_iter()
                .fold(Intervals::none(), |set, (first, length)| {
                    set.union(&Intervals::one(first, first + length))
                })
        })
    }

    fn has(set: &Intervals, value: u128) -> bool {
        set.iter()
            .any(|(first, last)| (first..=last).contains(&value))
    }

    proptest! {
        #[test]
        fn set_arithmetic_agrees_with_membership(a in set(), b in set()) {
            let (union, both, rest) = (a.union(&b), a.intersection(&b), a.complement(true));
            for value in 0..60 {
                prop_assert_eq!(has(&union, value), has(&a, value) || has(&b, value));
                prop_assert_eq!(has(&both, value), has(&a, value) && has(&b, value));
                prop_assert_eq!(has(&rest, value), !has(&a, value));
            }
        }

        #[test]
        fn the_first_claim_keeps_a_number(
            claims in prop::collection::vec((0u128..40, 0u128..12), 0..12)
        ) {
            let claims: Vec<_> =
                claims.iter().enumerate().map(|(i, (a, n))| (*a, a + n, i)).collect();
            let stretches = paint(&claims);
            for value in 0..60 {
                let (_, colour) = stretches.iter().rev().find(|(start, _)| *start <= value).unwrap();
                let want = claims.iter().find(|(a, b, _)| (*a..=*b).contains(&value));
                prop_assert_eq!(*colour, want.map(|claim| claim.2));
            }
        }
    }
}
