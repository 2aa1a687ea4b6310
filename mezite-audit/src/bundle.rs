//! A whole log with all that verifies it: keys, checkpoints, events, and the hashes of events that were removed. As it
//! comes from a hub, or as a file of JSON lines that needs no hub and no account:
//!
//! ```text
//! {"mezite_audit_bundle":1,"cluster":"example","origin":"example/mezite-audit","keys":["example/mezite-audit+…"]}
//! {"checkpoint":"example/mezite-audit\n42\n…"}
//! {"id":"…","sequence":1,…}
//! {"pruned":2,"leaf_hashes":"…"}
//! ```
//!
//! The keys in it say who signed, not whom to trust: give [`Check::with_keys`] those that you know.

use std::borrow::Cow;

use data_encoding::BASE64;
use mezite_core::ClusterName;
use mezite_core::store::StoredEvent;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checkpoint::{self, Checkpoint, CheckpointError, NoteKey};
use crate::verify::{Fault, Report, Verifier};

/// The version of the format.
pub const VERSION: u32 = 1;

/// Longest line that is read: events are shorter, and hashes of removed events come in pieces.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// One part of a bundle. Keys come first, then checkpoints, then events and removed events by sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever verifies must take each part"
)]
pub enum Part {
    /// Who signs this log.
    Keys(Vec<NoteKey>),
    /// A signed note.
    Checkpoint(String),
    /// An event as it is sealed.
    Event(StoredEvent),
    /// Events that were removed.
    Pruned {
        /// The first sequence.
        first: u64,
        /// 32 bytes for each.
        leaf_hashes: Vec<u8>,
    },
}

/// Why a bundle does not verify.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A line is no part of a bundle.
    #[error("line {line} is no part of a bundle: {reason}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The parts come in another order: one could hide what another says.
    #[error("the parts of the log came in a wrong order")]
    Order,
    /// Nothing vouches for the log.
    #[error("there is no signed checkpoint: nothing vouches for the log")]
    NoCheckpoint,
    /// There is no key to verify with.
    #[error("there is no audit key to verify with")]
    NoKey,
    /// A checkpoint in it is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint that was kept is wrong, or of another log.
    #[error("the kept checkpoint: {0}")]
    Kept(CheckpointError),
    /// The log is not what was signed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A log that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What it is.
    pub report: Report,
    /// The newest checkpoint that came with it, as it was signed.
    pub newest: String,
    /// The keys that its checkpoints were verified with.
    pub keys: Vec<NoteKey>,
}

/// Verifies a bundle part by part. Memory does not grow with the log.
#[derive(Clone, Debug, Default)]
pub struct Check {
    kept: Vec<String>,
    trusted: Vec<NoteKey>,
    keys: Vec<NoteKey>,
    checkpoints: Vec<Checkpoint>,
    newest: Option<(u64, String)>,
    verifier: Option<Verifier>,
    line: u64,
}

impl Check {
    /// A check that also holds the log to checkpoints that were kept elsewhere.
    #[must_use]
    pub fn new(kept: Vec<String>) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }

    /// Trusts these keys only, whatever comes with the log.
    #[must_use]
    pub fn with_keys(mut self, keys: Vec<NoteKey>) -> Self {
        self.trusted = keys;
        self
    }

    /// Takes the next line of a bundle's file.
    ///
    /// # Errors
    /// The first that is wrong, and where.
    pub fn take_line(&mut self, line: &[u8]) -> Result<(), BundleError> {
        self.line += 1;
        let part = parse(line).map_err(|reason| BundleError::Line {
            line: self.line,
            reason,
        })?;
        self.take(part)
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// The first that is wrong, and where.
    pub fn take(&mut self, part: Part) -> Result<(), BundleError> {
        match part {
            Part::Keys(keys) if self.keys.is_empty() => {
                self.keys = if self.trusted.is_empty() {
                    keys
                } else {
                    self.trusted.clone()
                };
                for note in std::mem::take(&mut self.kept) {
                    match self.open(&note) {
                        Ok(kept) => self.checkpoints.push(kept),
                        Err(BundleError::Checkpoint(error)) => {
                            return Err(BundleError::Kept(error));
                        }
                        Err(other) => return Err(other),
                    }
                }
                Ok(())
            }
            Part::Checkpoint(note) if self.verifier.is_none() => {
                let checkpoint = self.open(&note)?;
                if self
                    .newest
                    .as_ref()
                    .is_none_or(|(size, _)| *size <= checkpoint.size)
                {
                    self.newest = Some((checkpoint.size, note));
                }
                self.checkpoints.push(checkpoint);
                Ok(())
            }
            Part::Event(event) => Ok(self.verifier()?.push(&event)?),
            Part::Pruned { first, leaf_hashes } => {
                let (hashes, rest) = leaf_hashes.as_chunks::<32>();
                if !rest.is_empty() {
                    return Err(BundleError::Order);
                }
                for (sequence, hash) in (first..).zip(hashes) {
                    self.verifier()?.push_pruned(sequence, *hash)?;
                }
                Ok(())
            }
            Part::Keys(_) | Part::Checkpoint(_) => Err(BundleError::Order),
        }
    }

    /// Says what the log is, after its last part.
    ///
    /// # Errors
    /// [`BundleError::NoCheckpoint`], [`BundleError::Fault`].
    pub fn finish(mut self) -> Result<Verified, BundleError> {
        self.verifier()?;
        let (_, newest) = self.newest.ok_or(BundleError::NoCheckpoint)?;
        let verifier = self.verifier.ok_or(BundleError::NoCheckpoint)?;
        Ok(Verified {
            report: verifier.finish()?,
            newest,
            keys: self.keys,
        })
    }

    /// The verifier; it wants all checkpoints before the first event.
    fn verifier(&mut self) -> Result<&mut Verifier, BundleError> {
        let verifier = match self.verifier.take() {
            Some(verifier) => verifier,
            None => Verifier::new(std::mem::take(&mut self.checkpoints))?,
        };
        Ok(self.verifier.insert(verifier))
    }

    fn open(&self, note: &str) -> Result<Checkpoint, BundleError> {
        let mut refused = BundleError::NoKey;
        for key in &self.keys {
            match checkpoint::open(note, key) {
                Ok(checkpoint) => return Ok(checkpoint),
                Err(error @ CheckpointError::WrongSignature(_)) => return Err(error.into()),
                Err(error) => refused = error.into(),
            }
        }
        Err(refused)
    }
}

/// The first line of a bundle's file, without its line feed.
#[must_use]
pub fn header(cluster: &ClusterName, origin: &str, keys: &[NoteKey]) -> String {
    let header = Header {
        mezite_audit_bundle: VERSION,
        cluster: cluster.as_str(),
        origin,
        keys: keys.iter().map(NoteKey::to_line).collect(),
    };
    // Writing strings and numbers cannot fail; an empty line is refused when it is read.
    serde_json::to_string(&header).unwrap_or_default()
}

/// The line of a checkpoint.
#[must_use]
pub fn checkpoint_line(note: &str) -> String {
    serde_json::json!({ "checkpoint": note }).to_string()
}

/// The line of events that were removed.
#[must_use]
pub fn pruned_line(first: u64, leaf_hashes: &[u8]) -> String {
    serde_json::json!({ "pruned": first, "leaf_hashes": BASE64.encode(leaf_hashes) }).to_string()
}

#[derive(Serialize)]
struct Header<'a> {
    mezite_audit_bundle: u32,
    cluster: &'a str,
    origin: &'a str,
    keys: Vec<String>,
}

/// Any line: what it is shows in which of these it has.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    mezite_audit_bundle: Option<u32>,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(borrow, default)]
    checkpoint: Option<Cow<'a, str>>,
    #[serde(default)]
    pruned: Option<u64>,
    #[serde(borrow, default)]
    leaf_hashes: Option<Cow<'a, str>>,
    #[serde(default)]
    sequence: Option<u64>,
}

/// Reads one line of a bundle's file.
fn parse(text: &[u8]) -> Result<Part, String> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.len() > MAX_LINE_BYTES {
        return Err(format!("it is longer than {MAX_LINE_BYTES} bytes"));
    }
    let line: Line<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if let Some(sequence) = line.sequence {
        return Ok(Part::Event(StoredEvent {
            sequence,
            body: text.to_vec(),
        }));
    }
    match line {
        Line {
            mezite_audit_bundle: Some(VERSION),
            origin: Some(origin),
            keys,
            ..
        } => {
            let keys = keys.iter().map(|key| NoteKey::parse(key));
            let keys = keys.collect::<Result<Vec<_>, _>>();
            let keys = keys.map_err(|error| error.to_string())?;
            if keys.iter().any(|key| key.origin() != origin) {
                return Err("a key in it is of another log".to_owned());
            }
            Ok(Part::Keys(keys))
        }
        Line {
            mezite_audit_bundle: Some(other),
            ..
        } if other != VERSION => Err(format!(
            "it is of version {other}, and this program reads {VERSION}"
        )),
        Line {
            checkpoint: Some(note),
            ..
        } => Ok(Part::Checkpoint(note.into_owned())),
        Line {
            pruned: Some(first),
            leaf_hashes: Some(hashes),
            ..
        } => Ok(Part::Pruned {
            first,
            leaf_hashes: BASE64
                .decode(hashes.as_bytes())
                .map_err(|error| error.to_string())?,
        }),
        _ => Err("it has neither `sequence` nor `checkpoint` nor `pruned`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use mezite_core::{Event, UnixTime};
    use proptest::prelude::*;

    use super::*;
    use crate::catalogue::{AuditPruned, Stamp};
    use crate::keeper::Head;
    use crate::merkle::leaf_hash;

    const ORIGIN: &str = "example/mezite-audit";

    fn cluster() -> ClusterName {
        "example".parse().unwrap()
    }

    fn key(seed: u8) -> NoteKey {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        NoteKey::new(ORIGIN, &signing.verifying_key().to_bytes()).unwrap()
    }

    fn events(count: u64) -> Vec<StoredEvent> {
        let stored = |sequence: u64| {
            let random = [[u8::try_from(sequence).unwrap(); 16]; 2];
            let now = UnixTime::from_secs(sequence);
            let body = if sequence == 8 {
                let pruned = AuditPruned {
                    user_name: "hub:h",
                    rule: "test.event after 1d",
                    count: 2,
                    ranges: "2-3",
                };
                let stamp = Stamp {
                    now,
                    random,
                    cluster: &cluster(),
                };
                pruned.event(&stamp).render(sequence)
            } else {
                Event::new("test.event", "MZ0000", now, random).render(sequence)
            };
            StoredEvent { sequence, body }
        };
        (1..=count).map(stored).collect()
    }

    fn note(events: &[StoredEvent], seed: u8) -> String {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        let checkpoint = Head::default().advance(events).unwrap().checkpoint(ORIGIN);
        let signature = signing.sign(checkpoint.body().as_bytes()).to_bytes();
        checkpoint::finish(&checkpoint, &key(seed), &signature).unwrap()
    }

    /// A file of nine events, of which 2 and 3 were removed.
    fn file() -> Vec<String> {
        let log = events(9);
        let mut lines = vec![
            header(&cluster(), ORIGIN, &[key(7)]),
            checkpoint_line(&note(&log, 7)),
        ];
        let text = |event: &StoredEvent| String::from_utf8(event.body.clone()).unwrap();
        lines.push(text(&log[0]));
        let hashes = [leaf_hash(&log[1].body), leaf_hash(&log[2].body)].concat();
        lines.push(pruned_line(2, &hashes));
        lines.extend(log[3..].iter().map(text));
        lines
    }

    fn verify(lines: &[String], mut check: Check) -> Result<Verified, BundleError> {
        for line in lines {
            check.take_line(line.as_bytes())?;
        }
        check.finish()
    }

    #[test]
    fn a_bundle_verifies_without_a_hub() {
        let kept = vec![note(&events(4), 7)];
        let verified = verify(&file(), Check::new(kept)).unwrap();
        let report = verified.report;
        assert_eq!((report.size, report.vouched, report.pruned), (9, 9, 2));
        assert_eq!(report.checkpoints, 2);
        assert_eq!(verified.newest, note(&events(9), 7));
        let pinned = Check::default().with_keys(vec![key(7)]);
        assert_eq!(verify(&file(), pinned).unwrap().keys, [key(7)]);
    }

    #[test]
    fn attack_55_a_bundle_by_another_key_is_refused_by_whoever_knows_the_right_one() {
        let pinned = Check::default().with_keys(vec![key(8)]);
        assert!(matches!(
            verify(&file(), pinned),
            Err(BundleError::Checkpoint(CheckpointError::NotSigned(_)))
        ));
        let foreign = vec![note(&events(4), 8)];
        assert!(matches!(
            verify(&file(), Check::new(foreign)),
            Err(BundleError::Kept(_))
        ));
    }

    #[test]
    fn attack_55_lines_that_are_missing_swapped_or_late_are_found() {
        let whole = file();
        for at in 0..whole.len() {
            let mut cut = whole.clone();
            cut.remove(at);
            assert!(verify(&cut, Check::default()).is_err(), "without line {at}");
        }
        for at in 1..whole.len() {
            let mut swapped = whole.clone();
            swapped.swap(at - 1, at);
            assert!(
                verify(&swapped, Check::default()).is_err(),
                "line {at} earlier"
            );
        }
        let mut late = whole.clone();
        late.push(whole[1].clone());
        assert_eq!(verify(&late, Check::default()), Err(BundleError::Order));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for bad in [
            "",
            "{}",
            "[]",
            "x",
            "{\"pruned\":1}",
            "{\"mezite_audit_bundle\":2}",
        ] {
            let mut lines = file();
            lines[3] = bad.to_owned();
            let error = verify(&lines, Check::default()).unwrap_err();
            assert!(
                matches!(error, BundleError::Line { line: 4, .. }),
                "{bad}: {error}"
            );
        }
        let error = Check::default().finish().unwrap_err();
        assert_eq!(error, BundleError::NoCheckpoint);
    }

    proptest! {
        #[test]
        fn attack_55_no_byte_of_a_bundle_can_be_changed(line in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in 0x20_u8..0x7f) {
            let mut lines = file();
            // The header and the frame of a note are read, not signed.
            let line = 2 + line.index(lines.len() - 2);
            let mut bytes = lines[line].clone().into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            lines[line] = String::from_utf8(bytes).unwrap();
            let changed = verify(&lines, Check::default());
            // The one line that is no event may be written in another way with the same meaning.
            let same = matches!(&changed, Ok(verified) if line == 3 && verified.report.pruned == 2);
            prop_assert!(changed.is_err() || same);
        }

        #[test]
        fn reading_never_panics(lines in prop::collection::vec(any::<Vec<u8>>(), 0..6)) {
            let mut check = Check::default();
            for line in &lines {
                if check.take_line(line).is_err() {
                    break;
                }
            }
            drop(check.finish());
        }
    }
}
