//! The schema, its numbered migrations, and the refusal of files that are not ours or are too new.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::OpenError;

/// `MZHB`: SQLite keeps it in the file's header.
pub(crate) const APPLICATION_ID: i64 = 0x4d5a_4842;

/// Each brings the schema from its index to the next number. Released ones are never changed.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE counter (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        revision INTEGER NOT NULL,
        sequence INTEGER NOT NULL
    ) STRICT;
    INSERT INTO counter (id, revision, sequence) VALUES (1, 0, 0);

    CREATE TABLE entry (
        key TEXT PRIMARY KEY,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE event (
        sequence INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        event_type TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        user_name TEXT,
        server_hostname TEXT,
        session_id TEXT,
        success INTEGER,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX event_id ON event (id);
    CREATE INDEX event_type ON event (event_type);
    CREATE INDEX event_timestamp ON event (timestamp);
    CREATE INDEX event_user_name ON event (user_name) WHERE user_name IS NOT NULL;
    CREATE INDEX event_server_hostname ON event (server_hostname) WHERE server_hostname IS NOT NULL;
    CREATE INDEX event_session_id ON event (session_id) WHERE session_id IS NOT NULL;
    CREATE INDEX event_failed ON event (sequence) WHERE success = 0;
", "
    DROP INDEX event_type;
    DROP INDEX event_timestamp;
    DROP INDEX event_user_name;
    DROP INDEX event_server_hostname;
    DROP INDEX event_session_id;
    DROP INDEX event_failed;
    CREATE INDEX event_kind ON event (event_type, success);
    CREATE INDEX event_user ON event (user_name, event_type, success) WHERE user_name IS NOT NULL;
    CREATE INDEX event_node ON event (server_hostname, event_type, success) WHERE server_hostname IS NOT NULL;
    CREATE INDEX event_user_node ON event (user_name, server_hostname, event_type, success)
        WHERE user_name IS NOT NULL AND server_hostname IS NOT NULL;
    CREATE INDEX event_session ON event (session_id, event_type, success) WHERE session_id IS NOT NULL;
    -- Of every 4096 sequences the earliest and the latest time; pruning leaves them as they are.
    CREATE TABLE event_block (
        block INTEGER PRIMARY KEY,
        earliest INTEGER NOT NULL,
        latest INTEGER NOT NULL
    ) STRICT;
    INSERT INTO event_block (block, earliest, latest)
        SELECT sequence / 4096, min(timestamp), max(timestamp) FROM event GROUP BY sequence / 4096;
"];

/// Checks whose file it is, migrates it and switches it to WAL.
pub(crate) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    check_owner(connection, path)?;
    migrate(connection)
        .and_then(|()| connection.pragma_update(None, "journal_mode", "WAL"))
        .map_err(|error| OpenError::from_sqlite(path, &error))?;
    check_log(connection, path)
}

fn check_owner(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let read = || -> Result<(i64, i64, i64), rusqlite::Error> {
        Ok((
            number(connection, "PRAGMA application_id")?,
            number(connection, "PRAGMA user_version")?,
            number(connection, "SELECT count(*) FROM sqlite_schema")?,
        ))
    };
    let (application, version, objects) =
        read().map_err(|error| OpenError::from_sqlite(path, &error))?;
    if (application, version, objects) == (0, 0, 0) {
        return Ok(());
    }
    if application != APPLICATION_ID {
        return Err(OpenError::foreign(
            path,
            &format!("its application id is {application:#010x}"),
        ));
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: version,
            known,
        });
    }
    Ok(())
}

/// Each migration is one transaction with its number, so that an interrupted one never was.
fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let done = number(connection, "PRAGMA user_version")?;
    for (version, sql) in (1_i64..).zip(MIGRATIONS) {
        if version <= done {
            continue;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The log must end where the counter says: an event that was removed from its end by hand is noticed here, one
/// from its middle by `mezctl audit verify`.
fn check_log(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let read = || -> Result<(i64, i64), rusqlite::Error> {
        Ok((
            number(connection, "SELECT sequence FROM counter")?,
            number(connection, "SELECT coalesce(max(sequence), 0) FROM event")?,
        ))
    };
    let (counted, last) = read().map_err(|error| OpenError::corrupt(path, &error))?;
    if counted == last {
        return Ok(());
    }
    Err(OpenError::corrupt(
        path,
        &format!("{counted} events were written and the last one there is {last}"),
    ))
}

/// Takes away the indexes of events while a restore fills the table; gives the statements that make them again. Sorted at
/// the end they are made in minutes where millions of insertions at random places take hours.
pub(crate) fn drop_indexes(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let made: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'event' AND sql IS NOT NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, _) in &made {
        connection.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    Ok(made.into_iter().map(|(_, sql)| sql).collect())
}

fn number(connection: &Connection, sql: &str) -> Result<i64, rusqlite::Error> {
    connection.query_row(sql, [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use mezite_core::UnixTime;
    use mezite_core::store::{BLOCK, LogQuery};

    use super::*;
    use crate::log;

    #[test]
    fn a_log_of_the_first_schema_is_found_by_time_after_the_migration() {
        let mut connection = Connection::open_in_memory().unwrap();
        let first = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;");
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.execute_batch(&first).unwrap();
        let later = BLOCK + 5;
        let fill = format!(
            "INSERT INTO event (sequence, id, event_type, timestamp, body)
             VALUES (1, 'a', 'test.event', 1000, x''), ({later}, 'b', 'test.event', 3000, x'');
             UPDATE counter SET sequence = {later}"
        );
        connection.execute_batch(&fill).unwrap();
        prepare(&mut connection, Path::new("db")).unwrap();
        let found = |since, until| -> Vec<u64> {
            let query = LogQuery {
                since: Some(UnixTime::from_secs(since)),
                until: Some(UnixTime::from_secs(until)),
                ..LogQuery::after(0, 9)
            };
            let found = log::find(&connection, &query).unwrap();
            found.iter().map(|event| event.sequence).collect()
        };
        assert_eq!(found(1, 2), [1]);
        assert_eq!(found(2, 4), [later]);
        assert_eq!(found(1, 4), [1, later]);
        assert!(found(4, 5).is_empty());
    }
}
