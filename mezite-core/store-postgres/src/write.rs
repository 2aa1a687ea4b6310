//! Group commit: all commits that wait become one transaction under the lock on the counters. While no other hub writes, the
//! counters are known beforehand, and the whole transaction is one exchange with the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{join3, join5};
use mezite_core::EventId;
use mezite_core::store::{BLOCK, Commit, Key, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

use crate::error::{Meaning, meaning, unavailable};
use crate::plan::{self, Counter, Outcome, Plan, Row};
use crate::session::{self, CHANNEL};
use crate::{Options, Shared};

/// Most commits in one transaction.
const MOST: usize = 1000;

/// A group is not made longer beyond these bytes of keys and values.
const WEIGHT: usize = 16 * 1024 * 1024;

/// For so long a group is tried while the database is away or busy; then its callers hear that it is unavailable.
const PATIENCE: Duration = Duration::from_secs(5);

/// For so long it is tried to find out whether a group was made: longer than the server keeps a transaction whose hub is
/// gone.
const DOUBT: Duration = Duration::from_secs(15);

/// The most that one exchange with the server may take; a dead server that keeps its connections open is found so.
const EXCHANGE: Duration = Duration::from_secs(20);

/// The pause before a second try; it doubles, up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(10);

/// The longest pause between two tries.
const SLOWEST: Duration = Duration::from_millis(500);

/// Most bytes of a notification that the server takes (it says 7,999).
const NOTIFICATION: usize = 7900;

/// A commit and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) commit: Commit,
    pub(crate) answer: oneshot::Sender<Outcome>,
}

/// Why a group was not made, as far as is known.
#[derive(Debug)]
enum Failure {
    /// Not made; another try may do.
    Again(StoreError),
    /// Not made, and it never will be.
    Never(Refusal),
    /// Made or not: the connection was lost at the moment of writing.
    Unknown(Attempt, StoreError),
}

/// Why a group will not be made.
#[derive(Debug)]
struct Refusal {
    error: StoreError,
    /// It may be the fault of one commit that the database does not take.
    of_one: bool,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            of_one: false,
        }
    }
}

/// What would be there if the transaction was made.
#[derive(Debug)]
struct Attempt {
    outcomes: Vec<Outcome>,
    /// Its last event, which nothing in the group can have pruned.
    event: Option<(i64, EventId)>,
    /// The counters after it.
    counter: Counter,
}

/// Serves commits until the store is dropped and the last of them is answered.
pub(crate) async fn run(
    mut jobs: mpsc::UnboundedReceiver<Job>,
    session: Session,
    options: Arc<Options>,
    shared: Arc<Shared>,
) {
    let mut writer = Writer {
        options,
        shared,
        session: Some(session),
    };
    while let Some(group) = take(&mut jobs).await {
        writer.serve(group).await;
    }
}

/// Waits for a commit and takes those that wait behind it.
async fn take(jobs: &mut mpsc::UnboundedReceiver<Job>) -> Option<Vec<Job>> {
    let first = jobs.recv().await?;
    let mut weight = first.commit.bytes();
    let mut group = vec![first];
    while group.len() < MOST && weight < WEIGHT {
        let Ok(next) = jobs.try_recv() else { break };
        weight += next.commit.bytes();
        group.push(next);
    }
    Some(group)
}

struct Writer {
    options: Arc<Options>,
    shared: Arc<Shared>,
    session: Option<Session>,
}

impl Writer {
    /// Makes the commits durable, tells the watchers, then answers everyone.
    async fn serve(&mut self, jobs: Vec<Job>) {
        let (commits, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.commit, job.answer)).unzip();
        let outcomes = self.make(&commits).await;
        for (commit, outcome) in commits.iter().zip(&outcomes) {
            if let Ok(committed) = outcome {
                let keys = commit.changes().iter().map(|change| &change.key);
                self.shared.publish(committed.revision.0, keys);
            }
        }
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have gone away meanwhile; what was made stays made.
            let _ = answer.send(outcome);
        }
    }

    async fn make(&mut self, commits: &[Commit]) -> Vec<Outcome> {
        match self.make_together(commits).await {
            Ok(outcomes) => outcomes,
            Err(refusal) if refusal.of_one && commits.len() > 1 => {
                let mut outcomes = Vec::with_capacity(commits.len());
                for commit in commits {
                    let alone = self.make_together(std::slice::from_ref(commit)).await;
                    outcomes.push(match alone {
                        Ok(mut made) => made.pop().unwrap_or_else(nothing_made),
                        Err(refusal) => Err(refusal.error),
                    });
                }
                outcomes
            }
            Err(refusal) => vec![Err(refusal.error); commits.len()],
        }
    }

    /// Tries until the group is made or refused, or time is up.
    async fn make_together(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>, Refusal> {
        let began = Instant::now();
        let mut pause = FASTEST;
        let mut doubt: Option<(Attempt, StoreError)> = None;
        loop {
            let tried = match doubt.take() {
                None => self.attempt(commits).await,
                Some((attempt, error)) => self.find(attempt, error).await,
            };
            let error = match tried {
                Ok(Some(outcomes)) => return Ok(outcomes),
                // It was looked for and is not there.
                Ok(None) => continue,
                Err(Failure::Never(refusal)) => return Err(refusal),
                Err(Failure::Again(error)) => error,
                Err(Failure::Unknown(attempt, error)) => {
                    doubt = Some((attempt, error.clone()));
                    error
                }
            };
            let patience = if doubt.is_some() { DOUBT } else { PATIENCE };
            if began.elapsed() + pause >= patience {
                return Err(match doubt {
                    None => error.into(),
                    Some(_) => unknown(&error).into(),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    /// One transaction. `Some` in any case; the type is that of [`Writer::find`].
    async fn attempt(&mut self, commits: &[Commit]) -> Result<Option<Vec<Outcome>>, Failure> {
        let shared = Arc::clone(&self.shared);
        let session = self.session().await?;
        let made = session.transaction(commits, &shared).await;
        if !matches!(made, Ok(_) | Err(Failure::Never(_))) {
            // What state it is in is not worth finding out.
            self.session = None;
        }
        made.map(Some)
    }

    /// Whether an attempt was made after all.
    async fn find(
        &mut self,
        attempt: Attempt,
        doubt: StoreError,
    ) -> Result<Option<Vec<Outcome>>, Failure> {
        let looked = match self.session().await {
            Ok(session) => timeout(EXCHANGE, session.find(&attempt)).await,
            Err(_) => return Err(Failure::Unknown(attempt, doubt)),
        };
        match looked {
            Ok(Ok(Some(true))) => Ok(Some(attempt.outcomes)),
            Ok(Ok(Some(false))) => Ok(None),
            Ok(Ok(None)) => Err(Failure::Never(unknown(&doubt).into())),
            Ok(Err(_)) | Err(_) => {
                self.session = None;
                Err(Failure::Unknown(attempt, doubt))
            }
        }
    }

    async fn session(&mut self) -> Result<&mut Session, Failure> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            Some(_) | None => Session::start(&self.options, &self.shared)
                .await
                .map_err(|error| Failure::Again(unavailable(&error)))?,
        };
        Ok(self.session.insert(session))
    }
}

fn unknown(error: &StoreError) -> StoreError {
    StoreError::Unavailable(format!(
        "the connection was lost at the moment of writing, and whether it was written is unknown: {error}"
    ))
}

fn nothing_made() -> Outcome {
    Err(StoreError::Unavailable("nothing was made".into()))
}

/// The connection that writes, with its statements.
pub(crate) struct Session {
    client: Client,
    lock: Statement,
    revisions: Statement,
    prunes: Statement,
    events: Statement,
    puts: Statement,
    removes: Statement,
    advance: Statement,
    /// The counters as this connection's last transaction left them.
    left: Option<Counter>,
    /// Nobody else wrote between the last two transactions, so that the next may count on `left`. Where others are heard of, it
    /// does not: the server logs as an error what fails because of them.
    alone: bool,
}

/// The counters that a transaction continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Read under their lock; the transaction has begun.
    Locked,
    /// As they were left; the transaction has yet to begin.
    Expected,
}

impl Session {
    pub(crate) async fn start(options: &Options, shared: &Shared) -> Result<Self, Error> {
        let client = session::connect(options).await?;
        client.batch_execute(DURABLE).await?;
        client.batch_execute(SETTINGS).await?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?;
        let session = Self {
            lock: client.prepare(LOCK).await?,
            revisions: client.prepare(REVISIONS).await?,
            prunes: client.prepare(PRUNES).await?,
            events: client.prepare(EVENTS).await?,
            puts: client.prepare(PUTS).await?,
            removes: client.prepare(REMOVES).await?,
            advance: client.prepare(ADVANCE).await?,
            left: None,
            alone: false,
            client,
        };
        shared.writer.store(pid.try_get(0)?, Ordering::Relaxed);
        Ok(session)
    }

    async fn transaction(
        &mut self,
        commits: &[Commit],
        shared: &Shared,
    ) -> Result<Vec<Outcome>, Failure> {
        let alone = std::mem::take(&mut self.alone);
        if let Some(counter) = self.left
            && alone
            && !shared.hears_others()
            && plan::expected(commits.iter()).is_empty()
        {
            let plan = plan::plan(counter, BTreeMap::new(), commits.iter());
            if let Some(outcomes) = self.write(plan, counter, Held::Expected).await? {
                self.alone = true;
                return Ok(outcomes);
            }
        }
        let (counter, plan) = match timeout(EXCHANGE, self.lock_and_plan(commits)).await {
            Ok(planned) => planned.map_err(before_commit)?,
            Err(_) => return Err(Failure::Again(silent())),
        };
        self.alone = self.left == Some(counter);
        if plan.writes() {
            let made = self.write(plan, counter, Held::Locked).await?;
            return made.ok_or_else(|| Failure::Again(moved()));
        }
        let rolled_back = timeout(EXCHANGE, self.client.batch_execute("ROLLBACK")).await;
        rolled_back
            .map_err(|_| Failure::Again(silent()))?
            .map_err(before_commit)?;
        self.left = Some(counter);
        Ok(plan.outcomes)
    }

    /// Writes the plan that continues `counter`; `None` when the counters are others by now, and nothing was written.
    async fn write(
        &mut self,
        plan: Plan<'_>,
        counter: Counter,
        held: Held,
    ) -> Result<Option<Vec<Outcome>>, Failure> {
        if !plan.writes() {
            return Ok(Some(plan.outcomes));
        }
        let written = timeout(EXCHANGE, self.write_and_commit(&plan, counter, held)).await;
        let attempt = Attempt {
            event: plan.events.last().map(|row| (row.sequence, row.facts.id)),
            counter: plan.counter,
            outcomes: plan.outcomes,
        };
        match written {
            Ok(Ok(())) => {
                self.left = Some(attempt.counter);
                Ok(Some(attempt.outcomes))
            }
            Ok(Err(Written::Moved)) => Ok(None),
            Ok(Err(Written::Not(error))) => Err(before_commit(error)),
            Ok(Err(Written::Perhaps(error))) => Err(Failure::Unknown(attempt, unavailable(&error))),
            Err(_) => Err(Failure::Unknown(attempt, silent())),
        }
    }

    /// Begins, and waits until no other hub writes.
    async fn lock_and_plan<'a>(&self, commits: &'a [Commit]) -> Result<(Counter, Plan<'a>), Error> {
        let keys = plan::expected(commits.iter());
        let names: Vec<&[u8]> = keys.iter().map(|key| key.as_str().as_bytes()).collect();
        // Sent together, done in this order; each statement sees what was committed before it began.
        let (begun, counter, found) = join3(
            self.client.batch_execute(BEGIN),
            self.client.query_one(&self.lock, &[]),
            self.client.query(&self.revisions, &[&names]),
        )
        .await;
        begun?;
        let counter = counter_of(&counter?)?;
        let mut revisions = BTreeMap::new();
        for row in found? {
            let name: &[u8] = row.try_get(0)?;
            if let Ok(at) = keys.binary_search_by(|key| key.as_str().as_bytes().cmp(name))
                && let Some(key) = keys.get(at)
            {
                revisions.insert(*key, row.try_get(1)?);
            }
        }
        Ok((counter, plan::plan(counter, revisions, commits.iter())))
    }

    /// Writes and commits: sent together. Where a write fails, the server makes a rollback of the commit that follows.
    async fn write_and_commit(
        &self,
        plan: &Plan<'_>,
        before: Counter,
        held: Held,
    ) -> Result<(), Written> {
        let (puts, removes): (Vec<_>, Vec<_>) =
            plan.entries.iter().partition(|(_, value)| value.is_some());
        let put_keys: Vec<&[u8]> = puts
            .iter()
            .map(|(key, _)| key.as_str().as_bytes())
            .collect();
        let values = puts.iter().filter_map(|(_, value)| **value);
        let (put_values, put_revisions): (Vec<&[u8]>, Vec<i64>) = values.unzip();
        let removed: Vec<&[u8]> = removes
            .iter()
            .map(|(key, _)| key.as_str().as_bytes())
            .collect();
        let notification = notification(plan.counter.revision, plan.entries.keys().copied());
        let Counter {
            revision,
            sequence,
            changed,
        } = plan.counter;
        let (lows, highs): (Vec<i64>, Vec<i64>) = plan.pruned.iter().copied().unzip();
        let begin = async {
            match held {
                Held::Locked => Ok(()),
                Held::Expected => self.client.batch_execute(BEGIN).await,
            }
        };
        // Each of these sends one statement when it is first looked at, which is in this order.
        let ((begun, advanced, pruned), events, put, removed, committed) = join5(
            join3(
                begin,
                self.client.query(
                    &self.advance,
                    &[
                        &revision,
                        &sequence,
                        &changed,
                        &CHANNEL,
                        &notification,
                        &before.revision,
                        &before.sequence,
                    ],
                ),
                self.execute(&self.prunes, &[&lows, &highs], lows.len()),
            ),
            append(&self.client, &self.events, &plan.events),
            self.execute(
                &self.puts,
                &[&put_keys, &put_values, &put_revisions],
                puts.len(),
            ),
            self.execute(&self.removes, &[&removed], removes.len()),
            self.client.batch_execute("COMMIT"),
        )
        .await;
        // Whatever was sent behind it may have been done, each statement for itself.
        begun.map_err(Written::Perhaps)?;
        let advanced = match advanced {
            Err(error) if error.code() == Some(&MOVED) => return Err(Written::Moved),
            advanced => advanced.map(drop),
        };
        let written = advanced.and(pruned).and(events).and(put).and(removed);
        match (written, committed) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), _) => Err(Written::before(error)),
            (Ok(()), Err(error)) => Err(Written::at_commit(error)),
        }
    }

    /// One statement, unless there is nothing for it.
    async fn execute(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
        rows: usize,
    ) -> Result<(), Error> {
        if rows > 0 {
            self.client.execute(statement, values).await?;
        }
        Ok(())
    }

    /// Whether the attempt was made; `None` when that cannot be told. One that has not reached the lock by now never will: the
    /// counters that it expects are others then.
    async fn find(&self, attempt: &Attempt) -> Result<Option<bool>, Error> {
        self.client.batch_execute(BEGIN).await?;
        let counter = counter_of(&self.client.query_one(&self.lock, &[]).await?)?;
        let made = match attempt.event {
            Some((sequence, id)) => {
                let found = "SELECT FROM mezite.event WHERE sequence = $1 AND id = $2";
                let id = id.as_bytes().as_slice();
                Some(
                    self.client
                        .query_opt(found, &[&sequence, &id])
                        .await?
                        .is_some(),
                )
            }
            // Without an event there is no name to look for.
            None if counter.revision < attempt.counter.revision => Some(false),
            None => None,
        };
        let end = if made == Some(false) {
            "UPDATE mezite.counter SET revision = revision + 1; COMMIT"
        } else {
            "ROLLBACK"
        };
        self.client.batch_execute(end).await?;
        Ok(made)
    }
}

/// Writes events with what they are searched by: one statement, unless there are none.
pub(crate) async fn append(
    client: &Client,
    statement: &Statement,
    rows: &[Row],
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let text = |of: fn(&Row) -> &Option<String>| -> Vec<Option<&[u8]>> {
        rows.iter()
            .map(|row| of(row).as_ref().map(String::as_bytes))
            .collect()
    };
    let sequences: Vec<i64> = rows.iter().map(|row| row.sequence).collect();
    let ids: Vec<&[u8]> = rows
        .iter()
        .map(|row| row.facts.id.as_bytes().as_slice())
        .collect();
    let types: Vec<&[u8]> = rows
        .iter()
        .map(|row| row.facts.event_type.as_bytes())
        .collect();
    let timestamps: Vec<i64> = rows
        .iter()
        .map(|row| i64::try_from(row.facts.timestamp.as_millis()).unwrap_or(i64::MAX))
        .collect();
    let users = text(|row| &row.facts.user_name);
    let hosts = text(|row| &row.facts.server_hostname);
    let sessions = text(|row| &row.facts.session_id);
    let successes: Vec<Option<bool>> = rows.iter().map(|row| row.facts.success).collect();
    let bodies: Vec<&[u8]> = rows.iter().map(|row| row.body.as_slice()).collect();
    let block = i64::try_from(BLOCK).unwrap_or(i64::MAX);
    let values: [&(dyn ToSql + Sync); 10] = [
        &sequences,
        &ids,
        &types,
        &timestamps,
        &users,
        &hosts,
        &sessions,
        &successes,
        &bodies,
        &block,
    ];
    client.execute(statement, &values).await?;
    Ok(())
}

/// How writing ended, other than well.
enum Written {
    /// Not, because the counters are no longer those that the plan continues.
    Moved,
    Not(Error),
    Perhaps(Error),
}

impl Written {
    /// A statement failed. If the server said so, it will not commit; if the connection ended, it may not have been the
    /// statement's answer alone that was lost.
    fn before(error: Error) -> Self {
        if error.code().is_some() {
            Self::Not(error)
        } else {
            Self::Perhaps(error)
        }
    }

    /// The commit failed. A server that shuts down may have committed already and only stopped waiting for a standby.
    fn at_commit(error: Error) -> Self {
        match meaning(&error) {
            Meaning::Lost => Self::Perhaps(error),
            Meaning::Again | Meaning::Never => Self::Not(error),
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn before_commit(error: Error) -> Failure {
    match meaning(&error) {
        Meaning::Lost | Meaning::Again => Failure::Again(unavailable(&error)),
        Meaning::Never => Failure::Never(Refusal {
            of_one: is_of_data(&error),
            error: unavailable(&error),
        }),
    }
}

/// Data that does not fit, a constraint, a limit of the server: classes 21, 22, 23 and 54.
fn is_of_data(error: &Error) -> bool {
    let class = error.code().and_then(|code| code.code().get(..2));
    matches!(class, Some("21" | "22" | "23" | "54"))
}

fn silent() -> StoreError {
    StoreError::Unavailable(format!(
        "the database gave no answer within {} s",
        EXCHANGE.as_secs()
    ))
}

/// Under the lock, nobody who keeps to it can have moved them.
fn moved() -> StoreError {
    StoreError::Unavailable("the counters were changed past their lock".into())
}

pub(crate) fn counter_of(row: &tokio_postgres::Row) -> Result<Counter, Error> {
    Ok(Counter {
        revision: row.try_get(0)?,
        sequence: row.try_get(1)?,
        changed: row.try_get(2)?,
    })
}

/// The revision, then the keys that changed, each behind a space; a revision and a space alone stand for too many.
fn notification<'a>(revision: i64, keys: impl Iterator<Item = &'a Key>) -> Option<String> {
    let mut text = revision.to_string();
    let digits = text.len();
    for key in keys {
        text.push(' ');
        text.push_str(key.as_str());
        if text.len() > NOTIFICATION {
            text.truncate(digits);
            text.push(' ');
            return Some(text);
        }
    }
    (text.len() > digits).then_some(text)
}

/// What is confirmed must survive a power cut, whatever the database's default is.
pub(crate) const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Bounds make sure that a hub which hangs in a transaction does not
/// keep the others from writing.
const SETTINGS: &str = "
    SET idle_in_transaction_session_timeout = '5s';
    SET lock_timeout = '5s';
    SET statement_timeout = '15s';
";

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

pub(crate) const LOCK: &str = "SELECT revision, sequence, changed FROM mezite.counter FOR UPDATE";

const REVISIONS: &str = "SELECT key, revision FROM mezite.entry WHERE key = ANY($1::bytea[])";

const PRUNES: &str = "
    DELETE FROM mezite.event USING unnest($1::bigint[], $2::bigint[]) AS range (low, high)
    WHERE sequence BETWEEN low AND high";

/// Events, and the times of their blocks.
pub(crate) const EVENTS: &str = "
    WITH row AS (
        SELECT * FROM unnest(
            $1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::boolean[],
            $9::bytea[]) AS row
            (sequence, id, event_type, timestamp, user_name, server_hostname, session_id, success, body)
    ), noted AS (
        INSERT INTO mezite.event_block (block, earliest, latest)
        SELECT sequence / $10::bigint, min(timestamp), max(timestamp) FROM row GROUP BY 1
        ON CONFLICT (block) DO UPDATE SET
            earliest = least(event_block.earliest, excluded.earliest),
            latest = greatest(event_block.latest, excluded.latest)
    )
    INSERT INTO mezite.event
        (sequence, id, event_type, timestamp, user_name, server_hostname, session_id, success, body)
    SELECT * FROM row";

pub(crate) const PUTS: &str = "
    INSERT INTO mezite.entry (key, value, revision) SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[])
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision";

const REMOVES: &str = "DELETE FROM mezite.entry WHERE key = ANY($1::bytea[])";

/// What [`ADVANCE`] fails with when the counters have moved: SQL's one way to fail with words of its own is a cast.
const MOVED: SqlState = SqlState::INVALID_TEXT_REPRESENTATION;

/// Takes the lock, makes sure of the counters, counts on and, if there is anything to tell, tells it when the transaction is
/// made. `count(*)` in the words keeps the planner from casting them before it is their turn.
const ADVANCE: &str = "
    WITH counted AS (
        UPDATE mezite.counter SET revision = $1::bigint, sequence = $2::bigint, changed = $3::bigint
        WHERE revision = $6::bigint AND sequence = $7::bigint RETURNING id
    )
    SELECT CASE
        WHEN count(*) = 0 THEN ('another hub wrote meanwhile, this transaction is made anew; counters: ' || count(*))::integer::text
        WHEN $5::text IS NULL THEN NULL
        ELSE pg_notify($4::text, $5::text)::text
    END FROM counted";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_names_keys_or_stands_for_all() {
        let keys = |count: usize| -> Vec<Key> {
            let names = (0..count).map(|number| format!("user/{number:0100}"));
            names.map(|name| Key::new(name).unwrap()).collect()
        };
        let few = keys(2);
        let text = notification(7, few.iter()).unwrap();
        assert_eq!(text, format!("7 {} {}", few[0], few[1]));
        assert_eq!(notification(7, keys(1000).iter()).unwrap(), "7 ");
        assert_eq!(notification(7, [].iter()), None);
    }
}
