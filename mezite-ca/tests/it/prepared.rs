//! Issuing in two steps: an authority that knows its public key only, and a signature from elsewhere.

use std::sync::Arc;

use mezite_ca::{
    Binding, GatewayKey, HostTls, IdentityKey, IdentityRequest, IssueError, NodeKey, PeerKind,
    RemoteKey, SessionKey, SignError, Signer, TlsRequest, UserTls,
};

use crate::fixture::{Cluster, NOW, Verifier, hours, key, node_id, public, rng, serial, user};

fn remote(cluster: &Cluster, offset: u8) -> Arc<dyn Signer> {
    Arc::new(RemoteKey::new(cluster.signer(offset).public_key()))
}

#[test]
fn ssh_certificates_signed_elsewhere_are_those_signed_here() {
    let cluster = Cluster::example();
    let identity = IdentityKey::new(remote(&cluster, 0));
    let name = user();
    let request = IdentityRequest {
        cluster: &cluster.name,
        user: &name,
        public_key: &public(100),
        ttl: hours(8),
        ceiling: hours(12),
    };
    let prepared = identity
        .prepare(&request, serial(), NOW, &mut rng())
        .unwrap();
    assert_eq!(*prepared.authority(), cluster.signer(0).public_key());
    let signature = cluster.signer(0).sign(prepared.message()).unwrap();
    let certificate = prepared.finish(&signature).unwrap();
    assert_eq!(certificate, cluster.identity_certificate());
    assert_eq!(
        cluster.verdict(Verifier::Identity, &certificate.to_bytes().unwrap()),
        None
    );
    let verdict = identity.issue(&request, serial(), NOW, &mut rng());
    assert!(
        matches!(&verdict, Err(IssueError::Sign(SignError::Unavailable(why))) if why.contains("prepare")),
        "{verdict:?}"
    );

    let gateway = GatewayKey::new(remote(&cluster, 2));
    let names = ["db1.example".to_owned(), "hub.example".to_owned()];
    let prepared = gateway
        .prepare(&names, &public(102), serial(), NOW, &mut rng())
        .unwrap();
    let signature = cluster.signer(2).sign(prepared.message()).unwrap();
    assert_eq!(
        prepared.finish(&signature).unwrap(),
        cluster.gateway_certificate()
    );

    let node = NodeKey::new(remote(&cluster, 3));
    let prepared = node
        .prepare(
            &node_id(),
            &cluster.name,
            &public(103),
            serial(),
            NOW,
            &mut rng(),
        )
        .unwrap();
    let signature = cluster.signer(3).sign(prepared.message()).unwrap();
    assert_eq!(
        prepared.finish(&signature).unwrap(),
        cluster.node_certificate()
    );
}

#[test]
fn sessions_are_prepared_too() {
    let cluster = Cluster::example();
    let session = SessionKey::new(remote(&cluster, 1));
    let (user, node, login) = (user(), node_id(), crate::fixture::login());
    let request = mezite_ca::SessionRequest {
        session_id: crate::fixture::session_id(),
        user: &user,
        node_id: &node,
        login: &login,
        public_key: &public(101),
        permissions: mezite_ca::Permissions {
            pty: true,
            ..Default::default()
        },
        obligations: &[("idle-timeout", "30m")],
        source_addresses: &[],
    };
    let prepared = session
        .prepare(&request, Binding::Node, serial(), NOW, &mut rng())
        .unwrap();
    let signature = cluster.signer(1).sign(prepared.message()).unwrap();
    assert_eq!(
        prepared.finish(&signature).unwrap(),
        cluster.session_certificate(&[])
    );
}

#[test]
fn tls_authorities_and_peers_are_prepared_too() {
    let cluster = Cluster::example();
    let own = HostTls::prepare_own(
        cluster.signer(5).public_key(),
        &cluster.name,
        NOW,
        &mut rng(),
    )
    .unwrap();
    let signature = cluster.signer(5).sign(own.message()).unwrap();
    let certificate = own.finish(&signature).unwrap();
    assert_eq!(certificate, *cluster.host_tls.certificate());
    let authority = HostTls::load(remote(&cluster, 5), certificate, &cluster.name).unwrap();

    let (peer, dns) = (cluster.peer_name(PeerKind::Hub), ["hub.example".to_owned()]);
    let request = TlsRequest {
        twin: None,
        peer: &peer,
        public_key: key(104).public_key(),
        dns_names: &dns,
        addresses: &[],
        life: hours(8),
    };
    let prepared = authority.prepare(&request, serial(), NOW).unwrap();
    let signature = cluster.signer(5).sign(prepared.message()).unwrap();
    let issued = prepared.finish(&signature).unwrap();
    assert_eq!(issued, cluster.tls_certificate(PeerKind::Hub));
    assert_eq!(cluster.verdict(Verifier::HubPeer, &issued), None);
    let create = UserTls::create(remote(&cluster, 4), &cluster.name, NOW, &mut rng());
    assert!(
        matches!(create, Err(IssueError::Sign(SignError::Unavailable(_)))),
        "{create:?}"
    );
}

/// A device that signs something else, or with another key.
#[derive(Debug)]
struct Faulty;

impl Signer for Faulty {
    fn public_key(&self) -> [u8; 32] {
        key(10).public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let mut signature = key(10).sign(message)?;
        signature[40] ^= 1;
        Ok(signature)
    }
}

#[test]
fn what_is_not_the_authoritys_signature_makes_no_certificate() {
    let cluster = Cluster::example();
    let prepare = || {
        cluster
            .node
            .prepare(
                &node_id(),
                &cluster.name,
                &public(103),
                serial(),
                NOW,
                &mut rng(),
            )
            .unwrap()
    };
    let message = prepare().message().to_vec();
    let other_message = cluster.signer(3).sign(&message[1..]).unwrap();
    let other_key = cluster.signer(2).sign(&message).unwrap();
    for signature in [[0; 64], other_message, other_key] {
        let verdict = prepare().finish(&signature);
        assert!(
            matches!(verdict, Err(IssueError::Sign(SignError::Wrong(_)))),
            "{verdict:?}"
        );
    }
    let faulty = NodeKey::new(Arc::new(Faulty));
    let verdict = faulty.issue(
        &node_id(),
        &cluster.name,
        &public(103),
        serial(),
        NOW,
        &mut rng(),
    );
    assert!(
        matches!(verdict, Err(IssueError::Sign(SignError::Wrong(_)))),
        "{verdict:?}"
    );
    let tls = UserTls::create(Arc::new(Faulty), &cluster.name, NOW, &mut rng());
    assert!(
        matches!(tls, Err(IssueError::Sign(SignError::Wrong(_)))),
        "{tls:?}"
    );
}
