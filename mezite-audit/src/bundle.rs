//! A whole log with all that verifies it: keys, checkpoints, events, and the hashes of events that were removed. As it
//! comes from a hub, or as a file of JSON lines that needs no hub and no account:
//!
//! ```text
//! {"mezite_audit_bundle":1,"cluster":"example","origin":"example/mezite-audit","keys":["example/mezite-audit+…"]}
//! {"checkpoint":"example/mezite-audit\n42\n…"}
//! {"id":"…","sequence":1,…}
//! {"text_of":1,"field":"command","text":"…"}
//! {"pruned":2,"leaf_hashes":"…"}
//! ```
//!
//! The keys in it say who signed, not whom to trust: give [`Check::with_keys`] those that you know. Where the audit key was
//! rotated, the checkpoints of the [handovers](crate::handover) come too, and the newest checkpoint last.

use std::borrow::Cow;

use data_encoding::BASE64;
use mezite_core::ClusterName;
use mezite_core::event::MAX_TEXT_BYTES;
use mezite_core::store::StoredEvent;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checkpoint::{self, CheckpointError, NoteKey, Signed};
use crate::overflow::Overflow;
use crate::verify::{Fault, Report, Verifier};

/// The version of the format.
pub const VERSION: u32 = 1;

/// Longest line that is read: a text beside an event, with every byte escaped.
pub const MAX_LINE_BYTES: usize = 6 * MAX_TEXT_BYTES + 1024;

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
    /// The whole of a text that the event before it only begins.
    Text {
        /// The event.
        sequence: u64,
        /// Which of its fields.
        field: String,
        /// The text.
        text: String,
    },
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
    /// The keys that its checkpoints were verified with, by age: the last one signs now.
    pub keys: Vec<NoteKey>,
}

/// Verifies a bundle part by part. Memory does not grow with the log.
#[derive(Clone, Debug, Default)]
pub struct Check {
    kept: Vec<String>,
    trusted: Vec<NoteKey>,
    /// Who may have signed: which of them counts at which size, the log's events say.
    keys: Vec<NoteKey>,
    kept_signed: Vec<Signed>,
    signed: Vec<Signed>,
    newest: Option<(Signed, String)>,
    verifier: Option<Verifier>,
    /// Texts that have to come before the next event: of which event, and which.
    awaited: (u64, Vec<Overflow>),
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

    /// Trusts these keys and those that they handed over to, whatever else comes with the log. It must know each of them:
    /// one that it does not know was announced later, or elsewhere.
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
        if let Part::Text {
            sequence,
            field,
            text,
        } = part
        {
            return self.take_text(sequence, field, &text);
        }
        self.nothing_awaited()?;
        match part {
            Part::Keys(keys) if self.keys.is_empty() => {
                self.keys = self.trusted.clone();
                let others = keys.into_iter().filter(|key| !self.trusted.contains(key));
                self.keys.extend(others);
                if self.keys.is_empty() {
                    return Err(BundleError::NoKey);
                }
                for note in std::mem::take(&mut self.kept) {
                    let kept = checkpoint::open_any(&note, &self.keys);
                    self.kept_signed.push(kept.map_err(BundleError::Kept)?);
                }
                Ok(())
            }
            Part::Checkpoint(note) if self.verifier.is_none() => {
                if self.keys.is_empty() {
                    return Err(BundleError::NoKey);
                }
                let signed = checkpoint::open_any(&note, &self.keys)?;
                let newest = self.newest.as_ref();
                if newest.is_none_or(|(newest, _)| newest.checkpoint.size <= signed.checkpoint.size)
                {
                    self.newest = Some((signed.clone(), note));
                }
                self.signed.push(signed);
                Ok(())
            }
            Part::Event(event) => {
                let verifier = self.verifier()?;
                verifier.push(&event)?;
                let beside = verifier.take_beside();
                self.awaited = (event.sequence, beside);
                Ok(())
            }
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
            Part::Keys(_) | Part::Checkpoint(_) | Part::Text { .. } => Err(BundleError::Order),
        }
    }

    fn take_text(&mut self, sequence: u64, field: String, text: &str) -> Result<(), BundleError> {
        let (of, awaited) = &mut self.awaited;
        let found = awaited.iter().position(|beside| beside.field == field);
        match found {
            Some(at) if *of == sequence && awaited.swap_remove(at).is(text) => Ok(()),
            Some(_) | None => Err(Fault::Text { sequence, field }.into()),
        }
    }

    /// Every text of the last event has come.
    fn nothing_awaited(&self) -> Result<(), Fault> {
        let (sequence, awaited) = &self.awaited;
        match awaited.first() {
            None => Ok(()),
            Some(missing) => Err(Fault::Text {
                sequence: *sequence,
                field: missing.field.clone(),
            }),
        }
    }

    /// Says what the log is, after its last part.
    ///
    /// # Errors
    /// [`BundleError::NoCheckpoint`], [`BundleError::Fault`].
    pub fn finish(mut self) -> Result<Verified, BundleError> {
        self.nothing_awaited()?;
        self.verifier()?;
        let verifier = self.verifier.take().ok_or(BundleError::NoCheckpoint)?;
        let report = verifier.finish()?;
        let (newest, note) = self.newest.take().ok_or(BundleError::NoCheckpoint)?;
        Ok(Verified {
            keys: self.judge(&report, &newest)?,
            report,
            newest: note,
        })
    }

    /// Who signed the log, if each signature is by a key that counted and all lead from the trusted ones.
    fn judge(&self, report: &Report, newest: &Signed) -> Result<Vec<NoteKey>, BundleError> {
        let check = |signed: &Signed| {
            let one_key = |key: &NoteKey| signed.by.contains(key);
            match newest.by.first() {
                // The one key that there ever was, or the only one that the log still tells of.
                Some(key)
                    if report.keys.keys().next().is_none() && !newest.by.iter().any(one_key) =>
                {
                    Err(CheckpointError::NotInForce {
                        size: signed.checkpoint.size,
                        wanted: key.to_line(),
                        found: signed.by.first().map(NoteKey::to_line).unwrap_or_default(),
                    })
                }
                Some(_) | None => report.keys.check(signed),
            }
        };
        self.signed.iter().try_for_each(check)?;
        let kept = self.kept_signed.iter().try_for_each(check);
        kept.map_err(BundleError::Kept)?;
        for key in &self.trusted {
            report.keys.leads_from(key, newest)?;
        }
        let keys: Vec<NoteKey> = report.keys.keys().cloned().collect();
        Ok(if keys.is_empty() {
            newest.by.clone()
        } else {
            keys
        })
    }

    /// The verifier; it wants all checkpoints before the first event.
    fn verifier(&mut self) -> Result<&mut Verifier, BundleError> {
        let verifier = match self.verifier.take() {
            Some(verifier) => verifier,
            None => {
                let all = self.kept_signed.iter().chain(&self.signed);
                Verifier::new(all.map(|signed| signed.checkpoint.clone()))?
            }
        };
        Ok(self.verifier.insert(verifier))
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

/// The line of a text beside an event.
#[must_use]
pub fn text_line(sequence: u64, field: &str, text: &str) -> String {
    serde_json::json!({ "text_of": sequence, "field": field, "text": text }).to_string()
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
    text_of: Option<u64>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    text: Option<String>,
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
            text_of: Some(sequence),
            field: Some(field),
            text: Some(text),
            ..
        } => Ok(Part::Text {
            sequence,
            field,
            text,
        }),
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
    use crate::catalogue::{AuditKeyRotated, AuditPruned, Stamp};
    use crate::handover::{self, Handover};
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

    /// A log whose key 7 gave way to key 8 with event 6; nine events, and the notes at some sizes.
    struct Rotated {
        log: Vec<StoredEvent>,
        handover: String,
    }

    impl Rotated {
        fn new(old: u8, new: u8) -> Self {
            let mut log = events(9);
            let told = Handover {
                last: Head::default()
                    .advance(&log[..4])
                    .unwrap()
                    .checkpoint(ORIGIN),
                old: key(old),
                new: key(new),
            };
            let sign = |seed: u8| {
                let signing = SigningKey::from_bytes(&[seed; 32]);
                signing.sign(told.body().as_bytes()).to_bytes()
            };
            let handover = told.finish(&sign(old), &sign(new)).unwrap();
            let event = AuditKeyRotated {
                user_name: "admin",
                client_ip: None,
                generation: 2,
                old_key: &told.old.to_line(),
                new_key: &told.new.to_line(),
                handover: &handover::field(&handover),
            };
            let stamp = Stamp {
                now: UnixTime::from_secs(6),
                random: [[6; 16]; 2],
                cluster: &cluster(),
            };
            log[5].body = event.event(&stamp).render(6);
            Self { log, handover }
        }

        /// As a hub exports it: `newest` is its size and who signed it.
        fn lines(&self, newest: (usize, u8)) -> Vec<String> {
            let mut lines = vec![
                header(&cluster(), ORIGIN, &[key(7), key(8)]),
                checkpoint_line(&self.handover),
                checkpoint_line(&note(&self.log[..newest.0], newest.1)),
            ];
            let text = |event: &StoredEvent| String::from_utf8(event.body.clone()).unwrap();
            lines.extend(self.log.iter().map(text));
            lines
        }
    }

    fn trusting(seeds: &[u8]) -> Check {
        Check::default().with_keys(seeds.iter().map(|seed| key(*seed)).collect())
    }

    #[test]
    fn a_log_whose_key_was_rotated_verifies_with_any_key_and_checkpoint_that_was_kept() {
        let rotated = Rotated::new(7, 8);
        let lines = rotated.lines((9, 8));
        for trusted in [&[][..], &[7], &[8], &[7, 8]] {
            let verified = verify(&lines, trusting(trusted)).unwrap();
            assert_eq!(verified.keys, [key(7), key(8)], "{trusted:?}");
            assert_eq!(
                (verified.report.vouched, verified.report.checkpoints),
                (9, 2)
            );
        }
        for kept in [
            note(&rotated.log[..2], 7),
            note(&rotated.log[..4], 7),
            note(&rotated.log[..6], 8),
            rotated.handover.clone(),
        ] {
            verify(&lines, Check::new(vec![kept])).unwrap();
        }
        let beyond = vec![note(&rotated.log[..5], 7)];
        assert!(
            verify(&lines, Check::new(beyond)).is_err(),
            "after its last"
        );
        // The hub's last word is the handover itself: nothing was sealed since.
        let mut at_once = lines;
        at_once.remove(2);
        for trusted in [7, 8] {
            let verified = verify(&at_once, trusting(&[trusted])).unwrap();
            assert_eq!(verified.newest, rotated.handover);
        }
    }

    #[test]
    fn attack_55_a_thief_of_a_retired_key_can_sign_nothing_that_reaches_further() {
        let rotated = Rotated::new(7, 8);
        // Over the log as it is: refused by everybody, and named.
        for trusted in [&[][..], &[7], &[8]] {
            let error = verify(&rotated.lines((9, 7)), trusting(trusted)).unwrap_err();
            assert!(
                matches!(
                    &error,
                    BundleError::Checkpoint(CheckpointError::NotInForce { size: 9, found, .. })
                        if *found == key(7).to_line()
                ),
                "{error}"
            );
        }
        // Over a log of his own without the rotation, or with it only where nothing vouches for it: refused by whoever knows
        // the newer key or keeps one of its checkpoints.
        let kept = note(&rotated.log, 8);
        let mut forged = Rotated::new(7, 8);
        forged.log[4].body = events(9)[4].body.clone();
        forged.log[1].body = b"{\"sequence\":2,\"forged\":true}".to_vec();
        let mut without = forged.lines((9, 7));
        without[8] = String::from_utf8(events(9)[5].body.clone()).unwrap();
        without.remove(1);
        let size = without.len() - 2;
        let own: Vec<StoredEvent> = (1..)
            .zip(&without[2..])
            .map(|(sequence, line)| StoredEvent {
                sequence,
                body: line.clone().into_bytes(),
            })
            .collect();
        without[1] = checkpoint_line(&note(&own[..size], 7));
        assert!(
            verify(&without, trusting(&[7])).is_ok(),
            "all he has is the old key's trust"
        );
        let mut behind = forged.lines((4, 7));
        behind.remove(1);
        assert!(verify(&behind, trusting(&[7])).is_ok());
        for lines in [&without, &behind] {
            for trusted in [&[8][..], &[7, 8]] {
                let error = verify(lines, trusting(trusted)).unwrap_err();
                assert!(
                    matches!(
                        error,
                        BundleError::Checkpoint(CheckpointError::NotSigned(_))
                    ),
                    "{error}"
                );
            }
            assert!(verify(lines, Check::new(vec![kept.clone()])).is_err());
        }
    }

    #[test]
    fn attack_55_a_key_that_the_old_one_did_not_name_is_refused() {
        // Somebody with the database and a key of his own, but without the key that signs.
        let rotated = Rotated::new(7, 8);
        let mut usurped = rotated.lines((9, 8));
        let other = Rotated::new(9, 8);
        usurped[8] = String::from_utf8(other.log[5].body.clone()).unwrap();
        usurped[0] = header(&cluster(), ORIGIN, &[key(7), key(8), key(9)]);
        usurped.remove(1);
        usurped[1] = checkpoint_line(&note(&other.log, 8));
        assert!(verify(&usurped, trusting(&[7])).is_err());
        let mut broken = rotated.lines((9, 8));
        broken[8] = broken[8].replace(&key(8).to_line(), &key(9).to_line());
        let error = verify(&broken, Check::default()).unwrap_err();
        assert!(
            matches!(
                error,
                BundleError::Fault(Fault::Handover { sequence: 6, .. })
            ),
            "{error}"
        );
        // Checkpoints by a key of which the log says nothing.
        let mut second = file();
        second[0] = header(&cluster(), ORIGIN, &[key(7), key(8)]);
        let kept = vec![note(&events(4), 8)];
        let error = verify(&second, Check::new(kept)).unwrap_err();
        assert!(
            matches!(
                error,
                BundleError::Kept(CheckpointError::NotInForce { size: 4, .. })
            ),
            "{error}"
        );
    }

    #[test]
    fn attack_55_a_text_beside_an_event_that_is_missing_changed_or_elsewhere_is_found() {
        let mut log = events(5);
        let text = "x".repeat(40_000);
        let mut event = Event::new("test.event", "MZ0000", UnixTime::from_secs(3), [[3; 16]; 2]);
        crate::overflow::lay_beside(&mut event, "command", &text);
        log[2].body = event.render(3);
        let mut lines = vec![
            header(&cluster(), ORIGIN, &[key(7)]),
            checkpoint_line(&note(&log, 7)),
        ];
        lines.extend(
            log.iter()
                .map(|event| String::from_utf8(event.body.clone()).unwrap()),
        );
        lines.insert(5, text_line(3, "command", &text));
        assert_eq!(verify(&lines, Check::default()).unwrap().report.vouched, 5);
        let fault = |lines: &[String]| verify(lines, Check::default()).unwrap_err();
        let wrong = BundleError::Fault(Fault::Text {
            sequence: 3,
            field: "command".into(),
        });
        let mut missing = lines.clone();
        let line = missing.remove(5);
        assert_eq!(fault(&missing), wrong);
        assert_eq!(fault(&missing[..5]), wrong, "at the end, too");
        let mut changed = lines.clone();
        changed[5] = text_line(3, "command", &text.replacen('x', "y", 1));
        assert_eq!(fault(&changed), wrong);
        let mut late = missing.clone();
        late.push(line.clone());
        assert_eq!(fault(&late), wrong);
        let mut twice = lines.clone();
        twice.insert(6, line);
        assert_eq!(fault(&twice), wrong);
        let mut other = lines;
        other[5] = text_line(3, "document", &text);
        assert!(matches!(
            fault(&other),
            BundleError::Fault(Fault::Text { .. })
        ));
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
