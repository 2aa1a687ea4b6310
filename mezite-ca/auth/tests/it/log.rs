use mezite_audit::checkpoint::{self, NoteKey};
use mezite_audit::verify::Verifier;
use mezite_core::store::{LogQuery, Store};

use crate::rig::Rig;

#[tokio::test]
async fn what_the_keeper_signs_verifies() {
    let rig = Rig::new().await;
    rig.user("alice", &["access"], &[]).await;
    rig.auth.keep_log().await.unwrap();
    let note = rig.auth.checkpoint().await.unwrap().unwrap();
    rig.node("db1").await;
    rig.auth.keep_log().await.unwrap();
    let later = rig.auth.checkpoint().await.unwrap().unwrap();
    let key = NoteKey::new(rig.auth.log_origin(), &rig.auth.audit_signer().public_key()).unwrap();
    let checkpoints = [&note, &later].map(|note| checkpoint::open(note, &key).unwrap());
    assert!(checkpoints[0].size < checkpoints[1].size);
    let events = rig.store.log(&LogQuery::after(0, 1000)).await.unwrap();
    let mut verifier = Verifier::new(checkpoints.clone()).unwrap();
    for event in &events {
        verifier.push(event).unwrap();
    }
    assert_eq!(
        verifier.finish().unwrap().vouched,
        u64::try_from(events.len()).unwrap()
    );
    let mut tampered = Verifier::new(checkpoints).unwrap();
    let faults = events.iter().map(|event| {
        let mut event = event.clone();
        let text = String::from_utf8(event.body).unwrap();
        event.body = text.replace("alice", "mallo").into_bytes();
        tampered.push(&event)
    });
    assert!(faults.filter(Result::is_err).count() > 0);
}

#[tokio::test]
async fn the_keeper_catches_up_by_itself_and_stops_when_nothing_happens() {
    let rig = Rig::new().await;
    let auth = rig.auth.clone();
    tokio::time::timeout(std::time::Duration::from_millis(200), auth.run_keeper())
        .await
        .unwrap_err();
    let before = rig.auth.checkpoint().await.unwrap();
    assert!(before.is_some());
    rig.auth.keep_log().await.unwrap();
    assert_eq!(rig.auth.checkpoint().await.unwrap(), before);
}

#[tokio::test]
async fn attack_57_reading_the_log_is_in_the_log() {
    let rig = Rig::new().await;
    rig.auth
        .events(&rig.local, LogQuery::after(0, 10))
        .await
        .unwrap();
    let read = rig.events("audit.read").await;
    assert_eq!((read.len(), &read[0]["user_name"]), (1, &"local:0".into()));
}
