//! What administrators change and take back is recorded, each as its own type.

use mezite_core::NodeId;
use serde_json::Value;

use crate::rig::{Rig, ssh_key};

async fn told(rig: &Rig, event_type: &str) -> Value {
    let mut found = rig.events(event_type).await;
    assert_eq!(found.len(), 1, "{event_type}: {found:?}");
    found.remove(0)
}

#[tokio::test]
async fn attack_57_what_is_changed_and_taken_back_is_recorded() {
    let rig = Rig::new().await;
    let role = |login: &str| {
        format!(
            "{{kind: role, version: v1, metadata: {{name: ops}}, spec: {{allow: {{logins: [{login}], node_labels: {{env: prod}}}}}}}}"
        )
    };
    rig.auth
        .apply(&rig.local, &role("root"), true)
        .await
        .unwrap();
    rig.auth
        .apply(&rig.local, &role("deploy"), false)
        .await
        .unwrap();
    let updated = told(&rig, "role.updated").await;
    assert_eq!(
        (&updated["resource_name"], &updated["user_name"]),
        (&"ops".into(), &"local:0".into())
    );
    assert!(
        updated["document"].as_str().unwrap().contains("deploy"),
        "{updated}"
    );
    let wanted = mezite_api::request::CreateToken::new(None, mezite_core::Labels::default(), None);
    let token = rig.auth.create_token(&rig.local, wanted).await.unwrap();
    rig.auth
        .remove(&rig.local, "token", &token.name)
        .await
        .unwrap();
    let deleted = told(&rig, "token.deleted").await;
    assert!(
        !deleted.to_string().contains(token.token.expose()),
        "{deleted}"
    );
    let lock = rig.lock("login", "root").await;
    rig.auth.remove(&rig.local, "lock", &lock).await.unwrap();
    assert_eq!(told(&rig, "lock.deleted").await["target_name"], "root");
}

#[tokio::test]
async fn attack_57_what_opens_nodes_without_a_hub_is_recorded() {
    let rig = Rig::new().await;
    let document = format!(
        "{{kind: break_glass, version: v1, metadata: {{name: night-shift}}, spec: {{public_key: {}}}}}",
        ssh_key().to_openssh().unwrap()
    );
    rig.auth.apply(&rig.local, &document, true).await.unwrap();
    rig.auth
        .remove(&rig.local, "break_glass", "night-shift")
        .await
        .unwrap();
    let (added, removed) = (
        told(&rig, "ca.break_glass.added").await,
        told(&rig, "ca.break_glass.removed").await,
    );
    assert_eq!(added["resource_name"], "night-shift");
    assert_eq!(
        added["public_key_fingerprint"],
        removed["public_key_fingerprint"]
    );
}

#[tokio::test]
async fn attack_57_agents_that_come_and_go_are_recorded() {
    let rig = Rig::new().await;
    let node = rig.node("db1").await;
    let presence = rig
        .auth
        .node_connected(&node.id, None, Some("0.1.0\u{1b}[2J"))
        .await
        .unwrap();
    rig.auth
        .node_disconnected(presence, "the connection ended")
        .await
        .unwrap();
    let connected = told(&rig, "node.connected").await;
    assert_eq!(connected["server_hostname"], "db1");
    assert_eq!(connected["agent_version"], "0.1.0\\u{1b}[2J");
    assert_eq!(
        told(&rig, "node.left").await["reason"],
        "the connection ended"
    );
    // Nobody is online who is not recorded.
    rig.break_disk(true);
    assert!(rig.auth.node_connected(&node.id, None, None).await.is_err());
    assert!(!rig.auth.is_online(&node.id));
    let nobody = NodeId::new([9; 16]);
    rig.break_disk(false);
    assert!(rig.auth.node_connected(&nobody, None, None).await.is_err());
}

/// Breaks lines, ends JSON, controls terminals, turns the reading direction, shows nothing.
const HOSTILE: &str = "x\r\n\"},{\"sequence\":1,\"y\":\"\u{1b}]0;owned\u{7}\u{202e}gpj\u{200b}\u{feff}\u{9b}31m\u{2028}";

#[tokio::test]
async fn attack_56_hostile_text_is_escaped_and_cut_on_every_way_into_the_log() {
    let rig = Rig::new().await;
    let huge = format!("{HOSTILE}{}", "a".repeat(10 * 1024 * 1024));
    // Names that strangers claim, in a login, over SSH, and for a node.
    assert!(rig.login(HOSTILE, "wrong").await.is_err());
    let refused = mezite_api::request::Login::try_from(mezite_api::v1::LoginRequest {
        user: huge.clone(),
        ssh_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: mezite_ca::Signer::public_key(&crate::rig::key()).to_vec(),
        ..Default::default()
    });
    assert!(refused.is_err(), "before any work");
    let token = rig.token(&[]).await;
    let hostile = mezite_api::v1::JoinRequest {
        token: token.clone(),
        node_name: HOSTILE.into(),
        host_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: mezite_ca::Signer::public_key(&crate::rig::key()).to_vec(),
        client_time_ms: crate::rig::START.as_millis(),
        ..Default::default()
    };
    assert!(
        mezite_api::request::Join::try_from(hostile).is_err(),
        "no such name comes in"
    );
    // What agents and operators say.
    let node = rig.node("db1").await;
    for version in [HOSTILE, &huge] {
        let presence = rig
            .auth
            .node_connected(&node.id, None, Some(version))
            .await
            .unwrap();
        rig.auth.node_disconnected(presence, version).await.unwrap();
    }
    let message = mezite_api::v1::CreateLockRequest {
        target_kind: "login".into(),
        target_name: "root".into(),
        reason: HOSTILE.into(),
        expires_ms: 0,
    };
    rig.auth
        .create_lock(&rig.local, message.try_into().unwrap())
        .await
        .unwrap();
    // Questions to the log.
    let query = mezite_core::store::LogQuery {
        event_type: Some(HOSTILE.into()),
        user_name: Some(HOSTILE.into()),
        ..mezite_core::store::LogQuery::after(0, 10)
    };
    assert!(rig.auth.events(&rig.local, query).await.unwrap().is_empty());
    let log = mezite_core::store::Store::log(
        &*rig.store,
        &mezite_core::store::LogQuery::after(0, 10_000),
    )
    .await
    .unwrap();
    let mut held = 0;
    for event in &log {
        assert!(event.body.len() <= mezite_core::event::MAX_BYTES);
        let text = String::from_utf8(event.body.clone()).unwrap();
        let odd = |c: char| c.is_control() || "\u{202e}\u{200b}\u{feff}\u{2028}".contains(c);
        assert!(!text.contains(odd), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["sequence"], event.sequence);
        held += usize::from(text.contains("owned"));
    }
    assert!(held >= 5, "the texts are there, as data: {held}");
    let failed = rig.events("user.login.failed").await;
    assert_eq!(failed[0]["user_name_escaped"], true);
    assert_eq!(
        rig.events("node.connected").await[1]["agent_version_bytes"],
        huge.len()
    );
}
