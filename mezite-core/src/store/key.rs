//! Keys: `kind/name`, bounded, printable.

use std::fmt;

use thiserror::Error;

use crate::id::EventId;

/// Where a value lies, for example `user/alice`. 1 to 512 bytes of printable ASCII without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a valid key: 1 to 512 bytes of printable ASCII without spaces")]
pub struct KeyError(String);

impl Key {
    /// Checks length and characters.
    ///
    /// # Errors
    /// [`KeyError`] with the refused text.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(KeyError(
                text.chars()
                    .take(80)
                    .flat_map(char::escape_default)
                    .collect(),
            ))
        }
    }

    /// Where the whole of a text lies that an event only begins: `log/text/<event>/<field>`.
    #[must_use]
    pub fn of_text(event: EventId, field: &str) -> Self {
        let field: String = field
            .chars()
            .filter(char::is_ascii_graphic)
            .take(64)
            .collect();
        Self(format!("log/text/{event}/{field}"))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
