//! Dumps and restores, each on a connection and a thread of its own: nobody else waits for them.

use std::path::Path;

use async_trait::async_trait;
use mezite_core::Event;
use mezite_core::event::{Facts, MAX_BYTES};
use mezite_core::store::{
    Committed, Counters, Dump, Key, LogQuery, Piece, Pieces, REVISION_GAP, Revision, StoreError,
};
use rusqlite::{Connection, params};

use crate::error::from_sqlite;
use crate::worker::Workers;
use crate::write::{self, Counter};
use crate::{ReadJob, ask, log, open, read, schema};

/// How many pieces are read at a time.
const PAGE: usize = 500;

/// Begins a read transaction: what it sees is the database at this moment, until the dump is dropped.
pub(crate) async fn dump(path: &Path) -> Result<Dump, StoreError> {
    let worker = worker("store-dump", open::connect_for_reading(path))?;
    let counter = ask(&worker, |connection| {
        let begin = || {
            connection.execute_batch("BEGIN")?;
            Counter::load(connection)
        };
        begin().map_err(|error| from_sqlite(&error))
    })
    .await?;
    let committed = counter.committed();
    Ok(Dump {
        counters: Counters {
            revision: committed.revision,
            sequence: committed.sequence,
        },
        pieces: Box::new(Reading {
            worker,
            at: Place::Entries(None),
        }),
    })
}

struct Reading {
    worker: Workers<ReadJob>,
    at: Place,
}

#[derive(Clone)]
enum Place {
    Entries(Option<Key>),
    Events(u64),
}

#[async_trait]
impl Pieces for Reading {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        let at = self.at.clone();
        let (at, pieces) = ask(&self.worker, move |connection| page(connection, at)).await?;
        self.at = at;
        Ok(pieces)
    }
}

fn page(connection: &Connection, at: Place) -> Result<(Place, Vec<Piece>), StoreError> {
    let after = match at {
        Place::Entries(after) => {
            let found = read::list(connection, "", after.as_ref(), PAGE)?;
            if let Some((last, _)) = found.last() {
                let at = Place::Entries(Some(last.clone()));
                let entries = found
                    .into_iter()
                    .map(|(key, value)| Piece::Entry(key, value));
                return Ok((at, entries.collect()));
            }
            0
        }
        Place::Events(after) => after,
    };
    let found = log::find(connection, &LogQuery::after(after, PAGE))?;
    let last = found.last().map_or(after, |event| event.sequence);
    let events = found.into_iter().map(Piece::Event).collect();
    Ok((Place::Events(last), events))
}

/// One transaction from the first piece to the event that tells of it: broken off, it never was.
pub(crate) async fn restore(
    path: &Path,
    mut dump: Dump,
    event: Event,
) -> Result<Committed, StoreError> {
    let worker = worker("store-restore", open::connect(path))?;
    let indexes = ask(&worker, begin).await?;
    loop {
        let pieces = dump.pieces.next().await?;
        if pieces.is_empty() {
            break;
        }
        ask(&worker, move |connection| fill(connection, &pieces)).await?;
    }
    let counters = dump.counters;
    ask(&worker, move |connection| {
        finish(connection, counters, &event, &indexes)
    })
    .await
}

/// Gives the statements that make the indexes again.
fn begin(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let look = || {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Counter::load(connection)
    };
    let counter = look().map_err(|error| from_sqlite(&error))?;
    if counter.revision == 0 && counter.sequence == 0 {
        return schema::drop_indexes(connection).map_err(|error| from_sqlite(&error));
    }
    Err(StoreError::NotEmpty)
}

fn fill(connection: &Connection, pieces: &[Piece]) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| from_sqlite(&error);
    let mut first = None;
    for piece in pieces {
        match piece {
            Piece::Entry(key, versioned) => {
                connection
                    .prepare_cached("INSERT INTO entry (key, value, revision) VALUES (?1, ?2, ?3)")
                    .and_then(|mut insert| {
                        insert.execute(params![
                            key.as_str(),
                            versioned.value,
                            number(versioned.revision.0)
                        ])
                    })
                    .map_err(failed)?;
            }
            Piece::Event(event) => {
                let facts = Facts::parse(&event.body).map_err(StoreError::Corrupt)?;
                write::insert(connection, number(event.sequence), &facts, &event.body)
                    .map_err(failed)?;
                first.get_or_insert_with(|| number(event.sequence));
            }
        }
    }
    match first {
        Some(first) => write::note_times(connection, first.saturating_sub(1)).map_err(failed),
        None => Ok(()),
    }
}

fn finish(
    connection: &Connection,
    counters: Counters,
    event: &Event,
    indexes: &[String],
) -> Result<Committed, StoreError> {
    let Revision(revision) = counters.revision;
    let sequence = counters.sequence + 1;
    let body = event.render(sequence);
    if body.len() > MAX_BYTES {
        return Err(StoreError::EventTooLong(body.len()));
    }
    let counter = Counter {
        revision: number(revision.saturating_add(REVISION_GAP)),
        sequence: number(sequence),
    };
    let commit = || {
        write::insert(connection, counter.sequence, &Facts::from(event), &body)?;
        write::note_times(connection, counter.sequence - 1)?;
        counter.store(connection)?;
        for index in indexes {
            connection.execute_batch(index)?;
        }
        connection.execute_batch("COMMIT")
    };
    commit().map_err(|error| from_sqlite(&error))?;
    Ok(counter.committed())
}

fn worker(
    name: &str,
    connection: Result<Connection, crate::OpenError>,
) -> Result<Workers<ReadJob>, StoreError> {
    let unavailable = |error: &dyn std::fmt::Display| StoreError::Unavailable(error.to_string());
    let connection = connection.map_err(|error| unavailable(&error))?;
    Workers::start(name, vec![connection], crate::do_jobs).map_err(|error| unavailable(&error))
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
