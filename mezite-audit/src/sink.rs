//! The [`Sink`] seam: where copies of the log go. Here the seam, its in-memory fake, the suite, and the pure parts of
//! what travels; `mezite-sinks` has the ones that write and send.
//!
//! A driver reads sealed events from the store, in order, and hands them over in batches. It keeps a durable cursor,
//! which moves only after [`Sink::deliver`] has returned: each event arrives at least once, in order, without a gap.
//! A receiver knows a repetition by its `sequence`.

pub mod syslog;

mod memory;

#[cfg(any(test, feature = "conformance"))]
#[expect(clippy::expect_used, reason = "a suite of assertions")]
pub mod conformance;

pub use memory::MemorySink;

use async_trait::async_trait;
use mezite_core::store::StoredEvent;
use thiserror::Error;

/// What is handed over at once.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "the driver builds it")]
pub struct Batch<'a> {
    /// By rising sequence. None: only the checkpoint is new.
    pub events: &'a [StoredEvent],
    /// The newest signed note, which covers at least these events: kept outside, it shows a database that was rolled
    /// back.
    pub checkpoint: Option<&'a str>,
}

impl Batch<'_> {
    /// The sequence of the last event.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.events.last().map(|event| event.sequence)
    }
}

/// Why a batch did not arrive, or not surely. Any part of it may have; it is handed over again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// A receiver of copies of the log.
///
/// Implementations prove themselves with `conformance` (feature `conformance`).
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Hands `batch` over and returns when the receiver has it. Ends by itself within a minute.
    ///
    /// # Errors
    /// [`SinkError`] in words for an operator, without secrets.
    async fn deliver(&self, batch: &Batch<'_>) -> Result<(), SinkError>;

    /// The sequence up to which the receiver is known to have all; 0 if it cannot be asked. It may be ahead of the
    /// driver's cursor, never behind what [`Sink::deliver`] has returned for.
    ///
    /// # Errors
    /// [`SinkError`].
    async fn acknowledged(&self) -> Result<u64, SinkError>;
}
