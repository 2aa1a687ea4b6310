//! Durable commits per second with 1, 8 and 64 callers, who each wait for their answer: on SQLite and on PostgreSQL, beside
//! the bare engine that writes the same rows with the same durability and the same batching. In one run, in turns.
//!
//! `cargo bench -p mezite-store-postgres [-- --seconds 3]`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a bench"
)]

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, join4};
use mezite_core::store::{Commit, Store};
use mezite_core::{Event, UnixTime};
use mezite_store_postgres::testing::Server;
use mezite_store_postgres::{Options, PostgresStore};
use mezite_store_sqlite::SqliteStore;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Callers at the same time.
const CALLERS: [u64; 3] = [1, 8, 64];

/// How often each is measured; the median counts.
const ROUNDS: usize = 5;

/// Most rows in one transaction, as in the stores.
const MOST: usize = 1000;

/// What a login writes.
fn event(number: u64) -> Event {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&number.to_be_bytes());
    Event::new(
        "user.cert.issued",
        "MZ1010",
        UnixTime::from_secs(1),
        [random; 2],
    )
    .with("user_name", "alice")
    .with("success", true)
    .with("client_ip", "203.0.113.7")
    .with("principal", "mezite:example:alice")
    .with(
        "public_key_fingerprint",
        "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    )
}

/// A row for a bare engine, and who waits for it.
struct Job {
    body: Vec<u8>,
    done: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Bare(mpsc::UnboundedSender<Job>);

impl Bare {
    async fn write(&self, body: Vec<u8>) {
        let (done, answered) = oneshot::channel();
        assert!(self.0.send(Job { body, done }).is_ok());
        answered.await.unwrap();
    }
}

async fn batch(jobs: &mut mpsc::UnboundedReceiver<Job>) -> Vec<Job> {
    let mut batch = Vec::new();
    jobs.recv_many(&mut batch, MOST).await;
    batch
}

/// SQLite on a thread: one transaction a batch, on the tables that the store has made.
fn bare_sqlite(path: &Path) -> Bare {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .pragma_update(None, "synchronous", "FULL")
        .unwrap();
    let (sender, mut jobs) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut sequence = 0_i64;
        loop {
            let batch = runtime.block_on(batch(&mut jobs));
            if batch.is_empty() {
                return;
            }
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            for job in &batch {
                sequence += 1;
                let insert = "INSERT INTO event (sequence, id, event_type, timestamp, user_name, server_hostname, session_id, success, body)
                    VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL, ?6, ?7)";
                let id = event(sequence.unsigned_abs()).id.to_string();
                let values = rusqlite::params![
                    sequence,
                    id,
                    "user.cert.issued",
                    1000,
                    "alice",
                    true,
                    job.body
                ];
                connection
                    .prepare_cached(insert)
                    .unwrap()
                    .execute(values)
                    .unwrap();
            }
            let count = "UPDATE counter SET revision = ?1, sequence = ?1";
            connection
                .prepare_cached(count)
                .unwrap()
                .execute([sequence])
                .unwrap();
            connection.execute_batch("COMMIT").unwrap();
            for job in batch {
                job.done.send(()).unwrap();
            }
        }
    });
    Bare(sender)
}

/// PostgreSQL on a task: one transaction a batch, its statements sent together.
async fn bare_postgres(string: &str) -> Bare {
    let (client, connection) = tokio_postgres::connect(string, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let insert =
        "INSERT INTO mezite.event (sequence, id, event_type, timestamp, user_name, success, body)
        SELECT sequence, id, 'user.cert.issued'::bytea, 1000, 'alice'::bytea, true, body
        FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS row (sequence, id, body)";
    let insert = client.prepare(insert).await.unwrap();
    let count = client
        .prepare("UPDATE mezite.counter SET revision = $1, sequence = $1")
        .await
        .unwrap();
    let (sender, mut jobs) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut sequence = 0_i64;
        loop {
            let batch = batch(&mut jobs).await;
            if batch.is_empty() {
                return;
            }
            let first = sequence + 1;
            sequence += i64::try_from(batch.len()).unwrap();
            let sequences: Vec<i64> = (first..=sequence).collect();
            let ids: Vec<Vec<u8>> = sequences
                .iter()
                .map(|n| event(n.unsigned_abs()).id.as_bytes().to_vec())
                .collect();
            let bodies: Vec<&[u8]> = batch.iter().map(|job: &Job| job.body.as_slice()).collect();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&sequences, &ids, &bodies];
            let (begun, inserted, counted, committed) = join4(
                client.batch_execute("BEGIN"),
                client.execute(&insert, &values),
                client.execute(&count, &[&sequence]),
                client.batch_execute("COMMIT"),
            )
            .await;
            begun.unwrap();
            inserted.unwrap();
            counted.unwrap();
            committed.unwrap();
            for job in batch {
                job.done.send(()).unwrap();
            }
        }
    });
    Bare(sender)
}

/// Commits per second with so many callers.
fn measure<F: Future<Output = ()> + Send>(
    runtime: &Runtime,
    callers: u64,
    time: Duration,
    commit: impl Fn(u64) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let began = Instant::now();
    let tasks = (0..callers).map(|_| {
        let commit = commit.clone();
        async move {
            let mut made = 0_u32;
            while began.elapsed() < time {
                commit(NEXT.fetch_add(1, Ordering::Relaxed)).await;
                made += 1;
            }
            made
        }
    });
    let made: u32 = runtime.block_on(join_all(tasks)).into_iter().sum();
    f64::from(made) / began.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn compare(name: &str, runtime: &Runtime, time: Duration, store: &Arc<dyn Store>, bare: &Bare) {
    for callers in CALLERS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let engine = bare.clone();
            theirs.push(measure(runtime, callers, time, move |number| {
                let (engine, body) = (engine.clone(), event(number).render(number));
                async move { engine.write(body).await }
            }));
            let store = Arc::clone(store);
            ours.push(measure(runtime, callers, time, move |number| {
                let store = Arc::clone(&store);
                async move {
                    store.commit(Commit::new(event(number))).await.unwrap();
                }
            }));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "| {name} | {callers} | {ours:.0} | {theirs:.0} | {:.0} % |",
            ours / theirs * 100.0
        );
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let seconds = words
        .iter()
        .position(|word| word == "--seconds")
        .map(|at| words[at + 1].parse().unwrap());
    let time = Duration::from_secs_f64(seconds.unwrap_or(1.0));
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    println!(
        "| store | callers | commits/s | bare engine, rows/s | of it |\n| --- | ---: | ---: | ---: | ---: |"
    );

    let (ours, theirs) = (
        directory.path().join("ours"),
        directory.path().join("theirs"),
    );
    drop(SqliteStore::open(&theirs).unwrap());
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&ours).unwrap());
    compare("SQLite", &runtime, time, &store, &bare_sqlite(&theirs));

    let server = Server::start(&[]);
    let (ours, theirs) = (server.database(), server.database());
    let open = |string: &str| {
        let options = Options::parse(string, None, None).unwrap();
        runtime.block_on(PostgresStore::open(options)).unwrap()
    };
    drop(open(&theirs));
    let store: Arc<dyn Store> = Arc::new(open(&ours));
    let bare = runtime.block_on(bare_postgres(&theirs));
    compare("PostgreSQL", &runtime, time, &store, &bare);
}
