//! Verification: one checklist for every certificate, and each miss its own [`VerifyError`].
//!
//! In this order: size and counts (before anything costs), form, who signed (a plain Ed25519 key, of the right ring,
//! and of that ring alone), the signature, type, window and life, critical options, principal, cluster, revocation.
//! Only what passed all of it becomes a `Verified…` value, which has no other constructor.

mod blob;
mod peer;
mod pinned;
mod source;
mod ssh;
#[cfg(test)]
mod vectors;

use std::fmt;
use std::net::IpAddr;

use mezite_core::{Serial, UnixTime};
use ssh_key::public::KeyData;
use thiserror::Error;

pub(crate) use peer::Root;
pub use peer::{Purpose, VerifiedPeer, peer};
pub use pinned::pinned;
pub use ssh::{
    VerifiedBreakGlass, VerifiedGateway, VerifiedIdentity, VerifiedNode, VerifiedSession,
    break_glass, gateway_host, identity, node_host, session,
};

use crate::kind::KeyKind;
use crate::ssh::{MAX_CERTIFICATE_BYTES, MAX_PRINCIPALS};
use crate::tls::PeerKind;
use crate::trust::TrustBundle;
use crate::wire::Fault;

/// What a certificate is checked against.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The authorities, and the cluster they stand for.
    pub trust: &'a TrustBundle,
    /// The present time.
    pub now: UnixTime,
    /// Where the holder connects from. Certificates bound to addresses are refused if it is unknown.
    pub source: Option<IpAddr>,
    /// Whether an otherwise good certificate was revoked. The last check.
    pub revoked: &'a dyn Fn(&Revocable<'_>) -> bool,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("cluster", &self.trust.cluster)
            .field("now", &self.now)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// By what a certificate can be revoked.
#[derive(Clone, Copy, Debug)]
pub struct Revocable<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// Its key id; of an X.509 certificate, the URI.
    pub key_id: &'a str,
    /// The key it certifies.
    pub key: &'a KeyData,
    /// The kind of authority that issued it.
    pub authority: KeyKind,
    /// The authority's key: serial numbers and key ids are revoked for one authority.
    pub authority_key: &'a KeyData,
}

/// The first line of the checklist that a certificate missed. Values from the certificate are escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The signature key is itself a certificate.
    #[error("the signature key is itself a certificate")]
    AuthorityIsCertificate,
    /// The signature, or the key it is by, is not Ed25519.
    #[error("signed with `{0}`: every authority signs with Ed25519")]
    AuthorityAlgorithm(String),
    /// The extension has a value it cannot have.
    #[error("the extension `{name}` has the value `{value}`")]
    BadExtension {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The signature is not by the key that it names.
    #[error("the signature is wrong")]
    BadSignature,
    /// A critical option that we cannot honour, or an unknown critical extension.
    #[error("the critical option `{0}` cannot be honoured here")]
    CriticalOption(String),
    /// An option or principal occurs twice.
    #[error("`{0}` occurs twice")]
    Duplicate(String),
    /// The window has closed.
    #[error("the certificate expired at {valid_before} (it is {now})")]
    Expired {
        /// The end of the window.
        valid_before: UnixTime,
        /// When it was checked.
        now: UnixTime,
    },
    /// The certificate allows one command only, which nothing here enforces.
    #[error(
        "the certificate is bound to the command `{0}`, which is not supported: use one without force-command"
    )]
    ForceCommand(String),
    /// The window is longer than any that this authority issues, or ends before it begins.
    #[error(
        "the certificate is valid from {valid_after} s to {valid_before} s: at most {most} s are issued"
    )]
    Life {
        /// The beginning, in seconds since the epoch.
        valid_after: u64,
        /// The end, in seconds since the epoch.
        valid_before: u64,
        /// The longest life of this kind, in seconds.
        most: u64,
    },
    /// A field is not what the format says.
    #[error("the certificate's field `{0}` is malformed")]
    Malformed(&'static str),
    /// An extension that this kind always carries is absent.
    #[error("the extension `{0}` is missing")]
    MissingExtension(&'static str),
    /// The window has not opened.
    #[error("the certificate is valid from {valid_after} only (it is {now}): is a clock wrong?")]
    NotYetValid {
        /// The beginning of the window.
        valid_after: UnixTime,
        /// When it was checked.
        now: UnixTime,
    },
    /// The X.509 certificate is an authority's, or may not sign a handshake.
    #[error("the certificate is not a peer's")]
    NotAPeer,
    /// Options are not in the order that PROTOCOL.certkeys demands.
    #[error("the option `{0}` is out of order")]
    OptionOrder(String),
    /// Not exactly one name that is a [`crate::PeerName`].
    #[error("the certificate must name one peer as mezite://<cluster>/<kind>/<name>, not `{0}`")]
    PeerName(String),
    /// An empty list would mean "anybody"; other kinds have exactly one.
    #[error("the certificate has {0} principals")]
    PrincipalCount(usize),
    /// A principal of a host certificate that is a pattern, a list, or no host name; one of a break-glass certificate
    /// that is no login on a node.
    #[error("the principal `{0}` has another form than a certificate of this kind may carry")]
    PrincipalForm(String),
    /// A restriction stands where it does not restrict.
    #[error("the critical option `{0}` stands among the extensions, where it would be ignored")]
    RestrictionAsExtension(String),
    /// Revoked by serial, key id or key.
    #[error("the certificate with serial {0} is revoked")]
    Revoked(Serial),
    /// One key stands in two rings of the trust bundle.
    #[error("the key {0} is trusted in two rings: no key may serve both")]
    SharedAuthority(String),
    /// Not from there.
    #[error("the certificate may be used from `{allowed}`, not from {source_address}")]
    SourceAddress {
        /// Where the holder is.
        source_address: IpAddr,
        /// The option's value.
        allowed: String,
    },
    /// The option cannot be understood, so it cannot be honoured.
    #[error("the critical option source-address has the malformed value `{0}`")]
    SourceAddressForm(String),
    /// The certificate is bound to addresses, and the holder's is unknown.
    #[error("the certificate may be used from `{0}` only, and the holder's address is unknown")]
    SourceUnknown(String),
    /// The certified key has an algorithm that is not accepted, or is not a sound key.
    #[error("a certified key of type `{0}` is not accepted")]
    SubjectKey(String),
    /// Larger than anything we issue.
    #[error("a certificate of {0} bytes is too large: at most {MAX_CERTIFICATE_BYTES}")]
    TooLarge(usize),
    /// More list entries than anything we issue.
    #[error("the certificate has too many {0}: at most {MAX_PRINCIPALS} are read")]
    TooMany(&'static str),
    /// Bytes after the end of a field.
    #[error("there are bytes after the end of `{0}`")]
    TrailingBytes(&'static str),
    /// Signed by a key that is no authority of ours.
    #[error("signed by {0}, which is no authority of this cluster")]
    UnknownAuthority(String),
    /// The trust bundle holds something that is no authority's certificate.
    #[error("the trust bundle holds an unreadable {0} certificate: fetch the bundle again")]
    UnreadableAuthority(KeyKind),
    /// Another cluster's.
    #[error("the certificate is for the cluster `{found}`, this is `{expected}`")]
    WrongCluster {
        /// Ours.
        expected: String,
        /// The certificate's.
        found: String,
    },
    /// A peer of a kind that has no business here.
    #[error("a {0} is not accepted here")]
    WrongKind(PeerKind),
    /// Good for somebody or something else.
    #[error("the certificate is for `{found}`, not for `{expected}`")]
    WrongPrincipal {
        /// What was needed.
        expected: String,
        /// What the certificate has.
        found: String,
    },
    /// Signed by an authority of ours that has another purpose.
    #[error(
        "signed by the {found} authority: the {expected} authority is the one that counts here"
    )]
    WrongRing {
        /// The authority that counts.
        expected: KeyKind,
        /// The authority that signed.
        found: KeyKind,
    },
    /// A user certificate where a host's is due, or the reverse, or neither.
    #[error("the certificate is of type {found}, not {expected} (1 is user, 2 is host)")]
    WrongType {
        /// What was needed.
        expected: u32,
        /// What it is.
        found: u32,
    },
    /// The extended key usage does not cover it.
    #[error("the certificate may not be used by a {0}")]
    WrongUsage(Purpose),
}

impl From<Fault> for VerifyError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(field) => Self::Malformed(field),
            Fault::Trailing(field) => Self::TrailingBytes(field),
        }
    }
}
