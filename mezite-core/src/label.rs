//! Labels of nodes, and who said them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most labels that one source may set on one node.
pub const MAX_LABELS: usize = 64;

/// Why a label is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The key is empty, too long, or holds other characters.
    #[error("label key `{0}` is not valid: 1 to 63 of a-z 0-9 . _ / : -, starting with a letter")]
    Key(String),
    /// The value is too long or holds control characters.
    #[error("the value of label `{0}` is not valid: at most 255 bytes without control characters")]
    Value(String),
    /// More than [`MAX_LABELS`].
    #[error("{0} labels are too many: at most {MAX_LABELS}")]
    TooMany(usize),
    /// Not of the form `key=value`.
    #[error("`{0}` is not a label: write key=value")]
    Form(String),
}

/// Who set a label. Later variants have less authority (design: label authority).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new source must break every rule that reads sources"
)]
pub enum LabelSource {
    /// An administrator set it on the node.
    Operator,
    /// It came with the one-time join token.
    Token,
    /// The node's own agent reports it.
    Agent,
}

/// A bounded, sorted map of label keys to values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks every key, every value and the count.
    ///
    /// # Errors
    /// The first label that breaks a rule.
    pub fn new(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        if map.len() > MAX_LABELS {
            return Err(LabelError::TooMany(map.len()));
        }
        for (key, value) in &map {
            if !key_is_valid(key) {
                return Err(LabelError::Key(
                    key.chars()
                        .take(80)
                        .flat_map(char::escape_default)
                        .collect(),
                ));
            }
            if value.len() > 255 || value.chars().any(char::is_control) {
                return Err(LabelError::Value(key.clone()));
            }
        }
        Ok(Self(map))
    }

    /// Parses `key=value` words, as command lines give them.
    ///
    /// # Errors
    /// The first word that is not a label.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, LabelError> {
        let mut map = BTreeMap::new();
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| LabelError::Form(word.escape_default().to_string()))?;
            map.insert(key.to_owned(), value.to_owned());
        }
        Self::new(map)
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn key_is_valid(key: &str) -> bool {
    (1..=63).contains(&key.len())
        && key.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/:-".contains(&byte)
        })
        && key
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase())
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        Self::new(map)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_parse_and_print() {
        let labels = Labels::parse(["team=db", "env=prod"]).unwrap();
        assert_eq!(labels.to_string(), "env=prod,team=db");
        assert_eq!(labels.get("env"), Some("prod"));
    }

    #[test]
    fn labels_refuse_odd_keys_and_values() {
        for bad in [
            "",
            "novalue",
            "=x",
            "A=x",
            "1=x",
            "a b=x",
            "env=a\nb",
            "e\u{301}=x",
        ] {
            assert!(Labels::parse([bad]).is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..=MAX_LABELS).map(|n| format!("k{n}=v")).collect();
        assert_eq!(
            Labels::parse(many.iter().map(String::as_str)),
            Err(LabelError::TooMany(MAX_LABELS + 1))
        );
    }
}
