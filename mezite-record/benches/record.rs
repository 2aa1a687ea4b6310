//! What recording costs, in one run beside what cannot be avoided: `cargo bench -p mezite-record`. Divide the figures of
//! one run; none means anything across machines. `-- --full` seeks in 1 GiB and searches 1,000 recordings; with words (`random`,
//! `text`, `zeros`, `sizes`, `seek`, `search`) it does these alone.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::string_slice,
    reason = "a bench fails by panicking, reads the clock and prints a table"
)]

use std::env;
use std::io::Cursor;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use mezite_core::{NodeId, SessionId, Span, UnixTime};
use mezite_record::export::{Options, asciicast_v2};
use mezite_record::search::{self, Query};
use mezite_record::sink::conformance::block_on;
use mezite_record::{
    ChannelEvent, Frame, Header, Identity, MemorySink, Part, Recorder, Recording, Sink, SinkError,
    Timed, verify,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

const START: UnixTime = UnixTime::from_secs(1_700_000_000);
/// What the proxy records at once.
const PIECE: usize = 32 * 1024;
const MIB: usize = 1024 * 1024;

fn main() {
    // `cargo test --benches` runs it too: a little of everything.
    let full = env::args().any(|it| it == "--full");
    let measured = env::args().any(|it| it == "--bench");
    let mib = match (full, measured) {
        (true, _) => 1024,
        (false, true) => 128,
        (false, false) => 2,
    };
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|it| !it.starts_with("--"))
        .collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|it| it == name);
    throughput(mib, if measured { 3 } else { 1 }, wanted);
    if wanted("sizes") {
        sizes();
    }
    if wanted("seek") {
        seek(mib);
    }
    if wanted("search") {
        searching(match (full, measured) {
            (true, _) => 1000,
            (false, true) => 100,
            (false, false) => 3,
        });
    }
}

fn header(number: u32) -> Header {
    let mut random = [1; 16];
    random[12..].copy_from_slice(&number.to_be_bytes());
    Header {
        session_id: SessionId::new(START, random),
        cluster: "example".parse().unwrap(),
        user: "alice".parse().unwrap(),
        node_id: NodeId::new([2; 16]),
        node: "db-1".parse().unwrap(),
        login: "root".parse().unwrap(),
        started: START,
        source: None,
    }
}

fn open(number: u32, identity: &Identity) -> (Arc<MemorySink>, Recorder) {
    let sink = Arc::new(MemorySink::new());
    let recorder = record(sink.clone(), number, identity);
    (sink, recorder)
}

fn record(sink: Arc<dyn Sink>, number: u32, identity: &Identity) -> Recorder {
    let signer = Arc::new(SigningKey::from_bytes(&[9; 32]));
    let mut rng = StdRng::seed_from_u64(number.into());
    let reader = [identity.recipient()];
    let opened = Recorder::open(sink, &header(number), &reader, signer, &mut rng);
    block_on(opened).unwrap()
}

fn sealed(number: u32, identity: &Identity, frames: impl IntoIterator<Item = Timed>) -> Vec<u8> {
    let (sink, mut recorder) = open(number, identity);
    let mut end = START;
    for timed in frames {
        end = START.plus(timed.at);
        block_on(recorder.record(end, timed.frame)).unwrap();
    }
    block_on(recorder.finish(end)).unwrap();
    block_on(sink.read(&header(number).session_id, Part::Sealed, 0, usize::MAX)).unwrap()
}

fn at(millis: u64, frame: Frame) -> Timed {
    Timed {
        at: Span::from_millis(millis),
        frame,
    }
}

/// Storage that costs what any would: one copy of the journal. It takes the sealed file, and keeps nothing of it.
#[derive(Debug, Default)]
struct Tape(Mutex<Vec<u8>>);

impl Tape {
    /// With memory that is there already.
    fn of(length: usize) -> Self {
        let mut tape = vec![1; length];
        tape.clear();
        Self(Mutex::new(tape))
    }
}

#[async_trait]
impl Sink for Tape {
    async fn open(&self, id: &SessionId, head: &[u8]) -> Result<(), SinkError> {
        self.append(id, head).await
    }

    async fn append(&self, _: &SessionId, bytes: &[u8]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    async fn sync(&self, _: &SessionId) -> Result<(), SinkError> {
        Ok(())
    }

    async fn stage(&self, _: &SessionId, _: u64, bytes: &[u8]) -> Result<(), SinkError> {
        std::hint::black_box(bytes);
        Ok(())
    }

    async fn finish(&self, _: &SessionId) -> Result<(), SinkError> {
        Ok(())
    }

    async fn put_index(&self, id: &SessionId, _: &[u8]) -> Result<(), SinkError> {
        Err(SinkError::Missing(*id))
    }

    async fn remove(&self, id: &SessionId) -> Result<(), SinkError> {
        Err(SinkError::Missing(*id))
    }

    async fn read(
        &self,
        _: &SessionId,
        _: Part,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<u8>, SinkError> {
        let tape = self.0.lock().unwrap();
        let rest = tape.get(offset as usize..).unwrap_or_default();
        Ok(rest.get(..limit).unwrap_or(rest).to_vec())
    }

    async fn length(&self, _: &SessionId, _: Part) -> Result<u64, SinkError> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    async fn list(&self, _: Part) -> Result<Vec<SessionId>, SinkError> {
        Ok(Vec::new())
    }
}

/// What this thread has spent of a processor: other work on the machine does not count. The clock where Linux does not tell.
fn spent() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGUN.elapsed(), Duration::from_nanos)
}

/// MiB a second.
fn rate(mib: usize, took: Duration) -> f64 {
    mib as f64 / took.as_secs_f64()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(7).fill_bytes(&mut bytes);
    bytes
}

/// Lines as logs have them.
fn log(length: usize) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(8);
    let mut text = String::with_capacity(length + 200);
    while text.len() < length {
        let number = rng.next_u32();
        text.push_str(&format!(
            "2026-11-25T20:{:02}:{:02}.{:03}Z web-{} nginx: GET /item/{number} 200 {}\r\n",
            number % 60,
            number / 60 % 60,
            number % 1000,
            number % 7,
            number % 90_000,
        ));
    }
    text.truncate(length);
    text.into_bytes()
}

fn throughput(mib: usize, rounds: usize, wanted: impl Fn(&str) -> bool) {
    println!(
        "throughput of {mib} MiB in MiB a second of a processor (share of zstd -1 and AES-256-GCM alone), best of {rounds}"
    );
    for (name, data) in [
        ("random", noise(MIB)),
        ("text", log(MIB)),
        ("zeros", vec![0; MIB]),
    ] {
        if !wanted(name) {
            continue;
        }
        // As they come from the connection: shared, not copied.
        let data = Bytes::from(data);
        let [mut alone, mut recorded, mut sealed] = [Duration::MAX; 3];
        let mut bytes = 0;
        // In turn, so that what else the machine does meets all three.
        for _ in 0..rounds {
            let identity = Identity::generate();
            alone = alone.min(floor(&data, mib));
            let mut recorder = record(Arc::new(Tape::of(mib * (MIB + 8192) + MIB)), 1, &identity);
            let begun = spent();
            for round in 0..mib {
                for piece in 0..MIB / PIECE {
                    let now = START.plus(Span::from_millis(round as u64));
                    let piece = data.slice(piece * PIECE..(piece + 1) * PIECE);
                    block_on(recorder.record(now, Frame::stdout(0, piece))).unwrap();
                }
            }
            recorded = recorded.min(spent().saturating_sub(begun));
            let begun = spent();
            let summary = block_on(recorder.finish(START.plus(Span::from_secs(3600)))).unwrap();
            sealed = sealed.min(spent().saturating_sub(begun));
            bytes = summary.bytes;
        }
        let share = |took: Duration| alone.as_secs_f64() / took.as_secs_f64();
        println!(
            "  {name:7} alone {:6.0}  while it runs {:6.0} ({:.2})  at the end {:6.0} ({:.2})  both {:.2}  bytes {:.4} of what was shown",
            rate(mib, alone),
            rate(mib, recorded),
            share(recorded),
            rate(mib, sealed),
            share(sealed),
            share(recorded + sealed),
            bytes as f64 / (mib * MIB) as f64,
        );
    }
}

/// zstd level 1, then AES-256-GCM, in the pieces of sealed chunks.
fn floor(data: &[u8], rounds: usize) -> Duration {
    let cipher = Aes256Gcm::new((&[7; 32]).into());
    let mut packer = zstd::bulk::Compressor::new(1).unwrap();
    let begun = spent();
    for _ in 0..rounds {
        let mut packed = packer.compress(data).unwrap();
        let nonce = [0; 12].into();
        let body = packed.as_mut_slice().into();
        let _tag = cipher.encrypt_inout_detached(&nonce, b"", body).unwrap();
    }
    spent().saturating_sub(begun)
}

/// An hour of somebody who types commands: prompts, echoes of single keys, output now and then.
fn hour(number: u32) -> Vec<Timed> {
    let mut rng = StdRng::seed_from_u64(number.into());
    let pty = ChannelEvent::Pty {
        term: "xterm-256color".into(),
        cols: 120,
        rows: 40,
    };
    let mut frames = vec![at(0, Frame::channel(0, pty))];
    let mut now = 0;
    let output = String::from_utf8(log(64 * 1024)).unwrap();
    while now < 3_600_000 {
        frames.push(at(
            now,
            Frame::stdout(0, "\u{1b}[?2004h\u{1b}[1;32malice@web\u{1b}[0m:~$ "),
        ));
        let command = format!("grep {} /var/log/messages", rng.next_u32() % 1000);
        for key in command.chars() {
            now += 80 + u64::from(rng.next_u32() % 200);
            frames.push(at(now, Frame::stdout(0, key.to_string())));
        }
        now += 40;
        frames.push(at(now, Frame::stdout(0, "\r\n\u{1b}[?2004l\r")));
        for _ in 0..rng.next_u32() % 6 {
            now += 5;
            let from = rng.next_u32() as usize % 60_000;
            let piece = &output[from..from + 200 + rng.next_u32() as usize % 3000];
            frames.push(at(now, Frame::stdout(0, piece.to_owned())));
        }
        now += 2000 + u64::from(rng.next_u32() % 20_000);
    }
    frames
}

fn sizes() {
    let identity = Identity::generate();
    let frames = hour(1);
    let file = sealed(1, &identity, frames.iter().cloned());
    let mut cast = Vec::new();
    let each = frames.into_iter().map(Ok);
    asciicast_v2(&header(1), each, Options::default(), &mut cast).unwrap();
    let packed = zstd::bulk::compress(&cast, 1).unwrap();
    let best = zstd::bulk::compress(&cast, 3).unwrap();
    println!(
        "an hour of typing: {} bytes; as asciicast {}, with zstd -1 {} ({:.2}), with zstd -3 {} ({:.2})",
        file.len(),
        cast.len(),
        packed.len(),
        file.len() as f64 / packed.len() as f64,
        best.len(),
        file.len() as f64 / best.len() as f64,
    );
}

fn seek(mib: usize) {
    let identity = Identity::generate();
    let data = noise(1024 * 1024);
    let frames = (0..mib).flat_map(|round| {
        let pieces = data.chunks(PIECE).enumerate();
        let moment = move |piece: usize| (round * 32 + piece) as u64 * 10;
        pieces.map(move |(piece, bytes)| at(moment(piece), Frame::stdout(0, bytes.to_vec())))
    });
    let file = sealed(1, &identity, frames);
    let begun = Instant::now();
    verify(
        &file[..],
        &[SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes()],
    )
    .unwrap();
    let verified = begun.elapsed();
    let mut recording = Recording::open(Cursor::new(&file), vec![identity]).unwrap();
    let end = mib as u64 * 320;
    let mut slowest = Duration::ZERO;
    for tenth in [9, 1, 5, 0, 10] {
        let to = Span::from_millis(end * tenth / 10);
        let begun = Instant::now();
        recording.seek(to).unwrap();
        let reached = recording
            .by_ref()
            .map(Result::unwrap)
            .find(|timed| timed.at >= to);
        slowest = slowest.max(begun.elapsed());
        assert!(reached.is_some() || tenth == 10);
    }
    println!("a recording of {mib} MiB: seek {slowest:.1?} at most, verify {verified:.1?}");
}

fn searching(count: u32) {
    let identity = Identity::generate();
    let mut rng = StdRng::seed_from_u64(3);
    let own = [identity];
    let mut built = Duration::ZERO;
    let indexes: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let [identity] = &own;
            let file = sealed(number, identity, hour(number));
            let begun = Instant::now();
            let index = search::build(&file[..], &own, &mut rng).unwrap();
            built += begun.elapsed();
            index
        })
        .collect();
    let bytes: usize = indexes.iter().map(Vec::len).sum();
    for text in ["grep 77 /var", "not to be found anywhere"] {
        for ignore_case in [false, true] {
            let query = Query::new(text, ignore_case).unwrap();
            let (begun, cost) = (Instant::now(), spent());
            let hits: usize = indexes
                .iter()
                .map(|index| search::search(index, &own, &query, 10).unwrap().hits.len())
                .sum();
            let case = if ignore_case { " in any case" } else { "" };
            println!(
                "search of {count} hours for `{text}`{case}: {:.1?} ({:.1?} of a processor), {hits} lines",
                begun.elapsed(),
                spent().saturating_sub(cost),
            );
        }
    }
    println!(
        "  {} bytes of index each, built in {:.1?} each",
        bytes / count.max(1) as usize,
        built / count.max(1)
    );
}
