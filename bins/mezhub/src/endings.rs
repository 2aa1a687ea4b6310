//! Sessions that began and whose end is not in the log yet: one empty file each, so that a hub that was killed between
//! sealing a recording and reporting the end, or whose database was away then, still tells of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mezite_audit::catalogue::SessionRecordingRecovered;
use mezite_auth::Auth;
use mezite_core::SessionId;
use mezite_core::store::{LogQuery, Store, StoreError};
use mezite_record::{Part, Sink, SinkError};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// How often is looked for sessions that are over and have no end.
const ROUND: Duration = Duration::from_secs(5);

/// A session that is over has so long to report its end by itself.
const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of a recording that are read at once.
const PIECE: usize = 256 * 1024;

/// A recording's header with many recipients still fits.
const HEAD: usize = 128 * 1024;

/// The sessions of this hub without an end.
#[derive(Debug)]
pub(crate) struct Endings {
    directory: PathBuf,
    /// Those of this process, and since when they are over.
    known: Mutex<BTreeMap<SessionId, Option<Instant>>>,
}

/// Notes when the session is over.
#[derive(Debug)]
pub(crate) struct Begun {
    endings: Arc<Endings>,
    id: SessionId,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(over) = self.endings.known().get_mut(&self.id) {
            *over = Some(Instant::now());
        }
    }
}

impl Endings {
    /// Keeps its files in `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(directory: &Path) -> io::Result<Arc<Self>> {
        fs::create_dir_all(directory)?;
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            known: Mutex::default(),
        }))
    }

    /// A session may begin: from now on its end is owed.
    ///
    /// # Errors
    /// What the system says; then it must not begin.
    pub(crate) fn begin(self: &Arc<Self>, id: SessionId) -> io::Result<Begun> {
        fs::File::create(self.path(id))?;
        self.known().insert(id, None);
        Ok(Begun {
            endings: Arc::clone(self),
            id,
        })
    }

    /// The end is in the log.
    pub(crate) fn ended(&self, id: SessionId) {
        self.known().remove(&id);
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(session = %id, %error, "a session's end is noted twice at the next start");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Sees to what is owed, again and again, until the future is dropped.
    pub(crate) async fn run(
        self: Arc<Self>,
        auth: Auth,
        store: Arc<dyn Store>,
        sink: Arc<dyn Sink>,
    ) {
        loop {
            tokio::time::sleep(ROUND).await;
            self.settle(&auth, &*store, &*sink).await;
        }
    }

    /// Reports the end of each session that is over, has begun, and has none in the log.
    pub(crate) async fn settle(&self, auth: &Auth, store: &dyn Store, sink: &dyn Sink) {
        for id in self.over() {
            match settle_one(auth, store, sink, id).await {
                Ok(true) => self.ended(id),
                // Its journal is closed at the next start, which tells of it.
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(session = %id, error, "the end of a session could not be reported; trying on");
                }
            }
        }
    }

    fn over(&self) -> Vec<SessionId> {
        let files = fs::read_dir(&self.directory).into_iter().flatten();
        let ids = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
        let known = self.known();
        ids.filter(|id| match known.get(id) {
            None => true,
            Some(over) => over.is_some_and(|since| since.elapsed() > PATIENCE),
        })
        .collect()
    }

    fn path(&self, id: SessionId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SessionId, Option<Instant>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `true` when nothing is owed any more.
async fn settle_one(
    auth: &Auth,
    store: &dyn Store,
    sink: &dyn Sink,
    id: SessionId,
) -> Result<bool, String> {
    let has = async |event_type| {
        let found = has_event(store, id, event_type).await;
        found.map_err(|error| error.to_string())
    };
    if !has("session.start").await? {
        return Ok(true);
    }
    if has("session.end").await? || has("session.recording.recovered").await? {
        return Ok(true);
    }
    let (digest, bytes, head) = match digest(sink, id).await {
        Ok(sealed) => sealed,
        Err(SinkError::Missing(_)) => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    let facts = mezite_record::decode::facts(&head).ok();
    let reported = auth.report(|stamp| {
        SessionRecordingRecovered {
            user_name: facts.as_ref().map(|facts| facts.user.as_str()),
            session_id: id,
            server_id: facts.as_ref().map(|facts| &facts.node_id),
            server_hostname: facts.as_ref().map(|facts| facts.node.as_str()),
            login: facts.as_ref().map(|facts| facts.login.as_str()),
            recording_sha256: &digest,
            recording_bytes: bytes,
        }
        .event(stamp)
    });
    reported.await.map_err(|error| error.to_string())?;
    tracing::warn!(session = %id, "a session whose end was not reported is reported as recovered");
    Ok(true)
}

async fn has_event(store: &dyn Store, id: SessionId, event_type: &str) -> Result<bool, StoreError> {
    let query = LogQuery {
        session_id: Some(id.to_string()),
        event_type: Some(event_type.to_owned()),
        ..LogQuery::after(0, 1)
    };
    Ok(!store.log(&query).await?.is_empty())
}

/// SHA-256 and length of a sealed recording, and its beginning.
async fn digest(sink: &dyn Sink, id: SessionId) -> Result<(String, u64, Vec<u8>), SinkError> {
    let head = sink.read(&id, Part::Sealed, 0, HEAD).await?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    loop {
        let piece = sink.read(&id, Part::Sealed, bytes, PIECE).await?;
        if piece.is_empty() {
            let digest = data_encoding::HEXLOWER.encode(&hash.finalize());
            return Ok((digest, bytes, head));
        }
        bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        hash.update(&piece);
    }
}
