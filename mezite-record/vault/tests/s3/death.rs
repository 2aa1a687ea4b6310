//! Hubs that are killed, and disks that are lost.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mezite_record::{Frame, Identity, Part, Recording, Sink, recover};
use mezite_vault::S3Sink;

use crate::fault::Fault;
use crate::store::{Lab, id, noise, record, recorder, signer, whole};

/// Set in a process that plays the hub that will be killed: endpoint and spool, prefix, identity.
const VICTIM: [&str; 4] = [
    "MEZITE_VICTIM_ENDPOINT",
    "MEZITE_VICTIM_SPOOL",
    "MEZITE_VICTIM_PREFIX",
    "MEZITE_VICTIM_IDENTITY",
];

/// Runs the test `name` of this program as another process, over the same store.
fn victim(lab: &Lab, name: &str, identity: &Identity) -> Child {
    let settings = lab.settings("hub-a");
    let secret = identity.to_secret_text();
    let values = [
        settings.endpoint.as_deref().unwrap(),
        settings.spool.to_str().unwrap(),
        &settings.prefix,
        secret.expose(),
    ];
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .envs(VICTIM.into_iter().zip(values))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// In the victim, its sink.
async fn as_victim() -> Option<(Arc<S3Sink>, Identity)> {
    let [endpoint, spool, prefix, identity] = VICTIM.map(|name| std::env::var(name).ok());
    let mut settings = crate::store::settings(&endpoint?, &prefix?, "hub-a");
    settings.spool = spool?.into();
    let sink = S3Sink::open(&settings).await.unwrap();
    Some((Arc::new(sink), identity?.parse().unwrap()))
}

/// Kills it with SIGKILL.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn frames(hub: &S3Sink, identity: &Identity) -> Vec<Frame> {
    let file = whole(hub, Part::Sealed).await;
    let own = identity.to_secret_text().expose().parse().unwrap();
    let shown = Recording::open(&file[..], vec![own]).unwrap();
    shown.map(|it| it.unwrap().frame).collect()
}

fn line(number: u32) -> Vec<u8> {
    format!("line {number}\n").into_bytes()
}

/// Records lines for ever.
async fn record_for_ever(sink: Arc<S3Sink>, identity: &Identity) {
    let mut recorder = recorder(sink, identity).await;
    for number in 0_u32.. {
        record(&mut recorder, &line(number)).await;
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

fn is_in_order(frames: &[Frame]) -> bool {
    let mut expected = (0..).map(|number| Frame::stdout(0, line(number)));
    frames
        .iter()
        .all(|frame| Some(frame) == expected.next().as_ref())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_killed_hub_goes_on_from_its_spool() {
    if let Some((sink, identity)) = as_victim().await {
        return record_for_ever(sink, &identity).await;
    }
    let lab = Lab::new().await;
    let identity = Identity::generate();
    let name = "death::attack_48_a_killed_hub_goes_on_from_its_spool";
    let child = victim(&lab, name, &identity);
    let viewer = lab.hub("hub-b").await;
    lab.until("two pieces", async || lab.objects().await.len() > 2)
        .await;
    kill(child);
    let uploaded = whole(&*viewer, Part::Journal).await;
    let spooled = {
        let path = lab
            .path("hub-a")
            .join("2026-01")
            .join(format!("{}.mzr.live", id()));
        std::fs::read(path).unwrap()
    };
    assert!(spooled.starts_with(&uploaded) && !uploaded.is_empty());

    let hub = lab.hub("hub-a").await;
    assert_eq!(hub.unfinished().await, Ok(vec![id()]));
    assert_eq!(hub.fetch_lost(&[]).await, Ok(vec![]), "the spool has more");
    let summary = recover(&*hub, id(), signer().as_ref()).await.unwrap();
    assert!(summary.recovered);
    assert!(hub.drained(lab.patience).await);
    assert_eq!(
        lab.objects().await,
        [format!("recordings/2026-01/{}.mzr", id())]
    );
    let kept = frames(&viewer, &identity).await;
    assert_eq!(kept.len() as u64, summary.frames);
    assert!(kept.len() > 10 && is_in_order(&kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_lost_disk_costs_no_more_than_the_last_piece() {
    if let Some((sink, identity)) = as_victim().await {
        return record_for_ever(sink, &identity).await;
    }
    let lab = Lab::new().await;
    let identity = Identity::generate();
    let name = "death::attack_48_a_lost_disk_costs_no_more_than_the_last_piece";
    let child = victim(&lab, name, &identity);
    let other = lab.hub("hub-b").await;
    lab.until("two pieces", async || lab.objects().await.len() > 2)
        .await;
    assert_eq!(
        other.fetch_lost(&[]).await,
        Ok(vec![]),
        "others' sessions run"
    );
    kill(child);
    let uploaded = whole(&*other, Part::Journal).await;
    std::fs::remove_dir_all(lab.path("hub-a")).unwrap();

    // A hub that is told of the loss seals what there is; so does the next one of that name.
    let fetched = other.fetch_lost(&[String::from("hub-a")]).await;
    assert_eq!(fetched, Ok(vec![id()]));
    assert_eq!(whole(&*other, Part::Journal).await, uploaded);
    let again = lab.hub("hub-a").await;
    assert_eq!(again.fetch_lost(&[]).await, Ok(vec![id()]));
    let mut digests = Vec::new();
    for hub in [&other, &again] {
        digests.push(
            recover(&**hub, id(), signer().as_ref())
                .await
                .unwrap()
                .digest,
        );
    }
    assert_eq!(digests[0], digests[1], "both make the same file of it");
    for hub in [&other, &again] {
        assert!(hub.drained(lab.patience).await);
        let kept = frames(hub, &identity).await;
        assert!(kept.len() > 10 && is_in_order(&kept));
    }
    assert_eq!(
        lab.objects().await,
        [format!("recordings/2026-01/{}.mzr", id())]
    );
    assert!(lab.spooled("hub-a").is_empty() && lab.spooled("hub-b").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_48_a_hub_killed_in_an_upload_finishes_it_at_the_next_start() {
    const SIZE: usize = 20 * 1024 * 1024;
    if let Some((sink, _)) = as_victim().await {
        sink.open(&id(), b"head").await.unwrap();
        sink.stage(&id(), 0, &noise(SIZE)).await.unwrap();
        sink.finish(&id()).await.unwrap();
        sink.drained(Duration::from_secs(600)).await;
        return;
    }
    let lab = Lab::new().await;
    lab.fault(Fault::Slow(Duration::from_millis(20)));
    let name = "death::attack_48_a_hub_killed_in_an_upload_finishes_it_at_the_next_start";
    let child = victim(&lab, name, &Identity::generate());
    lab.until("the claim", async || {
        lab.objects().await.iter().any(|it| it.ends_with("claim"))
    })
    .await;
    lab.until("the journal's end", async || {
        lab.spooled("hub-a") == [format!("{}.mzr", id())]
    })
    .await;
    kill(child);
    lab.fault(Fault::None);
    let hub = lab.hub("hub-a").await;
    assert_eq!(hub.unfinished().await, Ok(vec![]));
    assert!(hub.drained(lab.patience).await);
    assert_eq!(
        lab.objects().await,
        [format!("recordings/2026-01/{}.mzr", id())]
    );
    assert_eq!(whole(&*hub, Part::Sealed).await, noise(SIZE));
}
