use mezite_api::error::Kind;
use mezite_auth::{Permit, Standing};
use mezite_core::{Span, UnixTime};
use serde_json::Value;

use crate::rig::{Rig, db1, session, ssh_key};

const OPS: &str = r"
kind: role
version: v1
metadata: { name: ops }
spec:
  options: { port_forwarding: true, max_sessions: 1 }
  allow: { node_labels: { env: prod }, logins: [deploy] }
";

async fn permit(rig: &Rig) -> Permit {
    let alice = rig.alice().await;
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    rig.auth
        .authorize(&alice, &db1(), &login, None, session(1))
        .await
        .unwrap()
}

fn ended(standing: Standing) -> String {
    match standing {
        Standing::Ended(why) => why,
        Standing::Allowed(permit) => panic!("still allowed: {permit:?}"),
    }
}

#[tokio::test]
async fn a_permit_gives_a_certificate_for_one_login_on_one_node() {
    let rig = Rig::new().await;
    let permit = permit(&rig).await;
    let certificate = rig.auth.issue_session(&permit, &ssh_key()).await.unwrap();
    assert_eq!(
        certificate.valid_principals(),
        [format!("mezite:{}:deploy", permit.node().id)]
    );
    assert_eq!(
        permit.deadline(),
        crate::rig::START.plus(Span::from_secs(12 * 3600))
    );
    assert_eq!(rig.events("access.granted").await.len(), 1);
    assert_eq!(rig.events("session.cert.issued").await.len(), 1);
    assert!(matches!(rig.auth.recheck(&permit), Standing::Allowed(_)));
}

#[tokio::test]
async fn a_denial_is_an_event_that_explains_itself() {
    let rig = Rig::new().await;
    let alice = rig.alice().await;
    rig.node("db1").await;
    let root = "root".parse().unwrap();
    let refusal = rig
        .auth
        .authorize(&alice, &db1(), &root, None, session(1))
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, Kind::Denied);
    let denied = rig.events("authz.denied").await;
    assert_eq!(
        denied[0]["id"],
        Value::from(refusal.event_id.unwrap().to_string())
    );
    let explained = rig
        .auth
        .explain(&rig.local, refusal.event_id.unwrap())
        .await
        .unwrap();
    assert!(explained.text.contains("access"), "{}", explained.text);
    assert!(
        refusal
            .to_string()
            .contains(&refusal.event_id.unwrap().to_string())
    );
}

#[tokio::test]
async fn attack_85_a_hidden_node_is_answered_like_none() {
    let rig = Rig::new().await;
    let password = rig.user("bob", &["auditor"], &[]).await;
    let bob = rig.verified(&rig.login("bob", &password).await.unwrap());
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let hidden = rig
        .auth
        .authorize(&bob, &db1(), &login, None, session(1))
        .await
        .unwrap_err();
    let absent = rig
        .auth
        .authorize(&bob, &"db2".parse().unwrap(), &login, None, session(2))
        .await
        .unwrap_err();
    assert_eq!(hidden.message.replace("db1", "db2"), absent.message);
    let subject = rig.auth.subject(&bob).unwrap();
    assert!(rig.auth.find_node(&subject, &db1()).is_err());
    assert!(rig.auth.nodes_seen_by(&subject).is_empty());
}

#[tokio::test]
async fn attack_38_every_lock_ends_a_running_session() {
    for (kind, name) in [
        ("user", "alice"),
        ("role", "access"),
        ("node", "db1"),
        ("login", "deploy"),
    ] {
        let rig = Rig::new().await;
        let permit = permit(&rig).await;
        let mut changes = rig.auth.changes();
        let lock = rig.lock(kind, name).await;
        assert!(changes.changed().await);
        assert_eq!(
            ended(rig.auth.recheck(&permit)),
            format!("{kind} {name} is locked: laptop lost")
        );
        rig.auth.remove(&rig.local, "lock", &lock).await.unwrap();
        assert!(matches!(rig.auth.recheck(&permit), Standing::Allowed(_)));
    }
}

#[tokio::test]
async fn attack_38_one_session_is_ended_by_name() {
    let rig = Rig::new().await;
    let permit = permit(&rig).await;
    let guard = rig.auth.track(&permit);
    assert_eq!(rig.auth.sessions(&rig.local).await.unwrap().len(), 1);
    rig.auth
        .end_session(&rig.local, session(1), String::new())
        .await
        .unwrap();
    assert!(ended(rig.auth.recheck(&permit)).contains("ended by an administrator"));
    drop(guard);
    assert!(rig.auth.sessions(&rig.local).await.unwrap().is_empty());
}

#[tokio::test]
async fn attack_38_a_role_edit_and_a_deleted_user_take_effect_at_once() {
    let rig = Rig::new().await;
    rig.auth.apply(&rig.local, OPS, true).await.unwrap();
    let password = rig.user("carol", &["ops"], &[]).await;
    let carol = rig.verified(&rig.login("carol", &password).await.unwrap());
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&carol, &db1(), &login, None, session(1))
        .await
        .unwrap();
    assert!(permit.obligations().port_forwarding);
    let stricter = OPS.replace("port_forwarding: true", "port_forwarding: false");
    rig.auth.apply(&rig.local, &stricter, false).await.unwrap();
    match rig.auth.recheck(&permit) {
        Standing::Allowed(now) => assert!(!now.obligations().port_forwarding),
        Standing::Ended(why) => panic!("{why}"),
    }
    let denying = OPS.replace("spec:", "spec:\n  deny: { logins: [deploy] }");
    rig.auth.apply(&rig.local, &denying, false).await.unwrap();
    ended(rig.auth.recheck(&permit));
    rig.auth.apply(&rig.local, OPS, false).await.unwrap();
    rig.auth.remove(&rig.local, "user", "carol").await.unwrap();
    assert!(ended(rig.auth.recheck(&permit)).contains("does not exist"));
}

#[tokio::test]
async fn sessions_are_counted_and_end_with_the_identity() {
    let rig = Rig::new().await;
    rig.auth.apply(&rig.local, OPS, true).await.unwrap();
    let password = rig.user("carol", &["ops"], &[]).await;
    let carol = rig.verified(&rig.login_for("carol", &password, 600).await.unwrap());
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&carol, &db1(), &login, None, session(1))
        .await
        .unwrap();
    let _guard = rig.auth.track(&permit);
    let second = rig
        .auth
        .authorize(&carol, &db1(), &login, None, session(2))
        .await
        .unwrap_err();
    assert!(second.message.contains("your roles allow 1"), "{second}");
    rig.clock
        .set(UnixTime::from_millis(permit.deadline().as_millis()));
    ended(rig.auth.recheck(&permit));
}

#[tokio::test]
async fn nothing_is_handed_out_that_could_not_be_recorded() {
    let rig = Rig::new().await;
    let alice = rig.alice().await;
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(1))
        .await
        .unwrap();
    rig.break_disk(true);
    let refused = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(2))
        .await
        .unwrap_err();
    assert_eq!((refused.kind, refused.event_id), (Kind::Unavailable, None));
    let error = rig
        .auth
        .issue_session(&permit, &ssh_key())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}
