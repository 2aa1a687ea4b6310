//! Group commit: all commits that wait become one transaction, each of several statements in a savepoint of its own.

use std::ops::RangeInclusive;

use futures_channel::oneshot;
use mezite_core::Event;
use mezite_core::event::{Facts, MAX_BYTES};
use mezite_core::store::{
    BLOCK, Change, Commit, Committed, Expect, Feed, Key, Revision, StoreError,
};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::error::from_sqlite;

/// A commit and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) commit: Commit,
    pub(crate) answer: oneshot::Sender<Outcome>,
}

type Outcome = Result<Committed, StoreError>;

/// Why one commit of the group is not made.
enum Failure {
    /// It alone: its neighbours go on.
    Refused(StoreError),
    /// The database fails: nothing of the group is made.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::TooBig) {
            Self::Refused(from_sqlite(&error))
        } else {
            Self::Database(error)
        }
    }
}

/// Makes the commits durable, tells the watchers, then answers everyone.
pub(crate) fn group(connection: &mut Connection, feed: &Feed, jobs: Vec<Job>) {
    let outcomes = match make_all(connection, &jobs) {
        Ok(outcomes) => outcomes,
        // Also those that would have been refused: what they met may not have been made either.
        Err(error) => vec![Err(from_sqlite(&error)); jobs.len()],
    };
    for (job, outcome) in jobs.iter().zip(&outcomes) {
        if let Ok(committed) = outcome {
            let keys = job.commit.changes().iter().map(|change| &change.key);
            feed.publish(committed.revision, keys);
        }
    }
    for (job, outcome) in jobs.into_iter().zip(outcomes) {
        // Whoever asked may have gone away meanwhile; what was made stays made.
        let _ = job.answer.send(outcome);
    }
}

fn make_all(connection: &mut Connection, jobs: &[Job]) -> Result<Vec<Outcome>, rusqlite::Error> {
    // Dropped before its end, a transaction rolls back.
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut counter = Counter::load(&transaction)?;
    let before = counter.sequence;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        match make_one(&mut transaction, counter, &job.commit) {
            Ok(next) => {
                counter = next;
                outcomes.push(Ok(counter.committed()));
            }
            Err(Failure::Refused(error)) => outcomes.push(Err(error)),
            Err(Failure::Database(error)) => return Err(error),
        }
    }
    counter.store(&transaction)?;
    if counter.sequence > before {
        note_times(&transaction, before)?;
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn make_one(
    transaction: &mut Transaction<'_>,
    counter: Counter,
    commit: &Commit,
) -> Result<Counter, Failure> {
    commit.check_size().map_err(Failure::Refused)?;
    let statements = commit.events().len() + commit.changes().len() + commit.pruned().len();
    if statements <= 1 {
        // A single statement is made whole or not at all by itself.
        return write(transaction, counter, commit);
    }
    // Dropped before its end, a savepoint rolls back.
    let savepoint = transaction.savepoint()?;
    let next = write(&savepoint, counter, commit)?;
    savepoint.commit()?;
    Ok(next)
}

fn write(connection: &Connection, counter: Counter, commit: &Commit) -> Result<Counter, Failure> {
    for change in commit.changes() {
        check(connection, change)?;
    }
    let mut next = Counter {
        revision: counter.revision + 1,
        ..counter
    };
    for range in commit.pruned() {
        prune(connection, range)?;
    }
    for event in commit.events() {
        next.sequence += 1;
        append(connection, next.sequence, event)?;
    }
    for change in commit.changes() {
        let value = change.value.as_deref();
        apply(connection, next.revision, &change.key, value)?;
    }
    Ok(next)
}

fn check(connection: &Connection, change: &Change) -> Result<(), Failure> {
    if change.expect == Expect::Any {
        return Ok(());
    }
    let found: Option<i64> = connection
        .prepare_cached("SELECT revision FROM entry WHERE key = ?1")?
        .query_row([change.key.as_str()], |row| row.get(0))
        .optional()?;
    let holds = match (change.expect, found) {
        (Expect::Any, _) | (Expect::Absent, None) => true,
        (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
        (Expect::Revision(Revision(wanted)), Some(found)) => u64::try_from(found) == Ok(wanted),
    };
    if holds {
        Ok(())
    } else {
        Err(Failure::Refused(StoreError::Conflict(change.key.clone())))
    }
}

fn append(connection: &Connection, sequence: i64, event: &Event) -> Result<(), Failure> {
    let body = event.render(sequence.unsigned_abs());
    if body.len() > MAX_BYTES {
        return Err(Failure::Refused(StoreError::EventTooLong(body.len())));
    }
    insert(connection, sequence, &Facts::from(event), &body)?;
    Ok(())
}

/// Writes an event with what it is searched by.
pub(crate) fn insert(
    connection: &Connection,
    sequence: i64,
    facts: &Facts,
    body: &[u8],
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO event (sequence, id, event_type, timestamp, user_name, server_hostname, session_id, success, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            sequence,
            facts.id.to_string(),
            facts.event_type,
            i64::try_from(facts.timestamp.as_millis()).unwrap_or(i64::MAX),
            facts.user_name,
            facts.server_hostname,
            facts.session_id,
            facts.success,
            body,
        ])?;
    Ok(())
}

/// Widens the times of blocks by those of the events above `after`.
pub(crate) fn note_times(connection: &Connection, after: i64) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO event_block (block, earliest, latest)
             SELECT sequence / ?1, min(timestamp), max(timestamp) FROM event WHERE sequence > ?2 GROUP BY sequence / ?1
             ON CONFLICT (block) DO UPDATE SET
                 earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)",
        )?
        .execute(params![i64::try_from(BLOCK).unwrap_or(i64::MAX), after])?;
    Ok(())
}

fn prune(connection: &Connection, range: &RangeInclusive<u64>) -> Result<(), rusqlite::Error> {
    let bound = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
    connection
        .prepare_cached("DELETE FROM event WHERE sequence BETWEEN ?1 AND ?2")?
        .execute([bound(*range.start()), bound(*range.end())])?;
    Ok(())
}

fn apply(
    connection: &Connection,
    revision: i64,
    key: &Key,
    value: Option<&[u8]>,
) -> Result<(), rusqlite::Error> {
    match value {
        Some(value) => connection
            .prepare_cached(
                "INSERT INTO entry (key, value, revision) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
            )?
            .execute(params![key.as_str(), value, revision])?,
        None => connection
            .prepare_cached("DELETE FROM entry WHERE key = ?1")?
            .execute([key.as_str()])?,
    };
    Ok(())
}

/// The numbers that the next commit continues. SQLite's integers have a sign; these never reach it.
#[derive(Clone, Copy)]
pub(crate) struct Counter {
    pub(crate) revision: i64,
    pub(crate) sequence: i64,
}

impl Counter {
    pub(crate) fn load(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection
            .prepare_cached("SELECT revision, sequence FROM counter")?
            .query_row([], |row| {
                Ok(Self {
                    revision: row.get(0)?,
                    sequence: row.get(1)?,
                })
            })
    }

    pub(crate) fn store(self, connection: &Connection) -> Result<(), rusqlite::Error> {
        connection
            .prepare_cached("UPDATE counter SET revision = ?1, sequence = ?2")?
            .execute([self.revision, self.sequence])?;
        Ok(())
    }

    pub(crate) fn committed(self) -> Committed {
        Committed {
            revision: Revision(self.revision.unsigned_abs()),
            sequence: self.sequence.unsigned_abs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mezite_core::UnixTime;

    use super::*;
    use crate::schema;

    fn job(
        number: u8,
        key: &str,
        expect: Expect,
        bytes: usize,
    ) -> (Job, oneshot::Receiver<Outcome>) {
        let event = Event::new(
            "test.event",
            "MZ0000",
            UnixTime::from_secs(u64::from(number)),
            [[number; 16]; 2],
        );
        let (answer, answered) = oneshot::channel();
        let commit = Commit::new(event).put(Key::new(key).unwrap(), expect, vec![number; bytes]);
        (Job { commit, answer }, answered)
    }

    fn run(
        connection: &mut Connection,
        jobs: Vec<(Job, oneshot::Receiver<Outcome>)>,
    ) -> Vec<Outcome> {
        let (jobs, answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        group(connection, &Feed::default(), jobs);
        answers
            .into_iter()
            .map(|mut answer| answer.try_recv().unwrap().unwrap())
            .collect()
    }

    fn database() -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(directory.path().join("db")).unwrap();
        schema::prepare(&mut connection, Path::new("db")).unwrap();
        (directory, connection)
    }

    #[test]
    fn a_conflict_does_not_touch_its_neighbours() {
        let (_directory, mut connection) = database();
        let jobs = vec![
            job(1, "a", Expect::Absent, 1),
            job(2, "a", Expect::Absent, 1),
            job(3, "b", Expect::Absent, 1),
        ];
        let outcomes = run(&mut connection, jobs);
        assert_eq!(outcomes[0].as_ref().unwrap().sequence, 1);
        assert_eq!(
            outcomes[1],
            Err(StoreError::Conflict(Key::new("a").unwrap()))
        );
        assert_eq!(
            outcomes[2].as_ref().unwrap().sequence,
            2,
            "no number was used up"
        );
        let bodies: i64 = connection
            .query_row("SELECT count(*) FROM event", [], |row| row.get(0))
            .unwrap();
        assert_eq!(bodies, 2);
    }

    #[test]
    fn attack_54_a_full_disk_refuses_the_whole_group_and_leaves_nothing_half_done() {
        let (_directory, mut connection) = database();
        run(&mut connection, vec![job(1, "a", Expect::Absent, 1)]);
        let pages: i64 = connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        connection
            .query_row(
                &format!("PRAGMA max_page_count = {}", pages + 2),
                [],
                |_| Ok(()),
            )
            .unwrap();
        let jobs = vec![
            job(2, "b", Expect::Absent, 1),
            job(3, "a", Expect::Absent, 1),
            job(4, "c", Expect::Absent, 100_000),
            job(5, "d", Expect::Absent, 1),
        ];
        for outcome in run(&mut connection, jobs) {
            assert!(
                matches!(outcome, Err(StoreError::Unavailable(_))),
                "{outcome:?}"
            );
        }
        connection
            .query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))
            .unwrap();
        let outcomes = run(&mut connection, vec![job(6, "b", Expect::Absent, 100_000)]);
        assert_eq!(
            outcomes[0].as_ref().unwrap().sequence,
            2,
            "gap-free afterwards"
        );
    }

    #[test]
    fn attack_75_a_value_beyond_sqlites_limit_is_refused_alone() {
        let (_directory, mut connection) = database();
        connection
            .set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, 1_000_000)
            .unwrap();
        let jobs = vec![
            job(1, "a", Expect::Absent, 2_000_000),
            job(2, "b", Expect::Absent, 1),
        ];
        let outcomes = run(&mut connection, jobs);
        assert!(matches!(outcomes[0], Err(StoreError::Unavailable(_))));
        assert_eq!(outcomes[1].as_ref().unwrap().sequence, 1);
    }
}
