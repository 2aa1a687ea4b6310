//! Re-sealing: one commit, so that a death at any step leaves keys that one of the two sealing keys opens.

use std::sync::Arc;

use mezite_auth::{Auth, OpenError, reseal};
use mezite_ca::seal::{KeyFile, Passphrase, Sealer};
use mezite_core::Secret;
use mezite_core::store::Store;

use crate::rig::{Rig, settings};

fn key_file(byte: &str) -> Arc<dyn Sealer> {
    let content = format!("{}\n", byte.repeat(32));
    Arc::new(KeyFile::parse(content.as_bytes()).unwrap())
}

fn passphrase(words: &str) -> Arc<dyn Sealer> {
    Arc::new(Passphrase::new(Secret::new(words.to_owned())))
}

async fn opens(rig: &Rig, sealer: &Arc<dyn Sealer>) -> Result<Auth, OpenError> {
    Auth::open(
        rig.store.clone(),
        rig.clock.clone(),
        Arc::clone(sealer),
        settings(),
    )
    .await
}

async fn moves(
    rig: &Rig,
    from: &Arc<dyn Sealer>,
    to: &Arc<dyn Sealer>,
) -> Result<usize, OpenError> {
    reseal(&*rig.store, &*rig.clock, &settings(), &**from, &**to).await
}

async fn sealed(rig: &Rig) -> Vec<Vec<u8>> {
    let found = rig.store.list("ca/", None, 100).await.unwrap();
    found.into_iter().map(|(_, stored)| stored.value).collect()
}

/// Key file to passphrase, passphrase to another, and back to a file: a systemd credential is a key file too.
#[tokio::test]
async fn attack_72_after_resealing_the_old_key_opens_nothing() {
    let rig = Rig::new().await;
    let trust = rig.auth.trust();
    let mut held = Arc::clone(&rig.sealer);
    let ways = [
        passphrase("correct horse battery staple"),
        passphrase("another one"),
        key_file("c3"),
        key_file("d4"),
    ];
    for (count, next) in ways.into_iter().enumerate() {
        let before = sealed(&rig).await;
        assert_eq!(moves(&rig, &held, &next).await.unwrap(), before.len());
        assert!(before.iter().all(|old| !old.is_empty()));
        let after = sealed(&rig).await;
        assert!(before.iter().zip(&after).all(|(old, new)| old != new));
        let refused = opens(&rig, &held).await.unwrap_err();
        assert!(matches!(refused, OpenError::Seal { .. }), "{refused}");
        let auth = opens(&rig, &next).await.unwrap();
        assert_eq!(auth.trust(), trust, "the keys are the same");
        // A second run has nothing to do, and tells of nothing.
        assert_eq!(moves(&rig, &held, &next).await.unwrap(), 0);
        let events = rig.events("ca.resealed").await;
        assert_eq!(events.len(), count + 1);
        assert_eq!(events[count]["count"], before.len());
        held = next;
    }
}

/// The disk is lost before, at and after the one step that writes.
#[tokio::test]
async fn attack_72_resealing_survives_a_death_at_each_step() {
    let rig = Rig::new().await;
    let (old, new) = (Arc::clone(&rig.sealer), key_file("c3"));
    let before = sealed(&rig).await;
    rig.break_disk(true);
    let lost = moves(&rig, &old, &new).await.unwrap_err();
    assert!(matches!(lost, OpenError::Store(_)), "{lost}");
    rig.break_disk(false);
    assert_eq!(sealed(&rig).await, before, "nothing moved");
    opens(&rig, &old).await.unwrap();
    // Written, and the answer lost with the process: the next start finds the work done.
    rig.store.lose_answer();
    let lost = moves(&rig, &old, &new).await.unwrap_err();
    assert!(matches!(lost, OpenError::Store(_)), "{lost}");
    assert_eq!(moves(&rig, &old, &new).await.unwrap(), 0);
    opens(&rig, &new).await.unwrap();
    assert!(opens(&rig, &old).await.is_err());
    assert_eq!(rig.events("ca.resealed").await.len(), 1);
}

#[tokio::test]
async fn attack_72_a_key_that_opens_with_neither_is_left_alone() {
    let rig = Rig::new().await;
    let before = sealed(&rig).await;
    let error = moves(&rig, &key_file("e5"), &key_file("c3"))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Reseal { .. }), "{error}");
    assert!(error.to_string().contains("sealing_previous"), "{error}");
    assert_eq!(sealed(&rig).await, before);
    let elsewhere = mezite_auth::Settings::new("elsewhere".parse().unwrap());
    let other = reseal(
        &*rig.store,
        &*rig.clock,
        &elsewhere,
        &*rig.sealer,
        &*key_file("c3"),
    )
    .await;
    assert!(matches!(other, Err(OpenError::Cluster { .. })), "{other:?}");
    assert_eq!(sealed(&rig).await, before);
}
