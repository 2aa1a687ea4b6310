//! The public halves of a cluster's authorities: what hubs, nodes and clients are told to trust.

use std::collections::BTreeSet;
use std::fmt;

use mezite_core::ClusterName;
use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, PublicKey};

use crate::kind::KeyKind;
use crate::signer::fingerprint;
use crate::verify::Root;

/// Every authority of a cluster, by ring. Several keys in a ring are generations: all are trusted.
///
/// As JSON, SSH keys are OpenSSH public-key lines and X.509 certificates are DER in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// Whose authorities these are.
    pub cluster: ClusterName,
    /// User CA, outer ring: gateways trust these.
    #[serde(with = "openssh_lines")]
    pub identity: Vec<PublicKey>,
    /// User CA, inner ring: nodes trust these.
    #[serde(with = "openssh_lines")]
    pub session: Vec<PublicKey>,
    /// Host CA, outer ring: users' clients trust these.
    #[serde(with = "openssh_lines")]
    pub gateway: Vec<PublicKey>,
    /// Host CA, inner ring: hubs trust these.
    #[serde(with = "openssh_lines")]
    pub node: Vec<PublicKey>,
    /// User CA, TLS: self-signed certificates, DER.
    #[serde(with = "base64_list")]
    pub user_tls: Vec<Vec<u8>>,
    /// Host CA, TLS: self-signed certificates, DER.
    #[serde(with = "base64_list")]
    pub host_tls: Vec<Vec<u8>>,
    /// Offline keys that open nodes while the hub is down: nodes trust these. Absent where there are none, so that
    /// readers from before there were any read the rest.
    #[serde(with = "openssh_lines", default, skip_serializing_if = "Vec::is_empty")]
    pub break_glass: Vec<PublicKey>,
    /// Which of the keys above are new, in use, or on their way out. It explains and grants nothing: a key counts
    /// because it stands in its ring. Absent while no key is being replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<GenerationNote>,
}

/// One generation of a key in a trust bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationNote {
    /// The key's kind.
    pub kind: KeyKind,
    /// Counts up with each rotation, from 1.
    pub number: u64,
    /// What the generation is for now.
    pub state: GenerationState,
    /// `SHA256:…` of the key, as OpenSSH prints it.
    pub fingerprint: String,
}

/// What a generation of a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GenerationState {
    /// To be trusted, and signs nothing yet.
    Next,
    /// Signs.
    Active,
    /// Signs no more; what it signed is trusted until rotation ends.
    Retiring,
}

impl fmt::Display for GenerationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
        })
    }
}

impl TrustBundle {
    /// A bundle that trusts nothing yet.
    #[must_use]
    pub const fn empty(cluster: ClusterName) -> Self {
        Self {
            cluster,
            identity: Vec::new(),
            session: Vec::new(),
            gateway: Vec::new(),
            node: Vec::new(),
            user_tls: Vec::new(),
            host_tls: Vec::new(),
            break_glass: Vec::new(),
            generations: Vec::new(),
        }
    }

    /// The fingerprints `SHA256:…` of the keys trusted in one ring: what a hub or node reports when a key is rotated.
    /// An unreadable certificate is trusted by nobody and left out.
    #[must_use]
    pub fn fingerprints(&self, kind: KeyKind) -> BTreeSet<String> {
        let tls = |list: &[Vec<u8>]| {
            list.iter()
                .filter_map(|der| Root::parse(der).ok())
                .map(|root| fingerprint(&root.public_key))
                .collect()
        };
        match kind {
            KeyKind::UserTls => return tls(&self.user_tls),
            KeyKind::HostTls => return tls(&self.host_tls),
            KeyKind::Audit
            | KeyKind::BreakGlass
            | KeyKind::Gateway
            | KeyKind::Identity
            | KeyKind::Node
            | KeyKind::Recording
            | KeyKind::Session => {}
        }
        self.rings()
            .iter()
            .filter(|(ring, _)| *ring == kind)
            .flat_map(|(_, keys)| keys.iter())
            .map(|key| key.fingerprint(HashAlg::Sha256).to_string())
            .collect()
    }

    /// The notes on the generations of these kinds of key.
    #[must_use]
    pub fn notes_on(&self, kinds: &[KeyKind]) -> Vec<GenerationNote> {
        let notes = self.generations.iter();
        notes
            .filter(|note| kinds.contains(&note.kind))
            .cloned()
            .collect()
    }

    /// The SSH rings by kind.
    pub(crate) fn rings(&self) -> [(KeyKind, &[PublicKey]); 5] {
        [
            (KeyKind::BreakGlass, &self.break_glass),
            (KeyKind::Gateway, &self.gateway),
            (KeyKind::Identity, &self.identity),
            (KeyKind::Node, &self.node),
            (KeyKind::Session, &self.session),
        ]
    }
}

mod openssh_lines {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use ssh_key::PublicKey;

    pub(super) fn serialize<S: Serializer>(
        keys: &[PublicKey],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let lines: Result<Vec<String>, _> = keys.iter().map(PublicKey::to_openssh).collect();
        lines.map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PublicKey>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|line| PublicKey::from_openssh(line).map_err(D::Error::custom))
            .collect()
    }
}

mod base64_list {
    use data_encoding::BASE64;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        list: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = list.iter().map(|bytes| BASE64.encode(bytes)).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| BASE64.decode(text.as_bytes()).map_err(D::Error::custom))
            .collect()
    }
}
