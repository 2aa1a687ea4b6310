//! The public halves of a cluster's authorities: what hubs, nodes and clients are told to trust.

use mezite_core::ClusterName;
use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use crate::kind::KeyKind;

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
        }
    }

    /// The SSH rings by kind.
    pub(crate) fn rings(&self) -> [(KeyKind, &[PublicKey]); 4] {
        [
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
