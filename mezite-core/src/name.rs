//! Names that people choose, each its own parsed type: a [`Login`] is never a [`UserName`].
//!
//! All are ASCII, so that two spellings that look alike cannot be two names (attack row 5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a name. Carries the offending value, cut to 80 characters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{value}` is not a valid {kind}: {rule}")]
pub struct NameError {
    /// What it should have been, for example `user name`.
    pub kind: &'static str,
    /// The refused text, control characters escaped, cut to 80 characters.
    pub value: String,
    /// The rule in words.
    pub rule: &'static str,
}

/// Declares a parsed string newtype: `FromStr`, `Display`, serde as a string, ordering.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&[u8]) -> bool = $check;
                if check(text.as_bytes()) {
                    return Ok(Self(text.to_owned()));
                }
                let value = text.chars().take(80).flat_map(char::escape_default).collect();
                Err(NameError { kind: $kind, value, rule: $rule })
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Who a person or bot is to Mezite. Never a Unix account.
    UserName,
    "user name",
    "1 to 64 of a-z 0-9 . _ - + @, starting with a letter or digit, not digits alone",
    |text| {
        bounded(text, 64)
            && text.iter().all(|byte| lower(*byte) || b"._-+@".contains(byte))
            && text.first().is_some_and(|byte| lower(*byte))
            && !text.iter().all(u8::is_ascii_digit)
    }
);

name!(
    /// A Unix account on a node. A digits-only login is refused: tools would read it as a user id.
    Login,
    "login",
    "1 to 32 of A-Z a-z 0-9 . _ -, starting with a letter or _",
    |text| {
        bounded(text, 32)
            && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
            && text.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
    }
);

name!(
    /// What people call a node. One DNS label, so that `<node>.<cluster>` is a host name.
    NodeName,
    "node name",
    "1 to 63 of a-z 0-9 -, no dot, starting and ending with a letter or digit, not digits alone",
    |text| dns_label(text) && !text.iter().all(u8::is_ascii_digit)
);

name!(
    /// The cluster's name, a DNS name under which its nodes live.
    ClusterName,
    "cluster name",
    "DNS labels of a-z 0-9 - joined by dots, at most 180 bytes",
    |text| bounded(text, 180) && text.split(|byte| *byte == b'.').all(dns_label)
);

name!(
    /// The name of a role.
    RoleName,
    "role name",
    "1 to 63 of a-z 0-9 -, starting and ending with a letter or digit",
    dns_label
);

fn bounded(text: &[u8], max: usize) -> bool {
    (1..=max).contains(&text.len())
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// RFC 1123 section 2.1, lower case only.
fn dns_label(text: &[u8]) -> bool {
    bounded(text, 63)
        && text.iter().all(|byte| lower(*byte) || *byte == b'-')
        && text.first().is_some_and(|byte| lower(*byte))
        && text.last().is_some_and(|byte| lower(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_what_they_say() {
        for good in ["alice", "alice@example.com", "a+b", "0x", "a.b_c-d"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for good in ["root", "_apt", "www-data", "Administrator", "a.b"] {
            assert!(good.parse::<Login>().is_ok(), "{good}");
        }
        for good in ["db1", "a", "web-01"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for good in ["example", "prod.example.com"] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
    }

    #[test]
    fn attack_05_names_that_could_be_somebody_else() {
        for bad in [
            "", "Alice", "1234", "аlice", "alice ", "-rf", "../x", "a\nb", "a,b", "a\0b", "*",
        ] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        for bad in [
            "", "0", "1000", "-rf", "a b", "root ", "a:b", "a,b", "../x", "a\n", "rооt",
        ] {
            assert!(bad.parse::<Login>().is_err(), "{bad:?}");
        }
        for bad in ["", "a.b", "-a", "a-", "A", "10", "a_b", "a,b"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "*.a"] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn error_names_the_value_and_the_rule() {
        let error = "a\nb".parse::<Login>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`a\\nb` is not a valid login: 1 to 32 of A-Z a-z 0-9 . _ -, starting with a letter or _"
        );
    }

    #[test]
    fn serde_refuses_what_parse_refuses() {
        assert!(serde_json::from_str::<Login>("\"root\"").is_ok());
        assert!(serde_json::from_str::<Login>("\"0\"").is_err());
    }
}
