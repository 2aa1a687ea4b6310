//! The directory sink: the suite, and what only files can do.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use mezite_core::{NodeId, SessionId, Span, UnixTime};
use mezite_record::sink::conformance::{self, block_on};
use mezite_record::{
    Frame, Header, Identity, Part, Recorder, Recording, Sink, SinkError, recover, verify,
};
use mezite_vault::DirectorySink;
use tempfile::TempDir;

const START: UnixTime = UnixTime::from_secs(1_767_225_600);

fn id() -> SessionId {
    SessionId::new(START, [7; 16])
}

fn signer() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_bytes(&[9; 32]))
}

fn fresh() -> (TempDir, Arc<DirectorySink>) {
    let root = tempfile::tempdir().unwrap();
    let sink = DirectorySink::open(root.path().join("recordings")).unwrap();
    (root, Arc::new(sink))
}

fn reopen(root: &TempDir) -> DirectorySink {
    DirectorySink::open(root.path().join("recordings")).unwrap()
}

fn journal(root: &Path) -> PathBuf {
    root.join(format!("recordings/2026-01/{}.mzr.live", id()))
}

fn recorder(sink: Arc<DirectorySink>, identity: &Identity) -> Recorder {
    let header = Header {
        session_id: id(),
        cluster: "example".parse().unwrap(),
        user: "alice".parse().unwrap(),
        node_id: NodeId::new([2; 16]),
        node: "db-1".parse().unwrap(),
        login: "root".parse().unwrap(),
        started: START,
        source: None,
    };
    let recipients = [identity.recipient()];
    block_on(Recorder::open(
        sink,
        &header,
        &recipients,
        signer(),
        &mut rand::rng(),
    ))
    .unwrap()
}

fn names(root: &TempDir) -> Vec<String> {
    let month = root.path().join("recordings/2026-01");
    let mut names: Vec<_> = fs::read_dir(month)
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    block_on(conformance::all(async || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        DirectorySink::open(root.path().join(number.to_string())).unwrap()
    }));
}

#[test]
fn a_session_becomes_one_private_file_that_verifies() {
    let (root, sink) = fresh();
    let identity = Identity::generate();
    let mut recorder = recorder(sink.clone(), &identity);
    block_on(recorder.record(START, Frame::stdout(0, "hello"))).unwrap();
    assert_eq!(names(&root), [format!("{}.mzr.live", id())]);
    block_on(recorder.sync()).unwrap();
    let summary = block_on(recorder.finish(START.plus(Span::from_secs(1)))).unwrap();
    assert_eq!(names(&root), [format!("{}.mzr", id())]);
    let path = sink.sealed_path(&id());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&root.path().join("recordings")), 0o700);
    let trusted = [signer().verifying_key().to_bytes()];
    let verified = verify(fs::File::open(&path).unwrap(), &trusted).unwrap();
    assert_eq!(verified.digest, summary.digest);
    let recording = Recording::open(fs::File::open(&path).unwrap(), vec![identity]).unwrap();
    assert_eq!(
        recording.map(|it| it.unwrap().frame).collect::<Vec<_>>(),
        [Frame::stdout(0, "hello")]
    );
}

#[test]
fn attack_48_what_a_dead_process_left_is_closed_at_the_next_start() {
    let (root, sink) = fresh();
    let identity = Identity::generate();
    let mut recorder = recorder(sink.clone(), &identity);
    block_on(recorder.record(START, Frame::stdout(0, "shown"))).unwrap();
    // A death in the middle of sealing, and of a write.
    block_on(sink.stage(&id(), 0, b"half a file")).unwrap();
    drop((recorder, sink));
    let mut torn = fs::read(journal(root.path())).unwrap();
    torn.extend_from_slice(&[1, 0, 0]);
    fs::write(journal(root.path()), torn).unwrap();

    let sink = reopen(&root);
    assert_eq!(block_on(sink.list(Part::Journal)), Ok(vec![id()]));
    let summary = block_on(recover(&sink, id(), signer().as_ref())).unwrap();
    assert_eq!(
        (summary.frames, summary.dropped, summary.recovered),
        (1, 3, true)
    );
    assert_eq!(names(&root), [format!("{}.mzr", id())]);
    let file = fs::File::open(sink.sealed_path(&id())).unwrap();
    let frames: Vec<_> = Recording::open(file, vec![identity])
        .unwrap()
        .map(|it| it.unwrap().frame)
        .collect();
    assert_eq!(frames, [Frame::stdout(0, "shown")]);
}

#[test]
fn attack_48_a_death_between_publishing_and_clearing_leaves_nothing_to_recover() {
    let (root, sink) = fresh();
    let recorder = recorder(sink.clone(), &Identity::generate());
    let live = fs::read(journal(root.path())).unwrap();
    block_on(recorder.finish(START)).unwrap();
    let sealed = fs::read(sink.sealed_path(&id())).unwrap();
    fs::write(journal(root.path()), live).unwrap();
    fs::write(
        root.path()
            .join(format!("recordings/2026-01/{}.mzr.part", id())),
        b"x",
    )
    .unwrap();
    assert_eq!(block_on(reopen(&root).list(Part::Journal)), Ok(vec![]));
    assert_eq!(names(&root), [format!("{}.mzr", id())]);
    assert_eq!(fs::read(sink.sealed_path(&id())).unwrap(), sealed);
}

#[test]
fn attack_49_a_session_that_runs_elsewhere_is_not_recovered() {
    let (root, sink) = fresh();
    let _running = recorder(sink, &Identity::generate());
    let other = reopen(&root);
    let refused = block_on(other.stage(&id(), 0, b"x"));
    assert!(matches!(refused, Err(SinkError::Unavailable(why)) if why.contains("another process")));
}

#[test]
fn attack_52_a_file_in_the_way_is_never_overwritten() {
    let (root, sink) = fresh();
    block_on(sink.open(&id(), b"live")).unwrap();
    block_on(sink.stage(&id(), 0, b"new")).unwrap();
    fs::write(sink.sealed_path(&id()), b"old").unwrap();
    assert_eq!(block_on(sink.finish(&id())), Err(SinkError::Exists(id())));
    assert_eq!(fs::read(sink.sealed_path(&id())).unwrap(), b"old");
    assert!(journal(root.path()).exists(), "and the journal stays");
}

#[test]
fn strange_files_are_not_recordings() {
    let (root, sink) = fresh();
    block_on(sink.open(&id(), b"live")).unwrap();
    let recordings = root.path().join("recordings");
    fs::write(recordings.join("notes.txt"), b"").unwrap();
    fs::write(recordings.join("2026-01/nonsense.mzr"), b"").unwrap();
    fs::create_dir(recordings.join("1999-01")).unwrap();
    fs::write(
        recordings.join(format!("1999-01/{}.mzr", id())),
        b"in the wrong month",
    )
    .unwrap();
    assert_eq!(block_on(sink.list(Part::Sealed)), Ok(vec![]));
    assert_eq!(block_on(sink.list(Part::Journal)), Ok(vec![id()]));
}

/// Runs `name` of this file again as a process whose files may not exceed 64 KiB.
fn in_small_process(name: &str) -> bool {
    if std::env::var_os("MEZITE_SMALL").is_some() {
        return true;
    }
    let me = std::env::current_exe().unwrap();
    // `ulimit -f` counts 512-byte blocks in dash and 1024-byte ones in bash: 64 or 128 KiB. SIGXFSZ is ignored, so
    // that writing fails with EFBIG.
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact \"$1\" --nocapture";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(me)
        .arg(name)
        .env("MEZITE_SMALL", "1")
        .status()
        .unwrap();
    assert!(status.success());
    false
}

#[test]
fn attack_48_a_full_disk_fails_the_write_and_leaves_whole_chunks() {
    if !in_small_process("attack_48_a_full_disk_fails_the_write_and_leaves_whole_chunks") {
        return;
    }
    let (root, sink) = fresh();
    let identity = Identity::generate();
    let mut recorder = recorder(sink.clone(), &identity);
    // As long on the disk as on the screen.
    let mut noise = vec![0; 30_000];
    rand::fill(&mut noise[..]);
    let mut shown = 0;
    while block_on(recorder.record(START, Frame::stdout(0, noise.clone()))).is_ok() {
        shown += 1;
        assert!(shown < 100, "the limit holds");
    }
    assert!(shown >= 1);
    drop((recorder, sink));
    let bytes = fs::read(journal(root.path())).unwrap();
    let mut recording = Recording::open(&bytes[..], vec![identity]).unwrap();
    assert_eq!(recording.by_ref().map(Result::unwrap).count(), shown);
    assert_eq!(
        recording.ending(),
        mezite_record::Ending::Open { left: 0 },
        "no torn chunk"
    );
}
