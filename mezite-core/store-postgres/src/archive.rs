//! Dumps and restores, each on a connection and in a transaction of its own: nobody else waits for them.

use async_trait::async_trait;
use mezite_core::Event;
use mezite_core::event::Facts;
use mezite_core::store::{
    Committed, Counters, Dump, Key, LogQuery, Piece, Pieces, REVISION_GAP, Revision, Run,
    StoreError, Versioned,
};
use tokio_postgres::{Client, Error};

use crate::error::unavailable;
use crate::plan::{Counter, Row};
use crate::read::{borrowed, entry, list_sql, stored};
use crate::write::{DURABLE, EVENTS, LOCK, PUTS, append, counter_of};
use crate::{Options, log, session};

/// How many pieces are read at a time.
const PAGE: usize = 500;

const COUNTERS: &str = "SELECT revision, sequence, changed FROM mezite.counter";

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn failed(error: Error) -> StoreError {
    unavailable(&error)
}

/// Begins a read transaction: what it sees is the database at this moment, until the dump is dropped.
pub(crate) async fn dump(options: &Options) -> Result<Dump, StoreError> {
    let begin = async {
        let client = session::connect(options).await?;
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let counter = counter_of(&client.query_one(COUNTERS, &[]).await?)?;
        Ok((client, counter))
    };
    let (client, counter) = begin.await.map_err(failed)?;
    Ok(Dump {
        counters: Counters {
            revision: Revision(counter.revision.unsigned_abs()),
            sequence: counter.sequence.unsigned_abs(),
        },
        pieces: Box::new(Reading {
            client,
            at: Place::Entries(None),
        }),
    })
}

struct Reading {
    client: Client,
    at: Place,
}

enum Place {
    Entries(Option<Key>),
    Events(u64),
}

#[async_trait]
impl Pieces for Reading {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        if let Place::Entries(after) = &self.at {
            let (sql, values) = list_sql("", after.as_ref(), PAGE);
            let rows = self
                .client
                .query(&sql, &borrowed(&values))
                .await
                .map_err(failed)?;
            let found = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
            match found.last() {
                None => self.at = Place::Events(0),
                Some((last, _)) => {
                    self.at = Place::Entries(Some(last.clone()));
                    let entries = found.into_iter();
                    return Ok(entries
                        .map(|(key, value)| Piece::Entry(key, value))
                        .collect());
                }
            }
        }
        let Place::Events(after) = self.at else {
            return Ok(Vec::new());
        };
        let query = LogQuery::after(after, PAGE);
        let (sql, values) = log::sql(&query, Run::all(&query), PAGE);
        let rows = self
            .client
            .query(&sql, &borrowed(&values))
            .await
            .map_err(failed)?;
        let found = rows.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = found.last() {
            self.at = Place::Events(last.sequence);
        }
        Ok(found.into_iter().map(Piece::Event).collect())
    }
}

/// One transaction from the first piece to the event that tells of it: broken off, it never was.
pub(crate) async fn restore(
    options: &Options,
    mut dump: Dump,
    event: Event,
) -> Result<Committed, StoreError> {
    let client = session::connect(options).await.map_err(failed)?;
    begin(&client).await?;
    loop {
        let pieces = dump.pieces.next().await?;
        if pieces.is_empty() {
            break;
        }
        fill(&client, pieces).await?;
    }
    finish(&client, dump.counters, &event).await
}

async fn begin(client: &Client) -> Result<(), StoreError> {
    let look = async {
        client.batch_execute(DURABLE).await?;
        client
            .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await?;
        counter_of(&client.query_one(LOCK, &[]).await?)
    };
    match look.await.map_err(failed)? {
        counter if counter == Counter::default() => Ok(()),
        _ => Err(StoreError::NotEmpty),
    }
}

async fn fill(client: &Client, pieces: Vec<Piece>) -> Result<(), StoreError> {
    let mut entries: Vec<(Key, Versioned)> = Vec::new();
    let mut rows = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Entry(key, versioned) => entries.push((key, versioned)),
            Piece::Event(event) => rows.push(Row {
                sequence: number(event.sequence),
                facts: Facts::parse(&event.body).map_err(StoreError::Corrupt)?,
                body: event.body,
            }),
        }
    }
    let keys: Vec<&[u8]> = entries
        .iter()
        .map(|(key, _)| key.as_str().as_bytes())
        .collect();
    let values: Vec<&[u8]> = entries
        .iter()
        .map(|(_, found)| found.value.as_slice())
        .collect();
    let revisions: Vec<i64> = entries
        .iter()
        .map(|(_, found)| number(found.revision.0))
        .collect();
    let write = async {
        client.execute(PUTS, &[&keys, &values, &revisions]).await?;
        append(client, &client.prepare(EVENTS).await?, &rows).await
    };
    write.await.map_err(failed)
}

async fn finish(
    client: &Client,
    counters: Counters,
    event: &Event,
) -> Result<Committed, StoreError> {
    let revision = counters.revision.0.saturating_add(REVISION_GAP);
    let sequence = counters.sequence.saturating_add(1);
    let row = Row::new(number(sequence), event)?;
    let commit = async {
        append(client, &client.prepare(EVENTS).await?, &[row]).await?;
        let count = "UPDATE mezite.counter SET revision = $1, changed = $1, sequence = $2";
        client
            .execute(count, &[&number(revision), &number(sequence)])
            .await?;
        client.batch_execute("COMMIT").await
    };
    commit.await.map_err(failed)?;
    let revision = Revision(revision);
    Ok(Committed { revision, sequence })
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
