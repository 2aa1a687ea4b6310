//! Questions for keys.

use mezite_core::store::{Key, Revision, StoreError, Versioned};
use rusqlite::{Connection, OptionalExtension, Row, params};

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

fn entry(row: &Row<'_>) -> Result<(String, Vec<u8>, i64), rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn versioned(value: Vec<u8>, revision: i64) -> Result<Versioned, StoreError> {
    Ok(Versioned {
        value,
        revision: Revision(positive(revision)?),
    })
}

pub(crate) fn positive(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number)
        .map_err(|_| StoreError::Corrupt(format!("the number {number} is negative")))
}

pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Above every text of ASCII that starts with `prefix`, in byte order.
pub(crate) fn end_of(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}
