//! The fake: a store that forgets when dropped. The reference for what the others must do.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Commit, Committed, Expect, Feed, Key, LogQuery, Order, Revision, Store, StoreError,
    StoredEvent, Versioned, Watch,
};
use crate::event::{Event, MAX_BYTES};

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    keys: BTreeMap<Key, Versioned>,
    events: Vec<(Event, Vec<u8>)>,
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
        self.check(commit)?;
        let mut sequence = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        let mut rendered = Vec::with_capacity(commit.events().len());
        for event in commit.events() {
            sequence += 1;
            let body = event.render(sequence);
            if body.len() > MAX_BYTES {
                return Err(StoreError::EventTooLong(body.len()));
            }
            rendered.push((event.clone(), body));
        }
        self.events.append(&mut rendered);
        self.revision = Revision(self.revision.0 + 1);
        for change in commit.changes() {
            match &change.value {
                Some(value) => {
                    let versioned = Versioned {
                        value: value.clone(),
                        revision: self.revision,
                    };
                    self.keys.insert(change.key.clone(), versioned);
                }
                None => {
                    self.keys.remove(&change.key);
                }
            }
        }
        Ok(Committed {
            revision: self.revision,
            sequence,
        })
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
        let numbered = (1_u64..).zip(&state.events);
        let found = numbered.filter(|(sequence, (event, _))| query.matches(*sequence, event));
        let mut found: Vec<_> = found
            .map(|(sequence, (_, body))| StoredEvent {
                sequence,
                body: body.clone(),
            })
            .collect();
        if query.order == Order::NewestFirst {
            found.reverse();
        }
        found.truncate(query.limit);
        Ok(found)
    }
}
