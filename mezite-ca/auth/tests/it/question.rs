//! Questions to the rules through the real service.

use std::sync::Arc;

use mezite_api::error::Kind;
use mezite_api::v1::hub_client::HubClient;
use mezite_api::{request, v1};
use mezite_auth::NoRecordings;
use mezite_auth::grpc::{self, Caller};
use mezite_rbac::Reason;
use serde_json::Value;
use tonic::{Code, Request};

use crate::rig::{Rig, db1, session};

const OPS: &str = r#"
kind: role
version: v1
metadata: { name: ops }
spec:
  options: { source_networks: ["10.0.0.0/8"], file_copy: true }
  allow: { node_labels: { env: prod }, logins: [deploy, postgres] }
  deny: { logins: [root] }
"#;

async fn furnished() -> Rig {
    let rig = Rig::new().await;
    rig.auth.apply(&rig.local, OPS, false).await.unwrap();
    rig.user("alice", &["ops"], &[]).await;
    rig.user("bob", &["access"], &["root"]).await;
    rig.user("carol", &["auditor"], &[]).await;
    rig.node("db1").await;
    rig
}

fn asked(user: &str, login: &str, action: &str, from: &str) -> request::Can {
    let message = v1::CanRequest {
        user: user.into(),
        login: login.into(),
        node: "db1".into(),
        action: action.into(),
        client_ip: from.into(),
    };
    message.try_into().unwrap()
}

fn local<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::Local { uid: 0 });
    request
}

#[tokio::test]
async fn may_somebody_and_why() {
    let rig = furnished().await;
    for (user, login, action, from, allowed, said) in [
        (
            "alice",
            "deploy",
            "",
            "",
            true,
            "decided by role ops: allow",
        ),
        (
            "alice",
            "deploy",
            "sftp",
            "10.1.1.1",
            true,
            "source_networks [\"10.0.0.0/8\"]",
        ),
        (
            "alice",
            "deploy",
            "port-forwarding",
            "",
            false,
            "do not permit port-forwarding",
        ),
        (
            "alice",
            "deploy",
            "",
            "192.0.2.1",
            false,
            "decided by role ops: options.source_networks",
        ),
        (
            "alice",
            "root",
            "",
            "",
            false,
            "decided by role ops: deny.logins",
        ),
        ("alice", "www", "", "", false, "denied, no role allows it"),
        ("bob", "root", "", "", true, "decided by role access: allow"),
        ("carol", "root", "", "", false, "denied, no role allows it"),
    ] {
        let asked = asked(user, login, action, from);
        let answer = rig.auth.can(&rig.local, &asked).await.unwrap();
        assert_eq!(answer.allowed, allowed, "{}", answer.text);
        assert!(
            answer.text.contains(said),
            "no `{said}` in\n{}",
            answer.text
        );
        assert_eq!(answer.json["allowed"], Value::from(allowed));
        assert_eq!(answer.json["user"], Value::from(user));
    }
    assert_eq!(rig.events("policy.read").await.len(), 8);
}

/// What is answered is what the gateway's decision is: for each of these, and under each lock.
#[tokio::test]
async fn an_answer_is_what_the_gateway_would_decide() {
    let rig = Rig::new().await;
    rig.auth.apply(&rig.local, OPS, false).await.unwrap();
    let password = rig
        .user("alice", &["access", "ops"], &["deploy", "root"])
        .await;
    let alice = rig.verified(&rig.login("alice", &password).await.unwrap());
    rig.node("db1").await;
    let mut number = 0;
    for lock in [None, Some(("login", "deploy")), Some(("node", "db1"))] {
        if let Some((kind, name)) = lock {
            rig.lock(kind, name).await;
        }
        for login in ["deploy", "postgres", "root", "www"] {
            for from in ["10.1.1.1", "192.0.2.1"] {
                let asked = asked("alice", login, "", from);
                let answer = rig.auth.can(&rig.local, &asked).await.unwrap();
                number += 1;
                let (node, from) = (db1(), asked.client_ip);
                let decided =
                    rig.auth
                        .authorize(&alice, &node, &asked.login, from, session(number));
                let decided = decided.await;
                assert_eq!(answer.allowed, decided.is_ok(), "{lock:?}\n{}", answer.text);
            }
        }
    }
}

#[tokio::test]
async fn a_lock_is_named_though_the_rules_allow() {
    let rig = furnished().await;
    rig.lock("user", "bob").await;
    let answer = rig
        .auth
        .can(&rig.local, &asked("bob", "root", "", ""))
        .await;
    let answer = answer.unwrap();
    assert!(!answer.allowed);
    assert!(
        answer.text.contains("user bob is locked: laptop lost"),
        "{}",
        answer.text
    );
    assert!(answer.text.contains("allowed"), "{}", answer.text);
}

#[tokio::test]
async fn who_is_not_there_is_said() {
    let rig = furnished().await;
    let error = rig
        .auth
        .can(&rig.local, &asked("eve", "root", "", ""))
        .await;
    assert_eq!(error.unwrap_err().to_string(), "there is no user `eve`");
    let error = rig
        .auth
        .can(&rig.local, &asked("bob", "root", "dance", ""))
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(
        error.to_string().contains("agent-forwarding, exec"),
        "{error}"
    );
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), Arc::new(NoRecordings)));
    for message in [
        v1::WhoCanRequest {
            user: "eve".into(),
            ..Default::default()
        },
        v1::WhoCanRequest {
            node: "db9".into(),
            ..Default::default()
        },
    ] {
        let status = hub.who_can(local(message)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
}

async fn who_can(rig: &Rig, message: v1::WhoCanRequest) -> Vec<(String, String)> {
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), Arc::new(NoRecordings)));
    let mut answers = hub.who_can(local(message)).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(one) = answers.message().await.unwrap() {
        found.push((
            one.user,
            format!("{} on {}", one.logins.join(","), one.nodes.join(",")),
        ));
    }
    found
}

#[tokio::test]
async fn who_can_is_asked_both_ways() {
    let rig = furnished().await;
    rig.node("db2").await;
    let pair = |user: &str, reach: &str| (user.to_owned(), reach.to_owned());
    let all = who_can(&rig, v1::WhoCanRequest::default()).await;
    let both = [
        pair("alice", "deploy,postgres on db1,db2"),
        pair("bob", "root on db1,db2"),
    ];
    assert_eq!(all, both);
    let root = v1::WhoCanRequest {
        login: "root".into(),
        node: "db1".into(),
        ..Default::default()
    };
    assert_eq!(who_can(&rig, root).await, [pair("bob", "root on db1")]);
    let alice = v1::WhoCanRequest {
        user: "alice".into(),
        ..Default::default()
    };
    assert_eq!(
        who_can(&rig, alice).await,
        [pair("alice", "deploy,postgres on db1,db2")]
    );
    let carol = v1::WhoCanRequest {
        user: "carol".into(),
        ..Default::default()
    };
    assert_eq!(who_can(&rig, carol).await, []);
}

async fn diff(rig: &Rig, text: &str, removed: &[&str]) -> Result<String, tonic::Status> {
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), Arc::new(NoRecordings)));
    let file = v1::RoleFile {
        name: "new.yaml".into(),
        text: text.into(),
    };
    let message = v1::DiffRolesRequest {
        files: if text.is_empty() {
            Vec::new()
        } else {
            vec![file]
        },
        removed: removed.iter().map(ToString::to_string).collect(),
    };
    let mut answers = hub.diff_roles(local(message)).await?.into_inner();
    let mut found = Vec::new();
    while let Some(one) = answers.message().await? {
        serde_json::from_str::<Value>(&one.change).unwrap();
        found.push(one.text);
    }
    Ok(found.join("\n"))
}

#[tokio::test]
async fn a_change_is_told_before_it_is_made() {
    let rig = furnished().await;
    assert_eq!(diff(&rig, OPS, &[]).await.unwrap(), "");
    let wider = OPS.replace("[deploy, postgres]", "[deploy, www]");
    assert_eq!(
        diff(&rig, &wider, &[]).await.unwrap(),
        "alice\n  + www on db1\n  - postgres on db1"
    );
    let gone = diff(&rig, "", &["ops"]).await.unwrap();
    assert!(gone.starts_with("alice\n  ! role ops is gone"), "{gone}");
    assert!(gone.contains("- deploy, postgres on db1"), "{gone}");
    // Nothing has changed by asking.
    let still = rig
        .auth
        .can(&rig.local, &asked("alice", "postgres", "", ""))
        .await;
    assert!(still.unwrap().allowed);

    let misspelt = OPS.replace("logins: [deploy", "login: [deploy");
    let status = diff(&rig, &misspelt, &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("new.yaml:7:"), "{status}");
    let status = diff(&rig, "", &["ghost"]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let status = diff(&rig, "", &["admin"]).await.unwrap_err();
    assert_eq!(status.message(), "the role `admin` is built in and stays");
    let twice = format!("{OPS}---\n{OPS}");
    let status = diff(&rig, &twice, &[]).await.unwrap_err();
    assert!(status.message().contains("two roles `ops`"), "{status}");
}

#[tokio::test]
async fn what_looks_odd_is_seen_with_users_and_nodes() {
    let rig = furnished().await;
    let odd = "{kind: role, version: v1, metadata: {name: odd}, spec: {allow: {node_labels: {'*': '*'}, logins: [root]}}}";
    rig.auth.apply(&rig.local, odd, false).await.unwrap();
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), Arc::new(NoRecordings)));
    let lints = hub
        .lint_roles(local(v1::LintRolesRequest {}))
        .await
        .unwrap();
    let lints = lints.into_inner().lints;
    let about = |concern: &str| {
        lints
            .iter()
            .find(|lint| lint.role == "odd" && lint.concern == concern)
    };
    assert!(about("root_everywhere").unwrap().warning, "{lints:?}");
    assert!(!about("unused").unwrap().warning, "{lints:?}");
}

#[tokio::test]
async fn an_event_of_a_session_is_explained_by_what_let_it_begin() {
    let rig = Rig::new().await;
    let alice = rig.alice().await;
    rig.node("db1").await;
    let login = "deploy".parse().unwrap();
    let permit = rig
        .auth
        .authorize(&alice, &db1(), &login, None, session(1))
        .await
        .unwrap();
    let certificate = rig
        .auth
        .issue_session(&permit, &crate::rig::ssh_key())
        .await;
    certificate.unwrap();
    for event_type in ["access.granted", "session.cert.issued"] {
        let event = rig.events(event_type).await.remove(0);
        let id = event["id"].as_str().unwrap().parse().unwrap();
        let explained = rig.auth.explain(&rig.local, id).await.unwrap();
        assert!(
            explained.text.contains("decided by role access: allow"),
            "{}",
            explained.text
        );
        assert_eq!(explained.json["decided_by"][0], "role access: allow");
        assert_eq!(explained.json["event"]["event_type"], event_type);
    }
    let nothing = rig.events("hub.started").await.remove(0);
    let id = nothing["id"].as_str().unwrap().parse().unwrap();
    let explained = rig.auth.explain(&rig.local, id).await.unwrap();
    assert!(
        explained.text.contains("no decision of the rules"),
        "{}",
        explained.text
    );
}

/// Five typical refusals: each says what was asked, that it was refused, and whom to ask; none says which rules there are.
#[tokio::test]
async fn a_refused_user_hears_what_and_whom_to_ask_and_nothing_of_the_rules() {
    let rig = Rig::new().await;
    rig.auth.apply(&rig.local, OPS, false).await.unwrap();
    let password = rig.user("alice", &["ops"], &[]).await;
    let alice = rig.verified(&rig.login("alice", &password).await.unwrap());
    let password = rig.user("carol", &["auditor"], &[]).await;
    let carol = rig.verified(&rig.login("carol", &password).await.unwrap());
    rig.node("db1").await;
    let refused = async |identity, login: &str, from: &str, number| {
        let login = login.parse().unwrap();
        let from = Some(from.parse().unwrap());
        let node = db1();
        let answer = rig
            .auth
            .authorize(identity, &node, &login, from, session(number));
        answer.await.unwrap_err()
    };
    let inside = "10.1.1.1";
    let not_yours = "your roles do not allow this login on this node";
    for (refusal, said) in [
        (
            refused(&alice, "www", inside, 1).await,
            format!("you may not log in to db1 as www: {not_yours}"),
        ),
        (
            refused(&alice, "root", inside, 2).await,
            format!("you may not log in to db1 as root: {not_yours}"),
        ),
        (
            refused(&alice, "deploy", "192.0.2.1", 3).await,
            "you may not log in to db1 as deploy: your roles do not allow this from your network"
                .to_owned(),
        ),
        (
            refused(&carol, "deploy", inside, 4).await,
            "there is no node `db1` that you may see".to_owned(),
        ),
        (
            {
                rig.lock("login", "deploy").await;
                refused(&alice, "deploy", inside, 5).await
            },
            "you may not log in to db1 as deploy: login deploy is locked: laptop lost".to_owned(),
        ),
    ] {
        let id = refusal.event_id.unwrap();
        let advice =
            format!("{said}; ask an administrator, who sees why with `mezctl explain {id}`");
        assert_eq!(refusal.to_string(), advice);
        for secret in ["ops", "auditor", "env", "prod", "deny", "10.0.0.0"] {
            let told = refusal.to_string().replace(&id.to_string(), "");
            assert!(!told.contains(secret), "`{secret}` in {told}");
        }
    }
    assert_eq!(Reason::Denied.to_string(), Reason::NotAllowed.to_string());
}
