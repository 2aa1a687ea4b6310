//! Texts that are too long for an event: beside it, with it, and gone with it.

use std::collections::BTreeMap;

use mezite_api::v1;
use mezite_audit::bundle::Check;
use mezite_audit::catalogue::SessionExec;
use mezite_auth::{Error, LogRetention, Settings};
use mezite_core::event::MAX_TEXT_BYTES;
use mezite_core::store::{Commit, Expect, Store};
use mezite_core::{EventId, NodeId, Span};
use tokio_stream::StreamExt;
use tonic::Request;

use crate::audit_key::{exporting, verified, verified_export};
use crate::rig::{Rig, START, db1, session, settings};

/// Reports that alice has run `command`.
async fn ran(rig: &Rig, command: &str) -> Result<EventId, Error> {
    let (user, login) = ("alice".parse().unwrap(), "deploy".parse().unwrap());
    let report = rig.auth.report(|stamp| {
        let exec = SessionExec {
            user_name: &user,
            session_id: session(1),
            server_id: &NodeId::new([2; 16]),
            server_hostname: &db1(),
            login: &login,
            client_ip: None,
            channel: 0,
            command,
            pty: false,
        };
        exec.event(stamp)
    });
    report.await
}

async fn listed(rig: &Rig) -> v1::ListEventsResponse {
    let mut request = Request::new(v1::ListEventsRequest {
        event_type: "session.exec".into(),
        texts: true,
        ..Default::default()
    });
    request
        .extensions_mut()
        .insert(mezite_auth::grpc::Caller::Local { uid: 0 });
    let answer = rig.client().list_events(request).await;
    answer.unwrap().into_inner()
}

async fn rows(rig: &Rig) -> usize {
    rig.store.list("log/text/", None, 100).await.unwrap().len()
}

fn script(bytes: usize) -> String {
    format!("# {}\necho \u{1b}[2J", "x".repeat(bytes))
}

/// A hub that keeps commands for a day.
async fn forgetful() -> Rig {
    let day = Span::from_secs(86_400);
    Rig::with_settings(Settings {
        log_retention: LogRetention {
            default: None,
            types: BTreeMap::from([("session.exec".to_owned(), Some(day))]),
        },
        ..settings()
    })
    .await
}

#[tokio::test]
async fn a_command_that_is_too_long_for_its_event_is_whole_beside_it_and_goes_with_it() {
    let rig = forgetful().await;
    ran(&rig, "true").await.unwrap();
    ran(&rig, &script(40_000)).await.unwrap();
    assert_eq!(rows(&rig).await, 1);
    let answer = listed(&rig).await;
    assert_eq!((answer.events.len(), answer.texts.len()), (2, 1));
    assert_eq!(answer.texts[0].text, script(40_000), "as it was sent");
    verified_export(&rig.auth).await.unwrap();
    rig.advance(Span::from_secs(2 * 86_400));
    rig.auth.prune_log(&rig.local, false).await.unwrap();
    assert_eq!(rows(&rig).await, 0);
    verified_export(&rig.auth).await.unwrap();
}

#[tokio::test]
async fn an_export_verifies_although_what_it_gives_out_is_pruned_at_the_same_time() {
    let rig = forgetful().await;
    for _ in 0..200 {
        ran(&rig, &script(20_000)).await.unwrap();
    }
    // So that there is something behind the gap.
    rig.user("bob", &["access"], &[]).await;
    let mut items = exporting(&rig.auth).await;
    let mut parts = Vec::new();
    while parts.len() < 20 {
        parts.push(items.next().await.unwrap());
    }
    rig.advance(Span::from_secs(2 * 86_400));
    let pruned = rig.auth.prune_log(&rig.local, false).await.unwrap();
    assert_eq!(pruned[0].count, 200);
    while let Some(part) = items.next().await {
        parts.push(part);
    }
    let report = verified(parts, Check::default()).unwrap().report;
    assert!((1..200).contains(&report.pruned), "{report:?}");
}

#[tokio::test]
async fn as_many_texts_come_at_once_as_fit_and_each_comes_alone() {
    let rig = Rig::new().await;
    for _ in 0..3 {
        ran(&rig, &script(MAX_TEXT_BYTES - 100)).await.unwrap();
    }
    let answer = listed(&rig).await;
    assert_eq!((answer.events.len(), answer.texts.len()), (3, 2));
    verified_export(&rig.auth).await.unwrap();
}

#[tokio::test]
async fn attack_55_a_text_that_was_changed_or_deleted_in_the_database_is_found() {
    let rig = Rig::new().await;
    ran(&rig, &script(40_000)).await.unwrap();
    let (key, stored) = rig
        .store
        .list("log/text/", None, 1)
        .await
        .unwrap()
        .remove(0);
    let mut changed = stored.value;
    changed[30_000] ^= 1;
    for (number, value) in [(1, Some(changed)), (2, None)] {
        let event = mezite_core::Event::new("test.event", "MZ0000", START, [[number; 16]; 2]);
        let commit = match value {
            Some(value) => Commit::new(event).put(key.clone(), Expect::Any, value),
            None => Commit::new(event).remove(key.clone(), Expect::Any),
        };
        rig.store.commit(commit).await.unwrap();
        let fault = verified_export(&rig.auth).await.unwrap_err().to_string();
        assert!(fault.contains("`command` beside event"), "{fault}");
    }
}

#[tokio::test]
async fn attack_56_a_text_beyond_every_bound_is_refused_and_leaves_nothing() {
    let rig = Rig::new().await;
    let refused = ran(&rig, &script(MAX_TEXT_BYTES)).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert_eq!(rows(&rig).await, 0);
    assert_eq!(rig.events("session.exec").await.len(), 0);
}
