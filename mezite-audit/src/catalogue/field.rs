//! How each type of value becomes a field of an event.

use std::net::IpAddr;

use mezite_core::{
    Event, Labels, Login, NodeId, NodeName, RoleName, Serial, SessionId, UnixTime, UserName,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::overflow;

use super::text::{Fit, LONG_TEXT_BYTES, TEXT_BYTES, fit, fit_json};

/// Most bytes of a list of names or of labels; whole items are kept.
pub const LIST_BYTES: usize = 4 * 1024;

/// A value as JSON text, so that events stay flat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Writes `value` as JSON. What cannot be written (a map whose keys are no strings) becomes the JSON string that
    /// says why.
    pub fn of(value: &impl Serialize) -> Self {
        Self(
            serde_json::to_string(value)
                .unwrap_or_else(|error| Value::from(error.to_string()).to_string()),
        )
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A field's name and those of the fields that say what was done to its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) name: &'static str,
    pub(super) bytes: &'static str,
    pub(super) count: &'static str,
    pub(super) escaped: &'static str,
}

/// A type that a field of an event can have.
pub(super) trait Put {
    /// In words, for the documentation.
    const KIND: &'static str;
    const OPTIONAL: bool = false;

    fn put(&self, names: Names, event: &mut Event);
}

impl<T: Put> Put for Option<T> {
    const KIND: &'static str = T::KIND;
    const OPTIONAL: bool = true;

    fn put(&self, names: Names, event: &mut Event) {
        if let Some(value) = self {
            value.put(names, event);
        }
    }
}

impl Put for &str {
    const KIND: &'static str = "text";

    fn put(&self, names: Names, event: &mut Event) {
        let fit = fit(self, limit(names.name));
        // Of what strangers say only the beginning is kept: they cannot fill the disk.
        if fit.full_bytes.is_some() && names.name == "command" {
            overflow::lay_beside(event, names.name, self);
        }
        put_fit(fit, names, event);
    }
}

impl Put for Json {
    const KIND: &'static str = "JSON text";

    fn put(&self, names: Names, event: &mut Event) {
        let fit = fit_json(&self.0, LONG_TEXT_BYTES);
        if fit.full_bytes.is_some() {
            overflow::lay_beside(event, names.name, &self.0);
        }
        put_fit(fit, names, event);
    }
}

/// Commands, certificates, handovers and ranges are longer than other text.
fn limit(name: &str) -> usize {
    match name {
        "command" | "certificate" | "handover" | "ranges" => LONG_TEXT_BYTES,
        _ => TEXT_BYTES,
    }
}

fn put_fit(fit: Fit, names: Names, event: &mut Event) {
    event.set(names.name, fit.text);
    if fit.escaped {
        event.set(names.escaped, true);
    }
    if let Some(bytes) = fit.full_bytes {
        event.set(names.bytes, bytes);
    }
}

/// Types that are bounded and printable by themselves.
macro_rules! put {
    ($($type:ty, $kind:literal, $value:expr;)+) => {$(
        impl Put for $type {
            const KIND: &'static str = $kind;

            fn put(&self, names: Names, event: &mut Event) {
                let value: fn(&Self) -> Value = $value;
                event.set(names.name, value(self));
            }
        }
    )+};
}

put! {
    &Login, "login", |login| login.as_str().into();
    &NodeId, "node id", |id| id.as_str().into();
    &NodeName, "node name", |name| name.as_str().into();
    &RoleName, "role name", |name| name.as_str().into();
    &UserName, "user name", |name| name.as_str().into();
    IpAddr, "IP address", |address| address.to_string().into();
    Serial, "serial as decimal text", |serial| serial.to_string().into();
    SessionId, "session id", |id| id.to_string().into();
    UnixTime, "time (RFC 3339)", |time| time.to_string().into();
    bool, "true or false", |flag| (*flag).into();
    u32, "number", |number| (*number).into();
    u64, "number", |number| (*number).into();
}

impl Put for &[RoleName] {
    const KIND: &'static str = "list of role names";

    fn put(&self, names: Names, event: &mut Event) {
        put_list(self.iter().map(RoleName::as_str), names, event);
    }
}

impl Put for &[String] {
    const KIND: &'static str = "list of texts";

    fn put(&self, names: Names, event: &mut Event) {
        put_list(self.iter().map(String::as_str), names, event);
    }
}

impl Put for &Labels {
    const KIND: &'static str = "labels";

    fn put(&self, names: Names, event: &mut Event) {
        let mut left = LIST_BYTES;
        let mut kept = Map::new();
        for (key, value) in self.iter() {
            let value = fit(value, TEXT_BYTES).text;
            let Some(rest) = left.checked_sub(key.len() + value.len()) else {
                break;
            };
            left = rest;
            kept.insert(key.to_owned(), value.into());
        }
        if kept.len() < self.len() {
            event.set(names.count, self.len());
        }
        event.set(names.name, kept);
    }
}

fn put_list<'a>(items: impl ExactSizeIterator<Item = &'a str>, names: Names, event: &mut Event) {
    let total = items.len();
    let mut left = LIST_BYTES;
    let mut kept = Vec::new();
    for item in items {
        let text = fit(item, TEXT_BYTES).text;
        let Some(rest) = left.checked_sub(text.len()) else {
            break;
        };
        left = rest;
        kept.push(Value::from(text));
    }
    if kept.len() < total {
        event.set(names.count, total);
    }
    event.set(names.name, kept);
}
