//! Sets of sequences, written as ranges: `1-9,12`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// A set of sequences. Its size in memory is that of its ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// Ends by starts; no two touch.
    ranges: BTreeMap<u64, u64>,
}

/// Why a text is not a set of sequences.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the ranges of sequences are malformed: write 1-9,12")]
pub struct SequencesError;

impl Sequences {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range. One that ends before it starts is empty.
    pub fn insert(&mut self, range: RangeInclusive<u64>) {
        let (mut start, mut end) = range.into_inner();
        if start > end {
            return;
        }
        // Everything that overlaps or touches becomes one range.
        while let Some((&found, &its_end)) = self.ranges.range(..=end.saturating_add(1)).next_back()
        {
            if its_end.saturating_add(1) < start {
                break;
            }
            self.ranges.remove(&found);
            start = start.min(found);
            end = end.max(its_end);
        }
        self.ranges.insert(start, end);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for range in other.iter() {
            self.insert(range);
        }
    }

    /// Those that are below `bound`.
    #[must_use]
    pub fn below(&self, bound: u64) -> Self {
        let mut kept = Self::new();
        for range in self.iter() {
            let (start, end) = range.into_inner();
            if start < bound {
                kept.insert(start..=end.min(bound.saturating_sub(1)));
            }
        }
        kept
    }

    /// The first that is not in `other`.
    #[must_use]
    pub fn first_outside(&self, other: &Self) -> Option<u64> {
        self.iter().find_map(|range| {
            let (start, end) = range.into_inner();
            let covering = other.ranges.range(..=start).next_back();
            match covering.filter(|(_, covered)| **covered >= start) {
                None => Some(start),
                Some((_, covered)) if *covered < end => Some(covered + 1),
                Some(_) => None,
            }
        })
    }

    /// Whether `sequence` is in it.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        let found = self.ranges.range(..=sequence).next_back();
        found.is_some_and(|(_, end)| *end >= sequence)
    }

    /// How many are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        let lengths = self.ranges.iter().map(|(start, end)| end - start + 1);
        lengths.fold(0, u64::saturating_add)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> {
        self.ranges.iter().map(|(start, end)| *start..=*end)
    }
}

impl FromIterator<u64> for Sequences {
    fn from_iter<I: IntoIterator<Item = u64>>(sequences: I) -> Self {
        let mut set = Self::new();
        for sequence in sequences {
            set.insert(sequence..=sequence);
        }
        set
    }
}

impl fmt::Display for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (start, end)) in self.ranges.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{start}")?;
            if end > start {
                write!(f, "-{end}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Sequences {
    type Err = SequencesError;

    fn from_str(text: &str) -> Result<Self, SequencesError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits
                .then(|| text.parse::<u64>().ok())
                .flatten()
                .ok_or(SequencesError)
        };
        let mut set = Self::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (start, end) = match part.split_once('-') {
                Some((start, end)) => (number(start)?, number(end)?),
                None => (number(part)?, number(part)?),
            };
            if start > end {
                return Err(SequencesError);
            }
            set.insert(start..=end);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_written_short() {
        let set: Sequences = [12, 1, 2, 3, 9, 5, 4].into_iter().collect();
        assert_eq!(set.to_string(), "1-5,9,12");
        assert_eq!("1-5,9,12".parse(), Ok(set));
        assert_eq!("".parse(), Ok(Sequences::new()));
        for bad in [
            "1-",
            "-1",
            "3-1",
            "a",
            "1,,2",
            " 1",
            "+1",
            "1-2-3",
            "99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Sequences>(), Err(SequencesError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(ranges in prop::collection::vec((0_u64..60, 0_u64..12), 0..12), others in prop::collection::vec((0_u64..60, 0_u64..12), 0..12), bound in 0_u64..70) {
            let build = |ranges: &[(u64, u64)]| {
                let (mut set, mut model) = (Sequences::new(), BTreeSet::new());
                for (start, length) in ranges {
                    set.insert(*start..=start + length);
                    model.extend(*start..=start + length);
                }
                (set, model)
            };
            let ((set, model), (other, other_model)) = (build(&ranges), build(&others));
            prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(), u64::try_from(model.len()).unwrap());
            prop_assert_eq!(&set.to_string().parse::<Sequences>().unwrap(), &set);
            prop_assert_eq!(set.first_outside(&other), model.difference(&other_model).next().copied());
            prop_assert_eq!(set.below(bound).iter().flatten().collect::<Vec<_>>(), model.range(..bound).copied().collect::<Vec<_>>());
            prop_assert!((0..80).all(|n| set.contains(n) == model.contains(&n)));
        }
    }
}
