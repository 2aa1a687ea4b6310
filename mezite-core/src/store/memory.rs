//! The fake: a store that forgets when dropped. The reference for what the others must do.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Commit, Committed, Counters, Dump, Expect, Feed, Key, LogQuery, Order, Piece, Pieces,
    REVISION_GAP, Revision, Store, StoreError, StoredEvent, Versioned, Watch,
};
use crate::event::{Event, Facts, MAX_BYTES};

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    keys: BTreeMap<Key, Versioned>,
    events: BTreeMap<u64, (Facts, Vec<u8>)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        for change in commit.changes() {
            let holds = match (change.expect, self.keys.get(&change.key)) {
                (Expect::Any, _) | (Expect::Absent, None) => true,
                (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
                (Expect::Revision(wanted), Some(found)) => found.revision == wanted,
            };
            if !holds {
                return Err(StoreError::Conflict(change.key.clone()));
            }
        }
        Ok(())
    }

    fn apply(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        commit.check_size()?;
        self.check(commit)?;
        let rendered = render(self.counters.sequence, commit.events())?;
        for range in commit.pruned() {
            self.events.retain(|sequence, _| !range.contains(sequence));
        }
        self.append(rendered);
        let revision = Revision(self.counters.revision.0 + 1);
        for change in commit.changes() {
            match &change.value {
                Some(value) => {
                    let versioned = Versioned {
                        value: value.clone(),
                        revision,
                    };
                    self.keys.insert(change.key.clone(), versioned);
                }
                None => {
                    self.keys.remove(&change.key);
                }
            }
        }
        self.counters.revision = revision;
        Ok(self.committed())
    }

    fn append(&mut self, rendered: Vec<(Facts, Vec<u8>)>) {
        for event in rendered {
            self.counters.sequence += 1;
            self.events.insert(self.counters.sequence, event);
        }
    }

    fn committed(&self) -> Committed {
        Committed {
            revision: self.counters.revision,
            sequence: self.counters.sequence,
        }
    }

    fn take(&mut self, piece: Piece) -> Result<(), StoreError> {
        match piece {
            Piece::Entry(key, versioned) => {
                self.keys.insert(key, versioned);
            }
            Piece::Event(StoredEvent { sequence, body }) => {
                let facts = Facts::parse(&body).map_err(StoreError::Corrupt)?;
                self.events.insert(sequence, (facts, body));
            }
        }
        Ok(())
    }
}

fn render(last: u64, events: &[Event]) -> Result<Vec<(Facts, Vec<u8>)>, StoreError> {
    let numbered = (last + 1..).zip(events);
    numbered
        .map(|(sequence, event)| {
            let body = event.render(sequence);
            if body.len() > MAX_BYTES {
                return Err(StoreError::EventTooLong(body.len()));
            }
            Ok((Facts::from(event), body))
        })
        .collect()
}

/// Given out at once: what is in memory fits into memory.
struct All(Vec<Piece>);

#[async_trait]
impl Pieces for All {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        Ok(std::mem::take(&mut self.0))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.state().keys.get(key).cloned())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let found = state
            .keys
            .range((lower, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(found
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.feed.watch(prefix)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let committed = self.state().apply(&commit)?;
        self.feed.publish(
            committed.revision,
            commit.changes().iter().map(|change| &change.key),
        );
        Ok(committed)
    }

    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let state = self.state();
        let found = state
            .events
            .iter()
            .filter(|(sequence, (facts, _))| query.matches(**sequence, facts));
        let mut found: Vec<_> = found
            .map(|(sequence, (_, body))| StoredEvent {
                sequence: *sequence,
                body: body.clone(),
            })
            .collect();
        if query.order == Order::NewestFirst {
            found.reverse();
        }
        found.truncate(query.limit);
        Ok(found)
    }

    async fn dump(&self) -> Result<Dump, StoreError> {
        let state = self.state();
        let entries = state
            .keys
            .iter()
            .map(|(key, versioned)| Piece::Entry(key.clone(), versioned.clone()));
        let events = state.events.iter().map(|(sequence, (_, body))| {
            Piece::Event(StoredEvent {
                sequence: *sequence,
                body: body.clone(),
            })
        });
        Ok(Dump {
            counters: state.counters,
            pieces: Box::new(All(entries.chain(events).collect())),
        })
    }

    async fn restore(&self, mut dump: Dump, event: Event) -> Result<Committed, StoreError> {
        let mut filled = State::default();
        loop {
            let pieces = dump.pieces.next().await?;
            if pieces.is_empty() {
                break;
            }
            for piece in pieces {
                filled.take(piece)?;
            }
        }
        filled.counters = dump.counters;
        filled.counters.revision.0 += REVISION_GAP;
        filled.append(render(dump.counters.sequence, &[event])?);
        let mut state = self.state();
        if state.counters != Counters::default() {
            return Err(StoreError::NotEmpty);
        }
        *state = filled;
        Ok(state.committed())
    }
}
