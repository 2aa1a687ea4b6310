//! Everything that a store holds, piece by piece: what a backup is made from, and a store from a backup.

use async_trait::async_trait;

use super::{Key, Revision, StoreError, StoredEvent, Versioned};

/// How far the numbers of a store were given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends build it")]
pub struct Counters {
    /// The newest revision.
    pub revision: Revision,
    /// The sequence of the last event.
    pub sequence: u64,
}

/// One thing that a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a store holds nothing else, and a backup leaves nothing out"
)]
pub enum Piece {
    /// A key with its value.
    Entry(Key, Versioned),
    /// An event.
    Event(StoredEvent),
}

/// Pieces in order: keys by their bytes, then events by sequence.
#[async_trait]
pub trait Pieces: Send {
    /// The next few; none when all were given.
    ///
    /// # Errors
    /// [`StoreError`]: what comes after it is unknown.
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError>;
}

/// All that a store held at one moment.
#[expect(clippy::exhaustive_structs, reason = "backends build it")]
pub struct Dump {
    /// As of that moment.
    pub counters: Counters,
    /// The rest.
    pub pieces: Box<dyn Pieces>,
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// By how much revisions jump when a store is restored, so that none which somebody remembers from before is
/// ever given again.
pub const REVISION_GAP: u64 = 1 << 32;
