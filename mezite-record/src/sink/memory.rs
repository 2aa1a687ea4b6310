//! The fake: recordings in a map.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mezite_core::SessionId;

use super::{Part, Sink, SinkError};

/// Keeps recordings in memory.
#[derive(Debug, Default)]
pub struct MemorySink(Mutex<BTreeMap<SessionId, Kept>>);

#[derive(Debug, Default)]
struct Kept {
    journal: Option<Vec<u8>>,
    staged: Option<Vec<u8>>,
    sealed: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
}

impl Kept {
    fn part(&self, part: Part) -> Option<&Vec<u8>> {
        match part {
            Part::Journal => self.journal.as_ref(),
            Part::Sealed => self.sealed.as_ref(),
            Part::Index => self.index.as_ref(),
        }
    }
}

impl MemorySink {
    /// An empty sink.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<SessionId, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError> {
        let mut kept = self.kept();
        if kept.contains_key(id) {
            return Err(SinkError::Exists(*id));
        }
        let fresh = Kept {
            journal: Some(head.to_vec()),
            ..Kept::default()
        };
        kept.insert(*id, fresh);
        Ok(())
    }

    async fn append(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        let mut kept = self.kept();
        let journal = kept.get_mut(id).and_then(|it| it.journal.as_mut());
        journal
            .ok_or(SinkError::Missing(*id))?
            .extend_from_slice(bytes);
        Ok(())
    }

    async fn sync(&self, id: &SessionId) -> Result<(), SinkError> {
        let kept = self.kept();
        let journal = kept.get(id).and_then(|it| it.journal.as_ref());
        journal.map(|_| ()).ok_or(SinkError::Missing(*id))
    }

    async fn stage(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let mut kept = self.kept();
        let entry = kept.get_mut(id).ok_or(SinkError::Missing(*id))?;
        if entry.sealed.is_some() {
            return Err(SinkError::Exists(*id));
        }
        let staged = entry.staged.get_or_insert_default();
        if offset == 0 {
            staged.clear();
        }
        if u64::try_from(staged.len()) != Ok(offset) {
            return Err(SinkError::Unavailable(format!(
                "a piece at {offset} does not follow the piece before"
            )));
        }
        staged.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(&self, id: &SessionId) -> Result<(), SinkError> {
        let mut kept = self.kept();
        let entry = kept.get_mut(id).ok_or(SinkError::Missing(*id))?;
        if entry.sealed.is_some() {
            return Err(SinkError::Exists(*id));
        }
        entry.sealed = Some(entry.staged.take().ok_or(SinkError::Missing(*id))?);
        entry.journal = None;
        Ok(())
    }

    async fn put_index(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        let mut kept = self.kept();
        let entry = kept.get_mut(id).filter(|it| it.sealed.is_some());
        entry.ok_or(SinkError::Missing(*id))?.index = Some(bytes.to_vec());
        Ok(())
    }

    async fn remove(&self, id: &SessionId) -> Result<(), SinkError> {
        let mut kept = self.kept();
        if kept.get(id).is_none_or(|it| it.sealed.is_none()) {
            return Err(SinkError::Missing(*id));
        }
        kept.remove(id);
        Ok(())
    }

    async fn read(
        &self,
        id: &SessionId,
        part: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError> {
        let kept = self.kept();
        let bytes = kept.get(id).and_then(|it| it.part(part));
        let bytes = bytes.ok_or(SinkError::Missing(*id))?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(from..).unwrap_or_default();
        Ok(rest.get(..limit).unwrap_or(rest).to_vec())
    }

    async fn length(&self, id: &SessionId, part: Part) -> Result<u64, SinkError> {
        let kept = self.kept();
        let bytes = kept.get(id).and_then(|it| it.part(part));
        let bytes = bytes.ok_or(SinkError::Missing(*id))?;
        Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }

    async fn list(&self, part: Part) -> Result<Vec<SessionId>, SinkError> {
        let kept = self.kept();
        let has = kept.iter().filter(|(_, it)| it.part(part).is_some());
        Ok(has.map(|(id, _)| *id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance;

    #[test]
    fn keeps_the_contract() {
        conformance::block_on(conformance::all(async || MemorySink::new()));
    }
}
