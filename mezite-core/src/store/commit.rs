//! What a commit may be made of. The constructors are the promise: no event, no change.

use std::ops::RangeInclusive;

use super::{Key, Revision, StoreError};
use crate::event::{Event, MAX_TEXT_BYTES};

/// Most bytes that the keys and values of one commit take together: 16 MiB. Far below what any database takes at once, so
/// that every backend refuses the same commits, and none of them after having begun.
pub const MAX_COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// What must be true of a key for the commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a backend must handle every expectation"
)]
pub enum Expect {
    /// Whatever is there.
    Any,
    /// Nothing is there.
    Absent,
    /// It was last written at this revision.
    Revision(Revision),
}

/// One change to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends take it apart")]
pub struct Change {
    /// Which key.
    pub key: Key,
    /// Checked against what was there before any change of the commit is made. If a commit names a key twice, all of its
    /// expectations must hold and its last value stays.
    pub expect: Expect,
    /// The new value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// State changes and the events that tell of them: one transaction.
#[derive(Clone, Debug)]
#[must_use = "a commit does nothing until the store takes it"]
pub struct Commit {
    events: Vec<Event>,
    changes: Vec<Change>,
    pruned: Vec<RangeInclusive<u64>>,
}

impl Commit {
    /// A commit that reports `event`, for now without a change of state.
    pub fn new(event: Event) -> Self {
        let none = Self {
            events: Vec::new(),
            changes: Vec::new(),
            pruned: Vec::new(),
        };
        none.and_event(event)
    }

    /// A write by the keeper of the log itself (tree head, checkpoints), which cannot report itself without end.
    /// Every key is put under `log/`, so no state that an event must tell of can be reached this way.
    ///
    /// # Errors
    /// [`super::KeyError`] if `name` cannot be part of a key.
    pub fn for_log_keeping(
        name: &str,
        expect: Expect,
        value: Vec<u8>,
    ) -> Result<Self, super::KeyError> {
        let key = Key::new(format!("log/{name}"))?;
        Ok(Self {
            events: Vec::new(),
            changes: vec![Change {
                key,
                expect,
                value: Some(value),
            }],
            pruned: Vec::new(),
        })
    }

    /// One more write of the log's keeper in the same transaction; see [`Commit::for_log_keeping`].
    ///
    /// # Errors
    /// [`super::KeyError`] if `name` cannot be part of a key.
    pub fn and_log_keeping(
        mut self,
        name: &str,
        expect: Expect,
        value: Vec<u8>,
    ) -> Result<Self, super::KeyError> {
        let key = Key::new(format!("log/{name}"))?;
        self.changes.push(Change {
            key,
            expect,
            value: Some(value),
        });
        Ok(self)
    }

    /// Reports one more event, after those before it. Its long texts are written with it.
    pub fn and_event(mut self, event: Event) -> Self {
        let texts = event.texts().map(|(field, text)| Change {
            key: Key::of_text(event.id, field),
            expect: Expect::Absent,
            value: Some(text.as_bytes().to_vec()),
        });
        self.changes.extend(texts);
        self.events.push(event);
        self
    }

    /// Writes `value` at `key`.
    pub fn put(mut self, key: Key, expect: Expect, value: Vec<u8>) -> Self {
        self.changes.push(Change {
            key,
            expect,
            value: Some(value),
        });
        self
    }

    /// Removes `key`.
    pub fn remove(mut self, key: Key, expect: Expect) -> Self {
        self.changes.push(Change {
            key,
            expect,
            value: None,
        });
        self
    }

    /// Removes the events of these sequences from the log. Their numbers are never given again; those that are not
    /// there are passed over, and the events of this commit stay. An event of the commit tells what is removed.
    pub fn and_prune(mut self, sequences: impl IntoIterator<Item = RangeInclusive<u64>>) -> Self {
        // A commit of the log's keeper has no event that could tell of it.
        if !self.events.is_empty() {
            self.pruned.extend(sequences);
        }
        self
    }

    /// How many bytes its keys and values take. Events have a bound of their own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sizes = self.changes.iter().map(|change| {
            let value = change.value.as_ref().map_or(0, Vec::len);
            change.key.as_str().len().saturating_add(value)
        });
        sizes.fold(0, usize::saturating_add)
    }

    /// What a backend asks before anything else.
    ///
    /// # Errors
    /// [`StoreError::CommitTooLarge`], [`StoreError::TextTooLong`].
    pub fn check_size(&self) -> Result<(), StoreError> {
        for event in &self.events {
            let bytes = event.texts().map(|(_, text)| text.len()).sum();
            if bytes > MAX_TEXT_BYTES {
                return Err(StoreError::TextTooLong(bytes));
            }
        }
        match self.bytes() {
            bytes if bytes > MAX_COMMIT_BYTES => Err(StoreError::CommitTooLarge(bytes)),
            _ => Ok(()),
        }
    }

    /// The changes in the order in which they were added.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The events in the order in which they will be numbered.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The sequences whose events are removed.
    #[must_use]
    pub fn pruned(&self) -> &[RangeInclusive<u64>] {
        &self.pruned
    }
}

/// What a commit became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends build it")]
pub struct Committed {
    /// The revision that the written keys now have.
    pub revision: Revision,
    /// Sequence of the last event in the log after this commit.
    pub sequence: u64,
}
