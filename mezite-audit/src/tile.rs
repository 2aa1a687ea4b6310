//! The tree in tiles of 256 hashes (C2SP tlog-tiles): what stays of every event for good, and what proofs are made of.
//!
//! The tile of level 0 and index `n` holds the hashes of the leaves `256 n` to `256 n + 255`; one of level `l + 1` the roots
//! of 256 tiles of level `l`. The last tile of a level may be incomplete.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::merkle::{Hash, node_hash};

/// Hashes in a complete tile.
pub const WIDTH: u64 = 256;

/// Which tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "two coordinates")]
pub struct Place {
    /// 0: over the leaves.
    pub level: u8,
    /// From 0.
    pub index: u64,
}

impl Place {
    /// The tile over the leaf of the event `sequence`, which counts from 1.
    #[must_use]
    pub fn of_event(sequence: u64) -> Self {
        Self {
            level: 0,
            index: sequence.saturating_sub(1) / WIDTH,
        }
    }

    /// Its name for the log's keeper (`Commit::for_log_keeping`); its key is `log/` and this.
    #[must_use]
    pub fn name(&self) -> String {
        format!("tile/{}/{}", self.level, self.index)
    }

    /// Its path as C2SP tlog-tiles serves it: groups of three digits, and `.p/<width>` for an incomplete tile.
    #[must_use]
    pub fn path(&self, width: usize) -> String {
        let partial = if u64::try_from(width) == Ok(WIDTH) {
            String::new()
        } else {
            format!(".p/{width}")
        };
        format!("tile/{}/{}{partial}", self.level, groups(self.index))
    }
}

/// `1234067` as `x001/x234/067` (C2SP tlog-tiles).
#[must_use]
pub fn groups(index: u64) -> String {
    let last = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    let mut text = last;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    text
}

/// Why tiles are no part of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TileError {
    /// A tile is not there.
    #[error("the tile {} of the log's tree is missing", .0.name())]
    Missing(Place),
    /// A tile has not as many hashes as the tree's size says.
    #[error("the tile {} of the log's tree holds {found} bytes, not {wanted}", place.name())]
    Length {
        /// Which.
        place: Place,
        /// What the tree's size says.
        wanted: u64,
        /// What there is.
        found: usize,
    },
}

/// Reads a tile's hashes.
///
/// # Errors
/// [`TileError::Length`] unless there are `width` hashes at least.
pub fn read(place: Place, width: u64, content: &[u8]) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = content.as_chunks::<32>();
    let enough = u64::try_from(hashes.len()).is_ok_and(|count| (width..=WIDTH).contains(&count));
    if enough && rest.is_empty() {
        Ok(hashes.to_vec())
    } else {
        Err(TileError::Length {
            place,
            wanted: width * 32,
            found: content.len(),
        })
    }
}

/// The right edge of the tree: adds leaves and says which tiles changed.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    size: u64,
    /// The incomplete tile of each level.
    partial: Vec<Vec<Hash>>,
    changed: BTreeMap<Place, Vec<Hash>>,
}

impl Tiles {
    /// The incomplete tiles of a tree of `size` leaves, with how many hashes each has.
    #[must_use]
    pub fn edge(size: u64) -> Vec<(Place, u64)> {
        let mut edge = Vec::new();
        let (mut count, mut level) = (size, 0);
        while count > 0 {
            let place = Place {
                level,
                index: count / WIDTH,
            };
            edge.push((place, count % WIDTH));
            count /= WIDTH;
            level += 1;
        }
        edge
    }

    /// Goes on from a tree of `size` leaves; `contents` are the tiles of [`Tiles::edge`] in their order, where one
    /// without hashes need not be there.
    ///
    /// # Errors
    /// [`TileError`] if they are not those of such a tree.
    pub fn load(size: u64, contents: &[Option<Vec<u8>>]) -> Result<Self, TileError> {
        let mut partial = Vec::new();
        for (position, (place, width)) in Self::edge(size).into_iter().enumerate() {
            if width == 0 {
                partial.push(Vec::new());
                continue;
            }
            let content = contents.get(position).and_then(Option::as_deref);
            let content = content.ok_or(TileError::Missing(place))?;
            let mut hashes = read(place, width, content)?;
            hashes.truncate(usize::try_from(width).unwrap_or(0));
            partial.push(hashes);
        }
        Ok(Self {
            size,
            partial,
            changed: BTreeMap::new(),
        })
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Hash) {
        let (mut hash, mut count, mut level) = (leaf, self.size, 0_u8);
        loop {
            let position = usize::from(level);
            if self.partial.len() <= position {
                self.partial.push(Vec::new());
            }
            let Some(tile) = self.partial.get_mut(position) else {
                break;
            };
            tile.push(hash);
            let place = Place {
                level,
                index: count / WIDTH,
            };
            if u64::try_from(tile.len()) != Ok(WIDTH) {
                self.changed.insert(place, Vec::new());
                break;
            }
            let full = std::mem::take(tile);
            hash = root(&full);
            self.changed.insert(place, full);
            count /= WIDTH;
            level += 1;
        }
        self.size += 1;
    }

    /// The tiles that are not as they were loaded, with their contents. What was taken counts as loaded.
    #[must_use]
    pub fn take_changed(&mut self) -> Vec<(Place, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        let content = |(place, full): (Place, Vec<Hash>)| {
            let partial = self.partial.get(usize::from(place.level));
            let hashes = if full.is_empty() {
                partial.cloned().unwrap_or_default()
            } else {
                full
            };
            (place, hashes.concat())
        };
        changed.into_iter().map(content).collect()
    }
}

/// The root over as many hashes as a power of two: of a complete tile, the hash that the tile above it holds.
#[must_use]
pub fn root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(left, right))
            .collect();
    }
    row.first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Frontier, leaf_hash};

    fn leaf(number: u64) -> Hash {
        leaf_hash(&number.to_le_bytes())
    }

    /// Grows a tree in steps as the keeper does, with everything that was written.
    fn grown(steps: &[u64]) -> (BTreeMap<Place, Vec<u8>>, u64) {
        let (mut written, mut size) = (BTreeMap::new(), 0);
        for step in steps {
            let contents: Vec<_> = Tiles::edge(size)
                .iter()
                .map(|(place, _)| written.get(place).cloned())
                .collect();
            let mut tiles = Tiles::load(size, &contents).unwrap();
            for number in size..size + step {
                tiles.append(leaf(number));
            }
            written.extend(tiles.take_changed());
            size += step;
        }
        (written, size)
    }

    #[test]
    fn many_steps_write_what_one_step_writes() {
        let (at_once, size) = grown(&[70_000]);
        let (in_steps, _) = grown(&[1, 254, 1, 256, 1, 65_023, 4_464]);
        assert_eq!(at_once, in_steps);
        assert_eq!(size, 70_000);
        let widths: Vec<_> = Tiles::edge(size).iter().map(|(_, width)| *width).collect();
        assert_eq!(widths, [70_000 % 256, 273 % 256, 1]);
        for (place, content) in &at_once {
            let full = Tiles::edge(size)
                .iter()
                .find_map(|(edge, width)| (edge == place).then_some(*width))
                .unwrap_or(WIDTH);
            let length = u64::try_from(content.len()).unwrap();
            assert_eq!(length, full * 32, "{}", place.name());
        }
    }

    #[test]
    fn a_full_tree_of_tiles_has_the_root_of_its_leaves() {
        let (written, _) = grown(&[65_536]);
        let top = &written[&Place { level: 2, index: 0 }];
        let mut frontier = Frontier::new();
        for number in 0..65_536_u64 {
            frontier.append(&number.to_le_bytes());
        }
        assert_eq!(top.as_slice(), frontier.root());
    }

    #[test]
    fn names_and_paths_are_those_of_c2sp() {
        let place = Place {
            level: 1,
            index: 1_234_067,
        };
        assert_eq!(place.name(), "tile/1/1234067");
        assert_eq!(place.path(256), "tile/1/x001/x234/067");
        assert_eq!(place.path(7), "tile/1/x001/x234/067.p/7");
        assert_eq!(groups(0), "000");
        assert_eq!(Place::of_event(256).index, 0);
        assert_eq!(Place::of_event(257).index, 1);
    }

    #[test]
    fn tiles_of_another_tree_are_refused() {
        assert!(matches!(
            Tiles::load(3, &[None]),
            Err(TileError::Missing(_))
        ));
        for bad in [0, 64, 95, 97, 33 * 256] {
            assert!(matches!(
                Tiles::load(3, &[Some(vec![0; bad])]),
                Err(TileError::Length { .. })
            ));
        }
        assert!(Tiles::load(3, &[Some(vec![0; 96])]).is_ok());
        assert!(Tiles::load(256, &[]).is_err(), "level 1 has a hash");
    }
}
