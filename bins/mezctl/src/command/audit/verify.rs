//! The log as it arrives, against the checkpoints: what the hub sealed and what an auditor kept. Pure.

use mezite_api::v1::export_log_response::Item;
use mezite_audit::checkpoint::{self, CheckpointError};
use mezite_audit::{Checkpoint, NoteKey, Report, Verifier};
use mezite_core::store::StoredEvent;

/// A log that was verified.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) report: Report,
    /// The newest checkpoint, as it was signed.
    pub(crate) newest: String,
}

/// Keys first, then the newest checkpoint, then every event.
#[derive(Debug, Default)]
pub(crate) struct Check {
    kept: Vec<String>,
    keys: Vec<NoteKey>,
    checkpoints: Vec<Checkpoint>,
    newest: Option<String>,
    verifier: Option<Verifier>,
}

impl Check {
    /// A check that also holds the log to the checkpoints that were kept.
    pub(crate) fn new(kept: Vec<String>) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }

    /// Takes what comes next. The error says what is wrong, and where.
    pub(crate) fn take(&mut self, item: Item) -> Result<(), String> {
        match item {
            Item::Keys(keys) if self.keys.is_empty() => {
                for key in &keys.keys {
                    let key = key
                        .as_slice()
                        .try_into()
                        .map_err(|_| "the hub sent an audit key that is none")?;
                    self.keys
                        .push(NoteKey::new(&keys.origin, key).map_err(text)?);
                }
                for note in std::mem::take(&mut self.kept) {
                    let kept = self
                        .open(&note)
                        .map_err(|error| format!("the kept checkpoint: {error}"))?;
                    self.checkpoints.push(kept);
                }
                Ok(())
            }
            Item::Checkpoint(note) if self.verifier.is_none() && self.newest.is_none() => {
                let checkpoint = self.open(&note)?;
                self.checkpoints.push(checkpoint);
                self.newest = Some(note);
                Ok(())
            }
            Item::Event(event) => {
                let event = StoredEvent {
                    sequence: event.sequence,
                    body: event.body,
                };
                self.verifier()?.push(&event).map_err(text)
            }
            Item::Keys(_) | Item::Checkpoint(_) => {
                Err("the hub sent its log in a wrong order".to_owned())
            }
        }
    }

    pub(crate) fn finish(mut self) -> Result<Verified, String> {
        self.verifier()?;
        let newest = self
            .newest
            .ok_or("the hub has no signed checkpoint: nothing vouches for the log")?;
        let verifier = self.verifier.ok_or("there is no log")?;
        Ok(Verified {
            report: verifier.finish().map_err(text)?,
            newest,
        })
    }

    /// The verifier; it wants all checkpoints before the first event.
    fn verifier(&mut self) -> Result<&mut Verifier, String> {
        let verifier = match self.verifier.take() {
            Some(verifier) => verifier,
            None => Verifier::new(std::mem::take(&mut self.checkpoints)).map_err(text)?,
        };
        Ok(self.verifier.insert(verifier))
    }

    fn open(&self, note: &str) -> Result<Checkpoint, String> {
        let mut refused = "the hub sent no audit key".to_owned();
        for key in &self.keys {
            match checkpoint::open(note, key) {
                Ok(checkpoint) => return Ok(checkpoint),
                Err(error @ CheckpointError::WrongSignature(_)) => return Err(error.to_string()),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use mezite_api::v1;
    use mezite_audit::keeper::Head;
    use mezite_core::{Event, UnixTime};

    use super::*;

    const ORIGIN: &str = "example/mezite-audit";

    fn events(count: u64) -> Vec<StoredEvent> {
        let stored = |sequence: u64| {
            let event = Event::new(
                "test.event",
                "MZ0000",
                UnixTime::from_secs(sequence),
                [[1; 16]; 2],
            );
            StoredEvent {
                sequence,
                body: event.render(sequence),
            }
        };
        (1..=count).map(stored).collect()
    }

    fn note(events: &[StoredEvent], seed: u8) -> String {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        let checkpoint = Head::default().advance(events).unwrap().checkpoint(ORIGIN);
        let signature = signing.sign(checkpoint.body().as_bytes()).to_bytes();
        let key = NoteKey::new(ORIGIN, &signing.verifying_key().to_bytes()).unwrap();
        checkpoint::finish(&checkpoint, &key, &signature).unwrap()
    }

    fn items(events: &[StoredEvent], note: Option<String>) -> Vec<Item> {
        let key = SigningKey::from_bytes(&[7; 32])
            .verifying_key()
            .to_bytes()
            .to_vec();
        let keys = v1::LogKeys {
            cluster: "example".into(),
            origin: ORIGIN.into(),
            keys: vec![key],
        };
        let sent = events.iter().map(|event| {
            Item::Event(v1::StoredEvent {
                sequence: event.sequence,
                body: event.body.clone(),
            })
        });
        [Item::Keys(keys)]
            .into_iter()
            .chain(note.map(Item::Checkpoint))
            .chain(sent)
            .collect()
    }

    fn check(items: Vec<Item>, kept: Vec<String>) -> Result<Verified, String> {
        let mut check = Check::new(kept);
        for item in items {
            check.take(item)?;
        }
        check.finish()
    }

    #[test]
    fn a_whole_log_verifies_against_both_checkpoints() {
        let log = events(9);
        let newest = note(&log[..8], 7);
        let verified = check(items(&log, Some(newest.clone())), vec![note(&log[..3], 7)]).unwrap();
        let report = verified.report;
        assert_eq!((report.size, report.vouched, report.checkpoints), (9, 8, 2));
        assert_eq!(verified.newest, newest);
    }

    #[test]
    fn attack_55_a_log_cut_below_the_kept_checkpoint_is_found() {
        let log = events(9);
        let fault = check(
            items(&log[..5], Some(note(&log[..5], 7))),
            vec![note(&log, 7)],
        )
        .unwrap_err();
        assert!(fault.contains("events 6 to 9 are missing"), "{fault}");
    }

    #[test]
    fn attack_55_a_checkpoint_of_another_key_or_none_vouches_for_nothing() {
        let log = events(3);
        assert!(check(items(&log, Some(note(&log, 8))), Vec::new()).is_err());
        assert!(check(items(&log, Some(note(&log, 7))), vec![note(&log, 8)]).is_err());
        let fault = check(items(&log, None), Vec::new()).unwrap_err();
        assert!(fault.contains("no signed checkpoint"), "{fault}");
    }

    #[test]
    fn attack_55_an_order_that_hides_a_checkpoint_is_refused() {
        let log = events(3);
        let mut late = items(&log, None);
        late.push(Item::Checkpoint(note(&log, 7)));
        assert!(check(late, Vec::new()).unwrap_err().contains("wrong order"));
    }
}
