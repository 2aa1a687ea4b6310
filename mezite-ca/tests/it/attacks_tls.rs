//! The attack rows of X.509 certificates.

use mezite_ca::verify::{self, Context, Purpose, VerifyError};
use mezite_ca::{IssueError, KeyKind, PeerKind, PeerName, Signer, TlsRequest, TrustBundle};
use mezite_core::{Span, UnixTime};

use crate::fixture::{Cluster, NOW, Verifier, hours, key, rng, serial};

#[test]
fn attack_02_tls_authorities_do_not_vouch_for_each_others_peers() {
    let cluster = Cluster::example();
    let (user, node) = (
        cluster.peer_name(PeerKind::User),
        cluster.peer_name(PeerKind::Node),
    );
    let request = |peer| TlsRequest {
        twin: None,
        peer,
        public_key: key(104).public_key(),
        dns_names: &[],
        addresses: &[],
        life: hours(1),
    };
    let refused = |authority, kind| Err(IssueError::Kind { authority, kind });
    assert_eq!(
        cluster.host_tls.issue(&request(&user), serial(), NOW),
        refused(KeyKind::HostTls, PeerKind::User)
    );
    assert_eq!(
        cluster.user_tls.issue(&request(&node), serial(), NOW),
        refused(KeyKind::UserTls, PeerKind::Node)
    );
    // The right names, but the authorities' roles swapped.
    let mut swapped = Cluster::example();
    std::mem::swap(&mut swapped.trust.user_tls, &mut swapped.trust.host_tls);
    let verdict = swapped.verdict(Verifier::UserPeer, &cluster.tls_certificate(PeerKind::User));
    assert_eq!(
        verdict,
        Some(VerifyError::WrongRing {
            expected: KeyKind::UserTls,
            found: KeyKind::HostTls
        })
    );
}

#[test]
fn attack_06_tls_windows_are_checked_too() {
    let cluster = Cluster::example();
    let certificate = cluster.tls_certificate(PeerKind::User);
    let at = |now| {
        Verifier::UserPeer.verdict(
            &certificate,
            &Context {
                now,
                ..cluster.context()
            },
        )
    };
    assert_eq!(at(NOW.plus(hours(8))), None);
    assert!(matches!(
        at(NOW.plus(Span::from_secs(8 * 3600 + 1))),
        Some(VerifyError::Expired { .. })
    ));
    assert_eq!(at(NOW.minus(Span::from_secs(300))), None);
    assert!(matches!(
        at(NOW.minus(Span::from_secs(301))),
        Some(VerifyError::NotYetValid { .. })
    ));
    let far = UnixTime::from_secs(253_402_300_800);
    let made =
        mezite_ca::UserTls::create(std::sync::Arc::new(key(1)), &cluster.name, far, &mut rng());
    assert_eq!(made.map(|_| ()), Err(IssueError::Time(far)));
}

#[test]
fn attack_18_a_tls_peer_is_of_its_issuers_cluster_and_ours() {
    let here = Cluster::example();
    let foreign = PeerName {
        cluster: "other".parse().unwrap(),
        ..here.peer_name(PeerKind::User)
    };
    let request = TlsRequest {
        twin: None,
        peer: &foreign,
        public_key: key(104).public_key(),
        dns_names: &[],
        addresses: &[],
        life: hours(1),
    };
    // Our authority, another cluster's name.
    let lying = here.user_tls.issue(&request, serial(), NOW).unwrap();
    let wrong = VerifyError::WrongCluster {
        expected: "example".to_owned(),
        found: "other".to_owned(),
    };
    assert_eq!(here.verdict(Verifier::UserPeer, &lying), Some(wrong));
    // Another cluster's authority in our bundle, our name.
    let there = Cluster::new("other", 50);
    let own_name = here.peer_name(PeerKind::User);
    let posing = there
        .user_tls
        .issue(
            &TlsRequest {
                twin: None,
                peer: &own_name,
                ..request
            },
            serial(),
            NOW,
        )
        .unwrap();
    let mixed = TrustBundle {
        user_tls: there.trust.user_tls.clone(),
        ..here.trust.clone()
    };
    let context = Context {
        trust: &mixed,
        ..here.context()
    };
    assert_eq!(
        Verifier::UserPeer.verdict(&posing, &context),
        Some(VerifyError::WrongCluster {
            expected: "example".to_owned(),
            found: "mezite://other/ca/user-tls".to_owned()
        })
    );
}

/// Revoking one certificate of a holder finds the other: by the key that it names, and by the key id that follows from
/// its name.
#[test]
fn attack_17_a_tls_certificate_leads_to_its_ssh_twin() {
    let cluster = Cluster::example();
    let name = cluster.peer_name(PeerKind::User);
    let ssh = cluster.identity_certificate();
    let key = ssh_key::PublicKey::from(ssh.public_key().clone());
    let request = TlsRequest {
        peer: &name,
        public_key: key_of_tls(),
        dns_names: &[],
        addresses: &[],
        life: hours(1),
        twin: Some(&key),
    };
    let der = cluster.user_tls.issue(&request, serial(), NOW).unwrap();
    let peer = verify::peer(
        &[der],
        Purpose::Client,
        &[PeerKind::User],
        &cluster.context(),
    );
    let peer = peer.unwrap();
    assert_eq!(
        peer.twin().unwrap(),
        key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    );
    assert_eq!(peer.peer().ssh_key_id().unwrap(), ssh.key_id());
    assert_eq!(peer.revocable().key_id, name.to_string());
    assert_eq!(peer.serial().as_u64(), ssh.serial());
    // A hub has no SSH certificate of one holder.
    assert_eq!(cluster.peer_name(PeerKind::Hub).ssh_key_id(), None);
}

fn key_of_tls() -> [u8; 32] {
    key(104).public_key()
}

#[test]
fn attack_63_a_client_does_not_serve() {
    let cluster = Cluster::example();
    for kind in [PeerKind::User, PeerKind::Bot, PeerKind::Node] {
        let chain = [cluster.tls_certificate(kind)];
        let verdict = verify::peer(&chain, Purpose::Server, &[kind], &cluster.context());
        assert_eq!(
            verdict,
            Err(VerifyError::WrongUsage(Purpose::Server)),
            "{kind}"
        );
        let named = TlsRequest {
            twin: None,
            peer: &cluster.peer_name(kind),
            public_key: key(104).public_key(),
            dns_names: &["hub.example".to_owned()],
            addresses: &[],
            life: hours(1),
        };
        let issued = match kind {
            PeerKind::Node => cluster.host_tls.issue(&named, serial(), NOW),
            PeerKind::Bot | PeerKind::Hub | PeerKind::User => {
                cluster.user_tls.issue(&named, serial(), NOW)
            }
        };
        assert!(
            matches!(issued, Err(IssueError::TooMany { max: 0, .. })),
            "{kind}"
        );
    }
    let hub = [cluster.tls_certificate(PeerKind::Hub)];
    assert!(verify::peer(&hub, Purpose::Client, &[PeerKind::Hub], &cluster.context()).is_ok());
    assert_eq!(
        verify::peer(&hub, Purpose::Server, &[], &cluster.context()),
        Err(VerifyError::WrongKind(PeerKind::Hub))
    );
    assert_eq!(
        verify::peer(&[], Purpose::Server, &[PeerKind::Hub], &cluster.context()),
        Err(VerifyError::Malformed("chain"))
    );
}

#[test]
fn attack_14_no_bit_of_a_certificate_has_a_choice() {
    let cluster = Cluster::example();
    let good = cluster.tls_certificate(PeerKind::Hub).to_vec();
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let verdict = cluster.verdict(Verifier::HubPeer, &changed);
        assert!(verdict.is_some(), "bit {bit}");
    }
}
