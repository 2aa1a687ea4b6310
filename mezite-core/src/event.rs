//! One audit record, as it travels from where something happens to the store.
//!
//! The catalogue of types lives in `mezite-audit`; here is only the shape, so that [`crate::store`] can demand one.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::EventId;
use crate::time::UnixTime;

/// Most bytes of a rendered event: a leaf of the Merkle log (C2SP tlog-tiles bounds an entry at 64 KiB).
pub const MAX_BYTES: usize = 60 * 1024;

/// Most bytes that the long texts of one event take together: they lie beside it, and the leaf has their digests.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// An audit record that has no sequence number yet: the store gives it one when it commits.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique name of this record.
    pub id: EventId,
    /// Dotted type, for example `user.login`.
    pub event_type: &'static str,
    /// Short stable code, for example `MZ1001`.
    pub event_code: &'static str,
    /// When it happened, by the clock of the hub that reports it.
    pub timestamp: UnixTime,
    /// Hides the content of the leaf from whoever sees only its hash.
    salt: [u8; 16],
    fields: BTreeMap<&'static str, Value>,
    /// Texts that the record only begins, in full.
    texts: BTreeMap<&'static str, String>,
}

impl Event {
    /// A record of `event_type`. `random` makes the id unique and the leaf unguessable.
    #[must_use]
    pub fn new(
        event_type: &'static str,
        event_code: &'static str,
        timestamp: UnixTime,
        random: [[u8; 16]; 2],
    ) -> Self {
        let [id, salt] = random;
        Self {
            id: EventId::new(timestamp, id),
            event_type,
            event_code,
            timestamp,
            salt,
            fields: BTreeMap::new(),
            texts: BTreeMap::new(),
        }
    }

    /// Sets a field. The fields of the header (`id`, `sequence`, …) cannot be set this way.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a field in place.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if !HEADER.contains(&name) {
            self.fields.insert(name, value.into());
        }
    }

    /// Lays the whole of a field's text beside the record, which says its beginning and digest: a commit writes it into a
    /// row of its own ([`crate::store::Key::of_text`]).
    pub fn set_text(&mut self, name: &'static str, text: String) {
        self.texts.insert(name, text);
    }

    /// The texts that lie beside the record, by the field.
    #[must_use = "the texts are what it gives"]
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.texts.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// The value of a field that is not part of the header.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// A field, if it is there and is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(Value::as_str)
    }

    /// The exact bytes that are stored and hashed: one line of flat JSON, header first, other fields by name.
    #[must_use]
    pub fn render(&self, sequence: u64) -> Vec<u8> {
        let rendered = Rendered {
            id: self.id,
            sequence,
            event_type: self.event_type,
            event_code: self.event_code,
            timestamp: self.timestamp.to_string(),
            fields: &self.fields,
            salt: HEXLOWER.encode(&self.salt),
        };
        // Serialising strings, integers and JSON values cannot fail; an empty body would be refused by the store.
        serde_json::to_vec(&rendered).unwrap_or_default()
    }
}

/// What the log is searched by, of a stored record or of one that will be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "backends take it apart")]
pub struct Facts {
    /// Unique name of the record.
    pub id: EventId,
    /// Dotted type.
    pub event_type: String,
    /// When it happened.
    #[serde(deserialize_with = "rfc3339")]
    pub timestamp: UnixTime,
    /// The field `user_name`.
    #[serde(default, deserialize_with = "text")]
    pub user_name: Option<String>,
    /// The field `server_hostname`.
    #[serde(default, deserialize_with = "text")]
    pub server_hostname: Option<String>,
    /// The field `session_id`.
    #[serde(default, deserialize_with = "text")]
    pub session_id: Option<String>,
    /// The field `success`.
    #[serde(default, deserialize_with = "truth")]
    pub success: Option<bool>,
}

impl Facts {
    /// Reads them from stored bytes, as [`Event::render`] wrote them.
    ///
    /// # Errors
    /// What is wrong with the bytes: they are no event.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }
}

impl From<&Event> for Facts {
    fn from(event: &Event) -> Self {
        let text = |name| event.text(name).map(str::to_owned);
        Self {
            id: event.id,
            event_type: event.event_type.to_owned(),
            timestamp: event.timestamp,
            user_name: text("user_name"),
            server_hostname: text("server_hostname"),
            session_id: text("session_id"),
            success: event.field("success").and_then(Value::as_bool),
        }
    }
}

/// A field that is no text is not what is searched by, as [`Event::text`] has it.
fn text<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    let found = Value::deserialize(input)?;
    Ok(found.as_str().map(str::to_owned))
}

fn truth<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<bool>, D::Error> {
    Ok(Value::deserialize(input)?.as_bool())
}

fn rfc3339<'de, D: serde::Deserializer<'de>>(input: D) -> Result<UnixTime, D::Error> {
    let text = String::deserialize(input)?;
    UnixTime::parse_rfc3339(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("`{}` is not a time", text.escape_debug())))
}

const HEADER: [&str; 6] = [
    "id",
    "sequence",
    "event_type",
    "event_code",
    "timestamp",
    "salt",
];

#[derive(Serialize)]
struct Rendered<'a> {
    id: EventId,
    sequence: u64,
    event_type: &'a str,
    event_code: &'a str,
    timestamp: String,
    #[serde(flatten)]
    fields: &'a BTreeMap<&'static str, Value>,
    salt: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new(
            "user.login",
            "MZ1001",
            UnixTime::from_secs(1),
            [[1; 16], [2; 16]],
        )
    }

    #[test]
    fn renders_header_first_then_fields_by_name() {
        let body = event()
            .with("user_name", "alice")
            .with("client_ip", "127.0.0.1")
            .render(7);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"id\":\"00000000-03e8-7101-8101-010101010101\",\"sequence\":7,\"event_type\":\"user.login\",\
             \"event_code\":\"MZ1001\",\"timestamp\":\"1970-01-01T00:00:01.000Z\",\"client_ip\":\"127.0.0.1\",\
             \"user_name\":\"alice\",\"salt\":\"02020202020202020202020202020202\"}"
        );
    }

    #[test]
    fn facts_are_the_same_before_and_after_storing() {
        let bare = event();
        let event = event()
            .with("user_name", "alice")
            .with("server_hostname", "db1")
            .with("session_id", "s")
            .with("success", false);
        assert_eq!(Facts::parse(&event.render(7)), Ok(Facts::from(&event)));
        assert_eq!(Facts::parse(&bare.render(1)), Ok(Facts::from(&bare)));
        let odd = bare.with("user_name", 7).with("success", "yes");
        assert_eq!(Facts::parse(&odd.render(1)), Ok(Facts::from(&odd)));
        assert!(Facts::parse(b"{}").is_err() && Facts::parse(b"").is_err());
    }

    #[test]
    fn attack_56_text_from_outside_cannot_break_the_line_or_the_header() {
        let body = event()
            .with("sequence", 9)
            .with("error_message", "a\n\",\"sequence\":1,\"x\":\"\u{1b}[2J")
            .render(7);
        assert!(!body.contains(&b'\n') && !body.contains(&0x1b));
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["sequence"], 7);
    }
}
