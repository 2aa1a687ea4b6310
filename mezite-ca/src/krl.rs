//! Key revocation lists in OpenSSH's format (PROTOCOL.krl): what a stock `sshd` reads from `RevokedKeys`, and
//! `ssh-keygen -Q` from a file.
//!
//! The verdict is OpenSSH's: a key counts as revoked if it is listed itself (by key or by hash), a certificate also if
//! its serial number or key id is listed for its authority or for all authorities, or if its authority's key is.
//! A list that cannot be read in every point is no list: [`Loaded`] revokes everything then.

mod read;
mod serials;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use mezite_core::{Serial, UnixTime};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ssh_key::PublicKey;
use ssh_key::public::KeyData;
use thiserror::Error;

use crate::kind::escaped;
use crate::verify::Revocable;
use crate::wire::Fault;
use serials::Serials;

/// Most bytes of a list that are written or read: half a million serial numbers drawn at random, and more.
pub const MAX_KRL_BYTES: usize = 8 * 1024 * 1024;
/// Most entries of a list, a range of serial numbers counting once. Bounds the memory that a list takes.
pub const MAX_KRL_ENTRIES: usize = 500_000;

/// "SSHKRL\n\0"
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT_VERSION: u32 = 1;

const SECTION_CERTIFICATES: u8 = 1;
const SECTION_EXPLICIT_KEY: u8 = 2;
const SECTION_FINGERPRINT_SHA1: u8 = 3;
const SECTION_FINGERPRINT_SHA256: u8 = 5;
const SECTION_EXTENSION: u8 = 255;

const CERT_SERIAL_LIST: u8 = 0x20;
const CERT_SERIAL_RANGE: u8 = 0x21;
const CERT_SERIAL_BITMAP: u8 = 0x22;
const CERT_KEY_ID: u8 = 0x23;
const CERT_EXTENSION: u8 = 0x39;

/// Why a list was not read, not written, or not added to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KrlError {
    /// A key was to be encoded and could not.
    #[error("the key could not be written: {0}")]
    Key(String),
    /// A key id that OpenSSH could not read back.
    #[error(
        "the key id `{0}` cannot be revoked: it is empty, longer than 1024 bytes, or has a NUL in it"
    )]
    KeyId(String),
    /// The bytes do not begin as a list does.
    #[error("this is not an OpenSSH key revocation list")]
    Magic,
    /// A field is not what the format says.
    #[error("the revocation list's field `{0}` is malformed")]
    Malformed(&'static str),
    /// Serial 0 means "none given", and a range must not end before it begins.
    #[error(
        "the serial numbers {0} to {1} cannot be revoked: they begin at 1 and do not run backwards"
    )]
    SerialRange(u64, u64),
    /// More bytes than are read.
    #[error("a revocation list of {0} bytes is too large: at most {MAX_KRL_BYTES}")]
    TooLarge(usize),
    /// More entries than are kept.
    #[error(
        "the revocation list has more than {MAX_KRL_ENTRIES} entries: revoke by key id, or rotate the authority"
    )]
    TooMany,
    /// Bytes after the end of a field.
    #[error("there are bytes after the end of `{0}` in the revocation list")]
    TrailingBytes(&'static str),
    /// A section whose meaning is unknown could revoke something.
    #[error("the revocation list has a section of type {0}, whose meaning is unknown")]
    UnknownSection(u8),
    /// An extension that must be understood, and is not.
    #[error("the revocation list has the critical extension `{0}`, whose meaning is unknown")]
    UnknownExtension(String),
    /// Another version of the format.
    #[error("the revocation list has format version {0}, this reads {FORMAT_VERSION}")]
    Version(u32),
}

impl From<Fault> for KrlError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(field) => Self::Malformed(field),
            Fault::Trailing(field) => Self::TrailingBytes(field),
        }
    }
}

/// Whose certificates are meant.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "PROTOCOL.krl knows these two")]
pub enum Scope<'a> {
    /// Those of one authority.
    Authority(&'a PublicKey),
    /// Those of every authority. Meant for key ids: serial numbers of two authorities can coincide.
    EveryAuthority,
}

/// A key revocation list.
#[derive(Clone, Debug)]
pub struct Krl {
    version: u64,
    generated: UnixTime,
    comment: String,
    /// Blobs of plain keys.
    keys: BTreeSet<Vec<u8>>,
    sha1: BTreeSet<[u8; 20]>,
    sha256: BTreeSet<[u8; 32]>,
    /// By the blob of the authority's key; empty for every authority.
    authorities: BTreeMap<Vec<u8>, Revoked>,
    /// Upper bound of the entries, so that a bound costs no walk.
    entries: usize,
}

impl PartialEq for Krl {
    /// Equal if they say the same, however often it was said.
    fn eq(&self, other: &Self) -> bool {
        let head = |list: &Self| (list.version, list.generated);
        head(self) == head(other)
            && self.comment == other.comment
            && self.keys == other.keys
            && self.sha1 == other.sha1
            && self.sha256 == other.sha256
            && self.authorities == other.authorities
    }
}

impl Eq for Krl {}

/// What is revoked of one authority's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Revoked {
    serials: Serials,
    key_ids: BTreeSet<Vec<u8>>,
}

impl Krl {
    /// A list that revokes nothing yet. `version` grows with each change, `generated` is kept in whole seconds, and the
    /// comment to its first 256 characters without control characters.
    #[must_use]
    pub fn new(version: u64, generated: UnixTime, comment: &str) -> Self {
        Self {
            version,
            generated: UnixTime::from_secs(generated.as_secs()),
            comment: comment
                .chars()
                .filter(|c| !c.is_control())
                .take(256)
                .collect(),
            keys: BTreeSet::new(),
            sha1: BTreeSet::new(),
            sha256: BTreeSet::new(),
            authorities: BTreeMap::new(),
            entries: 0,
        }
    }

    /// Its version number.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// When it was made.
    #[must_use]
    pub const fn generated(&self) -> UnixTime {
        self.generated
    }

    /// What its maker wrote about it.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Whether nothing at all is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Revokes a key, with every certificate for it; an authority's key, with every certificate it signed.
    ///
    /// # Errors
    /// [`KrlError::Key`], [`KrlError::TooMany`].
    pub fn revoke_key(&mut self, key: &KeyData) -> Result<(), KrlError> {
        self.add(1)?;
        self.keys.insert(blob(key)?);
        Ok(())
    }

    /// Revokes a key of which only the SHA-256 fingerprint is known.
    ///
    /// # Errors
    /// [`KrlError::TooMany`].
    pub fn revoke_fingerprint(&mut self, sha256: [u8; 32]) -> Result<(), KrlError> {
        self.add(1)?;
        self.sha256.insert(sha256);
        Ok(())
    }

    /// Revokes one certificate by its serial number.
    ///
    /// # Errors
    /// [`KrlError::SerialRange`] for serial 0, [`KrlError::Key`], [`KrlError::TooMany`].
    pub fn revoke_serial(&mut self, scope: Scope<'_>, serial: Serial) -> Result<(), KrlError> {
        self.revoke_serials(scope, serial.as_u64()..=serial.as_u64())
    }

    /// Revokes certificates by a range of serial numbers, both ends included.
    ///
    /// # Errors
    /// [`KrlError::SerialRange`], [`KrlError::Key`], [`KrlError::TooMany`].
    pub fn revoke_serials(
        &mut self,
        scope: Scope<'_>,
        serials: RangeInclusive<u64>,
    ) -> Result<(), KrlError> {
        let authority = scope_blob(scope)?;
        self.insert_serials(authority, *serials.start(), *serials.end())
    }

    /// Revokes every certificate with this key id.
    ///
    /// # Errors
    /// [`KrlError::KeyId`], [`KrlError::Key`], [`KrlError::TooMany`].
    pub fn revoke_key_id(&mut self, scope: Scope<'_>, key_id: &str) -> Result<(), KrlError> {
        let authority = scope_blob(scope)?;
        self.insert_key_id(authority, key_id.as_bytes())
    }

    /// OpenSSH's verdict on a certificate.
    #[must_use]
    pub fn revokes(&self, certificate: &Revocable<'_>) -> bool {
        let lists = |key| self.lists(key);
        lists(certificate.key)
            || lists(certificate.authority_key)
            || self.lists_certificate(certificate)
    }

    /// OpenSSH's verdict on a plain key.
    #[must_use]
    pub fn revokes_key(&self, key: &KeyData) -> bool {
        self.lists(key)
    }

    /// A key that cannot be encoded cannot be looked up, so it counts as listed.
    fn lists(&self, key: &KeyData) -> bool {
        let Ok(blob) = blob(key) else { return true };
        let sha1 = || self.sha1.contains::<[u8; 20]>(&Sha1::digest(&blob).into());
        let sha256 = || {
            self.sha256
                .contains::<[u8; 32]>(&Sha256::digest(&blob).into())
        };
        self.keys.contains(&blob)
            || (!self.sha1.is_empty() && sha1())
            || (!self.sha256.is_empty() && sha256())
    }

    fn lists_certificate(&self, certificate: &Revocable<'_>) -> bool {
        let Ok(authority) = blob(certificate.authority_key) else {
            return true;
        };
        [authority, Vec::new()]
            .iter()
            .filter_map(|scope| self.authorities.get(scope))
            .any(|revoked| {
                revoked.key_ids.contains(certificate.key_id.as_bytes())
                    || revoked.serials.contains(certificate.serial.as_u64())
            })
    }

    fn insert_serials(
        &mut self,
        authority: Vec<u8>,
        first: u64,
        last: u64,
    ) -> Result<(), KrlError> {
        if first == 0 || last < first {
            return Err(KrlError::SerialRange(first, last));
        }
        self.add(1)?;
        let revoked = self.authorities.entry(authority).or_default();
        revoked.serials.insert(first, last);
        Ok(())
    }

    fn insert_key_id(&mut self, authority: Vec<u8>, key_id: &[u8]) -> Result<(), KrlError> {
        if !(1..=1024).contains(&key_id.len()) || key_id.contains(&0) {
            return Err(KrlError::KeyId(escaped(&String::from_utf8_lossy(key_id))));
        }
        self.add(1)?;
        let revoked = self.authorities.entry(authority).or_default();
        revoked.key_ids.insert(key_id.to_vec());
        Ok(())
    }

    fn add(&mut self, count: usize) -> Result<(), KrlError> {
        let entries = self.entries.saturating_add(count);
        if entries > MAX_KRL_ENTRIES {
            return Err(KrlError::TooMany);
        }
        self.entries = entries;
        Ok(())
    }
}

fn blob(key: &KeyData) -> Result<Vec<u8>, KrlError> {
    PublicKey::from(key.clone())
        .to_bytes()
        .map_err(|error| KrlError::Key(error.to_string()))
}

fn scope_blob(scope: Scope<'_>) -> Result<Vec<u8>, KrlError> {
    match scope {
        Scope::Authority(key) => blob(key.key_data()),
        Scope::EveryAuthority => Ok(Vec::new()),
    }
}

/// A list as it was found. One that could not be read revokes everything: a node whose list was cut short opens to
/// nobody, rather than to those who cut it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a list is readable or not")]
pub enum Loaded {
    /// A list, read in every point.
    List(Krl),
    /// Not a list; why.
    Unreadable(KrlError),
}

impl Loaded {
    /// Reads a list.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        Krl::parse(bytes).map_or_else(Self::Unreadable, Self::List)
    }

    /// Whether a certificate is to be refused: for [`crate::verify::Context::revoked`].
    #[must_use]
    pub fn revokes(&self, certificate: &Revocable<'_>) -> bool {
        match self {
            Self::List(list) => list.revokes(certificate),
            Self::Unreadable(_) => true,
        }
    }
}
