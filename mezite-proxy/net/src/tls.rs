//! TLS 1.3 with Mezite's own certificates. What a certificate means is decided in `mezite_ca::verify`; this module
//! only carries the question into the handshake.
//!
//! No tickets and no resumption, so that nothing outlives a lock; Ed25519 only; no TLS 1.2.

mod outside;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mezite_ca::verify::{self, VerifiedPeer};
use mezite_ca::{PeerKind, TrustBundle};
use mezite_core::{Clock, Secret};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime as TlsTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use thiserror::Error as ThisError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::ByteStream;

pub use outside::Outside;

/// The whole of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client that was refused may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much of what a refused client says is taken meanwhile, in bytes.
const FAREWELL_BYTES: u64 = 256 * 1024;

/// What is spoken inside (RFC 7301). One port can serve several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/1.1, for programs that speak no gRPC.
    Http,
    /// SSH towards the gateway, for clients behind `msh proxy`.
    Ssh,
    /// The control connection of a node's agent.
    TunnelControl,
    /// One session, dialled back by a node's agent.
    TunnelSession,
}

impl Protocol {
    const ALL: [Self; 5] = [
        Self::Grpc,
        Self::Http,
        Self::Ssh,
        Self::TunnelControl,
        Self::TunnelSession,
    ];

    const fn id(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::Http => b"http/1.1",
            Self::Ssh => b"mezite-ssh",
            Self::TunnelControl => b"mezite-control/1",
            Self::TunnelSession => b"mezite-session/1",
        }
    }

    fn from_id(id: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.id() == id)
    }
}

/// Why there is no TLS connection.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum TlsError {
    /// A key or certificate of ours cannot be used.
    #[error("the TLS key or certificate of this process cannot be used: {0}")]
    Credentials(String),
    /// TCP.
    #[error("cannot reach {address}: {error}")]
    Unreachable {
        /// As it was asked for.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The handshake failed, for example because one side refused the other's certificate.
    #[error("no TLS connection with {address}: {error}")]
    Handshake {
        /// The other side.
        address: String,
        /// What TLS says.
        error: std::io::Error,
    },
    /// The handshake took longer than ten seconds.
    #[error("no TLS connection with {0} after {secs} seconds", secs = HANDSHAKE.as_secs())]
    Timeout(String),
    /// Both sides speak TLS, but not the same protocol inside it.
    #[error("{0} does not speak the wanted protocol: is it the right port?")]
    Protocol(String),
}

/// A certificate chain (leaf first, then its authority) and the PKCS#8 key of the leaf.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "three parts of one thing")]
pub struct Credentials {
    /// DER certificates.
    pub chain: Vec<Vec<u8>>,
    /// DER, PKCS#8.
    pub pkcs8: Secret<Vec<u8>>,
}

/// The credentials that this process shows now; renewed ones replace them for new connections.
#[derive(Clone)]
pub struct OwnIdentity(Arc<RwLock<Arc<CertifiedKey>>>);

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnIdentity")
    }
}

impl OwnIdentity {
    /// Shows `credentials`.
    ///
    /// # Errors
    /// [`TlsError::Credentials`] if key and certificate do not fit.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(certified_key(credentials)?))))
    }

    /// Shows `credentials` from now on.
    ///
    /// # Errors
    /// [`TlsError::Credentials`]; then the old ones stay.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let key = certified_key(credentials)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn certified_key(credentials: &Credentials) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = credentials
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(
        credentials.pkcs8.expose().as_slice(),
    ));
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.secret_der()));
    let signer = signer.map_err(|error| TlsError::Credentials(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    certified
        .keys_match()
        .map_err(|error| TlsError::Credentials(error.to_string()))?;
    Ok(Arc::new(certified))
}

impl ResolvesServerCert for OwnIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for OwnIdentity {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Where the present trust bundle is found; asked at each handshake, so that rotation needs no restart.
pub type TrustSource = Arc<dyn Fn() -> Arc<TrustBundle> + Send + Sync>;

/// Whether a certificate that is good otherwise is revoked; asked at each handshake.
pub type RevokedSource = Arc<dyn Fn(&VerifiedPeer) -> bool + Send + Sync>;

/// Which certificates are accepted from the other side.
#[derive(Clone)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each way to trust is a decision of the caller"
)]
pub enum Accept {
    /// Of these kinds, signed by an authority of the bundle.
    Kinds(TrustSource, &'static [PeerKind]),
    /// A hub's, whose authority has this pin (`sha256:…`): for the first contact, before there is a bundle.
    PinnedHub(String),
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kinds(_, kinds) => f.debug_tuple("Kinds").field(kinds).finish(),
            Self::PinnedHub(pin) => f.debug_tuple("PinnedHub").field(pin).finish(),
        }
    }
}

/// Whether a server insists on a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two answers")]
pub enum Clients {
    /// Those without one are served too, as nobody in particular.
    Optional,
    /// Those without one are refused in the handshake.
    Required,
}

/// The other side of a TLS connection.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "two facts of one handshake")]
pub struct Peer {
    /// Who it is; `None` for a client without a certificate.
    pub identity: Option<Arc<VerifiedPeer>>,
    /// What is spoken.
    pub protocol: Protocol,
}

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Acceptor {
    acceptor: TlsAcceptor,
    check: Check,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("check", &self.check)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Shows `own`, accepts clients as `accept`, `clients` and `revoked` say, and speaks one of `protocols`.
    ///
    /// # Errors
    /// [`TlsError::Credentials`].
    pub fn new(
        own: OwnIdentity,
        accept: Accept,
        clients: Clients,
        revoked: RevokedSource,
        protocols: &[Protocol],
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let check = Check {
            accept,
            clients,
            clock,
            purpose: verify::Purpose::Client,
            revoked,
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Credentials(error.to_string()))?
            .with_client_cert_verifier(Arc::new(check.clone()))
            .with_cert_resolver(Arc::new(own));
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.id().to_vec())
            .collect();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            check,
        })
    }

    /// Runs the handshake on `stream`, which comes from `address`.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] (for a refused certificate too), [`TlsError::Timeout`], [`TlsError::Protocol`] for a client
    /// without ALPN.
    pub async fn accept(
        &self,
        stream: TcpStream,
        address: &str,
    ) -> Result<(impl ByteStream + use<>, Peer), TlsError> {
        let failed = |error| TlsError::Handshake {
            address: address.to_owned(),
            error,
        };
        stream.set_nodelay(true).map_err(failed)?;
        let accepting = self.acceptor.accept(stream).into_fallible();
        let tls = match tokio::time::timeout(HANDSHAKE, accepting).await {
            Ok(Ok(tls)) => tls,
            Ok(Err((error, stream))) => {
                see_out(stream).await;
                return Err(failed(error));
            }
            Err(_) => return Err(TlsError::Timeout(address.to_owned())),
        };
        let (_, connection) = tls.get_ref();
        let protocol = connection.alpn_protocol().and_then(Protocol::from_id);
        let protocol = protocol.ok_or_else(|| TlsError::Protocol(address.to_owned()))?;
        let identity = match connection.peer_certificates() {
            Some(chain) => {
                let verified = self.check.verify(chain);
                Some(Arc::new(verified.map_err(|error| {
                    failed(std::io::Error::other(error.to_string()))
                })?))
            }
            None => None,
        };
        Ok((tls, Peer { identity, protocol }))
    }
}

/// Lets a client that was refused read the alert. It may be talking already (TLS 1.3), and a connection that is closed
/// over unread bytes is reset (RFC 1122 section 4.2.2.13), which can take the alert along.
async fn see_out(mut stream: TcpStream) {
    let listening = async {
        stream.shutdown().await?;
        let mut rest = stream.take(FAREWELL_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, listening).await {
        tracing::trace!(%error, "a refused client was gone");
    }
}

/// Makes TLS connections.
#[derive(Clone)]
pub struct Connector {
    connector: TlsConnector,
    protocol: Protocol,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Accepts servers as `accept` says, shows `own` if there is one, and speaks `protocol`.
    ///
    /// # Errors
    /// [`TlsError::Credentials`].
    pub fn new(
        own: Option<OwnIdentity>,
        accept: Accept,
        protocol: Protocol,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let check = Check {
            accept,
            clients: Clients::Required,
            clock,
            purpose: verify::Purpose::Server,
            revoked: Arc::new(|_| false),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Credentials(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(check));
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(own)),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.id().to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            protocol,
        })
    }

    /// Connects to `address` (`host:port`) within ten seconds.
    ///
    /// # Errors
    /// [`TlsError`]; each says the address.
    pub async fn connect(&self, address: &str) -> Result<impl ByteStream + use<>, TlsError> {
        let connecting = async {
            let unreachable = |error| TlsError::Unreachable {
                address: address.to_owned(),
                error,
            };
            let stream = TcpStream::connect(address).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            // Who the server is stands in its URI name, not in a DNS name that depends on how it was dialled.
            let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
            let failed = |error| TlsError::Handshake {
                address: address.to_owned(),
                error,
            };
            let tls = self.connector.connect(name, stream).await.map_err(failed)?;
            match tls.get_ref().1.alpn_protocol().and_then(Protocol::from_id) {
                Some(protocol) if protocol == self.protocol => Ok(tls),
                Some(_) | None => Err(TlsError::Protocol(address.to_owned())),
            }
        };
        tokio::time::timeout(HANDSHAKE, connecting)
            .await
            .unwrap_or_else(|_| Err(TlsError::Timeout(address.to_owned())))
    }
}

/// AWS-LC, with the post-quantum hybrid first in key exchange.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Carries `mezite_ca::verify::peer` into the handshake.
#[derive(Clone)]
struct Check {
    accept: Accept,
    clients: Clients,
    clock: Arc<dyn Clock>,
    purpose: verify::Purpose,
    revoked: RevokedSource,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("accept", &self.accept)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

impl Check {
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, verify::VerifyError> {
        let (trust, kinds) = match &self.accept {
            Accept::Kinds(trust, kinds) => (trust(), *kinds),
            Accept::PinnedHub(pin) => (Arc::new(verify::pinned(chain, pin)?), &[PeerKind::Hub][..]),
        };
        let context = verify::Context {
            trust: &trust,
            now: self.clock.now(),
            source: None,
            revoked: &|_| false,
        };
        let peer = verify::peer(chain, self.purpose, kinds, &context)?;
        if (self.revoked)(&peer) {
            return Err(verify::VerifyError::Revoked(peer.serial()));
        }
        Ok(peer)
    }

    fn verify_shown(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let mut chain = vec![leaf.clone()];
        chain.extend(rest.iter().cloned());
        match self.verify(&chain) {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "a TLS certificate was refused");
                Err(refusal(error))
            }
        }
    }
}

/// The variants that TLS has alerts of their own for; the words travel to our own log.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other miss is one alert to the peer"
)]
fn refusal(error: verify::VerifyError) -> Error {
    let error = match error {
        verify::VerifyError::Expired { .. } => CertificateError::Expired,
        verify::VerifyError::NotYetValid { .. } => CertificateError::NotValidYet,
        verify::VerifyError::UnknownAuthority(_) => CertificateError::UnknownIssuer,
        verify::VerifyError::Revoked(_) => CertificateError::Revoked,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(error)
}

fn verify_handshake(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(
        message,
        leaf,
        signed,
        &provider().signature_verification_algorithms,
    )
}

fn no_tls12() -> Error {
    Error::General(String::from("TLS 1.2 is not spoken"))
}

impl ClientCertVerifier for Check {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == Clients::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: TlsTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_shown(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: TlsTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_shown(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
