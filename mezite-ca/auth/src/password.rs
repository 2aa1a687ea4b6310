//! Passwords: Argon2id (RFC 9106), one record a user, and the same work for a user who does not exist.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE64;
use mezite_core::Secret;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::random;

/// RFC 9106 section 4, second choice scaled as OWASP does: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// How many passwords are checked at the same time; each takes 19 MiB (attack row 32).
const AT_ONCE: usize = 4;

/// A password's hash with what it was made from. Stays inside the store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hash {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    hash: String,
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(redacted)")
    }
}

/// Why a password could not be checked or hashed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PasswordError {
    /// The record was not written by this program, or memory ran out.
    #[error("the password record is unusable: {0}")]
    Unusable(String),
    /// The hub is going down.
    #[error("the hub is going down")]
    Stopped,
}

/// Hashes and checks passwords away from the runtime's threads, a few at a time.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    /// Compared with when there is no user: of a password that nobody knows.
    nobody: Arc<Hash>,
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, PasswordError> {
        let nobody = Arc::new(hash_now(&random::password())?);
        Ok(Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            nobody,
        })
    }

    pub(crate) async fn hash(&self, password: Secret<String>) -> Result<Hash, PasswordError> {
        self.in_turn(move || hash_now(&password)).await
    }

    /// Whether `password` is the one that `stored` was made of. Without a record the work is the same and the
    /// answer no.
    pub(crate) async fn check(
        &self,
        password: Secret<String>,
        stored: Option<Hash>,
    ) -> Result<bool, PasswordError> {
        let nobody = Arc::clone(&self.nobody);
        self.in_turn(move || {
            let known = stored.is_some();
            let matches = stored.as_ref().unwrap_or(&nobody).matches(&password)?;
            Ok(known & matches)
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| PasswordError::Stopped)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(slot);
            result
        });
        done.await.map_err(|_| PasswordError::Stopped)?
    }
}

impl Hash {
    fn matches(&self, password: &Secret<String>) -> Result<bool, PasswordError> {
        let salt = decode(&self.salt)?;
        let expected = Secret::new(decode(&self.hash)?);
        let got = derive(password, &salt, (self.memory_kib, self.passes, self.lanes))?;
        Ok(expected.matches(got.expose()))
    }
}

fn hash_now(password: &Secret<String>) -> Result<Hash, PasswordError> {
    let salt = random::bytes::<16>();
    let hash = derive(password, &salt, (MEMORY_KIB, PASSES, LANES))?;
    Ok(Hash {
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: BASE64.encode(&salt),
        hash: BASE64.encode(hash.expose()),
    })
}

fn derive(
    password: &Secret<String>,
    salt: &[u8],
    cost: (u32, u32, u32),
) -> Result<Secret<[u8; 32]>, PasswordError> {
    let (memory, passes, lanes) = cost;
    let mut out = [0; 32];
    Params::new(memory, passes, lanes, Some(out.len()))
        .and_then(|params| {
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                password.expose().as_bytes(),
                salt,
                &mut out,
            )
        })
        .map_err(|error| PasswordError::Unusable(error.to_string()))?;
    Ok(Secret::new(out))
}

fn decode(text: &str) -> Result<Vec<u8>, PasswordError> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| PasswordError::Unusable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_itself_only() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(Secret::new("right".into())).await.unwrap();
        let check = async |text: &str, hash: Option<&Hash>| {
            passwords
                .check(Secret::new(text.to_owned()), hash.cloned())
                .await
                .unwrap()
        };
        assert!(check("right", Some(&hash)).await);
        assert!(!check("wrong", Some(&hash)).await);
        assert!(!check("", Some(&hash)).await);
        assert!(!check("right", None).await);
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ_and_show_nothing() {
        let passwords = Passwords::new().unwrap();
        let one = passwords.hash(Secret::new("same".into())).await.unwrap();
        let two = passwords.hash(Secret::new("same".into())).await.unwrap();
        assert_ne!(one, two);
        assert_eq!(format!("{one:?}"), "Hash(redacted)");
    }
}
