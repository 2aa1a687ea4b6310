//! Recordings for the auth service: where they lie, and the key of those that this hub can open.

use std::sync::Arc;

use async_trait::async_trait;
use mezite_auth::{
    OpenedRecording, RecordingBytes, RecordingError, RecordingFacts, RecordingSource,
};
use mezite_core::SessionId;
use mezite_record::{Identity, Part, Sink, SinkError};

/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// A header with many recipients still fits.
const HEAD: usize = 128 * 1024;

/// Reads what the gateway recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    sink: Arc<dyn Sink>,
    identity: Identity,
}

impl Recorded {
    pub(crate) fn new(sink: Arc<dyn Sink>, identity: Identity) -> Self {
        Self { sink, identity }
    }

    /// The sealed file if there is one, else the live journal.
    async fn start(&self, id: SessionId) -> Result<(Part, Vec<u8>), RecordingError> {
        for part in [Part::Sealed, Part::Journal] {
            match self.sink.read(&id, part, 0, HEAD).await {
                Ok(start) => return Ok((part, start)),
                Err(SinkError::Missing(_)) => {}
                Err(error) => return Err(RecordingError::unavailable(error.to_string())),
            }
        }
        Err(RecordingError::not_found(id))
    }

    fn facts_of(
        id: SessionId,
        part: Part,
        start: &[u8],
        bytes: u64,
    ) -> Result<RecordingFacts, RecordingError> {
        let header = mezite_record::decode::facts(start)
            .map_err(|error| RecordingError::unavailable(error.to_string()))?;
        Ok(RecordingFacts {
            session_id: id,
            user: header.user.to_string(),
            node: header.node.to_string(),
            login: header.login.to_string(),
            started: header.started,
            bytes,
            sealed: part == Part::Sealed,
        })
    }
}

#[async_trait]
impl RecordingSource for Recorded {
    async fn list(
        &self,
        user: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RecordingFacts>, RecordingError> {
        let unavailable = |error: SinkError| RecordingError::unavailable(error.to_string());
        let mut ids = self.sink.list(Part::Sealed).await.map_err(unavailable)?;
        ids.extend(self.sink.list(Part::Journal).await.map_err(unavailable)?);
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::new();
        for id in ids.into_iter().rev() {
            if found.len() >= limit {
                break;
            }
            match self.facts(id).await {
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
        let (part, start) = self.start(session_id).await?;
        let length = self.sink.length(&session_id, part).await;
        let length = length.map_err(|error| RecordingError::unavailable(error.to_string()))?;
        Self::facts_of(session_id, part, &start, length)
    }

    async fn open(&self, session_id: SessionId) -> Result<OpenedRecording, RecordingError> {
        let (part, start) = self.start(session_id).await?;
        let facts = self.facts(session_id).await?;
        let lent = mezite_record::decode::unlock(&start, std::slice::from_ref(&self.identity)).ok();
        let data_key =
            lent.map(|(_, key)| mezite_core::Secret::new(key.expose().expose().to_vec()));
        let sink = Arc::clone(&self.sink);
        let pieces = futures_util::stream::try_unfold(0_u64, move |offset| {
            let sink = Arc::clone(&sink);
            async move {
                let piece = sink.read(&session_id, part, offset, PIECE).await;
                let piece =
                    piece.map_err(|error| RecordingError::unavailable(error.to_string()))?;
                let next = offset.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                Ok((!piece.is_empty()).then_some((piece, next)))
            }
        });
        let bytes: RecordingBytes = Box::pin(pieces);
        Ok(OpenedRecording {
            facts,
            data_key,
            bytes,
        })
    }
}
