//! The S3 sink against a server that is not ours (moto): the suite, what only a bucket can do, and every way in which
//! a store or a hub fails.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "tests"
)]

mod death;
mod fault;
mod store;

use std::sync::Arc;

use mezite_core::Span;
use mezite_record::sink::conformance;
use mezite_record::{Frame, Identity, Part, Recording, Sink, SinkError, verify};
use mezite_vault::S3Sink;

use crate::store::{Lab, START, header, id, noise, record, recorder, signer, whole};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let lab = Lab::new().await;
    let count = std::sync::atomic::AtomicU32::new(0);
    conformance::all(async || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut settings = lab.settings("hub-a");
        settings.spool = lab.path(&format!("spool-{number}"));
        settings.prefix = format!("part/{number}");
        lab.open(&settings).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_up_while_it_runs_and_ends_as_one_object() {
    let lab = Lab::new().await;
    let (ours, other) = (lab.hub("hub-a").await, lab.hub("hub-b").await);
    let identity = Identity::generate();
    let mut recorder = recorder(ours.clone(), &identity).await;
    // Less than a piece goes up because it grows old, more because it is much.
    record(&mut recorder, b"few").await;
    let few = whole(&*ours, Part::Journal).await;
    lab.until("the old piece", async || {
        other.length(&id(), Part::Journal).await == Ok(few.len() as u64)
    })
    .await;
    record(&mut recorder, &noise(40_000)).await;
    let much = whole(&*ours, Part::Journal).await;
    lab.until("the large piece", async || {
        other.length(&id(), Part::Journal).await == Ok(much.len() as u64)
    })
    .await;
    assert!(lab.objects().await.len() > 2, "{:?}", lab.objects().await);
    assert_eq!(whole(&*other, Part::Journal).await, much);
    let middle = other.read(&id(), Part::Journal, 100, 20_000).await.unwrap();
    assert_eq!(middle, much[100..20_100], "over the edge of a piece");
    assert_eq!(other.list(Part::Journal).await, Ok(vec![id()]));
    assert_eq!(
        other.place(&id(), Part::Journal).await.as_deref(),
        Some("bucket recordings, in pieces from hub-a")
    );
    let place = ours.place(&id(), Part::Journal).await.unwrap();
    assert_eq!(place, "spool of hub-a, all of it in the bucket too");
    let refused = other.stage(&id(), 0, b"x").await;
    assert!(
        matches!(&refused, Err(SinkError::Unavailable(why)) if why.contains("hub-a")),
        "{refused:?}"
    );

    let end = START.plus(Span::from_secs(1));
    let summary = recorder.finish(end).await.unwrap();
    assert!(ours.drained(lab.patience).await);
    assert_eq!(
        lab.objects().await,
        [format!("recordings/2026-01/{}.mzr", id())]
    );
    assert_eq!(lab.spooled("hub-a"), Vec::<String>::new());
    assert_eq!(ours.place(&id(), Part::Sealed).await, None);
    for hub in [&ours, &other] {
        let file = whole(&**hub, Part::Sealed).await;
        let verified = verify(&file[..], &[signer().verifying_key().to_bytes()]).unwrap();
        assert_eq!(verified.digest, summary.digest);
        assert_eq!(hub.list(Part::Sealed).await, Ok(vec![id()]));
        assert_eq!(hub.list(Part::Journal).await, Ok(vec![]));
    }
    let file = whole(&*other, Part::Sealed).await;
    let shown = Recording::open(&file[..], vec![identity]).unwrap();
    let frames: Vec<_> = shown.map(|it| it.unwrap().frame).collect();
    assert_eq!(
        frames,
        [Frame::stdout(0, "few"), Frame::stdout(0, noise(40_000))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_recording_goes_up_in_parts() {
    let lab = Lab::new().await;
    let hub = lab.hub("hub-a").await;
    let content = noise(20 * 1024 * 1024);
    hub.open(&id(), b"head").await.unwrap();
    hub.stage(&id(), 0, &content).await.unwrap();
    hub.finish(&id()).await.unwrap();
    assert!(hub.drained(lab.patience).await);
    assert_eq!(whole(&*hub, Part::Sealed).await, content);
    assert_eq!(lab.objects().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_52_an_object_in_the_way_is_never_overwritten() {
    let lab = Lab::new().await;
    let hub = lab.hub("hub-a").await;
    for (number, content) in [b"small".to_vec(), noise(9 * 1024 * 1024)]
        .into_iter()
        .enumerate()
    {
        let id = header(u8::try_from(number).unwrap()).session_id;
        let key = format!("recordings/2026-01/{id}.mzr");
        hub.open(&id, b"head").await.unwrap();
        // It came between the beginning and the end, from whoever else can write there.
        lab.put(&key, b"theirs").await;
        hub.stage(&id, 0, &content).await.unwrap();
        hub.finish(&id).await.unwrap();
        assert!(hub.drained(lab.patience).await);
        let place = hub.place(&id, Part::Sealed).await.unwrap();
        assert!(place.contains("nothing is overwritten"), "{place}");
        assert_eq!(lab.get(&key).await, b"theirs");
        assert_eq!(
            whole_of(&hub, number).await,
            content,
            "ours stays in the spool"
        );
        let again = hub.open(&id, b"head").await;
        assert_eq!(again, Err(SinkError::Exists(id)));
    }
}

async fn whole_of(hub: &Arc<S3Sink>, number: usize) -> Vec<u8> {
    let id = header(u8::try_from(number).unwrap()).session_id;
    hub.read(&id, Part::Sealed, 0, usize::MAX).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_49_a_second_recorder_of_a_session_is_stopped() {
    let lab = Lab::new().await;
    let (one, two) = (lab.hub("hub-a").await, lab.hub("hub-b").await);
    one.open(&id(), b"first").await.unwrap();
    lab.until("its piece", async || {
        two.length(&id(), Part::Journal).await.is_ok()
    })
    .await;
    assert_eq!(
        two.open(&id(), b"second").await,
        Err(SinkError::Exists(id()))
    );
    // One that writes under the same name, from another disk.
    let mut settings = lab.settings("hub-a");
    settings.spool = lab.path("another-disk");
    lab.put(&format!("live/{}/hub-a/{:020}", id(), 5), b"not what comes")
        .await;
    one.append(&id(), b"what comes").await.unwrap();
    lab.until("the refusal", async || {
        let appended = one.append(&id(), b"more").await;
        matches!(appended, Err(SinkError::Unavailable(why)) if why.contains("another recorder"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_52_a_store_that_overwrites_is_not_used() {
    let lab = Lab::new().await;
    lab.fault(fault::Fault::ForgetConditions);
    let hub = lab.hub("hub-a").await;
    let told = hub.check().await.unwrap_err().to_string();
    assert!(told.contains("ignores `If-None-Match: *`"), "{told}");
    hub.open(&id(), b"head").await.unwrap();
    lab.until("the refusal", async || {
        let appended = hub.append(&id(), b"more").await;
        matches!(appended, Err(SinkError::Unavailable(why)) if why.contains("conditional"))
    })
    .await;
    lab.fault(fault::Fault::None);
    assert_eq!(lab.hub("hub-b").await.check().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_53_the_secret_key_is_nowhere_to_be_seen() {
    let lab = Lab::new().await;
    let settings = lab.settings("hub-a");
    let hub = lab.open(&settings).await;
    lab.fault(fault::Fault::Error500);
    let error = hub.list(Part::Sealed).await.unwrap_err();
    let told = format!("{settings:?} {hub:?} {error} {error:?}");
    assert!(
        told.contains("recordings") && !told.contains(store::SECRET),
        "{told}"
    );
    let wrong = mezite_vault::S3Settings {
        ca_pem: Some(b"not a certificate".to_vec()),
        ..lab.settings("hub-b")
    };
    let error = S3Sink::open(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("as it is configured"), "{error}");
}

/// The index cache: what is fetched once is not fetched again, by whoever searches here, as long as it is the same.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_fetched_once_and_again_when_they_are_others() {
    let lab = Lab::new().await;
    let (ours, other) = (lab.hub("hub-a").await, lab.hub("hub-b").await);
    let ids: Vec<_> = (1..=5).map(|number| header(number).session_id).collect();
    for id in &ids {
        ours.open(id, b"head").await.unwrap();
        ours.stage(id, 0, b"sealed").await.unwrap();
        ours.finish(id).await.unwrap();
    }
    assert!(ours.drained(lab.patience).await);
    for id in &ids {
        ours.put_index(id, id.to_string().as_bytes()).await.unwrap();
    }
    // Two questions for all of them, and a fetch for each that is new here.
    let read_all = async |hub: &S3Sink| {
        let before = lab.requests();
        assert_eq!(hub.survey(Part::Sealed).await.unwrap().len(), ids.len());
        let mut found = Vec::new();
        for stored in hub.survey(Part::Index).await.unwrap() {
            found.push(hub.read_stored(&stored, Part::Index).await.unwrap());
        }
        (found, lab.requests() - before)
    };
    let written: Vec<_> = ids.iter().map(|id| id.to_string().into_bytes()).collect();
    assert_eq!(read_all(&ours).await, (written.clone(), 2), "it wrote them");
    assert_eq!(read_all(&other).await, (written.clone(), 2 + 5));
    assert_eq!(read_all(&other).await, (written.clone(), 2));
    // Another process over the same spool goes on with them.
    drop(other);
    let other = lab.hub("hub-b").await;
    assert_eq!(read_all(&other).await, (written.clone(), 2));
    // A damaged copy is fetched, an index that is another one too.
    let copies = std::fs::read_dir(lab.path("hub-b").join("indexes")).unwrap();
    let copies: Vec<_> = copies.map(|it| it.unwrap().path()).collect();
    assert_eq!(copies.len(), 5);
    let mut damaged = std::fs::read(&copies[0]).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&copies[0], damaged).unwrap();
    assert_eq!(read_all(&other).await, (written.clone(), 2 + 1));
    let mut changed = written;
    changed[2] = b"made again".to_vec();
    ours.put_index(&ids[2], &changed[2]).await.unwrap();
    assert_eq!(read_all(&other).await, (changed.clone(), 2 + 1));
    assert_eq!(read_all(&ours).await, (changed, 2));
    // Where a recording was removed, no copy stays behind.
    ours.remove(&ids[0]).await.unwrap();
    assert_eq!(other.survey(Part::Index).await.unwrap().len(), 4);
    for hub in ["hub-a", "hub-b"] {
        let copies = std::fs::read_dir(lab.path(hub).join("indexes")).unwrap();
        assert_eq!(copies.count(), 4, "{hub}");
    }
}
