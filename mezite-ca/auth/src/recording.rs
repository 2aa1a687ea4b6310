//! Where recordings come from: a small trait that the composition root implements, because this crate knows neither
//! their format nor where they lie.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use mezite_core::{Secret, SessionId, Span, UnixTime};
use thiserror::Error;
use tokio_stream::Stream;

/// What a list shows of one recording.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct RecordingFacts {
    /// Of which session.
    pub session_id: SessionId,
    /// Whose session: a user name.
    pub user: String,
    /// On which node.
    pub node: String,
    /// As which account.
    pub login: String,
    /// When it began.
    pub started: UnixTime,
    /// How long the file is.
    pub bytes: u64,
    /// Whether it was sealed at its end.
    pub sealed: bool,
    /// Where it lies, in words, if that is not where the finished ones lie.
    pub place: Option<String>,
}

/// The bytes of a recording, chunk by chunk.
pub type RecordingBytes = Pin<Box<dyn Stream<Item = Result<Vec<u8>, RecordingError>> + Send>>;

/// A recording ready to be read.
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct OpenedRecording {
    /// What it is.
    pub facts: RecordingFacts,
    /// Its key, when the hub is one of the recipients.
    pub data_key: Option<Secret<Vec<u8>>>,
    /// The file.
    pub bytes: RecordingBytes,
}

impl fmt::Debug for OpenedRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedRecording")
            .field("facts", &self.facts)
            .field("data_key", &self.data_key)
            .finish_non_exhaustive()
    }
}

/// What to look for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the caller builds it")]
pub struct RecordingSearch {
    /// A piece of a line.
    pub text: String,
    /// In any case of letters.
    pub ignore_case: bool,
    /// Only sessions of this user.
    pub user: Option<String>,
    /// Only sessions that began then or later.
    pub since: Option<UnixTime>,
    /// Only sessions that began before.
    pub until: Option<UnixTime>,
    /// Most recordings that are given.
    pub limit: usize,
    /// Most lines of each.
    pub lines: usize,
}

/// A recording that holds the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct FoundRecording {
    /// Which.
    pub facts: RecordingFacts,
    /// Where in it.
    pub lines: Vec<FoundLine>,
    /// There are more lines.
    pub more: bool,
    /// It showed more than its index holds.
    pub clipped: bool,
}

/// A line that holds the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct FoundLine {
    /// Since the start of the session.
    pub at: Span,
    /// On which channel.
    pub channel: u32,
    /// `output`, `error`, `input`, `command` or `event`.
    pub kind: &'static str,
    /// The line.
    pub line: String,
}

/// What a search gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the composition root builds it")]
pub struct SearchOutcome {
    /// Newest first.
    pub found: Vec<FoundRecording>,
    /// Recordings that were looked through.
    pub searched: usize,
    /// Recordings that only their own recipients can open.
    pub closed: usize,
    /// Recordings that could not be read.
    pub failed: usize,
    /// There are more recordings with the text.
    pub more: bool,
}

/// Whether recordings of this user may be read by who searches. Asked for each, before its index is opened.
pub type MayRead = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Why a recording was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// There is none of this session.
    #[error("there is no recording of session `{0}`")]
    NotFound(SessionId),
    /// The disk or the bucket does not answer.
    #[error("the recording cannot be read: {0}")]
    Unavailable(String),
    /// There is nothing to look for.
    #[error("{0}")]
    Query(String),
}

impl RecordingError {
    /// The recording of this session does not exist.
    #[must_use]
    pub fn not_found(session_id: SessionId) -> Self {
        Self::NotFound(session_id)
    }

    /// It cannot be read; `why` is for the hub's operator.
    #[must_use]
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable(why.into())
    }
}

/// How far a recording is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two ways")]
pub enum Until {
    /// To its end at this moment.
    Now,
    /// To the end of its session: what is recorded comes as it is recorded. Bytes that are written while the recording is
    /// sealed may be left out; the sealed file has them.
    Over,
}

/// Lists and opens recordings.
#[async_trait]
pub trait RecordingSource: Send + Sync + fmt::Debug {
    /// All of them, newest first, at most `limit`; of one user, if one is named.
    ///
    /// # Errors
    /// [`RecordingError::Unavailable`].
    async fn list(
        &self,
        user: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RecordingFacts>, RecordingError>;

    /// What one of them is, without its bytes: access is decided on it.
    ///
    /// # Errors
    /// [`RecordingError::NotFound`], [`RecordingError::Unavailable`].
    async fn facts(&self, session_id: SessionId) -> Result<RecordingFacts, RecordingError>;

    /// One of them.
    ///
    /// # Errors
    /// [`RecordingError::NotFound`], [`RecordingError::Unavailable`].
    async fn open(
        &self,
        session_id: SessionId,
        until: Until,
    ) -> Result<OpenedRecording, RecordingError>;

    /// Looks through all finished ones that `may` allows.
    ///
    /// # Errors
    /// [`RecordingError::Query`], [`RecordingError::Unavailable`].
    async fn search(
        &self,
        search: RecordingSearch,
        may: MayRead,
    ) -> Result<SearchOutcome, RecordingError>;

    /// Deletes a finished one. Only retention does, after the event.
    ///
    /// # Errors
    /// [`RecordingError::NotFound`], [`RecordingError::Unavailable`].
    async fn remove(&self, session_id: SessionId) -> Result<(), RecordingError>;
}

/// A hub that keeps no recordings.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing in it")]
pub struct NoRecordings;

#[async_trait]
impl RecordingSource for NoRecordings {
    async fn list(
        &self,
        _user: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<RecordingFacts>, RecordingError> {
        Ok(Vec::new())
    }

    async fn facts(&self, session_id: SessionId) -> Result<RecordingFacts, RecordingError> {
        Err(RecordingError::NotFound(session_id))
    }

    async fn open(
        &self,
        session_id: SessionId,
        _until: Until,
    ) -> Result<OpenedRecording, RecordingError> {
        Err(RecordingError::NotFound(session_id))
    }

    async fn search(
        &self,
        _search: RecordingSearch,
        _may: MayRead,
    ) -> Result<SearchOutcome, RecordingError> {
        Ok(SearchOutcome::default())
    }

    async fn remove(&self, session_id: SessionId) -> Result<(), RecordingError> {
        Err(RecordingError::NotFound(session_id))
    }
}
