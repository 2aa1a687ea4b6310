//! A whole cluster's authorities, and one good certificate of each kind.

use std::net::IpAddr;
use std::sync::Arc;

use mezite_ca::verify::{self, Context, Purpose, Revocable, VerifyError};
use mezite_ca::{
    GatewayKey, HostTls, IdentityKey, IdentityRequest, NodeKey, PeerKind, PeerName, Permissions,
    SessionKey, SessionRequest, Signer, SoftwareKey, TlsRequest, TrustBundle, UserTls, openssh,
};
use mezite_core::{
    ClusterName, Login, NodeId, Secret, Serial, SessionId, Span, UnixTime, UserName,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls_pki_types::CertificateDer;
use ssh_key::{Certificate, PublicKey};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// One cluster. The seeds of its keys start at `base`.
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) trust: TrustBundle,
    pub(crate) identity: IdentityKey,
    pub(crate) session: SessionKey,
    pub(crate) gateway: GatewayKey,
    pub(crate) node: NodeKey,
    pub(crate) user_tls: UserTls,
    pub(crate) host_tls: HostTls,
    base: u8,
}

/// The key with this seed.
pub(crate) fn key(seed: u8) -> SoftwareKey {
    SoftwareKey::from_seed(Secret::new([seed; 32]))
}

pub(crate) fn public(seed: u8) -> PublicKey {
    openssh::public_key(key(seed).public_key())
}

pub(crate) fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

pub(crate) fn user() -> UserName {
    "alice".parse().unwrap()
}

pub(crate) fn login() -> Login {
    "root".parse().unwrap()
}

pub(crate) fn node_id() -> NodeId {
    NodeId::new([1; 16])
}

pub(crate) fn session_id() -> SessionId {
    SessionId::new(NOW, [3; 16])
}

pub(crate) fn serial() -> Serial {
    Serial::from_u64(42)
}

pub(crate) fn hours(hours: u64) -> Span {
    Span::from_secs(hours * 3600)
}

impl Cluster {
    pub(crate) fn new(name: &str, base: u8) -> Self {
        let name: ClusterName = name.parse().unwrap();
        let signer = |offset: u8| -> Arc<dyn Signer> { Arc::new(key(base + offset)) };
        let identity = IdentityKey::new(signer(0));
        let session = SessionKey::new(signer(1));
        let gateway = GatewayKey::new(signer(2));
        let node = NodeKey::new(signer(3));
        let user_tls = UserTls::create(signer(4), &name, NOW, &mut rng()).unwrap();
        let host_tls = HostTls::create(signer(5), &name, NOW, &mut rng()).unwrap();
        let mut trust = TrustBundle::empty(name.clone());
        trust.identity.push(identity.public_key());
        trust.session.push(session.public_key());
        trust.gateway.push(gateway.public_key());
        trust.node.push(node.public_key());
        trust.user_tls.push(user_tls.certificate().to_vec());
        trust.host_tls.push(host_tls.certificate().to_vec());
        trust
            .break_glass
            .push(openssh::public_key(signer(6).public_key()));
        Self {
            name,
            trust,
            identity,
            session,
            gateway,
            node,
            user_tls,
            host_tls,
            base,
        }
    }

    pub(crate) fn example() -> Self {
        Self::new("example", 10)
    }

    /// The private key behind the authority at this offset: 0 identity, 1 session, 2 gateway, 3 node, 4 and 5 TLS,
    /// 6 break-glass.
    pub(crate) fn signer(&self, offset: u8) -> SoftwareKey {
        key(self.base + offset)
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            trust: &self.trust,
            now: NOW,
            source: Some(SOURCE),
            revoked: &nothing,
        }
    }

    pub(crate) fn identity_certificate(&self) -> Certificate {
        let request = IdentityRequest {
            cluster: &self.name,
            user: &user(),
            public_key: &public(100),
            ttl: hours(8),
            ceiling: hours(12),
        };
        self.identity
            .issue(&request, serial(), NOW, &mut rng())
            .unwrap()
    }

    pub(crate) fn session_certificate(&self, sources: &[IpAddr]) -> Certificate {
        let request = SessionRequest {
            session_id: session_id(),
            user: &user(),
            node_id: &node_id(),
            login: &login(),
            public_key: &public(101),
            permissions: Permissions {
                pty: true,
                ..Permissions::default()
            },
            obligations: &[("idle-timeout", "30m")],
            source_addresses: sources,
        };
        self.session
            .issue(&request, serial(), NOW, &mut rng())
            .unwrap()
    }

    pub(crate) fn gateway_certificate(&self) -> Certificate {
        let names = ["db1.example".to_owned(), "hub.example".to_owned()];
        self.gateway
            .issue(&names, &public(102), serial(), NOW, &mut rng())
            .unwrap()
    }

    pub(crate) fn node_certificate(&self) -> Certificate {
        self.node
            .issue(
                &node_id(),
                &self.name,
                &public(103),
                serial(),
                NOW,
                &mut rng(),
            )
            .unwrap()
    }

    pub(crate) fn peer_name(&self, kind: PeerKind) -> PeerName {
        let name = match kind {
            PeerKind::Bot => "ci".to_owned(),
            PeerKind::Hub => "hub.example".to_owned(),
            PeerKind::Node => node_id().to_string(),
            PeerKind::User => user().to_string(),
        };
        PeerName {
            cluster: self.name.clone(),
            kind,
            name,
        }
    }

    pub(crate) fn tls_certificate(&self, kind: PeerKind) -> CertificateDer<'static> {
        let peer = self.peer_name(kind);
        let dns = if kind == PeerKind::Hub {
            vec!["hub.example".to_owned()]
        } else {
            Vec::new()
        };
        let request = TlsRequest {
            twin: None,
            peer: &peer,
            public_key: key(104).public_key(),
            dns_names: &dns,
            addresses: &[],
            life: hours(8),
        };
        match kind {
            PeerKind::Bot | PeerKind::User => self.user_tls.issue(&request, serial(), NOW),
            PeerKind::Hub | PeerKind::Node => self.host_tls.issue(&request, serial(), NOW),
        }
        .unwrap()
    }

    /// The verdict of a verifier on a blob: `None` if it was accepted.
    pub(crate) fn verdict(&self, verifier: Verifier, cert: &[u8]) -> Option<VerifyError> {
        verifier.verdict(cert, &self.context())
    }
}

pub(crate) fn nothing(_: &Revocable<'_>) -> bool {
    false
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verifier {
    Identity,
    Session,
    Node,
    Gateway,
    UserPeer,
    HubPeer,
    NodePeer,
    BreakGlass,
}

impl Verifier {
    pub(crate) const SSH: [Self; 5] = [
        Self::Identity,
        Self::Session,
        Self::Node,
        Self::Gateway,
        Self::BreakGlass,
    ];
    pub(crate) const ALL: [Self; 8] = [
        Self::BreakGlass,
        Self::Identity,
        Self::Session,
        Self::Node,
        Self::Gateway,
        Self::UserPeer,
        Self::HubPeer,
        Self::NodePeer,
    ];

    pub(crate) fn verdict(self, cert: &[u8], context: &Context<'_>) -> Option<VerifyError> {
        let chain = [CertificateDer::from(cert.to_vec())];
        let peer = |purpose, kind| verify::peer(&chain, purpose, &[kind], context).map(|_| ());
        match self {
            Self::Identity => verify::identity(cert, context).map(|_| ()),
            Self::Session => verify::session(cert, &node_id(), &login(), context).map(|_| ()),
            Self::Node => verify::node_host(cert, &node_id(), context).map(|_| ()),
            Self::Gateway => verify::gateway_host(cert, "db1.example", context).map(|_| ()),
            Self::BreakGlass => {
                let ceiling = mezite_ca::BREAK_GLASS_CEILING;
                verify::break_glass(cert, &node_id(), &login(), ceiling, context).map(|_| ())
            }
            Self::UserPeer => peer(Purpose::Client, PeerKind::User),
            Self::HubPeer => peer(Purpose::Server, PeerKind::Hub),
            Self::NodePeer => peer(Purpose::Client, PeerKind::Node),
        }
        .err()
    }
}
