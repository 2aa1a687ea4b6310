//! A session is recorded, sealed to an auditor, verified by somebody without a key, and replayed by the auditor: all with
//! `mezite-record` alone.
//!
//! Without arguments a small session is made up and written to a file; with a file and a key it replays that one:
//! `replay-recording FILE KEY`, as `mezctl` and `age-keygen` write them.

#![expect(clippy::print_stdout, reason = "a program whose result is text")]
#![expect(clippy::disallowed_methods, reason = "it waits as the session did")]

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufReader, Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use ed25519_dalek::SigningKey;
use mezite_core::{NodeId, SessionId, Span, UnixTime};
use mezite_record::play::{Shown, Timeline};
use mezite_record::sink::conformance::block_on;
use mezite_record::{
    ChannelEvent, Frame, Header, Identity, MemorySink, Part, Recorder, Recording, Sink, verify,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => made_up(),
        [file, key] => {
            let keys = fs::read_to_string(key)?;
            let identities = keys.lines().filter_map(|line| line.parse().ok()).collect();
            replay(Path::new(file), identities)
        }
        _ => Err("usage: replay-recording [FILE KEY]".into()),
    }
}

/// Records a session, and then does what an auditor does.
fn made_up() -> Result<(), Box<dyn Error>> {
    let auditor = Identity::generate();
    let cluster = Arc::new(SigningKey::from_bytes(&[7; 32]));
    let file = env::temp_dir().join(format!("replay-recording-{}.mzr", std::process::id()));
    fs::write(&file, record(&auditor, cluster.clone())?)?;

    let verified = verify(File::open(&file)?, &[cluster.verifying_key().to_bytes()])?;
    println!(
        "verified without a key: {} of {} as {}@{}, {} frames, sha256 {}",
        verified.duration,
        verified.header.user,
        verified.header.login,
        verified.header.node,
        verified.frames,
        verified.digest
    );
    replay(&file, vec![auditor])?;
    Ok(fs::remove_file(file)?)
}

/// What a recording proxy does while somebody works.
fn record(auditor: &Identity, signer: Arc<SigningKey>) -> Result<Vec<u8>, Box<dyn Error>> {
    let started = UnixTime::from_secs(1_767_225_600);
    let header = Header {
        session_id: SessionId::new(started, [1; 16]),
        cluster: "example".parse()?,
        user: "alice".parse()?,
        node_id: NodeId::new([2; 16]),
        node: "db-1".parse()?,
        login: "postgres".parse()?,
        started,
        source: None,
    };
    let sink = Arc::new(MemorySink::new());
    let open = Recorder::open(
        sink.clone(),
        &header,
        &[auditor.recipient()],
        signer,
        &mut rand::rng(),
    );
    let mut recorder = block_on(open)?;
    let pty = ChannelEvent::Pty {
        term: "xterm".to_owned(),
        cols: 80,
        rows: 24,
    };
    for (millis, frame) in [
        (0, Frame::channel(0, pty)),
        (10, Frame::channel(0, ChannelEvent::Shell)),
        (100, Frame::stdout(0, "postgres@db-1:~$ ")),
        (600, Frame::stdout(0, "uptime\r\n\u{1b}[?2004l\r")),
        (700, Frame::stdout(0, " 12:00:01 up 3 days\r\n")),
        (900, Frame::channel(0, ChannelEvent::Exit { status: 0 })),
    ] {
        // What `record` returned for is written, and may be shown to the user.
        block_on(recorder.record(started.plus(Span::from_millis(millis)), frame))?;
    }
    block_on(recorder.finish(started.plus(Span::from_secs(1))))?;
    Ok(block_on(sink.read(
        &header.session_id,
        Part::Sealed,
        0,
        usize::MAX,
    ))?)
}

/// What a player does.
fn replay(file: &Path, identities: Vec<Identity>) -> Result<(), Box<dyn Error>> {
    let recording = Recording::open(BufReader::new(File::open(file)?), identities)?;
    let mut timeline = Timeline::collect(recording, None)?;
    for mark in timeline.marks() {
        println!("at {}: {}", mark.at, mark.label);
    }
    timeline.set_idle_limit(Some(Span::from_secs(2)));
    while let Some(step) = timeline.step() {
        thread::sleep(step.wait.as_duration());
        if let Shown::Text(text) = step.shown {
            print!("{text}");
            stdout().flush()?;
        }
    }
    Ok(())
}
