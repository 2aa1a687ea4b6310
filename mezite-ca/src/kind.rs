//! The keys a cluster holds, by what each is for. No key serves two kinds.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// What a private key of the cluster is for. The name is authenticated with the sealed key ([`crate::seal`]), so
/// that no sealed key can be put in another's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new kind of key must be met by everybody who handles keys"
)]
pub enum KeyKind {
    /// Signs checkpoints of the audit log.
    Audit,
    /// Offline: signs what opens a node while the hub is down. No hub ever holds it, so it is not in [`Self::ALL`] and
    /// no sealed key is of this kind.
    BreakGlass,
    /// Host CA, outer ring: signs the hub's host certificates, which users' clients check.
    Gateway,
    /// Host CA, TLS: signs certificates of hubs and nodes.
    HostTls,
    /// User CA, outer ring: signs what a user holds, which gateways check.
    Identity,
    /// Host CA, inner ring: signs nodes' host certificates, which hubs check.
    Node,
    /// The hub's own age identity, with which it reads recordings. Not a signing key.
    Recording,
    /// User CA, inner ring: signs what the hub shows a node for one session.
    Session,
    /// User CA, TLS: signs certificates of users and bots.
    UserTls,
}

impl KeyKind {
    /// Every kind that a hub holds, by name.
    pub const ALL: [Self; 8] = [
        Self::Audit,
        Self::Gateway,
        Self::HostTls,
        Self::Identity,
        Self::Node,
        Self::Recording,
        Self::Session,
        Self::UserTls,
    ];

    /// The kind's name, as stores and sealed keys carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::BreakGlass => "break-glass",
            Self::Gateway => "gateway",
            Self::HostTls => "host-tls",
            Self::Identity => "identity",
            Self::Node => "node",
            Self::Recording => "recording",
            Self::Session => "session",
            Self::UserTls => "user-tls",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names no kind of key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no kind of key: expected one of audit, gateway, host-tls, identity, node, recording, session, user-tls"
)]
pub struct KeyKindError(String);

impl FromStr for KeyKind {
    type Err = KeyKindError;

    fn from_str(text: &str) -> Result<Self, KeyKindError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| KeyKindError(escaped(text)))
    }
}

impl Serialize for KeyKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for KeyKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Text from outside, made safe for a message: control characters escaped, cut to 80 characters.
pub(crate) fn escaped(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip_and_refuse_other_names() {
        for kind in KeyKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(
            "Ident\n"
                .parse::<KeyKind>()
                .map_err(|error| error.to_string().contains("`Ident\\n`")),
            Err(true)
        );
    }
}
