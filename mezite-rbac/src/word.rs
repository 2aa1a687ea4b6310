//! Closed sets of words: what is not among them is refused, byte for byte. And how errors show what was refused.

use thiserror::Error;

/// Why a text is not one of the words it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{value}` is not a {kind}: one of {words}")]
pub struct UnknownWord {
    kind: &'static str,
    value: String,
    words: String,
}

impl UnknownWord {
    pub(crate) fn new(kind: &'static str, text: &str, known: &[&str]) -> Self {
        Self {
            kind,
            value: excerpt(text),
            words: known.join(", "),
        }
    }
}

/// Refused text as errors show it: cut to 80 characters, and escaped.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

/// Declares a closed set of lower-case words: `ALL`, `Display`, `FromStr`, serde.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[expect(clippy::exhaustive_enums, reason = "a new word must break every table that lists them")]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $type {
            /// Every word.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word as documents write it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::word::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let word = Self::ALL.iter().copied().find(|word| word.as_str() == text);
                word.ok_or_else(|| $crate::word::UnknownWord::new($kind, text, &[$($word),*]))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;
