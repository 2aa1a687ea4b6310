//! The commands, one file for each group.

pub(crate) mod audit;
pub(crate) mod break_glass;
pub(crate) mod bundle;
pub(crate) mod ca;
pub(crate) mod can;
pub(crate) mod explain;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod nodes;
pub(crate) mod recordings;
pub(crate) mod release;
pub(crate) mod resources;
pub(crate) mod revocations;
pub(crate) mod roles;
pub(crate) mod sessions;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod users;

use std::collections::HashMap;

use mezite_core::Labels;

use crate::fail::Failure;

/// `key=value` words as the API takes them.
fn labels(words: &[String]) -> Result<HashMap<String, String>, Failure> {
    let labels = Labels::parse(words.iter().map(String::as_str)).map_err(Failure::usage)?;
    Ok(labels
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// A word as a shell reads it back: what needs quotes gets them.
fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:,%=[]".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_82_printed_commands_hold_one_command() {
        assert_eq!(shell_word("hub.example:3080"), "hub.example:3080");
        assert_eq!(shell_word("a; rm -r 'x'"), "'a; rm -r '\\''x'\\'''");
        assert_eq!(shell_word(""), "''");
    }
}
