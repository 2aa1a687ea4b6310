//! The Merkle tree over the log (RFC 6962 section 2.1), as far as appending needs it.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256 hash in the tree.
pub type Hash = [u8; 32];

/// The root of a tree without leaves: the hash of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The hash of a leaf: SHA-256 of a zero byte and the exact stored bytes.
#[must_use]
pub fn leaf_hash(body: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(body)
        .finalize()
        .into()
}

/// The hash of an inner node: SHA-256 of a one byte and both children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// What appending to a tree needs to know of it: the roots of its complete subtrees, the largest first.
/// There is one for each bit that is set in the size, so at most 64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the leaf of `body`.
    pub fn append(&mut self, body: &[u8]) {
        self.append_leaf(leaf_hash(body));
    }

    /// Adds a leaf of which only the hash is known.
    pub fn append_leaf(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one bit of the size is a complete subtree as large as the one that has just become complete.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The Merkle tree hash of all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        let folded = self
            .peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(empty_root)
    }
}

/// How a frontier is written: hashes in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    size: u64,
    peaks: Vec<String>,
}

impl From<Frontier> for Stored {
    fn from(frontier: Frontier) -> Self {
        Self {
            size: frontier.size,
            peaks: frontier
                .peaks
                .iter()
                .map(|hash| BASE64.encode(hash))
                .collect(),
        }
    }
}

impl TryFrom<Stored> for Frontier {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let parse = |text: &String| {
            let bytes = BASE64.decode(text.as_bytes()).ok()?;
            Hash::try_from(bytes).ok()
        };
        let peaks: Option<Vec<_>> = stored.peaks.iter().map(parse).collect();
        let peaks = peaks.ok_or("a hash of the tree is not 32 bytes of base64")?;
        if u32::try_from(peaks.len()) != Ok(stored.size.count_ones()) {
            return Err(format!(
                "a tree of {} leaves has {} complete subtrees, not {}",
                stored.size,
                stored.size.count_ones(),
                peaks.len()
            ));
        }
        Ok(Self {
            size: stored.size,
            peaks,
        })
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    /// The leaves and roots that implementations of RFC 6962 share as test vectors.
    const LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_rfc_6962() {
        let mut frontier = Frontier::new();
        assert_eq!(
            HEXLOWER.encode(&frontier.root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            frontier.append(&HEXLOWER.decode(leaf.as_bytes()).unwrap());
            assert_eq!(
                HEXLOWER.encode(&frontier.root()),
                root,
                "{} leaves",
                frontier.size()
            );
        }
    }

    /// RFC 6962 section 2.1, word by word.
    fn tree_hash(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => leaf_hash(leaf),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&tree_hash(&leaves[..split]), &tree_hash(&leaves[split..]))
            }
        }
    }

    proptest! {
        #[test]
        fn the_frontier_agrees_with_the_definition(leaves in prop::collection::vec(any::<Vec<u8>>(), 0..70)) {
            let mut frontier = Frontier::new();
            for leaf in &leaves {
                frontier.append(leaf);
            }
            prop_assert_eq!(frontier.root(), tree_hash(&leaves));
            let written = serde_json::to_string(&frontier).unwrap();
            prop_assert_eq!(serde_json::from_str::<Frontier>(&written).unwrap(), frontier);
        }
    }

    #[test]
    fn a_frontier_that_cannot_be_is_refused() {
        for bad in [
            r#"{"size":1,"peaks":[]}"#,
            r#"{"size":0,"peaks":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}"#,
            r#"{"size":1,"peaks":["AAAA"]}"#,
            r#"{"size":1,"peaks":["?"]}"#,
        ] {
            assert!(serde_json::from_str::<Frontier>(bad).is_err(), "{bad}");
        }
    }
}
