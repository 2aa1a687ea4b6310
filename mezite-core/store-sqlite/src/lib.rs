//! [`SqliteStore`]: Mezite's [`Store`] in one SQLite file, for one hub.
//!
//! One thread writes: it takes all commits that wait, puts them into one transaction (each in a savepoint of its own,
//! so that one that conflicts does not touch its neighbours) and answers every caller after the disk has it
//! (`journal_mode=WAL`, `synchronous=FULL`). Other threads read, so no async caller is ever blocked by the disk.
//! No runtime is needed.
//!
//! A sidecar file `<database>.lock` keeps a second hub from opening the same database.
#![forbid(unsafe_code)]

mod archive;
mod error;
mod log;
mod open;
mod read;
mod schema;
mod worker;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_channel::oneshot;
use mezite_core::Event;
use mezite_core::store::{
    Commit, Committed, Dump, Feed, Key, LogQuery, Store, StoreError, StoredEvent, Versioned, Watch,
};
use rusqlite::Connection;

pub use error::OpenError;

use worker::Workers;

/// How many reads run at the same time.
const READERS: usize = 2;

/// A store in one SQLite file. Dropping it finishes what was begun and closes the file.
#[derive(Debug)]
pub struct SqliteStore {
    // The order is the order of dropping: the lock goes last.
    writer: Workers<write::Job>,
    readers: Workers<ReadJob>,
    feed: Arc<Feed>,
    path: PathBuf,
    _lock: File,
}

type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

impl SqliteStore {
    /// Opens the database at `path`, making it (readable by its owner only) or bringing its schema up to date
    /// where needed.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the file; nothing was changed then, except that migrations which were
    /// complete stay.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = open::lock(path)?;
        let mut writing = open::connect(path)?;
        schema::prepare(&mut writing, path)?;
        let reading = (0..READERS)
            .map(|_| open::connect_for_reading(path))
            .collect::<Result<Vec<_>, _>>()?;
        let feed = Arc::new(Feed::default());
        let published = Arc::clone(&feed);
        let writer = Workers::start("store-write", vec![writing], move |connection, jobs| {
            write::group(connection, &published, jobs);
        })?;
        let readers = Workers::start("store-read", reading, do_jobs)?;
        Ok(Self {
            writer,
            readers,
            feed,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(&self.readers, question).await
    }
}

/// Does each job on the connection.
fn do_jobs(connection: &mut Connection, jobs: Vec<ReadJob>) {
    for job in jobs {
        job(connection);
    }
}

/// Has a question answered by one of `workers`.
async fn ask<T: Send + 'static>(
    workers: &Workers<ReadJob>,
    question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    workers.give(Box::new(move |connection| {
        // Whoever asked may have gone away meanwhile.
        let _ = answer.send(question(connection));
    }));
    answered
        .await
        .unwrap_or_else(|_| Err(error::thread_ended()))
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let key = key.clone();
        self.read(move |connection| read::get(connection, &key))
            .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.read(move |connection| read::list(connection, &prefix, after.as_ref(), limit))
            .await
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.feed.watch(prefix)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.writer.give(write::Job { commit, answer });
        answered
            .await
            .unwrap_or_else(|_| Err(error::thread_ended()))
    }

    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError> {
        let query = query.clone();
        self.read(move |connection| log::find(connection, &query))
            .await
    }

    async fn dump(&self) -> Result<Dump, StoreError> {
        archive::dump(&self.path).await
    }

    async fn restore(&self, dump: Dump, event: Event) -> Result<Committed, StoreError> {
        archive::restore(&self.path, dump, event).await
    }
}
