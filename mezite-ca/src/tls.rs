//! The two TLS authorities, and who their certificates name: `mezite://<cluster>/<kind>/<name>` (RFC 5280, RFC 8410).

use std::cell::OnceCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use mezite_core::{ClusterName, NodeId, Serial, Span, UnixTime, UserName};
use rand_core::CryptoRng;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use ssh_key::{HashAlg, PublicKey};

use crate::kind::{KeyKind, escaped};
use crate::prepare::Prepared;
use crate::principal::is_host_name;
use crate::signer::{Signer, is_sound};
use crate::ssh::{IssueError, MAX_PRINCIPALS, SKEW, at_most, identity_key_id, node_key_id};
use crate::verify::VerifyError;

/// No certificate of a peer lives longer, whatever was asked.
pub const PEER_CEILING: Span = Span::from_secs(24 * 60 * 60);
/// Life of a TLS authority's own certificate; rotation replaces it long before.
pub const AUTHORITY_LIFE: Span = Span::from_secs(5 * 365 * 24 * 60 * 60);

/// id-at-serialNumber (RFC 4519 section 2.31): in a subject, the fingerprint `SHA256:…` of the holder's SSH key.
pub(crate) const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// The first second of the year 10000, which X.509 cannot write.
const END_OF_X509: u64 = 253_402_300_800;

/// Which of the two authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there are two authorities by design"
)]
pub enum Authority {
    /// Vouches for hubs and nodes.
    Host,
    /// Vouches for users and bots.
    User,
}

impl Authority {
    /// The kind of the authority's TLS key.
    #[must_use]
    pub const fn key_kind(self) -> KeyKind {
        match self {
            Self::Host => KeyKind::HostTls,
            Self::User => KeyKind::UserTls,
        }
    }

    /// The URI in the authority's own certificate; `ca` is no [`PeerKind`].
    pub(crate) fn uri(self, cluster: &ClusterName) -> String {
        format!("mezite://{cluster}/ca/{}", self.key_kind())
    }
}

/// What a peer on an internal connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new kind of peer must be met by everybody who decides on peers"
)]
pub enum PeerKind {
    /// A program that acts as a user.
    Bot,
    /// A hub, the only kind that serves.
    Hub,
    /// A node's agent.
    Node,
    /// A person.
    User,
}

impl PeerKind {
    const ALL: [Self; 4] = [Self::Bot, Self::Hub, Self::Node, Self::User];

    /// The kind as the URI writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Hub => "hub",
            Self::Node => "node",
            Self::User => "user",
        }
    }

    /// Which authority vouches for this kind.
    #[must_use]
    pub const fn authority(self) -> Authority {
        match self {
            Self::Bot | Self::User => Authority::User,
            Self::Hub | Self::Node => Authority::Host,
        }
    }

    fn accepts(self, name: &str) -> bool {
        match self {
            Self::Bot | Self::User => name.parse::<UserName>().is_ok(),
            Self::Hub => name.len() <= 64 && name.parse::<ClusterName>().is_ok(),
            Self::Node => name.parse::<NodeId>().is_ok(),
        }
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who a TLS certificate names. Displays as `mezite://<cluster>/<kind>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// What it is.
    pub kind: PeerKind,
    /// A user name, a node id, or a hub's DNS name of at most 64 bytes, as the kind says.
    pub name: String,
}

impl PeerName {
    /// The name behind a URI, if it is one in every part.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("mezite://")?.split('/');
        let (cluster, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = PeerKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)?;
        let whole = parts.next().is_none() && kind.accepts(name);
        let cluster = cluster.parse().ok()?;
        whole.then(|| Self {
            cluster,
            kind,
            name: name.to_owned(),
        })
    }

    /// The key id of the SSH certificates that the same holder has, if there are such.
    #[must_use]
    pub fn ssh_key_id(&self) -> Option<String> {
        match self.kind {
            PeerKind::Bot | PeerKind::User => {
                let user = self.name.parse().ok()?;
                Some(identity_key_id(&self.cluster, &user))
            }
            PeerKind::Node => Some(node_key_id(&self.cluster, &self.name.parse().ok()?)),
            PeerKind::Hub => None,
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mezite://{}/{}/{}", self.cluster, self.kind, self.name)
    }
}

/// What a TLS certificate is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TlsRequest<'a> {
    /// Who it names.
    pub peer: &'a PeerName,
    /// The holder's Ed25519 key.
    pub public_key: [u8; 32],
    /// DNS names at which a hub serves; empty for every other kind.
    pub dns_names: &'a [String],
    /// Addresses at which a hub serves; empty for every other kind.
    pub addresses: &'a [IpAddr],
    /// How long; [`PEER_CEILING`] at most.
    pub life: Span,
    /// The holder's SSH key, if that is certified at the same time: the certificate names it in its subject, so that
    /// whoever revokes the one key ends both certificates.
    pub twin: Option<&'a PublicKey>,
}

/// Declares a TLS authority as a typed wrapper.
macro_rules! tls_authority {
    ($(#[$doc:meta])* $type:ident, $authority:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $type(Inner);

        impl $type {
            /// A new authority: certifies the signer's key by itself for [`AUTHORITY_LIFE`].
            ///
            /// # Errors
            /// [`IssueError::Sign`], [`IssueError::Time`].
            pub fn create(
                signer: Arc<dyn Signer>,
                cluster: &ClusterName,
                now: UnixTime,
                rng: &mut dyn CryptoRng,
            ) -> Result<Self, IssueError> {
                let prepared = Self::prepare_own(signer.public_key(), cluster, now, rng)?;
                let certificate = prepared.sign(&*signer)?;
                Ok(Self(Inner {
                    authority: $authority,
                    signer,
                    certificate,
                }))
            }

            /// The certificate of [`Self::create`] up to the signature, for a key that is elsewhere. Finished, it goes to
            /// [`Self::load`] with a [`crate::RemoteKey`].
            ///
            /// # Errors
            /// [`IssueError::Time`].
            pub fn prepare_own(
                public_key: [u8; 32],
                cluster: &ClusterName,
                now: UnixTime,
                rng: &mut dyn CryptoRng,
            ) -> Result<Prepared<CertificateDer<'static>>, IssueError> {
                prepare_own($authority, public_key, cluster, now, rng)
            }

            /// The authority as stored: its signer and the certificate that `create` made.
            ///
            /// # Errors
            /// [`IssueError::Authority`] if the two do not belong together.
            pub fn load(
                signer: Arc<dyn Signer>,
                certificate: CertificateDer<'static>,
                cluster: &ClusterName,
            ) -> Result<Self, IssueError> {
                Inner::load($authority, signer, certificate, cluster).map(Self)
            }

            /// Certifies a peer, from 5 min before `now` to `now` and the asked life.
            ///
            /// # Errors
            /// [`IssueError::Kind`], [`IssueError::Peer`], [`IssueError::Name`], [`IssueError::TooMany`],
            /// [`IssueError::NoLife`], [`IssueError::SubjectKey`], [`IssueError::Time`], [`IssueError::Sign`].
            pub fn issue(
                &self,
                request: &TlsRequest<'_>,
                serial: Serial,
                now: UnixTime,
            ) -> Result<CertificateDer<'static>, IssueError> {
                self.prepare(request, serial, now)?.sign(&*self.0.signer)
            }

            /// [`Self::issue`] up to the signature.
            ///
            /// # Errors
            /// As [`Self::issue`], without [`IssueError::Sign`].
            pub fn prepare(
                &self,
                request: &TlsRequest<'_>,
                serial: Serial,
                now: UnixTime,
            ) -> Result<Prepared<CertificateDer<'static>>, IssueError> {
                self.0.prepare(request, serial, now)
            }

            /// The authority's self-signed certificate, for trust bundles and pins.
            #[must_use]
            pub const fn certificate(&self) -> &CertificateDer<'static> {
                &self.0.certificate
            }

            /// What a newcomer is told out of band: see [`pin`].
            #[must_use]
            pub fn pin(&self) -> String {
                pin_of_key(&self.0.signer.public_key())
            }
        }
    };
}

tls_authority!(
    /// User CA: signs certificates of users and bots.
    UserTls,
    Authority::User
);
tls_authority!(
    /// Host CA: signs certificates of hubs and nodes.
    HostTls,
    Authority::Host
);

#[derive(Clone, Debug)]
struct Inner {
    authority: Authority,
    signer: Arc<dyn Signer>,
    certificate: CertificateDer<'static>,
}

impl Inner {
    fn load(
        authority: Authority,
        signer: Arc<dyn Signer>,
        certificate: CertificateDer<'static>,
        cluster: &ClusterName,
    ) -> Result<Self, IssueError> {
        let unusable = |why| IssueError::Authority {
            kind: authority.key_kind(),
            why,
        };
        let root = crate::verify::Root::parse_self_signed(&certificate)
            .map_err(|_| unusable("it cannot be read, or its key did not sign it"))?;
        if root.public_key != signer.public_key() {
            return Err(unusable("it certifies another key than the authority's"));
        }
        if root.uri != authority.uri(cluster) {
            return Err(unusable("it names another cluster or authority"));
        }
        Ok(Self {
            authority,
            signer,
            certificate,
        })
    }

    fn prepare(
        &self,
        request: &TlsRequest<'_>,
        serial: Serial,
        now: UnixTime,
    ) -> Result<Prepared<CertificateDer<'static>>, IssueError> {
        self.check(request)?;
        let mut params = peer_params(request)?;
        set_window(&mut params, now, request.life.min(PEER_CEILING))?;
        params.serial_number = Some(serial_number(serial));
        let authority = self.signer.public_key();
        let message = Unsigned::default();
        let issuer = Issuer::new(
            authority_params(self.authority, &authority),
            message.by(authority),
        );
        params
            .signed_by(&Key(request.public_key), &issuer)
            .map_err(written)?;
        message.prepared(authority)
    }

    fn check(&self, request: &TlsRequest<'_>) -> Result<(), IssueError> {
        let PeerName { kind, name, .. } = request.peer;
        if kind.authority() != self.authority {
            return Err(IssueError::Kind {
                authority: self.authority.key_kind(),
                kind: *kind,
            });
        }
        if !kind.accepts(name) {
            return Err(IssueError::Peer(escaped(name)));
        }
        if request.life.as_secs() == 0 {
            return Err(IssueError::NoLife);
        }
        if !is_sound(&request.public_key) {
            return Err(IssueError::SubjectKey("ssh-ed25519".to_owned()));
        }
        if request.public_key == self.signer.public_key() {
            return Err(IssueError::SubjectIsAuthority);
        }
        let most = if *kind == PeerKind::Hub {
            MAX_PRINCIPALS
        } else {
            0
        };
        at_most(
            "names and addresses",
            request.dns_names.len() + request.addresses.len(),
            most,
        )?;
        match request
            .dns_names
            .iter()
            .find(|name| !is_host_name(name) || name.parse::<IpAddr>().is_ok())
        {
            Some(bad) => Err(IssueError::Name(escaped(bad))),
            None => Ok(()),
        }
    }
}

fn prepare_own(
    authority: Authority,
    public_key: [u8; 32],
    cluster: &ClusterName,
    now: UnixTime,
    rng: &mut dyn CryptoRng,
) -> Result<Prepared<CertificateDer<'static>>, IssueError> {
    let mut random = [0; 8];
    rng.fill_bytes(&mut random);
    let mut params = authority_params(authority, &public_key);
    set_window(&mut params, now, AUTHORITY_LIFE)?;
    params.serial_number = Some(serial_number(Serial::new(random)));
    params.subject_alt_names = vec![SanType::URI(ia5(&authority.uri(cluster))?)];
    let message = Unsigned::default();
    params
        .self_signed(&message.by(public_key))
        .map_err(written)?;
    message.prepared(public_key)
}

/// What an authority's own certificate and every certificate it issues have in common. The name carries the key's
/// identifier, so that two generations never share a name.
fn authority_params(authority: Authority, public_key: &[u8; 32]) -> CertificateParams {
    let identifier = key_identifier(public_key);
    let mut params = CertificateParams::default();
    let short = identifier.get(..8).unwrap_or_default();
    params.distinguished_name = name(
        &format!("{} {}", authority.key_kind(), HEXLOWER.encode(short)),
        "authority",
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
    params
}

fn peer_params(request: &TlsRequest<'_>) -> Result<CertificateParams, IssueError> {
    let peer = request.peer;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&peer.name, peer.kind.as_str());
    if let Some(twin) = request.twin {
        let fingerprint = twin.fingerprint(HashAlg::Sha256).to_string();
        params.distinguished_name.push(
            DnType::CustomDnType(SERIAL_NUMBER.to_vec()),
            fingerprint.as_str(),
        );
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match peer.kind {
        PeerKind::Hub => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        PeerKind::Bot | PeerKind::Node | PeerKind::User => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_identifier(&request.public_key));
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI(ia5(&peer.to_string())?)];
    for name in request.dns_names {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    params
        .subject_alt_names
        .extend(request.addresses.iter().copied().map(SanType::IpAddress));
    Ok(params)
}

fn name(common: &str, unit: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Mezite");
    name.push(DnType::OrganizationalUnitName, unit);
    name.push(DnType::CommonName, common);
    name
}

fn set_window(params: &mut CertificateParams, now: UnixTime, life: Span) -> Result<(), IssueError> {
    let (after, before) = (now.minus(SKEW).as_secs(), now.plus(life).as_secs());
    if before >= END_OF_X509 {
        return Err(IssueError::Time(now));
    }
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(after);
    params.not_after = epoch + Duration::from_secs(before);
    Ok(())
}

fn serial_number(serial: Serial) -> SerialNumber {
    SerialNumber::from_slice(&serial.as_u64().to_be_bytes())
}

fn ia5(text: &str) -> Result<Ia5String, IssueError> {
    Ia5String::try_from(text).map_err(|_| IssueError::Name(escaped(text)))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
fn written(error: rcgen::Error) -> IssueError {
    IssueError::Write(error.to_string())
}

/// The leftmost 160 bits of the key's SHA-256 (RFC 7093 section 2, method 1).
fn key_identifier(public_key: &[u8; 32]) -> Vec<u8> {
    Sha256::digest(public_key)
        .iter()
        .take(20)
        .copied()
        .collect()
}

/// Takes from rcgen what is to be signed, and signs nothing: the certificate that rcgen makes of it is dropped.
#[derive(Default)]
struct Unsigned(OnceCell<Vec<u8>>);

impl Unsigned {
    const fn by(&self, public_key: [u8; 32]) -> Taker<'_> {
        Taker {
            public_key,
            message: &self.0,
        }
    }

    fn prepared(
        self,
        authority: [u8; 32],
    ) -> Result<Prepared<CertificateDer<'static>>, IssueError> {
        let message = self.0.into_inner();
        let message = message.ok_or_else(|| IssueError::Write("there is no content".to_owned()))?;
        Ok(Prepared::tls(authority, message))
    }
}

/// What rcgen is given for a signing key.
struct Taker<'a> {
    public_key: [u8; 32],
    message: &'a OnceCell<Vec<u8>>,
}

impl PublicKeyData for Taker<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Taker<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.message
            .set(message.to_vec())
            .map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(vec![0; 64])
    }
}

/// A subject's key.
struct Key([u8; 32]);

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// `SHA256:…` of the key of the authority in a chain of DER certificates, leaf first: who signed what a peer holds.
///
/// # Errors
/// [`VerifyError`] for a chain without an authority, or with one that cannot be read.
pub fn tls_signer(chain: &[impl AsRef<[u8]>]) -> Result<String, VerifyError> {
    let authority = chain.get(1).ok_or(VerifyError::Malformed("chain"))?;
    let root = crate::verify::Root::parse(authority.as_ref())?;
    Ok(crate::signer::fingerprint(&root.public_key))
}

/// `sha256:<hex>` of the SubjectPublicKeyInfo of an authority's certificate: what a newcomer is told out of band to
/// know the right hub. It stays the same when the certificate is renewed for the same key.
///
/// # Errors
/// [`VerifyError::Malformed`] if this is no X.509 certificate.
pub fn pin(ca_certificate_der: &[u8]) -> Result<String, VerifyError> {
    crate::verify::Root::parse(ca_certificate_der).map(|root| pin_of_key(&root.public_key))
}

fn pin_of_key(public_key: &[u8; 32]) -> String {
    let info = Key(*public_key).subject_public_key_info();
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(info)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_names_read_back_and_refuse_other_forms() {
        for uri in [
            "mezite://example/user/alice@example.com",
            "mezite://a.example/bot/ci",
            "mezite://example/hub/hub1.example",
            "mezite://example/node/aaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(
                PeerName::parse(uri).map(|peer| peer.to_string()).as_deref(),
                Some(uri)
            );
        }
        for uri in [
            "",
            "mezite://",
            "mezite://example/user/",
            "mezite://example/user/a/b",
            "mezite://example/ca/user-tls",
            "spiffe://example/user/alice",
            "mezite://example/node/db1",
            "mezite://EXAMPLE/user/alice",
            "mezite://example/user/alice?x",
            "mezite://example/user/alice/",
            "mezite://u@example/user/alice",
        ] {
            assert_eq!(PeerName::parse(uri), None, "{uri}");
        }
    }
}
