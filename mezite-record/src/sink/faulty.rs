//! A sink in whose way something stands, for tests of what records: it fails, hangs, or loses what it was given.

use async_trait::async_trait;
use mezite_core::SessionId;

use super::{MemorySink, Part, Sink, SinkError};

/// What a recorder asks of its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all that a recorder does")]
pub enum Step<'a> {
    /// A journal is begun.
    Open,
    /// These bytes are added to it.
    Append(&'a [u8]),
    /// They are to survive a power cut.
    Sync,
    /// A piece of the sealed file is written.
    Stage,
    /// The sealed file takes the journal's place.
    Finish,
}

/// What stands in the way.
#[async_trait]
pub trait Obstacle: Send + Sync + std::fmt::Debug {
    /// Comes before `kept` takes the step: it may wait, and fail. With `false` the step is answered as if it were done.
    async fn meet(
        &self,
        id: &SessionId,
        step: Step<'_>,
        kept: &MemorySink,
    ) -> Result<bool, SinkError>;

    /// Most bytes that one read gives.
    fn piece(&self) -> usize {
        usize::MAX
    }
}

/// A [`MemorySink`] behind an obstacle.
#[derive(Debug, Default)]
pub struct FaultySink<O> {
    obstacle: O,
    kept: MemorySink,
}

impl<O: Obstacle> FaultySink<O> {
    /// An empty one.
    pub fn new(obstacle: O) -> Self {
        let kept = MemorySink::new();
        Self { obstacle, kept }
    }

    /// What stands in its way.
    pub const fn obstacle(&self) -> &O {
        &self.obstacle
    }
}

#[async_trait]
impl<O: Obstacle> Sink for FaultySink<O> {
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError> {
        match self.obstacle.meet(id, Step::Open, &self.kept).await? {
            true => self.kept.open(id, head).await,
            false => Ok(()),
        }
    }

    async fn append(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        let step = Step::Append(bytes);
        match self.obstacle.meet(id, step, &self.kept).await? {
            true => self.kept.append(id, bytes).await,
            false => Ok(()),
        }
    }

    async fn sync(&self, id: &SessionId) -> Result<(), SinkError> {
        match self.obstacle.meet(id, Step::Sync, &self.kept).await? {
            true => self.kept.sync(id).await,
            false => Ok(()),
        }
    }

    async fn stage(&self, id: &SessionId, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        match self.obstacle.meet(id, Step::Stage, &self.kept).await? {
            true => self.kept.stage(id, offset, bytes).await,
            false => Ok(()),
        }
    }

    async fn finish(&self, id: &SessionId) -> Result<(), SinkError> {
        match self.obstacle.meet(id, Step::Finish, &self.kept).await? {
            true => self.kept.finish(id).await,
            false => Ok(()),
        }
    }

    async fn put_index(&self, id: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        self.kept.put_index(id, bytes).await
    }

    async fn remove(&self, id: &SessionId) -> Result<(), SinkError> {
        self.kept.remove(id).await
    }

    async fn read(
        &self,
        id: &SessionId,
        part: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError> {
        let most = limit.min(self.obstacle.piece());
        self.kept.read(id, part, offset, most).await
    }

    async fn length(&self, id: &SessionId, part: Part) -> Result<u64, SinkError> {
        self.kept.length(id, part).await
    }

    async fn list(&self, part: Part) -> Result<Vec<SessionId>, SinkError> {
        self.kept.list(part).await
    }
}
