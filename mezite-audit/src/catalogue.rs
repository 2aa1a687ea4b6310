//! The catalogue: every event type there is, in one table.
//!
//! Each row makes a struct whose fields are the event's fields, with [`event`](UserLogin::event) to turn it into a
//! [`mezite_core::Event`], and an [`Entry`] from which EVENTS.md is generated. One field name means one thing in
//! every event (`field_doc!`).

mod field;
mod table;
mod text;

pub use field::{Json, LIST_BYTES};
pub use table::*;
pub use text::{LONG_TEXT_BYTES, TEXT_BYTES, whole};

use mezite_core::{ClusterName, Event, UnixTime};
use serde_json::Value;

/// What an event needs from outside: the time, randomness, and whose cluster it is.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// When it happened.
    pub now: UnixTime,
    /// Makes the event's id unique and its leaf unguessable: fresh random bits for each event.
    pub random: [[u8; 16]; 2],
    /// The field `cluster_name`.
    pub cluster: &'a ClusterName,
}

/// How much an event matters to somebody who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever maps it to another scale must map all of it"
)]
pub enum Severity {
    /// Everyday work.
    Info,
    /// Somebody was refused, or rules changed.
    Warning,
    /// Something that must work did not.
    Error,
}

impl Severity {
    /// In lower case, as the documentation shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One field of an event type.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Field {
    /// Its name in the JSON.
    pub name: &'static str,
    /// What kind of value it holds, in words.
    pub kind: &'static str,
    /// Whether it may be absent.
    pub optional: bool,
    /// What it means, the same in every event.
    pub doc: &'static str,
    /// A value, as JSON.
    pub example: &'static str,
}

/// One row of the catalogue.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Dotted type.
    pub event_type: &'static str,
    /// Stable code.
    pub event_code: &'static str,
    /// The struct that makes it.
    pub constructor: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What happened, in a sentence.
    pub description: &'static str,
    /// Fields that have the same value in every event of this type, as JSON.
    pub constants: &'static [(&'static str, &'static str)],
    /// The type's own fields, in the order of its struct.
    pub fields: &'static [Field],
}

impl Entry {
    /// An event of this type, made of the examples of its fields.
    #[must_use]
    pub fn example(&self, stamp: &Stamp<'_>) -> Event {
        let mut event = start(self.event_type, self.event_code, stamp);
        let fields = self.fields.iter().map(|field| (field.name, field.example));
        for (name, json) in self.constants.iter().copied().chain(fields) {
            event.set(name, serde_json::from_str(json).unwrap_or(Value::Null));
        }
        event
    }
}

/// The row of `event_type`.
#[must_use]
pub fn find(event_type: &str) -> Option<&'static Entry> {
    all().iter().find(|entry| entry.event_type == event_type)
}

/// The last event of a burst, made to stand for `attempts` of its kind, by those who claimed to be `claimed_users`.
#[must_use]
pub fn repeated(mut event: Event, attempts: u64, claimed_users: &[String]) -> Event {
    event.set("attempts", attempts);
    let names = field::Names {
        name: "claimed_users",
        bytes: "claimed_users_bytes",
        count: "claimed_users_count",
        escaped: "claimed_users_escaped",
    };
    field::Put::put(&claimed_users, names, &mut event);
    event
}

fn start(event_type: &'static str, event_code: &'static str, stamp: &Stamp<'_>) -> Event {
    Event::new(event_type, event_code, stamp.now, stamp.random)
        .with("cluster_name", stamp.cluster.as_str())
}

#[cfg(test)]
mod tests;
