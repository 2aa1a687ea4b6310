//! The fake: a receiver in memory that can be made to fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mezite_core::store::StoredEvent;

use super::{Batch, Sink, SinkError};

/// Keeps what it is handed. Clones share one receiver.
#[derive(Clone, Debug, Default)]
pub struct MemorySink(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    received: Vec<StoredEvent>,
    checkpoint: Option<String>,
    dead: bool,
}

impl MemorySink {
    /// A receiver that has nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every event in the order in which it came, repetitions included.
    #[must_use]
    pub fn received(&self) -> Vec<StoredEvent> {
        self.state().received.clone()
    }

    /// The newest checkpoint that came.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        self.state().checkpoint.clone()
    }

    /// From now on everything fails, or works again.
    pub fn set_dead(&self, dead: bool) {
        self.state().dead = dead;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn deliver(&self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let mut state = self.state();
        if state.dead {
            return Err(SinkError("the receiver is dead".to_owned()));
        }
        state.received.extend_from_slice(batch.events);
        if let Some(note) = batch.checkpoint {
            state.checkpoint = Some(note.to_owned());
        }
        Ok(())
    }

    async fn acknowledged(&self) -> Result<u64, SinkError> {
        Ok(self
            .state()
            .received
            .last()
            .map_or(0, |event| event.sequence))
    }
}
