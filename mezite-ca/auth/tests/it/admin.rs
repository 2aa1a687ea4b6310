use std::time::Duration;

use mezite_api::error::Kind;
use mezite_auth::{Actor, Auth, Error, Standing};

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

/// An actor with one role of these `rules`.
async fn holder(rig: &Rig, name: &str, rules: &str) -> Actor {
    let role = format!(
        "{{kind: role, version: v1, metadata: {{name: {name}-role}}, spec: {{allow: {{rules: [{rules}]}}}}}}"
    );
    rig.auth.apply(&rig.local, &role, true).await.unwrap();
    let password = rig.user(name, &[&format!("{name}-role")], &[]).await;
    let identity = rig.verified(&rig.login(name, &password).await.unwrap());
    Actor::user(rig.auth.subject(&identity).unwrap(), None)
}

/// The right for one kind, or to make new ones, is no right for another, however the kind is written.
#[tokio::test]
async fn attack_40_a_right_for_one_kind_is_none_for_another() {
    let rig = Rig::new().await;
    let maker = holder(&rig, "mel", "{resources: [role], verbs: [create]}").await;
    let spec = "version: v1, metadata: {name: eve}, spec: {}";
    let made = rig
        .auth
        .apply(&maker, &format!("{{kind: role, {spec}}}"), false)
        .await;
    assert!(made.unwrap().1);
    for (document, kind) in [
        // Another kind, and the same kind once it is there.
        (format!("{{kind: user, {spec}}}"), Kind::Denied),
        (format!("{{kind: role, {spec}}}"), Kind::Denied),
        (
            "{kind: role, version: v1, metadata: {name: admin}, spec: {}}".to_owned(),
            Kind::Denied,
        ),
        // Kinds that only look like the one that is allowed, and two at once.
        (format!("{{kind: Role, {spec}}}"), Kind::Invalid),
        (format!("{{kind: \"role \", {spec}}}"), Kind::Invalid),
        (format!("{{kind: \"r\u{3bf}le\", {spec}}}"), Kind::Invalid),
        (format!("{{kind: [role], {spec}}}"), Kind::Invalid),
        (format!("{{kind: role, kind: user, {spec}}}"), Kind::Invalid),
        (
            format!("{{kind: role, <<: {{kind: user}}, {spec}}}"),
            Kind::Invalid,
        ),
        (
            format!("kind: role\nversion: v1\nmetadata: {{name: a}}\n---\n{{kind: user, {spec}}}"),
            Kind::Invalid,
        ),
        // Other versions, earlier and later.
        (
            "{kind: role, version: v0, metadata: {name: b}, spec: {}}".to_owned(),
            Kind::Invalid,
        ),
        (
            "{kind: role, version: v2, metadata: {name: b}, spec: {}}".to_owned(),
            Kind::Invalid,
        ),
        (
            "{kind: role, metadata: {name: b}, spec: {}}".to_owned(),
            Kind::Invalid,
        ),
        // Fields that nobody may set, and names that are no names.
        (
            "{kind: role, version: v1, metadata: {name: b, revision: 1}, spec: {}}".to_owned(),
            Kind::Invalid,
        ),
        (
            "{kind: role, version: v1, metadata: {name: B}, spec: {}}".to_owned(),
            Kind::Invalid,
        ),
        (
            "{kind: role, version: v1, metadata: {name: ../user/a}, spec: {}}".to_owned(),
            Kind::Invalid,
        ),
    ] {
        let error = rig.auth.apply(&maker, &document, false).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{document}: {error}");
    }
    assert_eq!(rig.auth.snapshot().user_count(), 1);
    for (kind, name) in [
        ("Role", "eve"),
        ("roles", "eve"),
        ("role", "../user/mel"),
        ("user", "../role/eve"),
        ("user", "MEL"),
    ] {
        let read = rig.auth.resource(&rig.local, kind, name).await.unwrap_err();
        let gone = rig.auth.remove(&rig.local, kind, name).await.unwrap_err();
        for error in [read, gone] {
            assert!(
                matches!(error.kind(), Kind::Invalid | Kind::NotFound),
                "{kind} {name}: {error}"
            );
        }
    }
}

/// What somebody is, is nobody's own to change; and no document sets what only the hub knows.
#[tokio::test]
async fn attack_40_nobody_makes_more_of_themselves() {
    let rig = Rig::new().await;
    let own = "{resources: [user], verbs: [read, update, create], where: own}";
    let sam = holder(&rig, "sam", own).await;
    let shown = rig.auth.resource(&sam, "user", "sam").await.unwrap();
    let more = shown.document.to_string().replace("sam-role", "admin");
    assert_ne!(more, shown.document.to_string());
    let error = rig.auth.apply(&sam, &more, false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert_eq!(
        rig.auth.resource(&rig.local, "user", "sam").await.unwrap(),
        shown
    );

    rig.node("db1").await;
    let node = rig.auth.resource(&rig.local, "node", "db1").await.unwrap();
    let before = rig.everything_stored().await;
    for bad in [
        // A node's own document, given back with labels of another authority or another id.
        node.document.to_string(),
        node.document.to_string().replace("prod", "dev"),
        "{kind: node, version: v1, metadata: {name: w, id: a4dqobyha4dqobyha4dqobyha4}, spec: {kind: openssh, address: 'w:22'}}".to_owned(),
        "{kind: node, version: v1, metadata: {name: w}, spec: {kind: openssh, address: 'w:22', token_labels: {env: prod}}}".to_owned(),
        "{kind: node, version: v1, metadata: {name: w}, spec: {kind: openssh, address: 'w:22', agent_labels: {env: prod}}}".to_owned(),
        "{kind: node, version: v1, metadata: {name: w}, spec: {kind: OpenSSH, address: 'w:22'}}".to_owned(),
        "{kind: token, version: v1, metadata: {name: t}, spec: {expires: '2036-01-31T08:00:00.000Z'}}".to_owned(),
        "{kind: user, version: v1, metadata: {name: eve}, spec: {roles: [access], created_ms: 0}}".to_owned(),
        "{kind: user, version: v1, metadata: {name: eve}, spec: {}, password: x}".to_owned(),
        "{kind: lock, version: v1, metadata: {name: l}, spec: {target: {user: sam, role: admin}}}".to_owned(),
        "{kind: lock, version: v1, metadata: {name: l}, spec: {target: {User: sam}}}".to_owned(),
    ] {
        let error = rig.auth.apply(&rig.local, &bad, false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad}: {error}");
    }
    assert_eq!(
        rig.everything_stored().await,
        before,
        "nothing was changed, and nothing told"
    );
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
