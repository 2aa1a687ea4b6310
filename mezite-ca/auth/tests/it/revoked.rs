//! Revocation: what is on the list ends at once, and its twin with it.

use mezite_auth::{Error, Standing};
use mezite_ca::krl::Krl;
use mezite_ca::verify::{self, Context};
use mezite_ca::{PeerKind, Signer, openssh};
use mezite_core::NodeId;
use serde_json::{Value, json};

use crate::rig::{Rig, db1, session, ssh_key};

async fn revoke(rig: &Rig, revoked: Value) -> Result<String, Error> {
    let document = json!({
        "kind": "revocation", "version": "v1", "metadata": {},
        "spec": { "revoked": revoked, "reason": "laptop lost" },
    });
    let (shown, created) = rig
        .auth
        .apply(&rig.local, &document.to_string(), true)
        .await?;
    assert!(created);
    Ok(shown.name)
}

fn fingerprint(key: &ssh_key::PublicKey) -> String {
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

/// Every way to name one identity: session, subject, API and list all refuse it, and again let it in afterwards.
#[tokio::test]
async fn attack_17_a_revoked_identity_is_nobody_and_nor_is_its_tls_twin() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &["deploy"]).await;
    let held = rig.login("alice", &password).await.unwrap();
    let identity = rig.verified(&held);
    let peer = rig.peer(&held.tls_chain, PeerKind::User);
    assert_eq!(identity.serial(), peer.serial());
    assert_eq!(
        peer.twin().unwrap(),
        fingerprint(identity.public_key()),
        "the TLS certificate names its twin"
    );
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&identity, &db1(), &login, None, session(1))
        .await
        .unwrap();
    let other = rig.login("alice", &password).await.unwrap();
    let other = (
        rig.verified(&other),
        rig.peer(&other.tls_chain, PeerKind::User),
    );
    let key = identity.public_key().to_openssh().unwrap();
    let authority = fingerprint(&rig.auth.trust().identity[0]);
    for (revoked, all) in [
        (json!({ "serial": identity.serial().to_string() }), false),
        (json!({ "key": key }), false),
        (
            json!({ "fingerprint": fingerprint(identity.public_key()) }),
            false,
        ),
        (json!({ "key_id": identity.key_id() }), true),
    ] {
        let mut changes = rig.auth.changes();
        let before = rig.auth.revocation_list().unwrap();
        let id = revoke(&rig, revoked.clone()).await.unwrap();
        assert!(changes.changed().await, "running sessions hear of it");
        let list = rig.auth.revocation_list().unwrap();
        assert_eq!(list.number, before.number + 1);
        assert_ne!(list.digest, before.digest);
        let read = Krl::parse(&list.bytes).unwrap();
        assert!(read.revokes(&identity.revocable()), "{revoked}");
        assert!(
            matches!(rig.auth.recheck(&permit), Standing::Ended(why) if why.contains("revoked"))
        );
        assert!(matches!(
            rig.auth.subject(&identity),
            Err(Error::Revoked(_))
        ));
        assert!(rig.auth.is_peer_revoked(&peer), "{revoked}");
        let trust = rig.auth.trust();
        let context = Context {
            trust: &trust,
            now: crate::rig::START,
            source: None,
            revoked: &|certificate| rig.auth.is_revoked(certificate),
        };
        let shown = held.ssh_certificate.to_bytes().unwrap();
        assert!(matches!(
            verify::identity(&shown, &context),
            Err(verify::VerifyError::Revoked(_))
        ));
        assert_eq!(rig.auth.is_revoked(&other.0.revocable()), all, "{revoked}");
        assert_eq!(rig.auth.is_peer_revoked(&other.1), all, "{revoked}");
        // Once is enough.
        assert!(matches!(
            revoke(&rig, revoked.clone()).await,
            Err(Error::Exists { name, .. }) if name == id
        ));
        rig.auth
            .remove(&rig.local, "revocation", &id)
            .await
            .unwrap();
        assert!(!rig.auth.is_peer_revoked(&peer), "{revoked}");
        assert!(matches!(rig.auth.recheck(&permit), Standing::Allowed(_)));
        assert_eq!(
            rig.auth.revocation_list().unwrap().number,
            before.number + 2
        );
    }
    // The TLS certificate alone, by its own key.
    let tls = openssh::public_key(*peer.public_key());
    revoke(&rig, json!({ "key": tls.to_openssh().unwrap() }))
        .await
        .unwrap();
    assert!(rig.auth.is_peer_revoked(&peer) && !rig.auth.is_revoked(&identity.revocable()));
    // An authority is revoked by that name only, and then it issues nothing.
    let careless = revoke(&rig, json!({ "fingerprint": authority })).await;
    assert!(matches!(&careless, Err(Error::Unfit(why)) if why.contains("--authority")));
    revoke(&rig, json!({ "authority": authority }))
        .await
        .unwrap();
    assert!(rig.auth.is_revoked(&other.0.revocable()));
    assert!(matches!(
        rig.login("alice", &password).await,
        Err(Error::Uncertifiable(_))
    ));
    assert_eq!(rig.events("ca.revoked").await.len(), 6);
    assert_eq!(rig.events("ca.revocation.removed").await.len(), 4);
}

#[tokio::test]
async fn a_revoked_node_is_nobody_and_gets_nothing_new() {
    let rig = Rig::new().await;
    let token = rig.token(&[]).await;
    let join = rig.join_request(&token, "db1");
    let host = join.host_public_key.to_openssh().unwrap();
    let node = rig.auth.join(&join, None).await.unwrap();
    let peer = rig.peer(&node.tls_chain, PeerKind::Node);
    assert_eq!(peer.serial().as_u64(), node.host_certificate.serial());
    let renewal = |join: &mezite_api::request::Join| {
        mezite_api::request::RenewNode::new(
            join.host_public_key.clone(),
            join.tls_public_key,
            crate::rig::START,
            mezite_core::Labels::default(),
        )
    };
    let id: NodeId = node.id.clone();
    rig.auth.renew_node(&id, &renewal(&join)).await.unwrap();
    revoke(&rig, json!({ "key": host })).await.unwrap();
    assert!(rig.auth.is_peer_revoked(&peer));
    assert!(matches!(
        rig.auth.renew_node(&id, &renewal(&join)).await,
        Err(Error::Uncertifiable(_))
    ));
}

#[tokio::test]
async fn attack_17_what_cannot_be_recorded_is_not_revoked_and_nothing_odd_is_taken() {
    let rig = Rig::new().await;
    rig.break_disk(true);
    let lost = revoke(&rig, json!({ "serial": "7" })).await;
    assert!(matches!(lost, Err(Error::Unavailable(_))), "{lost:?}");
    rig.break_disk(false);
    assert_eq!(rig.auth.revocation_list().unwrap().number, 0);
    for odd in [
        json!({ "serial": "0" }),
        json!({ "serial": "9-1" }),
        json!({ "key": "ssh-rsa x" }),
        json!({ "key_id": "" }),
        json!({ "planet": "x" }),
        json!({}),
    ] {
        let refused = revoke(&rig, odd.clone()).await;
        assert!(
            matches!(refused, Err(Error::Document(_))),
            "{odd}: {refused:?}"
        );
    }
    // Whatever was revoked before is revoked at the next start, and on every other hub.
    let key = ssh_key();
    revoke(&rig, json!({ "key": key.to_openssh().unwrap() }))
        .await
        .unwrap();
    let again = mezite_auth::Auth::open(
        rig.store.clone(),
        rig.clock.clone(),
        rig.sealer.clone(),
        crate::rig::settings(),
    )
    .await
    .unwrap();
    assert_eq!(
        again.revocation_list().unwrap(),
        rig.auth.revocation_list().unwrap()
    );
    let list = Krl::parse(&again.revocation_list().unwrap().bytes).unwrap();
    assert!(list.revokes_key(key.key_data()));
    assert!(!list.revokes_key(openssh::public_key(crate::rig::key().public_key()).key_data()));
}
