//! Every kind of certificate, shown to every verifier: one accepts each, all others name why not.

use mezite_ca::verify::{self, Context, Purpose, VerifyError};
use mezite_ca::{Binding, KeyKind, PeerKind, Permissions, SessionRequest};

use crate::fixture::{
    Cluster, NOW, Verifier, hours, login, node_id, public, rng, serial, session_id, user,
};
use crate::forge::Forge;

#[test]
fn each_certificate_is_good_at_one_verifier_only() {
    let cluster = Cluster::example();
    let certificates = [
        (
            Verifier::Identity,
            KeyKind::Identity,
            cluster.identity_certificate().to_bytes().unwrap(),
        ),
        (
            Verifier::Session,
            KeyKind::Session,
            cluster.session_certificate(&[]).to_bytes().unwrap(),
        ),
        (
            Verifier::Node,
            KeyKind::Node,
            cluster.node_certificate().to_bytes().unwrap(),
        ),
        (
            Verifier::Gateway,
            KeyKind::Gateway,
            cluster.gateway_certificate().to_bytes().unwrap(),
        ),
        (
            Verifier::UserPeer,
            KeyKind::UserTls,
            cluster.tls_certificate(PeerKind::User).to_vec(),
        ),
        (
            Verifier::HubPeer,
            KeyKind::HostTls,
            cluster.tls_certificate(PeerKind::Hub).to_vec(),
        ),
        (
            Verifier::NodePeer,
            KeyKind::HostTls,
            cluster.tls_certificate(PeerKind::Node).to_vec(),
        ),
        (
            Verifier::BreakGlass,
            KeyKind::BreakGlass,
            Forge::session().sign(&cluster.signer(6)),
        ),
    ];
    let ring = |verifier| match verifier {
        Verifier::Identity => KeyKind::Identity,
        Verifier::Session => KeyKind::Session,
        Verifier::Node => KeyKind::Node,
        Verifier::Gateway => KeyKind::Gateway,
        Verifier::BreakGlass => KeyKind::BreakGlass,
        Verifier::UserPeer => KeyKind::UserTls,
        Verifier::HubPeer | Verifier::NodePeer => KeyKind::HostTls,
    };
    for (home, found, certificate) in &certificates {
        for verifier in Verifier::ALL {
            let verdict = cluster.verdict(verifier, certificate);
            let (ssh, ssh_home) = (
                Verifier::SSH.contains(&verifier),
                Verifier::SSH.contains(home),
            );
            if verifier == *home {
                assert_eq!(verdict, None, "{verifier:?}");
            } else if ssh && ssh_home {
                let wrong = VerifyError::WrongRing {
                    expected: ring(verifier),
                    found: *found,
                };
                assert_eq!(verdict, Some(wrong), "{home:?} at {verifier:?}");
            } else if ssh != ssh_home {
                assert!(
                    matches!(verdict, Some(VerifyError::Malformed(_))),
                    "{home:?} at {verifier:?}: {verdict:?}"
                );
            } else {
                let refused = matches!(
                    verdict,
                    Some(VerifyError::WrongKind(_) | VerifyError::WrongUsage(_))
                );
                assert!(refused, "{home:?} at {verifier:?}: {verdict:?}");
            }
        }
    }
}

#[test]
fn a_session_bound_to_a_bare_login_opens_nothing_that_knows_its_name() {
    let cluster = Cluster::example();
    let (user, node, login) = (user(), node_id(), login());
    let request = SessionRequest {
        session_id: session_id(),
        user: &user,
        node_id: &node,
        login: &login,
        public_key: &public(101),
        permissions: Permissions::default(),
        obligations: &[],
        source_addresses: &[],
    };
    let certificate = cluster
        .session
        .issue_bound(&request, Binding::Login, serial(), NOW, &mut rng())
        .unwrap();
    assert_eq!(certificate.valid_principals(), ["root"]);
    let certificate = certificate.to_bytes().unwrap();
    for verifier in Verifier::ALL {
        let verdict = cluster.verdict(verifier, &certificate);
        if verifier == Verifier::Session {
            let wrong = VerifyError::WrongPrincipal {
                expected: format!("mezite:{node}:root"),
                found: "root".to_owned(),
            };
            assert_eq!(verdict, Some(wrong));
        } else {
            assert!(
                matches!(
                    verdict,
                    Some(VerifyError::WrongRing { .. } | VerifyError::Malformed(_))
                ),
                "{verifier:?}: {verdict:?}"
            );
        }
    }
}

#[test]
fn verified_values_say_what_was_issued() {
    let cluster = Cluster::example();
    let context = cluster.context();
    let identity = cluster.identity_certificate();
    let verified = verify::identity(&identity.to_bytes().unwrap(), &context).unwrap();
    assert_eq!((verified.user(), verified.serial()), (&user(), serial()));
    assert_eq!(
        verified.key_id(),
        "mezite identity user=alice cluster=example"
    );
    assert_eq!(verified.valid_before(), context.now.plus(hours(8)));
    assert_eq!(verified.public_key().key_data(), identity.public_key());

    let session = cluster.session_certificate(&[]).to_bytes().unwrap();
    let verified = verify::session(&session, &node_id(), &login(), &context).unwrap();
    assert_eq!(
        (verified.session_id(), verified.user(), verified.login()),
        (session_id(), &user(), &login())
    );
    assert_eq!(
        verified
            .valid_before()
            .since(verified.valid_after())
            .as_secs(),
        600
    );
    assert_eq!(verified.extension("idle-timeout"), Some("30m"));
    assert_eq!(verified.extension("idle-timeout@mezite"), Some("30m"));
    assert!(verified.permits("pty") && !verified.permits("port-forwarding"));
    assert_eq!(
        verified.key_id(),
        format!(
            "mezite session {} user=alice node={} login=root",
            session_id(),
            node_id()
        )
    );

    let hub = [cluster.tls_certificate(PeerKind::Hub)];
    let verified = verify::peer(&hub, Purpose::Client, &[PeerKind::Hub], &context).unwrap();
    assert_eq!(
        verified.peer().to_string(),
        "mezite://example/hub/hub.example"
    );
    assert_eq!(
        (verified.serial(), verified.not_after()),
        (serial(), context.now.plus(hours(8)))
    );
    assert_eq!((verified.user(), verified.node()), (None, None));
}

#[test]
fn ceilings_hold_whatever_is_asked() {
    use mezite_ca::IdentityRequest;
    use mezite_ca::IssueError;

    let cluster = Cluster::example();
    let life = |ttl, ceiling| {
        let request = IdentityRequest {
            cluster: &cluster.name,
            user: &user(),
            public_key: &public(100),
            ttl: hours(ttl),
            ceiling: hours(ceiling),
        };
        let issued = cluster.identity.issue(&request, serial(), NOW, &mut rng());
        issued.map(|certificate| (certificate.valid_before() - NOW.as_secs()) / 3600)
    };
    assert_eq!(life(8, 12), Ok(8));
    assert_eq!(life(12, 8), Ok(8));
    assert_eq!(life(1000, 1000), Ok(24));
    assert_eq!(life(0, 8), Err(IssueError::NoLife));
    assert_eq!(life(8, 0), Err(IssueError::NoLife));
}

#[test]
fn the_trust_bundle_travels_as_text() {
    let cluster = Cluster::example();
    let text = serde_json::to_string(&cluster.trust).unwrap();
    let read: mezite_ca::TrustBundle = serde_json::from_str(&text).unwrap();
    assert_eq!(read, cluster.trust);
    assert!(text.contains("\"ssh-ed25519 AAAA"), "{text}");
}

#[test]
fn a_stored_tls_authority_loads_with_its_own_key_only() {
    use std::sync::Arc;

    use mezite_ca::{HostTls, IssueError, UserTls, pin};

    let cluster = Cluster::example();
    let stored = cluster.host_tls.certificate().clone();
    let load = |offset: u8, name: &str| {
        HostTls::load(
            Arc::new(cluster.signer(offset)),
            stored.clone(),
            &name.parse().unwrap(),
        )
    };
    assert_eq!(load(5, "example").unwrap().pin(), cluster.host_tls.pin());
    assert_eq!(pin(&stored).unwrap(), cluster.host_tls.pin());
    assert_ne!(cluster.user_tls.pin(), cluster.host_tls.pin());
    assert!(matches!(
        load(4, "example"),
        Err(IssueError::Authority { .. })
    ));
    assert!(matches!(
        load(5, "other"),
        Err(IssueError::Authority { .. })
    ));
    let as_user = UserTls::load(Arc::new(cluster.signer(5)), stored.clone(), &cluster.name);
    assert!(matches!(as_user, Err(IssueError::Authority { .. })));
}

#[test]
fn attack_03_a_newcomer_trusts_what_the_pinned_key_signed() {
    let cluster = Cluster::example();
    let root = cluster.host_tls.certificate();
    let chain = [cluster.tls_certificate(PeerKind::Hub), root.clone()];
    let trust = verify::pinned(&chain, &cluster.host_tls.pin()).unwrap();
    assert_eq!(
        (&trust.cluster, &trust.host_tls),
        (&cluster.name, &vec![root.to_vec()])
    );
    assert!(trust.user_tls.is_empty() && trust.identity.is_empty());
    let context = Context {
        trust: &trust,
        ..cluster.context()
    };
    assert!(verify::peer(&chain, Purpose::Server, &[PeerKind::Hub], &context).is_ok());

    // Another authority's pin: the user authority's even, with its own certificate.
    let users = [cluster.user_tls.certificate().clone()];
    for (chain, pin) in [
        (&chain[..], cluster.user_tls.pin()),
        (&users[..], cluster.user_tls.pin()),
        (&chain[..1], cluster.host_tls.pin()),
        (&chain[..], String::new()),
    ] {
        let verdict = verify::pinned(chain, &pin);
        assert!(
            matches!(verdict, Err(VerifyError::UnknownAuthority(_))),
            "{pin} {verdict:?}"
        );
    }

    // The right key, but the name of the cluster changed on the way.
    let mut changed = root.to_vec();
    let at = changed
        .windows(17)
        .position(|window| window == b"mezite://example/")
        .unwrap();
    changed[at + 9] = b'z';
    let verdict = verify::pinned(&[changed.into()], &cluster.host_tls.pin());
    assert_eq!(verdict, Err(VerifyError::BadSignature));
}
