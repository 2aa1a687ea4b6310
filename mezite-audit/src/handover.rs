//! How one audit key follows another. The old key's last word is a checkpoint with one more line, which names the new key; both
//! keys sign it, and it stands in the log, as the event `audit.key.rotated`. A larger checkpoint counts only if the new key
//! signed it: whoever steals a retired key can sign nothing that reaches further.
//!
//! ```text
//! example/mezite-audit
//! 42
//! BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=
//! mezite-next-key example/mezite-audit+8d3f9d1a+AR…
//! ```

use data_encoding::BASE64;

use crate::checkpoint::{self, Checkpoint, CheckpointError, NoteKey, Signed};

/// What the line that names the new key begins with.
const NEXT_KEY: &str = "mezite-next-key ";

/// An audit key and its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the whole statement")]
pub struct Handover {
    /// The log when the old key stopped: it signs no larger one.
    pub last: Checkpoint,
    /// The key that signed until now.
    pub old: NoteKey,
    /// The key that signs from now on.
    pub new: NoteKey,
}

impl Handover {
    /// The bytes that both keys sign.
    #[must_use]
    pub fn body(&self) -> String {
        format!("{}{NEXT_KEY}{}\n", self.last, self.new.to_line())
    }

    /// The signed note.
    ///
    /// # Errors
    /// [`CheckpointError`] if a signature is not by its key, or the keys are not two of this log.
    pub fn finish(
        &self,
        old_signature: &[u8; 64],
        new_signature: &[u8; 64],
    ) -> Result<String, CheckpointError> {
        self.check()?;
        let signatures = [(&self.old, old_signature), (&self.new, new_signature)];
        checkpoint::sign(&self.body(), &signatures)
    }

    /// Reads a note of [`Handover::finish`], after both signatures were verified.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &str, old: &NoteKey, new: &NoteKey) -> Result<Self, CheckpointError> {
        let body = checkpoint::signed_text(note, old)?;
        checkpoint::signed_text(note, new)?;
        let handover = Self {
            last: Checkpoint::parse(&body)?,
            old: old.clone(),
            new: new.clone(),
        };
        handover.check()?;
        if handover.body() == body {
            Ok(handover)
        } else {
            Err(CheckpointError::Malformed("it does not name the new key"))
        }
    }

    /// Reads it out of the fields of an `audit.key.rotated` event.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn from_event(old: &str, new: &str, handover: &str) -> Result<Self, CheckpointError> {
        let (old, new) = (NoteKey::parse(old)?, NoteKey::parse(new)?);
        Self::open(&note(handover)?, &old, &new)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        for key in [&self.old, &self.new] {
            if key.origin() != self.last.origin {
                return Err(CheckpointError::OtherLog {
                    found: key.origin().to_owned(),
                    wanted: self.last.origin.clone(),
                });
            }
        }
        if self.old == self.new {
            return Err(CheckpointError::Malformed("both keys are the same"));
        }
        Ok(())
    }
}

/// The field `handover` of the event, from a note.
#[must_use]
pub fn field(note: &str) -> String {
    BASE64.encode(note.as_bytes())
}

/// The note in the field `handover` of the event.
///
/// # Errors
/// [`CheckpointError::Malformed`].
pub fn note(field: &str) -> Result<String, CheckpointError> {
    let bytes = BASE64.decode(field.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or(CheckpointError::Malformed(
        "the handover is not a note in base64",
    ))
}

/// Every handover of a log, in its order: which key counts at which size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// From which size on each key counts; the first from the beginning. Empty before the first handover.
    keys: Vec<(u64, NoteKey)>,
}

impl Chain {
    /// Goes on with the next handover.
    ///
    /// # Errors
    /// [`CheckpointError`] if it does not begin with the key that counts, or goes back in time or to a retired key.
    pub fn push(&mut self, handover: Handover) -> Result<(), CheckpointError> {
        let Handover { last, old, new } = handover;
        match self.keys.last() {
            None => self.keys.push((0, old)),
            Some((_, counts)) if *counts == old => {}
            Some((_, counts)) => {
                return Err(CheckpointError::NotInForce {
                    size: last.size,
                    wanted: counts.to_line(),
                    found: old.to_line(),
                });
            }
        }
        if self.keys.iter().any(|(_, key)| *key == new) {
            return Err(CheckpointError::Malformed("the new key was used before"));
        }
        let counts_from = self.keys.last().map_or(0, |(since, _)| *since);
        if last.size < counts_from || last.size == u64::MAX {
            return Err(CheckpointError::Malformed(
                "the key's last checkpoint is smaller than its first",
            ));
        }
        self.keys.push((last.size + 1, new));
        Ok(())
    }

    /// The keys, the one that counts now last. None before the first handover.
    #[must_use = "the keys are what it gives"]
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &NoteKey> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// The sizes at which a key signed last, each with that key.
    #[must_use = "the sizes are what it gives"]
    pub fn retired(&self) -> impl Iterator<Item = (u64, &NoteKey)> {
        let last = self
            .keys
            .iter()
            .skip(1)
            .map(|(since, _)| since.saturating_sub(1));
        last.zip(self.keys())
    }

    /// Checks who signed what: each checkpoint by the key that counts at its size.
    ///
    /// # Errors
    /// [`CheckpointError::NotInForce`].
    pub fn check(&self, signed: &Signed) -> Result<(), CheckpointError> {
        let size = signed.checkpoint.size;
        let counts = self.keys.iter().rev().find(|(since, _)| *since <= size);
        match counts {
            Some((_, key)) if !signed.by.contains(key) => Err(CheckpointError::NotInForce {
                size,
                wanted: key.to_line(),
                found: signed.by.first().map(NoteKey::to_line).unwrap_or_default(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that `newest` is signed by `trusted`, or by a key that followed it: then all of the log is vouched for by
    /// somebody whom the auditor trusts. A key that the log does not know was rolled back, or never was of this log.
    ///
    /// # Errors
    /// [`CheckpointError::NotSigned`].
    pub fn leads_from(&self, trusted: &NoteKey, newest: &Signed) -> Result<(), CheckpointError> {
        let vouches = if self.keys.is_empty() {
            newest.by.contains(trusted)
        } else {
            let from = self.keys().skip_while(|key| *key != trusted);
            from.into_iter().any(|key| newest.by.contains(key))
        };
        if vouches {
            Ok(())
        } else {
            Err(CheckpointError::NotSigned(trusted.to_line()))
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    use super::*;

    const ORIGIN: &str = "example/mezite-audit";

    fn signing(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn key(seed: u8) -> NoteKey {
        NoteKey::new(ORIGIN, &signing(seed).verifying_key().to_bytes()).unwrap()
    }

    fn handover(size: u64, old: u8, new: u8) -> Handover {
        Handover {
            last: Checkpoint {
                origin: ORIGIN.into(),
                size,
                root: [5; 32],
            },
            old: key(old),
            new: key(new),
        }
    }

    fn signed_by(body: &str, seed: u8) -> [u8; 64] {
        signing(seed).sign(body.as_bytes()).to_bytes()
    }

    fn note_of(handover: &Handover, old: u8, new: u8) -> String {
        let body = handover.body();
        handover
            .finish(&signed_by(&body, old), &signed_by(&body, new))
            .unwrap()
    }

    fn chain(steps: &[(u64, u8, u8)]) -> Result<Chain, CheckpointError> {
        let mut chain = Chain::default();
        for (size, old, new) in steps {
            chain.push(handover(*size, *old, *new))?;
        }
        Ok(chain)
    }

    fn signed(size: u64, by: &[u8]) -> Signed {
        Signed {
            checkpoint: handover(size, 1, 2).last,
            by: by.iter().map(|seed| key(*seed)).collect(),
        }
    }

    #[test]
    fn a_handover_is_a_checkpoint_that_both_keys_signed_and_names_the_new_one() {
        let told = handover(42, 1, 2);
        let written = note_of(&told, 1, 2);
        assert_eq!(Handover::open(&written, &key(1), &key(2)), Ok(told.clone()));
        let in_event = Handover::from_event(&key(1).to_line(), &key(2).to_line(), &field(&written));
        assert_eq!(in_event, Ok(told.clone()));
        for seed in [1, 2] {
            let opened = checkpoint::open(&written, &key(seed)).unwrap();
            assert_eq!(opened, told.last, "whoever knows either key reads it");
        }
    }

    #[test]
    fn attack_55_a_handover_without_one_of_its_signatures_is_none() {
        let told = handover(42, 1, 2);
        let body = told.body();
        let (by_old, by_new) = (signed_by(&body, 1), signed_by(&body, 2));
        assert!(told.finish(&by_new, &by_new).is_err());
        assert!(told.finish(&by_old, &by_old).is_err());
        for alone in [(key(1), by_old), (key(2), by_new)] {
            let written = checkpoint::sign(&body, &[(&alone.0, &alone.1)]).unwrap();
            assert!(Handover::open(&written, &key(1), &key(2)).is_err());
        }
        // To another key than the one that was named.
        let written = note_of(&told, 1, 2);
        assert!(Handover::open(&written, &key(1), &key(3)).is_err());
        assert!(Handover::open(&written, &key(2), &key(1)).is_err());
        // A checkpoint hands nothing over.
        let plain = told.last.body();
        let plain = checkpoint::sign(
            &plain,
            &[
                (&key(1), &signed_by(&plain, 1)),
                (&key(2), &signed_by(&plain, 2)),
            ],
        );
        assert!(Handover::open(&plain.unwrap(), &key(1), &key(2)).is_err());
        assert!(handover(42, 1, 1).finish(&by_old, &by_old).is_err());
        let mut elsewhere = told;
        elsewhere.last.origin = "other/mezite-audit".into();
        let body = elsewhere.body();
        let finished = elsewhere.finish(&signed_by(&body, 1), &signed_by(&body, 2));
        assert!(matches!(finished, Err(CheckpointError::OtherLog { .. })));
    }

    #[test]
    fn each_key_counts_up_to_its_last_checkpoint() {
        let chain = chain(&[(4, 1, 2), (8, 2, 3)]).unwrap();
        for (size, counts) in [(0, 1), (4, 1), (5, 2), (8, 2), (9, 3), (1000, 3)] {
            for seed in 1..=3 {
                let checked = chain.check(&signed(size, &[seed]));
                assert_eq!(checked.is_ok(), seed == counts, "{size} by {seed}");
            }
            assert_eq!(chain.check(&signed(size, &[1, 2, 3])), Ok(()));
        }
        let retired: Vec<_> = chain.retired().collect();
        assert_eq!(retired, [(4, &key(1)), (8, &key(2))]);
        assert!(Chain::default().check(&signed(7, &[4])).is_ok());
    }

    #[test]
    fn trust_leads_from_an_older_key_to_a_newer_one_and_never_back() {
        let chain = chain(&[(5, 1, 2), (9, 2, 3)]).unwrap();
        for trusted in 1..=3 {
            for newest in 1..=3 {
                let leads = chain.leads_from(&key(trusted), &signed(7, &[newest]));
                assert_eq!(leads.is_ok(), newest >= trusted, "{trusted} to {newest}");
            }
        }
        assert!(chain.leads_from(&key(4), &signed(9, &[3])).is_err());
        let never = Chain::default();
        assert!(never.leads_from(&key(1), &signed(9, &[1])).is_ok());
        assert!(never.leads_from(&key(2), &signed(9, &[1])).is_err());
    }

    #[test]
    fn a_chain_that_breaks_or_goes_back_is_refused() {
        assert!(chain(&[(5, 1, 2), (9, 1, 3)]).is_err());
        assert!(chain(&[(5, 1, 2), (9, 2, 1)]).is_err());
        assert!(chain(&[(5, 1, 2), (5, 2, 3)]).is_err());
        assert!(chain(&[(u64::MAX, 1, 2)]).is_err());
    }

    proptest! {
        #[test]
        fn attack_55_no_byte_of_a_handover_can_be_changed(at in any::<prop::sample::Index>(), to in 0_u8..0x80) {
            let told = handover(42, 1, 2);
            let written = note_of(&told, 1, 2);
            let at = at.index(told.body().len());
            prop_assume!(written.as_bytes()[at] != to);
            let mut changed = written.into_bytes();
            changed[at] = to;
            let changed = String::from_utf8(changed).unwrap();
            prop_assert!(Handover::open(&changed, &key(1), &key(2)).is_err());
        }
    }
}
