//! Inclusion proofs (RFC 9162 sections 2.1.3.1 and 2.1.3.2): that one event is in the log a checkpoint was signed over,
//! without the rest of the log.

use crate::merkle::{Hash, leaf_hash, node_hash};

/// The hashes of all leaves of a log, to make proofs from: 32 bytes an event.
#[derive(Clone, Debug, Default)]
pub struct Prover {
    leaves: Vec<Hash>,
}

impl Prover {
    /// A log without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event's exact bytes.
    pub fn push(&mut self, body: &[u8]) {
        self.leaves.push(leaf_hash(body));
    }

    /// The proof that the event with this sequence (from 1) is among the first `size`: hashes from the leaf's sibling
    /// upwards. `None` if it is not, or if the log has fewer.
    #[must_use]
    pub fn prove(&self, sequence: u64, size: u64) -> Option<Vec<Hash>> {
        let index = usize::try_from(sequence.checked_sub(1)?).ok()?;
        let leaves = self.leaves.get(..usize::try_from(size).ok()?)?;
        (index < leaves.len()).then(|| path(leaves, index))
    }
}

/// PATH(m, D[n]) of RFC 9162.
fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = match index.checked_sub(left.len()) {
        None => (path(left, index), root(right)),
        Some(index) => (path(right, index), root(left)),
    };
    path.push(sibling);
    path
}

/// MTH(D[n]); never asked for an empty tree.
fn root(leaves: &[Hash]) -> Hash {
    if let [leaf] = leaves {
        return *leaf;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    node_hash(&root(left), &root(right))
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: usize) -> usize {
    1 << (count.saturating_sub(1).max(1).ilog2())
}

/// Whether `path` proves that the event with this sequence and these exact bytes is in the log of `size` events with this
/// `root`.
#[must_use]
pub fn is_included(body: &[u8], sequence: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    let Some(index) = sequence.checked_sub(1).filter(|index| *index < size) else {
        return false;
    };
    let (mut place, mut last) = (index, size - 1);
    let mut hash = leaf_hash(body);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if place % 2 == 1 || place == last {
            hash = node_hash(sibling, &hash);
            while place % 2 == 0 && place != 0 {
                (place, last) = (place / 2, last / 2);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (place, last) = (place / 2, last / 2);
    }
    last == 0 && hash == *root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Frontier;

    fn body(sequence: u64) -> Vec<u8> {
        format!("event {sequence}").into_bytes()
    }

    #[test]
    fn every_event_of_every_small_log_is_proven_and_nothing_else() {
        let mut prover = Prover::new();
        let mut tree = Frontier::new();
        for size in 1..=40_u64 {
            prover.push(&body(size));
            tree.append(&body(size));
            for sequence in 1..=size {
                let path = prover.prove(sequence, size).unwrap();
                let proven = |body: &[u8], at, of, path: &[Hash]| {
                    is_included(body, at, of, path, &tree.root())
                };
                assert!(
                    proven(&body(sequence), sequence, size, &path),
                    "{sequence}/{size}"
                );
                assert!(!proven(b"forged", sequence, size, &path));
                assert!(!proven(&body(sequence), sequence + 1, size, &path));
                assert!(!proven(&body(sequence), 0, size, &path));
                let longer = [&path[..], &[[7; 32]]].concat();
                assert!(!proven(&body(sequence), sequence, size, &longer));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!proven(&body(sequence), sequence, size, shorter));
                }
            }
            assert_eq!(prover.prove(size + 1, size), None);
            assert_eq!(prover.prove(1, size + 1), None);
            assert_eq!(prover.prove(0, size), None);
        }
    }

    #[test]
    fn older_checkpoints_can_be_proven_against_too() {
        let mut prover = Prover::new();
        let mut tree = Frontier::new();
        for sequence in 1..=6 {
            tree.append(&body(sequence));
        }
        for sequence in 1..=100 {
            prover.push(&body(sequence));
        }
        let path = prover.prove(3, 6).unwrap();
        assert!(is_included(&body(3), 3, 6, &path, &tree.root()));
    }
}
