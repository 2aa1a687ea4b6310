//! The [`Store`] seam: versioned keys and the event log, changed together or not at all.
//!
//! [`Store::commit`] is the only way to change state, and a [`Commit`] cannot be built without an [`Event`].
//! The one thing that moves without an event is the log's own bookkeeping ([`Commit::for_log_keeping`]).

mod blocks;
mod commit;
mod dump;
mod key;
mod memory;
mod query;
mod watch;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "conformance"))]
pub mod model;

pub use blocks::{BLOCK, Run, runs};
pub use commit::{Change, Commit, Committed, Expect, MAX_COMMIT_BYTES};
pub use dump::{Counters, Dump, Piece, Pieces, REVISION_GAP};
pub use key::{Key, KeyError};
pub use memory::MemoryStore;
pub use query::{LogQuery, Order};
pub use watch::{Feed, Watch};

/// For those who implement [`Store`] or [`Pieces`].
pub use async_trait::async_trait;
use thiserror::Error;

use crate::event::Event;

/// Counts commits. A later commit has a higher revision; a key's revision is that of the commit that last wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value and the revision at which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends build it")]
pub struct Versioned {
    /// The bytes as they were put.
    pub value: Vec<u8>,
    /// For compare-and-swap with [`Expect::Revision`].
    pub revision: Revision,
}

/// One event as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends build it")]
pub struct StoredEvent {
    /// Position in the log, gap-free, from 1.
    pub sequence: u64,
    /// The exact bytes that the Merkle leaf hashes.
    pub body: Vec<u8>,
}

/// Why the store did not do it. Nothing was changed, unless [`StoreError::Unavailable`] says the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An [`Expect`] did not hold: somebody else changed the key first.
    #[error("`{0}` was changed by somebody else: read it again and retry")]
    Conflict(Key),
    /// Keys and values of one commit take more than [`MAX_COMMIT_BYTES`].
    #[error("a commit of {0} bytes is too large: at most {max}", max = MAX_COMMIT_BYTES)]
    CommitTooLarge(usize),
    /// An event is longer than [`crate::event::MAX_BYTES`].
    #[error("an event of {0} bytes is too long: at most {max}", max = crate::event::MAX_BYTES)]
    EventTooLong(usize),
    /// The texts beside an event take more than [`crate::event::MAX_TEXT_BYTES`].
    #[error("the texts of an event have {0} bytes: at most {max}", max = crate::event::MAX_TEXT_BYTES)]
    TextTooLong(usize),
    /// A backup goes into an empty store only.
    #[error("the database is not empty: restore into a new one")]
    NotEmpty,
    /// The database cannot be reached or written.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// What was read does not look like what was written.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(String),
}

/// Versioned keys and an append-only event log, in one transaction domain.
///
/// Implementations prove themselves with the suite in `conformance` (feature `conformance`).
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The value at `key`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError>;

    /// Up to `limit` keys that start with `prefix`, in byte order, those above `after` only.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, StoreError>;

    /// Tells of changes to keys that start with `prefix`, from now on. Changes coalesce: read again on each wake-up.
    fn watch(&self, prefix: &str) -> Watch;

    /// Applies every change and appends every event, durably, or does nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::CommitTooLarge`] and [`StoreError::EventTooLong`] change nothing; after
    /// [`StoreError::Unavailable`] the outcome may be unknown.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Reads the event log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    async fn log(&self, query: &LogQuery) -> Result<Vec<StoredEvent>, StoreError>;

    /// Everything as it is at one moment; commits go on meanwhile and are not seen.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    async fn dump(&self) -> Result<Dump, StoreError>;

    /// Fills an empty store with all of `dump`, then appends `event`, which tells of it: durably, or nothing.
    /// Keys keep their revisions; the next is [`REVISION_GAP`] above the dump's. Nothing is told to watchers: call it
    /// before anybody uses the store.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::EventTooLong`], [`StoreError::Corrupt`] for pieces that do not fit
    /// together, and whatever `dump` says.
    async fn restore(&self, dump: Dump, event: Event) -> Result<Committed, StoreError>;
}
