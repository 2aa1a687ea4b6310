//! Attack rows: each with certificates that the right key signed wherever that is the worst case.

use std::net::IpAddr;

use mezite_ca::verify::{self, Context, Purpose, VerifyError};
use mezite_ca::{
    IssueError, KeyKind, MAX_CERTIFICATE_BYTES, PeerKind, Permissions, SessionRequest, Signer,
    TlsRequest,
};
use mezite_core::{Serial, UnixTime};
use proptest::prelude::*;

use crate::fixture::{
    Cluster, NOW, Verifier, hours, key, login, node_id, public, rng, serial, session_id, user,
};
use crate::forge::{Forge, options, string, strings};

#[test]
fn the_forge_makes_certificates_that_are_accepted() {
    let cluster = Cluster::example();
    for (verifier, forge, offset) in bases() {
        assert_eq!(
            cluster.verdict(verifier, &forge.sign(&cluster.signer(offset))),
            None,
            "{verifier:?}"
        );
    }
}

fn bases() -> [(Verifier, Forge, u8); 3] {
    [
        (Verifier::Identity, Forge::identity(), 0),
        (Verifier::Session, Forge::session(), 1),
        (Verifier::Gateway, Forge::gateway(), 2),
    ]
}

/// The verdict on an identity certificate signed by the right key, changed in one point.
fn identity_with(change: impl FnOnce(&mut Forge)) -> Option<VerifyError> {
    let cluster = Cluster::example();
    let mut forge = Forge::identity();
    change(&mut forge);
    cluster.verdict(Verifier::Identity, &forge.sign(&cluster.signer(0)))
}

/// The same for a session certificate.
fn session_with(change: impl FnOnce(&mut Forge)) -> Option<VerifyError> {
    let cluster = Cluster::example();
    let mut forge = Forge::session();
    change(&mut forge);
    cluster.verdict(Verifier::Session, &forge.sign(&cluster.signer(1)))
}

#[test]
fn attack_01_a_certificate_is_no_signature_key() {
    let cluster = Cluster::example();
    let mut nested = cluster.identity_certificate().to_bytes().unwrap();
    let verdict = identity_with(|forge| forge.signature_key = Some(nested.clone()));
    assert_eq!(verdict, Some(VerifyError::AuthorityIsCertificate));
    // As deep as the size allows, and far deeper: neither is entered.
    for _ in 0..40 {
        let forge = Forge {
            signature_key: Some(nested),
            ..Forge::identity()
        };
        nested = forge.sign(&cluster.signer(0));
    }
    assert!(nested.len() < MAX_CERTIFICATE_BYTES);
    assert_eq!(
        cluster.verdict(Verifier::Identity, &nested),
        Some(VerifyError::AuthorityIsCertificate)
    );
    // Ten thousand levels need more bytes than are read at all.
    let deep = levels(10_000);
    let size = deep.len();
    let verdict = identity_with(|forge| forge.signature_key = Some(deep));
    assert!(
        matches!(verdict, Some(VerifyError::TooLarge(read)) if read > size),
        "{verdict:?}"
    );
    let verdict = identity_with(|forge| forge.signature_key = Some(levels(350)));
    assert_eq!(verdict, Some(VerifyError::AuthorityIsCertificate));
}

/// Certificate types within one another, each a string that holds all that follow.
fn levels(count: usize) -> Vec<u8> {
    let head = string(b"ssh-ed25519-cert-v01@openssh.com");
    let level = head.len() + 4;
    let mut nested = Vec::new();
    for below in (0..count).rev() {
        nested.extend(&head);
        nested.extend(u32::try_from(below * level).unwrap().to_be_bytes());
    }
    nested
}

#[test]
fn attack_01_only_ed25519_signs() {
    for name in [
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "sk-ssh-ed25519@openssh.com",
        "ssh-dss",
        "",
    ] {
        let signature_key = [string(name.as_bytes()), string(&[0; 32])].concat();
        let verdict = identity_with(|forge| forge.signature_key = Some(signature_key));
        assert_eq!(
            verdict,
            Some(VerifyError::AuthorityAlgorithm(name.to_owned()))
        );
    }
}

#[test]
fn attack_02_types_and_authorities_are_not_interchangeable() {
    for cert_type in [0, 2, 3, u32::MAX] {
        assert_eq!(
            identity_with(|forge| forge.cert_type = cert_type),
            Some(VerifyError::WrongType {
                expected: 1,
                found: cert_type
            })
        );
    }
    let cluster = Cluster::example();
    let rings = [
        KeyKind::Identity,
        KeyKind::Session,
        KeyKind::Gateway,
        KeyKind::Node,
    ];
    for (verifier, forge, right) in bases() {
        for (offset, found) in (0..).zip(rings) {
            let verdict = cluster.verdict(verifier, &forge.sign(&cluster.signer(offset)));
            let wrong = (offset != right).then(|| VerifyError::WrongRing {
                expected: rings[usize::from(right)],
                found,
            });
            assert_eq!(verdict, wrong, "{verifier:?}");
        }
    }
    let as_user = Forge {
        cert_type: 1,
        ..Forge::gateway()
    }
    .sign(&cluster.signer(2));
    assert_eq!(
        cluster.verdict(Verifier::Gateway, &as_user),
        Some(VerifyError::WrongType {
            expected: 2,
            found: 1
        })
    );
}

#[test]
fn attack_02_no_key_serves_two_rings() {
    let mut cluster = Cluster::example();
    let certificate = cluster.identity_certificate().to_bytes().unwrap();
    cluster.trust.session.push(cluster.identity.public_key());
    let verdict = cluster.verdict(Verifier::Identity, &certificate);
    assert!(
        matches!(verdict, Some(VerifyError::SharedAuthority(_))),
        "{verdict:?}"
    );
}

#[test]
fn attack_03_a_key_we_certified_certifies_nobody() {
    let cluster = Cluster::example();
    // Seed 100 is Alice's own key, which `identity_certificate` certified.
    let verdict = cluster.verdict(Verifier::Identity, &Forge::identity().sign(&key(100)));
    assert!(
        matches!(verdict, Some(VerifyError::UnknownAuthority(_))),
        "{verdict:?}"
    );
    // Naming the authority without having its key.
    let authority = [
        string(b"ssh-ed25519"),
        string(&cluster.signer(0).public_key()),
    ]
    .concat();
    let forge = Forge {
        signature_key: Some(authority),
        ..Forge::identity()
    };
    assert_eq!(
        cluster.verdict(Verifier::Identity, &forge.sign(&key(100))),
        Some(VerifyError::BadSignature)
    );
    // A TLS leaf that presents itself as an authority's successor in the chain.
    let other = Cluster::new("example", 50);
    let chain = [
        other.tls_certificate(PeerKind::User),
        other.user_tls.certificate().clone(),
    ];
    let verdict = verify::peer(
        &chain,
        Purpose::Client,
        &[PeerKind::User],
        &cluster.context(),
    );
    assert!(
        matches!(verdict, Err(VerifyError::UnknownAuthority(_))),
        "{verdict:?}"
    );
}

#[test]
fn attack_03_an_authority_is_no_subject_and_no_peer() {
    let cluster = Cluster::example();
    let own = cluster.node.public_key();
    let issued = cluster
        .node
        .issue(&node_id(), &cluster.name, &own, serial(), NOW, &mut rng());
    assert_eq!(issued, Err(IssueError::SubjectIsAuthority));
    let chain = [cluster.host_tls.certificate().clone()];
    let verdict = verify::peer(
        &chain,
        Purpose::Client,
        &[PeerKind::Hub],
        &cluster.context(),
    );
    assert_eq!(verdict, Err(VerifyError::NotAPeer));
}

#[test]
fn attack_04_principals_are_one_and_exact() {
    assert_eq!(
        identity_with(|forge| forge.principals.clear()),
        Some(VerifyError::PrincipalCount(0))
    );
    assert_eq!(
        session_with(|forge| forge.principals.clear()),
        Some(VerifyError::PrincipalCount(0))
    );
    let two = strings(&["mezite:example:alice", "mezite:example:bob"]);
    assert_eq!(
        identity_with(|forge| forge.principals = two),
        Some(VerifyError::PrincipalCount(2))
    );
    let twice = strings(&["mezite:example:alice", "mezite:example:alice"]);
    assert_eq!(
        identity_with(|forge| forge.principals = twice),
        Some(VerifyError::Duplicate("mezite:example:alice".to_owned()))
    );
    let many: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    assert_eq!(
        identity_with(|forge| forge.principals = strings(&many)),
        Some(VerifyError::TooMany("principals"))
    );
    let huge: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let verdict = identity_with(|forge| forge.principals = strings(&huge));
    assert!(
        matches!(verdict, Some(VerifyError::TooLarge(_))),
        "{verdict:?}"
    );
    let verdict = identity_with(|forge| forge.principals = string(&vec![b'a'; 1024 * 1024]));
    assert!(
        matches!(verdict, Some(VerifyError::TooLarge(_))),
        "{verdict:?}"
    );
    assert_eq!(
        identity_with(|forge| forge.principals = string(b"mezite:example:al\xffce")),
        Some(VerifyError::Malformed("valid principals"))
    );
}

#[test]
fn attack_04_odd_principals_are_nobody() {
    let odd = |user: &str| format!("mezite:example:{user}");
    for principal in [
        "alice",
        "root",
        "",
        "*",
        "mezite:example:",
        "mezite::alice",
        "mezite:example:alice:root",
        &odd("alice,bob"),
        &odd("alice bob"),
        &odd("alice\n"),
        &odd("alice\0"),
        &odd("*"),
        &odd("?lice"),
        &odd("../alice"),
        &odd("Alice"),
        &odd("аlice"),
        &odd("1000"),
    ] {
        let verdict = identity_with(|forge| forge.principals = string(principal.as_bytes()));
        assert!(
            matches!(verdict, Some(VerifyError::WrongPrincipal { .. })),
            "{principal:?} {verdict:?}"
        );
        let verdict = session_with(|forge| forge.principals = string(principal.as_bytes()));
        assert!(
            matches!(verdict, Some(VerifyError::WrongPrincipal { .. })),
            "{principal:?} {verdict:?}"
        );
    }
    let cluster = Cluster::example();
    for (node, login) in [
        (node_id(), "toor"),
        (mezite_core::NodeId::new([2; 16]), "root"),
    ] {
        let certificate = Forge::session().sign(&cluster.signer(1));
        let verdict = verify::session(
            &certificate,
            &node,
            &login.parse().unwrap(),
            &cluster.context(),
        );
        assert!(
            matches!(verdict, Err(VerifyError::WrongPrincipal { .. })),
            "{verdict:?}"
        );
    }
}

#[test]
fn attack_04_gateways_have_names_and_no_patterns() {
    let cluster = Cluster::example();
    let issue = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        cluster
            .gateway
            .issue(&names, &public(102), serial(), NOW, &mut rng())
    };
    assert_eq!(issue(&[]), Err(IssueError::NoNames));
    for bad in ["*", "*.example", "db1,db2", "db1 db2", "", "db1\n", "DB1"] {
        assert!(
            matches!(issue(&["db1", bad]), Err(IssueError::Name(_))),
            "{bad:?}"
        );
        let forge = Forge {
            principals: strings(&["db1.example", bad]),
            ..Forge::gateway()
        };
        let verdict = cluster.verdict(Verifier::Gateway, &forge.sign(&cluster.signer(2)));
        assert!(
            matches!(verdict, Some(VerifyError::PrincipalForm(_))),
            "{bad:?} {verdict:?}"
        );
    }
    let many: Vec<String> = (0..33).map(|number| format!("db{number}")).collect();
    let issued = cluster
        .gateway
        .issue(&many, &public(102), serial(), NOW, &mut rng());
    assert!(matches!(
        issued,
        Err(IssueError::TooMany {
            count: 33,
            max: 32,
            ..
        })
    ));
    let other = cluster.gateway_certificate().to_bytes().unwrap();
    let verdict = verify::gateway_host(&other, "db2.example", &cluster.context());
    assert!(
        matches!(verdict, Err(VerifyError::WrongPrincipal { .. })),
        "{verdict:?}"
    );
}

#[test]
fn attack_06_windows_are_open_bounded_and_ordered() {
    let now = NOW.as_secs();
    assert_eq!(
        identity_with(|forge| (forge.valid_after, forge.valid_before) = (now + 1, now + 60)),
        Some(VerifyError::NotYetValid {
            valid_after: UnixTime::from_secs(now + 1),
            now: NOW
        })
    );
    assert_eq!(
        identity_with(|forge| forge.valid_before = now),
        Some(VerifyError::Expired {
            valid_before: NOW,
            now: NOW
        })
    );
    assert_eq!(
        identity_with(|forge| (forge.valid_after, forge.valid_before) = (now, now + 1)),
        None
    );
    for (after, before) in [
        (0, u64::MAX),
        (now - 60, u64::MAX),
        (now + 60, now - 60),
        (now - 60, now + 25 * 3600),
    ] {
        let verdict =
            identity_with(|forge| (forge.valid_after, forge.valid_before) = (after, before));
        assert!(
            matches!(verdict, Some(VerifyError::Life { .. })),
            "{after} {before} {verdict:?}"
        );
    }
    let verdict = session_with(|forge| forge.valid_before = now + 3600);
    assert!(
        matches!(verdict, Some(VerifyError::Life { most: 600, .. })),
        "{verdict:?}"
    );
}

#[test]
fn attack_07_every_critical_option_is_honoured_or_refuses() {
    for name in [
        "verify-required",
        "permit-pty",
        "no-touch-required",
        "",
        "x@example.com",
        "Force-Command",
    ] {
        assert_eq!(
            identity_with(|forge| forge.critical_options = options(&[(name, "")])),
            Some(VerifyError::CriticalOption(name.to_owned()))
        );
    }
    assert_eq!(
        session_with(|forge| forge.critical_options = options(&[("force-command", "ls\n")])),
        Some(VerifyError::ForceCommand("ls\\n".to_owned()))
    );
    let twice = options(&[
        ("source-address", "192.0.2.7"),
        ("source-address", "10.0.0.1"),
    ]);
    assert_eq!(
        session_with(|forge| forge.critical_options = twice),
        Some(VerifyError::Duplicate("source-address".to_owned()))
    );
    let disordered = options(&[("source-address", "192.0.2.7"), ("force-command", "ls")]);
    assert_eq!(
        session_with(|forge| forge.critical_options = disordered),
        Some(VerifyError::OptionOrder("force-command".to_owned()))
    );
    let cluster = Cluster::example();
    let host = Forge {
        critical_options: options(&[("source-address", "192.0.2.7")]),
        ..Forge::gateway()
    };
    assert_eq!(
        cluster.verdict(Verifier::Gateway, &host.sign(&cluster.signer(2))),
        Some(VerifyError::CriticalOption("source-address".to_owned()))
    );
}

#[test]
fn attack_07_unknown_extensions_are_ignored_and_misplaced_restrictions_are_not() {
    assert_eq!(
        identity_with(|forge| forge.extensions = options(&[("whatever@example.com", "x")])),
        None
    );
    let binary = [string(b"whatever@example.com"), string(&[0xff, 0, 1])].concat();
    assert_eq!(identity_with(|forge| forge.extensions = binary), None);
    for name in ["force-command", "source-address", "verify-required"] {
        assert_eq!(
            identity_with(|forge| forge.extensions = options(&[(name, "192.0.2.7")])),
            Some(VerifyError::RestrictionAsExtension(name.to_owned()))
        );
    }
    assert_eq!(
        session_with(|forge| forge.extensions = options(&[("user@mezite", "alice")])),
        Some(VerifyError::MissingExtension("session-id@mezite"))
    );
    let named = options(&[
        ("session-id@mezite", &session_id().to_string()),
        ("user@mezite", "Al ice"),
    ]);
    assert_eq!(
        session_with(|forge| forge.extensions = named),
        Some(VerifyError::BadExtension {
            name: "user@mezite",
            value: "Al ice".to_owned()
        })
    );
}

#[test]
fn attack_07_obligations_cannot_pose_as_our_own_extensions() {
    let cluster = Cluster::example();
    let issue = |obligations: &[(&str, &str)]| {
        let request = SessionRequest {
            session_id: session_id(),
            user: &user(),
            node_id: &node_id(),
            login: &login(),
            public_key: &public(101),
            permissions: Permissions::default(),
            obligations,
            source_addresses: &[],
        };
        cluster
            .session
            .issue(&request, serial(), NOW, &mut rng())
            .map(|_| ())
    };
    assert_eq!(
        issue(&[("max-sessions", "3"), ("record-input@mezite", "yes")]),
        Ok(())
    );
    for bad in [
        "user",
        "session-id@mezite",
        "permit-pty@openssh.com",
        "",
        "A",
        "a b",
    ] {
        assert_eq!(
            issue(&[(bad, "x")]),
            Err(IssueError::Extension(bad.to_owned())),
            "{bad}"
        );
    }
    assert!(matches!(
        issue(&[("a", "x"), ("a@mezite", "y")]),
        Err(IssueError::Extension(_))
    ));
    let long = "x".repeat(MAX_CERTIFICATE_BYTES);
    assert!(matches!(
        issue(&[("a", &long)]),
        Err(IssueError::TooLarge(_))
    ));
}

#[test]
fn attack_08_a_session_is_good_from_its_hubs_only() {
    let cluster = Cluster::example();
    let hubs: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let certificate = cluster.session_certificate(&hubs).to_bytes().unwrap();
    let from = |source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        Verifier::Session.verdict(
            &certificate,
            &Context {
                source,
                ..cluster.context()
            },
        )
    };
    assert_eq!(from(Some("192.0.2.7")), None);
    assert_eq!(from(Some("2001:db8::7")), None);
    assert_eq!(from(Some("::ffff:192.0.2.7")), None);
    assert!(matches!(
        from(Some("192.0.2.8")),
        Some(VerifyError::SourceAddress { .. })
    ));
    assert!(matches!(from(None), Some(VerifyError::SourceUnknown(_))));
    for value in ["", " 192.0.2.7", "192.0.2.7,"] {
        let verdict =
            session_with(|forge| forge.critical_options = options(&[("source-address", value)]));
        assert_eq!(
            verdict,
            Some(VerifyError::SourceAddressForm(value.to_owned()))
        );
    }
    // No data at all, not even an empty string.
    let bare = [string(b"source-address"), string(b"")].concat();
    assert_eq!(
        session_with(|forge| forge.critical_options = bare),
        Some(VerifyError::SourceAddressForm(String::new()))
    );
}

#[test]
fn attack_12_the_certified_key_is_of_the_type_that_is_named() {
    for name in [
        "ssh-rsa-cert-v01@openssh.com",
        "rsa-sha2-256-cert-v01@openssh.com",
        "ssh-dss-cert-v01@openssh.com",
        "ssh-ed25519",
        "ssh-ed25519-cert-v02@openssh.com",
        "",
    ] {
        let verdict = identity_with(|forge| forge.algorithm = name.as_bytes().to_vec());
        assert_eq!(verdict, Some(VerifyError::SubjectKey(name.to_owned())));
    }
    // P-384 in a P-256 envelope.
    let other_curve = [string(b"nistp384"), string(&[4; 97])].concat();
    let verdict = identity_with(|forge| {
        forge.algorithm = b"ecdsa-sha2-nistp256-cert-v01@openssh.com".to_vec();
        forge.public_key = other_curve;
    });
    assert_eq!(verdict, Some(VerifyError::Malformed("public key")));
    // Another signature format than the key's.
    for name in [
        "ssh-rsa",
        "rsa-sha2-512",
        "ecdsa-sha2-nistp256",
        "sk-ssh-ed25519@openssh.com",
    ] {
        let verdict = identity_with(|forge| forge.signature_algorithm = name.as_bytes().to_vec());
        assert_eq!(
            verdict,
            Some(VerifyError::AuthorityAlgorithm(name.to_owned()))
        );
    }
}

#[test]
fn attack_13_a_small_order_key_is_not_certified_and_not_accepted() {
    let mut weak = [0; 32];
    weak[0] = 1;
    let verdict = identity_with(|forge| forge.public_key = string(&weak));
    assert!(
        matches!(verdict, Some(VerifyError::SubjectKey(_))),
        "{verdict:?}"
    );
    let cluster = Cluster::example();
    let key = mezite_ca::openssh::public_key(weak);
    let issued = cluster
        .node
        .issue(&node_id(), &cluster.name, &key, serial(), NOW, &mut rng());
    assert_eq!(
        issued,
        Err(IssueError::SubjectKey("ssh-ed25519".to_owned()))
    );
    let peer = cluster.peer_name(PeerKind::User);
    let request = TlsRequest {
        twin: None,
        peer: &peer,
        public_key: weak,
        dns_names: &[],
        addresses: &[],
        life: hours(1),
    };
    assert!(matches!(
        cluster.user_tls.issue(&request, serial(), NOW),
        Err(IssueError::SubjectKey(_))
    ));
}

#[test]
fn attack_14_every_byte_is_accounted_for() {
    let cluster = Cluster::example();
    let good = Forge::identity().sign(&cluster.signer(0));
    for cut in 0..good.len() {
        let verdict = cluster.verdict(Verifier::Identity, &good[..cut]);
        assert!(verdict.is_some(), "cut at {cut}");
    }
    let trailing = [good.as_slice(), &[0]].concat();
    assert_eq!(
        cluster.verdict(Verifier::Identity, &trailing),
        Some(VerifyError::TrailingBytes("certificate"))
    );
    assert_eq!(
        identity_with(|forge| forge.nonce.clear()),
        Some(VerifyError::Malformed("nonce"))
    );
    assert_eq!(
        identity_with(|forge| forge.signature_tail = vec![0]),
        Some(VerifyError::TrailingBytes("signature"))
    );
    let own = cluster.signer(0).public_key();
    let long = [string(b"ssh-ed25519"), string(&own), vec![0]].concat();
    assert_eq!(
        identity_with(|forge| forge.signature_key = Some(long)),
        Some(VerifyError::TrailingBytes("signature key"))
    );
    let packed = [
        string(b"source-address"),
        string(&[string(b"192.0.2.7"), vec![0]].concat()),
    ]
    .concat();
    assert_eq!(
        session_with(|forge| forge.critical_options = packed),
        Some(VerifyError::TrailingBytes("critical options"))
    );
    assert_eq!(
        identity_with(|forge| forge.principals.push(0)),
        Some(VerifyError::Malformed("valid principals"))
    );
    let der = [cluster.tls_certificate(PeerKind::User).to_vec(), vec![0]].concat();
    assert_eq!(
        cluster.verdict(Verifier::UserPeer, &der),
        Some(VerifyError::TrailingBytes("certificate"))
    );
}

#[test]
fn attack_14_lengths_are_not_believed() {
    let cluster = Cluster::example();
    let good = Forge::identity().sign(&cluster.signer(0));
    for length in [0_u32, 1 << 31, u32::MAX] {
        for at in 0..good.len() - 4 {
            let mut changed = good.clone();
            changed[at..at + 4].copy_from_slice(&length.to_be_bytes());
            let accepted = cluster.verdict(Verifier::Identity, &changed).is_none();
            assert!(!accepted || changed == good, "length {length} at {at}");
        }
    }
}

#[test]
fn attack_16_what_was_rotated_out_is_worth_nothing() {
    let mut cluster = Cluster::example();
    let old = cluster.identity_certificate().to_bytes().unwrap();
    let old_peer = cluster.tls_certificate(PeerKind::User);
    let next = Cluster::new("example", 50);
    // Both generations are trusted while rotation lasts.
    cluster.trust.identity.push(next.identity.public_key());
    cluster
        .trust
        .user_tls
        .push(next.user_tls.certificate().to_vec());
    let new = next.identity_certificate().to_bytes().unwrap();
    assert_eq!(cluster.verdict(Verifier::Identity, &old), None);
    assert_eq!(cluster.verdict(Verifier::Identity, &new), None);
    assert_eq!(cluster.verdict(Verifier::UserPeer, &old_peer), None);
    assert_eq!(
        cluster.verdict(Verifier::UserPeer, &next.tls_certificate(PeerKind::User)),
        None
    );
    // Then the old one goes.
    cluster.trust.identity.remove(0);
    cluster.trust.user_tls.remove(0);
    let verdict = cluster.verdict(Verifier::Identity, &old);
    assert!(
        matches!(verdict, Some(VerifyError::UnknownAuthority(_))),
        "{verdict:?}"
    );
    let verdict = cluster.verdict(Verifier::UserPeer, &old_peer);
    assert!(
        matches!(verdict, Some(VerifyError::UnknownAuthority(_))),
        "{verdict:?}"
    );
    assert_eq!(cluster.verdict(Verifier::Identity, &new), None);
}

#[test]
fn attack_17_what_the_caller_revoked_is_refused() {
    let cluster = Cluster::example();
    let certificate = cluster.identity_certificate().to_bytes().unwrap();
    let by_serial = |revoked: &verify::Revocable<'_>| revoked.serial == serial();
    let by_id = |revoked: &verify::Revocable<'_>| revoked.key_id.contains("user=alice");
    let by_key = |revoked: &verify::Revocable<'_>| revoked.key == public(100).key_data();
    let other = |revoked: &verify::Revocable<'_>| revoked.serial == Serial::from_u64(43);
    let verdict = |revoked| {
        Verifier::Identity.verdict(
            &certificate,
            &Context {
                revoked,
                ..cluster.context()
            },
        )
    };
    assert_eq!(verdict(&by_serial), Some(VerifyError::Revoked(serial())));
    assert_eq!(verdict(&by_id), Some(VerifyError::Revoked(serial())));
    assert_eq!(verdict(&by_key), Some(VerifyError::Revoked(serial())));
    assert_eq!(verdict(&other), None);
    let peer = cluster.tls_certificate(PeerKind::User);
    let context = Context {
        revoked: &by_serial,
        ..cluster.context()
    };
    assert_eq!(
        Verifier::UserPeer.verdict(&peer, &context),
        Some(VerifyError::Revoked(serial()))
    );
}

#[test]
fn attack_18_the_same_user_elsewhere_is_somebody_else() {
    let (here, there) = (Cluster::example(), Cluster::new("other", 50));
    let foreign = there.identity_certificate().to_bytes().unwrap();
    let verdict = here.verdict(Verifier::Identity, &foreign);
    assert!(
        matches!(verdict, Some(VerifyError::UnknownAuthority(_))),
        "{verdict:?}"
    );
    // Even where one key served both clusters, the name decides.
    let shared = Forge {
        principals: string(b"mezite:other:alice"),
        ..Forge::identity()
    };
    assert_eq!(
        here.verdict(Verifier::Identity, &shared.sign(&here.signer(0))),
        Some(VerifyError::WrongCluster {
            expected: "example".to_owned(),
            found: "other".to_owned()
        })
    );
}

#[test]
fn attack_73_nothing_shows_a_private_key() {
    let cluster = Cluster::example();
    let seed = format!("{:?}", [10_u8; 32]);
    let inner = seed.trim_matches(['[', ']']);
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        cluster.identity,
        cluster.session,
        cluster.gateway,
        cluster.node,
        cluster.user_tls,
        cluster.host_tls,
        key(10)
    );
    assert!(shown.contains("SoftwareKey(SHA256:"), "{shown}");
    assert!(
        !shown.contains(inner) && !shown.contains(&"0a".repeat(32)),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn attack_14_no_changed_byte_is_accepted(at in 0_usize..10_000, bits in 1_u8..) {
        let cluster = Cluster::example();
        for (verifier, good) in [
            (Verifier::Identity, cluster.identity_certificate().to_bytes().unwrap()),
            (Verifier::Session, cluster.session_certificate(&[]).to_bytes().unwrap()),
            (Verifier::UserPeer, cluster.tls_certificate(PeerKind::User).to_vec()),
        ] {
            let mut changed = good.clone();
            let length = changed.len();
            changed[at % length] ^= bits;
            prop_assert!(cluster.verdict(verifier, &changed).is_some(), "{:?} at {}", verifier, at % length);
        }
    }

    #[test]
    fn attack_14_no_bytes_make_a_verifier_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let cluster = Cluster::example();
        for verifier in Verifier::ALL {
            prop_assert!(cluster.verdict(verifier, &bytes).is_some());
        }
        prop_assert!(mezite_ca::pin(&bytes).is_err());
    }
}
