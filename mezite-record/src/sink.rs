//! The [`Sink`] seam: where recordings lie. Here the seam, its in-memory fake and the suite; `mezite-vault` has the rest.

#[cfg(any(test, feature = "conformance"))]
mod faulty;
mod memory;

#[cfg(any(test, feature = "conformance"))]
#[expect(clippy::expect_used, reason = "a suite of assertions")]
pub mod conformance;

pub use memory::MemorySink;

use async_trait::async_trait;
use mezite_core::SessionId;
use thiserror::Error;

/// Why a sink did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// There is a recording of this session already. Nothing is ever overwritten.
    #[error("there is a recording of session {0} already")]
    Exists(SessionId),
    /// There is no such recording, or not in this form.
    #[error("there is no recording of session {0}")]
    Missing(SessionId),
    /// The disk, bucket or network failed. How much was written is unknown.
    #[error("the recording store is unavailable: {0}")]
    Unavailable(String),
}

/// Which of a session's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a recording is either live or finished, and may have an index"
)]
pub enum Part {
    /// What is written while the session runs.
    Journal,
    /// What remains.
    Sealed,
    /// What the sealed file is searched by; sealed itself. It can be made anew, so nothing is lost with it.
    Index,
}

/// A part that a store holds, as a survey of the store tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "sinks build it")]
pub struct Stored {
    /// The session.
    pub id: SessionId,
    /// How many bytes the part has.
    pub bytes: u64,
    /// What the store calls this content: another content of the part has another. Not every store says it.
    pub version: Option<String>,
}

/// Keeps recordings by session. A session has first a journal, then, for good, a sealed file.
///
/// Names of files or objects are derived from the parsed [`SessionId`] alone, never from anything a client chose.
/// Implementations prove themselves with `conformance` (feature `conformance`).
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Begins the journal of a session with these first bytes, durably.
    ///
    /// # Errors
    /// [`SinkError::Exists`] if the session has a journal or a sealed file, [`SinkError::Unavailable`].
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError>;

    /// Adds to the journal. When this returns, a killed process does not lose the bytes.
    ///
    /// # Errors
    /// [`SinkError::Missing`] without [`Sink::open`], [`SinkError::Unavailable`].
    async fn append(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError>;

    /// Makes what was appended survive a power cut.
    ///
    /// # Errors
    /// [`SinkError::Missing`], [`SinkError::Unavailable`].
    async fn sync(&self, id: &SessionId) -> Result<(), SinkError>;

    /// Writes a piece of the coming sealed file. `offset` is the sum of the pieces before; 0 begins anew and throws
    /// away what an earlier attempt left. Nobody sees the file before [`Sink::finish`].
    ///
    /// # Errors
    /// [`SinkError::Missing`] without a journal, [`SinkError::Exists`] after the finish, [`SinkError::Unavailable`].
    async fn stage(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> Result<(), SinkError>;

    /// Makes the staged file the session's sealed file, durably and at once, then removes the journal.
    ///
    /// # Errors
    /// [`SinkError::Missing`] if nothing was staged, [`SinkError::Exists`], [`SinkError::Unavailable`].
    async fn finish(&self, id: &SessionId) -> Result<(), SinkError>;

    /// Keeps the search index of a sealed file, in place of the one before.
    ///
    /// # Errors
    /// [`SinkError::Missing`] without a sealed file, [`SinkError::Unavailable`].
    async fn put_index(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError>;

    /// Removes the sealed file and its index, durably: retention. A journal is never removed.
    ///
    /// # Errors
    /// [`SinkError::Missing`] without a sealed file, [`SinkError::Unavailable`].
    async fn remove(&self, id: &SessionId) -> Result<(), SinkError>;

    /// Up to `limit` bytes from `offset`; less only at the end, none behind it.
    ///
    /// # Errors
    /// [`SinkError::Missing`], [`SinkError::Unavailable`].
    async fn read(
        &self,
        id: &SessionId,
        part: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError>;

    /// How many bytes the part has now.
    ///
    /// # Errors
    /// [`SinkError::Missing`], [`SinkError::Unavailable`].
    async fn length(&self, id: &SessionId, part: Part) -> Result<u64, SinkError>;

    /// The sessions that have this part, oldest first. Journals are of sessions that run, or whose recorder died.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`].
    async fn list(&self, part: Part) -> Result<Vec<SessionId>, SinkError>;

    /// As [`Sink::list`], with what the store tells of each: where a question is a way through a network, one answer has many.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`].
    async fn survey(&self, part: Part) -> Result<Vec<Stored>, SinkError> {
        let mut found = Vec::new();
        for id in self.list(part).await? {
            let version = None;
            match self.length(&id, part).await {
                Ok(bytes) => found.push(Stored { id, bytes, version }),
                // It was removed meanwhile.
                Err(SinkError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The whole of what a survey found, or what has come in its place. A sink that reads through a network may keep copies.
    ///
    /// # Errors
    /// [`SinkError::Missing`], [`SinkError::Unavailable`].
    async fn read_stored(&self, stored: &Stored, part: Part) -> Result<Vec<u8>, SinkError> {
        self.read(&stored.id, part, 0, usize::MAX).await
    }

    /// Where a part lies, in words for people, if that is not where the finished ones lie.
    async fn place(&self, _id: &SessionId, _part: Part) -> Option<String> {
        None
    }
}
