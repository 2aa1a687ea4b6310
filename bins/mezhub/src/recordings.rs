//! Recordings for the auth service: where they lie, the key of those that this hub can open, and their search indexes.

mod search;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use mezite_auth::{
    MayRead, OpenedRecording, RecordingBytes, RecordingError, RecordingFacts, RecordingSearch,
    RecordingSource, SearchOutcome, Until,
};
use mezite_core::SessionId;
use mezite_record::decode::MAX_START;
use mezite_record::{Identity, Part, Sink, SinkError};

/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// How often a journal is looked at for more, while somebody watches the session: a disk costs nothing; a bucket, which
/// gets a piece every few seconds, is asked more seldom the longer its answers take.
const LOOK: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_secs(3);
/// So much of the time may pass with looking.
const SHARE: u32 = 20;

/// How long to wait after a look that took so long and found nothing.
fn until_next_look(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(LOOK, SELDOM)
}

/// Recordings whose headers are read at the same time.
const AT_ONCE: usize = 16;

/// A header with many recipients still fits.
const HEAD: usize = 128 * 1024;

/// Reads what the gateway recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    sink: Arc<dyn Sink>,
    identity: Arc<Identity>,
}

impl Recorded {
    pub(crate) fn new(sink: Arc<dyn Sink>, identity: Identity) -> Self {
        Self {
            sink,
            identity: Arc::new(identity),
        }
    }

    /// The beginning of the sealed file if there is one, else of the live journal.
    async fn start(&self, id: SessionId, most: usize) -> Result<(Part, Vec<u8>), RecordingError> {
        for part in [Part::Sealed, Part::Journal] {
            match self.sink.read(&id, part, 0, most).await {
                Ok(start) => return Ok((part, start)),
                Err(SinkError::Missing(_)) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(RecordingError::not_found(id))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn unavailable(error: impl ToString) -> RecordingError {
    RecordingError::unavailable(error.to_string())
}

/// What the header says, which must be of this session.
fn facts_of(
    header: &mezite_record::Header,
    id: SessionId,
    part: Part,
    bytes: u64,
) -> Result<RecordingFacts, RecordingError> {
    if header.session_id != id {
        let other = header.session_id;
        let what = format!("the file of session {id} is a recording of session {other}");
        return Err(RecordingError::unavailable(what));
    }
    Ok(RecordingFacts {
        session_id: id,
        user: header.user.to_string(),
        node: header.node.to_string(),
        login: header.login.to_string(),
        started: header.started,
        bytes,
        sealed: part == Part::Sealed,
        place: None,
    })
}

#[async_trait]
impl RecordingSource for Recorded {
    async fn list(
        &self,
        user: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RecordingFacts>, RecordingError> {
        let mut ids = self.sink.list(Part::Sealed).await.map_err(unavailable)?;
        ids.extend(self.sink.list(Part::Journal).await.map_err(unavailable)?);
        ids.sort_unstable();
        ids.dedup();
        // Several at once: a bucket takes its time for each.
        let mut all = futures_util::stream::iter(ids.into_iter().rev())
            .map(|id| async move { (id, self.facts(id).await) })
            .buffered(AT_ONCE);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((id, facts)) = all.next().await
        {
            match facts {
                Ok(facts) if user.is_none_or(|user| facts.user == user) => found.push(facts),
                Ok(_) => {}
                // One that cannot be read must not hide the others.
                Err(error) => {
                    tracing::warn!(session = %id, %error, "a recording is left out of the list")
                }
            }
        }
        Ok(found)
    }

    async fn facts(&self, session_id: SessionId) -> Result<RecordingFacts, RecordingError> {
        let (part, start) = self.start(session_id, HEAD).await?;
        let length = self.sink.length(&session_id, part).await;
        let header = mezite_record::decode::facts(&start).map_err(unavailable)?;
        let facts = facts_of(&header, session_id, part, length.map_err(unavailable)?)?;
        let place = self.sink.place(&session_id, part).await;
        Ok(RecordingFacts { place, ..facts })
    }

    async fn open(
        &self,
        session_id: SessionId,
        until: Until,
    ) -> Result<OpenedRecording, RecordingError> {
        let (part, start) = self.start(session_id, MAX_START).await?;
        let length = self.sink.length(&session_id, part).await;
        let header = mezite_record::decode::facts(&start).map_err(unavailable)?;
        let facts = facts_of(&header, session_id, part, length.map_err(unavailable)?)?;
        // Its first chunk has to open, which vouches for whose recording it is: whoever can write to the store shall not
        // get at a key by writing themselves into a header.
        let lent =
            mezite_record::decode::unlock(&start, std::slice::from_ref(&*self.identity)).ok();
        let data_key =
            lent.map(|(_, key)| mezite_core::Secret::new(key.expose().expose().to_vec()));
        let sink = Arc::clone(&self.sink);
        let pieces = futures_util::stream::try_unfold(0_u64, move |offset| {
            let sink = Arc::clone(&sink);
            async move {
                loop {
                    let began = tokio::time::Instant::now();
                    let piece = match sink.read(&session_id, part, offset, PIECE).await {
                        Ok(piece) => piece,
                        // The session is over, and its recording sealed.
                        Err(SinkError::Missing(_)) if part == Part::Journal && offset > 0 => {
                            return Ok(None);
                        }
                        Err(error) => return Err(unavailable(error)),
                    };
                    if piece.is_empty() && part == Part::Journal && until == Until::Over {
                        tokio::time::sleep(until_next_look(began.elapsed())).await;
                        continue;
                    }
                    let next =
                        offset.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    return Ok((!piece.is_empty()).then_some((piece, next)));
                }
            }
        });
        let bytes: RecordingBytes = Box::pin(pieces);
        Ok(OpenedRecording {
            facts,
            data_key,
            bytes,
        })
    }

    async fn search(
        &self,
        search: RecordingSearch,
        may: MayRead,
    ) -> Result<SearchOutcome, RecordingError> {
        self.search_all(search, may).await
    }

    async fn remove(&self, session_id: SessionId) -> Result<(), RecordingError> {
        match self.sink.remove(&session_id).await {
            Ok(()) => Ok(()),
            Err(SinkError::Missing(id)) => Err(RecordingError::not_found(id)),
            Err(error) => Err(unavailable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_store_is_asked_more_seldom() {
        for (took, wait) in [(0, 100), (1, 100), (40, 800), (400, 3000), (60_000, 3000)] {
            let waits = until_next_look(Duration::from_millis(took));
            assert_eq!(waits, Duration::from_millis(wait), "{took} ms");
        }
    }
}
