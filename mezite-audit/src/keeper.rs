//! The keeper of the log: takes the tree on by the next events and says what is to be signed.
//!
//! Pure: a driver reads the stored [`Head`] and the events after [`Head::size`], calls [`Head::advance`], has
//! [`Head::checkpoint`] signed, and writes head and note in one commit of the store
//! (`Commit::for_log_keeping(HEAD, …).and_log_keeping(CHECKPOINT, …)`), expecting the head's old revision: of two
//! keepers one loses and reads again.

use mezite_core::store::StoredEvent;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::merkle::Frontier;

/// Name under which the head lies, for `Commit::for_log_keeping`; its key is `log/` and this.
pub const HEAD: &str = "head";

/// Name under which the newest signed checkpoint lies.
pub const CHECKPOINT: &str = "checkpoint";

/// Where the tree stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    tree: Frontier,
}

/// Why the tree was not taken on. The head is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The events do not follow the tree without a gap.
    #[error(
        "event {wanted} should come next, and {found} came: the log has a gap or was read wrongly"
    )]
    Gap {
        /// The sequence that continues the tree.
        wanted: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The stored head cannot be read.
    #[error("the stored head of the log is unreadable: {0}")]
    Head(String),
}

impl Head {
    /// The head as it was stored; nothing stored is a log without events.
    ///
    /// # Errors
    /// [`KeepError::Head`].
    pub fn read(stored: Option<&[u8]>) -> Result<Self, KeepError> {
        let Some(stored) = stored else {
            return Ok(Self::default());
        };
        serde_json::from_slice(stored).map_err(|error| KeepError::Head(error.to_string()))
    }

    /// The bytes to store.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        // Serialising numbers and strings cannot fail; an empty head would be refused when read.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How many events are in the tree: the next one to read is this plus 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The head after `events`, which follow it in order.
    ///
    /// # Errors
    /// [`KeepError::Gap`].
    pub fn advance(&self, events: &[StoredEvent]) -> Result<Self, KeepError> {
        let mut tree = self.tree.clone();
        for event in events {
            let wanted = tree.size() + 1;
            if event.sequence != wanted {
                return Err(KeepError::Gap {
                    wanted,
                    found: event.sequence,
                });
            }
            tree.append(&event.body);
        }
        Ok(Self { tree })
    }

    /// What is to be signed for this head in the log `origin`.
    #[must_use]
    pub fn checkpoint(&self, origin: impl Into<String>) -> Checkpoint {
        Checkpoint {
            origin: origin.into(),
            size: self.tree.size(),
            root: self.tree.root(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64) -> StoredEvent {
        StoredEvent {
            sequence,
            body: sequence.to_string().into_bytes(),
        }
    }

    #[test]
    fn many_steps_lead_where_one_step_leads() {
        let events: Vec<_> = (1..=9).map(stored).collect();
        let at_once = Head::default().advance(&events).unwrap();
        let mut head = Head::read(None).unwrap();
        for part in events.chunks(2) {
            head = Head::read(Some(&head.write()))
                .unwrap()
                .advance(part)
                .unwrap();
        }
        assert_eq!(head, at_once);
        assert_eq!(head.size(), 9);
        assert_eq!(head.checkpoint("a").body(), at_once.checkpoint("a").body());
    }

    #[test]
    fn attack_58_a_gap_a_repetition_or_a_swap_stops_the_keeper() {
        let head = Head::default().advance(&[stored(1)]).unwrap();
        for events in [vec![stored(3)], vec![stored(1)], vec![stored(3), stored(2)]] {
            let refused = head.advance(&events);
            let found = events[0].sequence;
            assert_eq!(refused, Err(KeepError::Gap { wanted: 2, found }));
        }
    }

    #[test]
    fn an_unreadable_head_is_not_an_empty_log() {
        assert!(matches!(Head::read(Some(b"")), Err(KeepError::Head(_))));
    }
}
