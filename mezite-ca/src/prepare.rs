//! Issuing in two steps, for keys that another machine holds: what is to be signed goes out, the signature comes back.
//!
//! Both steps are pure, so that between them may lie a network, a ceremony or a night. The authority needs its public
//! key only ([`crate::RemoteKey`]). Signing here takes the same two steps.

use std::fmt;

use rustls_pki_types::CertificateDer;
use ssh_key::Certificate;

use crate::signer::{SignError, Signer, fingerprint, signed_by};
use crate::ssh::IssueError;
use crate::wire::Writer;

/// A certificate that lacks nothing but its signature. `C` is what it becomes.
#[must_use = "it is worth nothing until it is signed"]
pub struct Prepared<C> {
    authority: [u8; 32],
    message: Vec<u8>,
    assemble: fn(&[u8], &[u8; 64]) -> Result<C, IssueError>,
}

impl<C> Prepared<C> {
    /// The Ed25519 public key of the authority that is to sign.
    #[must_use]
    pub const fn authority(&self) -> &[u8; 32] {
        &self.authority
    }

    /// The bytes to sign: pure Ed25519 (RFC 8032), not prehashed.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The certificate, if the signature is the authority's over [`Self::message`].
    ///
    /// Checking what was signed also keeps a faulty device from giving its key away: a wrong Ed25519 signature over a
    /// known message can reveal it.
    ///
    /// # Errors
    /// [`IssueError::Sign`] with [`SignError::Wrong`] for any other signature, [`IssueError::Write`].
    pub fn finish(self, signature: &[u8; 64]) -> Result<C, IssueError> {
        if !signed_by(&self.authority, &self.message, signature) {
            return Err(SignError::Wrong(fingerprint(&self.authority)).into());
        }
        (self.assemble)(&self.message, signature)
    }

    /// Both steps at once, with a key that is at hand.
    pub(crate) fn sign(self, signer: &dyn Signer) -> Result<C, IssueError> {
        let signature = signer.sign(&self.message)?;
        self.finish(&signature)
    }
}

impl Prepared<Certificate> {
    /// `message` is everything up to the signature (PROTOCOL.certkeys).
    pub(crate) const fn ssh(authority: [u8; 32], message: Vec<u8>) -> Self {
        Self {
            authority,
            message,
            assemble: assemble_ssh,
        }
    }
}

impl Prepared<CertificateDer<'static>> {
    /// `message` is the TBSCertificate (RFC 5280 section 4.1.2).
    pub(crate) const fn tls(authority: [u8; 32], message: Vec<u8>) -> Self {
        Self {
            authority,
            message,
            assemble: assemble_tls,
        }
    }
}

impl<C> fmt::Debug for Prepared<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("authority", &fingerprint(&self.authority))
            .field("bytes", &self.message.len())
            .finish_non_exhaustive()
    }
}

fn assemble_ssh(message: &[u8], signature: &[u8; 64]) -> Result<Certificate, IssueError> {
    let mut packed = Writer::default();
    packed.string(b"ssh-ed25519");
    packed.string(signature);
    let mut blob = Writer(message.to_vec());
    blob.string(&packed.0);
    Certificate::from_bytes(&blob.0).map_err(crate::ssh::written)
}

/// SEQUENCE { tbsCertificate, signatureAlgorithm id-Ed25519, signature BIT STRING }
fn assemble_tls(
    message: &[u8],
    signature: &[u8; 64],
) -> Result<CertificateDer<'static>, IssueError> {
    const ALGORITHM: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    const BIT_STRING: [u8; 3] = [0x03, 0x41, 0x00];
    let content = [message, &ALGORITHM[..], &BIT_STRING[..], &signature[..]].concat();
    let length = u16::try_from(content.len()).map_err(|_| IssueError::TooLarge(content.len()))?;
    let [high, low] = length.to_be_bytes();
    let head: &[u8] = match length {
        0..0x80 => &[0x30, low],
        0x80..0x100 => &[0x30, 0x81, low],
        _ => &[0x30, 0x82, high, low],
    };
    Ok(CertificateDer::from([head, &content].concat()))
}
