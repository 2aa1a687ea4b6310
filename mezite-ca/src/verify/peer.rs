//! X.509: who a TLS peer is (RFC 5280, RFC 8410). The handshake proves that the peer holds the key; this, what the
//! certificate means.

use std::fmt;

use mezite_core::{ClusterName, NodeId, Serial, UnixTime, UserName};
use rustls_pki_types::CertificateDer;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;

use super::{Context, Revocable, VerifyError};
use crate::kind::escaped;
use crate::signer::{fingerprint, is_sound, signed_by};
use crate::ssh::{MAX_CERTIFICATE_BYTES, SKEW};
use crate::tls::{Authority, PEER_CEILING, PeerKind, PeerName, SERIAL_NUMBER};

/// id-Ed25519 (RFC 8410 section 3).
const ED25519: &str = "1.3.101.112";
/// Most certificates of a chain that are looked at; only the first decides.
const MAX_CHAIN: usize = 4;

/// What a peer does with its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "TLS has two sides")]
pub enum Purpose {
    /// It connects to us.
    Client,
    /// We connect to it.
    Server,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Who a TLS peer is, checked in every point.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct VerifiedPeer {
    peer: PeerName,
    uri: String,
    twin: Option<String>,
    serial: Serial,
    not_after: UnixTime,
    public_key: [u8; 32],
    key: Box<KeyData>,
    authority_key: Box<KeyData>,
}

impl VerifiedPeer {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> PeerKind {
        self.peer.kind
    }

    /// Its name, of the form that the kind says.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.peer.name
    }

    /// The whole name.
    #[must_use]
    pub const fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.peer.cluster
    }

    /// The user, if it is a user or a bot.
    #[must_use]
    pub fn user(&self) -> Option<UserName> {
        match self.peer.kind {
            PeerKind::Bot | PeerKind::User => self.peer.name.parse().ok(),
            PeerKind::Hub | PeerKind::Node => None,
        }
    }

    /// The node, if it is a node's agent.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self.peer.kind {
            PeerKind::Node => self.peer.name.parse().ok(),
            PeerKind::Bot | PeerKind::Hub | PeerKind::User => None,
        }
    }

    /// The serial number.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// The last moment of the window. TLS does not end a connection then: the caller does.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The Ed25519 key that it proved to hold in the handshake.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The fingerprint `SHA256:…` of the holder's SSH key, certified at the same time: revoked, it takes this
    /// certificate along.
    #[must_use]
    pub fn twin(&self) -> Option<&str> {
        self.twin.as_deref()
    }

    /// By what it can be revoked after it was checked. Its key id is the URI.
    #[must_use]
    pub fn revocable(&self) -> Revocable<'_> {
        Revocable {
            serial: self.serial,
            key_id: &self.uri,
            key: &self.key,
            authority: self.peer.kind.authority().key_kind(),
            authority_key: &self.authority_key,
        }
    }
}

/// Checks a peer's certificate chain, of which the first certificate must be issued by the authority that vouches for
/// its kind. `kinds` are the kinds of peers that have business here.
///
/// # Errors
/// The first miss of the checklist.
pub fn peer(
    chain: &[CertificateDer<'_>],
    purpose: Purpose,
    kinds: &[PeerKind],
    context: &Context<'_>,
) -> Result<VerifiedPeer, VerifyError> {
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::TooMany("certificates"));
    }
    let der = chain.first().ok_or(VerifyError::Malformed("chain"))?;
    let certificate = parse(der)?;
    let leaf = Leaf::read(&certificate)?;
    let issuer = check_issuer(&certificate, leaf.peer.kind.authority(), context)?;
    check_meaning(&leaf, &issuer, purpose, kinds, context)?;
    let peer = VerifiedPeer {
        uri: leaf.peer.to_string(),
        twin: leaf.twin,
        not_after: UnixTime::from_secs(leaf.window.1),
        peer: leaf.peer,
        serial: leaf.serial,
        public_key: leaf.public_key,
        key: Box::new(KeyData::from(Ed25519PublicKey(leaf.public_key))),
        authority_key: Box::new(KeyData::from(Ed25519PublicKey(issuer.public_key))),
    };
    if (context.revoked)(&peer.revocable()) {
        return Err(VerifyError::Revoked(peer.serial));
    }
    Ok(peer)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, VerifyError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(VerifyError::TooLarge(der.len()));
    }
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| VerifyError::Malformed("certificate"))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(VerifyError::TrailingBytes("certificate"))
    }
}

/// What a peer's certificate says.
struct Leaf {
    peer: PeerName,
    twin: Option<String>,
    serial: Serial,
    public_key: [u8; 32],
    window: (u64, u64),
    client: bool,
    server: bool,
}

impl Leaf {
    fn read(certificate: &X509Certificate<'_>) -> Result<Self, VerifyError> {
        let public_key = public_key(certificate)?;
        if !is_sound(&public_key) {
            return Err(VerifyError::SubjectKey("Ed25519".to_owned()));
        }
        let (mut uris, mut client, mut server, mut signs) = (Vec::new(), false, false, false);
        for extension in certificate.extensions() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "other extensions decide nothing unless critical"
            )]
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return Err(VerifyError::NotAPeer);
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    (client, server) = (usage.client_auth, usage.server_auth);
                }
                ParsedExtension::KeyUsage(usage) => signs = usage.digital_signature(),
                ParsedExtension::SubjectAlternativeName(names) => {
                    uris.extend(names.general_names.iter().filter_map(uri));
                }
                ParsedExtension::ParseError { .. } => {
                    return Err(VerifyError::Malformed("extensions"));
                }
                ParsedExtension::BasicConstraints(_) => {}
                _ if extension.critical => {
                    return Err(VerifyError::CriticalOption(extension.oid.to_id_string()));
                }
                _ => {}
            }
        }
        if !signs {
            return Err(VerifyError::NotAPeer);
        }
        let peer = only_peer(&uris)?;
        Ok(Self {
            peer,
            twin: twin(certificate)?,
            serial: serial(certificate)?,
            public_key,
            window: window(certificate)?,
            client,
            server,
        })
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "names of other forms say nothing about who it is"
)]
fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        GeneralName::Invalid(..) => Some("unreadable"),
        _ => None,
    }
}

fn only_peer(uris: &[&str]) -> Result<PeerName, VerifyError> {
    match uris {
        [uri] => PeerName::parse(uri).ok_or_else(|| VerifyError::PeerName(escaped(uri))),
        _ => Err(VerifyError::PeerName(escaped(&uris.join(" ")))),
    }
}

/// An authority as its self-signed certificate says.
pub(crate) struct Root {
    pub(crate) public_key: [u8; 32],
    pub(crate) uri: String,
    subject: Vec<u8>,
    window: (u64, u64),
}

impl Root {
    /// The authority behind a certificate that the key itself signed: nobody else wrote what it says.
    pub(crate) fn parse_self_signed(der: &[u8]) -> Result<Self, VerifyError> {
        let root = Self::parse(der)?;
        if root.issued(&parse(der)?)? {
            return Ok(root);
        }
        Err(VerifyError::UnknownAuthority(fingerprint(&root.public_key)))
    }

    /// The authority behind a certificate that is trusted already, so that its own signature would prove nothing.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, VerifyError> {
        let certificate = parse(der)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| VerifyError::Malformed("extensions"))?;
        let uris: Vec<&str> = names
            .map(|names| names.value.general_names.iter().filter_map(uri).collect())
            .unwrap_or_default();
        let [uri] = uris.as_slice() else {
            return Err(VerifyError::PeerName(escaped(&uris.join(" "))));
        };
        Ok(Self {
            public_key: public_key(&certificate)?,
            uri: (*uri).to_owned(),
            subject: certificate.subject().as_raw().to_vec(),
            window: window(&certificate)?,
        })
    }

    fn issued(&self, certificate: &X509Certificate<'_>) -> Result<bool, VerifyError> {
        if certificate.issuer().as_raw() != self.subject {
            return Ok(false);
        }
        let plain = is_ed25519(&certificate.signature_algorithm)
            && is_ed25519(&certificate.tbs_certificate.signature);
        if !plain {
            let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
            return Err(VerifyError::AuthorityAlgorithm(algorithm));
        }
        let tbs = certificate.tbs_certificate.as_ref();
        let signature =
            only_signature(certificate.as_raw(), tbs).ok_or(VerifyError::Malformed("signature"))?;
        if signed_by(&self.public_key, tbs, signature) {
            Ok(true)
        } else {
            Err(VerifyError::BadSignature)
        }
    }
}

/// The signature, if the certificate is the one DER encoding of `tbs` with an Ed25519 signature: what the signature
/// does not cover leaves no choice (the parser is lenient about tags).
fn only_signature<'a>(der: &'a [u8], tbs: &[u8]) -> Option<&'a [u8; 64]> {
    const ALGORITHM: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    const BIT_STRING: [u8; 3] = [0x03, 0x41, 0x00];
    let content = tbs.len() + ALGORITHM.len() + BIT_STRING.len() + 64;
    let [high, low] = u16::try_from(content).ok()?.to_be_bytes();
    let head: &[u8] = match content {
        0..0x80 => &[0x30, low],
        0x80..0x100 => &[0x30, 0x81, low],
        _ => &[0x30, 0x82, high, low],
    };
    der.strip_prefix(head)?
        .strip_prefix(tbs)?
        .strip_prefix(&ALGORITHM)?
        .strip_prefix(&BIT_STRING)?
        .try_into()
        .ok()
}

/// The authority that signed, which must be one of `authority`'s.
fn check_issuer(
    certificate: &X509Certificate<'_>,
    authority: Authority,
    context: &Context<'_>,
) -> Result<Root, VerifyError> {
    let trust = context.trust;
    let (ours, others, other) = match authority {
        Authority::Host => (&trust.host_tls, &trust.user_tls, Authority::User),
        Authority::User => (&trust.user_tls, &trust.host_tls, Authority::Host),
    };
    let (ours, others) = (roots(ours, authority)?, roots(others, other)?);
    for root in ours {
        if !root.issued(certificate)? {
            continue;
        }
        if others
            .iter()
            .any(|other| other.public_key == root.public_key)
        {
            return Err(VerifyError::SharedAuthority(fingerprint(&root.public_key)));
        }
        return Ok(root);
    }
    for root in others {
        if root.issued(certificate)? {
            return Err(VerifyError::WrongRing {
                expected: authority.key_kind(),
                found: other.key_kind(),
            });
        }
    }
    Err(VerifyError::UnknownAuthority(escaped(
        &certificate.issuer().to_string(),
    )))
}

fn roots(list: &[Vec<u8>], authority: Authority) -> Result<Vec<Root>, VerifyError> {
    list.iter()
        .map(|der| {
            Root::parse(der).map_err(|_| VerifyError::UnreadableAuthority(authority.key_kind()))
        })
        .collect()
}

fn check_meaning(
    leaf: &Leaf,
    issuer: &Root,
    purpose: Purpose,
    kinds: &[PeerKind],
    context: &Context<'_>,
) -> Result<(), VerifyError> {
    let ours = &context.trust.cluster;
    check_window(
        issuer.window,
        crate::tls::AUTHORITY_LIFE.as_secs(),
        context.now,
    )?;
    check_window(leaf.window, PEER_CEILING.as_secs(), context.now)?;
    if leaf.peer.cluster != *ours {
        return Err(VerifyError::WrongCluster {
            expected: ours.to_string(),
            found: leaf.peer.cluster.to_string(),
        });
    }
    if issuer.uri != leaf.peer.kind.authority().uri(ours) {
        return Err(VerifyError::WrongCluster {
            expected: ours.to_string(),
            found: escaped(&issuer.uri),
        });
    }
    let usable = match purpose {
        Purpose::Client => leaf.client,
        Purpose::Server => leaf.server,
    };
    if !usable {
        return Err(VerifyError::WrongUsage(purpose));
    }
    if kinds.contains(&leaf.peer.kind) {
        Ok(())
    } else {
        Err(VerifyError::WrongKind(leaf.peer.kind))
    }
}

/// notBefore <= now <= notAfter (RFC 5280 section 4.1.2.5), and no longer than this authority issues.
fn check_window((after, before): (u64, u64), most: u64, now: UnixTime) -> Result<(), VerifyError> {
    let most = most + SKEW.as_secs();
    if before.checked_sub(after).is_none_or(|life| life > most) {
        return Err(VerifyError::Life {
            valid_after: after,
            valid_before: before,
            most,
        });
    }
    if now.as_secs() < after {
        return Err(VerifyError::NotYetValid {
            valid_after: UnixTime::from_secs(after),
            now,
        });
    }
    if now.as_secs() > before {
        return Err(VerifyError::Expired {
            valid_before: UnixTime::from_secs(before),
            now,
        });
    }
    Ok(())
}

fn window(certificate: &X509Certificate<'_>) -> Result<(u64, u64), VerifyError> {
    let secs = |time: x509_parser::time::ASN1Time| {
        u64::try_from(time.timestamp()).map_err(|_| VerifyError::Malformed("validity"))
    };
    let validity = certificate.validity();
    Ok((secs(validity.not_before)?, secs(validity.not_after)?))
}

/// The `serialNumber` of the subject, of which there is one at most.
fn twin(certificate: &X509Certificate<'_>) -> Result<Option<String>, VerifyError> {
    let oid = Oid::from(&SERIAL_NUMBER).map_err(|_| VerifyError::Malformed("subject"))?;
    let mut found = certificate.subject().iter_by_oid(&oid);
    let first = found.next().map(|attribute| attribute.as_str());
    let first = first.transpose();
    match (first, found.next()) {
        (Ok(value), None) => Ok(value.map(str::to_owned)),
        _ => Err(VerifyError::Malformed("subject")),
    }
}

/// Our serial numbers are positive and have 63 bits.
fn serial(certificate: &X509Certificate<'_>) -> Result<Serial, VerifyError> {
    let malformed = VerifyError::Malformed("serial number");
    let bytes = certificate.raw_serial();
    if bytes.is_empty() || bytes.len() > 8 || bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return Err(malformed);
    }
    Ok(Serial::from_u64(
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    ))
}

fn public_key(certificate: &X509Certificate<'_>) -> Result<[u8; 32], VerifyError> {
    let info = certificate.public_key();
    if !is_ed25519(&info.algorithm) {
        return Err(VerifyError::SubjectKey(
            info.algorithm.algorithm.to_id_string(),
        ));
    }
    let bits = &info.subject_public_key;
    (&*bits.data)
        .try_into()
        .ok()
        .filter(|_| bits.unused_bits == 0)
        .ok_or(VerifyError::Malformed("public key"))
}

/// id-Ed25519, whose parameters "MUST be absent".
fn is_ed25519(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm.to_id_string() == ED25519 && algorithm.parameters.is_none()
}
