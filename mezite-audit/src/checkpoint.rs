//! Checkpoints: the size and root of the log, signed (C2SP tlog-checkpoint, C2SP signed-note, Ed25519).
//!
//! Signing is two steps, [`Checkpoint::body`] → bytes to sign → [`finish`], so that the key may lie anywhere.

use std::fmt;

use data_encoding::BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use mezite_core::ClusterName;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::merkle::Hash;

/// Most bytes of a note that is read at all.
pub const MAX_NOTE_BYTES: usize = 16 * 1024;

/// Most signature lines that are looked at: a note may carry those of witnesses too.
const MAX_SIGNATURES: usize = 32;

/// The signature type of Ed25519 (C2SP signed-note).
const ED25519: u8 = 1;

/// What the log was at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "these three are all there is to it"
)]
pub struct Checkpoint {
    /// Which log: see [`origin`].
    pub origin: String,
    /// How many events it had.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Why a note is not a checkpoint of this log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The text is not a note, or its body is not a checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Malformed(&'static str),
    /// It is of another log.
    #[error("the checkpoint is of the log `{found}`, not of `{wanted}`")]
    OtherLog {
        /// The origin in the note.
        found: String,
        /// The origin of this log.
        wanted: String,
    },
    /// It is signed by a key that was retired at a smaller size, or was not announced yet.
    #[error(
        "the checkpoint over {size} events is signed by the audit key {found}, but at that size only {wanted} counts: \
         whoever signed it uses a key that was retired, or not announced yet"
    )]
    NotInForce {
        /// The checkpoint's size.
        size: u64,
        /// The key that counts.
        wanted: String,
        /// The key that signed.
        found: String,
    },
    /// No signature in it is by the key, nor by one that followed it.
    #[error(
        "the checkpoint has no signature of the audit key {0}, nor of one that followed it: it was forged, or the log was \
         rolled back to before that key"
    )]
    NotSigned(String),
    /// A signature in it claims to be by the key and is not.
    #[error("the signature of the audit key {0} on the checkpoint is wrong")]
    WrongSignature(String),
}

/// The name of a cluster's log, in its checkpoints and as the name of its key.
#[must_use]
pub fn origin(cluster: &ClusterName) -> String {
    format!("{cluster}/mezite-audit")
}

impl Checkpoint {
    /// The bytes to sign.
    #[must_use]
    pub fn body(&self) -> String {
        self.to_string()
    }

    pub(crate) fn parse(body: &str) -> Result<Self, CheckpointError> {
        let mut lines = body.lines();
        let origin = lines.next().filter(|line| !line.is_empty());
        let size = lines.next().and_then(|size| size.parse().ok());
        let root = lines
            .next()
            .and_then(|root| BASE64.decode(root.as_bytes()).ok());
        let root = root.and_then(|root| root.try_into().ok());
        let checkpoint = Self {
            origin: origin
                .ok_or(CheckpointError::Malformed("it has no origin"))?
                .to_owned(),
            size: size.ok_or(CheckpointError::Malformed("its size is no number"))?,
            root: root.ok_or(CheckpointError::Malformed(
                "its root is not 32 bytes of base64",
            ))?,
        };
        // Extensions may follow; what we know must be written in the one way we write it.
        if body.starts_with(&checkpoint.to_string()) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Malformed(
                "its size is written in another way",
            ))
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = BASE64.encode(&self.root);
        writeln!(f, "{}\n{}\n{root}", self.origin, self.size)
    }
}

/// A key that signs checkpoints, as those who verify know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: VerifyingKey,
}

impl NoteKey {
    /// The Ed25519 key `public` of the log `origin`.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`] if the bytes are no point on the curve, or the name cannot stand in a note.
    pub fn new(origin: impl Into<String>, public: &[u8; 32]) -> Result<Self, CheckpointError> {
        let name = origin.into();
        if name.is_empty() || name.contains('+') || name.chars().any(char::is_whitespace) {
            return Err(CheckpointError::Malformed(
                "the key's name is empty or has spaces or `+`",
            ));
        }
        let key = VerifyingKey::from_bytes(public)
            .map_err(|_| CheckpointError::Malformed("the audit key is not an Ed25519 key"))?;
        Ok(Self { name, key })
    }

    /// Reads the line of [`NoteKey::to_line`].
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`] if it is none, or its id is not that of its key.
    pub fn parse(line: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed(
            "an audit key is one line: the log's name, `+`, 8 hexadecimal digits, `+`, base64",
        );
        let mut parts = line.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(blob)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed);
        };
        let blob = BASE64.decode(blob.as_bytes()).ok();
        let public = match blob.as_deref().and_then(<[u8]>::split_first) {
            Some((&ED25519, public)) => public.try_into().ok(),
            Some(_) | None => None,
        };
        let key = Self::new(name, public.ok_or_else(|| malformed.clone())?)?;
        if format!("{:08x}", u32::from_be_bytes(key.id())) == id {
            Ok(key)
        } else {
            Err(malformed)
        }
    }

    /// The log's name, which is the key's too.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.name
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Four bytes that say which key a signature is by: the start of SHA-256 of name, type and key.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest: Hash = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        [a, b, c, d]
    }

    /// Name, id and key in one line, as auditors are given it (C2SP signed-note, verifier key).
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut key = vec![ED25519];
        key.extend(self.key.as_bytes());
        format!(
            "{}+{:08x}+{}",
            self.name,
            u32::from_be_bytes(self.id()),
            BASE64.encode(&key)
        )
    }
}

/// Puts the signature over [`Checkpoint::body`] under it: the note as it is stored and given out.
///
/// # Errors
/// [`CheckpointError::WrongSignature`] if it is not by `key`: a note that nobody could verify is never written.
pub fn finish(
    checkpoint: &Checkpoint,
    key: &NoteKey,
    signature: &[u8; 64],
) -> Result<String, CheckpointError> {
    sign(&checkpoint.body(), &[(key, signature)])
}

/// A note with this text and these signatures, each of which was verified.
pub(crate) fn sign(
    body: &str,
    signatures: &[(&NoteKey, &[u8; 64])],
) -> Result<String, CheckpointError> {
    let mut note = format!("{body}\n");
    for (key, signature) in signatures {
        verify_signature(key, body, signature)?;
        let mut blob = key.id().to_vec();
        blob.extend(*signature);
        note.push_str(&format!("\u{2014} {} {}\n", key.name, BASE64.encode(&blob)));
    }
    Ok(note)
}

/// A checkpoint and those of some keys that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signed {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// By whom: at least one.
    pub by: Vec<NoteKey>,
}

/// The checkpoint in `note`, and which of `keys` signed it. Whether such a key counts at the checkpoint's size,
/// [`Chain::check`](crate::handover::Chain::check) says.
///
/// # Errors
/// [`CheckpointError`]; a wrong signature that claims to be by one of the keys is refused whatever the others say.
pub fn open_any(note: &str, keys: &[NoteKey]) -> Result<Signed, CheckpointError> {
    let mut found: Option<Signed> = None;
    let mut refused = CheckpointError::Malformed("there is no audit key to verify it with");
    for key in keys {
        match (open(note, key), &mut found) {
            (Ok(_), Some(found)) if found.by.contains(key) => {}
            (Ok(_), Some(found)) => found.by.push(key.clone()),
            (Ok(checkpoint), None) => {
                let by = vec![key.clone()];
                found = Some(Signed { checkpoint, by });
            }
            (Err(CheckpointError::NotSigned(line)), _) => {
                refused = CheckpointError::NotSigned(line);
            }
            (Err(error), _) => return Err(error),
        }
    }
    found.ok_or(refused)
}

/// The checkpoint in `note`, after its signature by `key` was verified. Signatures of others are passed over.
///
/// # Errors
/// [`CheckpointError`] says what is wrong with it.
pub fn open(note: &str, key: &NoteKey) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::parse(&signed_text(note, key)?)?;
    if checkpoint.origin != key.name {
        return Err(CheckpointError::OtherLog {
            found: checkpoint.origin.escape_default().to_string(),
            wanted: key.name.clone(),
        });
    }
    Ok(checkpoint)
}

/// The text of `note`, after its signature by `key` was verified.
pub(crate) fn signed_text(note: &str, key: &NoteKey) -> Result<String, CheckpointError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(CheckpointError::Malformed("it is longer than 16 KiB"));
    }
    // The body ends at the last empty line (C2SP signed-note).
    let (body, signatures) = note
        .rsplit_once("\n\n")
        .ok_or(CheckpointError::Malformed("it has no signature"))?;
    let body = format!("{body}\n");
    let ours = signatures
        .lines()
        .take(MAX_SIGNATURES)
        .find_map(|line| signature_of(line, key))
        .ok_or_else(|| CheckpointError::NotSigned(key.to_line()))?;
    verify_signature(key, &body, &ours)?;
    Ok(body)
}

/// The signature in a line, if the line names `key`.
fn signature_of(line: &str, key: &NoteKey) -> Option<[u8; 64]> {
    let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let blob = BASE64.decode(blob.as_bytes()).ok()?;
    let (id, signature) = blob.split_first_chunk::<4>()?;
    (name == key.name && *id == key.id()).then(|| signature.try_into().ok())?
}

fn verify_signature(
    key: &NoteKey,
    body: &str,
    signature: &[u8; 64],
) -> Result<(), CheckpointError> {
    key.key
        .verify_strict(body.as_bytes(), &Signature::from_bytes(signature))
        .map_err(|_| CheckpointError::WrongSignature(key.to_line()))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    use super::*;

    fn signing() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn key() -> NoteKey {
        NoteKey::new(
            "example/mezite-audit",
            &signing().verifying_key().to_bytes(),
        )
        .unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "example/mezite-audit".into(),
            size: 42,
            root: [5; 32],
        }
    }

    fn note() -> String {
        let signature = signing().sign(checkpoint().body().as_bytes()).to_bytes();
        finish(&checkpoint(), &key(), &signature).unwrap()
    }

    #[test]
    fn a_note_has_the_form_of_c2sp() {
        let note = note();
        let lines: Vec<_> = note.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "example/mezite-audit",
                "42",
                "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=",
                ""
            ]
        );
        assert!(lines[4].starts_with("\u{2014} example/mezite-audit ") && note.ends_with('\n'));
        assert_eq!(open(&note, &key()), Ok(checkpoint()));
    }

    #[test]
    fn the_key_line_and_id_are_those_of_the_known_example() {
        // The key of the example in Go's golang.org/x/mod/sumdb/note.
        let line = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let blob = BASE64
            .decode(line.rsplit('+').next().unwrap().as_bytes())
            .unwrap();
        let key = NoteKey::new("PeterNeumann", blob[1..].try_into().unwrap()).unwrap();
        assert_eq!(key.to_line(), line);
        assert_eq!(NoteKey::parse(line), Ok(key.clone()));
        for bad in [
            "",
            "PeterNeumann",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AhpD2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AR==",
        ] {
            assert!(NoteKey::parse(bad).is_err(), "{bad}");
        }
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let signature = signature_of(&format!("\u{2014} PeterNeumann {signature}"), &key).unwrap();
        assert_eq!(verify_signature(&key, text, &signature), Ok(()));
    }

    #[test]
    fn a_signature_by_another_key_is_never_put_under_a_note() {
        let other = SigningKey::from_bytes(&[8; 32]).sign(checkpoint().body().as_bytes());
        assert!(matches!(
            finish(&checkpoint(), &key(), &other.to_bytes()),
            Err(CheckpointError::WrongSignature(_))
        ));
    }

    #[test]
    fn a_note_of_another_log_or_key_is_refused() {
        let public = signing().verifying_key().to_bytes();
        let elsewhere = NoteKey::new("other/mezite-audit", &public).unwrap();
        assert!(matches!(
            open(&note(), &elsewhere),
            Err(CheckpointError::NotSigned(_))
        ));
        let foreign = Checkpoint {
            origin: "other".into(),
            ..checkpoint()
        };
        let signature = signing().sign(foreign.body().as_bytes()).to_bytes();
        let note = finish(&foreign, &key(), &signature).unwrap();
        assert!(matches!(
            open(&note, &key()),
            Err(CheckpointError::OtherLog { .. })
        ));
    }

    #[test]
    fn signatures_of_witnesses_are_passed_over() {
        let note = format!("{}\u{2014} witness.example AAAAAAAA\n", note());
        assert_eq!(open(&note, &key()), Ok(checkpoint()));
    }

    #[test]
    fn odd_notes_are_refused() {
        assert!(open("", &key()).is_err());
        assert!(open(&"x\n\n".repeat(MAX_NOTE_BYTES), &key()).is_err());
        for body in [
            "example/mezite-audit\n042\nBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n",
            "example/mezite-audit\n",
            "\n1\n\n",
        ] {
            let blob = [
                key().id().as_slice(),
                &signing().sign(body.as_bytes()).to_bytes(),
            ]
            .concat();
            let note = format!(
                "{body}\n\u{2014} example/mezite-audit {}\n",
                BASE64.encode(&blob)
            );
            assert!(
                matches!(open(&note, &key()), Err(CheckpointError::Malformed(_))),
                "{body}"
            );
        }
    }

    proptest! {
        #[test]
        fn attack_55_no_byte_of_the_signed_text_can_be_changed(at in any::<prop::sample::Index>(), to in 0_u8..0x80) {
            let body = checkpoint().body();
            let at = at.index(body.len());
            prop_assume!(body.as_bytes()[at] != to);
            let mut changed = note().into_bytes();
            changed[at] = to;
            prop_assert!(open(&String::from_utf8(changed).unwrap(), &key()).is_err());
        }

        #[test]
        fn reading_never_panics(text in any::<String>()) {
            prop_assert!(open(&text, &key()).is_err());
        }
    }
}
