//! What passed of one file in one direction: how much, which parts, and its SHA-256 where that has a meaning.
//! Memory is bounded, whatever offsets the other side claims.

use mezite_record::Transfer;
use mezite_record::file::MAX_RANGES;
use sha2::{Digest, Sha256};

/// Content on its way in one direction.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    bytes: u64,
    /// Of what passed, while that is one piece in order.
    hash: Option<Sha256>,
    /// First byte and end of each part, ascending, apart from each other.
    ranges: Vec<(u64, u64)>,
    more: bool,
    /// Length of the file on the node as far as it is known.
    size: Option<u64>,
    /// Somebody looked at or made the file's content, be it empty.
    touched: bool,
}

impl Passage {
    /// Nothing has passed yet of a file that is `size` bytes long, if that is known.
    pub(super) fn new(size: Option<u64>) -> Self {
        Self {
            bytes: 0,
            hash: Some(Sha256::new()),
            ranges: Vec::new(),
            more: false,
            size,
            touched: size.is_some(),
        }
    }

    /// `data` passed, whose first byte is at `offset` of the file.
    pub(super) fn take(&mut self, offset: u64, data: &[u8]) {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if length == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_add(length);
        let end = offset.checked_add(length);
        let in_order = end.is_some() && self.next().is_none_or(|next| next == offset);
        match &mut self.hash {
            Some(hash) if in_order => hash.update(data),
            hash => *hash = None,
        }
        self.range(offset, end.unwrap_or(u64::MAX));
    }

    /// Something of it failed, or came from elsewhere: what passed is not what the file holds.
    pub(super) fn spoil(&mut self) {
        self.hash = None;
    }

    /// The file is now known to be `size` bytes long.
    pub(super) fn sized(&mut self, size: u64) {
        self.size = Some(size);
    }

    /// The file was cut or stretched to `size` bytes.
    pub(super) fn truncated(&mut self, size: u64) {
        if self.next().is_some_and(|next| next > size) {
            self.spoil();
        }
        self.size = Some(size);
    }

    /// A read at `offset` found the end of the file.
    pub(super) fn ended(&mut self, offset: u64) {
        if self.next().unwrap_or(0) == offset {
            self.size = Some(offset);
            self.touched = true;
        }
    }

    /// What to record of it; `None` if nothing passed of a file that is not known to be empty.
    pub(super) fn summary(&self) -> Option<Transfer> {
        let whole = match self.ranges.as_slice() {
            [] => self.size == Some(0),
            [(0, end)] => self.size.is_some_and(|size| size <= *end),
            _ => false,
        };
        let digest = self.hash.clone().map(|hash| hash.finalize().into());
        (self.bytes > 0 || whole && self.touched).then(|| Transfer {
            bytes: self.bytes,
            whole: whole && digest.is_some(),
            sha256: digest,
            ranges: self
                .ranges
                .iter()
                .map(|(from, end)| (*from, end - from))
                .collect(),
            more: self.more,
        })
    }

    /// Where the next byte belongs if all is in order.
    fn next(&self) -> Option<u64> {
        self.ranges.last().map(|(_, end)| *end)
    }

    fn range(&mut self, from: u64, end: u64) {
        if let Some((_, last)) = self.ranges.last_mut()
            && *last == from
        {
            *last = end;
            return;
        }
        let (mut from, mut end) = (from, end);
        self.ranges.retain(|(start, stop)| {
            let apart = end < *start || *stop < from;
            if !apart {
                from = from.min(*start);
                end = end.max(*stop);
            }
            apart
        });
        if self.ranges.len() < MAX_RANGES {
            let at = self.ranges.partition_point(|(start, _)| *start < from);
            self.ranges.insert(at, (from, end));
        } else {
            self.more = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summary(size: Option<u64>, taken: &[(u64, &[u8])]) -> Transfer {
        let mut passage = Passage::new(size);
        for (offset, data) in taken {
            passage.take(*offset, data);
        }
        passage.summary().unwrap()
    }

    #[test]
    fn in_order_has_a_digest_and_anything_else_has_none() {
        let abc: [u8; 32] = Sha256::digest(b"abc").into();
        let whole = summary(Some(0), &[(0, b"a"), (1, b"bc")]);
        assert_eq!((whole.whole, whole.sha256), (true, Some(abc)));
        let resumed = summary(None, &[(7, b"a"), (8, b"bc")]);
        assert_eq!((resumed.whole, resumed.sha256), (false, Some(abc)));
        assert_eq!(resumed.ranges, [(7, 3)]);
        for taken in [
            &[(1, &b"bc"[..]), (0, b"a")][..],
            &[(0, b"a"), (2, b"c"), (1, b"b")],
            &[(0, b"abc"), (0, b"abc")],
        ] {
            let odd = summary(Some(0), taken);
            assert_eq!((odd.whole, odd.sha256), (false, None), "{taken:?}");
            assert_eq!(odd.ranges, [(0, 3)], "{taken:?}");
        }
    }

    #[test]
    fn a_file_is_whole_only_if_its_end_is_known() {
        let mut passage = Passage::new(None);
        assert_eq!(passage.summary(), None);
        passage.take(0, b"abc");
        let whole = |passage: &Passage| passage.summary().unwrap().whole;
        assert!(!whole(&passage));
        passage.ended(4);
        assert!(!whole(&passage), "an end further on leaves a hole");
        passage.ended(3);
        assert!(whole(&passage));
        passage.truncated(2);
        assert!(!whole(&passage));
        let mut empty = Passage::new(None);
        empty.ended(0);
        assert_eq!(empty.summary().unwrap().ranges, []);
        assert!(whole(&empty));
        let mut stretched = Passage::new(Some(0));
        stretched.take(0, b"abc");
        stretched.truncated(10);
        assert!(!whole(&stretched));
    }

    #[test]
    fn attack_33_offsets_at_the_end_of_64_bits_are_told_as_they_are() {
        let far = summary(None, &[(u64::MAX - 2, b"ab")]);
        assert_eq!(far.ranges, [(u64::MAX - 2, 2)]);
        assert!(far.sha256.is_some());
        let over = summary(None, &[(u64::MAX - 1, b"abc")]);
        assert_eq!(
            (over.sha256, over.ranges.as_slice()),
            (None, &[(u64::MAX - 1, 1)][..])
        );
        let beyond = summary(None, &[(1 << 32, b"a"), ((1 << 32) + 1, b"b")]);
        assert_eq!(beyond.ranges, [(1 << 32, 2)]);
    }

    proptest! {
        /// Against a set of bytes: what is listed passed, and if nothing is left out, all that passed is listed.
        #[test]
        fn ranges_are_what_passed(taken in prop::collection::vec((0_u64..400, 1_usize..9), 1..60)) {
            let mut passage = Passage::new(None);
            let mut passed = std::collections::BTreeSet::new();
            for (offset, length) in taken {
                passage.take(offset, &vec![0; length]);
                passed.extend(offset..offset + u64::try_from(length).unwrap());
            }
            let told = passage.summary().unwrap();
            prop_assert!(told.ranges.len() <= MAX_RANGES);
            let listed: std::collections::BTreeSet<u64> =
                told.ranges.iter().flat_map(|(from, length)| *from..from + length).collect();
            prop_assert!(listed.is_subset(&passed));
            prop_assert!(told.more || listed == passed);
        }
    }
}
