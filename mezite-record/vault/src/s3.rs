//! Recordings in S3-compatible storage: written to a spool on the hub's disk, brought into the bucket while they grow.

mod bucket;
mod cache;
mod upload;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mezite_core::{Secret, SessionId};
use mezite_record::{Part, Sink, SinkError, Stored};
use object_store::path::PathPart;
use thiserror::Error;
use tokio::task::JoinSet;

use crate::DirectorySink;
use crate::layout::length;
use bucket::{Bucket, Fault, Piece};
use cache::IndexCache;
use upload::{Pace, Shared, Upload, lock};

/// How long a session's beginning waits for the bucket's word on whether it was recorded before.
const LOOK: Duration = Duration::from_secs(3);

/// How long a removal waits for an upload.
const SETTLE: Duration = Duration::from_secs(30);

/// The directory in the spool for copies of search indexes. No month has this name.
const INDEXES: &str = "indexes";

/// How to reach a bucket, and where the spool lies.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// `https://host[:port]` of the store; Amazon's own by default.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// What all names begin with: `a/b`, or nothing.
    pub prefix: String,
    /// Who we are there.
    pub access_key: AccessKey,
    /// Certificates, in PEM, of an authority that the system does not trust.
    pub ca_pem: Option<Vec<u8>>,
    /// This hub's name, which no other hub has: what a hub of this name left in the bucket is its own.
    pub hub: String,
    /// A directory on this hub's disk, for nobody else.
    pub spool: PathBuf,
    /// How many bytes of the spool the bucket may lack before nothing more is recorded.
    pub spool_limit: u64,
    /// How many bytes of the bucket's search indexes are kept on the disk as well, below the spool.
    pub index_cache: u64,
    /// A piece of a journal goes up when its oldest byte is so old,
    pub piece_every: Duration,
    /// or when it has so many bytes.
    pub piece_bytes: u64,
}

/// An access key of S3.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct AccessKey {
    /// Its id, which is no secret.
    pub id: String,
    /// What requests are signed with.
    pub secret: Secret<String>,
}

/// Why a bucket cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum S3Error {
    /// What was configured is not an address, a name or a certificate.
    #[error("the bucket cannot be used as it is configured: {0}")]
    Settings(String),
    /// The directory on the disk cannot be used.
    #[error("the spool `{path}` cannot be used: {error}", path = path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: String,
    },
    /// The store does not do what recordings need.
    #[error("bucket `{bucket}`: {error}")]
    Bucket {
        /// Its name.
        bucket: String,
        /// What is wrong.
        error: String,
        /// Whether trying again makes sense.
        passing: bool,
    },
}

/// Keeps recordings in a bucket, and on the hub's disk until they are there.
///
/// To be made and used within a tokio runtime. Dropped, it stops uploading; the next one over the same spool goes on.
#[derive(Debug)]
pub struct S3Sink {
    shared: Arc<Shared>,
    indexes: IndexCache,
    tasks: Mutex<JoinSet<()>>,
}

impl S3Sink {
    /// Opens the spool and goes on uploading the finished recordings in it. The bucket is not asked for anything yet.
    ///
    /// # Errors
    /// [`S3Error::Settings`], [`S3Error::Spool`].
    pub async fn open(settings: &S3Settings) -> Result<Self, S3Error> {
        let failed = |error: String| S3Error::Spool {
            path: settings.spool.clone(),
            error,
        };
        let bucket = Bucket::new(settings)?;
        let spool =
            DirectorySink::open(&settings.spool).map_err(|error| failed(error.to_string()))?;
        let waiting = spool.list(Part::Sealed).await;
        let waiting = waiting.map_err(|error| failed(error.to_string()))?;
        let indexes = IndexCache::open(settings.spool.join(INDEXES), settings.index_cache);
        let indexes = indexes.map_err(|error| failed(error.to_string()))?;
        let pace = Pace {
            every: settings.piece_every,
            bytes: settings.piece_bytes.max(1),
        };
        let hub = PathPart::from(settings.hub.as_str()).as_ref().to_owned();
        let shared = Shared::new(spool, bucket, hub, pace, settings.spool_limit);
        let sink = Self {
            shared: Arc::new(shared),
            indexes,
            tasks: Mutex::default(),
        };
        for id in waiting {
            sink.publish(&id)
                .await
                .map_err(|error| failed(error.to_string()))?;
        }
        Ok(sink)
    }

    /// Sees whether the bucket can be written, and refuses to overwrite, by writing one small object and removing it.
    ///
    /// # Errors
    /// [`S3Error::Bucket`].
    pub async fn check(&self) -> Result<(), S3Error> {
        let tried = self.shared.bucket.refuses_to_overwrite().await;
        tried.map_err(|fault| self.bucket_error(&fault))
    }

    /// The sessions whose journals lie in the spool and are not written any more: to be recovered.
    ///
    /// # Errors
    /// [`SinkError::Unavailable`].
    pub async fn unfinished(&self) -> Result<Vec<SessionId>, SinkError> {
        let mut found = self.shared.spool.list(Part::Journal).await?;
        found.retain(|id| self.shared.upload(id).is_none());
        Ok(found)
    }

    /// Brings back into the spool what `hubs` had uploaded of sessions that never ended: hubs whose disks are gone. Each of
    /// these sessions is then to be recovered. This hub is always one of them, and what it records now is left alone.
    ///
    /// # Errors
    /// [`S3Error::Bucket`], [`S3Error::Spool`].
    pub async fn fetch_lost(&self, hubs: &[String]) -> Result<Vec<SessionId>, S3Error> {
        let lost: Vec<String> = hubs
            .iter()
            .map(|hub| PathPart::from(hub.as_str()).as_ref().to_owned())
            .chain([self.shared.hub.clone()])
            .collect();
        let bucket = &self.shared.bucket;
        let failed = |fault: Fault| self.bucket_error(&fault);
        let mut fetched = Vec::new();
        for id in bucket.live().await.map_err(failed)? {
            if self.shared.upload(&id).is_some() || self.is_spooled(&id).await {
                continue;
            }
            let pieces = bucket.pieces(&id).await.map_err(failed)?;
            let theirs = |piece: &Piece| lost.contains(&piece.hub);
            if !pieces.first().is_none_or(theirs) {
                continue;
            }
            if bucket.exists(&bucket.sealed(&id)).await.map_err(failed)? {
                // It died just before it would have removed them.
                for piece in pieces {
                    bucket.remove(&piece.key).await.map_err(failed)?;
                }
                bucket.remove(&bucket.claim(&id)).await.map_err(failed)?;
            } else if !pieces.is_empty() {
                self.fetch(&id, &pieces).await?;
                fetched.push(id);
            }
        }
        Ok(fetched)
    }

    /// Waits until every finished recording is in the bucket; `false` if some are not by then.
    pub async fn drained(&self, patience: Duration) -> bool {
        self.shared.drained(patience).await
    }

    fn bucket_error(&self, fault: &Fault) -> S3Error {
        S3Error::Bucket {
            bucket: self.shared.bucket.name().to_owned(),
            error: fault.to_string(),
            passing: *fault != Fault::Overwrites,
        }
    }

    async fn is_spooled(&self, id: &SessionId) -> bool {
        let spool = &self.shared.spool;
        spool.length(id, Part::Journal).await.is_ok()
            || spool.length(id, Part::Sealed).await.is_ok()
    }

    /// Puts the pieces together as a journal in the spool.
    async fn fetch(&self, id: &SessionId, pieces: &[Piece]) -> Result<(), S3Error> {
        let mut journal = Vec::new();
        for piece in pieces {
            // Pieces go up one after the other: behind a gap lies nothing of ours.
            if piece.offset != length(&journal) {
                break;
            }
            let read = self.shared.bucket.read(&piece.key, 0, usize::MAX).await;
            journal.extend(read.map_err(|fault| self.bucket_error(&fault))?);
        }
        let spool = &self.shared.spool;
        let opened = spool.open(id, &journal).await;
        opened.map_err(|error| S3Error::Spool {
            path: spool.sealed_path(id),
            error: error.to_string(),
        })?;
        // Who claimed the name had a file that is gone.
        let claim = self.shared.bucket.claim(id);
        let removed = self.shared.bucket.remove(&claim).await;
        removed.map_err(|fault| self.bucket_error(&fault))
    }

    /// Uploads the finished recording of the spool, in the background.
    async fn publish(&self, id: &SessionId) -> Result<(), SinkError> {
        let bytes = self.shared.spool.length(id, Part::Sealed).await?;
        if let Some(upload) = self.shared.upload(id) {
            self.shared.sealed(&upload, bytes);
            return Ok(());
        }
        let upload = self.shared.journal(id, 0);
        self.shared.sealed(&upload, bytes);
        self.start(upload);
        Ok(())
    }

    fn start(&self, upload: Arc<Upload>) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(Arc::clone(&self.shared).run(upload));
    }

    /// Whether the bucket knows of a session already. A bucket that is away is not waited for: an id is drawn at random, and
    /// nothing is overwritten later either.
    async fn is_known(&self, id: &SessionId) -> bool {
        if self.shared.is_away() {
            return false;
        }
        let bucket = &self.shared.bucket;
        let look = async {
            Ok::<_, Fault>(
                bucket.exists(&bucket.sealed(id)).await? || !bucket.pieces(id).await?.is_empty(),
            )
        };
        match tokio::time::timeout(LOOK, look).await {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => {
                tracing::warn!(session = %id, %error, "the bucket does not say whether it knows a session");
                false
            }
            Err(_) => {
                tracing::warn!(session = %id, "the bucket is slow to say whether it knows a session");
                false
            }
        }
    }

    fn upload_of(&self, id: &SessionId) -> Result<Arc<Upload>, SinkError> {
        self.shared.upload(id).ok_or(SinkError::Missing(*id))
    }

    fn unavailable(&self, fault: &Fault) -> SinkError {
        SinkError::Unavailable(format!("bucket `{}`: {fault}", self.shared.bucket.name()))
    }

    /// What an operation on the bucket means for the session.
    fn of<T>(&self, id: &SessionId, done: Result<T, Fault>) -> Result<T, SinkError> {
        done.map_err(|fault| match fault {
            Fault::Missing => SinkError::Missing(*id),
            Fault::Taken => SinkError::Exists(*id),
            fault @ (Fault::Overwrites | Fault::Failed(_)) => self.unavailable(&fault),
        })
    }

    /// A piece of a journal that another hub writes, as far as it is in the bucket.
    async fn read_journal(
        &self,
        id: &SessionId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, Fault> {
        let bucket = &self.shared.bucket;
        let pieces = self.journal_pieces(id).await?;
        let mut found = Vec::new();
        for piece in &pieces {
            let at = offset.saturating_add(length(&found));
            let left = limit.saturating_sub(found.len());
            let end = piece.offset.saturating_add(piece.size);
            if left == 0 || at < piece.offset || at >= end {
                continue;
            }
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(left);
            found.extend(bucket.read(&piece.key, at - piece.offset, most).await?);
        }
        Ok(found)
    }

    /// The pieces of a session that has no recording yet.
    async fn journal_pieces(&self, id: &SessionId) -> Result<Vec<Piece>, Fault> {
        let bucket = &self.shared.bucket;
        if self.shared.upload(id).is_some() {
            // Its recording lies in the spool.
            return Err(Fault::Missing);
        }
        let pieces = bucket.pieces(id).await?;
        if pieces.is_empty() || bucket.exists(&bucket.sealed(id)).await? {
            return Err(Fault::Missing);
        }
        Ok(pieces)
    }

    async fn live_elsewhere(&self) -> Result<Vec<Stored>, Fault> {
        let bucket = &self.shared.bucket;
        let mut found = Vec::new();
        for id in bucket.live().await? {
            let pieces = match self.journal_pieces(&id).await {
                Ok(pieces) => pieces,
                Err(Fault::Missing) => continue,
                Err(fault) => return Err(fault),
            };
            found.push(Stored {
                id,
                bytes: pieces.iter().map(|piece| piece.size).sum(),
                version: None,
            });
        }
        Ok(found)
    }
}

#[async_trait]
impl Sink for S3Sink {
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError> {
        self.shared.room(length(head)).await?;
        if self.is_known(id).await {
            return Err(SinkError::Exists(*id));
        }
        self.shared.spool.open(id, head).await?;
        self.start(self.shared.journal(id, length(head)));
        Ok(())
    }

    async fn append(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        let upload = self.upload_of(id)?;
        if let Some(why) = upload.refused() {
            return Err(SinkError::Unavailable(why));
        }
        self.shared.room(length(bytes)).await?;
        self.shared.spool.append(id, bytes).await?;
        self.shared.grow(&upload, length(bytes));
        Ok(())
    }

    async fn sync(&self, id: &SessionId) -> Result<(), SinkError> {
        self.shared.spool.sync(id).await
    }

    async fn stage(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        // While the journal is cut anew, its last bytes go up.
        if let Some(upload) = self.shared.upload(id) {
            self.shared.hurry(&upload);
        }
        match self.shared.spool.stage(id, offset, bytes).await {
            Err(SinkError::Missing(_)) => {
                let bucket = &self.shared.bucket;
                let sealed = bucket.exists(&bucket.sealed(id)).await;
                if self.of(id, sealed)? {
                    return Err(SinkError::Exists(*id));
                }
                let pieces = self.of(id, bucket.pieces(id).await)?;
                let other = pieces.into_iter().next().ok_or(SinkError::Missing(*id))?;
                let what = format!("session {id} is recorded by hub `{}`", other.hub);
                Err(SinkError::Unavailable(what))
            }
            staged => staged,
        }
    }

    async fn finish(&self, id: &SessionId) -> Result<(), SinkError> {
        self.shared.spool.finish(id).await?;
        self.publish(id).await
    }

    async fn put_index(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        self.length(id, Part::Sealed).await?;
        let bucket = &self.shared.bucket;
        // Whatever becomes of the attempt, the copy of the one before is none of it.
        self.indexes.forget(id);
        let put = bucket
            .put(&bucket.index(id), Bytes::copy_from_slice(bytes))
            .await;
        let stored = Stored {
            id: *id,
            bytes: length(bytes),
            version: self.of(id, put)?,
        };
        self.indexes.put(&stored, bytes);
        Ok(())
    }

    async fn remove(&self, id: &SessionId) -> Result<(), SinkError> {
        let bucket = &self.shared.bucket;
        self.length(id, Part::Sealed).await?;
        if !self.shared.uploaded(id, SETTLE).await {
            let what = format!("session {id} is still being uploaded; try again later");
            return Err(SinkError::Unavailable(what));
        }
        self.indexes.forget(id);
        // As in a directory, the recording goes last.
        let removed = async {
            bucket.size(&bucket.sealed(id)).await?;
            bucket.remove(&bucket.index(id)).await?;
            bucket.remove(&bucket.sealed(id)).await
        };
        self.of(id, removed.await)
    }

    async fn read(
        &self,
        id: &SessionId,
        part: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError> {
        // What is in the spool is newer, and what left it is in the bucket.
        match self.shared.spool.read(id, part, offset, limit).await {
            Err(SinkError::Missing(_)) => {}
            read => return read,
        }
        let bucket = &self.shared.bucket;
        let read = match part {
            Part::Journal => self.read_journal(id, offset, limit).await,
            Part::Sealed => bucket.read(&bucket.sealed(id), offset, limit).await,
            Part::Index => bucket.read(&bucket.index(id), offset, limit).await,
        };
        self.of(id, read)
    }

    async fn length(&self, id: &SessionId, part: Part) -> Result<u64, SinkError> {
        match self.shared.spool.length(id, part).await {
            Err(SinkError::Missing(_)) => {}
            found => return found,
        }
        let bucket = &self.shared.bucket;
        let found = match part {
            Part::Journal => self
                .journal_pieces(id)
                .await
                .map(|pieces| pieces.iter().map(|piece| piece.size).sum()),
            Part::Sealed => bucket.size(&bucket.sealed(id)).await,
            Part::Index => bucket.size(&bucket.index(id)).await,
        };
        self.of(id, found)
    }

    async fn list(&self, part: Part) -> Result<Vec<SessionId>, SinkError> {
        let found = self.survey(part).await?;
        Ok(found.into_iter().map(|it| it.id).collect())
    }

    async fn survey(&self, part: Part) -> Result<Vec<Stored>, SinkError> {
        // The spool first: what leaves it meanwhile is in the bucket by then.
        let mut found = self.shared.spool.survey(part).await?;
        let bucket = &self.shared.bucket;
        let elsewhere = match part {
            Part::Journal => self.live_elsewhere().await,
            Part::Sealed => bucket.recordings().await,
            Part::Index => bucket.indexes().await,
        };
        let elsewhere = elsewhere.map_err(|fault| self.unavailable(&fault))?;
        if part == Part::Index {
            self.indexes.keep_only(&elsewhere);
        }
        found.extend(elsewhere);
        // Of two the spool's comes first, and stays.
        found.sort_by_key(|it| it.id);
        found.dedup_by_key(|it| it.id);
        Ok(found)
    }

    async fn read_stored(&self, stored: &Stored, part: Part) -> Result<Vec<u8>, SinkError> {
        let copy = match part {
            Part::Index => self.indexes.get(stored),
            Part::Journal | Part::Sealed => None,
        };
        if let Some(copy) = copy {
            return Ok(copy);
        }
        let read = self.read(&stored.id, part, 0, usize::MAX).await?;
        if part == Part::Index {
            self.indexes.put(stored, &read);
        }
        Ok(read)
    }

    async fn place(&self, id: &SessionId, part: Part) -> Option<String> {
        if let Some(upload) = self.shared.upload(id) {
            return Some(self.shared.place(&upload));
        }
        let pieces = match part {
            Part::Journal => self.journal_pieces(id).await.ok()?,
            Part::Sealed | Part::Index => return None,
        };
        let hub = &pieces.first()?.hub;
        let bucket = self.shared.bucket.name();
        Some(format!("bucket {bucket}, in pieces from {hub}"))
    }
}
