//! Proofs as files: self-contained, checked offline with the audit key alone.
//!
//! That an event is in the log is C2SP tlog-proof, whose `extra` is the event itself:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra eyJpZCI6…
//! index 41
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//! B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
//!
//! example/mezite-audit
//! 109482
//! …
//! ```
//!
//! That one checkpoint's log begins with another's is written alike; there is no standard form of it:
//!
//! ```text
//! mezite-audit-consistency/1
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//!
//! (the older note)
//!
//! (the newer note)
//! ```

use std::fmt;

use data_encoding::BASE64;
use mezite_core::event::MAX_BYTES;
use thiserror::Error;

use super::{ProofError, verify_consistency, verify_inclusion};
use crate::checkpoint::{self, CheckpointError, MAX_NOTE_BYTES, NoteKey, Signed};
use crate::merkle::Hash;

/// Longest file that is read: the longest event in base64, two notes, and more hashes than any proof has.
pub const MAX_PROOF_BYTES: usize = 2 * MAX_BYTES + 2 * MAX_NOTE_BYTES + 8 * 1024;

/// Most hashes of a proof over fewer than 2^63 events.
const MAX_HASHES: usize = 128;

const INCLUSION: &str = "c2sp.org/tlog-proof@v1";
const CONSISTENCY: &str = "mezite-audit-consistency/1";

/// Why a file proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofFileError {
    /// It is no proof.
    #[error("line {line} is not what a proof has there: {wanted} is expected")]
    Malformed {
        /// From 1.
        line: usize,
        /// What belongs there.
        wanted: &'static str,
    },
    /// It is too long.
    #[error("it has {0} bytes: a proof has at most {MAX_PROOF_BYTES}")]
    TooLong(usize),
    /// A checkpoint in it is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its two checkpoints are of different logs.
    #[error("its checkpoints are of two logs, `{0}` and `{1}`")]
    TwoLogs(String, String),
    /// The hashes prove something else.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A proof that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two kinds of proofs")]
pub enum Proof {
    /// That an event is in the log.
    Inclusion(Inclusion),
    /// That one log begins with another.
    Consistency(Consistency),
}

/// That an event is in the log of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the parts of the format")]
pub struct Inclusion {
    /// The event's number, from 1.
    pub sequence: u64,
    /// The event as it is sealed; `None` where whoever checks has it.
    pub body: Option<Vec<u8>>,
    /// From the leaf to the root.
    pub path: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

/// That the log of one checkpoint begins with that of another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the parts of the format")]
pub struct Consistency {
    /// RFC 6962 section 2.1.2.
    pub path: Vec<Hash>,
    /// The smaller log's signed checkpoint.
    pub old: String,
    /// The larger one's.
    pub new: String,
}

impl Inclusion {
    /// Checks that this event, or the one that comes with the proof, is in a log that one of `keys` signed.
    ///
    /// # Errors
    /// [`ProofFileError`].
    pub fn verify(&self, body: &[u8], keys: &[NoteKey]) -> Result<Signed, ProofFileError> {
        let signed = checkpoint::open_any(&self.note, keys)?;
        let (size, root) = (signed.checkpoint.size, &signed.checkpoint.root);
        verify_inclusion(&self.path, body, self.sequence, size, root)?;
        Ok(signed)
    }
}

impl Consistency {
    /// Checks both checkpoints against `keys`, and that the newer one's log begins with the older one's.
    ///
    /// # Errors
    /// [`ProofFileError`].
    pub fn verify(&self, keys: &[NoteKey]) -> Result<(Signed, Signed), ProofFileError> {
        let (old, new) = (
            checkpoint::open_any(&self.old, keys)?,
            checkpoint::open_any(&self.new, keys)?,
        );
        if old.checkpoint.origin != new.checkpoint.origin {
            let [old, new] = [old, new].map(|signed| signed.checkpoint.origin);
            return Err(ProofFileError::TwoLogs(old, new));
        }
        verify_consistency(
            &self.path,
            (old.checkpoint.size, &old.checkpoint.root),
            (new.checkpoint.size, &new.checkpoint.root),
        )?;
        Ok((old, new))
    }
}

impl fmt::Display for Inclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{INCLUSION}")?;
        if let Some(body) = &self.body {
            writeln!(f, "extra {}", BASE64.encode(body))?;
        }
        writeln!(f, "index {}", self.sequence.saturating_sub(1))?;
        write_path(&self.path, f)?;
        write!(f, "\n{}", self.note)
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{CONSISTENCY}")?;
        write_path(&self.path, f)?;
        write!(f, "\n{}\n{}", self.old, self.new)
    }
}

fn write_path(path: &[Hash], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    path.iter()
        .try_for_each(|hash| writeln!(f, "{}", BASE64.encode(hash)))
}

impl Proof {
    /// Reads a proof of either kind. Nothing in it is verified yet.
    ///
    /// # Errors
    /// [`ProofFileError::Malformed`], [`ProofFileError::TooLong`].
    pub fn parse(text: &str) -> Result<Self, ProofFileError> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(ProofFileError::TooLong(text.len()));
        }
        let malformed = |line, wanted| ProofFileError::Malformed { line, wanted };
        let (head, notes) = text
            .split_once("\n\n")
            .ok_or_else(|| malformed(1, "an empty line before the checkpoint"))?;
        let mut lines = (1..).zip(head.split('\n')).peekable();
        match lines.next() {
            Some((_, INCLUSION)) => {
                let extra = |(_, line): &(usize, &str)| line.starts_with("extra ");
                let body = match lines.next_if(extra) {
                    None => None,
                    Some((at, line)) => {
                        let text = line.trim_start_matches("extra ");
                        let body = BASE64.decode(text.as_bytes());
                        Some(body.map_err(|_| malformed(at, "the event in base64"))?)
                    }
                };
                let index = lines.next().and_then(|(_, line)| {
                    let digits = line.strip_prefix("index ")?;
                    let index = digits.parse::<u64>().ok()?;
                    (index.to_string() == digits)
                        .then_some(index)?
                        .checked_add(1)
                });
                let sequence =
                    index.ok_or_else(|| malformed(2, "`index` and the number of the leaf"))?;
                Ok(Self::Inclusion(Inclusion {
                    sequence,
                    body,
                    path: read_path(lines)?,
                    note: notes.to_owned(),
                }))
            }
            Some((_, CONSISTENCY)) => {
                let path = read_path(lines)?;
                // A note has one empty line, before its signatures.
                let mut parts = notes.split("\n\n");
                let parts = [
                    parts.next(),
                    parts.next(),
                    parts.next(),
                    parts.next(),
                    parts.next(),
                ];
                let [
                    Some(old),
                    Some(old_signatures),
                    Some(new),
                    Some(new_signatures),
                    None,
                ] = parts
                else {
                    return Err(malformed(head.lines().count() + 2, "two checkpoints"));
                };
                Ok(Self::Consistency(Consistency {
                    path,
                    old: format!("{old}\n\n{old_signatures}\n"),
                    new: format!("{new}\n\n{new_signatures}"),
                }))
            }
            _ => Err(malformed(
                1,
                "`c2sp.org/tlog-proof@v1` or `mezite-audit-consistency/1`",
            )),
        }
    }
}

fn read_path<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> Result<Vec<Hash>, ProofFileError> {
    let mut path = Vec::new();
    for (line, text) in lines {
        let hash = BASE64.decode(text.as_bytes()).ok();
        let hash = hash.and_then(|hash| Hash::try_from(hash).ok());
        let wanted = "a hash, 32 bytes in base64";
        let hash = hash.filter(|_| path.len() < MAX_HASHES);
        path.push(hash.ok_or(ProofFileError::Malformed { line, wanted })?);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::merkle::{Frontier, leaf_hash};
    use crate::proof::{consistency, inclusion};
    use crate::tile::{Place, Tiles};

    const ORIGIN: &str = "example/mezite-audit";

    fn key() -> NoteKey {
        let signing = SigningKey::from_bytes(&[7; 32]);
        NoteKey::new(ORIGIN, &signing.verifying_key().to_bytes()).unwrap()
    }

    fn body(sequence: u64) -> Vec<u8> {
        format!("{{\"sequence\":{sequence}}}").into_bytes()
    }

    fn note(size: u64) -> String {
        let mut tree = Frontier::new();
        (1..=size).for_each(|sequence| tree.append(&body(sequence)));
        let made = Checkpoint {
            origin: ORIGIN.into(),
            size,
            root: tree.root(),
        };
        let signing = SigningKey::from_bytes(&[7; 32]);
        let signature = signing.sign(made.body().as_bytes()).to_bytes();
        checkpoint::finish(&made, &key(), &signature).unwrap()
    }

    fn tiles() -> BTreeMap<Place, Vec<u8>> {
        let mut edge = Tiles::default();
        (1..=600).for_each(|sequence| edge.append(leaf_hash(&body(sequence))));
        edge.take_changed().into_iter().collect()
    }

    fn proves(sequence: u64) -> Inclusion {
        let tiles = tiles();
        Inclusion {
            sequence,
            body: Some(body(sequence)),
            path: inclusion(&|place| tiles.get(&place).cloned(), sequence, 600).unwrap(),
            note: note(600),
        }
    }

    fn leads(old: u64) -> Consistency {
        let tiles = tiles();
        Consistency {
            path: consistency(&|place| tiles.get(&place).cloned(), old, 600).unwrap(),
            old: note(old),
            new: note(600),
        }
    }

    #[test]
    fn proofs_are_read_as_they_were_written_and_hold() {
        for sequence in [1, 256, 257, 600] {
            let written = proves(sequence).to_string();
            assert!(written.starts_with("c2sp.org/tlog-proof@v1\nextra "));
            let Ok(Proof::Inclusion(read)) = Proof::parse(&written) else {
                panic!("{written}");
            };
            assert_eq!(read, proves(sequence));
            let signed = read.verify(&body(sequence), &[key()]).unwrap();
            assert_eq!(signed.checkpoint.size, 600);
            assert!(read.verify(&body(sequence + 1), &[key()]).is_err());
        }
        let bare = Inclusion {
            body: None,
            ..proves(3)
        };
        assert_eq!(Proof::parse(&bare.to_string()), Ok(Proof::Inclusion(bare)));
        for old in [1, 256, 300, 600] {
            let written = leads(old).to_string();
            let Ok(Proof::Consistency(read)) = Proof::parse(&written) else {
                panic!("{written}");
            };
            assert_eq!(read, leads(old));
            let (before, after) = read.verify(&[key()]).unwrap();
            assert_eq!((before.checkpoint.size, after.checkpoint.size), (old, 600));
        }
    }

    #[test]
    fn attack_55_a_proof_of_another_log_or_by_another_key_proves_nothing() {
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        let other = NoteKey::new(ORIGIN, &other).unwrap();
        let refused = proves(5).verify(&body(5), std::slice::from_ref(&other));
        assert!(matches!(refused, Err(ProofFileError::Checkpoint(_))));
        assert!(leads(5).verify(&[other]).is_err());
        let swapped = Consistency {
            old: note(6),
            ..leads(5)
        };
        assert!(matches!(
            swapped.verify(&[key()]),
            Err(ProofFileError::Proof(_))
        ));
        let back = Consistency {
            old: note(600),
            new: note(5),
            ..leads(5)
        };
        assert!(back.verify(&[key()]).is_err());
    }

    #[test]
    fn what_is_no_proof_is_refused_and_says_where() {
        let good = proves(5).to_string();
        for (bad, line) in [
            ("", 1),
            ("x\n\ny", 1),
            (&*good.replacen("index 4", "index 04", 1), 2),
            (&good.replacen("index 4", "index -4", 1), 2),
            (&good.replacen("extra ", "extra ?", 1), 2),
            (&good.replacen("index 4\n", "index 4\nAAAA\n", 1), 4),
        ] {
            let refused = Proof::parse(bad);
            assert!(
                matches!(refused, Err(ProofFileError::Malformed { line: at, .. }) if at == line),
                "{bad}: {refused:?}"
            );
        }
        let long = "x".repeat(MAX_PROOF_BYTES + 1);
        assert!(matches!(
            Proof::parse(&long),
            Err(ProofFileError::TooLong(_))
        ));
        let hashes = format!("{}\n", BASE64.encode(&[0; 32])).repeat(MAX_HASHES + 1);
        let many = format!("{CONSISTENCY}\n{hashes}\n{}\n{}", note(1), note(2));
        assert!(Proof::parse(&many).is_err());
        let three = format!("{}\n{}", leads(5), note(9));
        assert!(Proof::parse(&three).is_err());
    }

    proptest! {
        #[test]
        fn attack_55_no_character_of_a_proof_can_be_changed(at in any::<prop::sample::Index>(), to in 0x20_u8..0x7f, kind: bool) {
            let written = if kind { proves(77).to_string() } else { leads(77).to_string() };
            let mut bytes = written.clone().into_bytes();
            // The signatures' own lines are checked with the notes.
            let at = at.index(written.find('\u{2014}').unwrap());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let holds = match Proof::parse(&String::from_utf8(bytes).unwrap()) {
                Ok(Proof::Inclusion(read)) => {
                    let own = read.body.clone().unwrap_or_default();
                    read.verify(&own, &[key()]).is_ok()
                }
                Ok(Proof::Consistency(read)) => read.verify(&[key()]).is_ok(),
                Err(_) => false,
            };
            prop_assert!(!holds);
        }

        #[test]
        fn reading_never_panics(text in any::<String>()) {
            prop_assert!(Proof::parse(&text).is_err());
        }
    }
}
