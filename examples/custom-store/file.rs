//! The store: what was read from the file, and the file to append to.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mezite_core::Event;
use mezite_core::event::{Facts, MAX_BYTES};
use mezite_core::store::{
    Commit, Committed, Counters, Dump, Expect, Feed, Key, LogQuery, Order, Piece, Pieces,
    REVISION_GAP, Revision, Store, StoreError, StoredEvent, Versioned, Watch, async_trait,
};

use crate::record::{HEAD, Record, damaged};

/// A store in one append-only file.
#[derive(Debug)]
pub(crate) struct FileStore {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Where the next record goes: what lies behind is of a commit that failed.
    length: u64,
    shown: Shown,
}

/// What the records come to.
#[derive(Clone, Debug, Default)]
struct Shown {
    counters: Counters,
    entries: BTreeMap<Key, Versioned>,
    events: BTreeMap<u64, (Facts, Vec<u8>)>,
}

impl FileStore {
    /// Opens the file, or makes it. A record that ends too early is of a commit that nobody was told of: it is dropped.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(unavailable)?;
        file.try_lock().map_err(unavailable)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unavailable)?;
        let mut rest = bytes.as_slice();
        let mut shown = Shown::default();
        while let Some(record) = Record::decode(&mut rest)? {
            shown.take(record)?;
        }
        let length = u64::try_from(bytes.len() - rest.len()).unwrap_or(u64::MAX);
        file.set_len(length).map_err(unavailable)?;
        let state = State {
            file,
            length,
            shown,
        };
        Ok(Self {
            state: Mutex::new(state),
            feed: Feed::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// On the disk first, then shown.
    fn append(&mut self, record: Record) -> Result<Committed, StoreError> {
        use std::io::{Seek, SeekFrom};
        let bytes = record.encode();
        let written = self
            .file
            .seek(SeekFrom::Start(self.length))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // If this fails too, the record is torn or whole: the next one is written over it.
            drop(self.file.set_len(self.length));
            return Err(unavailable(error));
        }
        self.length += u64::try_from(bytes.len().max(HEAD)).unwrap_or(u64::MAX);
        self.shown.take(record)?;
        Ok(Committed {
            revision: self.shown.counters.revision,
            sequence: self.shown.counters.sequence,
        })
    }
}

impl Shown {
    fn plan(&self, commit: &Commit) -> Result<Record, StoreError> {
        commit.check_size()?;
        for change in commit.changes() {
            let found = self.entries.get(&change.key).map(|found| found.revision);
            let holds = match change.expect {
                Expect::Any => true,
                Expect::Absent => found.is_none(),
                Expect::Revision(wanted) => found == Some(wanted),
            };
            if !holds {
                return Err(StoreError::Conflict(change.key.clone()));
            }
        }
        let revision = self.counters.revision.0 + 1;
        let events = render(self.counters.sequence, commit.events())?;
        let changes = commit.changes().iter();
        Ok(Record {
            revision,
            sequence: events
                .last()
                .map_or(self.counters.sequence, |(last, _)| *last),
            pruned: commit
                .pruned()
                .iter()
                .map(|range| (*range.start(), *range.end()))
                .collect(),
            events,
            entries: changes
                .map(|change| (change.key.clone(), revision, change.value.clone()))
                .collect(),
        })
    }

    fn take(&mut self, record: Record) -> Result<(), StoreError> {
        for (low, high) in record.pruned {
            self.events
                .retain(|sequence, _| !(low..=high).contains(sequence));
        }
        for (sequence, body) in record.events {
            let facts = facts(&body)?;
            self.events.insert(sequence, (facts, body));
        }
        for (key, revision, value) in record.entries {
            let revision = Revision(revision);
            match value {
                Some(value) => drop(self.entries.insert(key, Versioned { value, revision })),
                None => drop(self.entries.remove(&key)),
            }
        }
        self.counters = Counters {
            revision: Revision(record.revision),
            sequence: record.sequence,
        };
        Ok(())
    }
}

fn render(last: u64, events: &[Event]) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let numbered = (last + 1..).zip(events);
    let rendered = numbered.map(|(sequence, event)| match event.render(sequence) {
        body if body.len() > MAX_BYTES => Err(StoreError::EventTooLong(body.len())),
        body => Ok((sequence, body)),
    });
    rendered.collect()
}

/// What the log is searched by.
fn facts(body: &[u8]) -> Result<Facts, StoreError> {
    Facts::parse(body).map_err(|why| damaged(&why))
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

#[async_trait]
impl Store for FileStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        Ok(self.state().shown.entries.get(key).cloned())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let state = self.state();
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = state.shown.entries.range((lower, Bound::Unbounded));
        let found = found
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit);
        Ok(found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.feed.watch(prefix)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let committed = {
            let mut state = self.state();
            let record = state.shown.plan(&commit)?;
            state.append(record)?
        };
        let keys = commit.changes().iter().map(|change| &change.key);
        self.feed.publish(committed.revision, keys);
        Ok(committed)
    }

    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let state = self.state();
        let found = state.shown.events.iter();
        let found = found.filter(|(sequence, (facts, _))| query.matches(**sequence, facts));
        let found = found.map(|(sequence, (_, body))| StoredEvent {
            sequence: *sequence,
            body: body.clone(),
        });
        Ok(match query.order {
            Order::OldestFirst => found.take(query.limit).collect(),
            Order::NewestFirst => found.rev().take(query.limit).collect(),
        })
    }

    async fn dump(&self) -> Result<Dump, StoreError> {
        let shown = self.state().shown.clone();
        let entries = shown
            .entries
            .into_iter()
            .map(|(key, value)| Piece::Entry(key, value));
        let events = shown.events.into_iter();
        let events =
            events.map(|(sequence, (_, body))| Piece::Event(StoredEvent { sequence, body }));
        Ok(Dump {
            counters: shown.counters,
            pieces: Box::new(All(entries.chain(events).collect())),
        })
    }

    async fn restore(&self, mut dump: Dump, event: Event) -> Result<Committed, StoreError> {
        let mut record = Record {
            revision: dump.counters.revision.0.saturating_add(REVISION_GAP),
            sequence: dump.counters.sequence,
            ..Record::default()
        };
        loop {
            let pieces = dump.pieces.next().await?;
            if pieces.is_empty() {
                break;
            }
            for piece in pieces {
                match piece {
                    Piece::Entry(key, found) => {
                        record
                            .entries
                            .push((key, found.revision.0, Some(found.value)))
                    }
                    Piece::Event(event) => {
                        facts(&event.body)?;
                        record.events.push((event.sequence, event.body));
                    }
                }
            }
        }
        let told = render(record.sequence, &[event])?;
        record.sequence += 1;
        record.events.extend(told);
        let mut state = self.state();
        if state.shown.counters != Counters::default() {
            return Err(StoreError::NotEmpty);
        }
        state.append(record)
    }
}

/// Given out at once: what is in memory fits into memory.
struct All(Vec<Piece>);

#[async_trait]
impl Pieces for All {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        Ok(std::mem::take(&mut self.0))
    }
}
