//! What can be revoked, and the keys for the case that the hub is down, as documents and commands write it. Each value is parsed once and has one spelling, so that the
//! same revocation is found again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ssh_key::{Fingerprint, HashAlg, PublicKey};
use thiserror::Error;

/// Longest key id that can be revoked, in bytes: OpenSSH reads no longer one from a list.
pub const MAX_KEY_ID: usize = 1024;

/// Names a revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct RevocationMetadata {
    /// Drawn by the hub when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Names a break-glass key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct BreakGlassMetadata {
    /// The key's name.
    pub name: String,
}

/// An offline key that opens nodes while the hub is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct BreakGlassSpec {
    /// Its public half.
    pub public_key: KeyLine,
}

/// What is revoked, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct RevocationSpec {
    /// What.
    pub revoked: Revoked,
    /// Kept in the log.
    #[serde(default)]
    pub reason: String,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new way to revoke must be met wherever the list is asked"
)]
pub enum Revoked {
    /// An authority's key, with everything it signed.
    Authority(Sha256Fingerprint),
    /// A key, with every certificate for it.
    Fingerprint(Sha256Fingerprint),
    /// A key, with every certificate for it.
    Key(KeyLine),
    /// Every certificate with this key id.
    KeyId(KeyIdText),
    /// Certificates of this cluster by serial number.
    Serial(Serials),
}

impl Revoked {
    /// `authority`, `fingerprint`, `key`, `key_id` or `serial`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Authority(_) => "authority",
            Self::Fingerprint(_) => "fingerprint",
            Self::Key(_) => "key",
            Self::KeyId(_) => "key_id",
            Self::Serial(_) => "serial",
        }
    }

    /// The value, as the document writes it.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Authority(print) | Self::Fingerprint(print) => print.to_string(),
            Self::Key(key) => key.to_string(),
            Self::KeyId(text) => text.to_string(),
            Self::Serial(serials) => serials.to_string(),
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.value())
    }
}

/// Why a text names nothing that can be revoked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RevokedError {
    /// Not SHA256:….
    #[error("`{0}` is not a fingerprint: write SHA256:… as `ssh-keygen -l` prints it")]
    Fingerprint(String),
    /// Not a public key.
    #[error("`{0}` is not a public key: write one line of OpenSSH text (ssh-ed25519 AAAA…)")]
    Key(String),
    /// A list could not carry it.
    #[error("`{0}` is not a key id: 1 to {MAX_KEY_ID} bytes without control characters")]
    KeyId(String),
    /// Not a serial number or range.
    #[error(
        "`{0}` is not a serial number: write 1 to 18446744073709551615, or a range such as 5-9"
    )]
    Serial(String),
}

fn shown(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

/// A text type of documents: parsed, and written back in its one spelling.
macro_rules! text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = RevokedError;

            fn try_from(text: String) -> Result<Self, RevokedError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

text!(Sha256Fingerprint);
text!(KeyLine);
text!(KeyIdText);
text!(Serials);

/// `SHA256:…`, as OpenSSH prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Fingerprint([u8; 32]);

impl Sha256Fingerprint {
    /// The fingerprint of a key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        match key.fingerprint(HashAlg::Sha256) {
            Fingerprint::Sha256(digest) => Self(digest),
            // Asked for SHA-256, it is never another; a digest that no key has revokes nothing.
            Fingerprint::Sha512(_) | _ => Self([0; 32]),
        }
    }

    /// The digest.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Sha256Fingerprint {
    type Err = RevokedError;

    fn from_str(text: &str) -> Result<Self, RevokedError> {
        match text.parse() {
            Ok(Fingerprint::Sha256(digest)) => Ok(Self(digest)),
            Ok(_) | Err(_) => Err(RevokedError::Fingerprint(shown(text))),
        }
    }
}

impl fmt::Display for Sha256Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fingerprint::Sha256(self.0).fmt(f)
    }
}

/// A public key as one line of OpenSSH text, without its comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyLine(PublicKey);

impl KeyLine {
    /// The key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.0
    }
}

impl FromStr for KeyLine {
    type Err = RevokedError;

    fn from_str(text: &str) -> Result<Self, RevokedError> {
        let key = PublicKey::from_openssh(text.trim());
        let key = key.map_err(|_| RevokedError::Key(shown(text)))?;
        Ok(Self(PublicKey::from(key.key_data().clone())))
    }
}

impl fmt::Display for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0.to_openssh().map_err(|_| fmt::Error)?;
        f.write_str(line.trim())
    }
}

/// A key id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyIdText(String);

impl KeyIdText {
    /// The key id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyIdText {
    type Err = RevokedError;

    fn from_str(text: &str) -> Result<Self, RevokedError> {
        if !(1..=MAX_KEY_ID).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(RevokedError::KeyId(shown(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One serial number, or a range with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serials {
    first: u64,
    last: u64,
}

impl Serials {
    /// The smallest.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The largest.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.last
    }
}

impl FromStr for Serials {
    type Err = RevokedError;

    fn from_str(text: &str) -> Result<Self, RevokedError> {
        let wrong = || RevokedError::Serial(shown(text));
        let number = |text: &str| match text.parse::<u64>() {
            Ok(number) if number > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(number)
            }
            Ok(_) | Err(_) => Err(wrong()),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Serials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_revoke_reads_back_and_other_texts_do_not() {
        const KEY: &str =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";
        let print = Sha256Fingerprint::of(&PublicKey::from_openssh(KEY).unwrap()).to_string();
        assert!(print.starts_with("SHA256:"), "{print}");
        for good in [
            r#"{"serial":"7"}"#.to_owned(),
            r#"{"serial":"7-18446744073709551615"}"#.to_owned(),
            r#"{"key_id":"mezite identity user=alice cluster=example"}"#.to_owned(),
            format!(r#"{{"key":"{KEY}"}}"#),
            format!(r#"{{"fingerprint":"{print}"}}"#),
            format!(r#"{{"authority":"{print}"}}"#),
        ] {
            let read: Revoked = serde_json::from_str(&good).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), good);
        }
        let commented: KeyLine = format!("{KEY} alice@laptop\n").parse().unwrap();
        assert_eq!(commented.to_string(), KEY);
        for bad in [
            r#"{"serial":"0"}"#,
            r#"{"serial":"+7"}"#,
            r#"{"serial":"9-5"}"#,
            r#"{"serial":"18446744073709551616"}"#,
            r#"{"serial":7}"#,
            r#"{"key_id":""}"#,
            r#"{"key_id":"a\u0000b"}"#,
            r#"{"key":"ssh-rsa"}"#,
            r#"{"fingerprint":"MD5:00:11"}"#,
            r#"{"planet":"x"}"#,
            r#"{"serial":"1","key_id":"x"}"#,
        ] {
            assert!(serde_json::from_str::<Revoked>(bad).is_err(), "{bad}");
        }
        assert!("x".repeat(MAX_KEY_ID + 1).parse::<KeyIdText>().is_err());
    }
}
