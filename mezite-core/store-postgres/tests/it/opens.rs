//! Databases that are not to be opened, each told apart and left alone.

use std::path::Path;
use std::process::Command;

use mezite_core::store::{Commit, Expect, Store};
use mezite_store_postgres::testing::Server;
use mezite_store_postgres::{OpenError, Options, PostgresStore};

use crate::{event, key, open, options};

async fn refused(string: &str) -> OpenError {
    let error = PostgresStore::open(options(string)).await.unwrap_err();
    let checked = PostgresStore::check(&options(string)).await;
    if !matches!(error, OpenError::Corrupt { .. }) {
        assert_eq!(
            checked.unwrap_err().to_string(),
            error.to_string(),
            "check says the same"
        );
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_everything_when_reopened() {
    let server = Server::shared();
    let string = server.database();
    PostgresStore::check(&options(&string)).await.unwrap();
    assert_eq!(
        server.sql(
            &string,
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'mezite'"
        ),
        "0"
    );
    let store = open(&string).await;
    let first = Commit::new(event(1)).put(key("a"), Expect::Absent, b"1".to_vec());
    let first = store.commit(first).await.unwrap();
    drop(store);
    let store = open(&string).await;
    PostgresStore::check(&options(&string)).await.unwrap();
    let found = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(
        (found.value, found.revision),
        (b"1".to_vec(), first.revision)
    );
    let second = store.commit(Commit::new(event(2))).await.unwrap();
    assert!(second.revision > first.revision, "revisions never repeat");
    assert_eq!(second.sequence, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_75_a_newer_schema_is_refused_and_left_alone() {
    let server = Server::shared();
    let string = server.database();
    drop(open(&string).await);
    let ours = server.sql(&string, "SELECT version FROM mezite.about");
    server.sql(&string, "UPDATE mezite.about SET version = 999");
    let error = refused(&string).await;
    assert!(
        matches!(error, OpenError::Newer { found: 999, .. }),
        "{error}"
    );
    assert_eq!(
        server.sql(&string, "SELECT version FROM mezite.about"),
        "999"
    );
    server.sql(
        &string,
        &format!("UPDATE mezite.about SET version = {ours}"),
    );
    open(&string).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_schema_is_refused_and_left_alone() {
    let server = Server::shared();
    for theirs in [
        "CREATE SCHEMA mezite; CREATE TABLE mezite.theirs (x int)",
        "CREATE SCHEMA mezite; CREATE TABLE mezite.about (x int)",
        "CREATE SCHEMA mezite; CREATE TABLE mezite.about (product text, version bigint)",
        "CREATE SCHEMA mezite; CREATE TABLE mezite.about (product text, version bigint);
         INSERT INTO mezite.about VALUES ('another', 1)",
    ] {
        let string = server.database();
        server.sql(&string, theirs);
        let error = refused(&string).await;
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert_eq!(
            server.sql(
                &string,
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'mezite'"
            ),
            "1"
        );
    }
    // Other programs may live beside it, and a schema may be made for it.
    let string = server.database();
    server.sql(&string, "CREATE TABLE theirs (x int); CREATE SCHEMA mezite");
    open(&string).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_75_an_interrupted_migration_never_was() {
    let server = Server::shared();
    let string = server.database();
    // The table that comes last is in the way.
    server.sql(
        &string,
        "CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN IF EXISTS (SELECT FROM pg_class WHERE relname = 'event_session_id') THEN RAISE 'stopped'; END IF; END $$;
         CREATE EVENT TRIGGER stop ON ddl_command_end EXECUTE FUNCTION stop()",
    );
    let error = PostgresStore::open(options(&string)).await.unwrap_err();
    assert!(error.to_string().contains("stopped"), "{error}");
    assert_eq!(
        server.sql(
            &string,
            "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'mezite'"
        ),
        "about"
    );
    assert_eq!(server.sql(&string, "SELECT version FROM mezite.about"), "0");
    server.sql(&string, "DROP EVENT TRIGGER stop");
    let store = open(&string).await;
    assert_eq!(
        store.commit(Commit::new(event(1))).await.unwrap().sequence,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_55_events_removed_from_the_end_by_hand_are_noticed_at_the_next_start() {
    let server = Server::shared();
    let string = server.database();
    let store = open(&string).await;
    for number in 0..3 {
        store.commit(Commit::new(event(number))).await.unwrap();
    }
    drop(store);
    server.sql(&string, "DELETE FROM mezite.event WHERE sequence = 3");
    let error = refused(&string).await;
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_and_who_does_not_answer_are_told_apart() {
    let server = Server::shared();
    let string = server.database();
    let error = refused(&server.string("nowhere")).await;
    assert!(matches!(error, OpenError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("createdb"), "{error}");
    server.sql(&string, "CREATE ROLE guest LOGIN");
    let guest = string.replace("user=mezite", "user=guest");
    let error = refused(&guest).await;
    assert!(error.to_string().contains("GRANT CREATE"), "{error}");
    let error = refused("host=127.0.0.1 port=1 user=mezite sslmode=disable").await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    server.sql(&string, "DROP ROLE guest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_the_right_to_make_a_schema_uses_one_that_was_made_for_it() {
    let server = Server::shared();
    let string = server.database();
    server.sql(
        &string,
        "CREATE ROLE hub LOGIN; CREATE SCHEMA mezite AUTHORIZATION hub",
    );
    let store = open(&string.replace("user=mezite", "user=hub")).await;
    store.commit(Commit::new(event(1))).await.unwrap();
    drop(store);
    server.sql(&string, "DROP OWNED BY hub; DROP ROLE hub");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_is_refused_and_a_forgetful_default_is_not_taken() {
    let server = Server::start(&[]);
    let string = server.database();
    server.sql(&string, "ALTER DATABASE test0 SET synchronous_commit = off; ALTER DATABASE test0 SET default_transaction_isolation = serializable");
    let store = open(&string).await;
    // Seen from inside of a commit.
    server.sql(
        &string,
        "CREATE TABLE seen AS SELECT ''::text AS sync, ''::text AS isolation;
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE seen SET sync = current_setting('synchronous_commit'), isolation = current_setting('transaction_isolation');
            RETURN NEW; END $$;
         CREATE TRIGGER look BEFORE UPDATE ON mezite.counter FOR EACH ROW EXECUTE FUNCTION look()",
    );
    store.commit(Commit::new(event(1))).await.unwrap();
    assert_eq!(
        server.sql(&string, "SELECT sync, isolation FROM seen"),
        "on|read committed"
    );
    drop(store);
    server.sql("postgres", "ALTER SYSTEM SET fsync = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let error = refused(&string).await;
    assert!(matches!(error, OpenError::NotDurable { .. }), "{error}");
}

/// A fresh authority, in PEM.
fn authority(place: &Path) -> Vec<u8> {
    std::fs::create_dir(place).unwrap();
    let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(
        place,
        &format!("{key} -keyout ca.key -out ca.pem -subj /CN=database-authority"),
    );
    openssl(
        place,
        &format!(
            "{key} -keyout server.key -out server.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost \
             -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key"
        ),
    );
    std::fs::read(place.join("ca.pem")).unwrap()
}

fn openssl(place: &Path, words: &str) {
    let mut openssl = Command::new("openssl");
    let done = openssl
        .current_dir(place)
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {words}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_by_name_and_authority() {
    let server = Server::start(&[]);
    let place = server.directory();
    let (right, wrong) = (
        authority(&place.join("right")),
        authority(&place.join("wrong")),
    );
    server.hand_over("right/server.key");
    for (setting, file) in [
        ("ssl_cert_file", "server.pem"),
        ("ssl_key_file", "server.key"),
    ] {
        let file = place.join("right").join(file);
        server.sql(
            "postgres",
            &format!("ALTER SYSTEM SET {setting} = '{}'", file.display()),
        );
    }
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    let string = server.over_tcp(&server.database(), None);
    let good = Options::parse(&string, None, Some(&right)).unwrap();
    let store = PostgresStore::open(good).await.unwrap();
    store.commit(Commit::new(event(1))).await.unwrap();
    let encrypted = "SELECT bool_and(ssl AND version = 'TLSv1.3') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'mezite'";
    assert_eq!(server.sql("postgres", encrypted), "t");
    for (string, authority, says) in [
        (string.clone(), &wrong, "invalid peer certificate"),
        (
            string.replace("host=localhost", "host=elsewhere.example"),
            &right,
            "elsewhere.example",
        ),
    ] {
        let options = Options::parse(&string, None, Some(authority)).unwrap();
        let error = PostgresStore::open(options).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // A server without TLS is not talked to.
    server.sql("postgres", "ALTER SYSTEM SET ssl = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let options = Options::parse(&string, None, Some(&right)).unwrap();
    let error = PostgresStore::open(options).await.unwrap_err().to_string();
    assert!(error.contains("does not support TLS"), "{error}");
}
