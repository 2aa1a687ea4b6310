//! Private keys at rest: sealed with XChaCha20-Poly1305 under a key file or a passphrase.
//!
//! A sealed blob is `"mezseal" version method [method's parameters] nonce ciphertext`. Everything before the
//! ciphertext is authenticated with it, and so are the cluster, the kind of key and its generation: a blob opens
//! only in its own place.

use std::fmt;
use std::sync::Mutex;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use mezite_core::{ClusterName, Secret};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::kind::KeyKind;
use crate::signer::SoftwareKey;

const MAGIC: &[u8; 7] = b"mezseal";
const VERSION: u8 = 1;
const KEY_FILE: u8 = 1;
const PASSPHRASE: u8 = 2;
const NONCE: usize = 24;
const SALT: usize = 16;
/// A blob that asks for more memory than this (KiB) is refused: it would be an attack on the hub.
const MAX_MEMORY: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 32;

/// Where a sealed key belongs. Authenticated, not stored in the blob.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// What the key is for.
    pub kind: KeyKind,
    /// Counts the keys of this kind.
    pub generation: u64,
}

/// Seals private keys for storage, and opens them again.
pub trait Sealer: Send + Sync + fmt::Debug {
    /// Seals `plain` for `context`.
    ///
    /// # Errors
    /// [`SealError::Derivation`].
    fn seal(
        &self,
        plain: &[u8],
        context: &Context<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SealError>;

    /// Opens what the same sealer sealed for the same context.
    ///
    /// # Errors
    /// [`SealError::Refused`] for a wrong key, another context or a changed blob, and the other variants for blobs
    /// that cannot be ours.
    fn open(&self, sealed: &[u8], context: &Context<'_>) -> Result<Secret<Vec<u8>>, SealError>;
}

impl SoftwareKey {
    /// The key, sealed for storage.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal(
        &self,
        sealer: &dyn Sealer,
        context: &Context<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        sealer.seal(self.seed().expose(), context, rng)
    }

    /// The key that [`SoftwareKey::seal`] sealed.
    ///
    /// # Errors
    /// As [`Sealer::open`]; [`SealError::Malformed`] if what was sealed is no key.
    pub fn open(
        sealer: &dyn Sealer,
        sealed: &[u8],
        context: &Context<'_>,
    ) -> Result<Self, SealError> {
        let plain = sealer.open(sealed, context)?;
        let seed: [u8; 32] = plain
            .expose()
            .as_slice()
            .try_into()
            .map_err(|_| SealError::Malformed)?;
        Ok(Self::from_seed(Secret::new(seed)))
    }
}

/// Why a private key was not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The blob asks for absurd work.
    #[error(
        "the sealed key asks for {memory} KiB of memory, {passes} passes and {lanes} lanes: refused as hostile"
    )]
    Cost {
        /// Memory in KiB.
        memory: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The key could not be derived from the passphrase.
    #[error("the sealing key could not be derived: {0}")]
    Derivation(String),
    /// What a key file holds is no key.
    #[error(
        "the key file must hold 64 hexadecimal digits and a newline: make one with `openssl rand -hex 32`"
    )]
    KeyFile,
    /// Not a sealed key, or cut short.
    #[error("this is not a sealed key")]
    Malformed,
    /// Sealed by the other method.
    #[error("the key was sealed with a {found}, but a {expected} was given")]
    Method {
        /// How it was sealed.
        found: &'static str,
        /// What was given.
        expected: &'static str,
    },
    /// The blob does not open.
    #[error(
        "the {kind} key does not open: the sealing key or passphrase is another one, or the stored key was moved or changed"
    )]
    Refused {
        /// What was to be opened.
        kind: KeyKind,
    },
    /// Written by a newer release.
    #[error(
        "the key was sealed in format version {0}, which this release does not know: use a newer one"
    )]
    Version(u8),
}

/// 32 random bytes from a file.
pub struct KeyFile(Secret<[u8; 32]>);

impl KeyFile {
    /// The key that a key file's content holds: 64 hexadecimal digits and a newline (which may be missing).
    ///
    /// # Errors
    /// [`SealError::KeyFile`].
    pub fn parse(content: &[u8]) -> Result<Self, SealError> {
        let digits = content.strip_suffix(b"\n").unwrap_or(content);
        let lower = Zeroizing::new(digits.to_ascii_lowercase());
        let bytes = Zeroizing::new(HEXLOWER.decode(&lower).map_err(|_| SealError::KeyFile)?);
        let key: [u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| SealError::KeyFile)?;
        if key == [0; 32] {
            return Err(SealError::KeyFile);
        }
        Ok(Self(Secret::new(key)))
    }

    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut());
        Self(Secret::new(*key))
    }

    /// The content of a key file that holds this key.
    #[must_use]
    pub fn to_content(&self) -> Secret<String> {
        Secret::new(format!("{}\n", HEXLOWER.encode(self.0.expose())))
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile(redacted)")
    }
}

impl Sealer for KeyFile {
    fn seal(
        &self,
        plain: &[u8],
        context: &Context<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        encrypt(self.0.expose(), header(KEY_FILE, &[]), plain, context, rng)
    }

    fn open(&self, sealed: &[u8], context: &Context<'_>) -> Result<Secret<Vec<u8>>, SealError> {
        let (method, rest) = read_header(sealed)?;
        expect_method(method, KEY_FILE)?;
        decrypt(self.0.expose(), sealed, rest, context)
    }
}

/// A passphrase, stretched with Argon2id (RFC 9106). The parameters are in the blob.
pub struct Passphrase {
    passphrase: Secret<String>,
    cost: Cost,
    /// The last key derived, so that the keys of one cluster, sealed with one salt, cost one derivation.
    derived: Mutex<Option<Derived>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory: u32,
    passes: u32,
    lanes: u32,
}

struct Derived {
    cost: Cost,
    salt: [u8; SALT],
    key: Zeroizing<[u8; 32]>,
}

impl Passphrase {
    /// Stretched with 64 MiB and 3 passes: about 0.3 s.
    #[must_use]
    pub const fn new(passphrase: Secret<String>) -> Self {
        Self::with_cost(
            passphrase,
            Cost {
                memory: 64 * 1024,
                passes: 3,
                lanes: 1,
            },
        )
    }

    /// Stretched so little that guessing is cheap. For tests.
    #[must_use]
    pub const fn dangerously_cheap(passphrase: Secret<String>) -> Self {
        Self::with_cost(
            passphrase,
            Cost {
                memory: 8,
                passes: 1,
                lanes: 1,
            },
        )
    }

    const fn with_cost(passphrase: Secret<String>, cost: Cost) -> Self {
        Self {
            passphrase,
            cost,
            derived: Mutex::new(None),
        }
    }

    /// The key for a salt; for any salt of the right cost, if none is given.
    fn key(
        &self,
        cost: Cost,
        salt: Option<[u8; SALT]>,
        fresh: [u8; SALT],
    ) -> Result<Derived, SealError> {
        let mut derived = self
            .derived
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = derived.as_ref()
            && known.cost == cost
            && salt.is_none_or(|salt| salt == known.salt)
        {
            return Ok(known.copy());
        }
        let made = self.derive(cost, salt.unwrap_or(fresh))?;
        *derived = Some(made.copy());
        Ok(made)
    }

    fn derive(&self, cost: Cost, salt: [u8; SALT]) -> Result<Derived, SealError> {
        let failed = |error: argon2::Error| SealError::Derivation(error.to_string());
        let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.passphrase.expose().as_bytes(), &salt, key.as_mut())
            .map_err(failed)?;
        Ok(Derived { cost, salt, key })
    }
}

impl Derived {
    fn copy(&self) -> Self {
        Self {
            cost: self.cost,
            salt: self.salt,
            key: self.key.clone(),
        }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

impl Sealer for Passphrase {
    fn seal(
        &self,
        plain: &[u8],
        context: &Context<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        let mut fresh = [0; SALT];
        rng.fill_bytes(&mut fresh);
        let derived = self.key(self.cost, None, fresh)?;
        let Cost {
            memory,
            passes,
            lanes,
        } = derived.cost;
        let mut parameters = [memory, passes, lanes].map(u32::to_be_bytes).concat();
        parameters.extend_from_slice(&derived.salt);
        encrypt(
            &derived.key,
            header(PASSPHRASE, &parameters),
            plain,
            context,
            rng,
        )
    }

    fn open(&self, sealed: &[u8], context: &Context<'_>) -> Result<Secret<Vec<u8>>, SealError> {
        let (method, rest) = read_header(sealed)?;
        expect_method(method, PASSPHRASE)?;
        let (cost, salt, rest) = read_parameters(rest)?;
        let derived = self.key(cost, Some(salt), salt)?;
        decrypt(&derived.key, sealed, rest, context)
    }
}

fn header(method: u8, parameters: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION, method], parameters].concat()
}

fn read_header(sealed: &[u8]) -> Result<(u8, &[u8]), SealError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::Malformed)?;
    let (version, rest) = rest.split_first().ok_or(SealError::Malformed)?;
    if *version != VERSION {
        return Err(SealError::Version(*version));
    }
    let (method, rest) = rest.split_first().ok_or(SealError::Malformed)?;
    Ok((*method, rest))
}

fn expect_method(found: u8, expected: u8) -> Result<(), SealError> {
    let name = |method| match method {
        KEY_FILE => Ok("key file"),
        PASSPHRASE => Ok("passphrase"),
        _ => Err(SealError::Malformed),
    };
    if found != expected {
        return Err(SealError::Method {
            found: name(found)?,
            expected: name(expected)?,
        });
    }
    Ok(())
}

fn read_parameters(rest: &[u8]) -> Result<(Cost, [u8; SALT], &[u8]), SealError> {
    let (memory, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
    let (passes, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
    let (lanes, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
    let (salt, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
    let [memory, passes, lanes] = [*memory, *passes, *lanes].map(u32::from_be_bytes);
    if memory > MAX_MEMORY || passes > MAX_PASSES || lanes > 16 {
        return Err(SealError::Cost {
            memory,
            passes,
            lanes,
        });
    }
    Ok((
        Cost {
            memory,
            passes,
            lanes,
        },
        *salt,
        rest,
    ))
}

fn encrypt(
    key: &[u8; 32],
    mut sealed: Vec<u8>,
    plain: &[u8],
    context: &Context<'_>,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let mut random = [0; NONCE];
    rng.fill_bytes(&mut random);
    let nonce = hedged(key, &random, plain, &associated_data(&sealed, context));
    sealed.extend_from_slice(&nonce);
    let payload = Payload {
        msg: plain,
        aad: &associated_data(&sealed, context),
    };
    let ciphertext = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(nonce), payload)
        .map_err(|_| SealError::Derivation("the key is too long to seal".to_owned()))?;
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// A nonce out of random bytes, and of what is sealed with it: should a generator ever give the same bytes again, another key
/// is sealed with another nonce all the same.
fn hedged(key: &[u8; 32], random: &[u8; NONCE], plain: &[u8], place: &[u8]) -> [u8; NONCE] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"mezite/ca/nonce\n")
        .chain_update(key)
        .chain_update(random)
        .chain_update(Sha256::digest(place))
        .chain_update(plain)
        .finalize()
        .into();
    let mut nonce = [0; NONCE];
    nonce
        .iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    nonce
}

/// Opens `sealed`, of which `rest` is what follows the header: nonce and ciphertext.
fn decrypt(
    key: &[u8; 32],
    sealed: &[u8],
    rest: &[u8],
    context: &Context<'_>,
) -> Result<Secret<Vec<u8>>, SealError> {
    let (nonce, ciphertext) = rest
        .split_first_chunk::<NONCE>()
        .ok_or(SealError::Malformed)?;
    let head = sealed
        .strip_suffix(ciphertext)
        .ok_or(SealError::Malformed)?;
    let payload = Payload {
        msg: ciphertext,
        aad: &associated_data(head, context),
    };
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), payload)
        .map(Secret::new)
        .map_err(|_| SealError::Refused { kind: context.kind })
}

/// Everything before the ciphertext, and where the key belongs. Each part ends in a byte that cannot occur in it.
fn associated_data(head: &[u8], context: &Context<'_>) -> Vec<u8> {
    let place = format!(
        "mezite/ca/{}/{}/{}\n",
        context.cluster, context.kind, context.generation
    );
    [place.as_bytes(), head].concat()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::Signer;

    fn cluster() -> ClusterName {
        "example".parse().unwrap()
    }

    fn context(cluster: &ClusterName) -> Context<'_> {
        Context {
            cluster,
            kind: KeyKind::Session,
            generation: 3,
        }
    }

    fn sealers() -> (KeyFile, Passphrase, StdRng) {
        let mut rng = StdRng::seed_from_u64(1);
        let passphrase = Passphrase::dangerously_cheap(Secret::new("correct horse".to_owned()));
        (KeyFile::generate(&mut rng), passphrase, rng)
    }

    #[test]
    fn what_is_sealed_opens_in_its_place() {
        let (file, passphrase, mut rng) = sealers();
        let cluster = cluster();
        let sealers: [&dyn Sealer; 2] = [&file, &passphrase];
        for sealer in sealers {
            let sealed = sealer.seal(b"seed", &context(&cluster), &mut rng).unwrap();
            let again = sealer.seal(b"seed", &context(&cluster), &mut rng).unwrap();
            assert_ne!(sealed, again, "a nonce was used twice");
            assert!(
                sealer
                    .open(&sealed, &context(&cluster))
                    .unwrap()
                    .matches(b"seed")
            );
        }
    }

    /// The generator of a machine that was resumed twice from one snapshot gives both the same bytes.
    #[test]
    fn attack_74_a_generator_that_repeats_itself_makes_no_nonce_twice() {
        let (file, _, _) = sealers();
        let snapshot = || StdRng::seed_from_u64(9);
        let cluster = cluster();
        let here = context(&cluster);
        let next = Context {
            generation: 4,
            ..here
        };
        let nonces: Vec<Vec<u8>> = [
            (b"one seed".as_slice(), here),
            (b"two seed".as_slice(), here),
            (b"one seed".as_slice(), next),
        ]
        .iter()
        .map(|(plain, context)| {
            let sealed = file.seal(plain, context, &mut snapshot()).unwrap();
            assert!(file.open(&sealed, context).unwrap().matches(plain));
            let from = sealed.len() - plain.len() - 16 - NONCE;
            sealed[from..from + NONCE].to_vec()
        })
        .collect();
        assert_ne!(nonces[0], nonces[1], "another key");
        assert_ne!(nonces[0], nonces[2], "another place");
        let again = file.seal(b"one seed", &here, &mut snapshot()).unwrap();
        let first = file.seal(b"one seed", &here, &mut snapshot()).unwrap();
        assert_eq!(again, first, "the same again tells nothing");
    }

    #[test]
    fn attack_72_a_sealed_key_opens_nowhere_else_and_for_nobody_else() {
        let (file, passphrase, mut rng) = sealers();
        let (here, elsewhere) = (cluster(), "other".parse().unwrap());
        let refused = Err(SealError::Refused {
            kind: KeyKind::Session,
        });
        let other_file = KeyFile::generate(&mut rng);
        let other_passphrase =
            Passphrase::dangerously_cheap(Secret::new("correct horsf".to_owned()));
        let pairs: [(&dyn Sealer, &dyn Sealer); 2] =
            [(&file, &other_file), (&passphrase, &other_passphrase)];
        for (sealer, other) in pairs {
            let sealed = sealer
                .seal(b"the seed itself", &context(&here), &mut rng)
                .unwrap();
            assert!(!sealed.windows(8).any(|window| window == b"the seed"));
            let opened = |sealer: &dyn Sealer, context| sealer.open(&sealed, &context).map(|_| ());
            assert_eq!(opened(other, context(&here)), refused);
            assert_eq!(opened(sealer, context(&elsewhere)), refused);
            assert_eq!(
                opened(
                    sealer,
                    Context {
                        generation: 4,
                        ..context(&here)
                    }
                ),
                refused
            );
            let moved = Context {
                kind: KeyKind::Identity,
                ..context(&here)
            };
            assert_eq!(
                opened(sealer, moved),
                Err(SealError::Refused {
                    kind: KeyKind::Identity
                })
            );
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(sealer.open(&changed, &context(&here)).is_err(), "byte {at}");
                assert!(
                    sealer.open(&sealed[..at], &context(&here)).is_err(),
                    "cut at {at}"
                );
            }
        }
    }

    #[test]
    fn a_signing_key_comes_back_from_its_seal() {
        let (file, _, mut rng) = sealers();
        let cluster = cluster();
        let key = SoftwareKey::generate(&mut rng);
        let sealed = key.seal(&file, &context(&cluster), &mut rng).unwrap();
        let opened = SoftwareKey::open(&file, &sealed, &context(&cluster)).unwrap();
        assert_eq!(opened.public_key(), key.public_key());
        let no_key = file.seal(b"short", &context(&cluster), &mut rng).unwrap();
        let opened = SoftwareKey::open(&file, &no_key, &context(&cluster)).map(|_| ());
        assert_eq!(opened, Err(SealError::Malformed));
    }

    #[test]
    fn the_wrong_method_is_named() {
        let (file, passphrase, mut rng) = sealers();
        let cluster = cluster();
        let sealed = file.seal(b"seed", &context(&cluster), &mut rng).unwrap();
        assert_eq!(
            passphrase
                .open(&sealed, &context(&cluster))
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Err("the key was sealed with a key file, but a passphrase was given".to_owned())
        );
    }

    #[test]
    fn a_hostile_blob_does_not_make_the_hub_work() {
        let (_, passphrase, _) = sealers();
        let parameters = [u32::MAX, 3, 1].map(u32::to_be_bytes).concat();
        let sealed = [header(PASSPHRASE, &parameters), vec![0; 200]].concat();
        assert_eq!(
            passphrase.open(&sealed, &context(&cluster())).map(|_| ()),
            Err(SealError::Cost {
                memory: u32::MAX,
                passes: 3,
                lanes: 1
            })
        );
    }

    #[test]
    fn key_files_read_back_and_refuse_other_content() {
        let (file, _, _) = sealers();
        let content = file.to_content();
        let read = KeyFile::parse(content.expose().as_bytes()).unwrap();
        assert!(read.0.matches(file.0.expose()));
        for bad in [
            "",
            "\n",
            "00",
            &"0".repeat(64),
            &"g".repeat(64),
            &"1".repeat(66),
            &format!("{}\n\n", "1".repeat(64)),
        ] {
            assert_eq!(
                KeyFile::parse(bad.as_bytes()).map(|_| ()),
                Err(SealError::KeyFile),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn attack_73_sealers_show_nothing() {
        let (file, passphrase, _) = sealers();
        assert_eq!(
            format!("{file:?} {passphrase:?}"),
            "KeyFile(redacted) Passphrase(redacted)"
        );
    }
}
