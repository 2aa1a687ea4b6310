//! Questions to the event log.

use crate::event::Facts;
use crate::id::EventId;
use crate::time::UnixTime;

/// In which order events are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two directions")]
pub enum Order {
    /// By rising sequence.
    #[default]
    OldestFirst,
    /// By falling sequence.
    NewestFirst,
}

/// Which events to read. Every filter that is set must match; an unset filter matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "callers build it with `..LogQuery::default()`"
)]
pub struct LogQuery {
    /// Only sequences above this one: the cursor for reading forward. Sequences start at 1.
    pub after: u64,
    /// Only sequences below this one: the cursor for reading backward.
    pub before: Option<u64>,
    /// The record of this name.
    pub id: Option<EventId>,
    /// The dotted type, or a prefix of it that ends with a dot (`user.`).
    pub event_type: Option<String>,
    /// The field `user_name`.
    pub user_name: Option<String>,
    /// The field `server_hostname`: the node's name.
    pub server_hostname: Option<String>,
    /// The field `session_id`.
    pub session_id: Option<String>,
    /// The field `success`.
    pub success: Option<bool>,
    /// Not before this time.
    pub since: Option<UnixTime>,
    /// Before this time.
    pub until: Option<UnixTime>,
    /// At most so many; 0 gives none.
    pub limit: usize,
    /// Direction.
    pub order: Order,
}

impl LogQuery {
    /// All events after `sequence`, at most `limit`, oldest first.
    #[must_use]
    pub fn after(sequence: u64, limit: usize) -> Self {
        Self {
            after: sequence,
            limit,
            ..Self::default()
        }
    }

    /// Whether the event of these facts, numbered `sequence`, is asked for. Limits and order are the reader's business.
    #[must_use]
    pub fn matches(&self, sequence: u64, facts: &Facts) -> bool {
        let text =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        sequence > self.after
            && self.before.is_none_or(|before| sequence < before)
            && self.id.is_none_or(|id| facts.id == id)
            && self
                .event_type
                .as_deref()
                .is_none_or(|wanted| type_matches(wanted, &facts.event_type))
            && text(&self.user_name, &facts.user_name)
            && text(&self.server_hostname, &facts.server_hostname)
            && text(&self.session_id, &facts.session_id)
            && (self.success.is_none() || self.success == facts.success)
            && self.since.is_none_or(|since| facts.timestamp >= since)
            && self.until.is_none_or(|until| facts.timestamp < until)
    }
}

fn type_matches(wanted: &str, event_type: &str) -> bool {
    if wanted.ends_with('.') {
        event_type.starts_with(wanted)
    } else {
        event_type == wanted
    }
}
