//! Questions to the database.

use mezite_core::store::{Key, LogQuery, Order, Revision, StoreError, StoredEvent, Versioned};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::error::from_sqlite;

pub(crate) fn get(connection: &Connection, key: &Key) -> Result<Option<Versioned>, StoreError> {
    let read = || {
        connection
            .prepare_cached("SELECT key, value, revision FROM entry WHERE key = ?1")?
            .query_row([key.as_str()], entry)
            .optional()
    };
    let found = read().map_err(|error| from_sqlite(&error))?;
    found
        .map(|(_, value, revision)| versioned(value, revision))
        .transpose()
}

pub(crate) fn list(
    connection: &Connection,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<(Key, Versioned)>, StoreError> {
    let after = after.map_or("", Key::as_str);
    let (lower, sql) = if after < prefix {
        (
            prefix,
            "SELECT key, value, revision FROM entry WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3",
        )
    } else {
        (
            after,
            "SELECT key, value, revision FROM entry WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3",
        )
    };
    let read = || {
        connection
            .prepare_cached(sql)?
            .query_map(params![lower, end_of(prefix), rows(limit)], entry)?
            .collect::<Result<Vec<_>, _>>()
    };
    let found = read().map_err(|error| from_sqlite(&error))?;
    let parse = |(key, value, revision): (String, Vec<u8>, i64)| {
        let key = Key::new(key).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok((key, versioned(value, revision)?))
    };
    found.into_iter().map(parse).collect()
}

pub(crate) fn log(
    connection: &Connection,
    query: &LogQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let prefix = query
        .event_type
        .as_deref()
        .filter(|wanted| wanted.ends_with('.'));
    match prefix {
        Some(prefix) if !is_narrow(query) => log_of_types(connection, prefix, query),
        _ => log_by_one_statement(connection, query),
    }
}

/// Whether a filter other than the type finds few events by its own index.
fn is_narrow(query: &LogQuery) -> bool {
    query.id.is_some()
        || query.user_name.is_some()
        || query.server_hostname.is_some()
        || query.session_id.is_some()
}

/// A prefix is a handful of types. Each is read in the order of its index, so that neither a rare type among millions
/// of others nor a common one costs more than what is wanted of it.
fn log_of_types(
    connection: &Connection,
    prefix: &str,
    query: &LogQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut found = Vec::new();
    for event_type in types(connection, prefix)? {
        let exact = LogQuery {
            event_type: Some(event_type),
            ..query.clone()
        };
        found.extend(log_by_one_statement(connection, &exact)?);
    }
    found.sort_unstable_by_key(|event| event.sequence);
    if query.order == Order::NewestFirst {
        found.reverse();
    }
    found.truncate(query.limit);
    Ok(found)
}

/// The types that start with `prefix`, one step in the index for each.
fn types(connection: &Connection, prefix: &str) -> Result<Vec<String>, StoreError> {
    let read = || {
        connection
            .prepare_cached(
                "WITH RECURSIVE type (name) AS (
                     SELECT min(event_type) FROM event WHERE event_type >= ?1 AND event_type < ?2
                     UNION ALL
                     SELECT (SELECT min(event_type) FROM event WHERE event_type > name AND event_type < ?2)
                     FROM type WHERE name IS NOT NULL
                 )
                 SELECT name FROM type WHERE name IS NOT NULL",
            )?
            .query_map([prefix, &end_of(prefix)], |row| row.get(0))?
            .collect::<Result<Vec<_>, _>>()
    };
    read().map_err(|error| from_sqlite(&error))
}

fn log_by_one_statement(
    connection: &Connection,
    query: &LogQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let (sql, values) = log_sql(query);
    let read = || {
        connection
            .prepare_cached(&sql)?
            .query_map(params_from_iter(values), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<Vec<(i64, Vec<u8>)>, _>>()
    };
    let found = read().map_err(|error| from_sqlite(&error))?;
    let parse = |(sequence, body)| {
        Ok(StoredEvent {
            sequence: positive(sequence)?,
            body,
        })
    };
    found.into_iter().map(parse).collect()
}

/// The statement for a query, and its values. Its text holds none of them.
fn log_sql(query: &LogQuery) -> (String, Vec<Value>) {
    let mut sql = String::from("SELECT sequence, body FROM event WHERE sequence > ?");
    let mut values = vec![integer(query.after)];
    if query.success == Some(false) {
        // Written out: the index of failures is for this very condition.
        sql.push_str(" AND success = 0");
    }
    let mut and = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.push(value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::Text);
    and("sequence < ?", query.before.map(integer));
    and("id = ?", query.id.map(|id| Value::Text(id.to_string())));
    match &query.event_type {
        Some(prefix) if prefix.ends_with('.') => {
            and("event_type >= ?", Some(Value::Text(prefix.clone())));
            and("event_type < ?", Some(Value::Text(end_of(prefix))));
        }
        exact => and("event_type = ?", text(exact)),
    }
    and("user_name = ?", text(&query.user_name));
    and("server_hostname = ?", text(&query.server_hostname));
    and("session_id = ?", text(&query.session_id));
    and(
        "success = ?",
        query
            .success
            .filter(|success| *success)
            .map(|_| Value::Integer(1)),
    );
    and(
        "timestamp >= ?",
        query.since.map(|time| integer(time.as_millis())),
    );
    and(
        "timestamp < ?",
        query.until.map(|time| integer(time.as_millis())),
    );
    values.push(Value::Integer(rows(query.limit)));
    sql.push_str(match query.order {
        Order::OldestFirst => " ORDER BY sequence LIMIT ?",
        Order::NewestFirst => " ORDER BY sequence DESC LIMIT ?",
    });
    (sql, values)
}

fn entry(row: &Row<'_>) -> Result<(String, Vec<u8>, i64), rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn versioned(value: Vec<u8>, revision: i64) -> Result<Versioned, StoreError> {
    Ok(Versioned {
        value,
        revision: Revision(positive(revision)?),
    })
}

fn positive(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number)
        .map_err(|_| StoreError::Corrupt(format!("the number {number} is negative")))
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Above every text of ASCII that starts with `prefix`, in byte order.
fn end_of(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}
