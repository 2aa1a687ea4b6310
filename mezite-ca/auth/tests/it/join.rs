use mezite_api::v1;
use mezite_auth::Error;
use mezite_core::Span;

use crate::rig::{Rig, db1, key, ssh_key};

#[tokio::test]
async fn attack_59_a_token_joins_one_node_once() {
    let rig = Rig::new().await;
    let token = rig.token(&[("env", "prod")]).await;
    let joined = rig
        .auth
        .join(&rig.join_request(&token, "db1"), None)
        .await
        .unwrap();
    assert_eq!(
        joined.host_certificate.valid_principals(),
        [format!("{}.example", joined.id)]
    );
    let again = rig.auth.join(&rig.join_request(&token, "db2"), None).await;
    assert_eq!(again.unwrap_err(), Error::TokenUsed);
    let guess = rig
        .auth
        .join(&rig.join_request("mzt-0000", "db2"), None)
        .await;
    assert_eq!(guess.unwrap_err(), Error::TokenUnknown);
    assert_eq!(rig.events("node.joined").await.len(), 1);
    assert_eq!(rig.events("node.join.failed").await.len(), 2);
}

#[tokio::test]
async fn attack_59_two_joins_at_once_make_one_node() {
    let rig = Rig::new().await;
    let token = rig.token(&[]).await;
    let (one, two) = (
        rig.join_request(&token, "db1"),
        rig.join_request(&token, "db2"),
    );
    let (one, two) = tokio::join!(rig.auth.join(&one, None), rig.auth.join(&two, None));
    assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1);
    assert_eq!(rig.auth.snapshot().nodes().count(), 1);
}

#[tokio::test]
async fn attack_59_a_token_expires_and_a_name_is_taken_once() {
    let rig = Rig::new().await;
    let (first, second) = (rig.token(&[]).await, rig.token(&[]).await);
    rig.auth
        .join(&rig.join_request(&first, "db1"), None)
        .await
        .unwrap();
    let taken = rig.auth.join(&rig.join_request(&second, "db1"), None).await;
    assert_eq!(taken.unwrap_err(), Error::NameTaken(db1()));
    let hub = rig.auth.join(&rig.join_request(&second, "hub"), None).await;
    assert!(matches!(hub, Err(Error::NameOfHub(_))), "{hub:?}");
    rig.advance(Span::from_secs(3600));
    let late = rig.auth.join(&rig.join_request(&second, "db2"), None).await;
    assert!(matches!(late, Err(Error::TokenExpired(_))), "{late:?}");
    assert_eq!(rig.events("node.join.failed").await.len(), 3);
}

#[tokio::test]
async fn attack_37_an_agent_cannot_set_what_the_token_set() {
    let rig = Rig::new().await;
    let joined = rig.node("db1").await;
    let snapshot = rig.auth.snapshot();
    let node = snapshot.node(&joined.id).unwrap();
    assert_eq!(node.labels.token.get("env"), Some("prod"));
    assert_eq!(node.labels.agent.get("env"), None);
    let renew = v1::RenewNodeRequest {
        host_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: mezite_ca::Signer::public_key(&key()).to_vec(),
        client_time_ms: crate::rig::START.as_millis(),
        labels: [("env".into(), "dev".into()), ("os".into(), "linux".into())].into(),
    };
    let renewed = rig
        .auth
        .renew_node(&joined.id, &renew.try_into().unwrap())
        .await
        .unwrap();
    assert_eq!(renewed.id, joined.id);
    let snapshot = rig.auth.snapshot();
    let node = snapshot.node(&joined.id).unwrap();
    assert_eq!(
        (node.labels.agent.get("env"), node.labels.agent.get("os")),
        (None, Some("linux"))
    );
}

#[tokio::test]
async fn a_node_is_not_made_when_nothing_can_be_recorded() {
    let rig = Rig::new().await;
    let token = rig.token(&[]).await;
    rig.break_disk(true);
    assert!(matches!(
        rig.auth.join(&rig.join_request(&token, "db1"), None).await,
        Err(Error::Unavailable(_))
    ));
    rig.break_disk(false);
    rig.auth
        .join(&rig.join_request(&token, "db1"), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn presence_lasts_as_long_as_the_connection() {
    let rig = Rig::new().await;
    let joined = rig.node("db1").await;
    let presence = rig
        .auth
        .node_connected(&joined.id, None, Some("0.1.0"))
        .await
        .unwrap();
    assert!(rig.auth.is_online(&joined.id));
    rig.auth
        .node_disconnected(presence, "connection lost")
        .await
        .unwrap();
    assert!(!rig.auth.is_online(&joined.id));
    assert_eq!(
        rig.events("node.left").await[0]["reason"],
        "connection lost"
    );
}

#[tokio::test]
async fn a_removed_node_is_gone_and_its_name_free() {
    let rig = Rig::new().await;
    let joined = rig.node("db1").await;
    rig.auth.remove(&rig.local, "node", "db1").await.unwrap();
    assert!(
        rig.auth
            .node_connected(&joined.id, None, None)
            .await
            .is_err()
    );
    assert_ne!(rig.node("db1").await.id, joined.id);
}
