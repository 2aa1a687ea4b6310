//! A set of serial numbers as ranges that neither overlap nor touch.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Serials {
    /// First to last, both included.
    ranges: BTreeMap<u64, u64>,
}

impl Serials {
    /// Adds `first..=last`, joined with what it overlaps or touches.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        let reach = last.saturating_add(1);
        while let Some((&start, &end)) = self.ranges.range(..=reach).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.ranges.insert(first, last);
    }

    pub(super) fn contains(&self, serial: u64) -> bool {
        self.ranges
            .range(..=serial)
            .next_back()
            .is_some_and(|(_, last)| serial <= *last)
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_numbers_are_numbers() {
        let mut serials = Serials::default();
        serials.insert(u64::MAX, u64::MAX);
        serials.insert(1, 1);
        serials.insert(u64::MAX - 1, u64::MAX - 1);
        assert_eq!(
            serials.ranges().collect::<Vec<_>>(),
            [(1, 1), (u64::MAX - 1, u64::MAX)]
        );
        serials.insert(1, u64::MAX);
        assert_eq!(serials.ranges().collect::<Vec<_>>(), [(1, u64::MAX)]);
    }

    proptest! {
        #[test]
        fn ranges_hold_what_a_set_would(inserts in proptest::collection::vec((1_u64..60, 0_u64..9), 0..12)) {
            let (mut serials, mut model) = (Serials::default(), BTreeSet::new());
            for (first, more) in inserts {
                serials.insert(first, first + more);
                model.extend(first..=first + more);
            }
            for serial in 0..80 {
                prop_assert_eq!(serials.contains(serial), model.contains(&serial));
            }
            let ranges: Vec<_> = serials.ranges().collect();
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0, "{:?}", ranges);
            }
        }
    }
}
