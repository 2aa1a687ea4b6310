use std::time::Duration;

use mezite_api::error::Kind;
use mezite_auth::{Auth, Error, Standing};

use crate::rig::{Rig, db1, session, settings};

#[tokio::test]
async fn attack_40_documents_say_one_thing_exactly() {
    let rig = Rig::new().await;
    for bad in [
        "",
        "[1]",
        "kind: user",
        "{kind: User, version: v1, metadata: {name: eve}, spec: {}}",
        "{kind: ca, version: v1, metadata: {name: eve}, spec: {}}",
        "{kind: user, version: v0, metadata: {name: eve}, spec: {}}",
        "{kind: user, version: v1, metadata: {name: Eve}, spec: {}}",
        "{kind: user, version: v1, metadata: {name: eve}, spec: {password: x}}",
        "{kind: user, kind: role, version: v1, metadata: {name: eve}, spec: {}}",
        "{kind: lock, version: v1, metadata: {name: a}, spec: {target: {user: eve}, expires: tomorrow}}",
        "{kind: role, version: v1, metadata: {name: a}, spec: {alow: {}}}",
        "{kind: node, version: v1, metadata: {name: a}, spec: {kind: openssh, address: nowhere}}",
    ] {
        let error = rig.auth.apply(&rig.local, bad, false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad}: {error}");
    }
    let unknown_role = "{kind: user, version: v1, metadata: {name: eve}, spec: {roles: [ghost]}}";
    let error = rig
        .auth
        .apply(&rig.local, unknown_role, false)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "there is no role `ghost`");
    assert!(rig.events("user.").await.is_empty() && rig.events("lock.").await.is_empty());
}

#[tokio::test]
async fn a_document_comes_back_as_it_was_given_and_keeps_the_password() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &["deploy"]).await;
    let given = rig
        .auth
        .resource(&rig.local, "user", "alice")
        .await
        .unwrap();
    let (again, created) = rig
        .auth
        .apply(&rig.local, &given.document.to_string(), false)
        .await
        .unwrap();
    assert_eq!((again, created), (given.clone(), false));
    rig.login("alice", &password).await.unwrap();
    let refused = rig
        .auth
        .apply(&rig.local, &given.document.to_string(), true)
        .await;
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
}

#[tokio::test]
async fn built_in_roles_stay() {
    let rig = Rig::new().await;
    let refused = rig.auth.remove(&rig.local, "role", "admin").await;
    assert!(matches!(refused, Err(Error::Unfit(_))), "{refused:?}");
    let emptied = "{kind: role, version: v1, metadata: {name: admin}, spec: {}}";
    rig.auth.apply(&rig.local, emptied, false).await.unwrap();
    rig.user("alice", &["access"], &[]).await;
}

#[tokio::test]
async fn attack_38_a_lock_made_at_one_hub_ends_sessions_at_another() {
    let rig = Rig::new().await;
    let alice = rig.alice().await;
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(1))
        .await
        .unwrap();
    let other = Auth::open(
        rig.store.clone(),
        rig.clock.clone(),
        rig.sealer.clone(),
        settings(),
    )
    .await
    .unwrap();
    let mut changes = rig.auth.changes();
    let lock = "{kind: lock, version: v1, metadata: {name: lost}, spec: {target: {user: alice}}}";
    other.apply(&rig.local, lock, true).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
    assert!(told.unwrap());
    assert!(matches!(rig.auth.recheck(&permit), Standing::Ended(_)));
}

#[tokio::test]
async fn a_stock_sshd_gets_its_lines_and_its_certificate() {
    let rig = Rig::new().await;
    let add = mezite_api::v1::AddOpenSshNodeRequest {
        name: "web1".into(),
        address: "10.0.0.5:22".into(),
        ..Default::default()
    };
    let added = rig
        .auth
        .add_openssh_node(&rig.local, add.try_into().unwrap())
        .await
        .unwrap();
    assert!(
        added
            .sshd_lines
            .contains(&format!("mezite:{}:%u", added.node.id))
    );
    assert!(added.user_ca.starts_with("ssh-ed25519 "));
    let sign = mezite_api::v1::SignHostRequest {
        node: "web1".into(),
        public_key: crate::rig::ssh_key().to_openssh().unwrap(),
        ttl_seconds: 0,
    };
    let certificate = rig
        .auth
        .sign_host(&rig.local, &sign.try_into().unwrap())
        .await
        .unwrap();
    assert_eq!(
        certificate.valid_principals(),
        [format!("{}.example", added.node.id)]
    );
    assert_eq!(rig.events("node.created").await.len(), 1);
}
