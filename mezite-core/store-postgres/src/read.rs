//! Questions to the database, each on a connection of the pool.

use std::time::Duration;

use deadpool_postgres::{
    HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use mezite_core::store::{Key, LogQuery, Order, Revision, StoreError, StoredEvent, Versioned};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::error::{Meaning, meaning, unavailable};
use crate::schema::INDEXED;
use crate::{OpenError, Options};

/// Connections that read at the same time; further questions wait.
const CONNECTIONS: usize = 8;

/// The most that a question waits for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// For so long a question is asked again while the database is away.
const PATIENCE: Duration = Duration::from_secs(3);

/// The pause before a question is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// A reading connection can do no harm, and a question that takes longer than a minute is given up.
const SETTINGS: &str = "SET default_transaction_read_only = on; SET statement_timeout = '60s'";

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
        let mut sql = String::from(
            "SELECT key, value, revision FROM mezite.entry WHERE key >= $1 AND key < $2",
        );
        let mut values = vec![bytes(prefix), end_of(prefix), rows(limit)];
        if let Some(after) = after {
            sql.push_str(" AND key > $4");
            values.push(bytes(after.as_str()));
        }
        sql.push_str(" ORDER BY key LIMIT $3");
        let found = self.ask(&sql, &values).await?;
        found.iter().map(entry).collect()
    }

    pub(crate) async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let (sql, values) = log_sql(query);
        let found = self.ask(&sql, &values).await?;
        let stored = |row: &Row| {
            let sequence = number(row, 0)?;
            let body = row.try_get(1).map_err(|error| unreadable(&error))?;
            Ok(StoredEvent { sequence, body })
        };
        found.iter().map(stored).collect()
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

/// The statement for a query, and its values. Its text holds none of them.
pub(crate) fn log_sql(query: &LogQuery) -> (String, Values) {
    let mut sql = String::from("SELECT sequence, body FROM mezite.event WHERE sequence > $1");
    let mut values: Values = vec![integer(query.after)];
    let mut and = |condition: &str, value: Option<Box<dyn ToSql + Sync + Send>>| {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(" AND ");
            sql.push_str(&condition.replace('?', &format!("${}", values.len())));
        }
    };
    and("sequence < ?", query.before.map(integer));
    let id = query
        .id
        .map(|id| -> Box<dyn ToSql + Sync + Send> { Box::new(id.as_bytes().to_vec()) });
    and("id = ?", id);
    match &query.event_type {
        Some(prefix) if prefix.ends_with('.') => {
            and("event_type >= ?", Some(bytes(prefix)));
            and("event_type < ?", Some(end_of(prefix)));
        }
        exact => and("event_type = ?", exact.as_deref().map(bytes)),
    }
    // The index holds the beginning; all of it decides.
    for (name, wanted) in [
        ("user_name", &query.user_name),
        ("server_hostname", &query.server_hostname),
        ("session_id", &query.session_id),
    ] {
        let wanted = wanted.as_deref();
        let beginning = format!(
            "substring({name} FROM 1 FOR {INDEXED}) = substring(?::bytea FROM 1 FOR {INDEXED})"
        );
        and(&beginning, wanted.map(bytes));
        and(&format!("{name} = ?"), wanted.map(bytes));
    }
    match query.success {
        Some(true) => and("success AND ?", Some(Box::new(true))),
        Some(false) => and("NOT success AND ?", Some(Box::new(true))),
        None => {}
    }
    and(
        "timestamp >= ?",
        query.since.map(|time| integer(time.as_millis())),
    );
    and(
        "timestamp < ?",
        query.until.map(|time| integer(time.as_millis())),
    );
    values.push(rows(query.limit));
    let order = match query.order {
        Order::OldestFirst => "ORDER BY sequence",
        Order::NewestFirst => "ORDER BY sequence DESC",
    };
    sql.push_str(&format!(" {order} LIMIT ${}", values.len()));
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

fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(|error| unreadable(&error))?;
    u64::try_from(number)
        .map_err(|_| StoreError::Corrupt(format!("the number {number} is negative")))
}

fn unreadable(error: &Error) -> StoreError {
    StoreError::Corrupt(crate::error::words(error))
}

fn bytes(text: &str) -> Box<dyn ToSql + Sync + Send> {
    Box::new(text.as_bytes().to_vec())
}

/// Above every text of UTF-8 that starts with `prefix`, in byte order.
fn end_of(prefix: &str) -> Box<dyn ToSql + Sync + Send> {
    Box::new([prefix.as_bytes(), &[0xff]].concat())
}

fn integer(number: u64) -> Box<dyn ToSql + Sync + Send> {
    Box::new(i64::try_from(number).unwrap_or(i64::MAX))
}

fn rows(limit: usize) -> Box<dyn ToSql + Sync + Send> {
    Box::new(i64::try_from(limit).unwrap_or(i64::MAX))
}
