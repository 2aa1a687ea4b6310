//! Receivers of the log, retention, bursts of failures, a full disk.

use std::sync::Arc;
use std::time::Duration;

use mezite_audit::Sink;
use mezite_audit::sink::MemorySink;
use mezite_auth::{Error, Export, LogRetention, Room};
use mezite_core::store::{LogQuery, Store};
use mezite_core::{Login, NodeName, Span};
use tokio_stream::StreamExt;

use crate::audit_key::verified_export;
use crate::rig::{Rig, session, settings};

fn export(name: &str, sink: &MemorySink, shared: bool) -> Export {
    Export {
        name: name.into(),
        sink: Arc::new(sink.clone()),
        shared,
    }
}

/// Serves `export` until it has nothing more to do.
async fn serve(rig: &Rig, export: &Export) {
    rig.auth.keep_log().await.unwrap();
    let running = rig.auth.run_sink(export.clone());
    tokio::time::timeout(Duration::from_millis(300), running)
        .await
        .unwrap_err();
}

async fn log(rig: &Rig) -> Vec<Vec<u8>> {
    let events = rig.store.log(&LogQuery::after(0, 10_000)).await.unwrap();
    events.into_iter().map(|event| event.body).collect()
}

fn got(sink: &MemorySink) -> Vec<Vec<u8>> {
    let events = sink.received();
    events.into_iter().map(|event| event.body).collect()
}

#[tokio::test]
async fn a_receiver_gets_every_event_and_the_checkpoint_that_covers_them() {
    let rig = Rig::new().await;
    let sink = MemorySink::new();
    let siem = export("siem", &sink, true);
    serve(&rig, &siem).await;
    rig.user("alice", &["access"], &[]).await;
    serve(&rig, &siem).await;
    assert_eq!(got(&sink), log(&rig).await);
    assert_eq!(sink.checkpoint(), rig.auth.checkpoint().await.unwrap());
    let standing = &rig.auth.sinks()[0];
    assert_eq!((standing.waiting, &standing.trouble), (0, &None));
}

#[tokio::test]
async fn attack_58_a_dead_receiver_stops_nothing_loses_nothing_and_is_told() {
    let rig = Rig::new().await;
    let (dead, alive) = (MemorySink::new(), MemorySink::new());
    dead.set_dead(true);
    let (one, other) = (export("dead", &dead, true), export("alive", &alive, false));
    rig.auth.keep_log().await.unwrap();
    tokio::time::pause();
    let running = async {
        tokio::join!(
            rig.auth.run_sink(one.clone()),
            rig.auth.run_sink(other.clone()),
            rig.auth.run_keeper()
        )
    };
    let story = async {
        rig.user("alice", &["access"], &[]).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let failed = rig.events("audit.sink.failed").await;
        assert_eq!(failed.len(), 1, "once, not at each attempt");
        assert_eq!(failed[0]["resource_name"], "dead");
        assert_eq!(failed[0]["error_message"], "the receiver is dead");
        let standing = rig.auth.sinks();
        assert!(
            standing
                .iter()
                .any(|found| found.trouble.is_some() && found.waiting > 0)
        );
        dead.set_dead(false);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(rig.events("audit.sink.recovered").await.len(), 1);
    };
    tokio::select! { _ = running => {}, () = story => {} }
    let log = log(&rig).await;
    assert_eq!(got(&dead), log);
    assert_eq!(got(&alive), log);
}

#[tokio::test]
async fn attack_58_a_killed_hub_repeats_at_most_and_leaves_no_gap() {
    let rig = Rig::new().await;
    let sink = MemorySink::new();
    let own = export("own", &sink, false);
    for round in 0..5 {
        rig.user(&format!("user{round}"), &["access"], &[]).await;
        rig.auth.keep_log().await.unwrap();
        // Broken off anywhere.
        let running = rig.auth.run_sink(own.clone());
        drop(tokio::time::timeout(Duration::from_micros(round * 50), running).await);
    }
    serve(&rig, &own).await;
    let mut firsts = Vec::new();
    for body in got(&sink) {
        if !firsts.contains(&body) {
            firsts.push(body);
        }
    }
    assert_eq!(firsts, log(&rig).await);
}

#[tokio::test]
async fn two_hubs_serve_a_shared_receiver_in_turn_and_their_own_each() {
    let rig = Rig::new().await;
    let mut other = settings();
    other.hub = "other".into();
    let other = rig.with(other).await;
    let (shared, own) = (MemorySink::new(), MemorySink::new());
    serve(&rig, &export("shared", &shared, true)).await;
    serve(&other, &export("shared", &shared, true)).await;
    serve(&rig, &export("own", &own, false)).await;
    serve(&other, &export("own", &own, false)).await;
    rig.user("alice", &["access"], &[]).await;
    serve(&other, &export("shared", &shared, true)).await;
    let before = got(&shared).len();
    assert!(
        before < log(&rig).await.len(),
        "the other hub still holds it"
    );
    rig.advance(Span::from_secs(91));
    serve(&other, &export("shared", &shared, true)).await;
    assert_eq!(
        got(&shared),
        log(&rig).await,
        "it took over where the first left off"
    );
    let twice = got(&own);
    assert!(
        twice.len() > log(&rig).await.len(),
        "each hub has a file of its own"
    );
}

#[tokio::test]
async fn attack_55_a_database_that_was_rolled_back_is_told_by_a_receiver() {
    let before = Rig::new().await;
    let sink = MemorySink::new();
    for name in ["alice", "bob", "carol"] {
        before.user(name, &["access"], &[]).await;
    }
    serve(&before, &export("archive", &sink, false)).await;
    // Yesterday's database: it knows none of them.
    let after = Rig::new().await;
    let known = sink.acknowledged().await.unwrap();
    serve(&after, &export("archive", &sink, false)).await;
    let told = after.events("audit.rollback").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["delivered"], known);
    serve(&after, &export("archive", &sink, false)).await;
    let log = log(&after).await;
    assert!(
        got(&sink).ends_with(&log),
        "what the log now says arrives too"
    );
}

fn days(days: u64) -> Span {
    Span::from_secs(days * 86_400)
}

/// A cluster that keeps what is made here for 10 days, and everything else for 100.
async fn keeping() -> Rig {
    let log_retention = LogRetention {
        default: Some(days(100)),
        types: [("user.created".to_owned(), Some(days(10)))].into(),
    };
    Rig::with_settings(mezite_auth::Settings {
        log_retention,
        ..settings()
    })
    .await
}

#[tokio::test]
async fn retention_removes_what_is_old_by_type_and_the_log_still_verifies() {
    let rig = keeping().await;
    for number in 0..300 {
        rig.user(&format!("user{number}"), &["access"], &[]).await;
    }
    rig.auth.keep_log().await.unwrap();
    rig.advance(days(9));
    assert!(
        rig.auth
            .prune_log(&rig.local, false)
            .await
            .unwrap()
            .is_empty()
    );
    rig.advance(days(2));
    rig.user("late", &["access"], &[]).await;
    let would = rig.auth.prune_log(&rig.local, true).await.unwrap();
    assert_eq!((would[0].event_type, would[0].count), ("user.created", 300));
    assert_eq!(rig.events("user.created").await.len(), 301, "a dry run");
    let done = rig.auth.prune_log(&rig.local, false).await.unwrap();
    assert_eq!(done, would);
    let left = rig.events("user.created").await;
    assert_eq!(left.len(), 1, "what is young stays");
    let told = rig.events("audit.pruned").await;
    assert_eq!((told.len(), &told[0]["count"]), (1, &300.into()));
    assert_eq!(told[0]["rule"], "user.created after 10d");
    assert_eq!(told[0]["user_name"], "local:0");
    let report = verified_export(&rig.auth).await.unwrap().report;
    assert_eq!((report.pruned, report.vouched), (300, report.size));
    rig.advance(days(200));
    rig.auth.keep_log().await.unwrap();
    rig.auth.prune_log(&rig.local, false).await.unwrap();
    assert!(rig.events("hub.started").await.is_empty());
    assert!(
        !rig.events("audit.pruned").await.is_empty(),
        "these stay for ever"
    );
    verified_export(&rig.auth).await.unwrap();
}

#[tokio::test]
async fn nothing_is_removed_that_is_not_sealed_or_not_delivered() {
    let rig = keeping().await;
    rig.user("alice", &["access"], &[]).await;
    rig.advance(days(20));
    assert!(
        rig.auth
            .prune_log(&rig.local, false)
            .await
            .unwrap()
            .is_empty(),
        "not sealed"
    );
    let sink = MemorySink::new();
    serve(&rig, &export("siem", &sink, true)).await;
    rig.user("bob", &["access"], &[]).await;
    rig.auth.keep_log().await.unwrap();
    rig.advance(days(20));
    let done = rig.auth.prune_log(&rig.local, false).await.unwrap();
    assert_eq!(done[0].count, 1, "alice, who was delivered");
    assert_eq!(rig.events("user.created").await.len(), 1);
    // The receiver is taken out of the configuration: nobody waits for it any more.
    rig.auth.name_sinks(&[]).await.unwrap();
    assert_eq!(
        rig.auth.prune_log(&rig.local, false).await.unwrap()[0].count,
        1
    );
}

#[tokio::test]
async fn without_a_rule_nothing_goes_and_an_auditor_may_only_look() {
    let rig = Rig::new().await;
    let refused = rig.auth.prune_log(&rig.local, false).await;
    assert_eq!(refused, Err(Error::NoRetention));
}

#[tokio::test]
async fn attack_55_a_row_deleted_by_hand_is_found_though_its_hash_is_left() {
    let rig = keeping().await;
    rig.user("alice", &["access"], &[]).await;
    rig.user("bob", &["access"], &[]).await;
    rig.auth.keep_log().await.unwrap();
    // By somebody with all rights on the database, under the cover of an event that tells of another.
    let event = rig.store.log(&LogQuery::after(0, 1)).await.unwrap();
    assert_eq!(event.len(), 1);
    let told = mezite_audit::catalogue::AuditPruned {
        user_name: "hub:hub",
        rule: "user.created after 10d",
        count: 1,
        ranges: "1",
    };
    let stamp = mezite_audit::Stamp {
        now: crate::rig::START,
        random: [[1; 16], [2; 16]],
        cluster: rig.auth.cluster(),
    };
    let commit = mezite_core::store::Commit::new(told.event(&stamp)).and_prune([1..=2]);
    rig.store.commit(commit).await.unwrap();
    let fault = verified_export(&rig.auth).await.unwrap_err();
    let fault = format!("{fault:?}");
    assert!(fault.contains("Deleted { sequence: 2 }"), "{fault}");
}

#[tokio::test]
async fn attack_54_a_stranger_who_tries_passwords_cannot_fill_the_log() {
    let rig = Rig::new().await;
    rig.user("alice", &["access"], &[]).await;
    for _ in 0..40 {
        rig.login("alice", "wrong").await.unwrap_err();
    }
    let alone = rig.events("user.login.failed").await;
    assert_eq!(alone.len(), 5);
    assert!(alone.iter().all(|event| event["attempts"] == 1));
    rig.advance(Span::from_secs(61));
    rig.auth
        .report_bursts(Some(mezite_core::Clock::now(&*rig.clock)))
        .await;
    let all = rig.events("user.login.failed").await;
    assert_eq!((all.len(), &all[5]["attempts"]), (6, &35.into()));
    assert_eq!(all[5]["claimed_users"], serde_json::json!(["alice"]));
    rig.login("alice", "wrong").await.unwrap_err();
    assert_eq!(
        rig.events("user.login.failed").await.len(),
        7,
        "a new minute"
    );
}

#[tokio::test]
async fn what_was_counted_is_told_when_the_hub_stops() {
    let rig = Rig::new().await;
    for _ in 0..9 {
        rig.login("nobody", "wrong").await.unwrap_err();
    }
    rig.auth.stop("test").await.unwrap();
    let all = rig.events("user.login.failed").await;
    assert_eq!(all.last().unwrap()["attempts"], 4);
    assert_eq!(rig.events("hub.stopped").await.len(), 1);
}

#[tokio::test]
async fn attack_32_on_a_full_disk_sessions_end_and_only_administrators_log_in() {
    let rig = Rig::new().await;
    rig.node("db1").await;
    let alice = rig.alice().await;
    let ada = rig.user("ada", &["admin"], &[]).await;
    let bob = rig.user("bob", &["access"], &[]).await;
    let (node, login): (NodeName, Login) = ("db1".parse().unwrap(), "deploy".parse().unwrap());
    let authorize = async |number| {
        rig.auth
            .authorize(&alice, &node, &login, None, session(number))
            .await
    };
    let permit = authorize(1).await.unwrap();
    rig.auth.set_room(Room::Low, "/data", 1000).await.unwrap();
    assert!(authorize(2).await.is_ok(), "a warning stops nobody");
    let mut changes = rig.auth.changes();
    rig.auth.set_room(Room::Full, "/data", 10).await.unwrap();
    assert!(
        changes.changed().await,
        "running sessions are decided again"
    );
    let ended = rig.auth.recheck(&permit);
    assert!(matches!(&ended, mezite_auth::Standing::Ended(why) if why.contains("disk is full")));
    let refused = authorize(3).await.unwrap_err();
    assert!(refused.to_string().contains("disk is full"), "{refused}");
    assert_eq!(rig.login("bob", &bob).await.unwrap_err(), Error::Full);
    rig.login("ada", &ada).await.unwrap();
    rig.auth
        .set_room(Room::Enough, "/data", 9999)
        .await
        .unwrap();
    assert!(authorize(4).await.is_ok());
    rig.login("bob", &bob).await.unwrap();
    for event_type in ["disk.low", "disk.full", "disk.recovered"] {
        assert_eq!(rig.events(event_type).await.len(), 1, "{event_type}");
    }
    assert_eq!(rig.events("authz.denied").await.len(), 1);
}

#[tokio::test]
async fn whoever_follows_the_log_sees_what_comes_and_is_one_event() {
    let rig = Rig::new().await;
    rig.user("early", &["access"], &[]).await;
    rig.auth.keep_log().await.unwrap();
    let keeper = rig.auth.clone();
    let keeping = tokio::spawn(async move { keeper.run_keeper().await });
    let mut request = tonic::Request::new(mezite_api::v1::ListEventsRequest {
        event_type: "user.created".into(),
        ..Default::default()
    });
    request
        .extensions_mut()
        .insert(mezite_auth::grpc::Caller::Local { uid: 0 });
    let mut hub = rig.client();
    let mut events = hub.follow_events(request).await.unwrap().into_inner();
    let mut next = async || {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
        let body = event.unwrap().unwrap().unwrap().body;
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        event["resource_name"].as_str().unwrap().to_owned()
    };
    assert_eq!(next().await, "early");
    for name in ["one", "two", "three"] {
        rig.user(name, &["access"], &[]).await;
        assert_eq!(next().await, name);
    }
    keeping.abort();
    assert_eq!(rig.events("audit.read").await.len(), 1);
}
