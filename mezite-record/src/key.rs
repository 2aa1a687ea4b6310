//! Keys: the data key of one recording, the recipients it is wrapped to, and what is derived from it.

use std::fmt;
use std::io;
use std::iter;
use std::str::FromStr;

use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use mezite_core::Secret;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

/// Most bytes of a wrapped data key: about 500 recipients.
pub const MAX_WRAPPED: usize = 64 * 1024;

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not the text of a recipient.
    #[error("`{0}` is not a recipient: expected the public key `age1…` of an X25519 age identity")]
    Recipient(String),
    /// Not the text of an identity. The text is not repeated: it may be a secret.
    #[error("this is not an age identity: expected `AGE-SECRET-KEY-1…`")]
    Identity,
    /// No recipient at all: nobody could read the recording.
    #[error("a recording needs at least one recipient")]
    NoRecipient,
    /// More recipients than the header holds.
    #[error("{0} recipients are too many: the wrapped key exceeds {MAX_WRAPPED} bytes")]
    TooMany(usize),
    /// `age` refused.
    #[error("the data key cannot be wrapped: {0}")]
    Wrap(String),
    /// None of the identities is a recipient of this recording.
    #[error("none of the given identities can read this recording")]
    NotForUs,
}

/// Who can read a recording: the public half of an age X25519 identity (`age1…`).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let shown = || {
            let cut = text.chars().take(80).flat_map(char::escape_default);
            KeyError::Recipient(cut.collect())
        };
        text.parse().map(Self).map_err(|_| shown())
    }
}

impl TryFrom<String> for Recipient {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.to_string()
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The secret half: an age X25519 identity, as `age-keygen` writes it. Whoever holds one can read what was wrapped to it.
pub struct Identity(age::x25519::Identity);

impl Identity {
    /// A fresh identity. The `age` library draws it from the operating system.
    #[must_use]
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// The identity whose X25519 secret (RFC 7748) is these 32 bytes: the same bytes give the same identity.
    ///
    /// # Errors
    /// [`KeyError::Identity`], which no 32 bytes are known to cause.
    pub fn from_secret(secret: &Secret<[u8; 32]>) -> Result<Self, KeyError> {
        use bech32::{ToBase32, Variant};
        let data = secret.expose().to_base32();
        let text = bech32::encode("age-secret-key-", data, Variant::Bech32);
        Secret::new(text.map_err(|_| KeyError::Identity)?.to_uppercase())
            .expose()
            .parse()
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The text that an age identity file holds.
    #[must_use]
    pub fn to_secret_text(&self) -> Secret<String> {
        use age::secrecy::ExposeSecret;
        Secret::new(self.0.to_string().expose_secret().to_owned())
    }
}

impl FromStr for Identity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.trim()
            .parse()
            .map(Self)
            .map_err(|_| KeyError::Identity)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {})", self.recipient())
    }
}

/// The key of one recording. Never used itself: chunk keys are derived from it and the exact header.
///
/// Whoever holds it reads this one recording and no other, so a hub can lend it to a reader whose right it has checked.
#[derive(Debug)]
pub struct DataKey(Secret<[u8; 32]>);

impl DataKey {
    /// The key with these bytes, as it was lent.
    #[must_use]
    pub const fn from_bytes(bytes: Secret<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for lending. Every use is a place to review.
    #[must_use]
    pub const fn expose(&self) -> &Secret<[u8; 32]> {
        &self.0
    }

    pub(crate) fn draw(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(Secret::new(bytes))
    }

    /// The key as an age file for `recipients`. The `age` library draws its ephemeral keys from the operating system.
    pub(crate) fn wrap(&self, recipients: &[Recipient]) -> Result<Vec<u8>, KeyError> {
        if recipients.is_empty() {
            return Err(KeyError::NoRecipient);
        }
        let refused = |error: &dyn fmt::Display| KeyError::Wrap(error.to_string());
        let each = recipients.iter().map(|it| -> &dyn age::Recipient { &it.0 });
        let encryptor = age::Encryptor::with_recipients(each).map_err(|error| refused(&error))?;
        let mut wrapped = Vec::new();
        let mut writer = encryptor
            .wrap_output(&mut wrapped)
            .map_err(|error| refused(&error))?;
        io::Write::write_all(&mut writer, self.0.expose()).map_err(|error| refused(&error))?;
        writer.finish().map_err(|error| refused(&error))?;
        if wrapped.len() > MAX_WRAPPED {
            return Err(KeyError::TooMany(recipients.len()));
        }
        Ok(wrapped)
    }

    pub(crate) fn unwrap(wrapped: &[u8], identities: &[Identity]) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        let read = |identity: &Identity, bytes: &mut [u8; 32]| {
            let decryptor = age::Decryptor::new(wrapped).ok()?;
            let mut reader = decryptor
                .decrypt(iter::once::<&dyn age::Identity>(&identity.0))
                .ok()?;
            io::Read::read_exact(&mut reader, bytes).ok()?;
            // A longer plaintext, or one without its end mark, is not a key that we wrapped.
            (io::Read::read(&mut reader, &mut [0]).ok()? == 0).then_some(())
        };
        identities
            .iter()
            .find_map(|identity| read(identity, &mut bytes))
            .ok_or(KeyError::NotForUs)?;
        Ok(Self(Secret::new(bytes)))
    }

    /// The cipher for the chunks below the header with this digest. Journal and sealed file differ in their headers, so
    /// they never share a key and counter nonces cannot collide.
    pub(crate) fn cipher(&self, header_digest: &[u8; 32]) -> Aes256Gcm {
        self.derive(header_digest, b"mezite-record/1 chunks")
    }

    /// The cipher for a search index whose beginning has this digest. A random salt stands in it.
    pub(crate) fn index_cipher(&self, digest: &[u8; 32]) -> Aes256Gcm {
        self.derive(digest, b"mezite-record/1 index")
    }

    /// HKDF-SHA-256, RFC 5869.
    fn derive(&self, salt: &[u8; 32], purpose: &[u8]) -> Aes256Gcm {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        // 32 bytes are far below the 8160 that HKDF-SHA-256 gives: expand cannot fail.
        let _within_bound =
            Hkdf::<Sha256>::new(Some(salt), self.0.expose()).expand(purpose, key.as_mut());
        Aes256Gcm::new((&*key).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);
    impl rand_core::TryRng for Counting {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(7)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(7)
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            for byte in out {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
            Ok(())
        }
    }
    impl rand_core::TryCryptoRng for Counting {}

    #[test]
    fn every_recipient_unwraps_and_nobody_else() {
        let (first, second, other) = (
            Identity::generate(),
            Identity::generate(),
            Identity::generate(),
        );
        let key = DataKey::draw(&mut Counting(0));
        let wrapped = key.wrap(&[first.recipient(), second.recipient()]).unwrap();
        for identity in [first, second] {
            let again = DataKey::unwrap(&wrapped, &[Identity::generate(), identity]).unwrap();
            assert_eq!(again.0.expose(), key.0.expose());
        }
        assert_eq!(
            DataKey::unwrap(&wrapped, &[other]).err(),
            Some(KeyError::NotForUs)
        );
        assert_eq!(DataKey::unwrap(&[], &[]).err(), Some(KeyError::NotForUs));
    }

    #[test]
    fn a_recording_for_nobody_is_refused() {
        assert_eq!(
            DataKey::draw(&mut Counting(0)).wrap(&[]),
            Err(KeyError::NoRecipient)
        );
    }

    #[test]
    fn the_same_secret_gives_the_same_identity() {
        let identity = |byte| Identity::from_secret(&Secret::new([byte; 32])).unwrap();
        assert_eq!(identity(7).recipient(), identity(7).recipient());
        assert_ne!(identity(7).recipient(), identity(8).recipient());
    }

    #[test]
    fn keys_read_back_and_tell_no_secret() {
        let identity = Identity::generate();
        let text = identity.to_secret_text();
        let again: Identity = text.expose().parse().unwrap();
        assert_eq!(again.recipient(), identity.recipient());
        assert_eq!(
            identity.recipient().to_string().parse(),
            Ok(identity.recipient())
        );
        assert!(!format!("{identity:?}").contains("SECRET"));
        assert_eq!(
            "age1\u{1b}".parse::<Recipient>(),
            Err(KeyError::Recipient("age1\\u{1b}".to_owned()))
        );
    }
}
