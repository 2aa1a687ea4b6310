//! Questions to the database, each on a connection of the pool. What the log is asked stands in `log`.

use std::time::Duration;

use deadpool_postgres::{
    HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use mezite_core::store::{Key, LogQuery, Revision, Run, StoreError, StoredEvent, Versioned, runs};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::error::{Meaning, meaning, unavailable};
use crate::{OpenError, Options, log};

/// Connections that read at the same time; further questions wait.
const CONNECTIONS: usize = 8;

/// The most that a question waits for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// For so long a question is asked again while the database is away.
const PATIENCE: Duration = Duration::from_secs(3);

/// The pause before a question is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// A reading connection can do no harm, and a question that takes longer than a minute is given up. Each has an index whose
/// order is the wanted one, so the planner is kept from reading more than the first rows of it, whatever its statistics say.
pub(crate) const SETTINGS: &str = "
    SET default_transaction_read_only = on;
    SET statement_timeout = '60s';
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET jit = off;
";

pub(crate) type Values = Vec<Box<dyn ToSql + Sync + Send>>;

/// The connections that read.
#[derive(Debug)]
pub(crate) struct Readers(Pool);

impl Readers {
    /// No connection is made before it is needed.
    pub(crate) fn new(options: &Options) -> Result<Self, OpenError> {
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(options.config.clone(), options.tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(WAIT),
                create: Some(WAIT),
                recycle: Some(WAIT),
            })
            .post_create(deadpool_postgres::Hook::async_fn(|client, _| {
                Box::pin(async move {
                    let set = client.batch_execute(SETTINGS).await;
                    set.map_err(HookError::Backend)
                })
            }))
            .build();
        let pool = pool.map_err(|error| OpenError::Options(error.to_string()))?;
        Ok(Self(pool))
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let sql = "SELECT key, value, revision FROM mezite.entry WHERE key = $1";
        let rows = self.ask(sql, &vec![bytes(key.as_str())]).await?;
        rows.first().map(|row| Ok(entry(row)?.1)).transpose()
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let (sql, values) = list_sql(prefix, after, limit);
        let found = self.ask(&sql, &values).await?;
        found.iter().map(entry).collect()
    }

    pub(crate) async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let runs = match log::blocks(query) {
            None => vec![Run::all(query)],
            Some((sql, values)) => {
                let found = self.ask(&sql, &values).await?;
                let blocks = found
                    .iter()
                    .map(log::block)
                    .collect::<Result<Vec<_>, _>>()?;
                runs(query, blocks)
            }
        };
        let mut found = Vec::new();
        for run in runs {
            let missing = query.limit.saturating_sub(found.len());
            if missing == 0 {
                break;
            }
            let (sql, values) = log::sql(query, run, missing);
            let rows = self.ask(&sql, &values).await?;
            for row in &rows {
                found.push(stored(row)?);
            }
        }
        Ok(found)
    }

    /// Asks, and asks again if the connection is lost: a question may be asked twice.
    async fn ask(&self, sql: &str, values: &Values) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match self.ask_once(sql, values).await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let (again, error) = match &error {
                PoolError::Backend(error)
                | PoolError::PostCreateHook(HookError::Backend(error)) => {
                    (meaning(error) != Meaning::Never, unavailable(error))
                }
                PoolError::Timeout(_)
                | PoolError::Closed
                | PoolError::NoRuntimeSpecified
                | PoolError::PostCreateHook(HookError::Message(_)) => {
                    (false, StoreError::Unavailable(error.to_string()))
                }
            };
            if !again || Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_once(&self, sql: &str, values: &Values) -> Result<Vec<Row>, PoolError> {
        let client = self.0.get().await?;
        let asked = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, &borrowed(values)).await
        };
        match asked.await {
            Ok(rows) => Ok(rows),
            Err(error) => {
                if meaning(&error) == Meaning::Lost {
                    // Not to be handed out again: it may not know yet that it is closed.
                    drop(Object::take(client));
                }
                Err(error.into())
            }
        }
    }
}

/// Values as the client takes them.
pub(crate) fn borrowed(values: &Values) -> Vec<&(dyn ToSql + Sync)> {
    let values = values.iter();
    values
        .map(|value| -> &(dyn ToSql + Sync) { &**value })
        .collect()
}

pub(crate) fn list_sql(prefix: &str, after: Option<&Key>, limit: usize) -> (String, Values) {
    let mut sql =
        String::from("SELECT key, value, revision FROM mezite.entry WHERE key >= $1 AND key < $2");
    let mut values = vec![bytes(prefix), end_of(prefix), rows(limit)];
    if let Some(after) = after {
        sql.push_str(" AND key > $4");
        values.push(bytes(after.as_str()));
    }
    sql.push_str(" ORDER BY key LIMIT $3");
    (sql, values)
}

pub(crate) fn entry(row: &Row) -> Result<(Key, Versioned), StoreError> {
    let name: &[u8] = row.try_get(0).map_err(|error| unreadable(&error))?;
    let value = row.try_get(1).map_err(|error| unreadable(&error))?;
    let corrupt = |why: &dyn std::fmt::Display| StoreError::Corrupt(why.to_string());
    let name = std::str::from_utf8(name).map_err(|error| corrupt(&error))?;
    let key = Key::new(name).map_err(|error| corrupt(&error))?;
    let revision = Revision(number(row, 2)?);
    Ok((key, Versioned { value, revision }))
}

pub(crate) fn stored(row: &Row) -> Result<StoredEvent, StoreError> {
    let sequence = number(row, 0)?;
    let body = row.try_get(1).map_err(|error| unreadable(&error))?;
    Ok(StoredEvent { sequence, body })
}

pub(crate) fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(|error| unreadable(&error))?;
    u64::try_from(number)
        .map_err(|_| StoreError::Corrupt(format!("the number {number} is negative")))
}

pub(crate) fn unreadable(error: &Error) -> StoreError {
    StoreError::Corrupt(crate::error::words(error))
}

pub(crate) fn bytes(text: &str) -> Box<dyn ToSql + Sync + Send> {
    Box::new(text.as_bytes().to_vec())
}

/// Above every text of UTF-8 that starts with `prefix`, in byte order.
pub(crate) fn end_of(prefix: &str) -> Box<dyn ToSql + Sync + Send> {
    Box::new([prefix.as_bytes(), &[0xff]].concat())
}

pub(crate) fn integer(number: u64) -> Box<dyn ToSql + Sync + Send> {
    Box::new(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(crate) fn rows(limit: usize) -> Box<dyn ToSql + Sync + Send> {
    Box::new(i64::try_from(limit).unwrap_or(i64::MAX))
}
