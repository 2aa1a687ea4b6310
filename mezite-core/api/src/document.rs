//! Resources as people write and read them: `kind`, `version`, `metadata`, `spec`. A role's document belongs to
//! `mezite-rbac`; the others are here. None has a place for a password, a token, or a hash of either; an unknown
//! field is an error, so that a misspelt one does not pass for a default.

use std::collections::BTreeMap;
use std::fmt;

use mezite_core::{Labels, Login, NodeId, NodeName, RoleName, SessionId, UnixTime, UserName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What every document begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a document has these four fields"
)]
pub struct Document<Metadata, Spec> {
    /// `user`, `node`, `token`, `lock`.
    pub kind: String,
    /// `v1`.
    pub version: String,
    /// Names it.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Spec,
}

impl<Metadata, Spec> Document<Metadata, Spec> {
    /// A document of version 1.
    pub fn v1(kind: &str, metadata: Metadata, spec: Spec) -> Self {
        Self {
            kind: kind.to_owned(),
            version: "v1".to_owned(),
            metadata,
            spec,
        }
    }
}

/// Names a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct UserMetadata {
    /// The user's name.
    pub name: UserName,
}

/// What a user is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct UserSpec {
    /// Names of roles.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// Internal traits: what templates read as `{{internal.x}}`.
    #[serde(default)]
    pub traits: BTreeMap<String, Vec<String>>,
}

/// Names a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct NodeMetadata {
    /// The node's name.
    pub name: NodeName,
    /// Drawn by the hub; given back, it must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<NodeId>,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct NodeSpec {
    /// How it is served.
    pub kind: NodeKind,
    /// Labels with the operator's authority: the only ones a document can change.
    #[serde(default)]
    pub labels: Labels,
    /// Labels that came with the join token.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub token_labels: Labels,
    /// Labels that the agent says of itself.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub agent_labels: Labels,
    /// `host:port` of a stock sshd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How a stock sshd knows principals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
}

/// How a node is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeKind {
    /// By `mezd`.
    Agent,
    /// By a stock `sshd`.
    OpenSsh,
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::OpenSsh => "openssh",
        })
    }
}

/// How a stock sshd knows principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Binding {
    /// `<login>`, for an sshd on which nothing but `TrustedUserCAKeys` can be set: a certificate for one such node opens
    /// that login on every other.
    Login,
    /// `mezite:<node-id>:<login>`: a certificate for one node opens no other.
    Node,
}

/// Names a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct TokenMetadata {
    /// Drawn by the hub; not the token and not made from it.
    pub name: String,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct TokenSpec {
    /// Labels that a node gets by it.
    #[serde(default)]
    pub labels: Labels,
    /// The only name a node may join with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<NodeName>,
    /// RFC 3339.
    pub expires: String,
    /// The node that joined with it: a token is good once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<NodeName>,
}

/// Names a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct LockMetadata {
    /// Drawn by the hub.
    pub name: String,
}

/// Whom a lock stops, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct LockSpec {
    /// Whom.
    pub target: LockTarget,
    /// Shown to whoever is stopped.
    #[serde(default)]
    pub reason: String,
    /// RFC 3339; without it, until the lock is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl LockSpec {
    /// Whether the lock still stops anybody at `now`. An end that cannot be read never comes.
    #[must_use]
    pub fn is_in_force(&self, now: UnixTime) -> bool {
        self.expires
            .as_deref()
            .and_then(UnixTime::parse_rfc3339)
            .is_none_or(|end| now < end)
    }
}

/// Whom a lock stops.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new target must be looked for at every step"
)]
pub enum LockTarget {
    /// A user, on every node.
    User(UserName),
    /// Everybody who has a role.
    Role(RoleName),
    /// A node, for everybody.
    Node(NodeName),
    /// A login, on every node.
    Login(Login),
    /// One running session.
    Session(SessionId),
}

/// Why a kind and a name are no target of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LockTargetError {
    /// No such kind.
    #[error("`{0}` cannot be locked: user, role, node, login or session")]
    Kind(String),
    /// The name is not valid for its kind.
    #[error(transparent)]
    Name(#[from] mezite_core::name::NameError),
    /// The session id is not valid.
    #[error(transparent)]
    Id(#[from] mezite_core::id::IdError),
}

impl LockTarget {
    /// The target of this kind and name.
    ///
    /// # Errors
    /// [`LockTargetError`].
    pub fn new(kind: &str, name: &str) -> Result<Self, LockTargetError> {
        Ok(match kind {
            "user" => Self::User(name.parse()?),
            "role" => Self::Role(name.parse()?),
            "node" => Self::Node(name.parse()?),
            "login" => Self::Login(name.parse()?),
            "session" => Self::Session(name.parse()?),
            other => {
                let shown = other
                    .chars()
                    .take(40)
                    .flat_map(char::escape_default)
                    .collect();
                return Err(LockTargetError::Kind(shown));
            }
        })
    }

    /// `user`, `role`, `node`, `login` or `session`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Role(_) => "role",
            Self::Node(_) => "node",
            Self::Login(_) => "login",
            Self::Session(_) => "session",
        }
    }

    /// The name of what is locked.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::User(name) => name.to_string(),
            Self::Role(name) => name.to_string(),
            Self::Node(name) => name.to_string(),
            Self::Login(name) => name.to_string(),
            Self::Session(id) => id.to_string(),
        }
    }
}

impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_40_unknown_fields_are_refused() {
        type User = Document<UserMetadata, UserSpec>;
        let good = r#"{"kind":"user","version":"v1","metadata":{"name":"alice"},"spec":{"roles":["access"]}}"#;
        assert!(serde_json::from_str::<User>(good).is_ok());
        for bad in [
            good.replace("\"roles\"", "\"rolls\""),
            good.replace("\"spec\"", "\"password_hash\":\"x\",\"spec\""),
            good.replace("alice", "Alice"),
        ] {
            assert!(serde_json::from_str::<User>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lock_targets_read_as_one_key() {
        let target = LockTarget::new("user", "alice").unwrap();
        assert_eq!(
            serde_json::to_string(&target).unwrap(),
            r#"{"user":"alice"}"#
        );
        assert!(LockTarget::new("planet", "x").is_err());
        assert!(LockTarget::new("login", "0").is_err());
    }

    #[test]
    fn a_lock_ends_at_its_end_and_not_before() {
        let lock = LockSpec {
            target: LockTarget::new("login", "root").unwrap(),
            reason: String::new(),
            expires: Some(UnixTime::from_secs(10).to_string()),
        };
        assert!(lock.is_in_force(UnixTime::from_millis(9_999)));
        assert!(!lock.is_in_force(UnixTime::from_secs(10)));
        assert!(
            LockSpec {
                expires: None,
                ..lock
            }
            .is_in_force(UnixTime::from_secs(99))
        );
    }
}
