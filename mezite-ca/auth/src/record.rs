//! What the store holds, as JSON, and under which keys.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use mezite_api::document::{Binding, LockSpec, NodeKind, UserSpec};
use mezite_api::revocation::{KeyLine, RevocationSpec};
use mezite_ca::{KeyKind, openssh};
use mezite_core::store::{Key, Versioned};
use mezite_core::{ClusterName, Labels, NodeId, NodeName, RoleName, SessionId, UnixTime, UserName};
use mezite_rbac::NodeLabels;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::password::Hash;

/// `user/<name>`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) name: UserName,
    #[serde(default)]
    pub(crate) roles: Vec<RoleName>,
    #[serde(default)]
    pub(crate) traits: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(crate) password: Option<Hash>,
    pub(crate) created_ms: u64,
}

/// `node/<id>`: a machine people log in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Node {
    /// What certificates name.
    pub id: NodeId,
    /// What people call it.
    pub name: NodeName,
    /// How it is served.
    pub kind: NodeKind,
    /// Its labels by source.
    #[serde(default)]
    pub labels: NodeLabels,
    /// `host:port` of a stock sshd.
    #[serde(default)]
    pub address: Option<String>,
    /// How a stock sshd knows principals.
    #[serde(default)]
    pub binding: Option<Binding>,
    /// When it joined or was added.
    pub created_ms: u64,
}

impl Node {
    /// The node as the policy engine takes it.
    #[must_use]
    pub fn target(&self) -> mezite_rbac::Node {
        mezite_rbac::Node {
            id: self.id.clone(),
            name: self.name.clone(),
            labels: self.labels.clone(),
        }
    }

    /// All labels, the strongest source winning.
    #[must_use]
    pub fn merged_labels(&self) -> BTreeMap<String, String> {
        [
            &self.labels.agent,
            &self.labels.token,
            &self.labels.operator,
        ]
        .into_iter()
        .flat_map(Labels::iter)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }
}

/// `node-name/<name>`: which node has the name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NameOwner {
    pub(crate) id: NodeId,
}

/// `token/<sha256>`: a one-time join token, by its hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) node_name: Option<NodeName>,
    pub(crate) expires_ms: u64,
    /// The node that joined with it.
    #[serde(default)]
    pub(crate) used_by: Option<NodeName>,
}

impl Token {
    pub(crate) fn expires(&self) -> UnixTime {
        UnixTime::from_millis(self.expires_ms)
    }
}

/// `lock/<id>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    pub(crate) name: String,
    pub(crate) spec: LockSpec,
}

/// `revoked/<name>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revocation {
    pub(crate) name: String,
    pub(crate) spec: RevocationSpec,
}

/// `break-glass/<name>`: an offline key that nodes trust; its private half never was here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BreakGlassKey {
    pub(crate) name: String,
    pub(crate) public_key: KeyLine,
}

/// `revocation-list`: which list the revocations make. Each change of them changes it in the same commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListHead {
    pub(crate) number: u64,
    pub(crate) changed_ms: u64,
}

impl ListHead {
    pub(crate) fn next(self, now: UnixTime) -> Self {
        Self {
            number: self.number.saturating_add(1),
            changed_ms: now.as_millis(),
        }
    }
}

/// `recording-hold/<session id>`: retention leaves the recording alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    pub(crate) session_id: SessionId,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) since_ms: u64,
}

/// `ca/<kind>/<generation>`: one sealed key of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedKey {
    pub(crate) cluster: ClusterName,
    pub(crate) sealed: String,
    /// Hex; empty for a key that has no public half here.
    #[serde(default)]
    pub(crate) public_key: String,
    /// Base64 of the DER of a TLS authority's certificate.
    #[serde(default)]
    pub(crate) certificate: Option<String>,
}

impl SealedKey {
    /// The public half, if there is one.
    pub(crate) fn public_key(&self) -> Result<Option<[u8; 32]>, Error> {
        if self.public_key.is_empty() {
            return Ok(None);
        }
        let bytes = HEXLOWER.decode(self.public_key.as_bytes()).ok();
        let key = bytes.and_then(|bytes| bytes.try_into().ok());
        key.map(Some).ok_or_else(|| {
            Error::Corrupt("a public key of the cluster is not 32 bytes in hex".to_owned())
        })
    }

    /// The OpenSSH fingerprint of the public half, if there is one.
    pub(crate) fn fingerprint(&self) -> Result<Option<String>, Error> {
        let key = self.public_key()?;
        Ok(key.map(|key| crate::tell::fingerprint(&openssh::public_key(key))))
    }
}

/// `rotation/audit`: which generation of the audit key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditGeneration {
    pub(crate) generation: u64,
}

/// `adopted/hub/<name>`, `adopted/node/<id>`: which keys somebody trusts, and which signed what it holds, as
/// fingerprints `SHA256:…`, by the kind of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Adopted {
    /// The keys it trusts.
    #[serde(default)]
    pub trusts: BTreeMap<KeyKind, BTreeSet<String>>,
    /// Who signed the certificate of this kind that it holds.
    #[serde(default)]
    pub holds: BTreeMap<KeyKind, String>,
}

pub(crate) mod prefix {
    pub(crate) const HUB: &str = "hub/";
    pub(crate) const USER: &str = "user/";
    pub(crate) const ROLE: &str = "role/";
    pub(crate) const NODE: &str = "node/";
    pub(crate) const NODE_NAME: &str = "node-name/";
    pub(crate) const TOKEN: &str = "token/";
    pub(crate) const LOCK: &str = "lock/";
    pub(crate) const REVOKED: &str = "revoked/";
    pub(crate) const ROTATION: &str = "rotation/";
    pub(crate) const ADOPTED_HUB: &str = "adopted/hub/";
    pub(crate) const ADOPTED_NODE: &str = "adopted/node/";
    pub(crate) const BREAK_GLASS: &str = "break-glass/";
    /// `break-glass-use/<node>/<report>`: a use that is in the log.
    pub(crate) const BREAK_GLASS_USE: &str = "break-glass-use/";
    pub(crate) const RECORDING_HOLD: &str = "recording-hold/";
    pub(crate) const WATCHED: &str = "watched/";
}

/// The key `<prefix><name>`.
pub(crate) fn key(prefix: &str, name: &str) -> Result<Key, Error> {
    Key::new(format!("{prefix}{name}")).map_err(|error| Error::Document(error.to_string()))
}

pub(crate) fn list_head_key() -> Result<Key, Error> {
    key("revocation-list", "")
}

pub(crate) fn ca_key(kind: KeyKind, generation: u64) -> Result<Key, Error> {
    key("ca/", &format!("{kind}/{generation}"))
}

/// `rotation/<kind>`: how far the rotation of a key is.
pub(crate) fn rotation_key(kind: KeyKind) -> Result<Key, Error> {
    key(prefix::ROTATION, kind.as_str())
}

/// Only the hash of a token is stored and looked up, so that the time of a look-up tells nothing about a token.
pub(crate) fn token_key(token: &str) -> Result<Key, Error> {
    key(
        prefix::TOKEN,
        &HEXLOWER.encode(&Sha256::digest(token.as_bytes())),
    )
}

pub(crate) fn read<T: DeserializeOwned>(key: &Key, stored: &Versioned) -> Result<T, Error> {
    serde_json::from_slice(&stored.value).map_err(|error| Error::Corrupt(format!("{key}: {error}")))
}

pub(crate) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Corrupt(error.to_string()))
}

impl User {
    /// What documents and events show of a user.
    pub(crate) fn spec(&self) -> UserSpec {
        UserSpec {
            roles: self.roles.clone(),
            traits: self.traits.clone(),
        }
    }
}
