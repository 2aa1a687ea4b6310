//! Proofs about the tree (RFC 6962 section 2.1), made from tiles: that an event is in the log of a checkpoint, and that one
//! checkpoint's log begins with another's. A few hundred bytes instead of the log.
//!
//! Whoever makes a proof reads tiles, wherever they lie: each function asks for one tile at a time and gives up with
//! [`TileError::Missing`] when it is not there, so that an asynchronous caller can fetch it and ask again.

pub mod text;

use thiserror::Error;

use crate::merkle::{Hash, empty_root, leaf_hash, node_hash};
use crate::tile::{self, Place, TileError, WIDTH};

/// Gives the content of a tile, if it has it.
pub trait Source {
    /// The hashes of the tile at `place`, one after the other.
    fn tile(&self, place: Place) -> Option<Vec<u8>>;
}

impl<F: Fn(Place) -> Option<Vec<u8>>> Source for F {
    fn tile(&self, place: Place) -> Option<Vec<u8>> {
        self(place)
    }
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// It leads to another root.
    #[error("the proof leads to another root: the log is not the one that was signed")]
    Root,
    /// It has too many or too few hashes, or speaks of what is not in the tree.
    #[error("the proof does not fit the size of the tree")]
    Shape,
}

/// The hashes that lead from the event `sequence` to the root of the tree of `size`.
///
/// # Errors
/// [`TileError`]; an event that is not in the tree has the missing tile.
pub fn inclusion(source: &impl Source, sequence: u64, size: u64) -> Result<Vec<Hash>, TileError> {
    let Some(leaf) = sequence.checked_sub(1).filter(|leaf| *leaf < size) else {
        return Err(TileError::Missing(Place::of_event(sequence)));
    };
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let split = start + largest_power_below(end - start);
        if leaf < split {
            path.push(subtree(source, split, end)?);
            end = split;
        } else {
            path.push(subtree(source, start, split)?);
            start = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// The hashes that lead from the root of the tree of `old` to that of `new` (RFC 6962 section 2.1.2).
///
/// # Errors
/// [`TileError`].
pub fn consistency(source: &impl Source, old: u64, new: u64) -> Result<Vec<Hash>, TileError> {
    if old == 0 || old >= new {
        return Ok(Vec::new());
    }
    let (mut start, mut end, mut whole) = (0, new, true);
    let mut path = Vec::new();
    while old != end {
        let split = start + largest_power_below(end - start);
        if old <= split {
            path.push(subtree(source, split, end)?);
            end = split;
        } else {
            path.push(subtree(source, start, split)?);
            start = split;
            whole = false;
        }
    }
    if !whole {
        path.push(subtree(source, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// The root of the tree of `size`.
///
/// # Errors
/// [`TileError`].
pub fn root(source: &impl Source, size: u64) -> Result<Hash, TileError> {
    match size {
        0 => Ok(empty_root()),
        size => subtree(source, 0, size),
    }
}

/// Verifies that the event with these exact bytes is number `sequence` in the log with `root` over `size` events.
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(
    path: &[Hash],
    body: &[u8],
    sequence: u64,
    size: u64,
    root: &Hash,
) -> Result<(), ProofError> {
    let leaf = sequence.checked_sub(1).filter(|leaf| *leaf < size);
    let (mut node, mut last) = (leaf.ok_or(ProofError::Shape)?, size - 1);
    let mut hash = leaf_hash(body);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Shape);
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A last node without a sibling moves up as it is.
            while node.is_multiple_of(2) && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node /= 2;
        last /= 2;
    }
    if last != 0 {
        return Err(ProofError::Shape);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Verifies that the log with `new_root` over `new` events begins with the one with `old_root` over `old`.
///
/// # Errors
/// [`ProofError`].
pub fn verify_consistency(
    path: &[Hash],
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shape);
    }
    if old == new || old == 0 {
        let same = old == 0 && *old_root == empty_root() || old == new && old_root == new_root;
        return match (path.is_empty(), same) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Root),
            (false, _) => Err(ProofError::Shape),
        };
    }
    // A power of two is a node of the new tree, so its root is not sent.
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, path)
    } else {
        let (first, rest) = path.split_first().ok_or(ProofError::Shape)?;
        (*first, rest)
    };
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        node /= 2;
        last /= 2;
    }
    let (mut from_old, mut from_new) = (first, first);
    for hash in rest {
        if last == 0 {
            return Err(ProofError::Shape);
        }
        if node % 2 == 1 || node == last {
            from_old = node_hash(hash, &from_old);
            from_new = node_hash(hash, &from_new);
            while node.is_multiple_of(2) && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            from_new = node_hash(&from_new, hash);
        }
        node /= 2;
        last /= 2;
    }
    if last != 0 {
        return Err(ProofError::Shape);
    }
    if from_old == *old_root && from_new == *new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// The Merkle tree hash of the leaves from `start` up to but without `end`, where `start` is a multiple of the largest
/// power of two below their number.
fn subtree(source: &impl Source, start: u64, end: u64) -> Result<Hash, TileError> {
    let count = end - start;
    if count.is_power_of_two() {
        return complete(source, start, count);
    }
    let split = start + largest_power_below(count);
    let left = subtree(source, start, split)?;
    Ok(node_hash(&left, &subtree(source, split, end)?))
}

/// The root of a complete subtree: some hashes of one tile.
fn complete(source: &impl Source, start: u64, count: u64) -> Result<Hash, TileError> {
    let (mut level, mut start, mut count) = (0, start, count);
    while count >= WIDTH {
        level += 1;
        start /= WIDTH;
        count /= WIDTH;
    }
    let place = Place {
        level,
        index: start / WIDTH,
    };
    let content = source.tile(place).ok_or(TileError::Missing(place))?;
    let skipped = start % WIDTH;
    let hashes = tile::read(place, skipped + count, &content)?;
    let (skip, take) = (usize::try_from(skipped), usize::try_from(count));
    let (skip, take) = (skip.unwrap_or(usize::MAX), take.unwrap_or(0));
    let row: Vec<Hash> = hashes.into_iter().skip(skip).take(take).collect();
    Ok(tile::root(&row))
}

/// The largest power of two that is less than `count`, which is at least 2.
fn largest_power_below(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::Frontier;
    use crate::tile::Tiles;

    fn body(sequence: u64) -> Vec<u8> {
        sequence.to_string().into_bytes()
    }

    fn tiles(size: u64) -> BTreeMap<Place, Vec<u8>> {
        let mut tiles = Tiles::default();
        for sequence in 1..=size {
            tiles.append(leaf_hash(&body(sequence)));
        }
        tiles.take_changed().into_iter().collect()
    }

    fn root(size: u64) -> Hash {
        let mut tree = Frontier::new();
        for sequence in 1..=size {
            tree.append(&body(sequence));
        }
        tree.root()
    }

    #[test]
    fn every_proof_of_small_trees_holds_and_no_other() {
        let tiles = tiles(40);
        let source = |place| tiles.get(&place).cloned();
        for size in 1..=40 {
            let whole = root(size);
            for sequence in 1..=size {
                let path = inclusion(&source, sequence, size).unwrap();
                let check = |path: &[Hash], sequence, size| {
                    verify_inclusion(path, &body(sequence), sequence, size, &whole)
                };
                assert_eq!(check(&path, sequence, size), Ok(()), "{sequence} of {size}");
                let mut longer = path.clone();
                longer.push([0; 32]);
                assert!(check(&longer, sequence, size).is_err());
                if let Some((_, shorter)) = path.split_last() {
                    assert!(check(shorter, sequence, size).is_err());
                    let other = sequence % size + 1;
                    assert!(verify_inclusion(&path, &body(sequence), other, size, &whole).is_err());
                }
            }
            for old in 0..=size {
                let (before, path) = (root(old), consistency(&source, old, size).unwrap());
                let check = |path: &[Hash], before: &Hash, after: &Hash| {
                    verify_consistency(path, (old, before), (size, after))
                };
                assert_eq!(check(&path, &before, &whole), Ok(()), "{old} of {size}");
                assert!(check(&path, &[1; 32], &whole).is_err());
                if old > 0 {
                    assert!(check(&path, &before, &[1; 32]).is_err());
                }
                let mut longer = path.clone();
                longer.push([0; 32]);
                assert!(check(&longer, &before, &whole).is_err());
            }
        }
    }

    #[test]
    fn a_tile_that_is_missing_is_named() {
        let none = |_| None;
        assert!(matches!(inclusion(&none, 3, 9), Err(TileError::Missing(_))));
        assert!(matches!(
            consistency(&none, 3, 9),
            Err(TileError::Missing(_))
        ));
        let all = tiles(9);
        let source = |place| all.get(&place).cloned();
        assert!(inclusion(&source, 10, 9).is_err() && inclusion(&source, 0, 9).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn proofs_of_large_trees_hold(size in 60_000_u64..70_000, at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
            let tiles = tiles(size);
            let source = |place| tiles.get(&place).cloned();
            let pick = |index: prop::sample::Index| {
                let size = usize::try_from(size).unwrap();
                1 + u64::try_from(index.index(size)).unwrap()
            };
            let (sequence, old) = (pick(at), pick(cut));
            let path = inclusion(&source, sequence, size).unwrap();
            prop_assert_eq!(verify_inclusion(&path, &body(sequence), sequence, size, &root(size)), Ok(()));
            let path = consistency(&source, old, size).unwrap();
            prop_assert_eq!(verify_consistency(&path, (old, &root(old)), (size, &root(size))), Ok(()));
        }

        #[test]
        fn verifying_never_panics(path in prop::collection::vec(any::<[u8; 32]>(), 0..70), numbers in any::<(u64, u64)>()) {
            let root = [0; 32];
            prop_assert!(verify_inclusion(&path, b"x", numbers.0, numbers.1, &root).is_err());
            let _ = verify_consistency(&path, (numbers.0, &root), (numbers.1, &root));
        }
    }
}
