//! What is not in the bucket yet, and the task of each session that brings it there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use mezite_core::SessionId;
use mezite_record::{Part, Sink, SinkError};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::{Bucket, Fault};
use crate::DirectorySink;
use crate::layout::length;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Bytes read at once to be hashed.
const PIECE: usize = 1024 * 1024;

/// How long a writer waits for a store that is slow before it takes it for one that is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a piece of a journal goes up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) every: Duration,
    pub(super) bytes: u64,
}

/// Everything that uploads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spool: DirectorySink,
    pub(super) bucket: Bucket,
    /// This hub, as it stands in the names of objects.
    pub(super) hub: String,
    pub(super) pace: Pace,
    /// How many bytes the spool may be ahead of the bucket.
    pub(super) limit: u64,
    pub(super) uploads: Mutex<BTreeMap<SessionId, Arc<Upload>>>,
    /// Bytes that the bucket does not have.
    behind: Mutex<u64>,
    /// An upload went on or was done.
    moved: Notify,
    /// Since when the store fails, and why.
    away: Mutex<Option<(Instant, String)>>,
}

/// One session of this hub.
#[derive(Debug)]
pub(super) struct Upload {
    id: SessionId,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Of the journal while it is written, then of the sealed file.
    length: u64,
    uploaded: u64,
    /// When the oldest byte that is not uploaded came.
    since: Option<Instant>,
    /// The end is near: no waiting.
    hurry: bool,
    sealed: bool,
    /// Why it will never be uploaded.
    refused: Option<String>,
}

impl State {
    fn pending(&self) -> u64 {
        match self.refused {
            None => self.length.saturating_sub(self.uploaded),
            Some(_) => 0,
        }
    }
}

/// What an upload does next.
enum Next {
    Piece { offset: u64, most: u64 },
    Sealed,
}

/// Why it cannot go on.
enum Stop {
    /// Now.
    Fault(Fault),
    /// Ever: something else has the name.
    Refused(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Overwrites => Self::Refused(fault.to_string()),
            fault @ (Fault::Taken | Fault::Missing | Fault::Failed(_)) => Self::Fault(fault),
        }
    }
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Self {
        Self::Fault(Fault::Failed(error.to_string()))
    }
}

impl Shared {
    pub(super) fn new(
        spool: DirectorySink,
        bucket: Bucket,
        hub: String,
        pace: Pace,
        limit: u64,
    ) -> Self {
        Self {
            spool,
            bucket,
            hub,
            pace,
            limit,
            uploads: Mutex::default(),
            behind: Mutex::default(),
            moved: Notify::new(),
            away: Mutex::default(),
        }
    }

    pub(super) fn upload(&self, id: &SessionId) -> Option<Arc<Upload>> {
        lock(&self.uploads).get(id).cloned()
    }

    /// A journal of this session begins or goes on; `length` bytes of it are in the spool.
    pub(super) fn journal(&self, id: &SessionId, length: u64) -> Arc<Upload> {
        let upload = Arc::new(Upload {
            id: *id,
            state: Mutex::default(),
            changed: Notify::new(),
        });
        lock(&self.uploads).insert(*id, Arc::clone(&upload));
        self.grow(&upload, length);
        upload
    }

    pub(super) fn grow(&self, upload: &Upload, bytes: u64) {
        self.change(upload, |state| {
            state.length += bytes;
            state.since.get_or_insert_with(Instant::now);
        });
    }

    /// The journal became a file of `bytes`.
    pub(super) fn sealed(&self, upload: &Upload, bytes: u64) {
        self.change(upload, |state| {
            (state.length, state.uploaded, state.sealed) = (bytes, 0, true);
        });
    }

    /// What is left of the journal goes up now.
    pub(super) fn hurry(&self, upload: &Upload) {
        self.change(upload, |state| state.hurry = true);
    }

    /// Changes the state, and what is behind with it.
    fn change(&self, upload: &Upload, act: impl FnOnce(&mut State)) {
        {
            let mut state = lock(&upload.state);
            let before = state.pending();
            act(&mut state);
            let mut behind = lock(&self.behind);
            *behind = behind
                .saturating_add(state.pending())
                .saturating_sub(before);
        }
        upload.changed.notify_one();
        self.moved.notify_waiters();
    }

    /// Returns when `more` bytes may be written to the spool.
    pub(super) async fn room(&self, more: u64) -> Result<(), SinkError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let moved = self.moved.notified();
            let behind = *lock(&self.behind);
            if behind == 0 || behind.saturating_add(more) <= self.limit {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return Err(SinkError::Unavailable(format!(
                    "bucket `{}` has not taken {behind} bytes of recordings, and the spool may keep {} of them ({})",
                    self.bucket.name(),
                    self.limit,
                    self.trouble(),
                )));
            }
        }
    }

    /// Waits until nothing of the session is left to upload.
    pub(super) async fn uploaded(&self, id: &SessionId, patience: Duration) -> bool {
        self.wait(patience, |uploads| !uploads.contains_key(id))
            .await
    }

    /// Waits until every finished recording is in the bucket.
    pub(super) async fn drained(&self, patience: Duration) -> bool {
        let done = |uploads: &BTreeMap<SessionId, Arc<Upload>>| {
            uploads.values().all(|it| {
                let state = lock(&it.state);
                !state.sealed || state.refused.is_some()
            })
        };
        self.wait(patience, done).await
    }

    async fn wait(
        &self,
        patience: Duration,
        done: impl Fn(&BTreeMap<SessionId, Arc<Upload>>) -> bool,
    ) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let moved = self.moved.notified();
            if done(&lock(&self.uploads)) {
                return true;
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return false;
            }
        }
    }

    /// Why the store fails, in words.
    fn trouble(&self) -> String {
        match &*lock(&self.away) {
            Some((since, why)) => format!(
                "it fails since {} s: {why}",
                since.elapsed().as_secs().max(1)
            ),
            None => String::from("it is slower than the sessions"),
        }
    }

    pub(super) fn is_away(&self) -> bool {
        lock(&self.away).is_some()
    }

    fn went_well(&self) {
        if lock(&self.away).take().is_some() {
            tracing::info!(
                bucket = self.bucket.name(),
                "the bucket takes recordings again"
            );
        }
    }

    fn went_wrong(&self, fault: &Fault) {
        let mut away = lock(&self.away);
        if away.is_none() {
            tracing::error!(bucket = self.bucket.name(), error = %fault, "the bucket takes no recordings; they stay in the spool, and it is tried again");
        }
        let since = away.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *away = Some((since, fault.to_string()));
    }

    /// Where a session of this hub lies that is not in the bucket yet.
    pub(super) fn place(&self, upload: &Upload) -> String {
        let state = lock(&upload.state);
        let place = format!("spool of {}", self.hub);
        match (&state.refused, state.pending()) {
            (Some(why), _) => format!("{place}: {why}"),
            (None, 0) if !state.sealed => format!("{place}, all of it in the bucket too"),
            (None, 0) => place,
            (None, pending) if self.is_away() => {
                format!(
                    "{place}, {pending} bytes not in the bucket: {}",
                    self.trouble()
                )
            }
            (None, pending) => format!("{place}, {pending} bytes not in the bucket yet"),
        }
    }

    /// Brings one session into the bucket, however long it takes.
    pub(super) async fn run(self: Arc<Self>, upload: Arc<Upload>) {
        let (shortest, longest) = PAUSES;
        let mut pause = shortest;
        loop {
            let next = upload.next(self.pace).await;
            let done = match next {
                Next::Piece { offset, most } => self.send_piece(&upload, offset, most).await,
                Next::Sealed => self.publish(&upload.id).await,
            };
            match (done, next) {
                (Ok(()), Next::Sealed) => {
                    self.went_well();
                    // Nothing waits for it any more, and what it held of the spool is free.
                    self.change(&upload, |state| state.uploaded = state.length);
                    lock(&self.uploads).remove(&upload.id);
                    return self.moved.notify_waiters();
                }
                (Ok(()), Next::Piece { .. }) => {
                    self.went_well();
                    pause = shortest;
                }
                (Err(Stop::Refused(why)), _) => {
                    tracing::error!(session = %upload.id, error = why, "a recording is not uploaded and stays in the spool");
                    return self.change(&upload, |state| state.refused = Some(why));
                }
                (Err(Stop::Fault(fault)), _) => {
                    self.went_wrong(&fault);
                    // Several hubs do not come back all at once.
                    tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    async fn send_piece(&self, upload: &Upload, offset: u64, most: u64) -> Result<(), Stop> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let read = self
            .spool
            .read(&upload.id, Part::Journal, offset, most)
            .await;
        let piece = match read {
            Ok(piece) => Bytes::from(piece),
            // It was sealed a moment ago, and goes up as a whole; or somebody removed it, and there is nothing to send.
            Err(SinkError::Missing(_)) => {
                tokio::time::sleep(PAUSES.0).await;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.bucket.refuses_to_overwrite().await?;
        let key = self.bucket.piece(&upload.id, &self.hub, offset);
        let count = match self.bucket.put_new(&key, piece.clone()).await {
            Ok(()) => length(&piece),
            // An attempt whose answer was lost, if it is what we would have written.
            Err(Fault::Taken) => {
                let there = self.bucket.read(&key, 0, usize::MAX).await?;
                if there.is_empty() || !piece.starts_with(&there) {
                    return Err(Stop::Refused(format!(
                        "another recorder writes this session: `{key}` holds something else"
                    )));
                }
                length(&there)
            }
            Err(fault) => return Err(fault.into()),
        };
        self.change(upload, |state| {
            if !state.sealed {
                state.uploaded += count;
                state.since = (state.uploaded < state.length).then(Instant::now);
            }
        });
        Ok(())
    }

    /// Makes the sealed file of the spool the recording in the bucket, then removes what led to it.
    async fn publish(&self, id: &SessionId) -> Result<(), Stop> {
        self.bucket.refuses_to_overwrite().await?;
        let size = self.spool.length(id, Part::Sealed).await?;
        let digest = self.spooled_digest(id).await?;
        // Completing an upload in parts is not conditional everywhere. Who holds the claim alone may write the name, so that
        // the look before is enough.
        let claim = self.bucket.claim(id);
        let claimed = self
            .bucket
            .put_new(&claim, Bytes::from(digest.clone()))
            .await;
        match claimed {
            Err(Fault::Taken) => {
                let holder = self.bucket.read(&claim, 0, digest.len()).await?;
                if holder != digest.as_bytes() {
                    return Err(Stop::Refused(String::from(
                        "another file is being published as the recording of this session",
                    )));
                }
            }
            claimed => claimed?,
        }
        let key = self.bucket.sealed(id);
        if !self.bucket.exists(&key).await? {
            match self.bucket.put_file(&key, size, &self.spool, id).await {
                Err(fault) if fault != Fault::Taken => return Err(fault.into()),
                Ok(()) | Err(_) => {}
            }
        }
        if self.bucket.digest(&key).await? != digest {
            return Err(Stop::Refused(format!(
                "`{key}` does not read back as what was sealed here; nothing is overwritten"
            )));
        }
        for piece in self.bucket.pieces(id).await? {
            self.bucket.remove(&piece.key).await?;
        }
        self.bucket.remove(&claim).await?;
        Ok(self.spool.remove(id).await?)
    }

    async fn spooled_digest(&self, id: &SessionId) -> Result<String, SinkError> {
        let (mut hash, mut offset) = (Sha256::new(), 0);
        loop {
            let piece = self.spool.read(id, Part::Sealed, offset, PIECE).await?;
            if piece.is_empty() {
                return Ok(HEXLOWER.encode(&hash.finalize()));
            }
            offset += length(&piece);
            hash.update(&piece);
            tokio::task::yield_now().await;
        }
    }
}

impl Upload {
    /// Why the recording of this session cannot go on, if so.
    pub(super) fn refused(&self) -> Option<String> {
        lock(&self.state).refused.clone()
    }

    /// Waits until there is something to do.
    async fn next(&self, pace: Pace) -> Next {
        loop {
            let changed = self.changed.notified();
            let due = match self.due(pace) {
                Ok(next) => return next,
                Err(due) => due,
            };
            match due {
                Some(due) => drop(tokio::time::timeout_at(due, changed).await),
                None => changed.await,
            }
        }
    }

    /// What to do now, or when to look again.
    fn due(&self, pace: Pace) -> Result<Next, Option<Instant>> {
        let state = lock(&self.state);
        if state.sealed {
            return Ok(Next::Sealed);
        }
        let pending = state.pending();
        if pending == 0 {
            return Err(None);
        }
        let due = state.since.map(|since| since + pace.every);
        if state.hurry || pending >= pace.bytes || due.is_none_or(|due| due <= Instant::now()) {
            return Ok(Next::Piece {
                offset: state.uploaded,
                most: pending.min(pace.bytes),
            });
        }
        Err(due)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessKey, S3Settings};
    use mezite_core::UnixTime;

    /// A task that found nothing to do must not look again at once: it would take a whole processor until there is.
    #[tokio::test(start_paused = true)]
    async fn a_spool_file_that_is_gone_is_looked_for_again_after_a_pause() {
        let root = tempfile::tempdir().unwrap();
        let settings = S3Settings {
            bucket: "recordings".into(),
            endpoint: Some("http://127.0.0.1:1".into()),
            region: "us-east-1".into(),
            prefix: String::new(),
            access_key: AccessKey {
                id: "id".into(),
                secret: String::from("secret").into(),
            },
            ca_pem: None,
            hub: "hub-a".into(),
            spool: root.path().join("spool"),
            spool_limit: 1000,
            index_cache: 0,
            piece_every: Duration::from_secs(5),
            piece_bytes: 1000,
        };
        let spool = DirectorySink::open(&settings.spool).unwrap();
        let bucket = Bucket::new(&settings).unwrap();
        let pace = Pace {
            every: settings.piece_every,
            bytes: settings.piece_bytes,
        };
        let shared = Shared::new(spool, bucket, settings.hub, pace, settings.spool_limit);
        let id = SessionId::new(UnixTime::from_secs(1_767_225_600), [7; 16]);
        // Its journal is not in the spool.
        let upload = shared.journal(&id, 2000);
        let began = Instant::now();
        for _ in 0..3 {
            assert!(matches!(upload.due(pace), Ok(Next::Piece { .. })));
            assert!(shared.send_piece(&upload, 0, 1000).await.is_ok());
        }
        assert!(began.elapsed() >= PAUSES.0 * 3, "{:?}", began.elapsed());
        assert!(!shared.is_away(), "the store was not asked");
    }
}
