//! One small session, recorded.
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use mezite_core::{NodeId, SessionId, Span, UnixTime};
use mezite_record::sink::conformance::block_on;
use mezite_record::{
    ChannelEvent, Decoded, Decoder, Ending, FileAction, FileAttributes, FileOperation,
    FileProtocol, Frame, Header, Identity, MemorySink, Outcome, Part, Recorder, Sink, Summary,
    Timed, Transfer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub(crate) const START: UnixTime = UnixTime::from_secs(1_700_000_000);

pub(crate) fn signer() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_bytes(&[9; 32]))
}

pub(crate) fn trusted() -> [u8; 32] {
    signer().verifying_key().to_bytes()
}

pub(crate) fn header(number: u8) -> Header {
    Header {
        session_id: SessionId::new(START, [number; 16]),
        cluster: "example".parse().unwrap(),
        user: "alice".parse().unwrap(),
        node_id: NodeId::new([2; 16]),
        node: "db-1".parse().unwrap(),
        login: "root".parse().unwrap(),
        started: START,
        source: Some([127, 0, 0, 1].into()),
    }
}

pub(crate) fn at(millis: u64, frame: Frame) -> Timed {
    Timed {
        at: Span::from_millis(millis),
        frame,
    }
}

pub(crate) fn session() -> Vec<Timed> {
    vec![
        at(
            0,
            Frame::channel(
                0,
                ChannelEvent::Opened {
                    kind: "session".into(),
                },
            ),
        ),
        at(
            1,
            Frame::channel(
                0,
                ChannelEvent::Pty {
                    term: "xterm".into(),
                    cols: 80,
                    rows: 24,
                },
            ),
        ),
        at(2, Frame::channel(0, ChannelEvent::Shell)),
        at(100, Frame::stdout(0, "$ ")),
        at(900, Frame::stdout(0, "hello hello hello hello hello\r\n")),
        at(
            1200,
            Frame::Resize {
                channel: 0,
                cols: 100,
                rows: 30,
            },
        ),
        at(1300, Frame::channel(0, ChannelEvent::Exit { status: 0 })),
        at(1300, Frame::channel(0, ChannelEvent::Closed)),
    ]
}

/// A session with chunks of every kind: small ones, some that a journal packs and that are packed again at the end, some that
/// stand in the sealed file as the journal has them.
pub(crate) fn bulk() -> Vec<Timed> {
    let page = "a line of a page\r\n".repeat(150);
    let large = "a line of a large file\r\n".repeat(1000);
    vec![
        at(0, Frame::channel(0, ChannelEvent::Shell)),
        at(5, Frame::stdout(0, page.clone())),
        at(9, Frame::stdout(0, large.clone())),
        at(9, Frame::stdout(0, large.clone())),
        at(12, Frame::stderr(0, page)),
        at(20, Frame::stdout(0, large)),
        at(30, Frame::stdout(0, "$ ")),
    ]
}

/// A session that copies a file in and looks for another.
pub(crate) fn files() -> Vec<Timed> {
    let name = "sftp".into();
    let upload = FileOperation {
        protocol: FileProtocol::Sftp,
        action: FileAction::Close,
        file: 1,
        path: "/srv/plan".into(),
        target: Bytes::new(),
        flags: 0,
        attributes: FileAttributes::default(),
        entries: 0,
        read: None,
        written: Some(Transfer {
            bytes: 3,
            whole: true,
            sha256: Some([0xab; 32]),
            ranges: vec![(0, 3)],
            more: false,
        }),
        outcome: Outcome::OK,
    };
    let missing = FileOperation {
        action: FileAction::Rename,
        file: 0,
        target: "/srv/b".into(),
        written: None,
        outcome: Outcome::Status {
            code: 2,
            message: "No such file".into(),
        },
        ..upload.clone()
    };
    let operation = |operation| Frame::File {
        channel: 0,
        operation: Box::new(operation),
    };
    let content = Frame::Content {
        channel: 0,
        file: 1,
        to_node: true,
        offset: 0,
        data: "abc".into(),
    };
    vec![
        at(0, Frame::channel(0, ChannelEvent::Subsystem { name })),
        at(10, content),
        at(20, operation(upload)),
        at(30, operation(missing)),
    ]
}

/// A recorder that has recorded `frames` into a memory sink.
pub(crate) fn record(
    number: u8,
    identity: &Identity,
    frames: &[Timed],
) -> (Arc<MemorySink>, Recorder) {
    let sink = Arc::new(MemorySink::new());
    let mut rng = StdRng::seed_from_u64(number as u64);
    let opened = Recorder::open(
        sink.clone(),
        &header(number),
        &[identity.recipient()],
        signer(),
        &mut rng,
    );
    let mut recorder = block_on(opened).unwrap();
    for timed in frames {
        block_on(recorder.record(START.plus(timed.at), timed.frame.clone())).unwrap();
    }
    (sink, recorder)
}

pub(crate) fn seal(number: u8, identity: &Identity, frames: &[Timed]) -> (Vec<u8>, Summary) {
    let (sink, recorder) = record(number, identity, frames);
    let summary = block_on(recorder.finish(START.plus(Span::from_secs(2)))).unwrap();
    (whole(sink.as_ref(), number, Part::Sealed), summary)
}

pub(crate) fn whole(sink: &dyn Sink, number: u8, part: Part) -> Vec<u8> {
    block_on(sink.read(&header(number).session_id, part, 0, usize::MAX)).unwrap()
}

/// A second value of the same identity.
pub(crate) fn again(identity: &Identity) -> Identity {
    identity.to_secret_text().expose().parse().unwrap()
}

/// Everything that reads before the first error or the end, fed in steps.
pub(crate) fn decode(
    bytes: &[u8],
    identity: &Identity,
    step: usize,
) -> (Vec<Timed>, Result<Ending, mezite_record::DecodeError>) {
    let mut decoder = Decoder::new(vec![again(identity)]);
    let mut frames = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(Decoded::Frame(timed))) => frames.push(timed),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(decoder.ending()))
}
