//! The schema, its numbered migrations, and the refusal of databases that are not ours or are too new.

use tokio_postgres::{Client, Error};

use crate::error::words;
use crate::{OpenError, Options};

/// Hubs that migrate take turns: any number will do if it is always the same (`MZHB`).
const LOCK: i64 = 0x4d5a_4842;

/// How much of a text an index holds: its rows are bounded, texts from outside are not.
pub(crate) const INDEXED: i32 = 200;

/// Each brings the schema from its index to the next number. Released ones are never changed.
///
/// Texts are `bytea`: compared by their bytes whatever the collation, and free to hold what no encoding has.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE mezite.counter (
        id integer PRIMARY KEY CHECK (id = 1),
        revision bigint NOT NULL,
        sequence bigint NOT NULL,
        -- The revision that last changed an entry: a follower who missed a notification sees it here.
        changed bigint NOT NULL
    );
    INSERT INTO mezite.counter (id, revision, sequence, changed) VALUES (1, 0, 0, 0);

    CREATE TABLE mezite.entry (
        key bytea PRIMARY KEY,
        value bytea NOT NULL,
        revision bigint NOT NULL
    );

    CREATE TABLE mezite.event (
        sequence bigint PRIMARY KEY,
        id bytea NOT NULL,
        event_type bytea NOT NULL,
        timestamp bigint NOT NULL,
        user_name bytea,
        server_hostname bytea,
        session_id bytea,
        success boolean,
        body bytea NOT NULL
    );
    CREATE INDEX event_id ON mezite.event (id);
    CREATE INDEX event_type ON mezite.event (event_type, sequence);
    CREATE INDEX event_timestamp ON mezite.event (timestamp);
    CREATE INDEX event_user_name ON mezite.event (substring(user_name FROM 1 FOR 200), sequence) WHERE user_name IS NOT NULL;
    CREATE INDEX event_server_hostname ON mezite.event (substring(server_hostname FROM 1 FOR 200), sequence)
        WHERE server_hostname IS NOT NULL;
    CREATE INDEX event_session_id ON mezite.event (substring(session_id FROM 1 FOR 200), sequence) WHERE session_id IS NOT NULL;
    CREATE INDEX event_failed ON mezite.event (sequence) WHERE NOT success;
", "
    DROP INDEX mezite.event_type, mezite.event_timestamp, mezite.event_user_name, mezite.event_server_hostname,
        mezite.event_session_id, mezite.event_failed;
    -- Without NULL, so that each outcome is a place in an index.
    ALTER TABLE mezite.event ADD COLUMN outcome smallint NOT NULL GENERATED ALWAYS AS
        (CASE WHEN success THEN 1 WHEN NOT success THEN 0 ELSE 2 END) STORED;
    -- `sequence + 0`, as the planner must not walk along the primary key and filter.
    CREATE INDEX event_kind ON mezite.event (event_type, outcome, (sequence + 0));
    CREATE INDEX event_user ON mezite.event (substring(user_name FROM 1 FOR 200), event_type, outcome, (sequence + 0))
        WHERE user_name IS NOT NULL;
    CREATE INDEX event_node ON mezite.event (substring(server_hostname FROM 1 FOR 200), event_type, outcome, (sequence + 0))
        WHERE server_hostname IS NOT NULL;
    CREATE INDEX event_user_node ON mezite.event
        (substring(user_name FROM 1 FOR 200), substring(server_hostname FROM 1 FOR 200), event_type, outcome, (sequence + 0))
        WHERE user_name IS NOT NULL AND server_hostname IS NOT NULL;
    CREATE INDEX event_session ON mezite.event (substring(session_id FROM 1 FOR 200), event_type, outcome, (sequence + 0))
        WHERE session_id IS NOT NULL;
    -- Of every 4096 sequences the earliest and the latest time; pruning leaves them as they are.
    CREATE TABLE mezite.event_block (
        block bigint PRIMARY KEY,
        earliest bigint NOT NULL,
        latest bigint NOT NULL
    );
    INSERT INTO mezite.event_block (block, earliest, latest)
        SELECT sequence / 4096, min(timestamp), max(timestamp) FROM mezite.event GROUP BY sequence / 4096;
"];

/// What marks the schema as ours, beside its number.
const ABOUT: &str = "
    DO $$ BEGIN
        -- `IF NOT EXISTS` of the statement itself asks for the right to create even where there is nothing to do.
        IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'mezite') THEN CREATE SCHEMA mezite; END IF;
    END $$;
    CREATE TABLE mezite.about (product text NOT NULL, version bigint NOT NULL);
    INSERT INTO mezite.about (product, version) VALUES ('mezite hub', 0);
";

/// Checks whose schema it is and migrates it.
pub(crate) async fn prepare(client: &mut Client, options: &Options) -> Result<(), OpenError> {
    let failed = |error: Error| OpenError::from_connect(options, &error);
    check(client, options).await?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    // Each migration is one transaction with its number, so that an interrupted one never was.
    loop {
        let transaction = client.transaction().await.map_err(failed)?;
        let lock = "SELECT pg_advisory_xact_lock($1)";
        transaction.execute(lock, &[&LOCK]).await.map_err(failed)?;
        let done = version(transaction.client(), options).await?;
        let next = match done {
            None => ABOUT,
            Some(done) if done >= known => break,
            Some(done) => usize::try_from(done)
                .ok()
                .and_then(|done| MIGRATIONS.get(done).copied())
                .ok_or_else(|| OpenError::corrupt(options, &format!("its version is {done}")))?,
        };
        transaction.batch_execute(next).await.map_err(failed)?;
        if done.is_some() {
            let count = "UPDATE mezite.about SET version = version + 1";
            transaction.execute(count, &[]).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
    }
    check_log(client, options).await
}

/// Whether the database can be used: durable, ours or nobody's yet, and not newer than this program.
pub(crate) async fn check(client: &Client, options: &Options) -> Result<(), OpenError> {
    let failed = |error: Error| OpenError::from_connect(options, &error);
    let fsync = client.query_one("SELECT current_setting('fsync') = 'on'", &[]);
    let fsync: bool = fsync.await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if !fsync {
        return Err(OpenError::NotDurable {
            place: options.to_string(),
        });
    }
    let may_create = "SELECT has_database_privilege(current_database(), 'CREATE')
        OR EXISTS (SELECT FROM pg_namespace WHERE nspname = 'mezite' AND has_schema_privilege(oid, 'USAGE'))";
    let may_create = client.query_one(may_create, &[]).await;
    let may_create: bool = may_create.and_then(|row| row.try_get(0)).map_err(failed)?;
    if !may_create {
        let user = options.config.get_user().unwrap_or("USER");
        return Err(OpenError::Denied {
            place: options.to_string(),
            reason: format!(
                "the hub's user may make no schema: GRANT CREATE ON DATABASE … TO {user}"
            ),
        });
    }
    version(client, options).await.map(drop)
}

/// The schema's number; `None` if there is none yet.
async fn version(client: &Client, options: &Options) -> Result<Option<i64>, OpenError> {
    let place = || options.to_string();
    let failed = |error: Error| OpenError::from_connect(options, &error);
    let foreign = |reason: String| OpenError::Foreign {
        place: place(),
        reason,
    };
    let tables = "SELECT count(*), coalesce(bool_or(relname = 'about'), false), coalesce(min(relname), '')::text
        FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'mezite')";
    let row = client.query_one(tables, &[]).await.map_err(failed)?;
    let read = || -> Result<(i64, bool, String), Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
    };
    let (count, marked, first) = read().map_err(failed)?;
    if count == 0 {
        return Ok(None);
    }
    if !marked {
        return Err(foreign(format!("it holds `{first}` and no mark of ours")));
    }
    let about = client
        .query(
            "SELECT product::text, version::bigint FROM mezite.about",
            &[],
        )
        .await;
    let rows = about.map_err(|error| match error.code() {
        Some(_) => foreign(words(&error)),
        None => failed(error),
    })?;
    let [row] = rows.as_slice() else {
        return Err(foreign(String::from("its mark is not one row")));
    };
    let read = || -> Result<(String, i64), Error> { Ok((row.try_get(0)?, row.try_get(1)?)) };
    let (product, found) = read().map_err(|error| foreign(words(&error)))?;
    if product != "mezite hub" {
        return Err(foreign(format!(
            "it says that it belongs to `{}`",
            product.escape_debug()
        )));
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        let place = place();
        return Err(OpenError::Newer {
            place,
            found,
            known,
        });
    }
    Ok(Some(found))
}

/// The log must end where the counter says: an event that was removed from its end by hand is noticed here, one
/// from its middle by `mezctl audit verify`.
async fn check_log(client: &Client, options: &Options) -> Result<(), OpenError> {
    let ends = "SELECT c.sequence, coalesce((SELECT max(sequence) FROM mezite.event), 0) FROM mezite.counter c";
    let row = client.query_one(ends, &[]).await;
    let read = row.and_then(|row| Ok::<(i64, i64), Error>((row.try_get(0)?, row.try_get(1)?)));
    let (counted, last) = read.map_err(|error| OpenError::corrupt(options, &words(&error)))?;
    if counted == last {
        return Ok(());
    }
    let reason = format!("{counted} events were written and the last one there is {last}");
    Err(OpenError::corrupt(options, &reason))
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use mezite_core::UnixTime;
    use mezite_core::store::{BLOCK, LogQuery, Store};

    use super::*;
    use crate::PostgresStore;
    use crate::testing::Server;

    #[tokio::test]
    async fn a_log_of_the_first_schema_is_found_by_time_after_the_migration() {
        let server = Server::shared();
        let string = server.database();
        let later = i64::try_from(BLOCK).unwrap() + 5;
        let fill = format!(
            "{ABOUT} UPDATE mezite.about SET version = 1; {}
             INSERT INTO mezite.event (sequence, id, event_type, timestamp, success, body) VALUES
                 (1, 'a', 'test.event', 1000, NULL, ''), ({later}, 'b', 'test.event', 3000, false, '');
             UPDATE mezite.counter SET sequence = {later}",
            MIGRATIONS[0]
        );
        server.sql(&string, &fill);
        let options = Options::parse(&string, None, None).unwrap();
        let store = PostgresStore::open(options).await.unwrap();
        let later = BLOCK + 5;
        for (since, success, wanted) in [
            (1, None, vec![1, later]),
            (2, None, vec![later]),
            (4, None, vec![]),
            (1, Some(false), vec![later]),
            (1, Some(true), vec![]),
        ] {
            let query = LogQuery {
                since: Some(UnixTime::from_secs(since)),
                success,
                ..LogQuery::after(0, 9)
            };
            let found = store.log(&query).await.unwrap();
            let found: Vec<u64> = found.iter().map(|event| event.sequence).collect();
            assert_eq!(found, wanted, "since {since}, {success:?}");
        }
    }
}
