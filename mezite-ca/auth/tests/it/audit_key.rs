//! Rotation of the key that signs the log: what an auditor kept stays good, and no death on the way leaves half of it.

use std::io::{BufReader, Cursor};
use std::sync::Arc;
use std::time::Duration;

use mezite_api::v1::export_log_response::Item;
use mezite_api::v1::hub_server::Hub;
use mezite_api::v1::{ExportLogRequest, LogKeys};
use mezite_audit::NoteKey;
use mezite_audit::bundle::{BundleError, Check, Part, Verified};
use mezite_auth::backup::{self, Reader, Restoring};
use mezite_auth::grpc::{Caller, HubService};
use mezite_auth::{Auth, Error, NoRecordings, reseal};
use mezite_ca::seal::{KeyFile, Sealer};
use mezite_core::store::{MemoryStore, Store};
use tokio_stream::{Stream, StreamExt};
use tonic::Request;

use crate::rig::{Rig, settings};

/// The log as it is given out.
async fn exported(auth: &Auth) -> Vec<Part> {
    let mut items = exporting(auth).await;
    let mut parts = Vec::new();
    while let Some(part) = items.next().await {
        parts.push(part);
    }
    parts
}

/// The log while it is given out.
pub(crate) async fn exporting(auth: &Auth) -> impl Stream<Item = Part> + Unpin {
    let hub = HubService::new(auth.clone(), Arc::new(NoRecordings));
    let mut request = Request::new(ExportLogRequest::default());
    request.extensions_mut().insert(Caller::Local { uid: 0 });
    let items = hub.export_log(request).await.unwrap().into_inner();
    items.map(|answer| match answer.unwrap().item.unwrap() {
        Item::Keys(LogKeys { origin, keys, .. }) => {
            let key = |bytes: &Vec<u8>| {
                NoteKey::new(&*origin, bytes.as_slice().try_into().unwrap()).unwrap()
            };
            Part::Keys(keys.iter().map(key).collect())
        }
        Item::Checkpoint(note) => Part::Checkpoint(note),
        Item::Text(text) => Part::Text {
            sequence: text.sequence,
            field: text.field,
            text: text.text,
        },
        Item::Event(event) => Part::Event(mezite_core::store::StoredEvent {
            sequence: event.sequence,
            body: event.body,
        }),
        Item::Pruned(pruned) => Part::Pruned {
            first: pruned.first,
            leaf_hashes: pruned.leaf_hashes,
        },
    })
}

pub(crate) fn verified(parts: Vec<Part>, mut check: Check) -> Result<Verified, BundleError> {
    for part in parts {
        check.take(part)?;
    }
    check.finish()
}

/// The log as anybody who asks now finds it.
pub(crate) async fn verified_export(auth: &Auth) -> Result<Verified, BundleError> {
    verified(exported(auth).await, Check::default())
}

fn key_of(auth: &Auth) -> NoteKey {
    NoteKey::new(auth.log_origin(), &auth.audit_signer().public_key()).unwrap()
}

async fn newest(auth: &Auth) -> String {
    auth.keep_log().await.unwrap();
    auth.checkpoint().await.unwrap().unwrap()
}

/// The private audit keys that lie in the store.
async fn held(store: &dyn Store) -> Vec<String> {
    let found = store.list("ca/audit/", None, 10).await.unwrap();
    found.into_iter().map(|(key, _)| key.to_string()).collect()
}

#[tokio::test]
async fn whoever_trusts_an_old_key_or_kept_a_checkpoint_verifies_on() {
    let rig = Rig::new().await;
    let (mut keys, mut kept) = (vec![key_of(&rig.auth)], vec![newest(&rig.auth).await]);
    for generation in [2, 3] {
        let rotated = rig.auth.rotate_audit_key(&rig.local).await.unwrap();
        assert_eq!(rotated.generation, generation);
        assert_eq!(key_of(&rig.auth).to_line(), rotated.line);
        keys.push(key_of(&rig.auth));
        // The old key's last word, then the new key's first.
        kept.push(rig.auth.checkpoint().await.unwrap().unwrap());
        rig.user(&format!("user{generation}"), &["access"], &[])
            .await;
        kept.push(newest(&rig.auth).await);
    }
    assert_eq!(
        held(&*rig.store).await,
        ["ca/audit/3"],
        "the old ones are gone"
    );
    let parts = exported(&rig.auth).await;
    let report = verified(parts.clone(), Check::new(kept)).unwrap();
    assert_eq!(report.keys, keys);
    for key in &keys {
        let trusting = Check::default().with_keys(vec![key.clone()]);
        assert_eq!(verified(parts.clone(), trusting).unwrap().keys, keys);
    }
    let told = rig.events("audit.key.rotated").await;
    let lines = |field: &str| -> Vec<String> {
        let text = |event: &serde_json::Value| event[field].as_str().unwrap().to_owned();
        told.iter().map(text).collect()
    };
    let line = |from: usize| -> Vec<String> {
        keys[from..from + 2].iter().map(NoteKey::to_line).collect()
    };
    assert_eq!((lines("old_key"), lines("new_key")), (line(0), line(1)));
}

#[tokio::test]
async fn attack_55_a_rotation_that_dies_at_any_step_was_all_or_nothing() {
    let rig = Rig::new().await;
    let (old, before) = (key_of(&rig.auth), newest(&rig.auth).await);
    rig.break_disk(true);
    let lost = rig.auth.rotate_audit_key(&rig.local).await.unwrap_err();
    assert!(matches!(lost, Error::Unavailable(_)), "{lost}");
    rig.break_disk(false);
    assert_eq!(
        (held(&*rig.store).await, key_of(&rig.auth)),
        (vec!["ca/audit/1".into()], old.clone())
    );
    assert_eq!(newest(&rig.auth).await, before);
    // Written, and the answer lost with the process: the next start has the new key, and this hub hears of it.
    rig.store.lose_answer();
    let lost = rig.auth.rotate_audit_key(&rig.local).await.unwrap_err();
    assert!(matches!(lost, Error::Unavailable(_)), "{lost}");
    assert_eq!(held(&*rig.store).await, ["ca/audit/2"]);
    let next = rig.hub("hub-2").await;
    rig.user("alice", &["access"], &[]).await;
    newest(&rig.auth).await;
    assert_ne!(key_of(&next), old);
    assert_eq!(key_of(&next), key_of(&rig.auth));
    let trusting = Check::new(vec![before]).with_keys(vec![old]);
    verified(exported(&next).await, trusting).unwrap();
}

#[tokio::test]
async fn a_hub_that_has_not_heard_of_the_rotation_signs_nothing_with_the_old_key() {
    let rig = Rig::new().await;
    let other = rig.hub("hub-2").await;
    let old = key_of(&other);
    rig.auth.rotate_audit_key(&rig.local).await.unwrap();
    // At once, before it could hear.
    let note = newest(&other).await;
    assert!(mezite_audit::checkpoint::open(&note, &old).is_err());
    assert!(mezite_audit::checkpoint::open(&note, &key_of(&rig.auth)).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_55_keepers_and_rotations_at_the_same_time_make_one_log() {
    let rig = Rig::new().await;
    let other = rig.hub("hub-2").await;
    let kept = newest(&rig.auth).await;
    let keeping = [rig.auth.clone(), other.clone()].map(|auth| {
        tokio::spawn(async move {
            loop {
                auth.keep_log().await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    });
    let mut done = 0;
    for number in 0..10 {
        rig.user(&format!("user{number}"), &["access"], &[]).await;
        let hub = if number % 2 == 0 { &rig.auth } else { &other };
        match hub.rotate_audit_key(&rig.local).await {
            Ok(_) => done += 1,
            Err(error) => assert!(matches!(error, Error::Conflict), "{error}"),
        }
    }
    for task in keeping {
        task.abort();
    }
    assert!(done > 0);
    assert_eq!(held(&*rig.store).await, [format!("ca/audit/{}", done + 1)]);
    let report = verified(exported(&other).await, Check::new(vec![kept])).unwrap();
    assert_eq!(report.keys.len(), done + 1);
}

#[tokio::test]
async fn a_rotated_key_is_resealed_backed_up_and_restored_as_any_other() {
    let rig = Rig::new().await;
    let kept = newest(&rig.auth).await;
    rig.auth.rotate_audit_key(&rig.local).await.unwrap();
    let content = format!("{}\n", "c3".repeat(32));
    let sealer: Arc<dyn Sealer> = Arc::new(KeyFile::parse(content.as_bytes()).unwrap());
    reseal(
        &*rig.store,
        &*rig.clock,
        &settings(),
        &*rig.sealer,
        &*sealer,
    )
    .await
    .unwrap();
    let mut bytes = Vec::new();
    let mut written = rig.auth.backup(&rig.local).await.unwrap();
    while let Some(part) = written.next().await {
        bytes.extend(part.unwrap());
    }
    let store = Arc::new(MemoryStore::new());
    let reader = Reader::open(BufReader::new(Cursor::new(bytes))).unwrap();
    let made = Restoring {
        hub: "hub",
        who: "local:0",
        path: "a.backup",
        now: crate::rig::START,
    };
    backup::restore(&*store, reader, &made).await.unwrap();
    let restored = Auth::open(store.clone(), rig.clock.clone(), sealer, settings())
        .await
        .unwrap();
    assert_eq!(key_of(&restored), key_of(&rig.auth));
    assert_eq!(held(&*store).await, ["ca/audit/2"]);
    let report = verified(exported(&restored).await, Check::new(vec![kept])).unwrap();
    assert_eq!(report.keys.len(), 2);
    restored.rotate_audit_key(&rig.local).await.unwrap();
    assert_eq!(held(&*store).await, ["ca/audit/3"]);
}
