//! The four SSH authorities and what each may issue: profiles with ceilings, in OpenSSH's format (PROTOCOL.certkeys).

use std::net::IpAddr;
use std::sync::Arc;

use mezite_core::{ClusterName, Login, NodeId, Serial, SessionId, Span, UnixTime, UserName};
use rand_core::CryptoRng;
use ssh_key::certificate::CertType;
use ssh_key::encoding::Encode;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, Certificate, PublicKey};
use thiserror::Error;

use crate::kind::{KeyKind, escaped};
use crate::prepare::Prepared;
use crate::principal;
use crate::signer::{SignError, Signer, is_sound};
use crate::wire::{Reader, Writer};

/// How far clocks may differ: certificates begin this long before they are made.
pub const SKEW: Span = Span::from_secs(5 * 60);
/// No identity certificate lives longer, whatever was asked and set.
pub const IDENTITY_CEILING: Span = Span::from_secs(24 * 60 * 60);
/// Life of a node's host certificate.
pub const NODE_LIFE: Span = Span::from_secs(24 * 60 * 60);
/// Life of a gateway's host certificate.
pub const GATEWAY_LIFE: Span = Span::from_secs(60 * 60);
/// No break-glass certificate that lives longer is accepted, whoever made it and whatever the node allows.
pub const BREAK_GLASS_CEILING: Span = Span::from_secs(60 * 60);
/// A session certificate ends this long after it is made.
pub(crate) const SESSION_LIFE: Span = Span::from_secs(5 * 60);
/// Most bytes of an SSH certificate's blob that are made or read.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Most principals of a gateway's host certificate; every other kind has exactly one.
pub const MAX_PRINCIPALS: usize = 32;
/// Most addresses in a `source-address` option.
pub(crate) const MAX_SOURCES: usize = 64;

/// Why a certificate was not issued.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// An authority's certificate and its private key do not belong together, or it is no authority of this kind.
    #[error("the certificate of the {kind} authority is unusable: {why}")]
    Authority {
        /// Which authority.
        kind: KeyKind,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name of an extension has another form.
    #[error(
        "`{0}` is not the name of an extension: 1 to 64 of a-z 0-9 -, each given once, none of Mezite's own"
    )]
    Extension(String),
    /// An authority was asked to issue to a peer of the other authority.
    #[error("the {authority} authority does not issue to a {kind}")]
    Kind {
        /// The authority that was asked.
        authority: KeyKind,
        /// Who should have got the certificate.
        kind: crate::tls::PeerKind,
    },
    /// A host name is no DNS name and no IP address.
    #[error(
        "`{0}` is not a host name for a certificate: use lower-case DNS names without patterns, or IP addresses"
    )]
    Name(String),
    /// A certificate without a life was asked for.
    #[error("the certificate would live less than a second: ask for a longer time")]
    NoLife,
    /// An empty list of names would mean "any host".
    #[error("a host certificate needs at least one name")]
    NoNames,
    /// The name inside a [`crate::PeerName`] does not fit its kind.
    #[error("`{0}` is not the name of a peer")]
    Peer(String),
    /// The device that holds the key did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The subject's key is one of the authorities' own.
    #[error("the key to be certified is the authority's own")]
    SubjectIsAuthority,
    /// The subject's key has an algorithm that is not accepted, or is not a sound key.
    #[error(
        "a key of type `{0}` cannot be certified: use Ed25519, ECDSA, or either on a security key"
    )]
    SubjectKey(String),
    /// The present time cannot be written into a certificate.
    #[error("the time {0} cannot be written into a certificate")]
    Time(UnixTime),
    /// The certificate would not be read by [`crate::verify`].
    #[error("a certificate of {0} bytes is too large: at most {MAX_CERTIFICATE_BYTES}")]
    TooLarge(usize),
    /// More list entries than a certificate may carry.
    #[error("{count} {what} are too many for one certificate: at most {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The certificate could not be written.
    #[error("the certificate could not be written: {0}")]
    Write(String),
}

/// Declares an SSH authority: a typed wrapper of a signer.
macro_rules! authority {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $type(Arc<dyn Signer>);

        impl $type {
            /// The authority whose private key is behind `signer`. Give no signer to two authorities.
            #[must_use]
            pub fn new(signer: Arc<dyn Signer>) -> Self {
                Self(signer)
            }

            /// The authority's public key, for trust bundles.
            #[must_use]
            pub fn public_key(&self) -> PublicKey {
                PublicKey::from(Ed25519PublicKey(self.0.public_key()))
            }
        }
    };
}

authority!(
    /// User CA, outer ring: says who a person is. What it signs opens nothing by itself.
    IdentityKey
);
authority!(
    /// User CA, inner ring: opens one login on one node for one session.
    SessionKey
);
authority!(
    /// Host CA, outer ring: what users' clients check when they reach the hub.
    GatewayKey
);
authority!(
    /// Host CA, inner ring: what hubs check when they reach a node.
    NodeKey
);

/// Who shall be certified to be a user, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct IdentityRequest<'a> {
    /// The cluster that vouches.
    pub cluster: &'a ClusterName,
    /// The user.
    pub user: &'a UserName,
    /// The user's own key; its private half stays with the user.
    pub public_key: &'a PublicKey,
    /// How long the user asked for.
    pub ttl: Span,
    /// The strictest limit of roles and settings. [`IDENTITY_CEILING`] holds in any case.
    pub ceiling: Span,
}

impl IdentityKey {
    /// Certifies that the holder of a key is a user: valid for the least of what was asked, the ceiling, and 24 h.
    ///
    /// # Errors
    /// [`IssueError::NoLife`], [`IssueError::SubjectKey`], [`IssueError::Sign`].
    pub fn issue(
        &self,
        request: &IdentityRequest<'_>,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        self.prepare(request, serial, now, rng)?.sign(&*self.0)
    }

    /// [`Self::issue`] up to the signature.
    ///
    /// # Errors
    /// [`IssueError::NoLife`], [`IssueError::SubjectKey`].
    pub fn prepare(
        &self,
        request: &IdentityRequest<'_>,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Prepared<Certificate>, IssueError> {
        let life = request.ttl.min(request.ceiling).min(IDENTITY_CEILING);
        let profile = Profile {
            cert_type: CertType::User,
            key_id: identity_key_id(request.cluster, request.user),
            principals: vec![principal::identity(request.cluster, request.user)],
            life,
            critical_options: Vec::new(),
            extensions: Vec::new(),
        };
        profile.prepare(self.0.public_key(), request.public_key, serial, now, rng)
    }
}

/// What a session may ask a stock `sshd` for (the extensions `permit-…` of PROTOCOL.certkeys). All off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// A terminal.
    pub pty: bool,
    /// Forwarding of ports and Unix sockets.
    pub port_forwarding: bool,
    /// Forwarding of the user's agent.
    pub agent_forwarding: bool,
    /// Forwarding of X11.
    pub x11_forwarding: bool,
}

impl Permissions {
    fn extensions(self) -> impl Iterator<Item = &'static str> {
        [
            (self.x11_forwarding, "permit-X11-forwarding"),
            (self.agent_forwarding, "permit-agent-forwarding"),
            (self.port_forwarding, "permit-port-forwarding"),
            (self.pty, "permit-pty"),
        ]
        .into_iter()
        .filter_map(|(permitted, name)| permitted.then_some(name))
    }
}

/// One session that a permit allowed.
#[derive(Clone, Copy, Debug)]
pub struct SessionRequest<'a> {
    /// The session.
    pub session_id: SessionId,
    /// Who acts.
    pub user: &'a UserName,
    /// On which node.
    pub node_id: &'a NodeId,
    /// As which Unix account.
    pub login: &'a Login,
    /// The key that the hub made for this session.
    pub public_key: &'a PublicKey,
    /// What the node may grant.
    pub permissions: Permissions,
    /// Obligations as (name, value); the certificate carries each as the extension `<name>@mezite`.
    pub obligations: &'a [(&'a str, &'a str)],
    /// The hubs' addresses as the node sees them, as the critical option `source-address`. Empty: from anywhere.
    pub source_addresses: &'a [IpAddr],
}

/// How a session certificate is bound to its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a node tells its sessions apart, or it does not"
)]
pub enum Binding {
    /// Principal `mezite:<node-id>:<login>`: opens one login on one node.
    #[default]
    Node,
    /// Principal `<login>`, for an `sshd` on which nothing but `TrustedUserCAKeys` can be set.
    ///
    /// **Weaker.** The certificate opens this login on *every* node that is set up so, for as long as it lives (five
    /// minutes), to whoever has the session's key: that is, to the hub. What remains between one such node and the next is
    /// `source-address`. Nodes with mezd or with the three lines of [`crate::openssh::sshd_lines`] refuse it.
    Login,
}

impl SessionKey {
    /// Opens one login on one node, from 5 min before `now` to 5 min after.
    ///
    /// # Errors
    /// [`IssueError::Extension`], [`IssueError::TooMany`], [`IssueError::TooLarge`], [`IssueError::SubjectKey`],
    /// [`IssueError::Sign`].
    pub fn issue(
        &self,
        request: &SessionRequest<'_>,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        self.issue_bound(request, Binding::Node, serial, now, rng)
    }

    /// [`Self::issue`] for a node that is bound in another way. The node's own record says which: see [`Binding::Login`]
    /// for what it costs.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_bound(
        &self,
        request: &SessionRequest<'_>,
        binding: Binding,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        self.prepare(request, binding, serial, now, rng)?
            .sign(&*self.0)
    }

    /// [`Self::issue_bound`] up to the signature.
    ///
    /// # Errors
    /// As [`Self::issue`], without [`IssueError::Sign`].
    pub fn prepare(
        &self,
        request: &SessionRequest<'_>,
        binding: Binding,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Prepared<Certificate>, IssueError> {
        let principal = match binding {
            Binding::Node => principal::session(request.node_id, request.login),
            Binding::Login => request.login.to_string(),
        };
        let profile = Profile {
            cert_type: CertType::User,
            key_id: format!(
                "mezite session {} user={} node={} login={}",
                request.session_id, request.user, request.node_id, request.login
            ),
            principals: vec![principal],
            life: SESSION_LIFE,
            critical_options: source_address(request.source_addresses)?,
            extensions: session_extensions(request)?,
        };
        profile.prepare(self.0.public_key(), request.public_key, serial, now, rng)
    }
}

fn source_address(addresses: &[IpAddr]) -> Result<Vec<(String, String)>, IssueError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    at_most("source addresses", addresses.len(), MAX_SOURCES)?;
    let list: Vec<String> = addresses
        .iter()
        .map(|address| address.to_canonical().to_string())
        .collect();
    Ok(vec![("source-address".to_owned(), list.join(","))])
}

fn session_extensions(request: &SessionRequest<'_>) -> Result<Vec<(String, String)>, IssueError> {
    let own = [
        (extension("session-id"), request.session_id.to_string()),
        (extension("user"), request.user.to_string()),
    ];
    let permitted = request
        .permissions
        .extensions()
        .map(|name| (name.to_owned(), String::new()));
    let mut extensions: Vec<(String, String)> = own.into_iter().chain(permitted).collect();
    for (name, value) in request.obligations {
        let bare = name.strip_suffix(EXTENSION_DOMAIN).unwrap_or(name);
        let full = extension(bare);
        let fresh = !extensions.iter().any(|(other, _)| *other == full);
        if !fresh || !is_extension_name(bare) {
            return Err(IssueError::Extension(escaped(name)));
        }
        extensions.push((full, (*value).to_owned()));
    }
    Ok(extensions)
}

/// What makes an extension's name ours (PROTOCOL.certkeys: other than IETF names end in `@` and a domain).
const EXTENSION_DOMAIN: &str = "@mezite";

/// `<name>@mezite`, whether or not `name` ends so already.
pub(crate) fn extension(name: &str) -> String {
    format!(
        "{}{EXTENSION_DOMAIN}",
        name.strip_suffix(EXTENSION_DOMAIN).unwrap_or(name)
    )
}

fn is_extension_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl GatewayKey {
    /// Certifies the hub's host key for `names`, for 1 h. The caller has found that the client may know these names.
    ///
    /// # Errors
    /// [`IssueError::NoNames`], [`IssueError::Name`], [`IssueError::TooMany`], [`IssueError::SubjectKey`],
    /// [`IssueError::Sign`].
    pub fn issue(
        &self,
        names: &[String],
        public_key: &PublicKey,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        self.prepare(names, public_key, serial, now, rng)?
            .sign(&*self.0)
    }

    /// [`Self::issue`] up to the signature.
    ///
    /// # Errors
    /// As [`Self::issue`], without [`IssueError::Sign`].
    pub fn prepare(
        &self,
        names: &[String],
        public_key: &PublicKey,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Prepared<Certificate>, IssueError> {
        let first = names.first().ok_or(IssueError::NoNames)?;
        at_most("names", names.len(), MAX_PRINCIPALS)?;
        if let Some(bad) = names.iter().find(|name| !principal::is_host_name(name)) {
            return Err(IssueError::Name(escaped(bad)));
        }
        let mut principals = names.to_vec();
        principals.sort();
        principals.dedup();
        let profile = Profile {
            cert_type: CertType::Host,
            key_id: format!("mezite gateway {first}"),
            principals,
            life: GATEWAY_LIFE,
            critical_options: Vec::new(),
            extensions: Vec::new(),
        };
        profile.prepare(self.0.public_key(), public_key, serial, now, rng)
    }
}

impl NodeKey {
    /// Certifies a node's host key as `<node-id>.<cluster>`, for 24 h.
    ///
    /// # Errors
    /// [`IssueError::SubjectKey`], [`IssueError::Sign`].
    pub fn issue(
        &self,
        node_id: &NodeId,
        cluster: &ClusterName,
        public_key: &PublicKey,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        self.prepare(node_id, cluster, public_key, serial, now, rng)?
            .sign(&*self.0)
    }

    /// [`Self::issue`] for a shorter life; [`NODE_LIFE`] at most.
    ///
    /// # Errors
    /// [`IssueError::NoLife`], [`IssueError::SubjectKey`], [`IssueError::Sign`].
    #[expect(clippy::too_many_arguments, reason = "what a certificate is made of")]
    pub fn issue_for(
        &self,
        node_id: &NodeId,
        cluster: &ClusterName,
        public_key: &PublicKey,
        life: Span,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Certificate, IssueError> {
        let profile = Self::profile(node_id, cluster, life);
        let prepared = profile.prepare(self.0.public_key(), public_key, serial, now, rng)?;
        prepared.sign(&*self.0)
    }

    /// [`Self::issue`] up to the signature.
    ///
    /// # Errors
    /// [`IssueError::SubjectKey`].
    pub fn prepare(
        &self,
        node_id: &NodeId,
        cluster: &ClusterName,
        public_key: &PublicKey,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Prepared<Certificate>, IssueError> {
        let profile = Self::profile(node_id, cluster, NODE_LIFE);
        profile.prepare(self.0.public_key(), public_key, serial, now, rng)
    }

    fn profile(node_id: &NodeId, cluster: &ClusterName, life: Span) -> Profile {
        Profile {
            cert_type: CertType::Host,
            key_id: node_key_id(cluster, node_id),
            principals: vec![principal::node_host(node_id, cluster)],
            life: life.min(NODE_LIFE),
            critical_options: Vec::new(),
            extensions: Vec::new(),
        }
    }
}

/// What every identity certificate of a user has as its key id.
pub(crate) fn identity_key_id(cluster: &ClusterName, user: &UserName) -> String {
    format!("mezite identity user={user} cluster={cluster}")
}

/// What every host certificate of a node has as its key id.
pub(crate) fn node_key_id(cluster: &ClusterName, node: &NodeId) -> String {
    format!("mezite node {node} cluster={cluster}")
}

pub(crate) fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), IssueError> {
    if count > max {
        return Err(IssueError::TooMany { what, count, max });
    }
    Ok(())
}

/// What differs between the kinds of SSH certificates.
struct Profile {
    cert_type: CertType,
    key_id: String,
    principals: Vec<String>,
    life: Span,
    critical_options: Vec<(String, String)>,
    extensions: Vec<(String, String)>,
}

impl Profile {
    fn prepare(
        self,
        authority: [u8; 32],
        public_key: &PublicKey,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Prepared<Certificate>, IssueError> {
        check_subject(&authority, public_key)?;
        if self.life.as_secs() == 0 {
            return Err(IssueError::NoLife);
        }
        let message = self.message(&authority, public_key, serial, now, rng)?;
        let size = message.len() + SIGNATURE_BYTES;
        if size > MAX_CERTIFICATE_BYTES {
            return Err(IssueError::TooLarge(size));
        }
        Ok(Prepared::ssh(authority, message))
    }

    /// Every field up to the signature, in the order of PROTOCOL.certkeys.
    fn message(
        self,
        authority: &[u8; 32],
        public_key: &PublicKey,
        serial: Serial,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, IssueError> {
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let mut out = Writer(Vec::with_capacity(512));
        let key = public_key.key_data();
        out.string(key.algorithm().to_certificate_type().as_bytes());
        out.string(&nonce);
        let mut plain = Vec::new();
        key.encode(&mut plain)
            .map_err(|error| written(error.into()))?;
        let mut fields = Reader(&plain);
        fields
            .string("public key")
            .map_err(|_| IssueError::Write("the key has no name".to_owned()))?;
        out.0.extend(fields.0);
        out.u64(serial.as_u64());
        out.u32(self.cert_type.into());
        out.string(self.key_id.as_bytes());
        out.string(&strings(&self.principals));
        out.u64(now.minus(SKEW).as_secs());
        out.u64(now.plus(self.life).as_secs());
        out.string(&options(self.critical_options));
        out.string(&options(self.extensions));
        out.string(&[]); // reserved
        let mut signature_key = Writer::default();
        signature_key.string(b"ssh-ed25519");
        signature_key.string(authority);
        out.string(&signature_key.0);
        Ok(out.0)
    }
}

/// The signature with its name, each with its length, and the length of both.
const SIGNATURE_BYTES: usize = 4 + 4 + 11 + 4 + 64;

fn strings(list: &[String]) -> Vec<u8> {
    let mut packed = Writer::default();
    for item in list {
        packed.string(item.as_bytes());
    }
    packed.0
}

/// "Options must be lexically ordered by name"; a value is a string within a string, no value an empty string.
fn options(mut pairs: Vec<(String, String)>) -> Vec<u8> {
    pairs.sort();
    let mut packed = Writer::default();
    for (name, value) in pairs {
        packed.string(name.as_bytes());
        let mut data = Writer::default();
        if !value.is_empty() {
            data.string(value.as_bytes());
        }
        packed.string(&data.0);
    }
    packed.0
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the argument of `map_err`"
)]
pub(crate) fn written(error: ssh_key::Error) -> IssueError {
    IssueError::Write(error.to_string())
}

fn check_subject(authority: &[u8; 32], public_key: &PublicKey) -> Result<(), IssueError> {
    if !subject_is_sound(public_key.key_data()) {
        return Err(IssueError::SubjectKey(escaped(
            public_key.algorithm().as_str(),
        )));
    }
    match public_key.key_data().ed25519() {
        Some(key) if key.0 == *authority => Err(IssueError::SubjectIsAuthority),
        _ => Ok(()),
    }
}

/// Which keys may be certified: Ed25519 and ECDSA, in software or on a security key.
pub(crate) fn subject_is_sound(key: &KeyData) -> bool {
    let ecdsa = matches!(
        key.algorithm(),
        Algorithm::Ecdsa { .. } | Algorithm::SkEcdsaSha2NistP256
    );
    let ed25519 = key
        .ed25519()
        .or_else(|| key.sk_ed25519().map(|key| key.public_key()));
    ecdsa || ed25519.is_some_and(|key| is_sound(&key.0))
}
