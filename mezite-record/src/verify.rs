//! Checks a finished file without any key to its content: structure, digest, signature.

use std::io::Read;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};
use mezite_core::Span;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::decode::{DecodeError, Piece, Scanner, header};
use crate::format::{FOOTER_TAIL, FooterTail, Header, signed_message};

/// Why a file is not a recording that the cluster finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The file cannot be read.
    #[error("the recording cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The structure is wrong.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There is no footer: the file was cut, or the session still runs.
    #[error("the recording has no end: it was cut, or the session still runs")]
    Unfinished,
    /// The content is not what was signed.
    #[error("the recording was changed: its digest is not the one its end states")]
    Digest,
    /// The signing key is none of the trusted ones.
    #[error("the recording is signed with the key `{0}`, which is not trusted")]
    Untrusted(String),
    /// The signature is wrong.
    #[error("the recording's signature is wrong")]
    Signature,
}

/// What a verified file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The session. Whether it is the session that was asked for is for the caller to compare.
    pub header: Header,
    /// SHA-256 of the whole file, lowercase hexadecimal, to compare with the event that reported the end.
    pub digest: String,
    /// Frames in it.
    pub frames: u64,
    /// Length of the session.
    pub duration: Span,
    /// Closed after the recorder died.
    pub recovered: bool,
    /// Bytes of an unfinished chunk that recovery left out.
    pub dropped: u64,
    /// The key that signed.
    pub public_key: [u8; 32],
}

/// Reads all of `file` and checks it against the `trusted` Ed25519 keys.
///
/// # Errors
/// Every [`VerifyError`].
pub fn verify(mut file: impl Read, trusted: &[[u8; 32]]) -> Result<Verified, VerifyError> {
    let mut scan = Scan::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        scan.take(buffer.get(..count).unwrap_or_default())?;
        if count == 0 {
            return scan.finish(trusted);
        }
    }
}

#[derive(Default)]
struct Scan {
    scanner: Scanner,
    hash: Sha256,
    header: Option<Header>,
    verified: Option<(Verified, FooterTail, [u8; 32])>,
}

impl Scan {
    fn take(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        self.scanner.feed(bytes);
        while let Some(piece) = self.scanner.next()? {
            match piece {
                Piece::Head { head, raw } => {
                    self.hash.update(&raw);
                    self.header = Some(header(&head)?);
                }
                Piece::Chunk { raw, .. } => self.hash.update(&raw),
                Piece::Footer { footer, tail, raw } => {
                    let signed = raw.len().saturating_sub(FOOTER_TAIL);
                    self.hash.update(raw.get(..signed).unwrap_or_default());
                    let digest = self.hash.clone().finalize().into();
                    self.hash.update(raw.get(signed..).unwrap_or_default());
                    let header = self.header.take().ok_or(VerifyError::Unfinished)?;
                    let verified = Verified {
                        header,
                        digest: HEXLOWER.encode(&self.hash.clone().finalize()),
                        frames: footer.frames,
                        duration: Span::from_millis(footer.millis),
                        recovered: footer.recovered,
                        dropped: footer.dropped,
                        public_key: tail.public_key,
                    };
                    self.verified = Some((verified, tail, digest));
                }
            }
        }
        Ok(())
    }

    fn finish(self, trusted: &[[u8; 32]]) -> Result<Verified, VerifyError> {
        let (verified, tail, digest) = self.verified.ok_or(VerifyError::Unfinished)?;
        if digest != tail.digest {
            return Err(VerifyError::Digest);
        }
        if !trusted.contains(&tail.public_key) {
            return Err(VerifyError::Untrusted(HEXLOWER.encode(&tail.public_key)));
        }
        let key = VerifyingKey::from_bytes(&tail.public_key).map_err(|_| VerifyError::Signature)?;
        key.verify_strict(
            &signed_message(&digest),
            &Signature::from_bytes(&tail.signature),
        )
        .map_err(|_| VerifyError::Signature)?;
        Ok(verified)
    }
}
