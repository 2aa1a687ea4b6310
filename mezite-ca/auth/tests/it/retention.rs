//! How long recordings are kept, legal holds, and searching: rules, events and their order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mezite_api::v1::hub_client::HubClient;
use mezite_api::v1::{self, search_recordings_response::Item};
use mezite_auth::grpc::{self, Caller};
use mezite_auth::{
    Auth, Error, FoundLine, FoundRecording, Keep, MayRead, OpenedRecording, RecordingError,
    RecordingFacts, RecordingSearch, RecordingSource, Retention, RetentionRule, SearchOutcome,
    Settings, Until,
};
use mezite_ca::PeerKind;
use mezite_core::{SessionId, Span, UnixTime};
use tonic::{Code, Request};

use crate::rig::{Rig, START, session, settings};

const DAY: Span = Span::from_secs(24 * 60 * 60);

/// Recordings that are only facts.
#[derive(Debug, Default)]
struct Shelf(Mutex<BTreeMap<SessionId, RecordingFacts>>);

impl Shelf {
    fn put(&self, id: SessionId, user: &str, started: UnixTime) {
        let facts = RecordingFacts {
            session_id: id,
            user: user.to_owned(),
            node: "db1".to_owned(),
            login: "root".to_owned(),
            started,
            bytes: 1000,
            sealed: true,
            place: None,
        };
        self.0.lock().unwrap().insert(id, facts);
    }

    fn left(&self) -> Vec<SessionId> {
        self.0.lock().unwrap().keys().copied().collect()
    }
}

#[async_trait]
impl RecordingSource for Shelf {
    async fn list(
        &self,
        _user: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<RecordingFacts>, RecordingError> {
        Ok(self.0.lock().unwrap().values().cloned().collect())
    }

    async fn facts(&self, id: SessionId) -> Result<RecordingFacts, RecordingError> {
        let found = self.0.lock().unwrap().get(&id).cloned();
        found.ok_or_else(|| RecordingError::not_found(id))
    }

    async fn open(&self, id: SessionId, _until: Until) -> Result<OpenedRecording, RecordingError> {
        Err(RecordingError::not_found(id))
    }

    /// Every recording holds the text.
    async fn search(
        &self,
        _search: RecordingSearch,
        may: MayRead,
    ) -> Result<SearchOutcome, RecordingError> {
        let all = self.0.lock().unwrap();
        let allowed = all.values().filter(|facts| may(&facts.user));
        let found: Vec<_> = allowed
            .map(|facts| FoundRecording {
                facts: facts.clone(),
                lines: vec![FoundLine {
                    at: Span::default(),
                    channel: 0,
                    kind: "output",
                    line: "a secret".to_owned(),
                }],
                more: false,
                clipped: false,
            })
            .collect();
        let searched = found.len();
        Ok(SearchOutcome {
            found,
            searched,
            ..SearchOutcome::default()
        })
    }

    async fn remove(&self, id: SessionId) -> Result<(), RecordingError> {
        let removed = self.0.lock().unwrap().remove(&id);
        removed
            .map(|_| ())
            .ok_or_else(|| RecordingError::not_found(id))
    }
}

async fn keeping(rig: &Rig, keep: Keep, rules: Vec<RetentionRule>) -> Auth {
    let settings = Settings {
        retention: Retention { keep, rules },
        ..settings()
    };
    let sealer = Arc::clone(&rig.sealer);
    let opened = Auth::open(rig.store.clone(), rig.clock.clone(), sealer, settings);
    opened.await.unwrap()
}

#[tokio::test]
async fn old_recordings_go_and_leave_an_event_with_their_digest() {
    let rig = Rig::new().await;
    let auth = keeping(&rig, Keep::For(DAY), Vec::new()).await;
    let shelf = Shelf::default();
    shelf.put(session(1), "alice", START);
    shelf.put(session(2), "alice", START.plus(DAY));
    rig.advance(DAY);
    let pruned = auth
        .prune_recordings(&rig.local, &shelf, false)
        .await
        .unwrap();
    assert!(pruned.is_empty(), "one day is not more than one day");
    rig.advance(Span::from_millis(1));
    let dry = auth
        .prune_recordings(&rig.local, &shelf, true)
        .await
        .unwrap();
    assert_eq!(
        (dry.len(), shelf.left().len()),
        (1, 2),
        "a dry run deletes nothing"
    );
    assert!(rig.events("recording.deleted").await.is_empty());
    auth.prune_recordings(&rig.local, &shelf, false)
        .await
        .unwrap();
    assert_eq!(shelf.left(), [session(2)]);
    let told = rig.events("recording.deleted").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["session_id"], session(1).to_string());
    assert_eq!(told[0]["retention_rule"], "keep 1d");
    assert_eq!(told[0]["recorded_user"], "alice");
}

#[tokio::test]
async fn without_its_event_nothing_is_deleted() {
    let rig = Rig::new().await;
    let auth = keeping(&rig, Keep::For(DAY), Vec::new()).await;
    let shelf = Shelf::default();
    shelf.put(session(1), "alice", START);
    rig.advance(Span::from_secs(7 * 24 * 60 * 60));
    rig.break_disk(true);
    let refused = auth.prune_recordings(&rig.local, &shelf, false).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(shelf.left(), [session(1)]);
}

#[tokio::test]
async fn a_hold_keeps_what_is_too_old_until_it_is_released() {
    let rig = Rig::new().await;
    let auth = keeping(&rig, Keep::For(DAY), Vec::new()).await;
    let shelf = Shelf::default();
    shelf.put(session(1), "alice", START);
    let hold = || auth.hold_recording(&rig.local, &shelf, session(1), "case 7".into());
    hold().await.unwrap();
    assert!(matches!(hold().await, Err(Error::Exists { .. })));
    let missing = auth.hold_recording(&rig.local, &shelf, session(9), "x".into());
    assert!(matches!(missing.await, Err(Error::NotFound { .. })));
    let holds = auth.recording_holds().await.unwrap();
    assert_eq!(holds[&session(1)], "case 7");
    rig.advance(Span::from_secs(7 * 24 * 60 * 60));
    let pruned = auth
        .prune_recordings(&rig.local, &shelf, false)
        .await
        .unwrap();
    assert!(pruned.len() == 1 && pruned[0].held);
    assert_eq!(shelf.left(), [session(1)]);
    let release = || auth.release_recording(&rig.local, &shelf, session(1), "closed");
    release().await.unwrap();
    assert!(matches!(release().await, Err(Error::NotFound { .. })));
    auth.prune_recordings(&rig.local, &shelf, false)
        .await
        .unwrap();
    assert!(shelf.left().is_empty());
    let events = rig.events("recording.").await;
    let kinds = events
        .iter()
        .filter_map(|event| event["event_type"].as_str());
    let kinds: Vec<&str> = kinds.collect();
    assert_eq!(
        kinds,
        ["recording.held", "recording.released", "recording.deleted"]
    );
}

#[tokio::test]
async fn a_rule_that_nobody_can_apply_any_more_keeps_the_longest() {
    let rig = Rig::new().await;
    let rule = RetentionRule {
        roles: vec!["dba".parse().unwrap()],
        keep: Keep::Forever,
    };
    let auth = keeping(&rig, Keep::For(DAY), vec![rule]).await;
    let shelf = Shelf::default();
    // No event tells with which roles the session began.
    shelf.put(session(1), "alice", START);
    rig.advance(Span::from_secs(365 * 24 * 60 * 60));
    let pruned = auth
        .prune_recordings(&rig.local, &shelf, false)
        .await
        .unwrap();
    assert!(pruned.is_empty() && shelf.left() == [session(1)]);
}

/// The users whose recordings a search by this caller gives.
async fn found(rig: &Rig, shelf: &Arc<Shelf>, caller: Caller) -> Result<Vec<String>, Code> {
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), shelf.clone()));
    let mut request = Request::new(v1::SearchRecordingsRequest {
        text: "secret".into(),
        ..Default::default()
    });
    request.extensions_mut().insert(caller);
    let answers = hub.search_recordings(request).await;
    let mut answers = answers.map_err(|status| status.code())?.into_inner();
    let mut users = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(Item::Found(found)) = answer.item {
            assert_eq!(found.lines[0].line, "a secret");
            users.push(found.recording.unwrap().user);
        }
    }
    Ok(users)
}

#[tokio::test]
async fn attack_53_who_searches_reads_only_what_they_may_and_leaves_an_event_first() {
    let rig = Rig::new().await;
    let shelf = Arc::new(Shelf::default());
    shelf.put(session(1), "alice", START);
    shelf.put(session(2), "bob", START);
    let caller = async |name: &str, role: &str| {
        let password = rig.user(name, &[role], &[]).await;
        let identity = rig.login(name, &password).await.unwrap();
        Caller::Peer(rig.peer(&identity.tls_chain, PeerKind::User))
    };
    let alice = caller("alice", "access").await;
    assert_eq!(found(&rig, &shelf, alice).await.unwrap(), ["alice"]);
    let otto = caller("otto", "auditor").await;
    assert_eq!(found(&rig, &shelf, otto).await.unwrap(), ["alice", "bob"]);
    let nora = caller("nora", "node").await;
    assert_eq!(found(&rig, &shelf, nora).await, Err(Code::PermissionDenied));
    let told = rig.events("recording.searched").await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["user_name"], "alice");
    let read = serde_json::json!([session(1).to_string()]);
    assert_eq!(told[0]["session_ids"], read);
    assert!(told[0]["query"].as_str().unwrap().contains("secret"));
    rig.break_disk(true);
    let unheard = found(&rig, &shelf, Caller::Local { uid: 0 }).await;
    assert_eq!(unheard, Err(Code::Unavailable), "no event, no lines");
}
