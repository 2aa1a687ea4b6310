//! Verification of a log, event by event in order: nothing missing, nothing changed, nothing added between
//! checkpoints, nothing cut off since a checkpoint that an auditor kept.
//!
//! A chain of hashes alone cannot show that the end was cut off; a checkpoint that somebody else keeps can.

use std::borrow::Cow;
use std::collections::BTreeMap;

use data_encoding::BASE64;
use mezite_core::store::StoredEvent;
use serde::Deserialize;
use thiserror::Error;

use crate::catalogue::{AuditKeyRotated, AuditPruned, BackupRestored};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::handover::{Chain, Handover};
use crate::merkle::{Frontier, Hash};
use crate::overflow::{self, Overflow};
use crate::sequences::Sequences;

/// What is wrong with a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// Events are missing, or not in order.
    #[error("event {wanted} is missing: event {found} comes in its place")]
    Gap {
        /// The sequence that should be there.
        wanted: u64,
        /// The sequence that is there.
        found: u64,
    },
    /// The body is not an event.
    #[error("event {sequence} is unreadable: {reason}")]
    Unreadable {
        /// Where.
        sequence: u64,
        /// What the parser says.
        reason: String,
    },
    /// The body says another number than its place: it was moved, or its place renumbered.
    #[error("event {sequence} says of itself that it is event {own}")]
    OwnSequence {
        /// Where.
        sequence: u64,
        /// What the body says.
        own: u64,
    },
    /// The events up to a checkpoint are not those it was signed over.
    #[error("an event from {from} to {size} was changed: the log's root is {found}, the checkpoint at {size} has {signed}", signed = BASE64.encode(.signed), found = BASE64.encode(.found))]
    Root {
        /// The first event that no earlier checkpoint vouches for.
        from: u64,
        /// The checkpoint's size.
        size: u64,
        /// The root that was signed.
        signed: Hash,
        /// The root of the events as they are.
        found: Hash,
    },
    /// Two signed checkpoints of one size differ: the log was shown differently to different people, or rolled back.
    #[error(
        "two signed checkpoints at {size} have different roots: the log was rewritten, or shown differently to different people"
    )]
    SplitView {
        /// Their size.
        size: u64,
    },
    /// A body is not there, and no `audit.pruned` says that it was removed by rule.
    #[error("event {sequence} was deleted, and no `audit.pruned` event says so")]
    Deleted {
        /// The first such event.
        sequence: u64,
    },
    /// The whole of a text that the event only begins is not there, or is another.
    #[error("the text of `{field}` beside event {sequence} is missing or was changed")]
    Text {
        /// The event.
        sequence: u64,
        /// Which of its fields.
        field: String,
    },
    /// An event hands the audit key over to another, and is not signed by both, or the old one did not count.
    #[error("event {sequence} does not hand the audit key over: {reason}")]
    Handover {
        /// Where.
        sequence: u64,
        /// What is wrong with it.
        reason: CheckpointError,
    },
    /// The log ends before a checkpoint's size.
    #[error(
        "events {from} to {size} are missing from the end: a checkpoint was signed over {size} events"
    )]
    Truncated {
        /// The first event that is not there.
        from: u64,
        /// The size of the largest checkpoint.
        size: u64,
    },
}

/// What a verified log is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many events it has.
    pub size: u64,
    /// The root over all of them.
    pub root: Hash,
    /// Up to which event a checkpoint vouches for it. Later events are in order, but nobody signed for them yet.
    pub vouched: u64,
    /// How many checkpoints were compared.
    pub checkpoints: u64,
    /// How many events were removed by rule: their hashes are in the tree, and `audit.pruned` events name them.
    pub pruned: u64,
    /// Events that tell of a restore from a backup: what was between the backup and such an event is gone.
    pub restored: Vec<u64>,
    /// Which audit key counts at which size, as the log's own events say.
    pub keys: Chain,
}

/// Verifies a log as it is read. Memory does not grow with the log.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    tree: Frontier,
    /// Roots by size: the checkpoints that the log has not reached yet.
    awaited: BTreeMap<u64, Hash>,
    vouched: u64,
    compared: u64,
    /// Events without a body, and those that `audit.pruned` events name.
    missing: Sequences,
    announced: Sequences,
    restored: Vec<u64>,
    keys: Chain,
    /// The texts that the last event says lie beside it.
    beside: Vec<Overflow>,
}

impl Verifier {
    /// A verifier that compares the log with `checkpoints`, whose signatures were verified
    /// ([`open`](crate::checkpoint::open)). Give it all there are: the one in the store, and those that auditors kept.
    ///
    /// # Errors
    /// [`Fault::SplitView`] if two of them contradict each other; [`Fault::Root`] if one of an empty log has the
    /// root of another.
    pub fn new(checkpoints: impl IntoIterator<Item = Checkpoint>) -> Result<Self, Fault> {
        let mut verifier = Self::default();
        for Checkpoint { size, root, .. } in checkpoints {
            if verifier
                .awaited
                .insert(size, root)
                .is_some_and(|other| other != root)
            {
                return Err(Fault::SplitView { size });
            }
        }
        verifier.compare()?;
        Ok(verifier)
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// The first fault. What comes after it proves nothing.
    pub fn push(&mut self, event: &StoredEvent) -> Result<(), Fault> {
        self.check_place(event.sequence)?;
        let told = Told::read(event)?;
        match told.event_type.as_deref() {
            Some(AuditPruned::TYPE) => {
                let ranges = told.ranges.as_deref().unwrap_or_default();
                let named: Sequences = ranges.parse().map_err(|error| Fault::Unreadable {
                    sequence: event.sequence,
                    reason: format!("{error}"),
                })?;
                // What is still to come cannot have been removed already.
                self.announced.merge(&named.below(event.sequence));
            }
            Some(BackupRestored::TYPE) => self.restored.push(event.sequence),
            Some(AuditKeyRotated::TYPE) => self.hand_over(event.sequence, &told)?,
            Some(_) | None => {}
        }
        self.beside = overflow::parse(&told.overflow).map_err(|reason| Fault::Unreadable {
            sequence: event.sequence,
            reason,
        })?;
        self.tree.append(&event.body);
        self.compare()
    }

    /// The texts that the last event says lie beside it, for whoever has them too. They come once.
    pub fn take_beside(&mut self) -> Vec<Overflow> {
        std::mem::take(&mut self.beside)
    }

    /// Takes the next event, of which only the hash of its leaf is there.
    ///
    /// # Errors
    /// As [`Verifier::push`]; whether an `audit.pruned` event names it is seen at the end.
    pub fn push_pruned(&mut self, sequence: u64, leaf: Hash) -> Result<(), Fault> {
        self.check_place(sequence)?;
        self.missing.insert(sequence..=sequence);
        self.tree.append_leaf(leaf);
        self.compare()
    }

    fn hand_over(&mut self, sequence: u64, told: &Told<'_>) -> Result<(), Fault> {
        let text = |field: &Option<Cow<'_, str>>| field.as_deref().unwrap_or_default().to_owned();
        let (old, new) = (text(&told.old_key), text(&told.new_key));
        let ahead = CheckpointError::Malformed("the old key's last checkpoint covers this event");
        Handover::from_event(&old, &new, &text(&told.handover))
            .and_then(|handover| match handover.last.size < sequence {
                true => self.keys.push(handover),
                false => Err(ahead),
            })
            .map_err(|reason| Fault::Handover { sequence, reason })
    }

    fn check_place(&self, found: u64) -> Result<(), Fault> {
        let wanted = self.tree.size() + 1;
        if found == wanted {
            Ok(())
        } else {
            Err(Fault::Gap { wanted, found })
        }
    }

    /// Says what the log is, after its last event.
    ///
    /// # Errors
    /// [`Fault::Truncated`] if a checkpoint was signed over more events than came; [`Fault::Deleted`].
    pub fn finish(self) -> Result<Report, Fault> {
        if let Some((size, _)) = self.awaited.last_key_value() {
            return Err(Fault::Truncated {
                from: self.tree.size() + 1,
                size: *size,
            });
        }
        if let Some(sequence) = self.missing.first_outside(&self.announced) {
            return Err(Fault::Deleted { sequence });
        }
        Ok(Report {
            size: self.tree.size(),
            root: self.tree.root(),
            vouched: self.vouched,
            checkpoints: self.compared,
            pruned: self.missing.count(),
            restored: self.restored,
            keys: self.keys,
        })
    }

    /// Compares the root with the checkpoint of this size, if there is one.
    fn compare(&mut self) -> Result<(), Fault> {
        let size = self.tree.size();
        let Some(signed) = self.awaited.remove(&size) else {
            return Ok(());
        };
        let found = self.tree.root();
        if signed != found {
            return Err(Fault::Root {
                from: self.vouched + 1,
                size,
                signed,
                found,
            });
        }
        self.vouched = size;
        self.compared += 1;
        Ok(())
    }
}

/// What an event says that matters here.
#[derive(Deserialize)]
struct Told<'a> {
    sequence: u64,
    #[serde(borrow, default)]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ranges: Option<Cow<'a, str>>,
    #[serde(default)]
    overflow: Vec<String>,
    #[serde(borrow, default)]
    old_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    new_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    handover: Option<Cow<'a, str>>,
}

impl<'a> Told<'a> {
    fn read(event: &'a StoredEvent) -> Result<Self, Fault> {
        let sequence = event.sequence;
        let parsed: Result<Self, _> = serde_json::from_slice(&event.body);
        let told = parsed.map_err(|error| Fault::Unreadable {
            sequence,
            reason: error.to_string(),
        })?;
        if told.sequence == sequence {
            Ok(told)
        } else {
            Err(Fault::OwnSequence {
                sequence,
                own: told.sequence,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use mezite_core::{Event, UnixTime};
    use proptest::prelude::*;

    use super::*;
    use crate::catalogue::Stamp;
    use crate::keeper::Head;
    use crate::merkle::leaf_hash;

    fn log(size: u64) -> Vec<StoredEvent> {
        let stored = |sequence: u64| {
            let random = [sequence.to_le_bytes(), sequence.to_le_bytes()].concat();
            let random: [u8; 16] = random.try_into().unwrap();
            let event = Event::new(
                "test.event",
                "MZ0000",
                UnixTime::from_secs(sequence),
                [random; 2],
            );
            StoredEvent {
                sequence,
                body: event.render(sequence),
            }
        };
        (1..=size).map(stored).collect()
    }

    fn checkpoint(events: &[StoredEvent]) -> Checkpoint {
        Head::default().advance(events).unwrap().checkpoint("test")
    }

    fn verify(events: &[StoredEvent], checkpoints: &[Checkpoint]) -> Result<Report, Fault> {
        let mut verifier = Verifier::new(checkpoints.iter().cloned())?;
        for event in events {
            verifier.push(event)?;
        }
        verifier.finish()
    }

    fn renumber(events: &mut [StoredEvent]) {
        for (sequence, event) in (1..).zip(events) {
            event.sequence = sequence;
        }
    }

    #[test]
    fn an_untouched_log_verifies_and_says_how_far_it_is_vouched_for() {
        let events = log(10);
        let checkpoints = [
            checkpoint(&[]),
            checkpoint(&events[..3]),
            checkpoint(&events[..8]),
        ];
        let report = verify(&events, &checkpoints).unwrap();
        assert_eq!(
            (report.size, report.vouched, report.checkpoints),
            (10, 8, 3)
        );
        assert_eq!(report.root, checkpoint(&events).root);
    }

    #[test]
    fn attack_55_a_tail_that_was_cut_off_is_missed() {
        let events = log(10);
        let kept = checkpoint(&events);
        assert_eq!(
            verify(&events[..7], &[kept]),
            Err(Fault::Truncated { from: 8, size: 10 })
        );
    }

    #[test]
    fn attack_55_a_removed_record_is_missed_even_when_the_rest_is_renumbered() {
        let mut cut = log(10);
        cut.remove(4);
        assert_eq!(
            verify(&cut, &[]),
            Err(Fault::Gap {
                wanted: 5,
                found: 6
            })
        );
        renumber(&mut cut);
        assert_eq!(
            verify(&cut, &[]),
            Err(Fault::OwnSequence {
                sequence: 5,
                own: 6
            })
        );
    }

    #[test]
    fn attack_55_a_rewritten_log_contradicts_the_checkpoint_that_an_auditor_kept() {
        let events = log(10);
        let kept = [checkpoint(&events[..4]), checkpoint(&events)];
        let mut rewritten = events;
        let body = String::from_utf8(rewritten[6].body.clone()).unwrap();
        rewritten[6].body = body.replace("test.event", "none.event").into_bytes();
        let fault = verify(&rewritten, &kept).unwrap_err();
        assert!(
            matches!(
                fault,
                Fault::Root {
                    from: 5,
                    size: 10,
                    ..
                }
            ),
            "{fault}"
        );
    }

    #[test]
    fn attack_55_a_rolled_back_log_that_went_on_differently_is_seen() {
        let before = log(10);
        let kept = checkpoint(&before);
        let mut after = before[..6].to_vec();
        after.extend((7..=12).map(|sequence| StoredEvent {
            sequence,
            body: format!("{{\"sequence\":{sequence},\"other\":true}}").into_bytes(),
        }));
        let current = checkpoint(&after);
        let fault = verify(&after, &[kept, current]).unwrap_err();
        assert!(
            matches!(
                fault,
                Fault::Root {
                    from: 1,
                    size: 10,
                    ..
                }
            ),
            "{fault}"
        );
    }

    #[test]
    fn attack_55_two_auditors_who_were_shown_different_logs_find_out_together() {
        let events = log(5);
        let mut other = checkpoint(&events);
        other.root[0] ^= 1;
        assert_eq!(
            verify(&events, &[checkpoint(&events), other]),
            Err(Fault::SplitView { size: 5 })
        );
    }

    /// A log of ten, of which `announced` are named by an event 11, with a checkpoint over all.
    fn announcing(announced: &str) -> (Vec<StoredEvent>, Checkpoint) {
        let mut events = log(10);
        let cluster = "example".parse().unwrap();
        let pruned = AuditPruned {
            user_name: "hub:h",
            rule: "test.event after 1d",
            count: 3,
            ranges: announced,
        };
        let stamp = Stamp {
            now: UnixTime::from_secs(11),
            random: [[11; 16]; 2],
            cluster: &cluster,
        };
        events.push(StoredEvent {
            sequence: 11,
            body: pruned.event(&stamp).render(11),
        });
        let kept = checkpoint(&events);
        (events, kept)
    }

    fn verify_without(
        (events, kept): (Vec<StoredEvent>, Checkpoint),
        missing: &[u64],
    ) -> Result<Report, Fault> {
        let mut verifier = Verifier::new([kept])?;
        for event in &events {
            if missing.contains(&event.sequence) {
                verifier.push_pruned(event.sequence, leaf_hash(&event.body))?;
            } else {
                verifier.push(event)?;
            }
        }
        verifier.finish()
    }

    #[test]
    fn what_an_event_says_was_pruned_may_be_missing() {
        let report = verify_without(announcing("2-3,7"), &[2, 3, 7]).unwrap();
        assert_eq!((report.size, report.vouched, report.pruned), (11, 11, 3));
        let report = verify_without(announcing("2-3,7"), &[7]).unwrap();
        assert_eq!(report.pruned, 1, "announced and still there is no fault");
    }

    #[test]
    fn attack_55_a_deletion_that_nobody_announced_is_found() {
        let fault = verify_without(announcing("2-3,7"), &[2, 4, 7]).unwrap_err();
        assert_eq!(fault, Fault::Deleted { sequence: 4 });
        let fault = verify_without(announcing("1-11"), &[11]).unwrap_err();
        assert_eq!(fault, Fault::Deleted { sequence: 11 }, "nor by itself");
        let (events, kept) = announcing("2-3,7");
        let mut verifier = Verifier::new([kept]).unwrap();
        verifier.push(&events[0]).unwrap();
        verifier.push_pruned(2, [0; 32]).unwrap();
        let pushed: Result<Vec<()>, Fault> = events[2..]
            .iter()
            .map(|event| verifier.push(event))
            .collect();
        assert!(matches!(pushed, Err(Fault::Root { .. })), "a wrong hash");
    }

    proptest! {
        #[test]
        fn attack_55_any_single_byte_edit_is_found(size in 1_u64..20, at in any::<(prop::sample::Index, prop::sample::Index)>(), flip in 1_u8..) {
            let events = log(size);
            let kept = checkpoint(&events);
            let mut edited = events;
            let event = at.0.index(edited.len());
            let byte = at.1.index(edited[event].body.len());
            edited[event].body[byte] ^= flip;
            prop_assert!(verify(&edited, &[kept]).is_err());
        }

        #[test]
        fn attack_55_any_cut_is_found(size in 1_u64..20, at in any::<prop::sample::Index>(), renumbered: bool) {
            let events = log(size);
            let kept = checkpoint(&events);
            let mut cut = events;
            cut.remove(at.index(cut.len()));
            if renumbered {
                renumber(&mut cut);
            }
            prop_assert!(verify(&cut, &[kept]).is_err());
        }

        #[test]
        fn attack_55_any_swap_is_found_without_any_checkpoint(size in 2_u64..20, at in any::<(prop::sample::Index, prop::sample::Index)>(), renumbered: bool) {
            let mut swapped = log(size);
            let (one, two) = (at.0.index(swapped.len()), at.1.index(swapped.len()));
            prop_assume!(one != two);
            swapped.swap(one, two);
            if renumbered {
                renumber(&mut swapped);
            }
            prop_assert!(verify(&swapped, &[]).is_err());
        }
    }
}
