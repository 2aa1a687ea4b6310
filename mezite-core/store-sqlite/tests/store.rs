//! What the store promises beyond the conformance suite: files, locks, threads, refusals.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_executor::block_on;
use futures_util::future::join_all;
use mezite_core::store::{
    Commit, Expect, Key, LogQuery, Order, Store, StoreError, conformance, model,
};
use mezite_core::{Event, UnixTime};
use mezite_store_sqlite::{OpenError, SqliteStore};
use proptest::test_runner::{Config, TestRunner};
use rusqlite::Connection;
use tempfile::TempDir;

fn event(number: u64) -> Event {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&number.to_be_bytes());
    Event::new("test.event", "MZ0000", UnixTime::from_secs(1), [random; 2])
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn database() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mezhub.db");
    (directory, path)
}

/// Changes the file behind the store's back.
fn tamper(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    block_on(conformance::all(async || {
        number.set(number.get() + 1);
        SqliteStore::open(&directory.path().join(number.get().to_string())).unwrap()
    }));
}

#[test]
fn keeps_everything_when_reopened() {
    let (_directory, path) = database();
    let store = SqliteStore::open(&path).unwrap();
    let first =
        block_on(store.commit(Commit::new(event(1)).put(key("a"), Expect::Absent, b"1".into())))
            .unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let found = block_on(store.get(&key("a"))).unwrap().unwrap();
    assert_eq!(
        (found.value.as_slice(), found.revision),
        (&b"1"[..], first.revision)
    );
    let second = block_on(store.commit(Commit::new(event(2)))).unwrap();
    assert!(second.revision > first.revision, "revisions never repeat");
    assert_eq!(second.sequence, 2);
    let log = block_on(store.log(&LogQuery::after(0, 9))).unwrap();
    let bodies: Vec<_> = log.into_iter().map(|stored| stored.body).collect();
    assert_eq!(bodies, [event(1).render(1), event(2).render(2)]);
}

#[test]
fn attack_54_many_threads_leave_no_gap_and_lose_nothing() {
    let (_directory, path) = database();
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                let commits = (0..50).map(|n| store.commit(Commit::new(event(thread * 1000 + n))));
                let mut sequences: Vec<_> = block_on(join_all(commits))
                    .into_iter()
                    .map(|outcome| outcome.unwrap().sequence)
                    .collect();
                let given = sequences.clone();
                sequences.sort_unstable();
                assert_eq!(given, sequences, "commits of one caller keep their order");
            });
        }
    });
    let log = block_on(store.log(&LogQuery::after(0, usize::MAX))).unwrap();
    let sequences: Vec<_> = log.iter().map(|stored| stored.sequence).collect();
    assert_eq!(sequences, (1..=400).collect::<Vec<_>>());
    for stored in &log {
        let body: String = String::from_utf8(stored.body.clone()).unwrap();
        assert!(body.contains(&format!("\"sequence\":{},", stored.sequence)));
    }
}

#[test]
fn one_of_many_racers_wins_a_compare_and_swap() {
    let (_directory, path) = database();
    let store = SqliteStore::open(&path).unwrap();
    let race =
        (0..50).map(|n| store.commit(Commit::new(event(n)).put(key("a"), Expect::Absent, vec![])));
    let outcomes = block_on(join_all(race));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(refused, StoreError::Conflict(key("a")));
    }
}

#[test]
fn a_caller_who_goes_away_loses_nothing_that_was_accepted() {
    let (_directory, path) = database();
    let store = SqliteStore::open(&path).unwrap();
    let mut commit = Box::pin(store.commit(Commit::new(event(1))));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = commit.as_mut().poll(&mut context);
    drop(commit);
    assert_eq!(
        block_on(store.commit(Commit::new(event(2))))
            .unwrap()
            .sequence,
        2
    );
}

#[test]
fn a_second_hub_is_refused_until_the_first_has_closed() {
    let (_directory, path) = database();
    let first = SqliteStore::open(&path).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    drop(first);
    SqliteStore::open(&path).unwrap();
}

#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = database();
    let store = SqliteStore::open(&path).unwrap();
    block_on(store.commit(Commit::new(event(1)))).unwrap();
    let files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(files.len() >= 3, "database, WAL, lock");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.path());
    }
}

#[test]
fn attack_75_a_newer_schema_is_refused_and_left_alone() {
    let (_directory, path) = database();
    drop(SqliteStore::open(&path).unwrap());
    let ours: i64 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    tamper(&path, "PRAGMA user_version = 999");
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(refused.to_string().contains("has schema 999"), "{refused}");
    tamper(&path, &format!("PRAGMA user_version = {ours}"));
    SqliteStore::open(&path).unwrap();
}

#[test]
fn attack_75_an_interrupted_migration_never_was() {
    let (_directory, path) = database();
    // One of the tables is in the way of the first migration.
    tamper(
        &path,
        &format!(
            "PRAGMA application_id = {}; CREATE TABLE event (x)",
            0x4d5a_4842
        ),
    );
    SqliteStore::open(&path).unwrap_err();
    let connection = Connection::open(&path).unwrap();
    let ask = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(
        ask("SELECT count(*) FROM sqlite_schema"),
        1,
        "what was begun is undone"
    );
    assert_eq!(ask("PRAGMA user_version"), 0);
    drop(connection);
    tamper(&path, "DROP TABLE event");
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(
        block_on(store.commit(Commit::new(event(1))))
            .unwrap()
            .sequence,
        1
    );
}

#[test]
fn follows_the_model() {
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&model::steps(), |steps| {
        let (_directory, path) = database();
        block_on(model::follow(&steps, async |store| {
            drop(store);
            SqliteStore::open(&path).unwrap()
        }));
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn foreign_and_garbage_files_are_refused_and_left_alone() {
    let (_directory, path) = database();
    tamper(
        &path,
        "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)",
    );
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        SqliteStore::open(&path),
        Err(OpenError::Foreign { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let garbage = path.with_extension("txt");
    std::fs::write(&garbage, "Dear diary, ".repeat(500)).unwrap();
    assert!(matches!(
        SqliteStore::open(&garbage),
        Err(OpenError::Foreign { .. })
    ));
    assert_eq!(
        std::fs::read_to_string(&garbage).unwrap(),
        "Dear diary, ".repeat(500)
    );
}

#[test]
fn a_path_that_cannot_be_written_is_named() {
    let (directory, _) = database();
    for path in [
        directory.path().join("no/such/directory/db"),
        directory.path().to_owned(),
    ] {
        let refused = SqliteStore::open(&path).unwrap_err();
        assert!(
            matches!(refused, OpenError::NotWritable { .. }),
            "{refused:?}"
        );
        assert!(refused.to_string().contains(&path.display().to_string()));
    }
}

#[test]
fn a_damaged_file_is_refused() {
    let (_directory, path) = database();
    drop(SqliteStore::open(&path).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused:?}");
}

#[test]
fn attack_55_events_removed_from_the_end_by_hand_are_noticed_at_the_next_start() {
    let (_directory, path) = database();
    let store = SqliteStore::open(&path).unwrap();
    for number in 0..3 {
        block_on(store.commit(Commit::new(event(number)))).unwrap();
    }
    drop(store);
    tamper(&path, "DELETE FROM event WHERE sequence = 3");
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused:?}");
}

#[test]
fn reads_pages_from_either_end() {
    let (_directory, path) = database();
    let store = SqliteStore::open(&path).unwrap();
    for number in 0..5 {
        block_on(store.commit(Commit::new(event(number)))).unwrap();
    }
    let newest = LogQuery {
        limit: 2,
        order: Order::NewestFirst,
        ..LogQuery::default()
    };
    let log = block_on(store.log(&newest)).unwrap();
    assert_eq!(
        log.iter().map(|stored| stored.sequence).collect::<Vec<_>>(),
        [5, 4]
    );
}
