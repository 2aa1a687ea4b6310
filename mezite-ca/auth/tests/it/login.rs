use mezite_api::error::Kind;
use mezite_auth::{Auth, Error, OpenError};
use mezite_ca::KeyKind;
use mezite_ca::seal::KeyFile;
use mezite_core::Span;
use std::sync::Arc;

use crate::rig::{Rig, settings};

#[tokio::test]
async fn a_right_password_gives_an_identity_for_the_asked_time() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &["deploy"]).await;
    let short = rig.login_for("alice", &password, 3600).await.unwrap();
    assert_eq!(
        short.valid_before,
        crate::rig::START.plus(Span::from_secs(3600))
    );
    let usual = rig.login("alice", &password).await.unwrap();
    assert_eq!(
        usual.valid_before,
        crate::rig::START.plus(Span::from_secs(12 * 3600))
    );
    let greedy = rig.login_for("alice", &password, 1_000_000).await.unwrap();
    assert_eq!(greedy.valid_before, usual.valid_before, "the ceiling holds");
    let verified = rig.verified(&usual);
    assert_eq!(verified.user().as_str(), "alice");
    assert_eq!(rig.auth.subject(&verified).unwrap().roles, usual.roles);
    assert_eq!(rig.events("user.login").await.len(), 3);
    assert_eq!(rig.events("user.cert.issued").await.len(), 6);
    let known_hosts = rig.auth.known_hosts().unwrap();
    assert!(
        known_hosts.starts_with("@cert-authority *.example,hub.example,[hub.example]:3023,"),
        "{known_hosts}"
    );
}

#[tokio::test]
async fn attack_85_unknown_user_and_wrong_password_are_one_answer() {
    let rig = Rig::new().await;
    rig.user("alice", &["access"], &[]).await;
    let wrong = rig.login("alice", "wrong").await.unwrap_err();
    let unknown = rig.login("mallory", "wrong").await.unwrap_err();
    let nobody = rig.login("No Such\nName", "wrong").await.unwrap_err();
    assert_eq!(
        (&wrong, &unknown),
        (&Error::Credentials, &Error::Credentials)
    );
    assert_eq!(nobody, Error::Credentials);
    let failed = rig.events("user.login.failed").await;
    let why: Vec<_> = failed
        .iter()
        .map(|event| event["error_message"].as_str().unwrap())
        .collect();
    assert_eq!(
        why,
        [
            "the password is wrong",
            "there is no such user",
            "there is no such user"
        ]
    );
}

#[tokio::test]
async fn a_lock_is_told_only_after_a_right_password() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &[]).await;
    rig.lock("user", "alice").await;
    assert_eq!(
        rig.login("alice", "wrong").await.unwrap_err(),
        Error::Credentials
    );
    let locked = rig.login("alice", &password).await.unwrap_err();
    assert_eq!(locked.to_string(), "user alice is locked: laptop lost");
    assert_eq!(locked.kind(), Kind::Denied);
    assert_eq!(rig.events("user.cert.issued").await.len(), 0);
}

#[tokio::test]
async fn a_wrong_clock_is_named_with_both_times() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &[]).await;
    let message = mezite_api::v1::LoginRequest {
        user: "alice".into(),
        password,
        ssh_public_key: crate::rig::ssh_key().to_openssh().unwrap(),
        tls_public_key: vec![9; 32],
        client_time_ms: crate::rig::START.plus(Span::from_secs(61)).as_millis(),
        ..mezite_api::v1::LoginRequest::default()
    };
    let error = rig
        .auth
        .login(message.try_into().unwrap(), None)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("2026-01-31T08:01:01.000Z") && text.contains("2026-01-31T08:00:00.000Z"),
        "{text}"
    );
    assert_eq!(rig.events("user.login.failed").await.len(), 1);
}

#[tokio::test]
async fn an_identity_ends() {
    let rig = Rig::new().await;
    let alice = rig.alice().await;
    rig.advance(Span::from_secs(12 * 3600));
    assert_eq!(
        rig.auth.subject(&alice),
        Err(Error::Expired(alice.valid_before()))
    );
}

#[tokio::test]
async fn no_identity_without_its_event() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &[]).await;
    rig.break_disk(true);
    let right = rig.login("alice", &password).await.unwrap_err();
    let wrong = rig.login("alice", "wrong").await.unwrap_err();
    assert_eq!(
        (right.kind(), wrong.kind()),
        (Kind::Unavailable, Kind::Unavailable)
    );
    assert!(
        !right.to_string().contains("space left"),
        "the hub's insides stay inside"
    );
    rig.break_disk(false);
    assert!(rig.events("user.cert.issued").await.is_empty());
}

#[tokio::test]
async fn a_second_start_opens_the_same_cluster_and_another_key_opens_nothing() {
    let rig = Rig::new().await;
    let again = Auth::open(
        rig.store.clone(),
        rig.clock.clone(),
        rig.sealer.clone(),
        settings(),
    )
    .await
    .unwrap();
    assert_eq!(again.trust(), rig.auth.trust());
    assert_eq!(rig.events("ca.created").await.len(), KeyKind::ALL.len());
    assert_eq!(rig.events("hub.started").await.len(), 2);
    let other = Arc::new(KeyFile::parse("77".repeat(32).as_bytes()).unwrap());
    let refused = Auth::open(rig.store.clone(), rig.clock.clone(), other, settings()).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("start the hub with the sealing key this database was made with"),
        "{text}"
    );
    let elsewhere = mezite_auth::Settings::new("other".parse().unwrap());
    let refused = Auth::open(
        rig.store.clone(),
        rig.clock.clone(),
        rig.sealer.clone(),
        elsewhere,
    )
    .await;
    assert!(
        matches!(refused, Err(OpenError::Cluster { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn attack_72_the_store_holds_no_secret() {
    let rig = Rig::new().await;
    let password = rig.user("alice", &["access"], &[]).await;
    let token = rig.token(&[]).await;
    rig.login("alice", &password).await.unwrap();
    let stored = rig.everything_stored().await;
    for secret in [&password, &token] {
        assert!(!stored.contains(secret.as_str()), "{secret} is stored");
    }
    for kind in ["user", "token"] {
        for shown in rig.auth.resources(&rig.local, kind).await.unwrap() {
            let text = shown.document.to_string();
            assert!(
                !text.contains("hash") && !text.contains("salt") && !text.contains(&token),
                "{text}"
            );
        }
    }
}
