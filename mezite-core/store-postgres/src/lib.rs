//! [`PostgresStore`]: Mezite's [`Store`] in a PostgreSQL database that any number of hubs share.
//!
//! One task writes: it takes all commits that wait, puts them into one transaction that holds the lock on the counters
//! (so that hubs take turns and no sequence number is lost), and answers every caller after the database has made it
//! durable. What each commit becomes is planned in memory while the lock is held, so a conflict touches no neighbour and
//! costs no round trip. A pool of connections reads. One more connection listens (`LISTEN`, `NOTIFY`) and wakes watchers;
//! when it was lost, it wakes all of them.
//!
//! A connection that is lost while a transaction is being committed leaves its outcome unknown. The writer then connects
//! again, waits for the lock that the old transaction would hold, and looks for its events: what is there is told as done,
//! what is not is done again. Only if the database stays away does a caller hear that the outcome is unknown.
//!
//! Everything lies in the schema `mezite`. Keys and texts are `bytea`, so neither collation nor encoding of the database
//! matters.
#![forbid(unsafe_code)]

mod archive;
mod error;
mod follow;
mod log;
mod options;
mod plan;
mod read;
mod schema;
mod session;
mod tls;
mod write;

#[cfg(feature = "testing")]
pub mod testing;

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mezite_core::Event;
use mezite_core::store::{
    Commit, Committed, Dump, Feed, Key, LogQuery, Revision, Store, StoreError, StoredEvent,
    Versioned, Watch,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use error::OpenError;
pub use options::Options;

use read::Readers;
use write::Job;

/// A store in a PostgreSQL database. Dropping it finishes what was begun.
///
/// Its tasks run on the tokio runtime in which it was opened.
#[derive(Debug)]
pub struct PostgresStore {
    writer: mpsc::UnboundedSender<Job>,
    readers: Readers,
    shared: Arc<Shared>,
    follower: AbortHandle,
    options: Arc<Options>,
}

impl PostgresStore {
    /// Connects, and makes the schema or brings it up to date. Hubs that do so at the same time take turns.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong; nothing was changed then, except that migrations which were complete stay.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let options = Arc::new(options);
        let mut client = session::connect(&options)
            .await
            .map_err(|error| OpenError::from_connect(&options, &error))?;
        schema::prepare(&mut client, &options).await?;
        drop(client);
        let failed = |error: tokio_postgres::Error| OpenError::from_connect(&options, &error);
        let shared = Arc::new(Shared::default());
        let readers = Readers::new(&options)?;
        let session = write::Session::start(&options, &shared)
            .await
            .map_err(failed)?;
        let listener = session::listen(&options).await.map_err(failed)?;
        let follower = tokio::spawn(follow::run(
            listener,
            Arc::clone(&options),
            Arc::clone(&shared),
        ));
        let (writer, jobs) = mpsc::unbounded_channel();
        tokio::spawn(write::run(
            jobs,
            session,
            Arc::clone(&options),
            Arc::clone(&shared),
        ));
        Ok(Self {
            writer,
            readers,
            shared,
            follower: follower.abort_handle(),
            options,
        })
    }

    /// Connects and says whether the database can be used, without changing it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn check(options: &Options) -> Result<(), OpenError> {
        let client = session::connect(options)
            .await
            .map_err(|error| OpenError::from_connect(options, &error))?;
        schema::check(&client, options).await
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.readers.get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.readers.list(prefix, after, limit).await
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.shared.feed.watch(prefix)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        commit.check_size()?;
        let (answer, answered) = oneshot::channel();
        // If the writer has ended, the answer's sender is dropped with the job.
        drop(self.writer.send(Job { commit, answer }));
        let ended = |_| Err(StoreError::Unavailable("the store was closed".into()));
        answered.await.unwrap_or_else(ended)
    }

    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.readers.log(query).await
    }

    async fn dump(&self) -> Result<Dump, StoreError> {
        archive::dump(&self.options).await
    }

    async fn restore(&self, dump: Dump, event: Event) -> Result<Committed, StoreError> {
        archive::restore(&self.options, dump, event).await
    }
}

/// What the writer and the follower tell each other.
#[derive(Debug, Default)]
struct Shared {
    feed: Feed,
    /// The server process that writes for this hub: the writer tells watchers itself, and earlier.
    writer: AtomicI32,
    /// The newest revision that watchers were told of.
    told: AtomicU64,
    /// When another hub was last heard of.
    others: Mutex<Option<Instant>>,
}

/// A hub writes more often than this as long as it runs.
const QUIET: Duration = Duration::from_secs(60);

impl Shared {
    fn hear_others(&self) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether another hub writes to the database now and then.
    fn hears_others(&self) -> bool {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.is_some_and(|heard| heard.elapsed() < QUIET)
    }

    fn publish<'a>(&self, revision: u64, keys: impl IntoIterator<Item = &'a Key>) {
        self.told.fetch_max(revision, Ordering::Relaxed);
        self.feed.publish(Revision(revision), keys);
    }

    fn publish_all(&self, revision: u64) {
        self.told.fetch_max(revision, Ordering::Relaxed);
        self.feed.publish_all(Revision(revision));
    }
}
